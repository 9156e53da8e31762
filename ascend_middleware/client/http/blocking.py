"""Direct connections over blocking sockets, for threads: what event loops do, in the thread of the caller."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from typing import Final

from ... import masking
from ...flow import drive
from .http1 import Origin, Reader
from .transport import (
    KEEPALIVE_SECONDS,
    ExchangeFailed,
    Request,
    Response,
    Unsendable,
    deadline_passed,
    describe,
    is_late,
    reach,
    resolve,
    surplus,
    unconnected,
)

__all__ = ["BlockingPool"]

_log = masking.get_logger("ascend_middleware.client.connection")
_CHUNK: Final = 65_536


class _Connection:
    """One connection; one request at a time."""

    __slots__ = ("__weakref__", "_given_up", "_reader", "_socket", "idle_since", "is_good")

    def __init__(self, stream: socket.socket) -> None:
        self._socket: Final = stream
        self._reader: Final = Reader()
        self._given_up = self.is_good = False
        self.idle_since = 0.0
        # The documented programs drop their client without closing it; and a forked child drops its parent's. Not by
        # `__del__`: of a circle that is dropped, the socket would go first, with a warning.
        weakref.finalize(self, stream.close)

    def is_open(self) -> bool:
        """Say whether an idle connection is good: nothing to be read, neither its end nor what nobody asked for."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def exchange(self, request: Request, origin: Origin, end: float) -> Response:
        """Return the answer; whatever else happens, the connection is not used again."""
        began = self.is_good = False
        reader = self._reader
        try:
            # Never locals of this frame: they hold the key, and reporters of errors show locals.
            self._write(memoryview(origin.encode(request)), end)
            heard = None
            while heard is None:
                self._socket.settimeout(_left(end))
                data = self._socket.recv(_CHUNK)
                if not data and self._given_up:
                    raise ConnectionAbortedError("it was closed")
                heard = reader.feed(data)
                began = True
            if reader.has_surplus:
                raise surplus()
            self.is_good = not reader.ends
            return heard
        except OSError as error:  # TLS's errors are OSErrors
            if is_late(error):
                raise deadline_passed(answered=began) from None
            raise ExchangeFailed(f"the connection to the authority broke: {describe(error)}") from None
        finally:
            if not self.is_good:
                self.close()

    def _write(self, data: memoryview, end: float) -> None:
        while data:
            self._socket.settimeout(_left(end))
            data = data[self._socket.send(data) :]

    def give_up(self) -> None:
        """End it for the thread that uses it: to close it would give its number away while that thread reads."""
        self._given_up = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS, what is below it

    def close(self) -> None:
        self.is_good = False
        with contextlib.suppress(OSError):
            self._socket.close()


class BlockingPool:
    """The connections of one process to one authority; how many there may be, who asks sees to."""

    def __init__(self, origin: Origin) -> None:
        self._origin: Final = origin
        self._lock: Final = threading.Lock()
        self._idle: Final[deque[_Connection]] = deque()
        self._busy: Final[set[_Connection]] = set()
        self._closed = False

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        end = time.monotonic() + timeout
        connection = self._take() or self._connect(end)
        try:
            return connection.exchange(request, self._origin, end)
        finally:
            self._give(connection)

    def _take(self) -> _Connection | None:
        """Return the idle connection that was used last; those before it rest, and are closed when they are old."""
        idle = self._idle
        while True:
            with self._lock:
                old = time.monotonic() - KEEPALIVE_SECONDS
                while idle and idle[0].idle_since < old:
                    idle.popleft().close()
                if not idle:
                    return None
                connection = idle.pop()
                self._busy.add(connection)
            if connection.is_open():
                return connection
            connection.close()
            self._give(connection)

    def _give(self, connection: _Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if self._closed:
                connection.close()
            elif connection.is_good:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)

    def _connect(self, end: float) -> _Connection:
        try:
            found = resolve(self._origin.host, self._origin.port).result(_left(end))
            stream: socket.socket | OSError = drive(reach(found, end, time.monotonic), self._open)
            if isinstance(stream, OSError):
                raise stream
        except OSError as error:  # TLS's errors are OSErrors
            raise unconnected(error) from None
        connection = _Connection(stream)
        with self._lock:
            if self._closed:
                raise Unsendable("the client was closed")
            self._busy.add(connection)
        _log.debug("connected to %s port %d", self._origin.host, self._origin.port)
        return connection

    def _open(self, step: tuple[str, float]) -> socket.socket:
        address, until = step
        stream = socket.create_connection((address, self._origin.port), timeout=_left(until))
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._origin.context is not None:
                stream.settimeout(_left(until))
                stream = self._origin.context.wrap_socket(stream, server_hostname=self._origin.host)
        except BaseException:
            stream.close()
            raise
        return stream

    def close(self) -> None:
        """Close every connection; requests under way fail."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            for connection in self._busy:
                connection.give_up()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
