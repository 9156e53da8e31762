"""The WSGI middleware: build a request view, run the guard, pass or refuse.

    application = AscendMiddleware(application, rules="ascend.toml")

No router can be asked here, so the canonical decoded path below SCRIPT_NAME decides. Whoever has Flask or Django in
hand takes their adapters, which know the route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, WatchedParts
from ..adapters.runner import SyncRunner
from .messages import Body, refuse, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ..guard import Guard

__all__ = ["AscendMiddleware", "run_reported"]


class AscendMiddleware:
    """Ask the authority before a WSGI application runs; the verdict is at `environ["ascend.verdict"]`.

    Args:
        app: the application.
        rules: the path of an `ascend.toml`, a mapping of the same shape, or `Rule` objects.
        identify: called with the environ; returns `Agent` or `NotAnAgent`.
        render: called with status, headers and body of a refusal; returns the three to answer instead.
        http_client: your own `httpx2.Client` or `httpx.Client` to ask the authority with; you close it.
        settings: any field of `ascend_middleware.config.Settings`.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        /,
        *,
        rules: Any = None,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        http_client: object = None,
        **settings: Any,
    ) -> None:
        self.app = app
        self._runner = SyncRunner(rules, settings, identify=identify, render=render, http_client=http_client)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Decide about one request and run the application, or refuse."""
        verdict = self._runner.judge(view_of(environ), Body(environ).read)
        if not verdict.passes:
            return refuse(environ, start_response, verdict, self.guard.render)
        environ[VERDICT] = verdict
        return run_reported(HandledRequest(self._runner, verdict), self.app, environ, start_response)

    @property
    def guard(self) -> Guard:
        """What decides."""
        return self._runner.guard

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
        return self._runner.health()

    def close(self) -> None:
        """Close this process's connections and deliver the outcomes that wait."""
        self._runner.close()


def run_reported(
    handled: HandledRequest,
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    *,
    on_success: Callable[[HandledRequest], None] | None = None,
) -> Iterable[bytes]:
    """Run an application; record what became of it when its response ends, at the latest when it is closed.

    The verdict may be found meanwhile. `on_success` is called when a response begins with a success status.
    """

    def start(status: str, headers: Any, exc_info: Any = None, /) -> Any:
        handled.began(int(status[:3]), headers)
        if handled.status < 300 and on_success is not None:
            on_success(handled)
        return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

    try:
        parts = app(environ, start)
    except BaseException as failure:
        handled.raised(failure)
        handled.conclude()
        raise
    if handled.status and not handled.is_awaited:
        return parts  # nothing to record; the server may know a quicker way to send it
    if isinstance(parts, list | tuple):
        handled.ended()
        handled.conclude()
        return parts
    return WatchedParts(parts, handled)
