"""Direct connections on an asyncio loop, over the loop's transports; nothing is polled.

A pool of a general library looks at every idle connection for each request; here a connection that ends is told by the
loop, so an idle one is good until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections import deque
from typing import TYPE_CHECKING, Final

from ... import masking
from ...exceptions import AscendError
from ...flow import running_loop
from ...fork import ProcessLock
from .common import KEEPALIVE_SECONDS, deadline_passed, describe, resolve, surplus, unconnected, worse
from .http1 import Origin, encode
from .tls import context_of
from .transport import AsyncEngine, ExchangeFailed, PerProcess, Request, Response, Unsendable

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["LoopEngine", "LoopPool"]

_log = masking.get_logger("ascend_middleware.client.connection")


class LoopEngine:
    """Sends over connections of its own for each asyncio loop; on other loops, through httpx2.

    Args:
        settings: without a proxy.
    """

    def __init__(self, settings: Settings) -> None:
        # Read here and not at the first request, where an event loop would wait for it.
        origin = Origin(settings.api_url, context_of(settings))
        # No cycle through self: a client that is dropped frees its connections at once.
        self._pools: Final = PerProcess(functools.partial(LoopPool, origin))
        self._settings: Final = settings
        self._opening: Final = ProcessLock()
        self._other: AsyncEngine | None = None

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        loop = running_loop()
        if isinstance(loop, asyncio.AbstractEventLoop):
            pool: LoopPool = self._pools.get(loop)
            return await pool.send(request, timeout)
        return await self._httpx2().send(request, timeout)

    def _httpx2(self) -> AsyncEngine:
        with self._opening:
            if self._other is None:
                from .httpx2_engine import AsyncHTTPX2  # takes as long as all the rest of the client

                self._other = AsyncHTTPX2(self._settings)
            return self._other

    async def aclose(self) -> None:
        """Close what is open in this process, on this loop."""
        pool = self._pools.take(running_loop())
        if pool is not None:
            await pool.aclose()
        elif self._other is not None:
            await self._other.aclose()


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    def __init__(self, pool: LoopPool) -> None:
        self._pool: Final = pool
        self._protocol: Final = pool.origin.protocol()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._began = False
        self.closed: Final[asyncio.Future[None]] = pool.loop.create_future()
        self.idle_since = 0.0

    # --- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream's transport

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done():
            self.abort()  # nobody asked: whose answer would it be?
            return
        self._began = True
        try:
            heard = self._protocol.feed(data)
        except AscendError as error:
            answer.set_exception(error)
        else:
            if heard is not None:
                answer.set_result(heard)

    def eof_received(self) -> bool:
        if self._answer is None:
            self._pool.forget(self)
        else:
            self.data_received(b"")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.forget(self)
        answer = self._answer
        if answer is not None and not answer.done():
            text = describe(error) if error is not None else "it was closed"
            answer.set_exception(ExchangeFailed(f"the connection to the authority broke: {text}"))
        if not self.closed.done():
            self.closed.set_result(None)

    # --- what the pool asks

    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer; whatever else happens, the connection is not used again."""
        transport = self._transport
        if transport is None:
            raise ExchangeFailed("the connection to the authority broke")
        loop = self._pool.loop
        answer = self._answer = loop.create_future()
        timer = loop.call_later(timeout, self._expire)
        whole = self._began = False
        try:
            # Never a local of this frame: it holds the key, and reporters of errors show locals.
            transport.write(encode(request, self._pool.origin.header))
            self._protocol.begin()
            heard: Response = await answer
            if self._protocol.has_surplus():
                raise surplus()
            whole = True
            return heard
        finally:
            timer.cancel()
            self._answer = None
            if not whole or self._protocol.ends():
                self.abort()

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(deadline_passed(answered=self._began))


class LoopPool:
    """The connections of one asyncio loop to one authority; how many there may be, who asks sees to."""

    def __init__(self, origin: Origin) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.origin: Final = origin
        self._idle: Final[deque[_Connection]] = deque()
        self._open: Final[set[_Connection]] = set()
        self._closed = False

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        end = self.loop.time() + timeout
        connection = self._take() or await self._connect(end)
        left = end - self.loop.time()
        if left <= 0:
            self._give(connection)
            raise deadline_passed()
        heard = await connection.exchange(request, left)
        self._give(connection)
        return heard

    def _take(self) -> _Connection | None:
        """Return the idle connection that was used last; those before it rest, and are closed when they are old."""
        idle = self._idle
        old = self.loop.time() - KEEPALIVE_SECONDS
        while idle and idle[0].idle_since < old:
            idle.popleft().abort()
        while idle:
            connection = idle.pop()
            if connection.is_open():
                return connection
        return None

    def _give(self, connection: _Connection) -> None:
        if self._closed:
            connection.abort()
        elif connection.is_open():
            connection.idle_since = self.loop.time()
            self._idle.append(connection)

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
                addresses = await self._addresses()
                connection = await self._reach(addresses, end)
        except OSError as error:  # TLS's errors are OSErrors
            raise unconnected(error) from None
        self._open.add(connection)
        _log.debug("connected to %s port %d", self.origin.host, self.origin.port)
        return connection

    async def _addresses(self) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(self.origin.host))]
        found: asyncio.Future[list[str]] = self.loop.create_future()

        def settle(answer: list[str] | OSError) -> None:
            if found.done():
                return
            if isinstance(answer, OSError):
                found.set_exception(answer)
            else:
                found.set_result(answer)

        def tell(answer: list[str] | OSError) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self.loop.call_soon_threadsafe(settle, answer)

        resolve(self.origin.host, self.origin.port, tell)
        return await found

    async def _reach(self, addresses: list[str], end: float) -> _Connection:
        origin = self.origin
        failure: OSError | None = None
        for number, address in enumerate(addresses, 1):
            # One that does not answer leaves half of the time to those after it.
            left = end - self.loop.time()
            is_last = number == len(addresses)
            try:
                async with asyncio.timeout(left if is_last else left / 2):
                    _, connection = await self.loop.create_connection(
                        lambda: _Connection(self),
                        address,
                        origin.port,
                        ssl=origin.context,
                        server_hostname=origin.host if origin.context is not None else None,
                    )
            except OSError as error:
                failure = worse(failure, error, is_last=is_last)
            else:
                return connection
        raise failure or OSError(f"no address for {origin.host}")

    async def aclose(self) -> None:
        """Close every connection; requests under way fail."""
        self._closed = True
        ending = list(self._open)
        for connection in ending:
            connection.abort()
        if ending:
            await asyncio.wait([connection.closed for connection in ending], timeout=1.0)
