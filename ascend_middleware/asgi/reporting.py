"""Watch a handler's response: what became of an allowed action, and successes that nobody decided about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ..guard import Verdict
    from ..runner import AsyncRunner

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["run_reported", "watch_success"]


def watch_success(send: Send, on_success: Callable[[], None]) -> Send:
    """Return a `send` that calls `on_success` when a response begins with a success status."""

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < 300:
            on_success()
        await send(message)

    return watched


async def run_reported(
    inner: Application, scope: Scope, receive: Receive, send: Send, *, verdict: Verdict, runner: AsyncRunner
) -> None:
    """Run a passed handler and report whether it completed."""
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
        await runner.conclude(verdict, error=error, duration_ms=int((time.monotonic() - started) * 1000))
