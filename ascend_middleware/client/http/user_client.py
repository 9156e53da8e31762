"""The user's own client of httpx or httpx2 as an engine; it is recognised by the names of its classes, not imported."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Final, Protocol

import anyio

from ... import masking
from ...exceptions import AscendError, ConfigurationError
from ...fork import process_id
from .network import deadline_passed, defect, describe, proxy_failed, response, surplus, too_long, unconnected
from .transport import MAX_ANSWER_BYTES, DeadlinePassed, ExchangeFailed, Overloaded, Request, Response

__all__ = ["borrow", "failures", "whole", "whole_async"]


def borrow(client: object, *, asynchronous: bool) -> Any:
    """Return an engine around the client; closing it leaves the client open."""
    names = {base.__name__ for base in type(client).__mro__ if base.__module__.split(".")[0] in ("httpx", "httpx2")}
    wanted = "AsyncClient" if asynchronous else "Client"
    if wanted not in names:
        raise ConfigurationError(f"http_client must be an httpx2.{wanted} or httpx.{wanted} here")
    masking.install("httpx2")
    return (_AsyncBorrowed if asynchronous else _Borrowed)(client)


def _has_surplus(stream: Any) -> bool:
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


def whole(answer: Any, chunks: Iterable[bytes]) -> bytes:
    """Return the body of an answer, and close it; refuse one that is too long, or with something behind it."""
    content = bytearray()
    try:
        for chunk in chunks:
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise too_long()
        if _has_surplus(answer.stream):
            answer.extensions["network_stream"].close()
            raise surplus()
    finally:
        answer.close()
    return bytes(content)


async def whole_async(answer: Any, chunks: AsyncIterable[bytes]) -> bytes:
    """Do what `whole` does, on an event loop."""
    content = bytearray()
    try:
        async for chunk in chunks:
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise too_long()
        if _has_surplus(answer.stream):
            await answer.extensions["network_stream"].aclose()
            raise surplus()
    finally:
        with anyio.CancelScope(shield=True):
            await answer.aclose()
    return bytes(content)


class Progress(Protocol):
    """How far a request came: whether any of it may have left, and whose fault it is that its time ran out."""

    sent: bool

    def passed(self) -> DeadlinePassed: ...


@contextlib.contextmanager
def failures(progress: Progress) -> Iterator[None]:
    """Make failures of engines of the libraries' errors: httpx, httpx2 and httpcore2 share their names and no class."""
    try:
        yield
    except AscendError:
        raise
    except Exception as error:
        names = {base.__name__ for base in type(error).__mro__}
        if "PoolTimeout" in names:
            raise Overloaded(f"no connection became free in time: {describe(error)}") from None
        if "ConnectTimeout" in names:
            raise deadline_passed() from None
        if isinstance(error, TimeoutError) or "TimeoutException" in names:
            raise progress.passed() from None
        broke = bool(names & {"NetworkError", "RemoteProtocolError", "DecodingError", "StreamError"})
        if "ConnectError" in names or (broke and not progress.sent):
            raise unconnected(error) from None
        if "ProxyError" in names:
            raise proxy_failed(error) from None
        if broke:
            raise ExchangeFailed(f"the exchange with the authority broke: {describe(error)}") from None
        raise defect(error) from None


class _Progress:
    """When a request left the queue of the client's own pool, and when its answer began, as its transport tells.

    Of a transport that tells nothing, it cannot be shown that a request ever left this process. What the client's own
    hooks do with an answer is this process's time.
    """

    sent = True

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._left: float | None = None
        self._answered = False
        self._hooks = 0.0
        self._since: float | None = None

    def begin(self) -> None:
        """Count from now: a thread may start late."""
        self._began = time.monotonic()

    def trace(self, event: str, _info: object) -> None:
        if event.endswith(".started"):
            if self._left is None:
                self._left = time.monotonic()
            self._end_hooks()
        elif event.endswith("receive_response_headers.complete"):
            self._answered, self._since = True, time.monotonic()

    async def trace_async(self, event: str, info: object) -> None:
        self.trace(event, info)

    def answer(self) -> None:
        """Note that the client gave an answer out."""
        self._answered = True
        self._end_hooks()

    def _end_hooks(self) -> None:
        since, self._since = self._since, None
        if since is not None:
            self._hooks += time.monotonic() - since

    def passed(self) -> DeadlinePassed:
        self._end_hooks()
        waited = (time.monotonic() if self._left is None else self._left) - self._began
        return deadline_passed(waited=waited + self._hooks, answered=self._answered)


def _build(client: Any, request: Request, timeout: float | None, trace: Any) -> Any:
    return client.build_request(
        request.method,
        request.url,
        headers=list(request.headers),
        content=request.content,
        timeout=timeout,
        extensions={"trace": trace},
    )


def _until(end: float, progress: _Progress, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        if time.monotonic() >= end:
            raise progress.passed()


async def _loaded(content: bytes) -> AsyncIterator[bytes]:
    yield content


class _Borrowed:
    """Wraps a blocking client.

    Its own time limits are for single reads, and a server that trickles its head can stretch those without end. So it
    sends in a thread, which is given up at the deadline and ends by itself when the server does.
    """

    def __init__(self, client: Any) -> None:
        self._client: Final = client
        self._process: int | None = None

    def send(self, request: Request, timeout: float) -> Response:
        if self._process is None:
            self._process = process_id()
        elif self._process != process_id():
            # Its connections would be used by both: an answer for one would be taken by the other.
            raise ConfigurationError("http_client was used before this process was forked; make one in each process")
        answers: queue.SimpleQueue[Response | Exception] = queue.SimpleQueue()
        progress = _Progress()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                answers.put(context.run(self._exchange, request, timeout, progress))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=work, name="ascend-borrowed", daemon=True).start()
        try:
            answer = answers.get(timeout=timeout)
        except queue.Empty:
            raise progress.passed() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _exchange(self, request: Request, timeout: float, progress: _Progress) -> Response:
        end = time.monotonic() + timeout
        progress.begin()
        with failures(progress):
            built = _build(self._client, request, timeout, progress.trace)
            answer = self._client.send(built, stream=True, auth=None, follow_redirects=False)
            progress.answer()
            chunks = [answer.content] if answer.is_stream_consumed else answer.iter_raw()
            content = whole(answer, _until(end, progress, chunks))
            return response(answer.status_code, answer.headers.items(), content)

    def close(self) -> None:
        """Leave the client open: it is the user's."""


class _AsyncBorrowed:
    def __init__(self, client: Any) -> None:
        self._client: Final = client

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        progress = _Progress()
        with failures(progress), anyio.fail_after(timeout):
            built = _build(self._client, request, None, progress.trace_async)
            answer = await self._client.send(built, stream=True, auth=None, follow_redirects=False)
            progress.answer()
            chunks = _loaded(answer.content) if answer.is_stream_consumed else answer.aiter_raw()
            return response(answer.status_code, answer.headers.items(), await whole_async(answer, chunks))

    async def aclose(self) -> None:
        """Leave the client open: it is the user's."""
