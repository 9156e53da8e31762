"""Which failures refuse, which may pass an open rule, and how often."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from ..client.core import never_answered
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    CircuitBreakerOpen,
    KillSwitchError,
    NetworkError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TimeoutError,  # noqa: A004 - the documented name
)
from ..wire import KILL_CODES
from .verdicts import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OpenBudget", "cause_of", "refusal_for"]

UNAVAILABLE_RETRY = 5.0


def refusal_for(error: AscendError) -> tuple[Refusal, bool]:
    """Return the refusal for a failed submit, and whether a rule that fails open may pass the request.

    Open only where the submit never got an answer: no connection, the deadline, the breaker.
    """
    if isinstance(error, KillSwitchError) or error.code in KILL_CODES:
        return Refusal(problem="kill-switch", detail="The agent is blocked until the block is lifted."), False
    if isinstance(error, AuthorizationDeniedError):
        return Refusal(problem="denied", detail=f"The authority refused: {error.message}"), False
    if isinstance(error, CircuitBreakerOpen):
        return _unavailable("The authority failed recently; asking again shortly.", error.retry_after), True
    if isinstance(error, TimeoutError):
        return _unavailable("The authority did not answer in time.", None), never_answered(error)
    if isinstance(error, NetworkError):
        return _unavailable("The authority could not be reached.", None), never_answered(error)
    if isinstance(error, RateLimitError):
        return _unavailable("The authority takes no more requests for now.", error.retry_after), False
    if isinstance(error, ServerError | ProtocolError):
        return _unavailable("The authority's answer could not be used.", None), False
    return Refusal(problem="misconfigured", detail="The authority refuses this service's key or request."), False


def cause_of(error: AscendError) -> str:
    """Return in one word why there is no decision; an open rule passes by the first three only.

    `connect-error`, `deadline` and `breaker-open` mean that no answer came at all. `broken-off` and
    `deadline-after-failures` mean that the authority was reached, but gave no whole answer.
    """
    if isinstance(error, KillSwitchError) or error.code in KILL_CODES:
        return "killed"
    if isinstance(error, NetworkError):
        return "connect-error" if never_answered(error) else "broken-off"
    if isinstance(error, TimeoutError):
        return "deadline" if never_answered(error) else "deadline-after-failures"
    for kind, word in _CAUSES:
        if isinstance(error, kind):
            return word
    return "misconfigured"


_CAUSES: Final[tuple[tuple[type[AscendError], str], ...]] = (
    (CircuitBreakerOpen, "breaker-open"),
    (RateLimitError, "rate-limit"),
    (ServerError, "server-error"),
    (ProtocolError, "unreadable"),
    (AuthorizationDeniedError, "denied"),
)


def _unavailable(detail: str, retry_after: float | None) -> Refusal:
    return Refusal(problem="unavailable", detail=detail, retry_after=retry_after or UNAVAILABLE_RETRY)


class OpenBudget:
    """How many requests an open rule may still pass without a decision in the current minute."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._passed: deque[float] = deque()
        self.total = 0
        self._lock = threading.Lock()

    @property
    def spent(self) -> int:
        """How many were used in the last minute."""
        # Never for long: a fork may have left the lock taken.
        held = self._lock.acquire(timeout=0.1)
        try:
            return self._spent() if held else len(self._passed)
        finally:
            if held:
                self._lock.release()

    def _spent(self) -> int:
        now = self._clock()
        while self._passed and now - self._passed[0] >= 60.0:
            self._passed.popleft()
        return len(self._passed)

    def take(self) -> bool:
        """Use one pass; False when the budget is spent."""
        if not self._lock.acquire(timeout=0.1):
            return False
        try:
            if self._spent() >= self._per_minute:
                return False
            self._passed.append(self._clock())
            self.total += 1
            return True
        finally:
            self._lock.release()
