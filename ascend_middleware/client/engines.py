"""How a request reaches the authority: the HTTP engines. This is the one file that names HTTP libraries.

An engine sends one request under one total deadline, follows no redirect, keeps no cookie, reads no netrc, and fails
with an `EngineError` only. Engines open their pool at the first use and open another one after a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import ipaddress
import os
import queue
import socket
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import httpcore2
import httpx2

from ..config import Settings
from ..exceptions import AscendError, ConfigurationError, ProtocolError
from . import masking
from .exchange import (
    AsyncEngine,
    ConnectFailed,
    DeadlinePassed,
    Engine,
    EngineError,
    ExchangeFailed,
    PerProcess,
    Request,
    Response,
)

__all__ = [
    "AsyncEngine",
    "ConnectFailed",
    "DeadlinePassed",
    "Engine",
    "EngineError",
    "ExchangeFailed",
    "Request",
    "Response",
    "open_async_engine",
    "open_engine",
]

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
ENTRY_POINTS: Final = "ascend_middleware.engines"
_KEEPALIVE_SECONDS: Final = 30.0
T = TypeVar("T")


def open_engine(settings: Settings, *, engine: object = None, http_client: object = None) -> Engine:
    """Return the blocking engine that the settings, or the arguments, name.

    Args:
        settings: `engine`, `proxy`, `ca_file`, `trust_env`, `max_connections`; the scheme of `api_url`.
        engine: a name, or an object with `send`, instead of the setting.
        http_client: the user's own client of httpx or httpx2; it stays the user's to close.

    Raises:
        ConfigurationError: the engine cannot be had, or the certificates cannot be read.
    """
    return _open(settings, engine, http_client, asynchronous=False)  # type: ignore[no-any-return]


def open_async_engine(settings: Settings, *, engine: object = None, http_client: object = None) -> AsyncEngine:
    """Return the engine for event loops; see `open_engine`."""
    return _open(settings, engine, http_client, asynchronous=True)  # type: ignore[no-any-return]


def _open(settings: Settings, engine: object, http_client: object, *, asynchronous: bool) -> Any:
    if engine is not None and not isinstance(engine, str):
        if not callable(getattr(engine, "send", None)) or not hasattr(engine, "aclose" if asynchronous else "close"):
            raise ConfigurationError("engine must be 'httpx2', 'pyreqwest' or an object with send and close or aclose")
        return engine
    if http_client is not None:
        return _borrow(http_client, asynchronous=asynchronous)
    scheme = urlsplit(settings.api_url).scheme
    if scheme not in ("http", "https"):
        return _open_scheme(scheme, settings, asynchronous=asynchronous)
    name = engine or settings.engine
    if name == "httpx2":
        masking.install("httpx2")
        return (_AsyncHTTPX2 if asynchronous else _HTTPX2)(settings)
    if name == "pyreqwest":
        masking.install("pyreqwest")
        return (_AsyncPyreqwest if asynchronous else _Pyreqwest)(settings)
    raise ConfigurationError(f"no engine is called {name!r}; use 'httpx2' or 'pyreqwest'")


def _open_scheme(scheme: str, settings: Settings, *, asynchronous: bool) -> Any:
    found = list(importlib.metadata.entry_points(group=ENTRY_POINTS, name=scheme))
    if not found:
        raise ConfigurationError(f"api_url: no installed engine serves URLs that begin with {scheme}:")
    try:
        opener = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the engine for {scheme}: URLs cannot be loaded: {error}") from error
    return opener(settings, asynchronous=asynchronous)


# --- what all engines share


def _describe(error: BaseException) -> str:
    # A library may quote a header in its message, and a header may be the key.
    text = masking.mask_text(getattr(error, "message", None) or str(error))[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _deadline(sent: bool) -> DeadlinePassed:
    return DeadlinePassed("the deadline passed before the authority answered", sent=sent)


def _too_long() -> ProtocolError:
    return ProtocolError(f"the authority's answer is longer than {MAX_ANSWER_BYTES} bytes")


def _response(status: int, headers: Iterable[tuple[str, str]], content: bytes) -> Response:
    lowered: dict[str, str] = {}
    for name, value in headers:
        lowered.setdefault(name.lower(), value)
    if lowered.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ProtocolError("the authority's answer is compressed although that was not asked for")
    return Response(status, lowered, content)


def _trusted(settings: Settings) -> ssl.SSLContext:
    if not settings.ca_file:
        return httpx2.create_ssl_context(trust_env=settings.trust_env)
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"ca_file {settings.ca_file!r} cannot be read as certificates: {error}") from None


def _proxy_url(settings: Settings) -> str | None:
    """Return the proxy to use: the setting, else the environment's, but only when it is to be trusted."""
    proxy = settings.proxy
    if not proxy and settings.trust_env:
        parts = urlsplit(settings.api_url)
        if not urllib.request.proxy_bypass(parts.netloc):
            found = urllib.request.getproxies()
            proxy = found.get(parts.scheme) or found.get("all") or ""
            proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
    if not proxy:
        return None
    if urlsplit(proxy).scheme not in ("http", "https", "socks5", "socks5h") or not urlsplit(proxy).hostname:
        raise ConfigurationError("proxy must be a URL such as http://proxy.example:3128")
    return proxy


def _running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # another kind of loop: one pool
        return None


# --- httpx2: used at the level of its transport, where a read can be clamped and nothing is followed or remembered


class _Body:
    """A request body that knows whether it was asked for, that is whether the request line went out."""

    def __init__(self, content: bytes) -> None:
        self._content: Final = content
        self.sent = False

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
    return _response(answer.status, pairs, content)


@contextlib.contextmanager
def _core_failures(body: _Body) -> Iterator[None]:
    try:
        yield
    except AscendError:
        raise
    except (httpcore2.TimeoutException, TimeoutError) as error:
        raise _deadline(body.sent and not isinstance(error, httpcore2.ConnectTimeout)) from None
    except (httpcore2.ConnectError, httpcore2.ProxyError, httpcore2.UnsupportedProtocol) as error:
        raise ConnectFailed(f"no connection to the authority: {_describe(error)}") from None
    except Exception as error:
        kind = ExchangeFailed if body.sent else ConnectFailed
        raise kind(f"the exchange with the authority broke: {_describe(error)}") from None


class _Clamp(threading.local):
    """The deadline of the request that this thread is sending."""

    at: float = float("inf")

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
        return self._stream.read(max_bytes, _clamp.left(timeout))

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
        failure: httpcore2.ConnectError | httpcore2.ConnectTimeout = httpcore2.ConnectError(f"no address for {host}")
        for address in _addresses(host, port):
            try:
                stream = super().connect_tcp(address, port, _clamp.left(timeout), local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _ClampedStream(stream)
        raise failure


def _addresses(host: str, port: int) -> list[str]:
    """Resolve a name in a thread that can be given up: the resolver knows no deadline."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(str(error)))

    left = _clamp.left(None)
    threading.Thread(target=resolve, name="ascend-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=left if left != float("inf") else None)
    except queue.Empty:
        raise httpcore2.ConnectTimeout("deadline") from None
    if isinstance(answer, OSError):
        raise httpcore2.ConnectError(str(answer))
    return answer


class _HTTPX2Base:
    def __init__(self, settings: Settings) -> None:
        proxy = _proxy_url(settings)
        # Read here and not at the first request, where an event loop would wait for it; plain loopback needs none.
        tls = bool(settings.ca_file) or not settings.api_url.startswith("http:")
        trusted = _trusted(settings) if tls else None
        options: dict[str, Any] = {
            "ssl_context": trusted,
            "max_connections": settings.max_connections,
            "max_keepalive_connections": settings.max_connections,
            "keepalive_expiry": _KEEPALIVE_SECONDS,
        }
        if proxy is not None:
            parsed = httpx2.Proxy(proxy)
            options["proxy"] = httpcore2.Proxy(str(parsed.url), auth=parsed.raw_auth)

        self._pools: Final = PerProcess(lambda: self._pool(options))

    def _pool(self, options: dict[str, Any]) -> Any:
        raise NotImplementedError


class _HTTPX2(_HTTPX2Base):
    def _pool(self, options: dict[str, Any]) -> httpcore2.ConnectionPool:
        return httpcore2.ConnectionPool(network_backend=_ClampedBackend(), **options)

    def send(self, request: Request, timeout: float) -> Response:
        if timeout <= 0:
            raise _deadline(False)
        pool: httpcore2.ConnectionPool = self._pools.get()
        body, outer = _Body(request.content), _clamp.at
        _clamp.at = min(outer, time.monotonic() + timeout)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        try:
            with _core_failures(body):
                answer = pool.handle_request(_core_request(request, body, {"timeout": limits}))
                content = bytearray()
                try:
                    for chunk in answer.iter_stream():
                        content += chunk
                        if len(content) > MAX_ANSWER_BYTES:
                            raise _too_long()
                finally:
                    answer.close()
                return _core_response(answer, bytes(content))
        finally:
            _clamp.at = outer

    def close(self) -> None:
        pool = self._pools.take()
        if pool is not None:
            with contextlib.suppress(Exception):  # requests under way in other threads fail by themselves
                pool.close()


class _AsyncHTTPX2(_HTTPX2Base):
    def _pool(self, options: dict[str, Any]) -> httpcore2.AsyncConnectionPool:
        return httpcore2.AsyncConnectionPool(**options)

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        if timeout <= 0:
            raise _deadline(False)
        pool: httpcore2.AsyncConnectionPool = self._pools.get(_running_loop())
        body = _Body(request.content)
        with _core_failures(body), anyio.fail_after(timeout):
            answer = await pool.handle_async_request(_core_request(request, body, {}))
            content = bytearray()
            try:
                async for chunk in answer.aiter_stream():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _too_long()
            finally:
                await answer.aclose()
            return _core_response(answer, bytes(content))

    async def aclose(self) -> None:
        pool = self._pools.take(_running_loop())
        if pool is not None:
            with contextlib.suppress(Exception):  # requests under way in other tasks fail by themselves
                await pool.aclose()


# --- the user's own client


def _borrow(client: object, *, asynchronous: bool) -> Any:
    names = {base.__name__ for base in type(client).__mro__ if base.__module__.split(".")[0] in ("httpx", "httpx2")}
    wanted = "AsyncClient" if asynchronous else "Client"
    if wanted not in names:
        raise ConfigurationError(f"http_client must be an httpx2.{wanted} or httpx.{wanted} here")
    masking.install("httpx2")
    return (_AsyncBorrowed if asynchronous else _Borrowed)(client)


@contextlib.contextmanager
def _borrowed_failures(progress: dict[str, bool]) -> Iterator[None]:
    try:
        yield
    except AscendError:
        raise
    except Exception as error:
        # By name: httpx and httpx2 share the names of their errors and no class.
        names = {base.__name__ for base in type(error).__mro__}
        unreached = bool(names & {"ConnectTimeout", "PoolTimeout"})
        if isinstance(error, TimeoutError) or "TimeoutException" in names:
            raise _deadline(not unreached and progress["sent"]) from None
        if names & {"ConnectError", "ProxyError", "UnsupportedProtocol"}:
            raise ConnectFailed(f"no connection to the authority: {_describe(error)}") from None
        raise ExchangeFailed(f"the exchange with the authority broke: {_describe(error)}") from None


class _Borrowed:
    """Wraps a blocking client. Its reads are clamped between chunks only: a trickled header can overrun once."""

    def __init__(self, client: Any) -> None:
        self._client: Final = client

    def send(self, request: Request, timeout: float) -> Response:
        if timeout <= 0:
            raise _deadline(False)
        end = time.monotonic() + timeout
        with _borrowed_failures({"sent": True}):
            built = self._client.build_request(
                request.method, request.url, headers=list(request.headers), content=request.content, timeout=timeout
            )
            answer = self._client.send(built, stream=True, auth=None, follow_redirects=False)
            content = bytearray()
            try:
                for chunk in answer.iter_raw():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _too_long()
                    if time.monotonic() >= end:
                        raise _deadline(True)
            finally:
                answer.close()
            return _response(answer.status_code, answer.headers.items(), bytes(content))

    def close(self) -> None:
        """Leave the client open: it is the user's."""


class _AsyncBorrowed:
    def __init__(self, client: Any) -> None:
        self._client: Final = client

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        if timeout <= 0:
            raise _deadline(False)
        with _borrowed_failures({"sent": True}), anyio.fail_after(timeout):
            built = self._client.build_request(
                request.method, request.url, headers=list(request.headers), content=request.content, timeout=None
            )
            answer = await self._client.send(built, stream=True, auth=None, follow_redirects=False)
            content = bytearray()
            try:
                async for chunk in answer.aiter_raw():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _too_long()
            finally:
                with anyio.CancelScope(shield=True):
                    await answer.aclose()
            return _response(answer.status_code, answer.headers.items(), bytes(content))

    async def aclose(self) -> None:
        """Leave the client open: it is the user's."""


# --- pyreqwest: fast, and by nature one per process


class _PyreqwestBase:
    _builder: ClassVar[str]
    # A runtime that existed before a fork hangs in the child, and no new client brings it back.
    _first_used_in: ClassVar[int | None] = None

    def __init__(self, settings: Settings) -> None:
        try:
            import pyreqwest.client  # noqa: F401 - is it there?
        except ImportError:
            raise ConfigurationError(
                "engine 'pyreqwest' is not installed: add the extra ascend-middleware[fast]"
            ) from None
        gevent = sys.modules.get("gevent.monkey")
        if gevent is not None and gevent.is_module_patched("socket"):
            raise ConfigurationError("engine 'pyreqwest' blocks under gevent; use engine 'httpx2'")
        self._settings: Final = settings
        self._certificates = b""
        if settings.ca_file:
            _trusted(settings)
            with open(settings.ca_file, "rb") as file:
                self._certificates = file.read()
        self._proxy: Final = _proxy_url(settings)
        self._clients: Final = PerProcess(self._build)

    def _build(self) -> Any:
        import pyreqwest.client
        import pyreqwest.proxy

        cls = _PyreqwestBase
        if cls._first_used_in not in (None, os.getpid()):
            raise ConfigurationError(
                "engine 'pyreqwest' was used before this process was forked; use 'httpx2', or fork first"
            )
        cls._first_used_in = os.getpid()
        builder = getattr(pyreqwest.client, self._builder)()
        builder = builder.follow_redirects(False).referer(False).max_connections(self._limit())
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        builder = builder.pool_idle_timeout(timedelta(seconds=_KEEPALIVE_SECONDS)).no_proxy()
        if self._proxy is not None:
            builder = builder.proxy(pyreqwest.proxy.ProxyBuilder.all(self._proxy))
        if self._certificates:
            builder = builder.add_root_certificate_pem(self._certificates)
        return builder.build()

    def _limit(self) -> int | None:
        return self._settings.max_connections

    def _prepared(self, request: Request, timeout: float) -> Any:
        built = self._clients.get().request(request.method, request.url).timeout(timedelta(seconds=timeout))
        built = built.headers(list(request.headers))
        return (built.body_bytes(request.content) if request.content else built).build_streamed()


@contextlib.contextmanager
def _pyreqwest_failures() -> Iterator[None]:
    from pyreqwest import exceptions as failures

    try:
        yield
    except AscendError:
        raise
    except (failures.ConnectTimeoutError, failures.PoolTimeoutError):
        raise _deadline(False) from None
    except (failures.RequestTimeoutError, TimeoutError):
        raise _deadline(True) from None
    except (failures.ConnectError, failures.BuilderError) as error:
        causes = [str(cause["message"]) for cause in error.details["causes"] or ()]
        # A connection that was lost while it was used goes by the same name; the cause tells them apart.
        if isinstance(error, failures.BuilderError) or any("(Connect)" in cause for cause in causes):
            raise ConnectFailed(f"no connection to the authority: {_describe(error)}") from None
        raise ExchangeFailed(f"the exchange with the authority broke: {_describe(error)}") from None
    except Exception as error:
        raise ExchangeFailed(f"the exchange with the authority broke: {_describe(error)}") from None


class _Pyreqwest(_PyreqwestBase):
    _builder = "SyncClientBuilder"

    def send(self, request: Request, timeout: float) -> Response:
        if timeout <= 0:
            raise _deadline(False)
        with _pyreqwest_failures(), self._prepared(request, timeout) as answer:
            content = bytearray()
            while (chunk := answer.body_reader.read_chunk()) is not None:
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise _too_long()
            return _response(answer.status, answer.headers.items(), bytes(content))

    def close(self) -> None:
        client = self._clients.take()
        if client is not None:
            client.close()


def _forget(task: Any) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


class _AsyncPyreqwest(_PyreqwestBase):
    _builder = "ClientBuilder"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # The library goes on with a request after its cancellation, until the deadline, and holds its slot so long; it
        # would even send one that was still queued. So the slots are counted here.
        self._slots: Final = PerProcess(lambda: asyncio.Semaphore(settings.max_connections))

    def _limit(self) -> int | None:
        return None

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        if timeout <= 0:
            raise _deadline(False)
        end = time.monotonic() + timeout
        slots: asyncio.Semaphore = self._slots.get(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(timeout if slots.locked() else None):
                await slots.acquire()
        except TimeoutError:
            raise _deadline(False) from None
        try:
            # Cancelled, the library raises a cancellation of its own making, in which a cancel scope does not recognise
            # itself. So it runs in a task, and what cancels us goes up as it came.
            task = asyncio.ensure_future(self._exchange(request, max(0.001, end - time.monotonic())))
            try:
                await asyncio.wait((task,))
            except BaseException:
                task.add_done_callback(_forget)
                task.cancel()
                raise
            return task.result()
        finally:
            slots.release()

    async def _exchange(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        with _pyreqwest_failures():
            async with self._prepared(request, timeout) as answer:
                content = bytearray()
                while (chunk := await answer.body_reader.read_chunk()) is not None:
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _too_long()
                return _response(answer.status, answer.headers.items(), bytes(content))

    async def aclose(self) -> None:
        client = self._clients.take()
        if client is not None:
            await client.close()
