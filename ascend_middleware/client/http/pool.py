"""Direct connections on an asyncio loop: h11 or httptools speaks, the loop's transports carry, nothing is polled.

A pool of a general library looks at every idle connection for each request; here a connection that ends is told by the
loop, so an idle one is good until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import deque
from typing import TYPE_CHECKING, Final

from ... import masking
from ...exceptions import AscendError
from .common import (
    KEEPALIVE_SECONDS,
    deadline_passed,
    describe,
    is_distrusted,
    is_exhausted,
    resolve,
    surplus,
    unconnected,
)
from .http1_h11 import Speech, authority_of
from .transport import ExchangeFailed, Request, Response, Unsendable

try:
    from .http1_httptools import FastSpeech
except ImportError:
    FastSpeech = Speech  # type: ignore[assignment,misc] # the same, slower

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["LoopPool"]

_log = masking.get_logger("ascend_middleware.client.connection")


class _Connection(asyncio.Protocol):
    """One connection; at most one request at a time."""

    def __init__(self, pool: LoopPool) -> None:
        self._pool: Final = pool
        self._speech: Final = pool.speech(pool.host_header)
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
            heard = self._speech.hear(data)
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
            transport.write(self._speech.say(request))
            heard: Response = await answer
            if self._speech.has_surplus():
                raise surplus()
            whole = True
            return heard
        finally:
            timer.cancel()
            self._answer = None
            if not whole or self._speech.ends():
                self.abort()

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(deadline_passed(answered=self._began))


class LoopPool:
    """The connections of one asyncio loop to one authority; how many there may be, who asks sees to.

    Args:
        url: the authority's base URL.
        trusted: certificates to trust; None for plain HTTP.
        speech: how HTTP is spoken; by httptools where it is installed, else by h11.
    """

    def __init__(
        self,
        url: str,
        *,
        trusted: ssl.SSLContext | None,
        speech: Callable[[str], Speech | FastSpeech] = FastSpeech,
    ) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.host_header, self._host, self._port, tls = authority_of(url)
        self._trusted: Final = trusted if tls else None
        self.speech: Final = speech
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
        except TimeoutError:
            raise deadline_passed() from None
        except OSError as error:  # TLS's errors are OSErrors
            raise unconnected(error) from None
        self._open.add(connection)
        _log.debug("connected to %s port %d", self._host, self._port)
        return connection

    async def _addresses(self) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(self._host))]
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

        resolve(self._host, self._port, tell)
        return await found

    async def _reach(self, addresses: list[str], end: float) -> _Connection:
        failure: OSError | None = None
        for number, address in enumerate(addresses, 1):
            # One that does not answer leaves half of the time to those after it.
            left = end - self.loop.time()
            share = left if number == len(addresses) else left / 2
            try:
                async with asyncio.timeout(share):
                    _, connection = await self.loop.create_connection(
                        lambda: _Connection(self),
                        address,
                        self._port,
                        ssl=self._trusted,
                        server_hostname=self._host if self._trusted is not None else None,
                    )
            except OSError as error:
                if failure is not None and is_distrusted(failure):
                    continue  # something answered there
                if isinstance(error, TimeoutError) and number == len(addresses):
                    raise
                # Such as an address of a family that is switched off.
                if failure is None or is_exhausted(failure) or is_distrusted(error):
                    failure = error
            else:
                return connection
        raise failure or OSError(f"no address for {self._host}")

    async def aclose(self) -> None:
        """Close every connection; requests under way fail."""
        self._closed = True
        ending = list(self._open)
        for connection in ending:
            connection.abort()
        if ending:
            await asyncio.wait([connection.closed for connection in ending], timeout=1.0)
