"""What failures of the network mean, told without secrets; and names, addresses and proxies."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ... import masking
from ...exceptions import ConfigurationError, ProtocolError
from ...flow import Flow
from .transport import (
    MAX_ANSWER_BYTES,
    ConnectFailed,
    DeadlinePassed,
    Overloaded,
    Response,
    TLSFailed,
    Unsendable,
)

if TYPE_CHECKING:
    from ...config import Settings

__all__ = [
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
