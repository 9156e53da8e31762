"""ASGI adapter: Starlette, FastAPI, and any other ASGI application.

    app.add_middleware(AscendMiddleware, rules="ascend.toml")

Inside Starlette and FastAPI the guard moves to the router's entrance, inside every other middleware, so that what it
decides on is what the router runs.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from .asgi_body import Body, refuse
from .client import open_async_engine
from .client.masking import get_logger
from .compose import build_guard, build_keeper
from .exceptions import AscendError
from .flow import Sleep, drive_async
from .guard import Hook, ReadBody, Refusal, RequestView, Verdict, Watch
from .guard.keeper import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .routing import Resolved

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["AscendMiddleware", "require_decision"]

logger = get_logger("ascend_middleware.asgi")

PASSAGE = "ascend_middleware.passage"
JUDGED = "ascend_middleware.judged"


class AscendMiddleware:
    """Ask the authority before a handler runs.

    Args:
        app: the application, or the next middleware.
        rules: the path of an `ascend.toml`, a mapping of the same shape, or `Rule` objects.
        identify: called with the connection scope (Starlette: the `HTTPConnection`); returns `Agent` or `NotAnAgent`.
        render: called with status, headers and body of a refusal; returns the three to answer instead.
        settings: any field of `ascend_middleware.config.Settings`.

    Raises:
        ConfigurationError: at construction, with everything that is wrong; inside Starlette's own stack, the server's
            start-up fails with the same message.
    """

    def __init__(
        self,
        app: Any,
        /,
        *,
        rules: Any = None,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> None:
        self.app = app
        self._problem: AscendError | None = None
        try:
            self.guard = build_guard(rules, settings, identify=identify, render=render)
        except AscendError as error:
            if not hasattr(app, "app"):
                raise
            # Starlette builds its middlewares when the server starts up, and servers take an exception there for an
            # application without lifespan. Failing the start-up itself is what stops them, with the message.
            self._problem = error
            return
        self._keeper = build_keeper(self.guard)
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._passage = f"{PASSAGE}.{id(self)}"
        self._home: _Entrance | None = None
        self._settle(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass lifespans through, and govern requests and handshakes here unless the router's entrance does."""
        if self._problem is not None:
            if scope["type"] != "lifespan":
                raise self._problem
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"ascend-middleware: {self._problem}"})
            return
        if self._home is None and _is_before_router(scope):
            self._settle(scope.get("app"))
        elif self._home is not None and not self._home.stands:
            self._settle(self._home.owner)
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                await self.aclose()
        elif scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif self._home is not None:
            await self._lead_home(scope, receive, send)
        else:
            await self.govern(scope, receive, send, self.app, None)

    async def aclose(self) -> None:
        """Close this event loop's connections and deliver the outcomes that wait."""
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.aclose()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.close)

    async def _lead_home(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run what stands between here and the router's entrance, where the guard is."""
        # A list, because a middleware may hand on a copy of the scope.
        judged: list[bool] = scope.setdefault(JUDGED, [])
        if scope["type"] != "http" or scope["method"] == "OPTIONS":
            await self.app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300 and not judged:
                self._trip(scope["method"], scope["path"], "a middleware answered it before the guard saw it")
            await send(message)

        await self.app(scope, receive, watched)

    def _settle(self, app: Any) -> None:
        """Move to the entrance of a Starlette application's router, if there is one."""
        router = getattr(app, "router", None)
        if router is None or "starlette.routing" not in sys.modules:
            return
        from .routing.starlette import StarletteResolver  # optional dependency

        if not isinstance(router, sys.modules["starlette.routing"].Router):
            return
        with self._lock:
            if self._home is None or not self._home.stands:
                self._home = _Entrance(self, StarletteResolver(app), app)

    async def govern(
        self, scope: Scope, receive: Receive, send: Send, inner: Application, resolved: Resolved | None
    ) -> None:
        """Decide about one request or handshake and run `inner`, or refuse."""
        started = time.perf_counter()
        scope.setdefault(JUDGED, []).append(True)
        view = _view(scope, resolved)
        found = self.guard.triage(view)
        if isinstance(found, Verdict):
            self.guard.log(view, found, seconds=time.perf_counter() - started)
            await self._carry_out(found, view, scope, receive, send, inner)
            return
        body = Body(receive, websocket=scope["type"] == "websocket")
        try:
            verdict = await drive_async(self.guard.decide(view, found), self._performer(body))
            self.guard.log(view, verdict, seconds=time.perf_counter() - started)
            await self._carry_out(verdict, view, scope, body.onward(), send, inner)
        finally:
            body.close()

    async def _carry_out(
        self, verdict: Verdict, view: RequestView, scope: Scope, receive: Receive, send: Send, inner: Application
    ) -> None:
        if not verdict.passes:
            if verdict.refusal is not None:
                await refuse(scope, receive, send, verdict, render=self.guard.render)
            return
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state["ascend"] = verdict
        entered = view.resolved.entered if view.resolved is not None else ()
        scope[self._passage] = self._line(scope), entered
        if verdict.outcome == "framework":
            send = self._tripwire(view, send)
        # In observe mode a denied action runs, too, but the authority keeps outcomes of approved ones only.
        if verdict.outcome == "allowed" and verdict.action_id is not None and self._keeper is not None:
            await self._run_reported(verdict.action_id, inner, scope, receive, send)
        else:
            await inner(scope, receive, send)

    def _line(self, scope: Scope) -> tuple[Any, ...]:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return scope.get("method"), scope["path"], scope.get("query_string", b""), hosts

    async def recheck(self, app: Any, scope: Scope, receive: Receive, send: Send, inner: Application) -> None:
        """Run a mounted application's router if its own middleware left alone what was decided about."""
        line, entered = scope.get(self._passage, (None, ()))
        # The same application may be mounted more than once; one reached through a foreign one is not listed.
        roots = [root for entered_app, root in entered if entered_app is app]
        if line == self._line(scope) and (not roots or scope.get("root_path", "") in roots):
            await inner(scope, receive, send)
            return
        logger.error("a mounted application's middleware changed %r after the decision; refused", scope["path"][:200])
        detail = "The request was changed after it was decided about."
        verdict = Verdict(
            outcome="misconfigured", passes=False, refusal=Refusal(problem="misconfigured", detail=detail)
        )
        await refuse(scope, receive, send, verdict, render=self.guard.render)

    def _performer(self, body: Body) -> Callable[[Any], Awaitable[Any]]:
        async def perform(step: Any) -> Any:
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                return None
            if isinstance(step, ReadBody):
                return await body.read(step.limit, step.seconds)
            if isinstance(step, Watch):
                return await body.watch(step.seconds, limit=self.guard.settings.body_limit)
            if isinstance(step, Hook):
                result = step.function(*step.arguments)
                return await result if hasattr(result, "__await__") else result
            return await self._engine().send(step.request, step.timeout)

        return perform

    def _engine(self) -> Any:
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None:
            engine = self._engines[loop] = open_async_engine(self.guard.settings)
        return engine

    def _tripwire(self, view: RequestView, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                self._trip(view.method, view.path, "no route was found for it")
            await send(message)

        return watched

    def _trip(self, method: str, path: str, why: str) -> None:
        logger.error("%r %r succeeded without a decision: %s", method, path[:200], why)
        if self.guard.settings.strict:
            raise AscendError("a success for which no decision was made; see the log")

    async def _run_reported(
        self, action_id: str, inner: Application, scope: Scope, receive: Receive, send: Send
    ) -> None:
        started = time.monotonic()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        error: str | None = "the handler was interrupted"
        try:
            await inner(scope, receive, watched)
            error = f"the handler answered {status}" if status >= 500 else None
        except Exception as failure:
            error = f"the handler raised {type(failure).__name__}"
            raise
        finally:
            elapsed = int((time.monotonic() - started) * 1000)
            if self._keeper is not None:
                self._keeper.report(Outcome(action_id, error, elapsed))


class _Entrance:
    """What stands in front of a router: the guard, inside every middleware of the application."""

    def __init__(self, middleware: AscendMiddleware, resolver: Any, app: Any, *, mounted: bool = False) -> None:
        self.owner = app
        self._middleware = middleware
        self._resolver = resolver
        self._mounted = mounted
        self._router = router = app.router
        self._lock = threading.Lock()
        self._below: weakref.WeakKeyDictionary[Any, _Entrance] = weakref.WeakKeyDictionary()
        # A router may have middleware of its own: stand inside that, too, where it can be followed.
        holder, place = router, "middleware_stack"
        while (outer := getattr(holder, place)) != router.app and hasattr(outer, "app"):
            holder, place = outer, "app"
        if getattr(holder, place) != router.app:
            holder, place = router, "middleware_stack"
        self._inner: Application = getattr(holder, place)
        setattr(holder, place, self)

    @property
    def stands(self) -> bool:
        """Whether the application still has the router at whose entrance this stands."""
        return self.owner.router is self._router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._inner(scope, receive, send)
            return
        if self._mounted:
            await self._middleware.recheck(self.owner, scope, receive, send, self._inner)
            return
        # Where the application was given another router since, that one tells nothing about what runs here.
        resolved = self._resolver.resolve(scope) if self.stands else None
        if resolved is not None and resolved.entered:
            self._guard_mounted(resolved.entered)
        await self._middleware.govern(scope, receive, send, self._inner, resolved)

    def _guard_mounted(self, entered: tuple[tuple[Any, str], ...]) -> None:
        with self._lock:
            for app, _ in entered:
                below = self._below.get(app)
                if below is None or not below.stands:
                    self._below[app] = _Entrance(self._middleware, None, app, mounted=True)


def _is_before_router(scope: Scope) -> bool:
    """Say whether the router of the scope's application is still to come, so that the guard may move there.

    Inside a router (a middleware of a route, of a mount, around a mounted application) there is no way back.
    """
    return "router" not in scope or scope.get("endpoint") is scope.get("app")


def _view(scope: Scope, resolved: Resolved | None) -> RequestView:
    raw = scope.get("raw_path")
    path = scope["path"]
    if resolved is not None:
        path = resolved.path
    elif scope.get("root_path") and path.startswith(scope["root_path"]):
        path = path[len(scope["root_path"]) :] or "/"
    method = scope["method"].upper() if scope["type"] == "http" else "WEBSOCKET"
    request: Any = scope
    if resolved is not None:
        request = sys.modules["starlette.requests"].HTTPConnection(scope)
    return RequestView(
        method=method,
        path=path,
        raw_path=raw.decode("latin-1").partition("?")[0] if raw else None,
        query=scope.get("query_string", b""),
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        resolved=resolved,
        request=request,
    )


try:
    from starlette.requests import HTTPConnection as _Connection
except ImportError:  # pragma: no cover - another ASGI framework
    _Connection = Any  # type: ignore[assignment,misc]


def require_decision(connection: _Connection) -> Verdict:
    """Return the verdict under which this request passed; a FastAPI dependency or a call in a handler.

    Raises:
        RuntimeError: the middleware was left out, so nobody decided; the handler does not run.
    """
    verdict = connection.scope.get("state", {}).get("ascend")
    if not isinstance(verdict, Verdict) or not verdict.passes:
        raise RuntimeError("no ASCEND decision for this request: is AscendMiddleware added to this application?")
    return verdict
