"""The ASGI middleware: build a request view, run the guard, pass or refuse.

    app.add_middleware(AscendMiddleware, rules="ascend.toml")

Inside Starlette and FastAPI the guard moves in front of the router, inside every other middleware, so that what it
decides on is what the router runs.
"""

from __future__ import annotations

import functools
import sys
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from .. import substitute
from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, report_undecided
from ..adapters.runner import AsyncRunner
from ..exceptions import AscendError
from ..fork import ProcessLock
from ..guard import Verdict, announce, is_ordinary
from ..masking import get_logger
from .install import AdmittedRequest, RouterGuard, find_router, install, is_before_router
from .messages import Body, RootPath, ScopeView, refuse
from .openapi import Documents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ..guard import Guard
    from ..routing import Resolved
    from .messages import Application, Message, Receive, Scope, Send

logger = get_logger("ascend_middleware.asgi")

# Where a request keeps in its scope the outcomes of the guards that saw it.
_JUDGED: Final = "ascend_middleware.judged"
# Likewise, the governors that watch its answer.
_WATCHING: Final = "ascend_middleware.watching"
# What a middleware is given beside rules and settings.
_HOOKS: Final = ("identify", "render", "http_client", "strips_root_path")
_judging: ContextVar[list[str] | None] = ContextVar("ascend_middleware.judging", default=None)
# What nobody decided about, though a guard saw it.
_UNDECIDED: Final = frozenset({"framework"})


class AscendMiddleware:
    """Ask the authority before a handler runs.

    Args:
        app: the application, or the next middleware.
        rules: the path of an `ascend.toml`, a mapping of the same shape, or `Rule` objects.
        identify: called with the connection scope (Starlette: the `HTTPConnection`); returns `Agent` or `NotAnAgent`.
        render: called with status, headers and body of a refusal; returns the three to answer instead.
        http_client: your own `httpx2.AsyncClient` or `httpx.AsyncClient` to ask the authority with; you close it.
        strips_root_path: whether the application takes the server's root path off a path; needed only for one that is
            neither Starlette, FastAPI, Litestar, Quart nor Django.
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
        http_client: object = None,
        strips_root_path: bool | None = None,
        **settings: Any,
    ) -> None:
        self.app = app
        self._lock = ProcessLock()
        self._origin = (rules, identify, render, http_client, settings)
        self._strips_root_path = strips_root_path
        self._router_guard: RouterGuard | None = None
        self._announced = False
        self._begin()
        # Starlette builds its middlewares when the server starts up, and servers take an exception there for an
        # application without lifespan. Failing the start-up itself is what stops them, with the message.
        if self._problem is not None and not hasattr(app, "app"):
            raise self._problem

    def _begin(self) -> None:
        rules, identify, render, http_client, settings = self._origin
        self._problem: AscendError | None = None
        self._begun_under = substitute.current
        try:
            root_path = RootPath(self.app, self._strips_root_path)
            runner = AsyncRunner(rules, settings, identify=identify, render=render, http_client=http_client)
        except AscendError as error:
            self._problem = error
            return
        self._governor = Governor(runner, root_path)
        self._install(self.app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass lifespans through; govern requests and handshakes, unless that is done in front of the router."""
        if self._problem is not None and self._begun_under is not substitute.current:
            self._begin()
        if self._problem is not None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.failed", "message": f"ascend-middleware: {self._problem}"})
            raise self._problem  # as Starlette does after a failed start: its test client waits for ever otherwise
        router_guard = self._router_guard
        if router_guard is None:
            # Two threads may each have had Starlette build its middlewares: the second pair of one finds the first.
            if is_before_router(scope):
                self._install(scope.get("app"), origin=self._origin)
        elif router_guard.owner.router is not router_guard.router:
            self._install(router_guard.owner)
        router_guard, governor = self._router_guard, self._governor
        if scope["type"] == "lifespan":
            self._runner.start()
            try:
                await self.app(scope, receive, watch_lifespan(send, self._announce, self.aclose))
            finally:
                await self.aclose()
        elif scope["type"] not in ("http", "websocket") and self.guard.settings.enabled:
            # A rule can say nothing about it.
            raise AscendError(f"no rule can govern a scope of the type {scope['type']!r}: refused")
        elif router_guard is not None:
            if not self._announced:
                self._announce()
            if governor not in scope.get(_WATCHING, ()):
                send = governor.watch(scope, send)
            inner = self.app if router_guard.mark is None else router_guard.marking(self.app, scope)
            await inner(scope, receive, send)
        else:
            await governor.govern(scope, receive, send, self.app, None)

    @property
    def _runner(self) -> AsyncRunner:
        return self._governor.runner

    @property
    def guard(self) -> Guard:
        """What decides."""
        return self._runner.guard

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
        return self._runner.health()

    async def aclose(self) -> None:
        """Close this event loop's connections and deliver the outcomes that wait."""
        await self._runner.aclose()

    def _announce(self) -> None:
        """Say once which routes nothing covers; at the start-up, or at the first request where a server has none."""
        if self._router_guard is not None and not self._announced:
            self._announced = True
            self._router_guard.documents.renew()
            announce(self._router_guard.resolver, self.guard.table, self.guard.settings)

    def _install(self, app: Any, *, origin: tuple[Any, ...] | None = None) -> None:
        """Move in front of a Starlette application's router, if there is one."""
        if find_router(app) is None:
            return
        with self._lock:
            if self._router_guard is None or not self._router_guard.is_current:
                rendered = self.guard.render is not None
                documents = Documents(self.guard.table, self.guard.settings, rendered=rendered)
                self._router_guard = install(app, self._governor.govern, documents, origin=origin)
                if origin is None:
                    weakref.finalize(self, self._router_guard.remove).atexit = False
                else:
                    Tripwire.install(app, self, self._governor)


def find_added(app: Any) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Yield what each guard is given that was added to an application's middlewares: rules, settings and hooks."""
    for middleware in getattr(app, "user_middleware", ()):
        if isinstance(middleware.cls, type) and issubclass(middleware.cls, AscendMiddleware):
            given = dict(middleware.kwargs)
            hooks = {name: given.pop(name) for name in _HOOKS if name in given}
            yield given.pop("rules", None), given, hooks


# --- one request


class Governor:
    """Governs the requests of one middleware, wherever in the application they are to be judged."""

    def __init__(self, runner: AsyncRunner, root_path: RootPath) -> None:
        self.runner = runner
        self._root_path = root_path

    def govern(
        self, scope: Scope, receive: Receive, send: Send, inner: Application, resolved: Resolved | None
    ) -> Awaitable[None]:
        """Decide about one request or handshake and run `inner`, or refuse."""
        guard = self.runner.start()
        ordinary = is_ordinary(scope["path"], scope.get("raw_path"), scope.get("headers", ()))
        judged = scope.get(_JUDGED)
        if judged is None:
            judged = _judged(scope)
        if _judging.get() is not None:
            _judging.set(None)  # what a handler asks of an application by itself is another request
        if ordinary and resolved is not None and scope["type"] == "http" and not resolved.entered:
            exempt = guard.exempts(resolved.leaf, scope["method"], resolved.path)
            if exempt is not None:
                judged.append(exempt.outcome)
                return self._carry_out(exempt, scope, receive, send, inner, None)
        judged.append("")  # until it is known: what goes wrong here is no success of somebody else's
        view = ScopeView(scope, resolved, self._root_path, is_ordinary=ordinary)
        return self._govern(view, guard, judged, scope, receive, send, inner)

    async def _govern(
        self,
        view: ScopeView,
        guard: Guard,
        judged: list[str],
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
    ) -> None:
        resolved = view.resolved
        found = self.runner.triage(view, guard)
        if isinstance(found, Verdict):
            judged[-1] = found.outcome
            await self._carry_out(found, scope, receive, send, inner, resolved)
            return
        body = Body(receive, websocket=scope["type"] == "websocket")
        try:
            verdict = await self.runner.decide(view, found, body)
            judged[-1] = verdict.outcome
            if verdict.passes:
                # Who expects to be told to continue is told so by the first receive: only the handler may do that.
                try:
                    onward = body.onward_at_once() or await body.onward(ahead=not view.tells("expect"))
                except BaseException:
                    self.runner.guard.runs.give_up(verdict.run)
                    raise
                if onward is None:
                    handled = HandledRequest(self.runner, verdict)
                    handled.ran = False
                    handled.left()
                    await handled.conclude_async()
                    return
                receive = onward
            await self._carry_out(verdict, scope, receive, send, inner, resolved)
        finally:
            if body.task is not None:
                body.task.cancel()  # nobody took it over

    def _carry_out(
        self,
        verdict: Verdict,
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
        resolved: Resolved | None,
    ) -> Awaitable[None]:
        """Refuse, or run what passes; with the verdict, and for the gates on its way with what it was about."""
        if not verdict.passes:
            return refuse(scope, receive, send, verdict, render=self.runner.guard.render)
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state["ascend"] = verdict
        scope[VERDICT] = verdict
        came = None
        if resolved is not None and resolved.entered and verdict.outcome not in ("disabled", "observed"):
            admitted = AdmittedRequest(scope, resolved.entered)
            came, inner = admitted.close, functools.partial(admitted.run, inner)
        if verdict.run is None:
            return inner(scope, receive, send)
        return run_reported(HandledRequest(self.runner, verdict, came), inner, scope, receive, send)

    def watch(self, scope: Scope, send: Send) -> Send:
        """Return a `send` that reports a success for which no guard decided anything, and in strict mode fails it."""
        if scope.get("method") == "OPTIONS":
            return send  # what answers it is often a middleware
        scope[_WATCHING] = (*scope.get(_WATCHING, ()), self)
        judged = scope.get(_JUDGED)
        if judged is None:
            judged = _judged(scope)

        # Every message comes through here, so that no coroutine of its own stands between.
        def watched(message: Message) -> Awaitable[None]:
            kind = message["type"]
            is_success = (kind == "http.response.start" and message["status"] < 300) or kind == "websocket.accept"
            if is_success and _UNDECIDED.issuperset(judged) and (guard := self.runner.guard).settings.enabled:
                why = "no route was found for it" if judged else "a middleware answered it before the guard saw it"
                judged.append("tripped")  # said once, however many watch
                name = f"{scope.get('method') or scope['type']!r} {scope['path'][:200]!r}"
                report_undecided(guard, logger, name, why)
            return send(message)

        return watched


async def run_reported(handled: HandledRequest, inner: Application, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a passed handler and record what became of it, before its response ends."""
    is_http = scope["type"] == "http"

    async def received() -> Message:
        message = await receive()
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            handled.left()
        return message

    async def watched(message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            handled.began(message["status"], message.get("headers") or ())
        elif kind in _WHOLE or (kind in _PARTS and not message.get("more_body", False)):
            handled.is_whole = True
            if is_http and (recording := handled.conclude()) is not None:
                await recording
        elif kind == "websocket.close" and not handled.is_whole:
            handled.began(403, ())  # what a server makes of it
            handled.is_whole = True
        try:
            await send(message)
        except OSError:
            handled.left()
            raise

    try:
        await inner(scope, received, watched)
    except BaseException as failure:
        handled.raised(failure)
        raise
    finally:
        if (recording := handled.conclude()) is not None:
            await recording


_PARTS: Final = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
_WHOLE: Final = frozenset({"http.response.pathsend", "websocket.accept"})


def watch_lifespan(send: Send, on_started: Callable[[], None], on_stopped: Callable[[], Awaitable[None]]) -> Send:
    """Return a lifespan's `send` that calls `on_started` once the application has started, `on_stopped` at its end.

    The latter before the server hears of the end: what a server does next may be to end the process (uvicorn does,
    by the very signal that it was told to stop with), and what waits to be delivered is delivered first.
    """

    async def watched(message: Message) -> None:
        try:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await on_stopped()
        finally:
            await send(message)
        if message["type"] == "lifespan.startup.complete":
            on_started()

    return watched


def _judged(scope: Scope) -> list[str]:
    """Return what the guards of a request came to: a list, because a middleware may hand on a copy of the scope."""
    if _JUDGED not in scope:
        known = _judging.get()  # where one makes a scope of its own
        scope[_JUDGED] = [] if known is None else known
    found: list[str] = scope[_JUDGED]
    return found


# FastAPI's own middlewares, around those of an application; neither answers anything with success.
_FASTAPIS_OWN: Final = frozenset({"AppBodyLimitMiddleware", "ExceptionTelemetryMiddleware"})


def _is_fastapis_own(middleware: object) -> bool:
    kind = type(middleware)
    return kind.__name__ in _FASTAPIS_OWN and kind.__module__.startswith("fastapi.")


class Tripwire:
    """Around every middleware of a Starlette application: sees successes that no guard decided about."""

    def __init__(self, app: Application, governor: Governor) -> None:
        self.app = app
        self.governor = governor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch the answer."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        token = _judging.set(scope.setdefault(_JUDGED, []))
        send = self.governor.watch(scope, send)
        try:
            await self.app(scope, receive, send)
        finally:
            _judging.reset(token)

    @classmethod
    def install(cls, owner: Any, guard: Application, governor: Governor) -> None:
        """Install one inside of what answers an application's errors, unless the guard is the outermost itself."""
        holder, name = owner, "middleware_stack"
        if isinstance(getattr(holder, name, None), sys.modules["starlette.middleware.errors"].ServerErrorMiddleware):
            holder, name = holder.middleware_stack, "app"
        outermost: Any = getattr(holder, name, None)
        found = outermost
        while (isinstance(found, cls) and found.governor is not governor) or _is_fastapis_own(found):
            found = found.app
        if outermost is not None and found is not guard and not isinstance(found, cls):
            setattr(holder, name, cls(outermost, governor))
