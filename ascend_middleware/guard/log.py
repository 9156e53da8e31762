"""The log of verdicts: one line for each, and one warning about an outage, not one for each request."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..masking import get_logger
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..verdict import Verdict
    from .request import RequestView

__all__ = ["REPEAT_SECONDS", "Recorder", "Repeats"]

logger = get_logger("ascend_middleware.guard")

REPEAT_SECONDS: Final = 30.0
_MAX_SUBJECTS: Final = 1000


@dataclass(slots=True)
class _Said:
    at: float
    untold: int = 0


class Repeats:
    """Say the same thing once in a while, with the number of times that it was not said.

    Args:
        clock: monotonic seconds.
        seconds: how long the same subject is silent.
    """

    def __init__(self, *, clock: Callable[[], float], seconds: float = REPEAT_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._said: dict[object, _Said] = {}

    def say(self, subject: object, level: int, text: str, *arguments: object) -> bool:
        """Log a line, unless one about this subject was logged a moment ago; return whether it was."""
        now = self._clock()
        known = self._said.get(subject)
        if known is not None and now - known.at < self._seconds:
            known.untold += 1
            return False
        untold = 0 if known is None else known.untold
        if len(self._said) >= _MAX_SUBJECTS:
            self._said.clear()
        self._said[subject] = _Said(now)
        more = f" (and {untold} times more in {now - known.at:.0f} s)" if known is not None and untold else ""
        logger.log(level, f"{text}%s", *arguments, more, extra={"ascend_repeats": untold})
        return True


class Recorder:
    """Log what becomes of requests.

    Args:
        clock: monotonic seconds.
        status_path: the path of the status URL, which stands for its handles.
    """

    def __init__(self, *, clock: Callable[[], float], status_path: str) -> None:
        self.repeats: Final = Repeats(clock=clock)
        self._clock = clock
        self._status_path = status_path
        self._undecided = 0
        self._since = 0.0

    def record(self, view: RequestView, verdict: Verdict, *, seconds: float) -> None:
        """Write the one line that every judged request leaves; its extras are meant for machines."""
        if verdict.decision is not None and self._undecided:
            self._resumed()
        elif verdict.cause not in (None, "bad-request"):  # what a caller sent is no outage
            self._since = self._since if self._undecided else self._clock()
            self._undecided += 1
        template = view.resolved.leaf.template if view.resolved and view.resolved.leaf else view.path
        if verdict.would is not None:
            self._observed(view, template, verdict)
        if not logger.isEnabledFor(logging.INFO):
            return
        if verdict.outcome == "approval-status":
            template = self._status_path  # the rest is a handle
        rule = verdict.rule.label if verdict.rule is not None else None
        notes = [f"would be {verdict.would}"] if verdict.would else []
        notes += [verdict.cause] if verdict.cause else []
        logger.info(
            "%s %s: %s (%s, %.1f ms)",
            printable(view.verb[:40]),
            printable(template[:200]),
            ", ".join([verdict.outcome, *notes]),
            rule or "no rule",
            seconds * 1000,
            extra=extras_of(verdict, seconds),
        )

    def _observed(self, view: RequestView, template: str, verdict: Verdict) -> None:
        """Warn of what would have been refused, so that it is seen under a server's default logging, too."""
        rule = verdict.rule.label if verdict.rule is not None else "no rule"
        reason = "" if verdict.decision is None else printable(verdict.decision.reason or "")[:200]
        text = 'mode = "observe": %s %s passes, and would have been refused (%s%s) under %s'
        subject = ("observed", rule, template, verdict.would)
        method, path = printable(view.verb[:40]), printable(template[:200])
        why = f": {reason}" if reason else ""
        self.repeats.say(subject, logging.WARNING, text, method, path, verdict.would, why, rule)

    def _resumed(self) -> None:
        """Say that an outage is over, and how many requests it cost; of one that comes and goes, once in a while."""
        text = "the authority decides again; %d requests went without a decision in %.0f s"
        seconds = self._clock() - self._since
        if self._undecided == 1 or self.repeats.say("again", logging.WARNING, text, self._undecided, seconds):
            self._undecided = 0


def extras_of(verdict: Verdict, seconds: float) -> dict[str, Any]:
    """Return what a line of the log holds for machines: nothing that a caller sent, nothing secret."""
    action = verdict.action
    return {
        "ascend_outcome": verdict.outcome,
        "ascend_would": verdict.would,
        "ascend_cause": verdict.cause,
        "ascend_rule": verdict.rule.label if verdict.rule is not None else None,
        "ascend_action_id": verdict.action_id,
        "ascend_action_type": action.action_type if action is not None else None,
        "ascend_agent": action.agent_id if action is not None else None,
        "ascend_duration_ms": round(seconds * 1000, 3),
    }
