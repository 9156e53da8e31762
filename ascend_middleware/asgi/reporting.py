"""Watch a handler's response: what became of an allowed action, and successes that nobody decided about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..guard import Verdict
    from ..runner import AsyncRunner
    from .types import Application, Message, Receive, Scope, Send

__all__ = ["run_reported", "watch_lifespan", "watch_success"]


def watch_success(send: Send, on_success: Callable[[], None]) -> Send:
    """Return a `send` that calls `on_success` when a response begins with a success status."""

    # Every message comes through here, so that no coroutine of its own stands between.
    def watched(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start" and message["status"] < 300:
            on_success()
        return send(message)

    return watched


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


async def run_reported(
    inner: Application, scope: Scope, receive: Receive, send: Send, *, verdict: Verdict, runner: AsyncRunner
) -> None:
    """Run a passed handler and record what became of it, before its response ends."""
    started = time.monotonic()
    status = 0
    whole = gone = False

    async def conclude(error: str | None) -> None:
        # Only the first word counts.
        await runner.conclude(verdict, error=error, duration_ms=int((time.monotonic() - started) * 1000))

    async def received() -> Message:
        nonlocal gone
        message = await receive()
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            gone = True
        return message

    async def watched(message: Message) -> None:
        nonlocal status, whole
        kind = message["type"]
        if kind == "http.response.start":
            status = message["status"]
        elif kind == "http.response.body" and not message.get("more_body", False):
            whole = True
            await conclude(f"the handler answered {status}" if status >= 500 else None)
        await send(message)

    error: str | None = "the handler was interrupted"
    try:
        await inner(scope, received, watched)
        if scope["type"] == "websocket" or whole:
            error = None
        elif gone:
            error = "the client left"
        else:
            error = "the stream broke" if status else "the handler gave no answer"
    except Exception as failure:
        if gone or isinstance(failure, OSError):
            error = f"the client left ({type(failure).__name__})"
        elif status:
            error = f"the stream broke: the handler raised {type(failure).__name__}"
        else:
            error = f"the handler raised {type(failure).__name__}"
        raise
    except BaseException:
        error = "the client left" if gone else error
        raise
    finally:
        await conclude(error)
