"""What servers, frameworks and handlers read differently: hostile targets, which a rule may permit by name, and bodies.

A body is read whole and parsed so that no handler can read it differently, or it is refused.
"""

from __future__ import annotations

import json
import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from ..flow import BodyConsumed, BodyTimeout, BodyTooLarge, ReadBody
from ..rules import WEBSOCKET
from ..strict_json import StrictJSON
from ..verdict import Refusal
from .request import HANDLE_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..flow import Flow
    from ..rules import CompiledRule
    from .request import RequestView

__all__ = [
    "USUAL_METHODS",
    "Unreadable",
    "are_ordinary_headers",
    "declared_length",
    "inspect",
    "is_ordinary_environ",
    "is_ordinary_target",
    "parse_form",
    "parse_json",
    "read_whole",
]

_SUSPECT = re.compile(r"[\x00-\x1f\x7f-\x9f\\;�\ud800-\udfff\u2028\u2029]|//|/\.\.?(?:/|$)")
# What makes a raw target worth a look: servers may hide in the decoded path what these say.
_SUSPECT_RAW = re.compile(r"[%#;]|\A(?!/)|//|/\.\.?(?:/|\Z)")
_IN_PATHS: Final = {
    "empty-segment": re.compile("//"),
    "dot-segment": re.compile(r"(?:\A|/)\.\.?(?:/|\Z)"),
    "backslash": re.compile(r"\\"),
    "path-parameter": re.compile(";"),
    "control-character": re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"),
    "invalid-utf8": re.compile("[\N{REPLACEMENT CHARACTER}\ud800-\udfff]"),
}
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", WEBSOCKET})
# Folded, as `rules.fold_header` does it.
_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
# Where a later layer may read another path than the router did.
_REWRITES = frozenset({"x-original-url", "x-rewrite-url", "x-original-uri"})

_first: Final = itemgetter(0)

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_json: Final = StrictJSON(
    key_twice="the body has a key twice in one object",
    constant="the body holds {}, which is no JSON number",
    out_of_range="the body holds a number too large to represent",
)


# Segments of plain characters, none of which begins with a dot.
_ORDINARY_PATH: Final = re.compile(r"/|(?:/[\w~@!$&'()*+,=:-][\w~@!$&'()*+,=:.-]*)+/?", re.ASCII)
_ORDINARY_HEADERS: Final = frozenset(
    name.encode()
    for name in (
        *("host", "connection", "user-agent", "accept", "accept-encoding", "accept-language", "content-type"),
        *("content-length", "authorization", "cookie", "origin", "referer", "cache-control", "x-request-id"),
        *("x-forwarded-for", "x-forwarded-proto", "x-real-ip", "traceparent", "sec-fetch-mode", "sec-fetch-site"),
        *("sec-fetch-dest", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "if-none-match", "x-api-key"),
    )
)
# What the guard looks for by itself: the firewall above, a handle, and who expects to be told to continue.
_TELLING: Final = sorted(_OVERRIDES | _REWRITES | {HANDLE_HEADER, "expect"})
_TELLING_HEADERS: Final = re.compile("|".join(_TELLING).replace("-", "[-_]").encode(), re.IGNORECASE)
_TELLING_KEYS: Final = frozenset(f"HTTP_{name.upper().replace('-', '_')}" for name in _TELLING)


def is_ordinary_target(path: str, raw: bytes | None) -> bool:
    """Say at one glance that `inspect` finds nothing in a path, nor in the bytes that it came as.

    The path is the whole one, with what a server put before it. False says no more than that it is worth a look.
    """
    return raw == path.encode("utf-8", "replace") and _ORDINARY_PATH.fullmatch(path) is not None


def are_ordinary_headers(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Say likewise that the headers hold nothing that the guard looks for."""
    return (
        _ORDINARY_HEADERS.issuperset(map(_first, headers))
        or _TELLING_HEADERS.search(b"\n".join(map(_first, headers))) is None
    )


def is_ordinary_environ(environ: Mapping[str, Any], raw: str | None) -> bool:
    """Say the same of an environ of WSGI, whose target's path came as `raw`."""
    path = environ.get("PATH_INFO", "")
    return (
        raw is not None
        and raw == environ.get("SCRIPT_NAME", "") + path
        and (not path or path[0] == "/")
        and _ORDINARY_PATH.fullmatch(raw) is not None
        and environ.keys().isdisjoint(_TELLING_KEYS)
        and "asgi.scope" not in environ
    )


def inspect(view: RequestView) -> list[str]:
    """Return the names of what is suspicious about a request; see `FINDINGS`."""
    found: list[str] = [*view.findings]
    path, raw = view.path, view.raw_path
    # What is below a prefix may be nothing at all: the framework answers it with a redirect, or not at all.
    if not path.startswith("/") and (path or not view.prefix):
        found.append("not-origin-form")
    if _SUSPECT.search(path) is not None:
        found += [name for name, pattern in _IN_PATHS.items() if pattern.search(path)]
    # A target without escapes is the path itself, which was looked at.
    if raw is not None and (raw != path or "#" in raw or found) and _SUSPECT_RAW.search(raw) is not None:
        _inspect_raw(view, raw, found)
    if view.method not in USUAL_METHODS and not _METHOD.fullmatch(str(view.method)):
        found.append("bad-method")
    names = view.header_names
    if not names.isdisjoint(_OVERRIDES):
        found.append("method-override")
    if not names.isdisjoint(_REWRITES):
        found.append("path-override")
    return list(dict.fromkeys(found)) if found else found


def _inspect_raw(view: RequestView, raw: str, found: list[str]) -> None:
    if "#" in raw:
        found.append("fragment")
    lowered = raw.lower()
    if not raw.startswith("/"):
        found.append("not-origin-form")
    else:
        # Some servers drop what comes before the last of several slashes, and some resolve dots.
        if "//" in raw:
            found.append("empty-segment")
        if any(segment in (".", "..") for segment in lowered.replace("%2e", ".").split("/")):
            found.append("dot-segment")
    if ";" in raw:
        found.append("path-parameter")
    if "%5c" in lowered:
        found.append("backslash")
    if ("%2f" in lowered or "%25" in lowered) and not _inside_parameters(view, lowered):
        found.append("encoded-separator")


def _inside_parameters(view: RequestView, raw: str) -> bool:
    """Say whether every encoded slash and percent lies in a parameter that the router bound."""
    resolved = view.resolved
    if resolved is None or resolved.leaf is None:
        return False
    segments = raw.split("/")[1:]
    template = resolved.leaf.template.split("/")[1:]
    # A prefix that the server put before the application's path is not in the template.
    start = max(0, len(segments) - _decoded_length(view, raw))
    if any("%2f" in segment or "%25" in segment for segment in segments[:start]):
        return False
    segments = segments[start:]
    for index, part in enumerate(template):
        if part.startswith("{") and ":~" in part:
            return False  # an expression that binds no parameter, or nobody knows which
        if part == "**" or part.endswith(":path}"):
            return True
        if index >= len(segments):
            return False
        segment = segments[index]
        if "%2f" in segment:
            return False
        if "%25" in segment and not (part.startswith("{") and part.endswith("}") and part.count("{") == 1):
            return False
    return True


def _decoded_length(view: RequestView, raw: str) -> int:
    """Count the segments of the application's path that stand as such in the raw path."""
    return len(view.path.split("/")) - 1 - raw.count("%2f")


# --- bodies


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
    """Return the JSON value of a body that can be read in one way only, or raise ValueError."""
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
    """Return the pairs of a form that can be read in one way only, or raise ValueError."""
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
