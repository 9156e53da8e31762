"""Run a WSGI application and see how its response ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..adapters.outcome import WatchedParts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ..adapters.outcome import HandledRequest

__all__ = ["run_reported"]


def run_reported(
    handled: HandledRequest,
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    *,
    on_success: Callable[[HandledRequest], None] | None = None,
) -> Iterable[bytes]:
    """Run an application; record what became of it when its response ends, at the latest when it is closed.

    Args:
        handled: the request; its verdict may be found while the application runs.
        app: what to run, with its environ and start_response.
        environ: likewise.
        start_response: likewise.
        on_success: called when a response begins with a success status.
    """
    outcome = handled.outcome

    def start(status: str, headers: Any, exc_info: Any = None, /) -> Any:
        outcome.began(int(status[:3]), headers)
        if outcome.status < 300 and on_success is not None:
            on_success(handled)
        return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

    try:
        parts = app(environ, start)
    except BaseException as failure:
        outcome.raised(failure)
        handled.conclude()
        raise
    if outcome.status and not handled.is_awaited:
        return parts  # nothing to record; the server may know a quicker way to send it
    if isinstance(parts, list | tuple):
        outcome.ended()
        handled.conclude()
        return parts
    return WatchedParts(parts, outcome, handled.conclude)
