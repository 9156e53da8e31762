"""Watch a handler's response: what became of an allowed action; and a lifespan's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..adapters.outcome import HandledRequest
    from .messages import Application, Message, Receive, Scope, Send

__all__ = ["run_reported", "watch_lifespan"]


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


async def run_reported(handled: HandledRequest, inner: Application, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a passed handler and record what became of it, before its response ends."""

    async def received() -> Message:
        message = await receive()
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            handled.left()
        return message

    async def watched(message: Message) -> None:
        _note(handled, message)
        if handled.is_whole and scope["type"] == "http":
            await handled.conclude_async()
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
        await handled.conclude_async()


def _note(handled: HandledRequest, message: Message) -> None:
    kind = message["type"]
    if kind in ("http.response.start", "websocket.http.response.start"):
        handled.began(message["status"], message.get("headers") or ())
    elif kind in _PARTS:
        if not message.get("more_body", False):
            handled.ended()
    elif kind == "http.response.pathsend" or kind == "websocket.accept":
        handled.ended()
    elif kind == "websocket.close" and not handled.is_whole:
        handled.began(403, ())  # what a server makes of it
        handled.ended()


_PARTS: Final = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
