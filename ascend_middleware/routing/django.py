"""Which view a request runs in Django: what its resolver found, in the form that all resolvers share.

Django has resolved the request before a middleware's `process_view` is called, and what it found is what it runs:
nothing is matched a second time here.

URL patterns become route templates: `items/<int:n>` is `/items/{n:int}`, and so is `^items/(?P<n>[0-9]+)$`. A regular
expression is translated only where the template says exactly, or a little more than, what it matches. Any other one
becomes a parameter that may match anything, `{regex:~(?i)^secret$}`: rules name such a route by its endpoint.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.urls import get_resolver
from django.urls.converters import IntConverter, PathConverter, StringConverter, UUIDConverter
from django.urls.resolvers import (
    LocalePrefixPattern,
    RegexPattern,
    ResolverMatch,
    RoutePattern,
    URLPattern,
    URLResolver,
)
from django.utils import translation
from django.views import View
from django.views.static import serve

from ..rules import declared
from . import Kind, Leaf, Resolved
from .recurring import Recurring

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from django.http import HttpRequest

    from ..rules import Declaration

# Every view that `as_view()` makes runs this code; a decorated one does not.
_AS_VIEW: Final = View.as_view().__code__
_PLAIN: Final = ("__init__", "__getattribute__", "setup", "dispatch", "http_method_not_allowed", "options")


class DjangoResolver:
    """Tell what a request runs, by the URL patterns as they stand now.

    Args:
        urlconf: whose routes are listed: by default the project's own, else one that `request.urlconf` may be set to.
    """

    __slots__ = ("_leaves", "_recurring", "_urlconf")

    def __init__(self, urlconf: Any = None) -> None:
        self._urlconf = urlconf
        # Patterns by identity; each is held, so that none gets the number of another.
        self._leaves: dict[tuple[Any, ...], tuple[Any, Leaf]] = {}
        self._recurring: Final = Recurring()

    def resolve(self, request: HttpRequest, view: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Resolved:
        """Return what a request runs.

        Args:
            request: after Django has resolved it.
            view: what Django will call.
            args: with what.
            kwargs: likewise.
        """
        path = request.path_info
        match = request.resolver_match
        if match is None or match.func is not view:
            # Somebody else's handler, or somebody else's middleware, put another match in the request.
            match = ResolverMatch(view, tuple(args), dict(kwargs))
        urlconf, tried = getattr(request, "urlconf", None), match.tried
        # What Django tells of the way there is looked at once: the same patterns lead to the same view.
        key = (urlconf, match.route, id(match.func), *map(id, tried[-1] if tried else ()))
        known = self._leaves.get(key)
        if known is None:
            leaf = self._leaf(match, _chain_of(match), urlconf)
            known = self._leaves[key] = (match.func, tried and tried[-1]), leaf
        leaf = known[1]
        kind = leaf.kind
        # As the class is now: methods may have come since the last request.
        if _is_plain(view) and request.method not in (_methods_of(view) or ()):
            kind = Kind.OPTIONS if request.method == "OPTIONS" else Kind.METHOD_NOT_ALLOWED
        params = kwargs
        if args:
            params = {**kwargs} | {POSITIONAL.format(number): value for number, value in enumerate(args, 1)}
        if kind is leaf.kind:
            return self._recurring.resolve(leaf, request.method or "", params, path)
        return Resolved(None, kind, params, path)

    def leaves(self) -> list[Leaf]:
        """Return every unit that a request can run, in the order in which Django asks; in every language."""
        found: dict[Leaf, None] = {}
        languages = [code for code, _ in settings.LANGUAGES] if settings.USE_I18N else [settings.LANGUAGE_CODE]
        for language in languages:
            with translation.override(language):
                for match, chain in _walk(get_resolver(self._urlconf).url_patterns, ()):
                    found.setdefault(self._leaf(match, chain, self._urlconf))
        return list(found)

    def _leaf(self, match: ResolverMatch, chain: tuple[Any, ...], urlconf: Any) -> Leaf:
        key = (urlconf, match.route, id(match.func), *map(id, chain))
        known = self._leaves.get(key)
        if known is None:
            known = self._leaves[key] = (match.func, chain), _build(match, chain, urlconf)
        return known[1]


def _build(match: ResolverMatch, chain: tuple[Any, ...], urlconf: Any) -> Leaf:
    view = match.func
    endpoint = match.view_name
    if urlconf is not None and urlconf != settings.ROOT_URLCONF:
        # Templates and names of another host's routes may be the same.
        endpoint = f"{urlconf if isinstance(urlconf, str) else getattr(urlconf, '__name__', 'urlconf')}:{endpoint}"
    return Leaf(
        kind=Kind.STATIC if view is serve else Kind.ROUTE,
        template=template_of(chain) if chain else f"/{_unknown('regex', match.route or '')}",
        endpoint=endpoint,
        methods=_methods_of(view),
        app=view,
        declared=_declared_at(view),
    )


def _chain_of(match: ResolverMatch) -> tuple[Any, ...]:
    """Return the patterns that led to a match; empty if Django does not tell."""
    chain = tuple(match.tried[-1]) if match.tried else ()
    if not chain or getattr(chain[-1], "callback", None) is not match.func or _route_of(chain) != match.route:
        return ()
    return chain


def _route_of(chain: tuple[Any, ...]) -> str:
    route = ""
    for pattern in chain:
        text = str(pattern.pattern)
        route += text.removeprefix("^") if route else text
    return route


def _walk(patterns: Any, above: tuple[Any, ...]) -> Iterator[tuple[ResolverMatch, tuple[Any, ...]]]:
    for pattern in patterns:
        chain = (*above, pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, chain)
        elif isinstance(pattern, URLPattern):
            spaces = [one.namespace for one in above]
            yield ResolverMatch(pattern.callback, (), {}, pattern.name, None, spaces, route=_route_of(chain)), chain


def _is_plain(view: Any) -> bool:
    """Whether Django itself, and nothing of the application's, answers methods that a class-based view lacks."""
    cls = getattr(view, "view_class", None)
    return (
        getattr(view, "__code__", None) is _AS_VIEW
        and not set(_PLAIN) & set(view.view_initkwargs)
        and all(getattr(cls, name) is getattr(View, name) for name in _PLAIN)
        and not hasattr(cls, "__getattr__")
    )


def _declared_at(view: Any) -> tuple[Declaration, ...]:
    """Return the rules that stand at a view: at its function, its class, or the class's methods."""
    found = list(declared(view))
    cls, actions = getattr(view, "cls", None), getattr(view, "actions", None)
    if isinstance(cls, type):
        # Django REST framework's view sets: a router says which of their methods answers which of the request's.
        found += declared(cls)
        for method, name in actions.items() if isinstance(actions, dict) else ():
            found += [replace(one, methods=frozenset({method.upper()})) for one in declared(getattr(cls, name, None))]
    return tuple({one.key: one for one in found}.values())


def _methods_of(view: Any) -> frozenset[str] | None:
    """Return the methods that a class-based view has functions for, or None: a function is called for any."""
    actions = getattr(view, "actions", None)
    cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if isinstance(actions, dict):
        names = {*actions, "options"}
    elif isinstance(cls, type) and hasattr(cls, "http_method_names"):
        given = getattr(view, "view_initkwargs", {}).get("http_method_names", cls.http_method_names)
        names = {name for name in given if hasattr(cls, name)}
    else:
        return None
    if "get" in names:
        names.add("head")
    if _is_plain(view):
        names.discard("options")  # Django's own answer
    return frozenset(name.upper() for name in names)


# --- templates

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
    return _unknown("regex", str(pattern))


def _literal(text: str) -> str:
    """Return literal text of a route, which may not look like a parameter."""
    return _unknown("text", text) if any(char in "{}*" for char in text) else text


def _unknown(name: str, text: str) -> str:
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
            parts.append(_unknown(found[2], found[1]))
        else:
            parts.append(f"{{{found[2]}{known or ''}}}")
    return "".join([*parts, _literal(route[end:])])


def _from_regex(regex: str, *, ends: bool, numbers: Iterable[int]) -> str:
    # Without an anchor it is searched for, and may begin anywhere.
    body = regex.removeprefix("^")
    if body == regex:
        return _unknown("regex", regex)
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
            return _unknown("regex", regex)
    text = "".join(parts)
    if closed:
        return text
    # Whatever follows matches, too, from within the last segment on.
    before, slash, tail = text.rpartition("/")
    return f"{before}{slash}{_unknown('regex', tail + '…')}"


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
