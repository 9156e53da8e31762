"""The log: one line for each verdict, one warning about an outage, and at the start what an operator has to know."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final

from ..masking import get_logger
from ..routing.coverage import cover, shown
from ..text import printable
from .fingerprint import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Settings
    from ..routing.coverage import Routes
    from ..rules import RuleTable
    from ..verdict import Verdict
    from .observations import Observations
    from .request import RequestView

__all__ = ["REPEAT_SECONDS", "Recorder", "Repeats", "announce", "announce_ways"]

logger = get_logger("ascend_middleware.guard")
# Apart from what is said of requests.
settings_logger = get_logger("ascend_middleware.settings")

REPEAT_SECONDS: Final = 30.0
_MAX_SUBJECTS: Final = 1000
_MOST: Final = 50


class Repeats:
    """Say the same thing once in a while, with the number of times that it was not said."""

    def __init__(self, *, clock: Callable[[], float], seconds: float = REPEAT_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        # When each subject was told, and how often it was not told since.
        self._said: dict[object, tuple[float, int]] = {}

    def say(self, subject: object, level: int, text: str, *arguments: object) -> bool:
        """Log a line, unless one about this subject was logged a moment ago; return whether it was."""
        now = self._clock()
        at, untold = self._said.get(subject, (-math.inf, 0))
        if now - at < self._seconds:
            self._said[subject] = at, untold + 1
            return False
        if len(self._said) >= _MAX_SUBJECTS:
            self._said.clear()
        self._said[subject] = now, 0
        more = f" (and {untold} times more in {now - at:.0f} s)" if untold else ""
        logger.log(level, f"{text}%s", *arguments, more, extra={"ascend_repeats": untold})
        return True


class Recorder:
    """Log, and measure, what becomes of requests.

    Attributes:
        telemetry: where verdicts are counted, too; None where that is switched off.
        observations: where those of observe mode are; None where nothing is observed, or nothing can be kept.
        reused: how many requests were judged by a decision about another one, by how it came to that.
    """

    def __init__(self, *, clock: Callable[[], float], status_path: str) -> None:
        self.repeats: Final = Repeats(clock=clock)
        self.telemetry: Any = None
        self.observations: Observations | None = None
        self.reused: Final = {"cached": 0, "coalesced": 0}
        self._clock = clock
        self._status_path = status_path
        self._undecided = 0
        self._since = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether nobody hears of a verdict that no decision stands behind, and that refuses nothing."""
        return self.telemetry is None and not logger.isEnabledFor(logging.INFO)

    @property
    def is_idle(self) -> bool:
        """Whether nobody hears of a permission, nor waits for one to tell that an outage is over."""
        return self.observations is None and not self._undecided and self.is_silent

    def record(self, view: RequestView, verdict: Verdict, *, seconds: float) -> None:
        """Write the one line that every judged request leaves; its extras are meant for machines."""
        if self.telemetry is not None:
            self.telemetry.record(verdict, seconds=seconds)
        if verdict.reuse is not None:
            self.reused[verdict.reuse] += 1
        if self._undecided and verdict.decision is not None:
            self._resumed()
        elif verdict.cause is not None and verdict.cause != "bad-request":  # what a caller sent is no outage
            self._since = self._since if self._undecided else self._clock()
            self._undecided += 1
        if verdict.would is not None:
            self._observed(view, verdict)
        if self.observations is not None and (verdict.would is not None or verdict.decision is not None):
            self.observations.note(view, verdict)
        if not logger.isEnabledFor(logging.INFO):
            return
        # A handle stands behind the status URL's path.
        template = self._status_path if verdict.outcome == "approval-status" else view.template
        notes = [f"would be {verdict.would}"] if verdict.would else []
        notes += [one for one in (verdict.cause, verdict.reuse) if one]
        extras = extras_of(verdict, seconds)
        logger.info(
            "%s %s: %s (%s, %.1f ms)",
            printable(view.verb[:40]),
            printable(template[:200]),
            ", ".join([verdict.outcome, *notes]),
            verdict.rule.label if verdict.rule is not None else "no rule",
            extras["ascend_duration_ms"],
            extra=extras,
        )

    def close(self) -> None:
        """Write down what was counted of observe mode."""
        if self.observations is not None:
            self.observations.flush()

    def _observed(self, view: RequestView, verdict: Verdict) -> None:
        """Warn of what would have been refused, so that it is seen under a server's default logging, too."""
        rule = verdict.rule.label if verdict.rule is not None else "no rule"
        reason = "" if verdict.decision is None else printable(verdict.decision.reason or "")[:200]
        text = 'mode = "observe": %s %s passes, and would have been refused (%s%s) under %s'
        subject = ("observed", rule, view.template, verdict.would)
        method, path = printable(view.verb[:40]), printable(view.template[:200])
        why = f": {reason}" if reason else ""
        self.repeats.say(subject, logging.WARNING, text, method, path, verdict.would, why, rule)

    def _resumed(self) -> None:
        """Say that an outage is over, and how many requests it cost."""
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
        "ascend_reuse": verdict.reuse,
        "ascend_rule": verdict.rule.label if verdict.rule is not None else None,
        "ascend_action_id": verdict.action_id,
        "ascend_action_type": action.action_type if action is not None else None,
        "ascend_agent": action.agent_id if action is not None else None,
        "ascend_duration_ms": round(seconds * 1000, 3),
    }


def announce_ways(table: RuleTable, settings: Settings, *, identifies: bool) -> None:
    """Log what an operator has to know of the settings: whether anything is refused, and who shares an approval."""
    rules = [rule for rule in table.rules if rule.action_type]
    if not settings.enabled:
        return
    observed = [rule.label for rule in rules if rule.mode == "observe"]
    if settings.mode == "observe":
        settings_logger.warning(
            'mode = "observe": requests are judged and logged, and none is refused unless its agent is blocked'
        )
    elif observed:
        told = f"{', '.join(observed[:_MOST])}{', …' if len(observed) > _MOST else ''}"
        settings_logger.warning('these rules refuse nothing, because of mode = "observe": %s', printable(told))
    reused = [rule.label for rule in rules if rule.reuse]
    if reused:
        told = f"{', '.join(reused[:_MOST])}{', …' if len(reused) > _MOST else ''}"
        settings_logger.info("under these rules one decision may let several requests pass: %s", printable(told))
    if settings.single_caller or identifies:
        return
    waits = settings.pending.waits or any(rule.pending.waits for rule in rules)
    settings_logger.log(
        logging.WARNING if waits else logging.INFO,
        # In brackets: behind a colon, masking would take it for the value of the last header's name.
        "without identify callers are told apart by %s (a request that has none of these shares no approval with "
        "another one); principal_headers names further headers, single_caller = true says that all requests are one "
        "caller's",
        ", ".join((*CREDENTIALS, *settings.principal_headers)),
    )


def announce(routes: Routes, table: RuleTable, settings: Settings) -> None:
    """Log what `ascend-middleware routes` would list as not covered, contradictory, or without use."""
    if not settings.enabled:
        return
    try:
        coverage = cover(routes, table, unmapped=settings.unmapped)
    except Exception:
        # Routes of somebody else's making; the guard decides about each request all the same.
        logger.exception("the routes cannot be listed")
        return
    for problem in coverage.problems:
        logger.error("%s", problem)
    lines = [shown(row) for row in coverage.forgotten]
    if lines:
        more = f", and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
        told = "; ".join(lines[:_MOST])
        what = "would be refused" if settings.mode == "observe" else "are refused"
        logger.warning("no rule covers these routes, so requests for them %s: %s%s", what, printable(told), more)
    if not logger.isEnabledFor(logging.INFO):
        return
    for idle in coverage.idle[:_MOST]:
        logger.info("%s can never match: %s", idle.rule.label, idle.why)
