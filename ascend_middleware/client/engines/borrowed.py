"""The user's own client of httpx or httpx2, lent to us; told apart by the names of its classes, not imported."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import anyio

from ...exceptions import AscendError, ConfigurationError
from .. import masking
from ..exchange import ConnectFailed, ExchangeFailed, Request, Response
from .shared import MAX_ANSWER_BYTES, deadline_passed, describe, has_surplus, response, surplus, too_long

__all__ = ["borrow"]


def borrow(client: object, *, asynchronous: bool) -> Any:
    """Return an engine around the client; closing it leaves the client open."""
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
            raise deadline_passed(sent=not unreached and progress["sent"]) from None
        if names & {"ConnectError", "ProxyError", "UnsupportedProtocol"}:
            raise ConnectFailed(f"no connection to the authority: {describe(error)}") from None
        raise ExchangeFailed(f"the exchange with the authority broke: {describe(error)}") from None


class _Borrowed:
    """Wraps a blocking client.

    Its own time limits are for single reads, and a server that trickles its head can stretch those without end. So it
    sends in a thread, which is given up at the deadline and ends by itself when the server does.
    """

    def __init__(self, client: Any) -> None:
        self._client: Final = client

    def send(self, request: Request, timeout: float) -> Response:
        if timeout <= 0:
            raise deadline_passed(sent=False)
        answers: queue.SimpleQueue[Response | Exception] = queue.SimpleQueue()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                answers.put(context.run(self._exchange, request, timeout))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=work, name="ascend-borrowed", daemon=True).start()
        try:
            answer = answers.get(timeout=timeout)
        except queue.Empty:
            raise deadline_passed(sent=True) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _exchange(self, request: Request, timeout: float) -> Response:
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
                        raise too_long()
                    if time.monotonic() >= end:
                        raise deadline_passed(sent=True)
                if has_surplus(answer.stream):
                    answer.extensions["network_stream"].close()
                    raise surplus()
            finally:
                answer.close()
            return response(answer.status_code, answer.headers.items(), bytes(content))

    def close(self) -> None:
        """Leave the client open: it is the user's."""


class _AsyncBorrowed:
    def __init__(self, client: Any) -> None:
        self._client: Final = client

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        if timeout <= 0:
            raise deadline_passed(sent=False)
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
                        raise too_long()
                if has_surplus(answer.stream):
                    await answer.extensions["network_stream"].aclose()
                    raise surplus()
            finally:
                with anyio.CancelScope(shield=True):
                    await answer.aclose()
            return response(answer.status_code, answer.headers.items(), bytes(content))

    async def aclose(self) -> None:
        """Leave the client open: it is the user's."""
