"""Direct connections on an asyncio loop, over the loop's transports; nothing is polled.

A pool of a general library looks at every idle connection for each request; here a connection that ends is told by the
loop, so an idle one is good until then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from ... import masking
from ...exceptions import AscendError
from ...flow import drive_async
from .http1 import Origin, Reader
from .network import deadline_passed, describe, reach, resolve, surplus, unconnected
from .transport import KEEPALIVE_SECONDS, ExchangeFailed, Request, Response, Unsendable

if TYPE_CHECKING:
    from .transport import Turn

__all__ = ["LoopPool"]

_log = masking.get_logger("ascend_middleware.client.connection")
# Loops count time in steps, of uvloop a millisecond.
_CLOCK_SECONDS: Final = 0.001


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time.

    Attributes:
        transport: what its bytes go through.
        answer: what is waited for, while there is a request.
        turn: whose turn ends with that request, if it is not the one's who waits; and what was lost before it.
        closed: done when it has ended.
        idle_since: when the last request on it ended.
    """

    def __init__(self, pool: LoopPool) -> None:
        self._pool: Final = pool
        self._reader: Final = Reader()
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[Response] | None = None
        self.turn: Turn | None = None
        self.lost = 0.0
        self._new_future: Final = pool.loop.create_future
        self.closed: Final[asyncio.Future[None]] = self._new_future()
        self.idle_since = 0.0
        self._began = self._is_good = False
        self._end = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timed = 0.0

    # --- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # a stream's transport

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None or answer.done():
            self.abort()  # nobody asked: whose answer would it be?
            return
        self._began = True
        reader = self._reader
        try:
            heard = reader.feed(data)
        except AscendError as error:
            answer.set_exception(error)
            return
        if heard is None:
            return
        if reader.has_surplus:
            answer.set_exception(surplus())
        else:
            self._is_good = not reader.ends
            answer.set_result(heard)

    def eof_received(self) -> bool:
        if self.answer is None:
            self._pool.forget(self)
        else:
            self.data_received(b"")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        answer = self.answer
        if answer is not None and not answer.done():
            text = describe(error) if error is not None else "it was closed"
            answer.set_exception(ExchangeFailed(f"the connection to the authority broke: {text}"))
        if not self.closed.done():
            self.closed.set_result(None)

    # --- what the pool asks

    def ask(self, request: Request, end: float) -> asyncio.Future[Response]:
        """Send a request; return what its answer is waited for with, which fails when the loop's time is `end`.

        Then comes `done`, whatever came of it. The timer stays from one request to the next, and is set anew when it
        goes off: where all may take equally long, that is once for many of them.
        """
        transport = self.transport
        if transport is None:
            raise ExchangeFailed("the connection to the authority broke")
        self._began = self._is_good = False
        self._end = end
        if self._timer is None or self._timed > end:
            self._arm(end)
        answer = self.answer = self._new_future()
        try:
            # Never a local of this frame: it holds the key, and reporters of errors show locals.
            transport.write(self._pool._origin.encode(request))
        except BaseException:
            self.done()
            raise
        return answer

    def done(self) -> None:
        """Give it back to the pool; unless its answer came as it should, it is not used again."""
        self.answer = None
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.leave()
        pool = self._pool
        if not self._is_good or pool._closed or self.transport is None:
            self.abort()
        elif not self.transport.is_closing():
            self.idle_since = pool.loop.time()
            pool._idle.append(self)

    def _arm(self, end: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timed = self._pool.loop.call_at(end, self._expire), end

    def _expire(self) -> None:
        self._timer = None
        if self.answer is None or self.answer.done():
            return
        if self._pool.loop.time() < self._end - _CLOCK_SECONDS:
            self._arm(self._end)
        else:
            waited = 0.0 if self.turn is None else self.turn.stalled(self.lost)
            self.answer.set_exception(deadline_passed(waited=waited, answered=self._began))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class LoopPool:
    """The connections of one asyncio loop to one authority; how many there may be, who asks sees to."""

    def __init__(self, origin: Origin) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self._origin: Final = origin
        self._idle: Final[deque[_Connection]] = deque()
        self._open: Final[set[_Connection]] = set()
        self._closed = False

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        now = self.loop.time()
        end = now + timeout
        connection = self._take(now) or await self._connect(end)
        answer = connection.ask(request, end)
        try:
            return await answer
        finally:
            connection.done()

    def begin(self, request: Request, timeout: float) -> _Connection | None:
        """Send a request over an idle connection, whose `answer` is awaited before it is `done`; None without one."""
        now = self.loop.time()
        connection = self._take(now)
        if connection is not None:
            connection.ask(request, now + timeout)
        return connection

    def _take(self, now: float) -> _Connection | None:
        """Return the idle connection that was used last; those before it rest, and are closed when they are old."""
        idle = self._idle
        while idle and idle[0].idle_since < now - KEEPALIVE_SECONDS:
            idle.popleft().abort()
        while idle:
            connection = idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def forget(self, connection: _Connection) -> None:
        """Use a connection that ended no more."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    async def _connect(self, end: float) -> _Connection:
        if self._closed:
            raise Unsendable("the client was closed")
        try:
            async with asyncio.timeout(end - self.loop.time()):
                found = await asyncio.wrap_future(resolve(self._origin.host, self._origin.port))
                connection: _Connection | OSError = await drive_async(reach(found, end, self.loop.time), self._open_one)
            if isinstance(connection, OSError):
                raise connection
        except OSError as error:  # TLS's errors are OSErrors
            raise unconnected(error) from None
        self._open.add(connection)
        _log.debug("connected to %s port %d", self._origin.host, self._origin.port)
        return connection

    async def _open_one(self, step: tuple[str, float]) -> _Connection:
        address, until = step
        origin = self._origin
        async with asyncio.timeout(until - self.loop.time()):
            _, connection = await self.loop.create_connection(
                lambda: _Connection(self),
                address,
                origin.port,
                ssl=origin.context,
                server_hostname=origin.host if origin.context is not None else None,
            )
        return connection

    async def aclose(self) -> None:
        """Close every connection; requests under way fail."""
        self._closed = True
        ending = list(self._open)
        for connection in ending:
            connection.abort()
        if ending:
            await asyncio.wait([connection.closed for connection in ending], timeout=1.0)
