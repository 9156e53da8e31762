"""Read a body whole and parse it so that no handler can read it differently, or refuse it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from ..flow import BodyConsumed, BodyTimeout, BodyTooLarge, ReadBody
from ..strict_json import StrictJSON
from ..verdict import Refusal

if TYPE_CHECKING:
    from ..flow import Flow
    from ..rules import CompiledRule
    from .request import RequestView

__all__ = ["Unreadable", "declared_length", "parse_form", "parse_json", "read_whole"]

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_json: Final = StrictJSON(
    key_twice="the body has a key twice in one object",
    constant="the body holds {}, which is no JSON number",
    out_of_range="the body holds a number too large to represent",
)


class Unreadable(Exception):  # noqa: N818 - what happened, not an error of ours
    """A body cannot be had whole.

    Attributes:
        refusal: what to answer.
        firm: whether that holds in observe mode too: the request is not whole.
    """

    def __init__(self, problem: str, detail: str, *, firm: bool = False) -> None:
        super().__init__(detail)
        self.refusal = Refusal(problem=problem, detail=detail)
        self.firm = firm


def declared_length(view: RequestView) -> int | None:
    """Return what the one content-length says; servers refuse the ill-formed, and the body's own size counts anyway."""
    texts = set(view.header("content-length"))
    text = texts.pop() if len(texts) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def read_whole(view: RequestView, rule: CompiledRule) -> Flow[bytes]:
    """Return the whole body, within the limits of the rule.

    Raises:
        Unreadable: it is larger or slower than the rule allows, or not as long as it says.
        BodyConsumed: something before the guard has used it up.
        ClientGone: the client left.
    """
    declared = declared_length(view)
    try:
        if declared is not None and declared > rule.body_limit:
            raise BodyTooLarge
        content: bytes = yield ReadBody(rule.body_limit, rule.body_timeout)
    except BodyTooLarge:
        raise Unreadable("body-too-large", f"A governed body holds at most {rule.body_limit} bytes.") from None
    except BodyTimeout:
        detail = f"The body did not arrive within {rule.body_timeout:g} seconds."
        raise Unreadable("body-timeout", detail, firm=True) from None
    except BodyConsumed:
        raise
    except ValueError as error:
        raise Unreadable("bad-request", str(error), firm=True) from None
    if declared is not None and declared != len(content):
        raise Unreadable("bad-request", "The body is not as long as its content-length says.", firm=True)
    return content


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
