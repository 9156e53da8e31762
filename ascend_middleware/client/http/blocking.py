"""Direct connections over blocking sockets, for threads: what event loops do, in the thread of the caller.

Each system call that may wait gives the interpreter's lock away, and a busy process is slow to give it back. So an
ordinary request makes two of them: the deadline is the kernel's to keep, and whether an idle connection is good is
asked of TCP without reading. Connections over TLS, and those of other systems or of greenlets, go the longer way.
What runs between these calls finds nothing of its own in the processor's caches, so there is little of it: no lock is
taken where one step of a collection is enough, and the clock is read no more often than needed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import sys
import threading
import time
import weakref
from collections import deque
from typing import Final

from ... import masking
from ...flow import drive
from .http1 import Origin, Reader
from .network import deadline_passed, describe, is_late, reach, resolve, surplus, unconnected
from .transport import KEEPALIVE_SECONDS, ExchangeFailed, Request, Response, Unsendable

__all__ = ["BlockingPool"]

_log = masking.get_logger("ascend_middleware.client.connection")
_CHUNK: Final = 16_384  # most answers fit in a twentieth of it


# How exactly the kernel keeps a deadline here: it is told of another one only where that is off by more.
_EXACT_SECONDS: Final = 0.005
_KEEPS_TIME: Final = sys.platform == "linux" and sys.maxsize > 2**32
_TIMEVAL: Final = struct.Struct("ll")
# Of `struct tcp_info`: the state, and how many bytes have arrived.
_TCP_INFO: Final = struct.Struct("=B127xQ")
_ASK_TCP_INFO: Final = socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", -1), _TCP_INFO.size
_ESTABLISHED: Final = 1


class _Connection:
    """One connection; one request at a time."""

    __slots__ = (
        "__weakref__",
        "_given_up",
        "_is_plain",
        "_kept",
        "_main_thread",
        "_read",
        "_reader",
        "_socket",
        "idle_since",
        "is_good",
    )

    def __init__(self, stream: socket.socket) -> None:
        self._socket: Final = stream
        self._reader: Final = Reader()
        self._given_up = self.is_good = False
        self.idle_since = 0.0
        self._is_plain: Final = _KEEPS_TIME and type(stream).__module__ == "socket"  # not TLS's, not a greenlet's
        self._main_thread: Final = threading.main_thread().ident  # of the process, which does not change for it
        self._kept = 0.0  # the seconds after which the kernel ends a wait
        self._read = 0  # bytes
        if self._is_plain:
            stream.settimeout(None)
        # The documented programs drop their client without closing it; and a forked child drops its parent's. Not by
        # `__del__`: of a circle that is dropped, the socket would go first, with a warning.
        weakref.finalize(self, stream.close)

    def is_open(self) -> bool:
        """Say whether an idle connection is good: nothing to be read, neither its end nor what nobody asked for."""
        stream = self._socket
        try:
            if self._is_plain:
                found = stream.getsockopt(*_ASK_TCP_INFO)
                # Where the system counts nothing, or something is amiss, reading tells.
                if len(found) == _TCP_INFO.size and _TCP_INFO.unpack(found) == (_ESTABLISHED, self._read):
                    return True
            stream.settimeout(0)
            stream.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            if self._is_plain:
                stream.settimeout(None)
            return True
        except OSError:
            pass
        return False

    def exchange(self, request: Request, origin: Origin, end: float) -> Response:
        """Return the answer; whatever else happens, the connection is not good for another one."""
        began = self.is_good = False
        reader = self._reader
        try:
            # Never locals of this frame: they hold the key, and reporters of errors show locals.
            self._write(origin.encode(request), end)
            heard = None
            while heard is None:
                data = self._receive(end)
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

    def _receive(self, end: float) -> bytes:
        left = _left(end)
        if not self._is_plain:
            self._socket.settimeout(left)
            return self._socket.recv(_CHUNK)
        if threading.get_ident() == self._main_thread and not _is_readable(self._socket, left):
            raise TimeoutError  # signals come to this thread, and each of them lets the kernel count from the start
        while True:
            if not 0 <= left - self._kept <= _EXACT_SECONDS:
                # Not the whole of it, so that it fits the next request, which has a little more or less.
                kept = self._kept = left - _EXACT_SECONDS / 2 if left > _EXACT_SECONDS else max(left, 1e-6)
                timeval = _TIMEVAL.pack(int(kept), int(kept % 1 * 1e6))
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError:
                left = _left(end)
            else:
                self._read += len(data)
                return data

    def _write(self, data: bytes, end: float) -> None:
        stream, sent = self._socket, 0
        if self._is_plain:
            try:
                sent = stream.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
        rest = memoryview(data)[sent:]
        while rest:
            stream.settimeout(_left(end))
            rest = rest[stream.send(rest) :]
        if self._is_plain:
            stream.settimeout(None)

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
        # All that are open, and of them those that nobody uses, the last used one at the end. Each step on these is
        # one that no other thread sees half of, so that a request takes no lock.
        self._connections: Final[set[_Connection]] = set()
        self._idle: Final[deque[_Connection]] = deque()
        self._closed = False

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        if timeout <= 0:
            raise deadline_passed()
        began = time.monotonic()
        end = began + timeout
        connection = self._take(began) or self._connect(end)
        try:
            return connection.exchange(request, self._origin, end)
        finally:
            if connection.is_good:
                connection.idle_since = began  # a little too early, and read already
                self._idle.append(connection)
                if self._closed:
                    self._drop_idle()
            else:
                self._drop(connection)

    def _take(self, now: float) -> _Connection | None:
        """Return the idle connection that was used last; those before it rest, and are closed when they are old."""
        idle = self._idle
        try:
            while idle[0].idle_since < now - KEEPALIVE_SECONDS:
                self._drop(idle.popleft())
            while not (connection := idle.pop()).is_open():
                self._drop(connection)
        except IndexError:  # there is none, or another thread was quicker
            return None
        return connection

    def _drop(self, connection: _Connection) -> None:
        connection.close()
        self._connections.discard(connection)

    def _drop_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._drop(self._idle.pop())

    def _connect(self, end: float) -> _Connection:
        try:
            found = resolve(self._origin.host, self._origin.port).result(_left(end))
            stream: socket.socket | OSError = drive(reach(found, end, time.monotonic), self._open)
            if isinstance(stream, OSError):
                raise stream
        except OSError as error:  # TLS's errors are OSErrors
            raise unconnected(error) from None
        connection = _Connection(stream)
        self._connections.add(connection)
        if self._closed:
            self._drop(connection)
            raise Unsendable("the client was closed")
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
        self._closed = True
        self._drop_idle()
        for connection in list(self._connections):
            connection.give_up()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_readable(stream: socket.socket, seconds: float) -> bool:
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
