"""What all engines share: failures that tell nothing secret, answers of a bounded size, names, proxies."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ... import masking
from ...exceptions import ConfigurationError, ProtocolError
from .transport import ConnectFailed, DeadlinePassed, Overloaded, Response, TLSFailed, Unsendable

if TYPE_CHECKING:
    from ...config import Settings

__all__ = [
    "KEEPALIVE_SECONDS",
    "MAX_ANSWER_BYTES",
    "addresses",
    "deadline_passed",
    "defect",
    "describe",
    "has_surplus",
    "is_distrusted",
    "is_exhausted",
    "is_late",
    "proxy_failed",
    "proxy_url",
    "resolve",
    "response",
    "surplus",
    "tls_failed",
    "too_long",
    "unconnected",
    "worse",
]

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
KEEPALIVE_SECONDS: Final = 30.0


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
    if is_distrusted(error):
        return tls_failed(describe(error))
    if is_exhausted(error) or not _may_open_files():
        return Overloaded(f"this process has no file or port left for a connection: {describe(error)}")
    return ConnectFailed(f"no connection to the authority: {describe(error)}")


def is_exhausted(error: BaseException) -> bool:
    """Say whether an error, or what a library made it of, is a lack of files or ports on this machine."""
    return any(getattr(each, "errno", None) in _EXHAUSTED for each in _chain(error))


def is_distrusted(error: BaseException) -> bool:
    """Say whether an error, or what a library made it of, is TLS that failed by what the other side sent."""
    return any(
        isinstance(each, ssl.SSLError)
        and not isinstance(each, _BROKEN_OFF)
        and each.reason != "UNEXPECTED_EOF_WHILE_READING"
        for each in _chain(error)
    )


def worse(before: OSError | None, error: OSError, *, is_last: bool) -> OSError:
    """Return which of the failures at two addresses tells more.

    One that answered wrongly says most; then that the time ran out at the last one. A lack of files says least, since
    it may be over for the next one. Of others the first counts: those after it may be of a family that is switched off.
    """
    if before is None:
        return error
    if is_distrusted(before):
        return before
    if is_distrusted(error):
        return error
    return error if is_exhausted(before) or (is_last and isinstance(error, TimeoutError)) else before


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


def tls_failed(why: str) -> TLSFailed:
    """Return the failure for something that answered otherwise than by TLS that is trusted here."""
    return TLSFailed(f"no TLS with what answers there; check api_url, ca_file and proxy: {why}")


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


def has_surplus(stream: Any) -> bool:
    """Say whether more has arrived on the connection of an answer than the answer.

    The library would keep it and take it for the answer to the next request. It tells about it only within: where its
    parts are called otherwise one day, this says False, and a test fails.
    """
    for _ in range(8):
        state = getattr(stream, "_h11_state", None)
        if state is not None:
            return bool(state.trailing_data[0])
        parts = (getattr(stream, name, None) for name in ("_stream", "_httpcore_stream", "_connection"))
        stream = next((part for part in parts if part is not None), None)
    return False


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
    if not _is_proxy(proxy):
        whose = "proxy" if settings.proxy else "the environment's proxy (trust_env)"
        raise ConfigurationError(
            f"{whose} must be a URL that begins with http, https, socks5 or socks5h, such as http://proxy.example:3128"
        )
    return proxy


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https", "socks5", "socks5h") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def resolve(host: str, port: int, tell: Callable[[list[str] | OSError], object]) -> None:
    """Look a name up in a thread of its own, which can be given up: the resolver knows no deadline.

    Nor is it one of the application's threads: where those are all taken, the wait for one would look like an outage.
    """

    def look_up() -> None:
        found: list[str] | OSError
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:
            found = error if isinstance(error, OSError) else OSError(str(error))
        tell(found)

    threading.Thread(target=look_up, name="ascend-resolve", daemon=True).start()


def addresses(host: str, port: int, timeout: float | None) -> list[str]:
    """Return the addresses of a name, blocking; raise `TimeoutError` or another `OSError`."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()
    resolve(host, port, answers.put)
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer
