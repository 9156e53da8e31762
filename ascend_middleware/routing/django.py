"""Which view a request runs in Django: what its resolver found, in the form that all resolvers share.

Django has resolved the request before a middleware's `process_view` is called, and what it found is what it runs:
nothing is matched a second time here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.urls import get_resolver
from django.urls.resolvers import ResolverMatch, URLPattern, URLResolver
from django.utils import translation
from django.views import View
from django.views.static import serve

from ..rules import declared
from .django_patterns import POSITIONAL, template_of, unknown
from .leaves import Kind, Leaf, Resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.http import HttpRequest

    from ..rules import Declaration

__all__ = ["DjangoResolver"]

# Every view that `as_view()` makes runs this code; a decorated one does not.
_AS_VIEW: Final = View.as_view().__code__
_PLAIN: Final = ("__init__", "__getattribute__", "setup", "dispatch", "http_method_not_allowed", "options")


class DjangoResolver:
    """Tell what a request runs, by the URL patterns as they stand now.

    Args:
        urlconf: whose routes are listed: by default the project's own, else one that `request.urlconf` may be set to.
    """

    __slots__ = ("_leaves", "_urlconf")

    def __init__(self, urlconf: Any = None) -> None:
        self._urlconf = urlconf
        # Patterns by identity; each is held, so that none gets the number of another.
        self._leaves: dict[tuple[Any, ...], tuple[Any, Leaf]] = {}

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
        leaf = self._leaf(match, _chain_of(match), getattr(request, "urlconf", None))
        kind = leaf.kind
        # As the class is now: methods may have come since the last request.
        if _is_plain(view) and request.method not in (_methods_of(view) or ()):
            kind = Kind.OPTIONS if request.method == "OPTIONS" else Kind.METHOD_NOT_ALLOWED
        params = {POSITIONAL.format(number): value for number, value in enumerate(args, 1)} | dict(kwargs)
        return Resolved(leaf if kind is leaf.kind else None, kind, params, path)

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
        template=template_of(chain) if chain else f"/{unknown('regex', match.route or '')}",
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
