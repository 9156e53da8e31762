"""URL patterns of Django as route templates: `items/<int:n>` is `/items/{n:int}`, and so is `^items/(?P<n>[0-9]+)$`.

A regular expression is translated only where the template says exactly, or a little more than, what it matches. Any
other one becomes a parameter that may match anything, `{regex:~(?i)^secret$}`: rules name such a route by its endpoint.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Final

from django.urls.converters import IntConverter, PathConverter, StringConverter, UUIDConverter
from django.urls.resolvers import LocalePrefixPattern, RegexPattern, RoutePattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["POSITIONAL", "template_of", "unknown"]

# How positional arguments are called, in templates and as `path.arg1`.
POSITIONAL: Final = "arg{}"

_ROUTE_PARAMETER: Final = re.compile(r"<(?:([^>:]+):)?([^>]+)>")
# What rules may name by type. A class derived from one of them may match something else, so it does not count.
_TYPES: Final = {IntConverter: ":int", UUIDConverter: ":uuid", PathConverter: ":path", StringConverter: ""}
_ELEMENT: Final = re.compile(
    r"(\\[dw]|\\[^A-Za-z0-9]|\[(?:\\.|[^\]\\])+\]|[A-Za-z0-9_~@%!&=:,;'\"<>-])"  # one character
    r"([+?*]|\{\d+(?:,\d*)?\})?\??"  # and how often
)
_LITERAL: Final = re.compile(r"(?:[A-Za-z0-9_/~@%!&=:,;'\"-]|\\[^A-Za-z0-9])(?![+?*{])")
_GROUP: Final = re.compile(r"\((?:\?P<([A-Za-z_]\w*)>|(?!\?))((?:\\.|\[(?:\\.|[^\]\\])+\]|[^()\[\\])*)\)(?![+?*{])")


def template_of(patterns: Sequence[Any]) -> str:
    """Return the template of a chain of patterns, each with its `pattern`, from the outermost to the view's own.

    Patterns that depend on the language count as they are in the active one.
    """
    numbers = itertools.count(1)
    last = len(patterns) - 1
    pieces = (_piece(one.pattern, ends=at == last, numbers=numbers) for at, one in enumerate(patterns))
    return "/" + "".join(pieces).removeprefix("/")


def _piece(pattern: Any, *, ends: bool, numbers: Iterator[int]) -> str:
    kind = type(pattern)
    if kind is RoutePattern:
        return _from_route(str(pattern), pattern.converters)
    if kind is RegexPattern:
        return _from_regex(str(pattern), ends=ends, numbers=numbers)
    if kind is LocalePrefixPattern:
        return _literal(str(pattern))
    return unknown("regex", str(pattern))


def _literal(text: str) -> str:
    """Return literal text of a route, which may not look like a parameter."""
    return unknown("text", text) if any(char in "{}*" for char in text) else text


def unknown(name: str, text: str) -> str:
    """Return a parameter that counts as matching anything; what it says is for readers, and names no known type."""
    return f"{{{name}:~{text.replace('{', '<').replace('}', '>')}}}"


def _from_route(route: str, converters: Any) -> str:
    parts: list[str] = []
    end = 0
    for found in _ROUTE_PARAMETER.finditer(route):
        parts.append(_literal(route[end : found.start()]))
        end = found.end()
        converter = converters[found[2]]
        known = _TYPES.get(type(converter))
        if known is None and not _is_one_segment(converter.regex):
            parts.append(unknown(found[2], found[1]))
        else:
            parts.append(f"{{{found[2]}{known or ''}}}")
    return "".join([*parts, _literal(route[end:])])


def _from_regex(regex: str, *, ends: bool, numbers: Iterable[int]) -> str:
    # Without an anchor it is searched for, and may begin anywhere.
    body = regex.removeprefix("^")
    if body == regex:
        return unknown("regex", regex)
    closed = not ends
    for anchor in ("\\Z", "$"):
        if body.endswith(anchor) and not _ends_escaped(body[: -len(anchor)]):
            body, closed = body[: -len(anchor)], True
            break
    if ends and closed and body.endswith("/?"):
        body = body[:-2]
    parts: list[str] = []
    at = 0
    while at < len(body):
        literal = _LITERAL.match(body, at)
        group = None if literal else _GROUP.match(body, at)
        if literal is not None:
            parts.append(_literal(literal[0][-1]))
            at = literal.end()
        elif group is not None and (kind := _kind_of(group[2])) is not None:
            parts.append(f"{{{group[1] or POSITIONAL.format(next(iter(numbers)))}{kind}}}")
            at = group.end()
        else:
            return unknown("regex", regex)
    text = "".join(parts)
    if closed:
        return text
    # Whatever follows matches, too, from within the last segment on.
    before, slash, tail = text.rpartition("/")
    return f"{before}{slash}{unknown('regex', tail + '…')}"


def _ends_escaped(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _kind_of(body: str) -> str | None:
    """Return the type of what a group matches, as templates write it; None if it has none."""
    if body in (".*", ".+"):
        return ":path"
    if body == "[0-9]+":
        return ":int"
    return "" if _is_one_segment(body) else None


def _is_one_segment(body: str) -> bool:
    """Whether a regular expression matches at least one character, and never a slash."""
    at, some = 0, False
    while at < len(body):
        element = _ELEMENT.match(body, at)
        if element is None:
            return False
        try:
            if re.fullmatch(element[1], "/"):
                return False
        except re.error:
            return False
        some = some or not (element[2] or "").startswith(("?", "*", "{0"))
        at = element.end()
    return some
