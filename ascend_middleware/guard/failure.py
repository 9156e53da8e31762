"""Which failures refuse, which may pass an open rule, and how often."""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Final

from ..api.decode import KILL_CODES
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    CircuitBreakerOpen,
    ConfigurationError,
    KillSwitchError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TimeoutError,  # noqa: A004 - the documented name
    ValidationError,
)
from ..flow import Blocking
from ..verdict import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..flow import Flow
    from ..state.base import State

__all__ = ["OpenBudget", "cause_of", "refusal_for"]

UNAVAILABLE_RETRY = 5.0


def refusal_for(error: AscendError) -> Refusal:
    """Return the refusal for a failed call; `error.unanswered` says whether an open rule passes all the same."""
    if isinstance(error, KillSwitchError) or error.code in KILL_CODES:
        return Refusal(problem="kill-switch", detail="The agent is blocked until the block is lifted.")
    if isinstance(error, AuthorizationDeniedError):
        return Refusal(problem="denied", detail=f"The authority refused: {error.message}")
    if isinstance(error, ValidationError):
        return _unacceptable(error)
    if isinstance(error, OverloadedError):
        return Refusal(
            problem="overloaded", detail="This service has too much to decide.", retry_after=error.retry_after or 1.0
        )
    if isinstance(error, CircuitBreakerOpen):
        return _unavailable("The authority failed recently; asking again shortly.", error.retry_after)
    if isinstance(error, TimeoutError):
        return _unavailable("The authority did not answer in time.", None)
    if isinstance(error, NetworkError) and not isinstance(error, ConfigurationError):
        return _unavailable("The authority could not be reached.", None)
    if isinstance(error, RateLimitError):
        return _unavailable("The authority takes no more requests for now.", error.retry_after)
    if isinstance(error, ServerError | ProtocolError) and not _is_ours(error):
        return _unavailable("The authority's answer could not be used.", None)
    return Refusal(problem="misconfigured", detail="This service cannot ask for decisions as it is set up.")


def _is_ours(error: AscendError) -> bool:
    """Say whether a status without an error of its own is about the way this service asks, such as 405 or 415."""
    return 400 <= (error.status_code or 0) < 500 and error.status_code not in _BUSY


_BUSY: Final = frozenset({408, 421, 425})


def _unacceptable(error: ValidationError) -> Refusal:
    """Return the refusal for content that the authority, or the check before it is asked, does not take."""
    extra = {"field": error.field} if error.field else {}
    if error.status_code == 413:
        return Refusal(problem="body-too-large", detail=f"The request holds too much: {error.message}", extra=extra)
    status = 422 if error.status_code == 422 else None
    detail = f"The request holds a value that is not taken: {error.message}"
    return Refusal(problem="bad-request", detail=detail, extra=extra, status=status)


def cause_of(error: AscendError) -> str:
    """Return in one word why there is no decision; an open rule passes by the first three only.

    `connect-error`, `deadline` and `breaker-open` mean that no answer came at all. `broken-off`,
    `deadline-after-failures` and `breaker-open-after-answers` mean that the authority was reached, but gave no whole
    answer, or none that could be used; `overloaded` and `misconfigured`, that the fault is this service's.
    """
    if isinstance(error, KillSwitchError) or error.code in KILL_CODES:
        return "killed"
    if isinstance(error, NetworkError) and not isinstance(error, ConfigurationError):
        return "connect-error" if error.unanswered else "broken-off"
    if isinstance(error, OverloadedError):
        return "overloaded"
    if isinstance(error, TimeoutError):
        return "deadline" if error.unanswered else "deadline-after-failures"
    if isinstance(error, CircuitBreakerOpen):
        return "breaker-open" if error.unanswered else "breaker-open-after-answers"
    for kind, word in _CAUSES:
        if isinstance(error, kind) and not (kind is ProtocolError and _is_ours(error)):
            return word
    return "misconfigured"


_CAUSES: Final[tuple[tuple[type[AscendError], str], ...]] = (
    (RateLimitError, "rate-limit"),
    (ServerError, "server-error"),
    (ProtocolError, "unreadable"),
    (AuthorizationDeniedError, "denied"),
    (ValidationError, "bad-request"),
)


def _unavailable(detail: str, retry_after: float | None) -> Refusal:
    return Refusal(problem="unavailable", detail=detail, retry_after=retry_after or UNAVAILABLE_RETRY)


class OpenBudget:
    """How many requests the open rules of a service may still pass without a decision, counted where workers share.

    Args:
        per_minute: at most so many in any 60 seconds, by all workers that share the state.
        state: where they are counted; while it cannot be used, nothing passes.
        name: the service's agent, whose budget it is.
        clock: monotonic seconds.
        now: seconds since the epoch.

    Attributes:
        total: how many this process has passed.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        state: State,
        name: str,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._per_minute = per_minute
        self._state = state
        self._name = f"open {name}"
        self._clock = clock
        self._now = now
        self._passed: deque[float] = deque()
        self.total = 0

    @property
    def spent(self) -> int:
        """How many this process passed in the last minute."""
        since = self._clock() - 60.0
        return sum(at > since for at in tuple(self._passed))

    def take(self) -> Flow[bool]:
        """Use one pass; False when the budget is spent.

        Raises:
            StateError: it cannot be counted, so it must not pass.
        """
        if not self._per_minute:
            return False
        count = functools.partial(self._state.take, self._name, limit=self._per_minute, now=self._now())
        if (yield Blocking(count, inline=not self._state.blocks)) is not None:
            return False
        now = self._clock()
        while self._passed and now - self._passed[0] >= 60.0:
            self._passed.popleft()
        self._passed.append(now)
        self.total += 1
        return True
