"""The ASGI middleware: build a request view, run the guard, pass or refuse.

    app.add_middleware(AscendMiddleware, rules="ascend.toml")

Inside Starlette and FastAPI the guard moves in front of the router, inside every other middleware, so that what it
decides on is what the router runs.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from .. import substitute
from ..adapters.runner import AsyncRunner
from ..exceptions import AscendError
from ..fork import ProcessLock
from ..guard import announce
from ..masking import get_logger
from .governor import JUDGED, Governor, judging
from .install import RouterGuard, find_router, install, is_before_router
from .messages import RootPath
from .openapi import Documents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ..guard import Guard
    from .messages import Application, Message, Receive, Scope, Send

logger = get_logger("ascend_middleware.asgi")

# What a middleware is given beside rules and settings.
_HOOKS: Final = ("identify", "render", "http_client", "strips_root_path")


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
        router_guard, kind = self._router_guard, scope["type"]
        # As most requests find it: there is no problem, and what was installed stands where it was.
        if (
            kind == "http"
            and router_guard is not None
            and router_guard.mark is None
            and router_guard.owner.router is router_guard.router
            and self._announced
        ):
            await self.app(scope, receive, self._governor.watch(scope, send))
            return
        if self._problem is not None:
            await self._try_again(scope, receive, send)
        if router_guard is None:
            # Two threads may each have had Starlette build its middlewares: the second pair of one finds the first.
            if is_before_router(scope):
                self._install(scope.get("app"), origin=self._origin)
        elif router_guard.owner.router is not router_guard.router:
            self._install(router_guard.owner)
        router_guard = self._router_guard
        if kind not in ("http", "websocket"):
            await self._serve_else(scope, receive, send)
        elif router_guard is not None:
            if not self._announced:
                self._announce()
            inner = self.app if router_guard.mark is None else router_guard.marking(self.app, scope)
            await inner(scope, receive, self._governor.watch(scope, send))
        else:
            await self._governor.govern(scope, receive, send, self.app, None)

    async def _try_again(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin under a test's authority what could not begin without it, or say what is wrong."""
        if self._begun_under is not substitute.current:
            self._begin()
        if self._problem is not None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.failed", "message": f"ascend-middleware: {self._problem}"})
            raise self._problem  # as Starlette does after a failed start: its test client waits for ever otherwise

    async def _serve_else(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is neither a request nor a handshake."""
        if scope["type"] == "lifespan":
            self._runner.start()
            try:
                await self.app(scope, receive, watch_lifespan(send, self._announce, self.aclose))
            finally:
                await self.aclose()
        elif self.guard.settings.enabled:
            # A rule can say nothing about it.
            raise AscendError(f"no rule can govern a scope of the type {scope['type']!r}: refused")
        else:
            await self.app(scope, receive, send)

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
        token = judging.set(scope.setdefault(JUDGED, []))
        send = self.governor.watch(scope, send)
        try:
            await self.app(scope, receive, send)
        finally:
            judging.reset(token)

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
