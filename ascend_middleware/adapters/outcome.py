"""What became of a handler: adapters tell what they see of its response, and it is recorded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import AscendError
from ..guard import Outcome, Refusal, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from logging import Logger, LoggerAdapter

    from ..guard import Guard
    from .runner import AsyncRunner, SyncRunner

__all__ = ["HandledRequest", "WatchedParts", "changed_request", "report_undecided"]


class HandledRequest:
    """One request on its way through an application: what was decided about it, and what becomes of it.

    Args:
        runner: is told the outcome.
        verdict: None until there is one.

    Attributes:
        verdict: likewise; set by the adapter.
        outcome: the adapter tells it what it sees.
        subject: what the decision was about, for the adapter.
        is_reported: whether a success without a decision was reported already.
    """

    __slots__ = ("_concluded", "_runner", "is_reported", "outcome", "subject", "verdict")

    def __init__(self, runner: SyncRunner | AsyncRunner, verdict: Verdict | None = None) -> None:
        self.verdict = verdict
        self.outcome = Outcome()
        self.subject: Any = None
        self.is_reported = False
        self._runner: Any = runner
        self._concluded = False

    @property
    def is_awaited(self) -> bool:
        """Whether the outcome is still to be recorded."""
        return not self._concluded and self.verdict is not None and self.verdict.awaits_outcome

    @property
    def is_undecided(self) -> bool:
        """Whether nobody has decided about it as about something of the application."""
        return self.verdict is None or self.verdict.outcome == "framework"

    def conclude(self) -> None:
        """Record the outcome, unless that was done or nobody awaits it; with a `SyncRunner`."""
        if self.is_awaited:
            self._concluded = True
            self._runner.conclude(self.verdict, self.outcome)

    async def conclude_async(self) -> None:
        """The same with either runner."""
        if self.is_awaited:
            self._concluded = True
            recording = self._runner.conclude(self.verdict, self.outcome)
            if recording is not None:
                await recording


class WatchedParts:
    """A response's parts; sees how they end, at the latest when they are closed.

    Args:
        parts: what is sent, closed with this.
        outcome: is told how they ended.
        conclude: called then; more than once.
    """

    __slots__ = ("_conclude", "_iterator", "_outcome", "_parts")

    def __init__(self, parts: Iterable[bytes], outcome: Outcome, conclude: Callable[[], None]) -> None:
        self._parts = parts
        self._outcome = outcome
        self._conclude = conclude
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._parts)
            return next(self._iterator)
        except BaseException as failure:
            if isinstance(failure, StopIteration):
                self._outcome.ended()
            else:
                self._outcome.raised(failure)
            self._conclude()
            raise

    def close(self) -> None:
        """Close the parts; a server does so last."""
        close = getattr(self._parts, "close", None)
        try:
            if close is not None:
                close()
        finally:
            # Without effect after the last part: a server comes here first only when its client has left.
            self._outcome.left()
            self._conclude()


def changed_request() -> Verdict:
    """Return the refusal of a request that something of the application changed after the decision."""
    detail = "The request was changed after it was decided about."
    return Verdict(outcome="misconfigured", passes=False, refusal=Refusal(problem="misconfigured", detail=detail))


def report_undecided(guard: Guard, logger: Logger | LoggerAdapter[Any], request: str, why: str) -> None:
    """Report that a request succeeded without a decision.

    Args:
        guard: whose application answered.
        logger: of the adapter.
        request: its name in the log.
        why: nobody decided.

    Raises:
        AscendError: the settings are strict.
    """
    logger.error("%s succeeded without a decision: %s", request, why)
    if guard.settings.strict:
        raise AscendError("a success for which no decision was made; see the log")
