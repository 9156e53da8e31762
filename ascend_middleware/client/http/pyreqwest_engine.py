"""The fast engine: pyreqwest, by nature one per process.

One of the files that import an HTTP library; each serves one engine.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import ssl
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ...exceptions import AscendError, ConfigurationError
from .common import (
    KEEPALIVE_SECONDS,
    MAX_ANSWER_BYTES,
    deadline_passed,
    defect,
    describe,
    proxy_url,
    response,
    tls_failed,
    too_long,
    trusted,
    unconnected,
)
from .transport import ExchangeFailed, Overloaded, PerProcess, Request, Response, Unsendable

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["AsyncPyreqwest", "Pyreqwest"]

_LET_GO_SECONDS: Final = 1.0
# What the library's TLS says of what the other side sent; of an end or a reset it says other things.
_DISTRUSTED: Final = re.compile(r"invalid peer certificate|received (corrupt|unexpected|fatal)|peer |cannot decrypt")


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
        trusted(settings, ssl.create_default_context)
        if settings.ca_file:
            with open(settings.ca_file, "rb") as file:
                self._certificates = file.read()
        self._proxy: Final = proxy_url(settings)
        self._clients: Final = PerProcess(self._build)

    def _build(self) -> Any:
        import pyreqwest.client
        import pyreqwest.proxy

        cls = _PyreqwestBase
        if cls._first_used_in not in (None, os.getpid()):
            raise ConfigurationError(
                "engine 'pyreqwest' was used before this process was forked; use 'httpx2', or fork first"
            )
        if cls._first_used_in is None and not self._builder.startswith("Sync"):
            atexit.register(_let_go)
        cls._first_used_in = os.getpid()
        builder = getattr(pyreqwest.client, self._builder)()
        builder = builder.follow_redirects(False).referer(False).max_connections(self._limit())
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        builder = builder.pool_idle_timeout(timedelta(seconds=KEEPALIVE_SECONDS)).no_proxy()
        if self._proxy is not None:
            builder = builder.proxy(pyreqwest.proxy.ProxyBuilder.all(self._proxy))
        if self._certificates:
            builder = builder.add_root_certificate_pem(self._certificates)
        return builder.build()

    def _limit(self) -> int | None:
        return self._settings.max_connections

    def _prepared(self, request: Request, timeout: float) -> Any:
        built = self._clients.get().request(request.method, request.url).timeout(timedelta(seconds=timeout))
        # Nothing is read ahead: the library would tell of an answer's head only with that, and it may trickle.
        built = built.headers(list(request.headers)).streamed_read_buffer_limit(0)
        return (built.body_bytes(request.content) if request.content else built).build_streamed()


def _let_go() -> None:
    """Wait at the end of the process until no thread of the library is inside Python: one that is would abort it."""
    until = time.monotonic() + _LET_GO_SECONDS
    while time.monotonic() < until:
        known = {thread.ident for thread in threading.enumerate()}
        if not sys._current_exceptions().keys() - known:
            return
        time.sleep(0.001)


def _failure_of(error: Exception, *, answered: bool) -> AscendError:
    """Return what a failure of the library, before or after an answer's head, is to us; ours stay as they are."""
    from pyreqwest import exceptions as failures

    if isinstance(error, AscendError):
        return error
    if isinstance(error, failures.PoolTimeoutError):
        return Overloaded(f"no connection became free in time: {describe(error)}")
    if isinstance(error, failures.ConnectTimeoutError):
        return deadline_passed()
    if isinstance(error, failures.RequestTimeoutError | TimeoutError):
        return deadline_passed(answered=answered)
    if isinstance(error, failures.BuilderError) or not isinstance(error, failures.RequestError):
        return defect(error)
    if isinstance(error, failures.ConnectError):
        causes = [str(cause["message"]) for cause in error.details["causes"] or ()]
        if any("proxy authorization required" in cause for cause in causes):
            return Unsendable(f"the proxy refuses this service: {describe(error)}")
        # A connection that was lost while it was used goes by the same name; the cause tells them apart.
        if any("(Connect)" in cause for cause in causes):
            return tls_failed(causes[-1][:200]) if _DISTRUSTED.match(causes[-1]) else unconnected(error)
    return ExchangeFailed(f"the exchange with the authority broke: {describe(error)}")


class Pyreqwest(_PyreqwestBase):
    """Sends with one client for the process, blocking."""

    _builder = "SyncClientBuilder"

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        answered = False
        try:
            with self._prepared(request, timeout) as answer:
                answered = True
                content = bytearray()
                while (chunk := answer.body_reader.read_chunk()) is not None:
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise too_long()
                return response(answer.status, _readable(answer.headers), bytes(content))
        except Exception as error:
            raise _failure_of(error, answered=answered) from None

    def close(self) -> None:
        """Close what is open in this process."""
        client = self._clients.take()
        if client is not None:
            client.close()


def _readable(headers: Any) -> list[tuple[str, str]]:
    """Return an answer's headers without those whose bytes are beyond ASCII: the library gives none when one is."""
    try:
        return list(headers.items())
    except ValueError:
        found: list[tuple[str, str]] = []
        for name in headers.keys():  # noqa: SIM118 - it is no mapping
            with contextlib.suppress(ValueError):
                found += [(name, value) for value in headers.getall(name)]
        return found


def _is_short(headers: list[tuple[str, str]]) -> bool:
    """Say whether the answer's length is told and within the limit; the library delivers no more than what is told."""
    told = [value for name, value in headers if name.lower() == "content-length"]
    return len(told) == 1 and told[0].isascii() and told[0].isdigit() and int(told[0][:12]) <= MAX_ANSWER_BYTES


class _AsItCame:
    """Awaits a coroutine; what the event loop throws in goes up as it came.

    Cancelled, the library raises a cancellation of its own making, in which a cancel scope does not recognise itself. A
    task around the call would do the same for a third of its price.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Coroutine[Any, Any, Response]) -> None:
        self._inner = inner

    def __await__(self) -> Generator[Any, Any, Response]:
        inner = self._inner.__await__()
        thrown: BaseException | None = None
        try:
            step = inner.send(None)
            while True:
                try:
                    result = yield step
                except BaseException as error:
                    thrown = error
                    step = inner.throw(error)
                else:
                    step = inner.send(result)
        except StopIteration as stop:
            if thrown is not None:
                raise thrown from None
            answer: Response = stop.value
            return answer
        except BaseException:
            if thrown is not None:
                raise thrown from None
            raise


class AsyncPyreqwest(_PyreqwestBase):
    """Sends with one client for the process, from any event loop."""

    _builder = "ClientBuilder"

    def _limit(self) -> int | None:
        # The library goes on with a request after its cancellation, until the deadline, and holds its slot so long; it
        # would even send one that was still queued. So the slots are counted before it only.
        return None

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        return await _AsItCame(self._exchange(request, timeout))

    async def _exchange(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        answered = False
        try:
            async with self._prepared(request, timeout) as answer:
                answered = True
                headers = _readable(answer.headers)
                if _is_short(headers):
                    return response(answer.status, headers, bytes(await answer.bytes()))
                content = bytearray()
                while (chunk := await answer.body_reader.read_chunk()) is not None:
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise too_long()
                return response(answer.status, headers, bytes(content))
        except Exception as error:
            raise _failure_of(error, answered=answered) from None

    async def aclose(self) -> None:
        """Close what is open in this process."""
        client = self._clients.take()
        if client is not None:
            await client.close()
