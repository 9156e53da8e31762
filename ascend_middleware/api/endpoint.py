"""An endpoint of the API, and one call of it: what is sent, checked before it is, and how the answer is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlencode

import msgspec

from ..exceptions import ValidationError
from .bodies import MAX_NUMBER
from .decode import encode_json

__all__ = ["Endpoint", "Operation", "fill_path", "given", "is_number", "text"]

T = TypeVar("T")
_PLACE: Final = re.compile(r"\{(\w+)\}")


class Operation(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One call of an endpoint: what is sent, and how the body of a success is read.

    Attributes:
        target: path and query below the base URL, already quoted.
        decode: from the body of a 2xx answer to the result; raises `ProtocolError`.
        refusal: from status and body of a refusal to the result that it is, or to None where it is an error.
        authenticated: whether the key goes with it.
        headers: what else goes with it.
        agent: on whose behalf, where that is known.
    """

    method: str
    target: str
    decode: Callable[[bytes], T]
    content: bytes = b""
    refusal: Callable[[int, bytes], T | None] | None = None
    authenticated: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    agent: str = ""

    def __repr__(self) -> str:
        return f"Operation(method={self.method!r}, target={self.target!r})"  # the rest may hold a secret


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint(Generic[T]):
    """One endpoint, as the client calls it, the authority serves it, and the OpenAPI document tells it.

    Attributes:
        method: in upper case.
        path: with `{name}` for one segment.
        decode: how a client reads the body of a success.
        summary: one line for the OpenAPI document.
        body: the fields of the request's body; None where it takes none.
        query: the fields of the query; None where it takes none.
        answer: the name of the answer's schema in the OpenAPI document.
        status: of a success.
        admin: whether only an admin may call it.
        local: whether the caller of `local:`, who is no admin, may call it all the same: it settles nothing about what
            that caller submits.
        allowance: which rate limit it counts against; without, the one that fits what it is.
        pure: whether it changes nothing, whatever its method.
        open: whether it needs no credential.
        refusal: how a client reads a refusal that is a decision; see `Operation`.
    """

    method: str
    path: str
    decode: Callable[[bytes], T]
    summary: str
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    answer: str = "Object"
    status: int = 200
    admin: bool = False
    local: bool = False
    allowance: str = ""
    pure: bool = False
    open: bool = False
    refusal: Callable[[int, bytes], T | None] | None = None

    @property
    def name(self) -> str:
        """Method and path, as messages name it."""
        return f"{self.method} {self.path}"

    @property
    def many(self) -> bool:
        """Whether it reads more, the more is stored; such calls wait for each other, and nothing else for them."""
        return self.allowance == "analytics" or (self.query is not None and "limit" in self.query.__struct_fields__)

    @property
    def counted_as(self) -> str:
        """The rate limit that it counts against: submit, report, read, list, analytics or admin."""
        if self.allowance or self.admin:
            return self.allowance or "admin"
        return "list" if self.many else "report" if self.writes else "read"

    @property
    def writes(self) -> bool:
        """Whether a call runs within a transaction, and may be repeated under an idempotency key."""
        return self.method != "GET" and not self.pure

    def call(
        self,
        *,
        body: Mapping[str, Any] | bytes | None = None,
        query: Mapping[str, object] | None = None,
        decode: Callable[[bytes], T] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        agent: str = "",
        **path: object,
    ) -> Operation[T]:
        """Return a call of the endpoint.

        Args:
            body: the body's fields; see `given`. Or the body as it is sent, checked by whoever encoded it.
            query: the query's; likewise.
            decode: in the place of the endpoint's own.
            headers: what else goes with it.
            agent: on whose behalf.
            **path: what stands in the path, in its order; the names are those that an error gives.

        Raises:
            ValidationError: naming the first bad value; nothing was sent.
        """
        if not isinstance(body, bytes):
            body = b"" if body is None and self.method != "POST" else _encoded(self.body, body or {})
        target = fill_path(self.path, **path) if path else self.path
        return Operation(
            method=self.method,
            target=target if query is None else _with_query(target, query),
            decode=decode or self.decode,
            content=body,
            refusal=self.refusal,
            authenticated=not self.open,
            headers=headers,
            agent=agent,
        )


# --- the path and the query


def is_number(value: object, *kinds: type) -> bool:
    """Say whether the value is a number of these kinds; a bool is none."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def fill_path(template: str, **values: object) -> str:
    """Fill the `{name}` places of a path in their order; a value stays one segment whatever it holds.

    Raises:
        ValidationError: a value is empty, no text or whole number, or a dot segment; it goes by its keyword's name.
    """
    given = iter(values.items())
    return _PLACE.sub(lambda _: _segment(*next(given)), template)


def _segment(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValidationError(f"{name} must be a string or a whole number, not {type(value).__name__}", field=name)
    text = str(value)
    if not text.strip():
        raise ValidationError(f"{name} must not be empty", field=name)
    # Dots are never quoted, so these two would climb out of their place.
    if text in (".", ".."):
        raise ValidationError(f"{name} must not be a dot segment", field=name)
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise ValidationError(f"{name} is not valid Unicode", field=name) from None


def _with_query(target: str, parameters: Mapping[str, object]) -> str:
    given: dict[str, str] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        low = {"limit": 1, "offset": 0}.get(name)
        if low is not None and (not is_number(value, int) or value < low):  # type: ignore[operator] # a number by then
            raise ValidationError(f"{name} must be a whole number, at least {low}", field=name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValidationError(f"{name} must be a string or a number", field=name)
        given[name] = str(value)
    try:
        return f"{target}?{urlencode(given)}" if given else target
    except UnicodeEncodeError:
        raise ValidationError("a filter is not valid Unicode") from None


# --- the body


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields of a body that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def text(name: str, value: object) -> str:
    """Return a text that is not blank, or raise `ValidationError` naming the field."""
    if not isinstance(value, str) or not value.strip():
        raise ValidationError(f"{name} is required and must be a non-empty string", field=name)
    return value


def _encoded(kind: type[msgspec.Struct] | None, fields: Mapping[str, Any]) -> bytes:
    plain = {name: _plain(value) for name, value in fields.items()}
    for name, (annotation, required) in _fields(kind).items() if kind is not None else ():
        value = plain.get(name)
        if value is not None:
            problem = _problem(annotation, value)
        else:
            problem = "is required and must be a non-empty string" if required else ""
        if problem:
            raise ValidationError(f"{name} {problem}", field=name)
    return encode_json(plain)


def _plain(value: Any) -> Any:
    """Return what JSON has in the place of a value: texts of enumerations, lists of any iterable, dicts of mappings."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, bytes | list) else value


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, tuple[Any, bool]]:
    """Return each field's type, without the None that stands for leaving it out, and whether it is required."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for item in msgspec.structs.fields(kind):
        hint = hints[item.name]
        options = [one for one in get_args(hint) if one not in (NoneType, msgspec.UnsetType)]
        is_optional = get_origin(hint) in (Union, UnionType) and len(options) == 1
        found[item.name] = (options[0] if is_optional else hint, item.required)
    return found


def _problem(annotation: Any, value: Any) -> str:
    """Say what is wrong with a field's value, or nothing.

    Kinds and the bounds of numbers are checked. How long a text may be, and which events there are, the authority
    judges: another one than ours may take more.
    """
    is_bounded = get_origin(annotation) is Annotated
    kind, bounds = get_args(annotation)[:2] if is_bounded else (annotation, msgspec.Meta())
    if kind is str:
        needed = bool(bounds.min_length)
        if isinstance(value, str) and (value.strip() or not needed):
            return ""
        return "is required and must be a non-empty string" if needed else "must be a string"
    if kind in (int, float):
        low = bounds.ge if bounds.ge is not None else -math.inf
        high = bounds.le if bounds.le is not None and bounds.le < MAX_NUMBER else math.inf
        if is_number(value, int, float) and low <= value <= high and not math.isinf(value):
            return ""
        return "must be a number, " + (f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}")
    if kind is bool:
        return "" if isinstance(value, bool) else "must be True or False"
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            return "must be a list of strings"
        if not value and bounds.min_length:
            return "must name at least one event, such as action.denied"
        return "" if all(isinstance(one, str) and one.strip() for one in value) else "must hold non-empty strings only"
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) else f"must be one of {', '.join(get_args(kind))}"
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            return "must be a mapping"
        each = get_args(kind)[1]
        wrong = ((key, _problem(each, item)) for key, item in value.items())
        return next((f"is wrong at {key!r}: {problem}" for key, problem in wrong if problem), "")
    return ""  # of any kind
