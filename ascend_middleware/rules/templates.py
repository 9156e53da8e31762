"""Path templates: how rules and routes are written, which paths they match, and which of two is more specific.

A rule's template is strict: literal segments, `{name}`, `{name:int}`, `{name:uuid}`, and at its end `{name:path}` or
`**` (zero or more segments). A route's template comes from a framework and is read leniently: what this package does
not know counts as "may match anything", so that only the path itself can show which rule applies.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias


class Handshake(Enum):
    """A kind of request of its own: it stands where a method stands, and no text of the wire equals it."""

    WEBSOCKET = "WEBSOCKET"

    def __str__(self) -> str:
        return self.value


WEBSOCKET: Final = Handshake.WEBSOCKET
# A method in upper case, as it came; or a handshake.
Method: TypeAlias = "str | Handshake"

# A segment is kept as one text: a literal as it is, a parameter in braces without its name. No literal holds a brace.
NAME: Final = "{}"
INT: Final = "{int}"
UUID: Final = "{uuid}"
REST: Final = "**"
_WILD: Final = "{*"  # begins a segment of a route that may match any number of segments
_CONVERTORS: Final = {"": NAME, "int": INT, "uuid": UUID, "path": REST}
# Convertors of frameworks that never match a slash; what they match is a part of what `{}` matches.
_ONE_SEGMENT: Final = {"str": NAME, "string": NAME, "default": NAME, "float": "{float}", "slug": "{slug}"}

ANY_METHOD: Final[frozenset[Method]] = frozenset({"*"})
# Those that change nothing.
READING: Final[frozenset[Method]] = frozenset({"GET", "HEAD"})
_COMMON_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET")
_RARE_METHODS: Final = re.compile(  # of WebDAV and its kin
    "ACL|BIND|CHECKIN|CHECKOUT|COPY|LABEL|LINK|LOCK|MERGE|MKCOL|MOVE|PROPFIND|PROPPATCH|PURGE|QUERY|REBIND|REPORT|"
    "SEARCH|SUBSCRIBE|UNBIND|UNLINK|UNLOCK|UNSUBSCRIBE|UPDATE"
)

_PARAMETER = re.compile(r"\{([A-Za-z_]\w*)(?::([^{}]*))?\}")
_PLAIN = re.compile(r"[\w~@-][\w.~@-]*")
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def is_int(segment: str) -> bool:
    """Whether `{name:int}` matches a segment: ASCII digits only."""
    return segment.isascii() and segment.isdigit()


def is_uuid(segment: str) -> bool:
    """Whether `{name:uuid}` matches a segment; the dashes may be missing, as Starlette's may."""
    return _UUID.fullmatch(segment) is not None


@dataclass(frozen=True, slots=True)
class Template:
    """One parsed template. Two are equal if they match the same paths, whatever their parameters are called.

    `segments` is the shape, one text for each segment; `names` are their parameters' names, empty for none.
    """

    text: str = field(compare=False)
    segments: tuple[str, ...]
    names: tuple[str, ...] = field(compare=False)

    def __str__(self) -> str:
        return self.text

    def matches(self, path: str) -> bool:
        """Whether a decoded path matches; a trailing slash makes no difference."""
        parts = split_path(path)
        return parts is not None and matches_parts(self.segments, parts)

    def parameters(self, path: str) -> dict[str, str]:
        """Return the parameters' texts in a path that matches; for requests that no router resolved."""
        parts = split_path(path) or []
        found: dict[str, str] = {}
        for index, name in enumerate(self.names):
            if not name:
                continue
            if self.segments[index] == REST:
                found[name] = "/".join(parts[index:])
            elif index < len(parts):
                found[name] = parts[index]
        return found

    def covers(self, other: Template) -> bool:
        """Whether every path of the other template is one of this one's. When unsure, no."""
        theirs = other.segments
        for index, mine in enumerate(self.segments):
            if mine == REST:
                return True
            if index >= len(theirs) or not _segment_covers(mine, theirs[index]):
                return False
        return len(theirs) == len(self.segments)

    def overlaps(self, other: Template) -> bool:
        """Whether some path belongs to both templates. When unsure, yes."""
        for mine, theirs in zip(self.segments, other.segments, strict=False):
            if is_open(mine) or is_open(theirs):
                return True
            if not segments_overlap(mine, theirs):
                return False
        length = min(len(self.segments), len(other.segments))
        longer = self.segments if len(self.segments) > length else other.segments
        return len(longer) == length or is_open(longer[length])

    def example(self) -> str:
        """Return a path that matches, for messages."""
        samples = {NAME: "1", INT: "1", UUID: "00000000-0000-4000-8000-000000000001", REST: "1"}
        return "/" + "/".join(samples.get(segment, segment) for segment in self.segments)


def split_path(path: str) -> list[str] | None:
    """Split a decoded path into segments without regard to one trailing slash; None if it begins with no slash."""
    if not path.startswith("/"):
        return None
    parts = path.split("/")
    del parts[0]
    if not parts[-1]:
        del parts[-1]
    return parts


def matches_parts(segments: tuple[str, ...], parts: list[str], begin: int = 0) -> bool:
    """Whether a rule's segments match a split path; those before `begin` do already."""
    for index in range(begin, len(segments)):
        segment = segments[index]
        if segment == REST:
            return True
        if index >= len(parts) or not _segment_matches(segment, parts[index]):
            return False
    return len(parts) == len(segments)


def _segment_matches(segment: str, part: str) -> bool:
    if segment == NAME:
        return part != ""
    if segment == INT:
        return is_int(part)
    if segment == UUID:
        return is_uuid(part)
    return segment == part


def is_open(segment: str) -> bool:
    """Whether a segment may match any number of segments."""
    return segment == REST or segment.startswith(_WILD)


def _segment_covers(mine: str, theirs: str) -> bool:
    if is_open(theirs):
        return False
    return mine in (NAME, theirs) or _segment_matches(mine, theirs)


def segments_overlap(mine: str, theirs: str) -> bool:
    """Whether two segments, none of them open, have a text in common. When unsure, yes."""
    if mine == theirs or NAME in (mine, theirs):
        return True
    if "{" in mine:
        if "{" in theirs:
            return True
        mine, theirs = theirs, mine
    if "{" not in theirs:
        return False
    if theirs in (INT, UUID):
        return _segment_matches(theirs, mine)
    start, end = theirs.index("{"), theirs.rindex("}") + 1
    prefix, suffix = theirs[:start], theirs[end:]
    return len(mine) > len(prefix) + len(suffix) and mine.startswith(prefix) and mine.endswith(suffix)


# --- what rules say


def parse_match(text: str) -> tuple[frozenset[Method], Template]:
    """Parse `METHODS /template` as rules write it.

    Raises:
        ValueError: it says what is wrong.
    """
    methods, _, path = text.strip().partition(" ")
    path = path.lstrip()
    if methods.startswith("/"):
        raise ValueError(f'a match begins with its methods; write "GET {methods}" or "* {methods}"')
    if methods.endswith(",") or path.startswith(","):  # `GET, POST /x`
        methods, slash, path = text.strip().partition("/")
        methods, path = methods.replace(" ", ""), slash + path
    return _parse_methods(methods), _parse_template(path)


@lru_cache(maxsize=4096)
def _shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return names  # many templates name the same parameters at the same places


@lru_cache(maxsize=1024)
def _parse_methods(text: str) -> frozenset[Method]:
    if text == "*":
        return ANY_METHOD
    methods = frozenset(text.upper().split(","))
    for method in sorted(methods):
        if method == "*":
            raise ValueError('"*" covers every method already; it stands alone')
        if not re.fullmatch(r"[A-Z][A-Z-]*", method):
            raise ValueError(f'{method!r} is no method; write "*" or methods with commas between, "GET,POST /path"')
        if method not in _COMMON_METHODS and not _RARE_METHODS.fullmatch(method):
            # What other programs call a handshake; as a method it would never be met.
            near = difflib.get_close_matches(method, _COMMON_METHODS, n=1)
            close = ["WEBSOCKET"] if method in ("WS", "WSS") else near
            if close:
                raise ValueError(f"unknown method {method}; did you mean {close[0]}?")
    return frozenset(WEBSOCKET if method == str(WEBSOCKET) else method for method in methods)


def _parse_template(text: str) -> Template:
    parts = split_path(text)
    if parts is None:
        raise ValueError(f'a template begins with a slash, as in "GET /orders/{{id}}"; got {text!r}')
    segments: list[str] = []
    names: list[str] = []
    for index, part in enumerate(parts):
        if _PLAIN.fullmatch(part):
            segments.append(sys.intern(part))
            names.append("")
            continue
        segment, name = _parse_segment(part)
        if segment == REST and index != len(parts) - 1:
            raise ValueError(f"{part!r} matches the rest of a path, so it stands at the end; use endpoint = … instead")
        if name and name in names:
            raise ValueError(f"the parameter {name!r} occurs twice")
        segments.append(segment)
        names.append(name)
    return Template(text, tuple(segments), _shared_names(tuple(names)) if any(names) else ())


def _parse_segment(part: str) -> tuple[str, str]:
    if part == REST:
        return REST, ""
    parameter = _PARAMETER.fullmatch(part)
    if parameter is not None:
        name, convertor = parameter[1], parameter[2] or ""
        if convertor not in _CONVERTORS:
            raise ValueError(
                f"unknown type in {part!r}; known are int, uuid and path. "
                f"{{{name}}} governs a route whatever its parameter's type"
            )
        return _CONVERTORS[convertor], name
    if "{" in part or "}" in part:
        raise ValueError(f"{part!r} mixes text and a parameter; write {{name}} for the segment, or use endpoint = …")
    if "<" in part or part.startswith(":"):
        raise ValueError(f"{part!r} is another framework's spelling; write {{name}} or {{name:int}}")
    if "*" in part:
        raise ValueError(f"{part!r} is no literal; write {{name}} for one segment or ** at the end for the rest")
    if part in ("", ".", ".."):
        raise ValueError("empty and dot segments never reach a handler")
    if re.search(r"%[0-9A-Fa-f]{2}", part):
        raise ValueError(f"{part!r} is percent-encoded; templates are compared with decoded paths")
    if any(char in "[]^|\\" for char in part):
        raise ValueError(f"{part!r} is a regular expression or has a character that paths encode; write {{name}}")
    if any(char in "?#" or char <= " " or char == "\x7f" for char in part):
        raise ValueError(f"{part!r} holds a character that no path segment has; a query is no part of a template")
    return part, ""


# --- what frameworks say


@lru_cache(maxsize=4096)
def parse_route(text: str) -> Template:
    """Parse a framework's template; never fails."""
    parts = _split_outside_braces(text if text.startswith("/") else f"/{text}")
    segments: list[str] = []
    names: list[str] = []
    for index, part in enumerate(parts):
        segment, name = _route_segment(part, last=index == len(parts) - 1)
        segments.append(segment)
        names.append(name)
    return Template(text, tuple(segments), tuple(names) if any(names) else ())


def _split_outside_braces(text: str) -> list[str]:
    if "{" not in text:
        return split_path(text) or []
    parts, depth = [""], 0
    for char in text[1:]:
        depth += (char == "{") - (char == "}")
        if char == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    if not parts[-1]:
        del parts[-1]
    return parts


def _route_segment(part: str, *, last: bool) -> tuple[str, str]:
    if part == REST and last:
        return REST, ""
    if "{" not in part and "}" not in part:
        return (part, "") if part != REST else (_WILD, "")
    parameter = _PARAMETER.fullmatch(part)
    if parameter is not None:
        name, convertor = parameter[1], parameter[2] or ""
        segment = _CONVERTORS.get(convertor) or _ONE_SEGMENT.get(convertor) or f"{_WILD}{convertor}}}"
        return (segment, name) if segment != REST or last else (f"{_WILD}path}}", name)
    known = {*_CONVERTORS, *_ONE_SEGMENT} - {"path"}
    found = list(_PARAMETER.finditer(part))
    rest = _PARAMETER.sub("", part)
    if "{" in rest or "}" in rest or any((one[2] or "") not in known for one in found):
        return f"{_WILD}{part}", ""
    return _PARAMETER.sub(lambda one: f"{{{one[2] or ''}}}", part), ""
