"""What an engine is, whatever library it uses: requests, answers, and how there can be none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from ...exceptions import AscendError
from ...fork import known_id, process_id, renew_once

__all__ = [
    "KEEPALIVE_SECONDS",
    "MAX_ANSWER_BYTES",
    "STALL_SECONDS",
    "AsyncEngine",
    "Begun",
    "ConnectFailed",
    "DeadlinePassed",
    "Engine",
    "EngineError",
    "ExchangeFailed",
    "Head",
    "Overloaded",
    "PerProcess",
    "Request",
    "Response",
    "TLSFailed",
    "Turn",
    "Unsendable",
]

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
KEEPALIVE_SECONDS: Final = 30.0
# Less than this is what threads and event loops take at any time; more says that they were kept from their work.
STALL_SECONDS: Final = 0.5


class Head:
    """What the requests of one kind have in common; an engine of our own checks and encodes it once.

    Args:
        method: of each of them.
        url: likewise.
        headers: those that all of them have; they hold the key, so they are not shown.

    Attributes:
        lines: what an engine made of it.
    """

    __slots__ = ("headers", "lines", "method", "url")

    def __init__(self, method: str, url: str, headers: tuple[tuple[str, str], ...]) -> None:
        self.method: Final = method
        self.url: Final = url
        self.headers: Final = headers
        self.lines = ""


# Of what waits for an answer, the garbage collector looks at as little as can be: it looks again and again while many
# requests wait, and none of these values can be part of a circle.
class Request(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request; its headers hold the key, so they are not shown.

    Attributes:
        own: its headers; with a `head`, those behind its `lines`.
        agent: on whose behalf; where connections are short, agents take turns.
        head: what it has in common with others, the first of its headers among it.
        lines: further headers as they are sent, of who has made a `head`, too, and knows that they are HTTP.
    """

    method: str
    url: str
    own: tuple[tuple[str, str], ...]
    content: bytes = b""
    agent: str = ""
    head: Head | None = None
    lines: str = ""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """All of them."""
        if self.head is None:
            return self.own
        lines = (line.partition(": ") for line in self.lines.splitlines())
        return (*self.head.headers, *((name, value) for name, _, value in lines), *self.own)

    def __repr__(self) -> str:
        return f"Request(method={self.method!r}, url={self.url!r})"


class Response(msgspec.Struct, frozen=True, gc=False):
    """One complete HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    def __repr__(self) -> str:
        return f"Response(status={self.status!r})"


class EngineError(AscendError):
    """There is no complete answer."""


class ConnectFailed(EngineError):  # noqa: N818 - says what happened
    """The request never reached the authority: DNS, refused, a handshake that broke off, proxy."""


class ExchangeFailed(EngineError):  # noqa: N818 - says what happened
    """The request may have reached the authority, and no complete HTTP answer came back."""


class DeadlinePassed(EngineError):  # noqa: N818 - says what happened
    """The time ran out.

    Attributes:
        waited: seconds of that time that this process used for itself: for a free connection, or for other work.
        answered: whether an answer had begun to arrive; an authority that answers slowly is not away.
    """

    def __init__(self, message: str = "", *, waited: float = 0.0, answered: bool = False, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.waited = waited
        self.answered = answered


class Overloaded(EngineError):  # noqa: N818 - says what happened
    """Nothing was sent: this process has no free connection, file or thread. The authority has no part in it."""


class Unsendable(EngineError):  # noqa: N818 - says what happened
    """Nothing was sent, or nothing could be read, because of a defect in this process. Not tried again."""


class TLSFailed(Unsendable):
    """Something answered, but not with TLS that is trusted here: that is a wrong setting, and no outage."""


class Engine(Protocol):
    """Sends requests, blocking."""

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all, or raise `EngineError` or `ProtocolError`."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class AsyncEngine(Protocol):
    """Sends requests on an event loop."""

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all, or raise `EngineError` or `ProtocolError`."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Turn(Protocol):
    """One of the requests that may be under way on a loop at the same time."""

    def leave(self) -> None:
        """End it, for whoever is next."""
        ...

    def stalled(self, before: float) -> float:
        """Return how long other work kept the loop from its requests since so much was lost; 0 where not for long."""
        ...


class Begun(Protocol):
    """A request that was sent, on an asyncio loop; whoever awaits its `answer` then says that it is `done`."""

    answer: Any
    turn: Turn | None
    lost: float

    def done(self) -> None:
        """End its turn, whatever came of it."""
        ...


class PerProcess:
    """Holds one opened thing per process, or per event loop of it: nothing of a pool survives a fork or its loop."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build: Final = build
        self._renew()

    def _renew(self) -> None:
        # The lock too: another thread of the parent may have held it.
        self._lock = threading.Lock()
        self._opened: dict[Any, Any] = {}
        self._ends: dict[Any, AsyncGenerator[None]] = {}
        self._pid = process_id()

    def get(self, loop: object = None) -> Any:
        """Return the one of this process and loop, opened if need be."""
        if self._pid != known_id[0] and self._pid != process_id():
            renew_once(lambda: self._pid, self._renew)
        opened = self._opened.get(loop)
        if opened is None:
            with self._lock:
                opened = self._opened.get(loop)
                if opened is None:
                    opened = self._build()
                    if loop is not None:
                        self._forget_ended()
                        self._end_with(loop)
                    self._opened[loop] = opened
        return opened

    def take(self, loop: object = None) -> Any:
        """Forget it and return it for closing; None when there is none, or another process opened it."""
        if self._pid != process_id():
            return None
        with self._lock:
            self._forget_ended()
            opened, end = self._opened.pop(loop, None), self._ends.pop(loop, None)
        if end is not None:
            with contextlib.suppress(StopIteration):
                end.aclose().send(None)
        return opened

    def _end_with(self, loop: object) -> None:
        """Have it closed when its loop ends: who ends one (`asyncio.run`, trio) closes its asynchronous generators."""
        end = self._ends[loop] = self._closing(loop)
        with contextlib.suppress(StopIteration):
            end.__anext__().send(None)

    async def _closing(self, loop: object) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._ends.pop(loop, None)
            opened = self.take(loop)
            if hasattr(opened, "aclose"):
                with contextlib.suppress(Exception):
                    await opened.aclose()

    def _forget_ended(self) -> None:
        """Forget those of loops that were closed without that: connections close with the last reference to them."""
        for loop in [loop for loop in self._opened if getattr(loop, "is_closed", _no)()]:
            self._ends.pop(loop, None)
            del self._opened[loop]


def _no() -> bool:
    return False
