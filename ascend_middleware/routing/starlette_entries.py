"""One route as a router of Starlette asks it, and as it runs it: with the match that a request was decided about.

It is not matched a second time. Convertors are the application's: called twice, one may give another value than was
decided about.
"""

from __future__ import annotations

from inspect import isfunction
from operator import is_
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from starlette.routing import Match, Route, WebSocketRoute

from .leaves import Kind, Stop
from .starlette_classes import converts_purely, methods_of, without_body_limit

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from .leaves import Leaf

    Scope = MutableMapping[str, Any]
    Matcher = Callable[[Scope], tuple[Match, Any]]

__all__ = ["Entry", "Selected", "end_of"]

# What holds the routes below a route: a `starlette_level.Level`.
Level = TypeVar("Level")


class _Confirmed:
    """A router's own route in all but the question whether it matches."""

    def __init__(self, route: Any, match: Match, child: Any) -> None:
        self._route, self._found = route, (match, child)

    @property  # type: ignore[misc]  # routers ask for a route's class
    def __class__(self) -> type:
        return type(self._route)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._route, name)

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        return self._found

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope.get("route") is self:
            scope["route"] = self._route
        await self._route.handle(scope, receive, send)


class _ConfirmedInclude(_Confirmed):
    """FastAPI's inclusion of a router, which selects among the router's routes once more when it runs."""

    def __init__(self, include: Any, match: Match, child: Any, route: Any, context: Any) -> None:
        super().__init__(include, match, {})
        self._selected = match, child, route, context

    def _match(self, scope: Scope) -> tuple[Match, Any, Any, Any]:
        return self._selected

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        await type(self._route).handle(self, scope, receive, send)

    async def _handle_selected(self, scope: Scope, receive: Any, send: Any) -> None:
        await type(self._route)._handle_selected(self, scope, receive, send)


class Selected(NamedTuple, Generic[Level]):
    """What a router selects for a request.

    `child` are the scope fields that its match adds, `route` is what the router is to run, `pure` tells whether a
    second match is sure to be the same, and `inside` is the route where that has middleware of its own.
    """

    found: Leaf | Level | Kind
    child: Any = None
    route: Any = None
    pure: bool = True
    inside: Any = None


class Entry(Generic[Level]):
    """One route as a router will ask it.

    Args:
        subject: the route with its effective path and name.
        match: asks it.
        includes: FastAPI's inclusions on the way, the outermost first, which is the one that the router asks.
        candidate: what the innermost of them selects.
        leaf: what it runs, or None.
        child: the router that it leads to, or None.
        partial_runs: whether it may run something on a match that lacks only the method; the framework answers 405.
    """

    __slots__ = (
        "_candidate",
        "_includes",
        "_known",
        "_methods",
        "child",
        "inside",
        "leaf",
        "match",
        "partial_runs",
        "pure",
        "subject",
    )

    def __init__(
        self,
        subject: Any,
        match: Matcher,
        includes: Sequence[Any],
        candidate: Any,
        *,
        leaf: Leaf | None,
        child: Level | None,
        partial_runs: bool,
    ) -> None:
        self.subject, self.match, self.leaf, self.child = subject, match, leaf, child
        self.partial_runs = partial_runs
        self.pure = converts_purely(subject)
        self.inside = subject if leaf is not None and not partial_runs and has_own_middleware(subject) else None
        self._includes, self._candidate = includes, candidate
        self._known = self._standing()
        self._methods = methods_of(subject)

    def _standing(self) -> tuple[Any, ...]:
        subject = self.subject
        return getattr(subject, "path", None), getattr(subject, "name", None), getattr(subject, "app", None)

    def is_current(self) -> bool:
        """Whether the route is what it was when this was made."""
        subject, leaf = self.subject, self.leaf
        return all(map(is_, self._known, self._standing())) and (
            leaf is None or leaf.kind is not Kind.ROUTE or methods_of(subject) == self._methods
        )

    def confirmed(self, match: Match, child: Any) -> Any:
        """Return what the router is to run, given this route's match."""
        if not self._includes:
            return _Confirmed(self.subject, match, child)
        asked, candidate = self._includes[0], self._candidate
        selects = getattr(type(asked), "_handle_selected", None)
        if candidate is None or selects is None or "_match" not in selects.__code__.co_names:
            return asked  # a version that is not known: it is asked again
        route = getattr(candidate, "starlette_route", None) or candidate.original_route
        found: Any = _ConfirmedInclude(self._includes[-1], match, child, route, candidate)
        for include in reversed(self._includes[:-1]):
            found = _ConfirmedInclude(include, match, {}, found, None)
        return found


def has_own_middleware(route: Any) -> bool:
    """Tell whether something of the application stands between a route and its endpoint."""
    return isinstance(route, Route | WebSocketRoute) and not _is_end(without_body_limit(route.app), route)


def end_of(route: Any) -> tuple[Any, str] | None:
    """Return what holds a route's endpoint, inside the route's own middleware, and in which attribute.

    None where a middleware keeps its application in another place than `app`.
    """
    holder, name = route, "app"
    while not _is_end(inner := getattr(holder, name), route):
        if not hasattr(inner, "app"):
            return None
        holder, name = inner, "app"
    return holder, name


def _is_end(app: Any, route: Any) -> bool:
    # Starlette and FastAPI put a function of theirs around one of the application.
    made = isfunction(app) and app.__module__ in ("starlette.routing", "fastapi.routing")
    return made or app is route.endpoint or isinstance(app, Stop)
