"""Journal what is let pass before its handler runs, and afterwards what became of it; give back what was not used."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import AscendError
from ..flow import Blocking, drive
from ..masking import get_logger
from ..state.base import StateError
from ..verdict import Run
from .approvals import MOST_GIVEN_BACK

if TYPE_CHECKING:
    from ..api.models import AgentAction
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..killswitch.switch import KillSwitch
    from .approvals import Approvals, Settled

__all__ = ["Runs"]

logger = get_logger("ascend_middleware.guard")


class Runs:
    """The runs of one guard: what was let pass, until it is known what became of it.

    Args:
        journal: where runs are kept; None where that is switched off.
        approvals: whose claims a run may be under.
        kill: its snapshot lists what is on hold.
        reports: whether outcomes are reported; without, only passes without a decision are journalled.
    """

    def __init__(self, journal: Journal | None, approvals: Approvals, kill: KillSwitch, *, reports: bool) -> None:
        self._journal: Final = journal
        self._approvals: Final = approvals
        self._kill: Final = kill
        self._reports: Final = reports

    def enter(self, action: AgentAction, label: str, settled: Settled | None) -> Flow[Run | None]:
        """Journal a pass before its handler runs.

        Args:
            action: what was submitted, or could not be.
            label: how the journal calls the rule.
            settled: the decision and the claim that it runs under; None where an open rule lets it pass without one.

        Returns:
            What is to be concluded; None where nobody wants to hear of the outcome.

        Raises:
            JournalError: it cannot be journalled; a claim for it is given back.
        """
        journal, row = self._journal, None if settled is None else settled.row
        approval, claim = (None, "") if row is None else (row.handle, row.claimed_by)
        if journal is None or not (settled is None or self._reports):
            return None if row is None else Run(0, approval, claim, row.action_id)
        entry: dict[str, Any]
        if settled is None:
            entry = {"id": "", "how": "open", "rule": label, "agent": action.agent_id, "action": action.to_dict()}
        elif settled.entry is not None:
            entry = settled.entry
        else:
            action_id = "" if settled.decision is None else settled.decision.action_id
            entry = {"id": action_id, "how": "allowed", "rule": label, "agent": action.agent_id}
        number = (settled.number if settled is not None else 0) or journal.next_number()
        run = Run(number, approval, claim, entry["id"])
        try:
            if not journal.enter(number, entry, wait=False):
                yield Blocking(journal.enter, (number, entry), abandon=functools.partial(self._abandon, run))
        except AscendError as error:
            unentered = Run(0, approval, claim, entry["id"])
            yield from self.conclude(unentered, error=f"the handler did not run: {error}", unused=True)
            raise
        return run

    def _abandon(self, run: Run, entered: bool) -> None:
        """Conclude an entry whose request was cancelled while it was written: the handler never ran."""
        flow = self.conclude(run, error="the handler did not run: the client left", unused=True)
        drive(flow, lambda step: step.function(*step.arguments))

    def conclude(self, run: Run | None, *, error: str | None, duration_ms: int = 0, unused: bool = False) -> Flow[None]:
        """Journal what became of a run, once.

        Args:
            run: as `enter` returned it.
            error: what went wrong, or None.
            duration_ms: how long it took.
            unused: whether the action did not happen, so that an approval for it is given back.
        """
        if run is None or run.concluded:
            return
        run.concluded = True
        returned = 0
        if run.approval is not None:
            # Before the journal tells of it: an end of the process between the two gives back what did not happen.
            outcome = "completed" if error is None else "failed"
            try:
                if unused:
                    returned = yield self._approvals.give_back(run.approval, run.claim)
                if not returned:
                    yield self._approvals.settle(run.approval, outcome=outcome)
            except StateError as failure:
                logger.error(
                    "the outcome of an approved run cannot be kept, later users learn nothing of it: %s", failure
                )
        if returned:
            self._kill.expire()  # its snapshot lists what is on hold
            error = f"{error}; the approval was given back ({returned} of {MOST_GIVEN_BACK})"
            logger.warning("action %s: %s", run.action_id, error)
        if run.number and self._journal is not None:
            write = functools.partial(
                self._journal.conclude, run.number, error=error, duration_ms=duration_ms, given_back=returned
            )
            if not write(wait=False):
                yield Blocking(write)
