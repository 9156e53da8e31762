"""Sources: where in a request a rule finds a value, and how the value is taken.

`path.x`, `query.x`, `header.x`, `body.a.b`, `form.x`; a trailing `?` marks a value that may be absent, `[]` one that
may repeat. A value that is not there or is there twice is refused, never guessed.
"""

from __future__ import annotations

import difflib
import functools
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final, TypeAlias

import msgspec

from ..api.decode import encode_json
from ..exceptions import ValidationError
from ..secret_names import REDACTED, is_secret, redact


@functools.lru_cache(maxsize=1024)  # the same few names come with every request
def fold_header(name: str) -> str:
    """Return the one form in which the names of headers are compared.

    Letter case means nothing, and what comes through CGI's names (WSGI, below ASGI as well) has lost the difference
    between dash and underscore.
    """
    return name.lower().replace("_", "-")


class Missing(Enum):
    """The type of `MISSING`: no value, as opposed to null."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
_SCALARS: Final = (str, bool, int, float)
KINDS: Final = ("path", "query", "header", "body", "form")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class FieldError(ValidationError):
    """A request lacks a value that its rule reads, or holds it in a form that cannot be taken.

    The text names the source and never holds a value of the request.

    Attributes:
        source: the source as the rule writes it, `body.amount`.
    """

    def __init__(self, message: str = "", *, source: str = "", **fields: Any) -> None:
        fields.setdefault("field", source)
        super().__init__(message, **fields)
        self.source = source


class RequestFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule may read of one request: names of headers in lower case, the router's parameters, decoded pairs."""

    method: str
    template: str
    path_params: Mapping[str, Any] = msgspec.field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    headers: Sequence[tuple[str, str]] = ()
    body: Any = MISSING
    form: Sequence[tuple[str, str]] = ()


# Compared by identity, which is quick, and never takes 1 for True; parsing the same text gives the same object.
@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A literal value."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One parsed source: its kind, and the name that follows (a header's in lower case).

    The value of an `optional` one may be absent; that of one with `many` may repeat, and is a list always.
    """

    text: str
    kind: str
    name: str
    optional: bool = False
    many: bool = False

    def is_secret(self, names: frozenset[str]) -> bool:
        """Whether the value is a secret by its name."""
        return is_secret(self.name, names) or is_secret(self.name.rpartition(".")[2], names)

    def read(self, fields: RequestFields) -> Any:
        """Take the value; `MISSING` only if the source is optional.

        Raises:
            FieldError: it is absent, or repeated without being declared so.
        """
        if self.kind == "path":
            value = fields.path_params.get(self.name, MISSING)
            if not isinstance(value, _SCALARS):
                value = _plain(value)
        elif self.kind == "body":
            value = self._from_body(fields.body)
        else:
            return self._from_pairs(fields)
        if value is MISSING:
            return self._absent()
        return [value] if self.many and not isinstance(value, list) else value

    def _from_body(self, body: Any) -> Any:
        value = body
        for part in self.name.split("."):
            if isinstance(value, Mapping):
                value = value.get(part, MISSING)
            elif isinstance(value, list) and part.isascii() and part.isdigit() and len(part) < 10:
                value = value[int(part)] if int(part) < len(value) else MISSING
            else:
                return MISSING
        return value

    def _from_pairs(self, fields: RequestFields) -> Any:
        if self.kind == "header":
            values = self._header_values(fields.headers)
        else:
            pairs = fields.query if self.kind == "query" else fields.form
            values = [value for name, value in pairs if name == self.name]
            if self.kind == "form" and any(name == self.name for name, _ in fields.query):
                # Frameworks offer both as one, and the query comes first there (Flask's request.values).
                raise FieldError(f"{self.text}: the query holds a field of that name, too", source=self.text)
        if not values:
            return self._absent()
        if self.many:
            return values
        if len(values) > 1:
            raise FieldError(
                f"{self.text} occurs {len(values)} times in the request; it may occur once", source=self.text
            )
        return values[0]

    def _header_values(self, headers: Sequence[tuple[str, str]]) -> list[str]:
        # Servers disagree whether x_name is x-name, so that a handler may see what the rule did not.
        wanted = fold_header(self.name)
        found = [(name.lower(), value) for name, value in headers if fold_header(name) == wanted]
        if any(name != self.name for name, _ in found):
            raise FieldError(
                f"{self.text}: the request holds a header whose name differs only in dash and underscore",
                source=self.text,
            )
        return [value for _, value in found]

    def _absent(self) -> Any:
        if self.optional:
            return MISSING
        raise FieldError(f"{self.text} is missing in the request", source=self.text)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A text with sources in it: `refund for customer {path.customer_id}`."""

    parts: tuple[str | Source, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources in the text."""
        return tuple(part for part in self.parts if isinstance(part, Source))

    def render(self, fields: RequestFields, names: frozenset[str], secret: frozenset[Source]) -> str:
        """Fill the values in; absent optional values are empty.

        Within values the `names` of secrets are redacted, and whole those of sources in `secret`.

        Raises:
            FieldError: a value is absent, null, or repeated without being declared so.
        """
        texts = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = part.read(fields)
            if value is None and not part.optional:
                raise FieldError(f"{part.text} is null in the request", source=part.text)
            if part in secret:
                value = value if value is MISSING or value is None else REDACTED
            if isinstance(value, str):
                texts.append(value)
            elif type(value) is int and value.bit_length() < 64:
                texts.append(str(value))  # as JSON has it; one of thousands of digits is refused below
            elif value is not MISSING and value is not None:
                texts.append(_as_text(redact(value, names), part))
        return "".join(texts)


Value: TypeAlias = "Source | Const"


def _plain(value: Any) -> Any:
    """Turn what a router's convertor made into a JSON value."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, uuid.UUID | Decimal | PurePath):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if value is None or isinstance(value, Mapping) or value is MISSING:
        return value
    return str(value)


def _as_text(value: Any, source: Source) -> str:
    try:
        return encode_json(value).decode()
    except ValidationError:
        raise FieldError(f"{source.text} is no value that can be written as text", source=source.text) from None


@lru_cache(maxsize=4096)
def parse_source(text: str) -> Source:
    """Parse a source.

    Raises:
        ValueError: it says what is wrong and what may be meant.
    """
    rest, optional, many = text, False, False
    while rest.endswith(("?", "[]")):
        if rest.endswith("?") and not optional:
            rest, optional = rest[:-1], True
        elif rest.endswith("[]") and not many:
            rest, many = rest[:-2], True
        else:
            raise ValueError(f"{text!r} has its mark twice")
    kind, dot, name = rest.partition(".")
    if not dot or not kind.isidentifier():
        raise ValueError(
            f"{text!r} is no source; a source is one of path.x, query.x, header.x, body.a.b, form.x, "
            f"and a literal text is written {{ const = {text!r} }}"
        )
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {close[0]}.{name}?" if close else "a literal text is written { const = … }"
        raise ValueError(f"unknown source {text!r}; a source begins with path, query, header, body or form; {hint}")
    if not name or "[]" in name or name != name.strip():
        raise ValueError(f"{text!r} names no value; write {kind}.name, with [] and ? at the end only")
    if kind == "body" and "" in name.split("."):
        raise ValueError(f"{text!r} has an empty step")
    if kind == "header":
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{text!r} names no header; header names hold letters, digits and dashes")
        name = name.lower()
    return Source(text, kind, name, optional, many)


@lru_cache(maxsize=4096)
def parse_text(text: str) -> str | Text:
    """Parse a text with sources in braces; `{{` and `}}` are braces themselves.

    Raises:
        ValueError: a brace is not closed, or a source is wrong.
    """
    parts: list[str | Source] = []
    plain = ""
    position = 0
    while position < len(text):
        char = text[position]
        if text[position : position + 2] in ("{{", "}}"):
            plain += char
            position += 2
        elif char == "{":
            end = text.find("}", position)
            if end < 0:
                raise ValueError(f"a brace is not closed in {text!r}; a brace itself is written twice")
            if plain:
                parts.append(plain)
                plain = ""
            parts.append(parse_source(text[position + 1 : end]))
            position = end + 1
        elif char == "}":
            raise ValueError(f"a brace is closed that was not opened in {text!r}; a brace itself is written twice")
        else:
            plain += char
            position += 1
    if not parts:
        return plain
    return Text((*parts, plain) if plain else tuple(parts))
