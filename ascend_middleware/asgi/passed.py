"""A request that was let pass: what became of its handler is recorded before its response ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..adapters.outcome import HandledRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..guard import Verdict
    from .messages import Application, Message, Receive, Scope, Send

__all__ = ["PassedRequest", "passed"]

_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_PARTS: Final = frozenset({"http.response.body", "http.response.zerocopysend", "websocket.http.response.body"})
_WHOLE: Final = frozenset({"http.response.pathsend", "websocket.accept"})
_LEFT: Final = frozenset({"http.disconnect", "websocket.disconnect"})
# Servers of these versions of ASGI ignore what is sent to a client that has left; later ones raise `OSError`.
_IGNORING: Final = frozenset({"2.0", "2.1", "2.2", "2.3"})
_UNKNOWN: Final[dict[str, Any]] = {}


class PassedRequest(HandledRequest, kw_only=True):
    """A request whose handler runs between `received` and `sent`, and of which somebody is to be told the outcome.

    Attributes:
        receive: the server's, like `send`.
        send: which raises where `tells_of_leaving`, once the client has left.
    """

    receive: Receive
    send: Send
    is_http: bool
    tells_of_leaving: bool

    async def run(self, inner: Application, scope: Scope) -> None:
        """Run the handler, and record what became of it before its response ends."""
        try:
            await inner(scope, self.received, self.sent)
        except BaseException as failure:
            self.raised(failure)
            raise
        finally:
            # What was answered in full was concluded then.
            if not (self.is_whole and self.is_http) and (recording := self.conclude()) is not None:
                await recording

    async def received(self) -> Message:
        """Receive a message for the handler."""
        message = await self.receive()
        if message["type"] in _LEFT:
            self.left()
        return message

    # Where nothing can be learned of how it ends, no coroutine of its own stands between handler and server.
    def sent(self, message: Message) -> Awaitable[None]:
        """Send a message of the handler."""
        kind = message["type"]
        if kind in _STARTS:
            status = message["status"]
            if status < 400 and not self.status:
                self.status = status
            else:
                self.began(status, message.get("headers") or ())
        elif (kind in _PARTS and not message.get("more_body", False)) or kind in _WHOLE:
            self.is_whole = True
            if self.is_http:
                recording = self.conclude()
                return self.send(message) if recording is None else self._recorded(recording, message)
        elif kind == "websocket.close" and not self.is_whole:
            self.began(403, ())  # what a server makes of it
            self.is_whole = True
        return self._carefully(message) if self.tells_of_leaving else self.send(message)

    async def _recorded(self, recording: Awaitable[None], message: Message) -> None:
        await recording
        await self.send(message)

    async def _carefully(self, message: Message) -> None:
        try:
            await self.send(message)
        except OSError:
            self.left()
            raise


def passed(
    runner: Any,
    verdict: Verdict,
    scope: Scope,
    receive: Receive,
    send: Send,
    came: Callable[[], bool] | None = None,
) -> PassedRequest:
    """Return a request that was let pass; `came` tells whether it came to its handler, where only that can be seen."""
    return PassedRequest(
        runner,
        verdict,
        came,
        receive=receive,
        send=send,
        is_http=scope["type"] == "http",
        tells_of_leaving=scope.get("asgi", _UNKNOWN).get("spec_version") not in _IGNORING,
    )
