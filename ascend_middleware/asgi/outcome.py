"""Watch a handler's response: what became of an allowed action, and successes that nobody decided about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..adapters.outcome import HandledRequest
    from ..guard import Outcome
    from .messages import Application, Message, Receive, Scope, Send

__all__ = ["run_reported", "watch_lifespan", "watch_success"]


def watch_success(send: Send, on_success: Callable[[], None]) -> Send:
    """Return a `send` that calls `on_success` when a response begins with a success status, or a socket is accepted."""

    # Every message comes through here, so that no coroutine of its own stands between.
    def watched(message: Message) -> Awaitable[None]:
        kind = message["type"]
        if (kind == "http.response.start" and message["status"] < 300) or kind == "websocket.accept":
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
    handled: HandledRequest,
    inner: Application,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    came: Callable[[], bool] | None = None,
) -> None:
    """Run a passed handler and record what became of it, before its response ends.

    `came` tells whether the request came to the handler, where that can be seen.
    """
    outcome = handled.outcome

    async def conclude() -> None:
        outcome.ran = None if came is None else came()
        await handled.conclude_async()  # only the first time counts

    async def received() -> Message:
        message = await receive()
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            outcome.left()
        return message

    async def watched(message: Message) -> None:
        _note(outcome, message)
        if outcome.is_whole and scope["type"] == "http":
            await conclude()
        try:
            await send(message)
        except OSError:
            outcome.left()
            raise

    try:
        await inner(scope, received, watched)
    except BaseException as failure:
        outcome.raised(failure)
        raise
    finally:
        await conclude()


def _note(outcome: Outcome, message: Message) -> None:
    kind = message["type"]
    if kind in ("http.response.start", "websocket.http.response.start"):
        outcome.began(message["status"], message.get("headers") or ())
    elif kind in _PARTS:
        if not message.get("more_body", False):
            outcome.ended()
    elif kind == "http.response.pathsend" or kind == "websocket.accept":
        outcome.ended()
    elif kind == "websocket.close" and not outcome.is_whole:
        outcome.began(403, ())  # what a server makes of it
        outcome.ended()


_PARTS: Final = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
