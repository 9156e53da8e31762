"""`ApprovalAdapter`: a transport adapter for sessions of requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from .hold import HANDLE_HEADER, Answer, BodyNotRepeatable, Hold, Pause, Repeat, Waiter, is_problem, next_step
from .pause import token_of

__all__ = ["ApprovalAdapter"]


class ApprovalAdapter(HTTPAdapter):
    """Waits where a person has to approve a request of a session, and then sends the very same request again.

        session = requests.Session()
        session.mount("https://shop.example/", ApprovalAdapter(timeout=600))

    Errors and meanings are those of `ApprovalAuth`.

    Args:
        timeout: seconds in all for which one request waits for a person.
        pause: whether an action on hold raises `ApprovalPaused` at once.
        on_hold: called with the `Hold` each time before the session waits.
        sleep: waits seconds.
        clock: monotonic seconds.
        options: those of `requests.adapters.HTTPAdapter`.
    """

    def __init__(
        self,
        *,
        timeout: float = 300.0,
        pause: bool = False,
        on_hold: Callable[[Hold], Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._waiter: Final = Waiter(timeout, pause=pause, clock=clock)
        self._on_hold: Final = on_hold
        self._sleep: Final = sleep

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request; the session calls this."""
        body, url = request.body or b"", str(request.url)
        if not isinstance(body, bytes | str):
            raise BodyNotRepeatable(
                f"the body of {request.method} {request.path_url} is a stream that can be sent once only, and after an "
                "approval the request is sent again: give the body as bytes or JSON"
            )
        content = body.encode() if isinstance(body, str) else body
        headers = [
            (name, value if isinstance(value, str) else value.decode("latin-1"))
            for name, value in request.headers.items()
        ]
        steps = self._waiter.steps(url, lambda handle: token_of(str(request.method), url, headers, content, handle))
        response, answer = None, None
        while (step := next_step(steps, answer)) is not None:
            answer = None
            if isinstance(step, Pause):
                if self._on_hold is not None:
                    self._on_hold(step.hold)
                self._sleep(step.seconds)
            elif isinstance(step, Repeat):
                if step.handle is not None:
                    request.headers[HANDLE_HEADER] = step.handle
                response = super().send(request, *args, **options)
                answer = _answer(response, is_ours=is_problem(response.status_code, response.headers))
            else:
                asked = request.copy()
                asked.prepare_method("GET")
                asked.prepare_url(step.url, None)
                asked.prepare_body(None, None)
                for name in (HANDLE_HEADER, "Content-Type", "Content-Length", "Content-Encoding"):
                    asked.headers.pop(name, None)
                answer = _answer(super().send(asked, *args, **options), is_ours=True)
        assert response is not None  # noqa: S101 - the first step sends
        return response


def _answer(response: requests.Response, *, is_ours: bool) -> Answer:
    return Answer(response.status_code, response.headers, response.content if is_ours else b"")
