"""What connections may cost the authority: bytes, headers, time, and how many there may be at once.

A `Connection` stands between the transport and the server's own protocol, whichever parser that has. It counts what
comes in, and learns from the ASGI application how far a request is: neither parser tells by itself. A request that
comes whole and by itself may be answered straight, so that neither the protocol nor the application sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from .wire import Asked, read_whole, written_answer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, Scope

    from .bodies import Answer

__all__ = ["Connection", "Connections", "Limits", "Straight"]

log = logging.getLogger(__name__)

_STATE: Final = "ascend.connection"
_PERIOD: Final = 1.0
_LOOK: Final = 0.01
# Seconds between two lines in the log about the same thing.
_SILENCE: Final = 60.0
_REFUSED: Final = "HTTP/1.1 {}\r\ncontent-length: 0\r\nconnection: close\r\n{}\r\n"
_TOO_LONG: Final = _REFUSED.format("431 Request Header Fields Too Large", "").encode()
_FULL: Final = _REFUSED.format("503 Service Unavailable", "retry-after: 1\r\n").encode()


class Straight(Protocol):
    """What answers some requests straight."""

    def __call__(self, asked: Asked, client: str, reply: Callable[[Answer], None]) -> bool:
        """Begin to answer a request of an address, and `reply` once; False where nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a server's connections. Durations are seconds."""

    connections: int  # open at once; beyond that the one is closed that was waited for longest
    head_bytes: int = 64 * 1024  # of a request's target and headers
    headers: int = 100  # of a request
    request_bytes: int = 1024 * 1024  # of all that follows the headers: body, its framing, trailers
    head: float = 10.0  # for a request's headers to be complete, counted from the connection or from the last answer
    body: float = 20.0  # for a request's body to be complete
    # For a client to take an answer that waits for it, all waits together; it begins anew only with a request whose
    # client has taken all that came before.
    answer: float = 60.0


class Connections:
    """The connections of one server; `now` gives seconds on a monotonic clock."""

    def __init__(
        self, limits: Limits, *, tls: ssl.SSLContext | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits: Final = limits
        self.tls: Final = tls
        self.now: Final = now
        self._open: set[Connection] = set()
        # Those whose clients are waited for, to send something or to take something, the longest first.
        self._waiting: dict[Connection, None] = {}
        self._told: dict[str, float] = {}
        self.count: Callable[[str], None] = lambda _: None  # is told which limit ended a connection
        self.straight: Straight | None = None
        self.answering = 0  # how many are being answered straight

    def protocol(self, inner: Callable[..., Any]) -> Callable[..., Connection]:
        """Return the factory of protocols that stand around the server's own; it takes the same arguments."""

        def make(*, app_state: dict[str, Any], **options: Any) -> Connection:
            connection = Connection(self)
            connection.inner = inner(app_state={**app_state, _STATE: connection}, **options)
            return connection

        return make

    def around(self, app: ASGI3Application) -> ASGI3Application:
        """Return an application that tells each request's connection how far the request is."""

        async def limited(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            connection: Connection | None = (scope.get("state") or {}).get(_STATE)
            if scope["type"] != "http" or connection is None:
                await app(scope, receive, send)
                return
            turn = connection.begin()

            async def heard() -> ASGIReceiveEvent:
                message = await receive()
                if message["type"] == "http.request" and not message["more_body"]:
                    connection.asked()
                return message

            headers = list(scope["headers"])
            size = len(scope["raw_path"] or b"") + len(scope["query_string"])
            size += sum(map(len, itertools.chain.from_iterable(headers)))
            try:
                if size > self.limits.head_bytes or len(headers) > self.limits.headers:
                    connection.refuse(_TOO_LONG, "request headers are too long or too many")
                    return
                await app(scope, heard, send)
            finally:
                connection.answered(turn)

        return limited

    async def watch(self) -> None:
        """Close what takes too long, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD)
            self.sweep()

    def sweep(self) -> None:
        """Close what takes too long."""
        now = self.now()
        for connection in [one for one in self._open if one.deadline <= now]:
            self.count("time")
            connection.abort()

    def release(self) -> None:
        """Close those that are waited for; those that are being answered, or still have to take an answer, stay."""
        for connection in [one for one in self._waiting if not one.is_paused]:
            connection.abort()

    async def settle(self, seconds: float) -> None:
        """Answer nothing straight any more, and wait until what was begun is answered, but not for longer than that."""
        self.straight = None
        until = self.now() + seconds
        while self.answering and self.now() < until:  # noqa: ASYNC110 - once, for a moment
            await asyncio.sleep(_LOOK)

    def tell(self, reason: str) -> None:
        """Log why connections are closed, at most once a minute for each reason."""
        now = self.now()
        if now - self._told.get(reason, -math.inf) >= _SILENCE:
            self._told[reason] = now
            log.warning("connections are closed: %s (further ones are not logged for a minute)", reason)

    # --- for connections

    def admit(self, connection: Connection) -> bool:
        """Make room for one more, and say whether there is."""
        while len(self._open) >= self.limits.connections:
            longest = next(iter(self._waiting), None)
            self.count("connections")
            self.tell(f"{self.limits.connections} are open, which is as many as may be")
            if longest is None:
                return False
            longest.abort()
        self._open.add(connection)
        return True

    def mark(self, connection: Connection, *, waited_for: bool) -> None:
        """Note whether a connection's client is waited for; it keeps its place if it was already."""
        if not waited_for:
            self._waiting.pop(connection, None)
        elif connection in self._open:
            self._waiting.setdefault(connection)

    def begin_wait(self, connection: Connection) -> None:
        """Note that a connection's client is waited for anew, which is the shortest of all waits."""
        self._waiting.pop(connection, None)
        if connection in self._open:
            self._waiting[connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)


class Connection(asyncio.Protocol):
    """One connection: passes all on to the server's own protocol, `inner`, as long as it stays within the limits."""

    def __init__(self, connections: Connections) -> None:
        self.inner: Any = None
        self._all = connections
        self._limits = connections.limits
        self._transport: Any = None
        self._handshake: asyncio.Task[None] | None = None
        self._to: Any = asyncio.Protocol()  # takes nothing; `inner` as long as it has the connection
        self._early: list[bytes] = []  # came together with the end of a TLS handshake
        # Whether the next byte is the first of a request; whether that will be known of the one after the next answer.
        self._is_between = self._is_whole = True
        self._is_straight = False  # a request is being answered straight
        self._later: list[bytes] = []  # came meanwhile
        self._turn = 0
        self._is_asked = False  # the request is complete, and its answer is not
        self._due = math.inf  # when its client must have sent what is waited for
        self._room = 0
        self._paused_at: float | None = None
        self._patience = self._limits.answer

    @property
    def deadline(self) -> float:
        """When it is closed unless something happens, on the monotonic clock."""
        return self._due if self._paused_at is None else self._paused_at + self._patience

    @property
    def is_paused(self) -> bool:
        """Whether an answer waits for its client to take more of it."""
        return self._paused_at is not None

    # --- from the transport

    def connection_made(self, transport: Any) -> None:
        """Take the connection, unless there are too many."""
        self._transport = transport
        if not self._all.admit(self):
            transport.write(_FULL)
            transport.abort() if self._all.tls is not None else transport.close()
            return
        self._wait(self._limits.head, self._limits.head_bytes)
        if self._all.tls is None:
            self._begin(transport)
        else:
            transport.pause_reading()
            self._handshake = asyncio.get_running_loop().create_task(self._shake_hands(transport, self._all.tls))

    async def _shake_hands(self, transport: Any, tls: ssl.SSLContext) -> None:
        secured, loop = None, asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # a failed handshake and a client that left are both of this kind
            secured = await loop.start_tls(
                transport, self, tls, server_side=True, ssl_handshake_timeout=self._limits.head
            )
        if secured is None:
            self.abort()
            return
        self._transport = secured
        self._begin(secured)
        early, self._early = self._early, []
        for data in early:
            self._take(data)

    def _begin(self, transport: Any) -> None:
        self._to = self.inner
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Count what came, and pass it on."""
        if self._transport.is_closing():
            return
        self._room -= len(data)
        if self._to is not self.inner:
            self._early.append(data)
        else:
            self._take(data)
        if self._room < 0:
            # If these bytes completed a request's headers, the application learns of it before this is called.
            asyncio.get_running_loop().call_soon(self._check_room)

    def _take(self, data: bytes) -> None:
        if self._is_straight:
            self._later.append(data)
            return
        asked = None
        if self._is_between and self._all.straight is not None and self._room >= 0 and not self.is_paused:
            asked = read_whole(data)
            if asked is not None and len(asked.headers) <= self._limits.headers and self._answer_straight(asked):
                return
        # Where the protocol may have a part of the next request, it gets all that follows.
        self._is_between, self._is_whole = False, asked is not None
        self.inner.data_received(data)

    def _answer_straight(self, asked: Asked) -> bool:
        straight, client = self._all.straight, self.inner.client
        if straight is None:
            return False
        self._is_straight = True
        self._all.answering += 1
        self._count()
        self.asked()
        begun = False
        try:
            begun = straight(asked, client[0] if client else "", self._reply)
        finally:
            if not begun:
                self._is_straight = False
                self._all.answering -= 1
        return begun

    def _reply(self, answer: Answer) -> None:
        self._is_straight = False
        self._all.answering -= 1
        if self._transport.is_closing():
            return
        self._transport.write(written_answer(answer, self.inner.server_state.default_headers))
        self.answered(self._turn)
        if self._later:
            later, self._later = b"".join(self._later), []
            self.data_received(later)

    def _check_room(self) -> None:
        if self._room < 0:
            self.refuse(_TOO_LONG, "request headers are too long or too many")

    def eof_received(self) -> bool:
        """Pass it on."""
        return bool(self._to.eof_received())

    def pause_writing(self) -> None:
        """Limit how long an answer waits for its client."""
        self._paused_at = self._all.now()
        self._mark()
        self._to.pause_writing()

    def resume_writing(self) -> None:
        """Lift that limit; what was waited for counts."""
        if self._paused_at is not None:
            waited = self._all.now() - self._paused_at
            self._patience -= waited
            self._due += waited  # what it is to send had to wait as well
            self._paused_at = None
            self._mark()
        self._to.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._all.remove(self)
        self._to.connection_lost(error)
        self._to = asyncio.Protocol()

    # --- from the application

    def begin(self) -> int:
        """Note that a request's headers are complete; return its number."""
        self._count()
        self._wait(self._limits.body, self._limits.request_bytes)
        return self._turn

    def _count(self) -> None:
        self._turn += 1
        if not self._transport.get_write_buffer_size():
            self._patience = self._limits.answer

    def asked(self) -> None:
        """Note that a request is complete: its answer may take as long as it wants."""
        self._is_asked = True
        self._due, self._room = math.inf, self._limits.head_bytes
        self._mark()

    def answered(self, turn: int) -> None:
        """Note that a request is answered, unless the next one has begun."""
        if turn == self._turn:
            self._is_between = self._is_whole
            # The rest of a body that nobody wanted may still come.
            room = self._limits.head_bytes if self._is_asked else self._limits.request_bytes
            self._wait(self._limits.head, room)

    def _wait(self, seconds: float, room: int) -> None:
        self._is_asked = False
        self._due, self._room = self._all.now() + seconds, room
        if self._paused_at is None:
            self._all.begin_wait(self)
        else:
            self._mark()

    def _mark(self) -> None:
        self._all.mark(self, waited_for=self.is_paused or not self._is_asked)

    # --- the end

    def refuse(self, answer: bytes, reason: str) -> None:
        """Send a last answer."""
        self._all.count("headers")
        self._all.tell(reason)
        if not self._transport.is_closing():
            self._transport.write(answer)
            self._transport.close()

    def abort(self) -> None:
        """End the connection now, whatever its client still has to take."""
        self._all.remove(self)
        if self._handshake is not None:
            self._handshake.cancel()
        self._transport.abort()
