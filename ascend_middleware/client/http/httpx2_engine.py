"""httpx2's own transport: through proxies, on trio, and wherever it is asked for; nothing is followed or remembered.

One of the files that import an HTTP library; each serves one engine.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib.util
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import httpcore2
import httpx2

from ...exceptions import AscendError, ConfigurationError
from ...flow import running_loop
from .common import (
    KEEPALIVE_SECONDS,
    MAX_ANSWER_BYTES,
    addresses,
    deadline_passed,
    defect,
    describe,
    has_surplus,
    is_exhausted,
    proxy_failed,
    proxy_url,
    response,
    surplus,
    too_long,
    unconnected,
)
from .tls import context_of
from .transport import ExchangeFailed, Overloaded, PerProcess, Request, Response

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["HTTPX2", "AsyncHTTPX2"]


class _Body:
    """A request body that knows whether it was asked for, that is whether the request line went out.

    Attributes:
        sent: whether it was.
        answered: whether anything came back after that.
    """

    def __init__(self, content: bytes) -> None:
        self._content: Final = content
        self.sent = False
        self.answered = False

    def __iter__(self) -> Iterator[bytes]:
        self.sent = True
        yield self._content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.sent = True
        yield self._content


def _core_request(request: Request, body: _Body, extensions: dict[str, Any]) -> httpcore2.Request:
    headers = [("Host", urlsplit(request.url).netloc), *request.headers]
    if request.content or request.method != "GET":
        headers.append(("Content-Length", str(len(request.content))))
    return httpcore2.Request(request.method, request.url, headers=headers, content=body, extensions=extensions)


def _core_response(answer: httpcore2.Response, content: bytes) -> Response:
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
    return response(answer.status, pairs, content)


@contextlib.contextmanager
def _core_failures(body: _Body) -> Iterator[None]:
    try:
        yield
    except AscendError:
        raise
    except httpcore2.PoolTimeout as error:
        raise Overloaded(f"no connection became free in time: {describe(error)}") from None
    except (httpcore2.TimeoutException, TimeoutError):
        raise deadline_passed(answered=body.answered) from None
    except httpcore2.ConnectError as error:
        raise unconnected(error) from None
    except httpcore2.ProxyError as error:
        raise proxy_failed(error) from None
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        if not body.sent:
            raise unconnected(error) from None
        raise ExchangeFailed(f"the exchange with the authority broke: {describe(error)}") from None
    except Exception as error:
        raise defect(error) from None


class _Clamp(threading.local):
    """The request that this thread is sending, and its deadline."""

    at: float = float("inf")
    body: _Body | None = None

    def left(self, timeout: float | None) -> float:
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise httpcore2.ReadTimeout("deadline")
        return remaining if timeout is None else min(timeout, remaining)


_clamp: Final = _Clamp()


class _ClampedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream: Final = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, _clamp.left(timeout))
        body = _clamp.body
        if data and body is not None and body.sent:  # what comes before is a proxy's
            body.answered = True
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), 65_536):
            self._stream.write(buffer[start : start + 65_536], _clamp.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _ClampedStream(self._stream.start_tls(ssl_context, server_hostname, _clamp.left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _ClampedBackend(httpcore2.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        for address in _addresses(host, port):
            try:
                stream = super().connect_tcp(address, port, _clamp.left(timeout), local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                if failure is None or is_exhausted(failure):
                    failure = error
            else:
                return _ClampedStream(stream)
        raise failure or httpcore2.ConnectError(f"no address for {host}")


# The request that this task is sending.
_sending: Final[contextvars.ContextVar[_Body | None]] = contextvars.ContextVar("_sending", default=None)


class _WatchedStream(httpcore2.AsyncNetworkStream):
    """Tells of an answer at its first byte; the library does so when its head is whole."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream: Final = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the library's
        data = await self._stream.read(max_bytes, timeout)
        body = _sending.get()
        if data and body is not None and body.sent:  # what comes before is a proxy's
            body.answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - likewise
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    async def start_tls(self, *arguments: Any, **named: Any) -> httpcore2.AsyncNetworkStream:
        return _WatchedStream(await self._stream.start_tls(*arguments, **named))


async def _whole(answer: httpcore2.Response) -> Response:
    content = bytearray()
    try:
        async for chunk in answer.aiter_stream():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise too_long()
        if has_surplus(answer.stream):
            await answer.extensions["network_stream"].aclose()
            raise surplus()
    finally:
        await answer.aclose()
    return _core_response(answer, bytes(content))


class _WatchedBackend(httpcore2.AnyIOBackend):
    async def connect_tcp(self, *arguments: Any, **named: Any) -> httpcore2.AsyncNetworkStream:
        return _WatchedStream(await super().connect_tcp(*arguments, **named))


def _addresses(host: str, port: int) -> list[str]:
    left = _clamp.left(None)
    try:
        return addresses(host, port, left if left != float("inf") else None)
    except TimeoutError:
        raise httpcore2.ConnectTimeout("deadline") from None
    except OSError as error:
        raise httpcore2.ConnectError(str(error)) from error


def _proxy(url: str) -> httpcore2.Proxy:
    try:
        parsed = httpx2.Proxy(url)
        proxy = httpcore2.Proxy(str(parsed.url), auth=parsed.raw_auth)
    except (ValueError, TypeError, httpx2.InvalidURL) as error:
        raise ConfigurationError(f"proxy is no URL of a proxy: {type(error).__name__}") from None
    if url.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError("a socks proxy needs the package socksio")
    return proxy


class _HTTPX2Base:
    def __init__(self, settings: Settings) -> None:
        proxy = proxy_url(settings)
        options: dict[str, Any] = {
            # Read here and not at the first request, where an event loop would wait for it.
            "ssl_context": context_of(settings),
            "max_connections": settings.max_connections,
            "max_keepalive_connections": settings.max_connections,
            "keepalive_expiry": KEEPALIVE_SECONDS,
        }
        if proxy is not None:
            options["proxy"] = _proxy(proxy)
        self._options: Final = options
        # No cycle through self: a client that is dropped frees its connections at once.
        self._pools: Final = PerProcess(functools.partial(self._pool, options))

    @staticmethod
    def _pool(options: dict[str, Any]) -> Any:
        raise NotImplementedError


class HTTPX2(_HTTPX2Base):
    """Sends with a pool of its own, blocking."""

    def __del__(self) -> None:
        # The documented programs drop their client without closing it.
        with contextlib.suppress(Exception):
            self.close()

    @staticmethod
    def _pool(options: dict[str, Any]) -> httpcore2.ConnectionPool:
        return httpcore2.ConnectionPool(network_backend=_ClampedBackend(), **options)

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        pool: httpcore2.ConnectionPool = self._pools.get()
        body, outer, outer_body = _Body(request.content), _clamp.at, _clamp.body
        _clamp.at, _clamp.body = min(outer, time.monotonic() + timeout), body
        limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        try:
            with _core_failures(body):
                answer = pool.handle_request(_core_request(request, body, {"timeout": limits}))
                content = bytearray()
                try:
                    for chunk in answer.iter_stream():
                        content += chunk
                        if len(content) > MAX_ANSWER_BYTES:
                            raise too_long()
                    if has_surplus(answer.stream):
                        answer.extensions["network_stream"].close()
                        raise surplus()
                finally:
                    answer.close()
                return _core_response(answer, bytes(content))
        finally:
            _clamp.at, _clamp.body = outer, outer_body

    def close(self) -> None:
        """Close what is open in this process."""
        pool = self._pools.take()
        if pool is not None:
            with contextlib.suppress(Exception):  # requests under way in other threads fail by themselves
                pool.close()


class AsyncHTTPX2(_HTTPX2Base):
    """Sends with a pool of its own for each event loop."""

    @staticmethod
    def _pool(options: dict[str, Any]) -> httpcore2.AsyncConnectionPool:
        return httpcore2.AsyncConnectionPool(network_backend=_WatchedBackend(), **options)

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        pool: httpcore2.AsyncConnectionPool = self._pools.get(running_loop())
        body = _Body(request.content)
        token = _sending.set(body)
        try:
            with _core_failures(body), anyio.fail_after(timeout):
                answer = await pool.handle_async_request(_core_request(request, body, {}))
                return await _whole(answer)
        finally:
            _sending.reset(token)

    async def aclose(self) -> None:
        """Close what is open in this process, on this loop."""
        pool = self._pools.take(running_loop())
        if pool is not None:
            with contextlib.suppress(Exception):  # requests under way in other tasks fail by themselves
                await pool.aclose()
