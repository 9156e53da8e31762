"""What a call is, without IO, and how its path, its texts and its numbers are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from ...exceptions import ValidationError
from ...models import Record
from ...wire import decode_object

__all__ = [
    "MAX_LIMIT",
    "Operation",
    "acknowledgement",
    "is_number",
    "name",
    "number",
    "optional_texts",
    "page_query",
    "path",
    "query",
    "record",
    "texts",
]

T = TypeVar("T")
MAX_LIMIT: Final = 1000


class Operation(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One call: what is sent, and how the body of a success is read.

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


def path(template: str, **parameters: object) -> str:
    """Fill `{name}` places of a path; a value stays one segment whatever it holds.

    Raises:
        ValidationError: a value is empty, no text or whole number, or a dot segment.
    """
    return template.format(**{name: _segment(name, value) for name, value in parameters.items()})


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


def is_number(value: object, *kinds: type) -> bool:
    """Say whether the value is a number of these kinds; a bool is none."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def number(field: str, value: object, *, low: float, high: float = math.inf) -> float:
    """Return a finite number within the bounds, or raise `ValidationError` naming the field."""
    if not is_number(value, int, float) or not low <= value <= high or math.isinf(value):  # type: ignore[operator, arg-type] # a number by then
        bounds = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValidationError(f"{field} must be a number, {bounds}", field=field)
    return value  # type: ignore[return-value]


def name(field: str, value: object) -> str:
    """Return a text that is not blank, or raise `ValidationError` naming the field."""
    if not isinstance(value, str) or not value.strip():
        raise ValidationError(f"{field} is required and must be a non-empty string", field=field)
    return value


def texts(field: str, value: object) -> list[str]:
    """Return the texts of a sequence, none of them blank, or raise `ValidationError` naming the field."""
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise ValidationError(f"{field} must be a list of strings", field=field)
    items = list(value)
    if not all(isinstance(item, str) and item.strip() for item in items):
        raise ValidationError(f"{field} must hold non-empty strings only", field=field)
    return items


def optional_texts(**given: object) -> dict[str, Any]:
    """Return those of the texts that were given; raise `ValidationError` for one that is no text."""
    for field, value in given.items():
        if not isinstance(value, str | None):
            raise ValidationError(f"{field} must be a string", field=field)
    return {field: value for field, value in given.items() if value is not None}


def query(target: str, parameters: Mapping[str, object]) -> str:
    """Return the target with those of the parameters that are not None, quoted."""
    given: dict[str, str] = {}
    for field, item in parameters.items():
        if item is None:
            continue
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise ValidationError(f"{field} must be a string or a number", field=field)
        given[field] = str(item)
    try:
        return f"{target}?{urlencode(given)}" if given else target
    except UnicodeEncodeError:
        raise ValidationError("a filter is not valid Unicode") from None


def page_query(target: str, *, limit: int, offset: int, filters: Mapping[str, object] | None = None) -> str:
    """Return the target with the bounds of a page and its filters."""
    for field, value, low in (("limit", limit, 1), ("offset", offset, 0)):
        if not is_number(value, int) or value < low:
            raise ValidationError(f"{field} must be a whole number, at least {low}", field=field)
    return query(target, {"limit": limit, "offset": offset, **(filters or {})})


def record(content: bytes) -> Record:
    """Read an answer that is an object and nothing more."""
    return Record(decode_object(content))


def acknowledgement(content: bytes) -> Record:
    """Read an answer that only confirms: an object, or no body at all."""
    return Record(decode_object(content) if content else {})
