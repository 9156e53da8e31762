"""Stop asking for a while when calls keep failing, then let exactly one probe through.

What counts is the logical call, not its attempts: a failure to connect, a deadline or a 5xx. An answer such as 401,
404 or 429 is neither: it must not open the breaker, and it does not close a half-open one. An open breaker knows why:
only where none of the calls that opened it was answered in any way may an open rule pass by it, else whoever can make
the authority fail could have all rules opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ..exceptions import CircuitBreakerOpen
from ..fork import ProcessLock, process_id

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CircuitBreaker", "Token"]

_CLOSED, _OPEN, _HALF_OPEN = "closed", "open", "half-open"


class Token(msgspec.Struct, gc=False):
    """The permission to make one call. Report the result once, and it is `spent`; `release` counts for nothing."""

    _breaker: CircuitBreaker
    _epoch: int
    spent: bool = False

    def succeed(self) -> None:
        """Report that the authority answered as it should."""
        if not self.spent:
            self.spent = True
            breaker = self._breaker
            # While nothing has failed it is closed, and there is nothing to change.
            if breaker._failures:
                breaker._settle(self._epoch, True)

    def fail(self, *, unanswered: bool = False) -> None:
        """Report that the authority failed, or, `unanswered`, that it could not be reached or kept silent."""
        if not self.spent:
            self.spent = True
            self._breaker._settle(self._epoch, False, unanswered=unanswered)

    def release(self) -> None:
        """Give the permission back; after `succeed` or `fail` this does nothing."""
        if not self.spent:
            self.spent = True
            self._breaker._settle(self._epoch, None)


class CircuitBreaker:
    """Count consecutive failed calls; safe under threads: whatever changes it takes the lock, and none waits in it.

    Args:
        threshold: so many failed calls in a row open it.
        timeout: seconds until an open breaker lets a probe through.
        clock: a monotonic clock.
        enabled: False makes every call pass.
    """

    def __init__(self, *, threshold: int, timeout: float, clock: Callable[[], float], enabled: bool = True) -> None:
        self._threshold: Final = threshold
        self._timeout: Final = timeout
        self._clock: Final = clock
        self._enabled: Final = enabled
        self._lock: Final = ProcessLock()
        self._failures = 0
        self._unanswered = True
        self._opened_at = 0.0
        self._state = _CLOSED
        # Which process makes the probe, 0 for none: a forked child hears nothing of its parent's.
        self._prober = 0
        # Results of calls that began before the last change of state say nothing about now.
        self._epoch = 0

    @property
    def state(self) -> str:
        """One of `closed`, `open`, `half-open`."""
        with self._lock.own():
            if self._state == _OPEN and self._clock() - self._opened_at >= self._timeout:
                return _HALF_OPEN
            return self._state

    @property
    def failures(self) -> int:
        """Failed calls in a row."""
        return self._failures

    def acquire_closed(self) -> Token | None:
        """Return the permission to make one call while every call passes; else None."""
        # Without the lock: the state is read after the epoch, so a result that comes too late is known by its epoch.
        token = Token(self, self._epoch)
        return token if self._state == _CLOSED else None

    def acquire(self) -> Token:
        """Ask for permission to make one call.

        Raises:
            CircuitBreakerOpen: calls keep failing, or another call is the probe.
        """
        token = self.acquire_closed()
        if token is not None:
            return token
        with self._lock.own():
            if self._state == _CLOSED:
                return Token(self, self._epoch)
            left = self._opened_at + self._timeout - self._clock()
            if self._state == _OPEN and left <= 0:
                self._change(_HALF_OPEN)
            if self._state == _HALF_OPEN and self._prober != process_id():
                self._epoch += self._prober != 0
                self._prober = process_id()
                return Token(self, self._epoch)
            probing = self._state == _HALF_OPEN
            failures, unanswered = self._failures, self._unanswered
        wait = 1.0 if probing else left
        raise CircuitBreakerOpen(
            f"not sent: the last {failures} calls to the authority failed; "
            + ("a probe is under way" if probing else f"the next is tried in {wait:.1f} s"),
            retry_after=wait,
            unanswered=unanswered,
        )

    def _settle(self, epoch: int, success: bool | None, *, unanswered: bool = False) -> None:
        with self._lock.own():
            if not self._enabled or epoch != self._epoch:
                return
            if self._state == _HALF_OPEN:
                if self._prober != process_id():
                    return
                self._prober = 0
                if success is not None:
                    self._unanswered = unanswered
                    self._change(_CLOSED if success else _OPEN)
            elif success:
                self._failures, self._unanswered = 0, True
            elif success is False:
                self._failures += 1
                self._unanswered = self._unanswered and unanswered
                if self._failures >= self._threshold:
                    self._change(_OPEN)

    def _change(self, state: str) -> None:
        self._state = state
        self._epoch += 1
        if state == _CLOSED:
            self._failures, self._unanswered = 0, True
        elif state == _OPEN:
            self._opened_at = self._clock()
