"""Which route a request runs in Starlette and FastAPI: an index over the live routes, confirmed by their own match.

The application's routers are asked, never copied: a route that was added, replaced or changed since the last request
counts from the next one on. What this file does not know (a route class of somebody else's, an application behind a
middleware) it does not look into: such a thing is asked in its turn, and is one opaque unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette

from .leaves import Entered, Kind, Leaf, Resolved
from .starlette_classes import has_middleware
from .starlette_level import Level, route_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from starlette.routing import Router

    Scope = MutableMapping[str, Any]

__all__ = ["StarletteResolver"]

_MAX_DEPTH: Final = 32


class StarletteResolver:
    """Tell what a request runs in a Starlette or FastAPI application.

    The scope is expected as the application's own router gets it, that is after `FastAPI.__call__` and after every
    middleware. It is never changed.
    """

    __slots__ = ("_level", "_levels", "_mounted")

    def __init__(self, app: Starlette | Router) -> None:
        self._level = Level(app, prefix="", host=None, names="")
        self._mounted: list[Starlette] = []
        self._levels: list[Level] = []

    def resolve(self, scope: Scope) -> Resolved:
        """Return what this HTTP or WebSocket request runs, by the routes as they stand now."""
        path = route_path(scope)
        if scope["type"] not in ("http", "websocket"):
            return Resolved(None, Kind.NOT_FOUND, {}, path)
        level, current = self._level, scope
        entered: tuple[Entered, ...] = ()
        outermost: Any = None
        unit: Leaf | None = None
        for _ in range(_MAX_DEPTH):
            step = level.match(current)
            root: str = current.get("root_path", "")
            given: Mapping[str, Any] = current.get("path_params", {})
            if level is self._level:
                outermost = step.route
            elif not step.pure or level.is_behind_middleware or has_middleware(level.owner):
                entered = (*entered, Entered(level.owner, root, given, step.route))
                if unit is None and level.is_behind_middleware:
                    unit = level.whole
            found, child = step.found, step.child or {}
            params: Mapping[str, Any] = child.get("path_params", given)
            if isinstance(found, Leaf):
                if step.inside is not None:
                    entered = (*entered, Entered(step.inside, root, params))
                return Resolved(found, found.kind, params, path, entered, outermost)
            if isinstance(found, Kind):
                if unit is not None:  # what no route takes, that middleware may answer
                    return Resolved(unit, Kind.OPAQUE, params, path, entered, outermost)
                return Resolved(None, found, params, path, entered)
            level, current = found, {**current, **child}
            # FastAPI.__call__ does this on the way in.
            if root_path := level.root_path:
                current["root_path"] = root_path
        return Resolved(level.whole, Kind.OPAQUE, current.get("path_params", {}), path, entered, outermost)

    def leaves(self) -> list[Leaf]:
        """Return every unit that a request can run, in the order in which the routers ask."""
        return list(dict.fromkeys(leaf for leaf, _ in self._walk(self._level, ()) if leaf is not None))

    def guardable(self) -> list[Starlette]:
        """Return the mounted applications that have middleware of their own.

        Their middleware may change a request after it was judged here, so their routers want a guard, too.
        """
        if not self._levels or not all(level.is_current() for level in self._levels):
            levels = [level for leaf, level in self._walk(self._level, ()) if leaf is None]
            self._levels = [level for level in levels if level.is_built]
            apps = (level.owner for level in levels if level is not self._level)
            self._mounted = list({id(app): app for app in apps if isinstance(app, Starlette)}.values())
        return [app for app in self._mounted if has_middleware(app)]

    def _walk(self, level: Level, above: tuple[object, ...]) -> Iterator[tuple[Leaf | None, Level]]:
        """Yield each leaf with its level, and each level itself with None."""
        yield None, level
        if len(above) >= _MAX_DEPTH or any(level.owner is owner for owner in above):
            yield level.whole, level
            return
        for item in level.items():
            if isinstance(item, Leaf):
                yield item, level
            else:
                yield from self._walk(item, (*above, level.owner))
