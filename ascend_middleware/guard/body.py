"""Parse a body so that no handler can read it differently, or refuse it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from ..strict_json import StrictJSON

if TYPE_CHECKING:
    from .request import RequestView

__all__ = ["parse_form", "parse_json"]

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_json: Final = StrictJSON(
    key_twice="the body has a key twice in one object",
    constant="the body holds {}, which is no JSON number",
    out_of_range="the body holds a number too large to represent",
)


def parse_json(view: RequestView, content: bytes) -> Any:
    """Return the JSON value of a body.

    Raises:
        ValueError: another or no content type, a charset but UTF-8, an encoding, invalid UTF-8, a byte order mark,
            duplicate keys, NaN, infinite numbers, lone surrogates, too deep, or not JSON.
    """
    kind = _content_type(view)
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ValueError(f"the content type is {kind or 'missing'}, {_JSON} is needed")
    text = _text(content)
    try:
        value = _json.decode(text)
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    try:
        text_again = json.dumps(value, ensure_ascii=False)
        text_again.encode()
    except (UnicodeError, RecursionError, ValueError):
        raise ValueError("the body holds text or numbers that cannot be passed on") from None
    return value


def parse_form(view: RequestView, content: bytes) -> list[tuple[str, str]]:
    """Return the pairs of a urlencoded form.

    Raises:
        ValueError: another or no content type, a charset but UTF-8, invalid UTF-8, or characters that were not escaped.
    """
    kind = _content_type(view)
    if kind != _FORM:
        raise ValueError(f"the content type is {kind or 'missing'}, {_FORM} is needed")
    text = _text(content)
    if not text.isascii():
        # The one takes the bytes for UTF-8, another (Starlette) for Latin-1: two different values.
        raise ValueError("the form holds characters that are not percent-encoded")
    if ";" in text:
        raise ValueError("the form holds a ; that some parsers take for a separator")
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise ValueError("the form is not valid UTF-8 or has too many fields") from None


def _content_type(view: RequestView) -> str:
    types = view.header("content-type")
    if len(types) > 1:
        raise ValueError("there is more than one content type")
    if any(coding.strip().lower() not in ("", "identity") for coding in view.header("content-encoding")):
        raise ValueError("the body is compressed; fields are read from plain bodies only")
    kind, _, parameters = (types[0] if types else "").partition(";")
    for parameter in filter(None, (part.strip().lower() for part in parameters.split(";"))):
        name, _, value = parameter.partition("=")
        # `charset*` (RFC 2231) is a charset too: Django, and who asks it, decode by it.
        if name.partition("*")[0].strip() == "charset" and (
            "*" in name or value.strip().strip('"') not in ("utf-8", "utf8")
        ):
            raise ValueError("the charset of the body is not UTF-8")
    return kind.strip().lower()


def _text(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the body is not valid UTF-8") from None
    if text.startswith("\ufeff") or "\x00" in text:
        raise ValueError("the body begins with a byte order mark or holds NUL characters")
    return text
