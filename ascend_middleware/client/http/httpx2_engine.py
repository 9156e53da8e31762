"""httpx2's own transport: through proxies, on trio, and wherever it is asked for; nothing is followed or remembered.

One of the files that import an HTTP library.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import httpcore2
import httpx2

from ...exceptions import ConfigurationError
from ...fork import process_id
from .http1 import context_of
from .network import deadline_passed, is_exhausted, proxy_url, resolve, response
from .transport import KEEPALIVE_SECONDS, DeadlinePassed, Request, Response
from .user_client import failures, whole, whole_async

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["HTTPX2", "AsyncHTTPX2", "pool_options"]


class _Body:
    """A request body that knows whether it was asked for, that is whether the request line went out.

    Attributes:
        end: when the time for the whole exchange is over.
        sent: whether it was asked for.
        answered: whether anything came back after that.
    """

    def __init__(self, content: bytes, timeout: float) -> None:
        self._content: Final = content
        self.end: Final = time.monotonic() + timeout
        self.sent = False
        self.answered = False

    def __iter__(self) -> Iterator[bytes]:
        self.sent = True
        yield self._content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.sent = True
        yield self._content

    def passed(self) -> DeadlinePassed:
        return deadline_passed(answered=self.answered)


# Of the request that this thread or task is sending.
_sending: Final[contextvars.ContextVar[_Body | None]] = contextvars.ContextVar("_sending", default=None)


def _left(timeout: float | None) -> float | None:
    body = _sending.get()
    if body is None:
        return timeout
    remaining = body.end - time.monotonic()
    if remaining <= 0:
        raise httpcore2.ReadTimeout("deadline")
    return remaining if timeout is None else min(timeout, remaining)


class _Stream:
    """A stream of the library that tells of an answer at its first byte; the library does so when its head is whole."""

    def __init__(self, stream: Any) -> None:
        self._stream: Final = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _note(self, data: bytes) -> bytes:
        body = _sending.get()
        if data and body is not None and body.sent:  # what comes before is a proxy's
            body.answered = True
        return data


class _BlockingStream(_Stream):
    """And keeps the deadline of the whole exchange; the library's are for single reads."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._note(self._stream.read(max_bytes, _left(timeout)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), 65_536):
            self._stream.write(buffer[start : start + 65_536], _left(timeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        return _BlockingStream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))


class _AsyncStream(_Stream):
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's
        return self._note(await self._stream.read(max_bytes, timeout))

    async def start_tls(self, *arguments: Any, **named: Any) -> Any:
        return _AsyncStream(await self._stream.start_tls(*arguments, **named))


class _BlockingBackend(httpcore2.SyncBackend):
    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *rest: Any, **options: Any) -> Any:
        failure: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        try:
            found = resolve(host, port).result(_left(None))
        except TimeoutError:
            raise httpcore2.ConnectTimeout("deadline") from None
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        for address in found:
            try:
                return _BlockingStream(super().connect_tcp(address, port, _left(timeout), *rest, **options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                if failure is None or is_exhausted(failure):
                    failure = error
        raise failure or httpcore2.ConnectError(f"no address for {host}")


class _AsyncBackend(httpcore2.AnyIOBackend):
    async def connect_tcp(self, *arguments: Any, **named: Any) -> Any:
        return _AsyncStream(await super().connect_tcp(*arguments, **named))


def pool_options(settings: Settings) -> dict[str, Any]:
    """Return what pools are opened with; a thread that has a deadline, or an event loop, reads no certificates."""
    proxy = proxy_url(settings)
    return {
        "ssl_context": context_of(settings),
        "max_connections": settings.max_connections,
        "max_keepalive_connections": settings.max_connections,
        "keepalive_expiry": KEEPALIVE_SECONDS,
        **({} if proxy is None else {"proxy": _proxy(proxy)}),
    }


def _proxy(url: str) -> httpcore2.Proxy:
    try:
        parsed = httpx2.Proxy(url)
        proxy = httpcore2.Proxy(str(parsed.url), auth=parsed.raw_auth)
    except (ValueError, TypeError, httpx2.InvalidURL) as error:
        raise ConfigurationError(f"proxy is no URL of a proxy: {type(error).__name__}") from None
    if url.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError("a socks proxy needs the package socksio")
    return proxy


def _core_request(request: Request, body: _Body, extensions: dict[str, Any]) -> httpcore2.Request:
    headers = [("Host", urlsplit(request.url).netloc), *request.headers]
    if request.content or request.method != "GET":
        headers.append(("Content-Length", str(len(request.content))))
    return httpcore2.Request(request.method, request.url, headers=headers, content=body, extensions=extensions)


def _core_response(answer: httpcore2.Response, content: bytes) -> Response:
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
    return response(answer.status, pairs, content)


class HTTPX2:
    """Sends with a pool of its own, blocking, in one process.

    Args:
        options: see `pool_options`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._process: Final = process_id()
        self._pool: Final = httpcore2.ConnectionPool(network_backend=_BlockingBackend(), **options)

    def __del__(self) -> None:
        # The documented programs drop their client without closing it; a forked child drops its parent's.
        if self._process == process_id():
            self.close()

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        body = _Body(request.content, timeout)
        token = _sending.set(body)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        try:
            with failures(body):
                answer = self._pool.handle_request(_core_request(request, body, {"timeout": limits}))
                return _core_response(answer, whole(answer, answer.iter_stream()))
        finally:
            _sending.reset(token)

    def close(self) -> None:
        """Close what is open."""
        with contextlib.suppress(Exception):  # requests under way in other threads fail by themselves
            self._pool.close()


class AsyncHTTPX2:
    """Sends with a pool of its own, on one event loop.

    Args:
        options: see `pool_options`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._pool: Final = httpcore2.AsyncConnectionPool(network_backend=_AsyncBackend(), **options)

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        body = _Body(request.content, timeout)
        token = _sending.set(body)
        try:
            with failures(body), anyio.fail_after(timeout):
                answer = await self._pool.handle_async_request(_core_request(request, body, {}))
                return _core_response(answer, await whole_async(answer, answer.aiter_stream()))
        finally:
            _sending.reset(token)

    async def aclose(self) -> None:
        """Close what is open."""
        with contextlib.suppress(Exception):  # requests under way in other tasks fail by themselves
            await self._pool.aclose()
