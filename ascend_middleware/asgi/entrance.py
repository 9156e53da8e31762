"""The guard's place in a Starlette or FastAPI application: its router's entrance, inside every other middleware."""

from __future__ import annotations

import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any

from ..client.masking import get_logger
from ..forking import ProcessLock
from ..guard import Refusal, Verdict
from .messages import refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .types import Application, Receive, Scope, Send

    # Decides about a request, given what the router will run, and runs the application or refuses.
    Govern = Callable[[Scope, Receive, Send, Application, Any], Awaitable[None]]

__all__ = ["Entrance", "enter", "find_router", "is_before_router", "line_of"]

logger = get_logger("ascend_middleware.asgi")


class _Narrowed:
    """A router as if it had but one route, the one that was decided about; all else is the router's own, live.

    So what runs is what was decided about, and the others are not asked a second time.
    """

    __slots__ = ("_router", "routes")

    def __init__(self, router: Any, route: Any) -> None:
        self._router = router
        self.routes = (route,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)


class Entrance:
    """What stands in front of a router: the guard, inside every middleware of the application."""

    def __init__(self, govern: Govern, passage: str, resolver: Any, app: Any, *, mounted: bool = False) -> None:
        self.owner = app
        self.origin: tuple[Any, ...] | None = None
        self._govern = govern
        self._passage = passage
        self._resolver = resolver
        self._mounted = mounted
        self._router = router = app.router
        self._lock = ProcessLock()
        self._below: weakref.WeakKeyDictionary[Any, Entrance] = weakref.WeakKeyDictionary()
        # A router may have middleware of its own: stand inside that, too, where it can be followed.
        holder, place = router, "middleware_stack"
        while (outer := getattr(holder, place)) != router.app and hasattr(outer, "app"):
            holder, place = outer, "app"
        if getattr(holder, place) != router.app:
            holder, place = router, "middleware_stack"
        self._inner: Application = getattr(holder, place)
        # The function of the router's class that comes next, unless something of somebody else's does.
        own = getattr(self._inner, "__self__", None) is router
        self._routing = type(router).app if own and self._inner.__func__ is type(router).app else None
        setattr(holder, place, self)

    @property
    def stands(self) -> bool:
        """Whether the application still has the router at whose entrance this stands."""
        return self.owner.router is self._router

    @property
    def routes(self) -> Any:
        """The resolver of the application's routes."""
        return self._resolver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Govern what enters the router; below a mount, see that what was decided about is what comes."""
        if scope["type"] not in ("http", "websocket"):
            await self._inner(scope, receive, send)  # a lifespan; the middleware lets nothing else in
            return
        if self._mounted:
            await self._recheck(scope, receive, send)
            return
        # Where the application was given another router since, that one tells nothing about what runs here.
        resolved = self._resolver.resolve(scope) if self.stands else None
        if resolved is not None and resolved.entered:
            self._guard_mounted(resolved.entered)
        inner = self._inner
        if resolved is not None and resolved.route is not None and self._routing is not None:
            scope.setdefault("router", self._router)
            inner = functools.partial(self._routing, _Narrowed(self._router, resolved.route))
        await self._govern(scope, receive, send, inner, resolved)

    def _guard_mounted(self, entered: tuple[tuple[Any, str], ...]) -> None:
        with self._lock:
            for app, _ in entered:
                below = self._below.get(app)
                if below is None or not below.stands:
                    self._below[app] = Entrance(self._govern, self._passage, None, app, mounted=True)

    async def _recheck(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a mounted application's router if its own middleware left alone what was decided about."""
        line, entered = scope.get(self._passage, (None, ()))
        # The same application may be mounted more than once; one reached through a foreign one is not listed.
        roots = [root for entered_app, root in entered if entered_app is self.owner]
        if line == line_of(scope) and (not roots or scope.get("root_path", "") in roots):
            await self._inner(scope, receive, send)
            return
        logger.error("a mounted application's middleware changed %r after the decision; refused", scope["path"][:200])
        detail = "The request was changed after it was decided about."
        verdict = Verdict(
            outcome="misconfigured", passes=False, refusal=Refusal(problem="misconfigured", detail=detail)
        )
        await refuse(scope, receive, send, verdict)


def find_router(app: Any) -> Any:
    """Return the router of a Starlette application, or None for any other application."""
    router = getattr(app, "router", None)
    if router is None or "starlette.routing" not in sys.modules:
        return None
    return router if isinstance(router, sys.modules["starlette.routing"].Router) else None


_entering = ProcessLock()
# The entrances of guards that Starlette built, by application.
_entered: weakref.WeakKeyDictionary[Any, list[weakref.ref[Entrance]]] = weakref.WeakKeyDictionary()


def enter(app: Any, govern: Govern, *, passage: str, origin: tuple[Any, ...] | None = None) -> Entrance:
    """Put a guard at the entrance of a Starlette application's router.

    Args:
        app: the application.
        govern: decides.
        passage: the scope's key for what was decided about.
        origin: what the guard was built from: its rules and hooks, and its settings last. If a guard of the same
            origin stands there already, that one's entrance is returned. None always makes another one.
    """
    from ..routing.starlette import StarletteResolver  # optional dependency

    if origin is None:
        return Entrance(govern, passage, StarletteResolver(app), app)
    with _entering:
        standing = _entered.setdefault(app, [])
        for reference in standing:
            other = reference()
            if other is None or other.origin is None or not other.stands:
                continue
            same = all(mine is its for mine, its in zip(origin[:-1], other.origin[:-1], strict=True))
            if same and origin[-1] == other.origin[-1]:
                return other
        entrance = Entrance(govern, passage, StarletteResolver(app), app)
        entrance.origin = origin
        standing.append(weakref.ref(entrance))
        return entrance


def is_before_router(scope: Scope) -> bool:
    """Say whether the router of the scope's application is still to come, so that the guard may move there.

    Inside a router (a middleware of a route, of a mount, around a mounted application) there is no way back.
    """
    return "router" not in scope or scope.get("endpoint") is scope.get("app")


def line_of(scope: Scope) -> tuple[Any, ...]:
    """Return what a decision was about: a middleware that changes any of it makes the decision void."""
    hosts = [value for name, value in scope.get("headers", ()) if name.lower() == b"host"]
    return scope.get("method"), scope["path"], scope.get("query_string", b""), hosts
