"""What a governed service says about an action on hold, and the one loop that waits for it; no IO here.

The wire format is that of docs/state.md: a problem `approval-required` names a handle and a status URL; the very same
request with the header `Ascend-Approval: <handle>` runs once it is approved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urljoin, urlsplit

from ..exceptions import AscendError

__all__ = [
    "HANDLE_HEADER",
    "Answer",
    "ApprovalDenied",
    "ApprovalError",
    "ApprovalExpired",
    "ApprovalPaused",
    "ApprovalTimeout",
    "Ask",
    "BodyNotRepeatable",
    "Hold",
    "Pause",
    "Repeat",
    "Steps",
    "Waiter",
    "is_problem",
    "next_step",
]

HANDLE_HEADER: Final = "Ascend-Approval"
_PROBLEM: Final = "urn:ascend:problem:approval-required"
_PAUSE: Final = 1.0
# A service whose answers contradict each other (approved, and yet to be approved) is not asked for ever.
_MOST_REPEATS: Final = 5
_FINAL: Final = {
    "expired": "the approval has expired; send the request anew, without a handle, to ask again",
    "unknown": "the service does not know this approval (any more); send the request anew, without a handle",
    "used": "the approval was used already; the service tells what became of that run when the request is repeated",
}


class ApprovalError(AscendError):
    """An action that was on hold does not run; see the classes below."""


class ApprovalDenied(ApprovalError):  # noqa: N818 - says what happened
    """A person, or a policy, has denied the action; the request was not repeated."""


class ApprovalExpired(ApprovalError):  # noqa: N818 - says what happened
    """The approval can no longer be used: it has expired, was used, or the service has forgotten it."""


class ApprovalTimeout(ApprovalError):  # noqa: N818 - says what happened
    """Nobody has decided in time; the action is still on hold.

    Attributes:
        token: for `resume`, now or later, also in another process.
    """

    token: str = ""


class ApprovalPaused(ApprovalError):  # noqa: N818 - says what happened
    """The action is on hold, and the caller wants to go on later (`pause=True`).

    Attributes:
        token: for `resume`, also in another process. It contains the request and the handle, so keep it as you keep
            the request; it contains no credentials.
        hold: what the service said.
    """

    token: str = ""
    hold: Hold | None = None


class BodyNotRepeatable(ApprovalError, ValueError):  # noqa: N818 - says what happened
    """The body is a stream that can be sent once only, so the request could not be repeated; nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An action that a person has to approve.

    Attributes:
        handle: repeats the request; a key to it, so it is not shown by `repr`.
        state: `pending`, or `approved` where it is already.
        status_url: absolute; answers with the state.
        expires_in: seconds in which the approval can be used.
        retry_after: seconds until it makes sense to ask for the state.
        action_id: the action at the authority, where the service tells it.
        detail: why, in the service's words.
    """

    handle: str = field(repr=False)
    state: str
    status_url: str = field(repr=False)
    expires_in: float
    retry_after: float
    action_id: str | None
    detail: str


class Answer(NamedTuple):
    """What the loop reads of a response; `content` only where `is_problem`, or the state was asked for."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Repeat(NamedTuple):
    """Send the request, with the handle where there is one."""

    handle: str | None


class Ask(NamedTuple):
    """Ask for the state; the request's own credentials go along, because the service may want them."""

    url: str


class Pause(NamedTuple):
    """Wait so many seconds, after the callback was told."""

    seconds: float
    hold: Hold


Steps: TypeAlias = Generator[Repeat | Ask | Pause, Answer | None, None]


class Waiter:
    """Waits for the approval of requests.

    Args:
        timeout: seconds in all for which one request waits for a person.
        pause: whether an action on hold raises `ApprovalPaused` at once.
        clock: monotonic seconds.
    """

    def __init__(self, timeout: float, *, pause: bool, clock: Callable[[], float]) -> None:
        if not 0 <= timeout < float("inf"):
            raise ValueError(f"timeout must be a number of seconds, at least 0, not {timeout!r}")
        self._timeout: Final = timeout
        self._pause: Final = pause
        self._clock: Final = clock

    def steps(self, url: str, token: Callable[[str], str]) -> Steps:
        """Say what is to be done until the last `Repeat` has the answer that the caller is to get.

        Args:
            url: of the request, absolute.
            token: makes a token of a handle.

        Raises:
            ApprovalDenied, ApprovalExpired, ApprovalTimeout, ApprovalPaused: the request is not repeated.
        """
        handle: str | None = None
        until: float | None = None
        for _ in range(_MOST_REPEATS):
            hold = _hold_of((yield Repeat(handle)), url)
            if hold is None:
                return
            if until is None:
                until = self._clock() + self._timeout
            handle = hold.handle
            if hold.state != "approved":
                if self._pause:
                    raise _paused(hold, token(handle))
                yield from self._wait(hold, until, token)

    def _wait(self, hold: Hold, until: float, token: Callable[[str], str]) -> Steps:
        pause = hold.retry_after
        while True:
            left = until - self._clock()
            if left <= 0:
                raise _timed_out(hold, self._timeout, token(hold.handle))
            yield Pause(min(pause, left), hold)
            answer = yield Ask(hold.status_url)
            state = _state_of(answer)
            if state == "approved":
                return
            if state == "denied":
                text = "the action was denied, and did not run; the same request is denied for as long as that stands"
                raise ApprovalDenied(text, action_id=hold.action_id, code="DENIED")
            if state in _FINAL:
                raise ApprovalExpired(_FINAL[state], action_id=hold.action_id, code=f"APPROVAL_{state.upper()}")
            # Anything else, an answer that cannot be read among it, is no decision.
            pause = _retry_after(answer, pause)


def next_step(steps: Steps, answer: Answer | None) -> Repeat | Ask | Pause | None:
    """Return what is to be done next, or None where nothing is."""
    try:
        return steps.send(answer)
    except StopIteration:
        return None


def is_problem(status: int, headers: Mapping[str, str]) -> bool:
    """Say whether a response may tell of an action on hold; the body of any other one is the caller's to read."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return status in (202, 403) and kind == "application/problem+json"


def _hold_of(answer: Answer | None, url: str) -> Hold | None:
    """Return what a response says about an action on hold, or None for any other response."""
    if answer is None or not is_problem(answer.status, answer.headers):
        return None
    problem = _json(answer)
    approval = problem.get("approval")
    if problem.get("type") != _PROBLEM or not isinstance(approval, dict):
        return None  # too large to be resumed, for one
    handle, status_url = approval.get("handle"), approval.get("status_url")
    if (
        not isinstance(handle, str)
        or not isinstance(status_url, str)
        or not handle.isascii()
        or not handle.isprintable()
    ):
        return None
    status_url = urljoin(url, status_url)
    if urlsplit(status_url)[:2] != urlsplit(url)[:2]:
        # The request's credentials go along: to nobody but the service that they are for.
        raise ApprovalError(f"the service names a status URL at another origin: {urlsplit(status_url).netloc}")
    expires_in = approval.get("expires_in")
    return Hold(
        handle=handle,
        state=str(approval.get("state")),
        status_url=status_url,
        expires_in=expires_in if isinstance(expires_in, int | float) else 0,
        retry_after=_retry_after(answer, _PAUSE),
        action_id=problem["action_id"] if isinstance(problem.get("action_id"), str) else None,
        detail=str(problem.get("detail", "")),
    )


def _state_of(answer: Answer | None) -> str:
    if answer is None or answer.status not in (200, 404):
        return ""
    return str(_json(answer).get("state", ""))


def _json(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after(answer: Answer | None, default: float) -> float:
    told = "" if answer is None else answer.headers.get("retry-after", "")
    return max(float(told), 0.0) if told.isascii() and told.isdigit() else default


def _timed_out(hold: Hold, timeout: float, token: str) -> ApprovalTimeout:
    error = ApprovalTimeout(
        f"nobody has decided within {timeout:g} s; the action is still on hold: resume() with the error's token goes "
        "on waiting, now or later",
        action_id=hold.action_id,
        code="APPROVAL_TIMEOUT",
    )
    error.token = token
    return error


def _paused(hold: Hold, token: str) -> ApprovalPaused:
    text = "a person has to approve the action; resume() with the error's token goes on, also in another process"
    error = ApprovalPaused(text, action_id=hold.action_id, code="APPROVAL_REQUIRED")
    error.token, error.hold = token, hold
    return error
