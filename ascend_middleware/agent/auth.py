"""`ApprovalAuth`: an authentication flow for clients of httpx and httpx2, blocking and asynchronous."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final

import anyio
import httpx2

from .hold import (
    HANDLE_HEADER,
    Answer,
    Ask,
    BodyNotRepeatable,
    Hold,
    Pause,
    Repeat,
    Steps,
    Waiter,
    is_problem,
    next_step,
)
from .pause import token_of

try:
    import httpx
except ImportError:  # its clients want their own class as a base
    _BASES: tuple[type, ...] = (httpx2.Auth,)
else:
    _BASES = (httpx2.Auth, httpx.Auth)

__all__ = ["ApprovalAuth"]


class ApprovalAuth(*_BASES):  # type: ignore[misc]  # one of the bases is there only where httpx is installed
    """Waits where a person has to approve a request, and then sends the very same request again.

        client = httpx2.Client(auth=ApprovalAuth(timeout=600))
        client.post("https://shop.example/refunds", json={"amount": 5000})  # returns when somebody has approved it

    All other answers come back as they are. A request whose body is a stream that can be sent once only is refused
    before it is sent.

    Args:
        timeout: seconds in all for which one request waits for a person.
        auth: the authentication of the service, an `Auth` of the same library: a client has room for one only.
        pause: whether an action on hold raises `ApprovalPaused` at once, for a program that goes on later.
        on_hold: called with the `Hold` each time before the client waits; with an asynchronous client it may be
            asynchronous too. What it raises ends the wait.
        sleep: waits seconds, blocking.
        sleep_async: waits seconds on an event loop.
        clock: monotonic seconds.

    Raises (from the client's method):
        ApprovalDenied: the action was denied.
        ApprovalExpired: the approval can no longer be used.
        ApprovalTimeout: nobody has decided in time.
        ApprovalPaused: with `pause=True`.
        BodyNotRepeatable: the body can be sent once only.
    """

    def __init__(
        self,
        *,
        timeout: float = 300.0,
        auth: Any = None,
        pause: bool = False,
        on_hold: Callable[[Hold], Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        sleep_async: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiter: Final = Waiter(timeout, pause=pause, clock=clock)
        self._auth: Final = auth
        self._on_hold: Final = on_hold
        self._sleep: Final = sleep
        self._sleep_async: Final = sleep_async

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send the request, and wait in this thread; the library calls this."""
        steps, answer = self._steps(request), None
        while (step := next_step(steps, answer)) is not None:
            answer = None
            if isinstance(step, Pause):
                if self._on_hold is not None:
                    self._on_hold(step.hold)
                self._sleep(step.seconds)
                continue
            sent = _to_send(request, step)
            if self._auth is None:
                response = yield sent
            else:
                response = yield from _last(self._auth.sync_auth_flow(sent))
            if _is_ours(step, response):
                response.read()
            answer = _answer(step, response)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Send the request, and wait on the event loop; the library calls this."""
        steps, answer = self._steps(request), None
        while (step := next_step(steps, answer)) is not None:
            answer = None
            if isinstance(step, Pause):
                told = None if self._on_hold is None else self._on_hold(step.hold)
                if inspect.isawaitable(told):
                    await told
                await self._sleep_async(step.seconds)
                continue
            sent = _to_send(request, step)
            if self._auth is None:
                response = yield sent
            else:
                flow = self._auth.async_auth_flow(sent)
                try:
                    sent = await flow.__anext__()
                    while True:
                        response = yield sent
                        try:
                            sent = await flow.asend(response)
                        except StopAsyncIteration:
                            break
                finally:
                    await flow.aclose()
            if _is_ours(step, response):
                await response.aread()
            answer = _answer(step, response)

    def _steps(self, request: Any) -> Steps:
        try:
            content = request.content
        except RuntimeError:  # httpx's and httpx2's RequestNotRead
            raise BodyNotRepeatable(
                f"the body of {request.method} {request.url.path} is a stream that can be sent once only, and after an "
                "approval the request is sent again: give the body as bytes or JSON, or read() the request first"
            ) from None
        url, headers = str(request.url), request.headers.multi_items()
        return self._waiter.steps(url, lambda handle: token_of(request.method, url, headers, content, handle))


def _last(flow: Generator[Any, Any, None]) -> Generator[Any, Any, Any]:
    """Go through another authentication's flow, and return its last response."""
    sent = next(flow)
    while True:
        response = yield sent
        try:
            sent = flow.send(response)
        except StopIteration:
            return response


def _to_send(request: Any, step: Repeat | Ask) -> Any:
    if isinstance(step, Repeat):
        if step.handle is not None:
            request.headers[HANDLE_HEADER] = step.handle
        return request
    # The same class, of the same library; what the body was does not concern this one.
    headers = [
        (name, value)
        for name, value in request.headers.multi_items()
        if not name.lower().startswith("content-") and name.lower() not in ("transfer-encoding", HANDLE_HEADER.lower())
    ]
    return type(request)("GET", step.url, headers=headers, extensions=request.extensions)


def _is_ours(step: Repeat | Ask, response: Any) -> bool:
    return isinstance(step, Ask) or is_problem(response.status_code, response.headers)


def _answer(step: Repeat | Ask, response: Any) -> Answer:
    return Answer(response.status_code, response.headers, response.content if _is_ours(step, response) else b"")
