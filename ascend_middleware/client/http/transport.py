"""What an engine is, whatever library it uses: requests, answers, failures that tell nothing secret, names, proxies."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from ... import masking
from ...exceptions import AscendError, ConfigurationError, ProtocolError
from ...flow import Flow
from ...fork import renew_once

if TYPE_CHECKING:
    from ...config import Settings

__all__ = [
    "KEEPALIVE_SECONDS",
    "MAX_ANSWER_BYTES",
    "STALL_SECONDS",
    "AsyncEngine",
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
    "Unsendable",
    "deadline_passed",
    "defect",
    "describe",
    "is_exhausted",
    "is_late",
    "proxy_failed",
    "proxy_url",
    "reach",
    "resolve",
    "response",
    "surplus",
    "too_long",
    "unconnected",
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


class Request(msgspec.Struct, frozen=True):
    """One HTTP request; its headers hold the key, so they are not shown.

    Attributes:
        agent: on whose behalf; where connections are short, agents take turns.
        head: what made it, with the first of its headers; else None.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    content: bytes = b""
    agent: str = ""
    head: Head | None = None

    def __repr__(self) -> str:
        return f"Request(method={self.method!r}, url={self.url!r})"


class Response(msgspec.Struct, frozen=True):
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
        self._pid = os.getpid()

    def get(self, loop: object = None) -> Any:
        """Return the one of this process and loop, opened if need be."""
        if self._pid != os.getpid():
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
        if self._pid != os.getpid():
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


# --- failures


def describe(error: BaseException) -> str:
    """Name an error of a library, masked and bounded: it may quote a header, and a header may be the key."""
    text = masking.mask_text(getattr(error, "message", None) or str(error))[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def deadline_passed(*, waited: float = 0.0, answered: bool = False) -> DeadlinePassed:
    """Return the failure for a deadline; see there for what the arguments say."""
    text = "the authority's answer was whole" if answered else "the authority answered"
    return DeadlinePassed(f"the deadline passed before {text}", waited=waited, answered=answered)


def is_late(error: BaseException) -> bool:
    """Say whether it is our deadline that passed; the network's own time limits have numbers."""
    return isinstance(error, TimeoutError) and error.errno is None


def unconnected(error: BaseException) -> ConnectFailed | DeadlinePassed | Overloaded | TLSFailed:
    """Return the failure for a connection that could not be made: by the way, what answered, or what is left here."""
    if is_late(error):
        return deadline_passed()
    if _is_distrusted(error):
        return TLSFailed(f"no TLS with what answers there; check api_url, ca_file and proxy: {describe(error)}")
    if is_exhausted(error) or not _may_open_files():
        return Overloaded(f"this process has no file or port left for a connection: {describe(error)}")
    return ConnectFailed(f"no connection to the authority: {describe(error)}")


def is_exhausted(error: BaseException) -> bool:
    """Say whether an error, or what a library made it of, is a lack of files or ports on this machine."""
    return any(getattr(each, "errno", None) in _EXHAUSTED for each in _chain(error))


def _is_distrusted(error: BaseException) -> bool:
    """Say whether an error, or what a library made it of, is TLS that failed by what the other side sent."""
    return any(
        isinstance(each, ssl.SSLError)
        and not isinstance(each, _BROKEN_OFF)
        and each.reason != "UNEXPECTED_EOF_WHILE_READING"
        for each in _chain(error)
    )


# The last two are no failures, but stand in the chain of one that came while more bytes were waited for.
_BROKEN_OFF: Final = (
    *(ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError),
    *(ssl.SSLWantReadError, ssl.SSLWantWriteError),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(6):
        if each is None:
            return
        yield each
        each = each.__cause__ or each.__context__


_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


def _may_open_files() -> bool:
    # Libraries, and the resolver, do not tell a lack of files from an authority that is away.
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno not in _EXHAUSTED
    return True


def defect(error: Exception) -> Unsendable | Overloaded:
    """Return the failure for an exception that no exchange explains: a defect of this process, or a lack of threads."""
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return Overloaded(f"this process has no memory or thread left: {describe(error)}")
    return Unsendable(f"the request cannot be sent: {describe(error)}")


def proxy_failed(error: Exception) -> ConnectFailed | Unsendable:
    """Return the failure for a proxy's refusal: it cannot reach the authority, or lets this service not through."""
    if re.match(r"4\d\d\b|Requested |Invalid username", str(error)):
        return Unsendable(f"the proxy refuses this service: {describe(error)}")
    return ConnectFailed(f"no connection to the authority: {describe(error)}")


def too_long() -> ProtocolError:
    """Return the failure for an answer that does not end."""
    return ProtocolError(f"the authority's answer is longer than {MAX_ANSWER_BYTES} bytes")


def surplus() -> ProtocolError:
    """Return the failure for an answer with something behind it."""
    return ProtocolError("the authority sent more than one answer to one request")


def response(status: int, headers: Iterable[tuple[str, str]], content: bytes) -> Response:
    """Return the answer, of each header the first value; refuse one that came compressed unasked."""
    lowered: dict[str, str] = {}
    for name, value in headers:
        lowered.setdefault(name.lower(), value)
    if lowered.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ProtocolError("the authority's answer is compressed although that was not asked for")
    # Libraries read bytes beyond ASCII in five ways, and nothing that we look for has them.
    return Response(status, {name: value for name, value in lowered.items() if value.isascii()}, content)


def proxy_url(settings: Settings) -> str | None:
    """Return the proxy to use: the setting, else the environment's, but only when it is to be trusted."""
    proxy = settings.proxy
    if not proxy and settings.trust_env:
        import urllib.request  # with all that it imports a tenth of the client's import, which few need

        parts = urlsplit(settings.api_url)
        if not urllib.request.proxy_bypass(parts.netloc):
            found = urllib.request.getproxies()
            proxy = found.get(parts.scheme) or found.get("all") or ""
            proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
    if not proxy:
        return None
    try:
        parts = urlsplit(proxy)
        good = parts.scheme in ("http", "https", "socks5", "socks5h") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        whose = "proxy" if settings.proxy else "the environment's proxy (trust_env)"
        raise ConfigurationError(
            f"{whose} must be a URL that begins with http, https, socks5 or socks5h, such as http://proxy.example:3128"
        )
    return proxy


def resolve(host: str, port: int) -> Future[list[str]]:
    """Return the addresses of a name, looked up in a thread that can be given up: the resolver knows no deadline.

    Nor is it one of the application's threads: where those are all taken, the wait for one would look like an outage.
    """
    found: Future[list[str]] = Future()
    found.set_running_or_notify_cancel()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
        except (OSError, UnicodeError) as error:
            found.set_exception(error if isinstance(error, OSError) else OSError(str(error)))

    try:
        found.set_result([str(ipaddress.ip_address(host))])
    except ValueError:
        threading.Thread(target=look_up, name="ascend-resolve", daemon=True).start()
    return found


def reach(found: list[str], end: float, clock: Callable[[], float]) -> Flow[Any]:
    """Try one address after the other: a step is an address and until when, its result is a connection.

    Returns the first connection; else, of the failures, the one that tells most. If it were raised here, the last one
    would stand behind it, as what it was made of.
    """
    failure: OSError | None = None
    for number, address in enumerate(found, 1):
        is_last = number == len(found)
        try:
            # One that does not answer leaves half of the time to those after it.
            return (yield address, end if is_last else (end + clock()) / 2)
        except OSError as error:
            failure = error if failure is None else _worse(failure, error, is_last=is_last)
    return failure or OSError("no address for the authority's name")


def _worse(before: OSError, error: OSError, *, is_last: bool) -> OSError:
    """Return which of two failures tells more.

    An answer that is wrong says most; then that the time ran out at the last address. A lack of files says least, since
    it may be over for the next one. Of others the first counts: those after it may be of a family that is switched off.
    """
    if _is_distrusted(before) or _is_distrusted(error):
        return before if _is_distrusted(before) else error
    return error if is_exhausted(before) or (is_last and isinstance(error, TimeoutError)) else before
