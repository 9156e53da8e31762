"""The ASGI middleware: build a request view, run the guard, pass or refuse.

    app.add_middleware(AscendMiddleware, rules="ascend.toml")

Inside Starlette and FastAPI the guard moves in front of the router, inside every other middleware, so that what it
decides on is what the router runs.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from .. import substitute
from ..adapters.runner import AsyncRunner
from ..exceptions import AscendError
from ..fork import ProcessLock
from ..guard import announce
from .handle import WATCHING, Governor, Tripwire, watch_lifespan
from .install import RouterGuard, find_router, install, is_before_router
from .messages import RootPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..guard import Guard
    from .messages import Receive, Scope, Send

__all__ = ["AscendMiddleware"]


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
            if governor not in scope.get(WATCHING, ()):
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
            announce(self._router_guard.resolver, self.guard.table, self.guard.settings)

    def _install(self, app: Any, *, origin: tuple[Any, ...] | None = None) -> None:
        """Move in front of a Starlette application's router, if there is one."""
        if find_router(app) is None:
            return
        with self._lock:
            if self._router_guard is None or not self._router_guard.is_current:
                self._router_guard = install(app, self._governor.govern, origin=origin)
                if origin is None:
                    weakref.finalize(self, self._router_guard.remove).atexit = False
                else:
                    Tripwire.install(app, self, self._governor)
