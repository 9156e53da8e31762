"""The routes of one router of Starlette as it asks them: a tree that narrows them down, and the match of each.

A route is not matched a second time. Convertors are the application's: called twice, one may give another value than
was decided about.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from . import MATCH, Confirmed, Kind, Leaf
from .starlette_classes import converts_purely, has_own_middleware, methods_of

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from starlette.routing import Match

    Scope = MutableMapping[str, Any]
    Matcher = Callable[[Scope], tuple[Match, Any]]


class Entry:
    """One route as a router will ask it, by `match`.

    `subject` is the route with its effective path and name, `content` what it runs: a `Leaf`, or the level of the
    router that it leads to. `includes` are FastAPI's inclusions on the way, the outermost first, which is the one that
    the router asks; `candidate` is what the innermost of them selects. `partial_runs` tells whether the route may run
    something on a match that lacks only the method (the framework answers 405), `pure` whether a second match is sure
    to be the same, and `inside` is the route where it has middleware of its own. `is_by_path` tells whether the match
    depends on path and method only. `place` tells how many routes, routes with an indexed template and inclusions
    the router has up to this one.
    """

    __slots__ = (
        "_app",
        "_candidate",
        "_includes",
        "_is_route",
        "_methods",
        "_name",
        "_path",
        "_stand_in",
        "content",
        "inside",
        "is_by_path",
        "match",
        "partial_runs",
        "place",
        "pure",
        "subject",
    )

    def __init__(
        self,
        subject: Any,
        match: Matcher,
        content: Any,
        includes: Sequence[Any],
        candidate: Any,
        *,
        partial_runs: bool,
        is_by_path: bool = False,
    ) -> None:
        self.subject, self.match, self.content, self.partial_runs = subject, match, content, partial_runs
        is_leaf = isinstance(content, Leaf)
        self.pure = converts_purely(subject)
        self.inside = subject if is_leaf and not partial_runs and has_own_middleware(subject) else None
        self._includes, self._candidate = includes, candidate
        self._path, self._name = getattr(subject, "path", None), getattr(subject, "name", None)
        self._app = getattr(subject, "app", None)
        self._is_route = is_leaf and content.kind is Kind.ROUTE
        self._methods = methods_of(subject)
        self._stand_in: Any = None
        self.is_by_path = is_by_path and self._is_route and self.pure
        self.place = 0, 0, 0

    def is_current(self) -> bool:
        """Whether the route is what it was when this was made."""
        subject = self.subject
        return (
            getattr(subject, "path", None) is self._path
            and getattr(subject, "name", None) is self._name
            and getattr(subject, "app", None) is self._app
            and (
                not self._is_route
                or getattr(subject, "methods", None) == self._methods
                or methods_of(subject) == self._methods
            )
        )

    def confirmed(self, match: Match, child: Any) -> Confirmed:
        """Return what the router is to run, given this route's match."""
        stand_in = self._stand_in
        if stand_in is None:
            stand_in = self._stand_in = self._include_stand_in() if self._includes else self._route_stand_in()
        return Confirmed(stand_in, match, child)

    def _route_stand_in(self) -> Any:
        """Return a copy of the route that matches a request as the route itself did."""
        route = self.subject

        def handle(scope: Scope, receive: Any, send: Any) -> Any:
            if scope.get("route") is copied:
                scope["route"] = route
            return route.handle(scope, receive, send)

        copied = object.__new__(type(route))
        vars(copied).update(vars(route), matches=_take_match, handle=handle)
        return copied

    def _include_stand_in(self) -> Any:
        """Return FastAPI's inclusion of a router, which selects among the router's routes once more when it runs."""
        asked, candidate = self._includes[0], self._candidate
        selects = getattr(type(asked), "_handle_selected", None)
        if candidate is None or selects is None or "_match" not in selects.__code__.co_names:
            return asked  # a version that is not known: it is asked again
        route = getattr(candidate, "starlette_route", None) or candidate.original_route

        def select(scope: Scope) -> Any:
            return *_take_match(scope), route, candidate

        found = None
        for include in reversed(self._includes):
            found = _include_copy(include, select if found is None else _leading_to(found))
        return found


def _include_copy(include: Any, select: Callable[[Scope], Any]) -> Any:
    copied = object.__new__(type(include))
    vars(copied).update(vars(include), matches=lambda scope: (scope[MATCH][0], {}), _match=select)
    return copied


def _leading_to(include: Any) -> Callable[[Scope], Any]:
    return lambda scope: (scope[MATCH][0], {}, include, None)


def _take_match(scope: Scope) -> Any:
    return scope.pop(MATCH)


class Selected(msgspec.Struct):
    """What a router selects for a request: a leaf, the level of a router below, or the kind of the framework's answer.

    `child` are the scope fields that its match adds, `route` is what the router is to run, `pure` tells whether a
    second match is sure to be the same, and `inside` is the route where that has middleware of its own.
    """

    found: Any
    child: Any = None
    route: Confirmed | None = None
    pure: bool = True
    inside: Any = None


_PARAMETER: Final = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::[a-zA-Z_][a-zA-Z0-9_]*)?\}")


class _Node:
    __slots__ = ("any", "here", "literal", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.here: list[int] = []  # templates that end exactly here
        self.rest: list[int] = []  # templates that may match whatever follows


class SegmentTree:
    """A tree of path segments that narrows many templates down to the few that can match a path, each by its number.

    A lower number was registered earlier and is asked first. It may name a candidate too many, never one too few:
    whoever asks confirms each by the framework's own match.
    """

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node()

    def add_anywhere(self, number: int) -> None:
        """Register what no template describes: a candidate for every path."""
        self._root.rest.append(number)

    def add(self, number: int, template: str, *, single: frozenset[str], subtree: bool) -> None:
        """Register a template, whose parameters are `{name}` or `{name:convertor}`.

        The `single` parameters cannot hold a slash; with `subtree` the template covers everything below it, too.
        """
        node = self._root
        for segment in template.split("/")[1:]:
            if "{" not in segment:
                node = node.literal.setdefault(segment, _Node())
                continue
            parameter = _PARAMETER.fullmatch(segment)
            if parameter is None or parameter[1] not in single:
                node.rest.append(number)
                return
            if node.any is None:
                node.any = _Node()
            node = node.any
        (node.rest if subtree else node.here).append(number)

    def candidates(self, path: str) -> list[int]:
        """Return the numbers of all templates that may match, in order of registration."""
        # `$` in a route's regular expression also matches before a final newline.
        segments = path.rstrip("\n").split("/")
        last = len(segments)
        found: list[int] = []
        todo = [(self._root, 1)]
        while todo:
            node, depth = todo.pop()
            if node.rest:
                found += node.rest
            if depth >= last:
                found += node.here
                continue
            literal = node.literal.get(segments[depth])
            if literal is not None:
                todo.append((literal, depth + 1))
            if node.any is not None:
                todo.append((node.any, depth + 1))
        if len(found) > 1:
            found.sort()
        return found
