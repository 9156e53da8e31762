"""Install the guard in a Starlette or FastAPI application: in front of its router, inside every other middleware.

Further in, a `Gate` is installed wherever something of the application could still change what was decided about. It
holds nothing of any guard: what it looks for came with the request, so that one object may serve many applications.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from ..adapters.outcome import changed_request
from ..fork import ProcessLock
from ..masking import get_logger
from ..routing import MATCH, Stop
from .messages import refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..routing import Confirmed, Entered
    from .messages import Application, Receive, Scope, Send
    from .openapi import Documents

    # Decides about a request, given what the router will run, and runs the application or refuses.
    Govern = Callable[[Scope, Receive, Send, Application, Any], Awaitable[None]]

logger = get_logger("ascend_middleware.asgi")

# Where a request carries what was decided about it, for the gates further in: a tuple of `AdmittedRequest`.
_ADMITTED: Final = "ascend_middleware.admitted"
# The same, and the router guards that a request is on its way to, where a middleware makes a scope of its own.
_under_way: ContextVar[tuple[object, ...]] = ContextVar("ascend_middleware.under_way", default=())
# Collecting garbage may come here while this is held.
_changing = ProcessLock(threading.RLock)


class AdmittedRequest:
    """One request that was let pass: each place on the way to its handler lets it through once."""

    __slots__ = ("_all", "_closed", "_left", "_subject")

    def __init__(self, scope: Scope, entered: Iterable[Entered]) -> None:
        self._subject = subject_of(scope)
        # Copies: what a middleware changes in a scope's own parameters is not what was decided about.
        self._all = tuple(one._replace(params=dict(one.params)) for one in entered)
        self._left = list(self._all)
        self._closed = False
        scope[_ADMITTED] = (*scope.get(_ADMITTED, ()), self)  # the request carries it

    def passes_through(self, owner: object) -> bool:
        """Whether the way of the request leads through this place."""
        return any(one.owner is owner for one in self._all)

    def take(self, owner: object, scope: Scope) -> Entered | None:
        """Let the request through one place; None if that was done before, or the request is another one by now."""
        if self._closed or self._subject != subject_of(scope):
            return None
        given = scope.get("root_path", ""), scope.get("path_params", {})
        for place, one in enumerate(self._left):
            if one.owner is owner and (one.root_path, one.params) == given:
                return self._left.pop(place)
        return None

    def close(self) -> bool:
        """Return whether the request came through the last place on its way, behind which there is only the handler.

        After this it comes no further: what is reported not to have run must not run behind its own answer.
        """
        self._closed = True
        return self._all[-1] not in self._left

    async def run(self, inner: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and let the request be known by it."""
        await _within((*_under_way.get(), self), inner, scope, receive, send)


async def _within(places: tuple[object, ...], inner: Application, scope: Scope, receive: Receive, send: Send) -> None:
    token = _under_way.set(places)
    try:
        await inner(scope, receive, send)
    finally:
        _under_way.reset(token)


class _Narrowed:
    """A router as if it had but one route, the one that was decided about; all else is the router's own.

    So what runs is what was decided about, and the others are not asked a second time.
    """

    __slots__ = ("_route", "_router", "form_limits", "routes")

    def __init__(self, router: Any, route: Confirmed) -> None:
        self._router, self._route, self.routes = router, route, (route.stand_in,)
        self.form_limits = getattr(router, "form_limits", None)  # what FastAPI's asks for first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Route as the router itself does."""
        router = self._router
        if "router" not in scope:
            scope["router"] = router
        scope[MATCH] = self._route.match
        running: Awaitable[None] = type(router).app(self, scope, receive, send)
        return running


def _narrowed(inner: Any, router: Any, route: Confirmed | None) -> Application:
    """Return what comes next in a router's chain, or its routing of one route, if that is what comes next."""
    own = getattr(inner, "__self__", None) is router
    own = own and getattr(inner, "__func__", None) is getattr(type(router), "app", 0)
    return _Narrowed(router, route) if own and route is not None else inner


class _Inserted(Stop):
    """A link in a chain of callables that can be taken out again."""

    def __init__(self, start: Any, first: str, place: tuple[Any, str]) -> None:
        self._start, self._first = start, first
        holder, name = place
        self.app: Application = getattr(holder, name)
        setattr(holder, name, self)

    def remove(self) -> None:
        """Take this out of the chain; without effect where it is not in it any more."""
        with _changing:
            holder, name = self._start, self._first
            while (found := getattr(holder, name, None)) is not self:
                if found is None or not hasattr(found, "app"):
                    return
                holder, name = found, "app"
            setattr(holder, name, self.app)


class RouterGuard(_Inserted):
    """The guard in front of a router, inside every middleware of the application.

    With `marked_only` it governs only what comes through the middleware that it belongs to.
    """

    def __init__(self, govern: Govern, documents: Documents, app: Any, *, marked_only: bool) -> None:
        from ..routing.starlette import StarletteResolver  # optional dependency

        self.owner = app
        self.origin: tuple[Any, ...] | None = None
        self._govern = govern
        self.documents = documents
        self.resolver: Any = StarletteResolver(app, documents.reached)
        self.mark: Any = f"ascend_middleware.through.{id(self)}" if marked_only else None
        self.router = app.router
        self._gates: weakref.WeakKeyDictionary[Gate, Any] = weakref.WeakKeyDictionary()
        super().__init__(app.router, "middleware_stack", _end_of_router(app.router))

    @property
    def is_current(self) -> bool:
        """Whether the application still has the router that this is in front of."""
        return self.owner.router is self.router

    def marking(self, app: Application, scope: Scope) -> Application:
        """Mark a request as one that came through the middleware, and return what lets it be known as that."""
        scope[self.mark] = True
        return functools.partial(_within, (*_under_way.get(), self), app)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Govern what enters the router."""
        if scope["type"] not in ("http", "websocket"):
            return self.app(scope, receive, send)  # a lifespan; the middleware lets nothing else in
        if self.mark is not None and self.mark not in scope and self not in _under_way.get():
            return self.app(scope, receive, send)  # of somebody who uses the application without the middleware
        # Where the application was given another router since, that one tells nothing about what runs here.
        if self.owner.router is not self.router:
            return self._govern(scope, receive, send, self.app, None)
        resolved = self.resolver.resolve(scope)
        known, app = resolved.known, self.app
        if known is not None and known.behind is app:
            return self._govern(scope, receive, send, known.way, resolved)
        inner = _narrowed(app, self.router, resolved.route)
        if known is not None:
            known.behind, known.way = app, inner
        for one in resolved.entered:  # of most requests none
            if not self._ensure_gate(one.owner):
                inner = functools.partial(_refuse_unseen, one.owner)
        return self._govern(scope, receive, send, inner, resolved)

    def _ensure_gate(self, owner: Any) -> bool:
        """Install a gate at a place, unless there is one; False where that cannot be done."""
        with _changing:
            gate = _find_gate(owner)
            if gate is None:
                place = _end(owner)
                if place is None:
                    return False
                gate = Gate(owner, place)
            if gate not in self._gates:
                gate.users += 1
                self._gates[gate] = weakref.finalize(self, _release, weakref.ref(gate))
        return True

    def remove(self) -> None:
        """Take this out of the application, and the gates that only this needed."""
        super().remove()
        for release in list(self._gates.values()):
            release()


class Gate(_Inserted):
    """Inside what could change a request after the decision: lets through what was decided about, once.

    What no guard has decided about passes: it came through an application without one.
    """

    def __init__(self, owner: Any, place: tuple[Any, str]) -> None:
        self.owner = owner
        self.users = 0
        start, first = _start_of(owner)
        super().__init__(start, first, place)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check that what was decided about is what comes."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        found = scope.get(_ADMITTED) or _under_way.get()
        inner: Application = self.app
        for admitted in found:
            if not isinstance(admitted, AdmittedRequest) or not admitted.passes_through(self.owner):
                continue
            entered = admitted.take(self.owner, scope)
            if entered is None:
                why = "was changed after it was decided about, runs a second time, or runs after its answer"
                await _refuse(f"{scope['path'][:200]!r} {why}", scope, receive, send)
                return
            inner = _narrowed(self.app, self._start, entered.route)
        # What a handler asks of the application by itself is another request.
        await _within((), inner, scope, receive, send)


def _start_of(owner: Any) -> tuple[Any, str]:
    """Return where the chain of an application, a router or a route begins."""
    if hasattr(owner, "endpoint"):
        return owner, "app"
    return getattr(owner, "router", owner), "middleware_stack"


def _end(owner: Any) -> tuple[Any, str] | None:
    """Return the place of a gate: inside the middleware of an application's router, of a router, or of a route."""
    from ..routing.starlette_classes import end_of  # optional dependency

    start, first = _start_of(owner)
    return end_of(owner) if first == "app" else _end_of_router(start)


def _end_of_router(router: Any) -> tuple[Any, str]:
    holder, name = router, "middleware_stack"
    # A router may have middleware of its own: go inside that, too, where it can be followed.
    while (outer := getattr(holder, name)) != router.app and not isinstance(outer, Stop):
        if not hasattr(outer, "app"):
            return router, "middleware_stack"
        holder, name = outer, "app"
    return holder, name


def _find_gate(owner: Any) -> Gate | None:
    holder, name = _start_of(owner)
    found = getattr(holder, name, None)
    while found is not None:
        if isinstance(found, Gate) and found.owner is owner:
            return found
        found = getattr(found, "app", None)
    return None


def _release(reference: weakref.ref[Gate]) -> None:
    gate = reference()
    if gate is None:
        return
    gate.users -= 1
    if not gate.users:
        gate.remove()


async def _refuse(why: str, scope: Scope, receive: Receive, send: Send) -> None:
    logger.error("refused: %s", why)
    await refuse(scope, receive, send, changed_request())


async def _refuse_unseen(owner: Any, scope: Scope, receive: Receive, send: Send) -> None:
    why = "a middleware keeps its application elsewhere than in `app`, so that nobody sees what comes to the endpoint"
    await _refuse(f"{owner!r}: {why}", scope, receive, send)


def find_router(app: Any) -> Any:
    """Return the router of a Starlette application, or None for any other application."""
    router = getattr(app, "router", None)
    if router is None or "starlette.routing" not in sys.modules:
        return None
    return router if isinstance(router, sys.modules["starlette.routing"].Router) else None


_installing = ProcessLock()
# The router guards of middlewares that Starlette built, by application.
_installed: weakref.WeakKeyDictionary[Any, list[weakref.ref[RouterGuard]]] = weakref.WeakKeyDictionary()


def install(app: Any, govern: Govern, documents: Documents, *, origin: tuple[Any, ...] | None = None) -> RouterGuard:
    """Put a guard in front of a Starlette application's router, and let `documents` tell of it.

    `origin` is what the guard was built from: its rules and hooks, and its settings last. A guard of the same origin
    that is there already is returned. None is for a middleware around the application: it always makes another guard,
    which governs what comes through that middleware.
    """
    if origin is None:
        return RouterGuard(govern, documents, app, marked_only=True)
    with _installing:
        known = _installed.setdefault(app, [])
        for reference in known:
            other = reference()
            if other is None or other.origin is None or not other.is_current:
                continue
            same = all(mine is its for mine, its in zip(origin[:-1], other.origin[:-1], strict=True))
            if same and origin[-1] == other.origin[-1]:
                return other
        guard = RouterGuard(govern, documents, app, marked_only=False)
        guard.origin = origin
        known.append(weakref.ref(guard))
        return guard


def is_before_router(scope: Scope) -> bool:
    """Say whether the router of the scope's application is still to come, so that the guard may move there.

    Inside a router (a middleware of a route, of a mount, around a mounted application) there is no way back.
    """
    return "router" not in scope or scope.get("endpoint") is scope.get("app")


def subject_of(scope: Scope) -> tuple[Any, ...]:
    """Return what a decision was about: a middleware that changes any of it makes the decision void."""
    hosts = [value for name, value in scope.get("headers", ()) if name.lower() == b"host"]
    return scope.get("method"), scope["path"], scope.get("query_string", b""), hosts
