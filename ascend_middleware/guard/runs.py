"""What is let pass: claimed and journalled before its handler runs, concluded after it, counted if a rule is open."""

from __future__ import annotations

import functools
import logging
import secrets
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..exceptions import AscendError
from ..flow import Blocking, drive
from ..journal.journal import Entry
from ..masking import get_logger
from ..state.base import StateError, step
from ..verdict import Run
from .approvals import Settled, denied, mismatch, used

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import AgentAction
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..journal.lines import Begun
    from ..killswitch.switch import KillSwitch
    from ..state.base import Approval, State
    from .log import Repeats

__all__ = ["OpenBudget", "Runs"]

logger = get_logger("ascend_middleware.guard")

# How often an approval is given back; a handler that fails in the same way again and again is not run for ever.
_MOST_GIVEN_BACK: Final = 3
_encode: Final = msgspec.json.Encoder().encode


class Runs:
    """The runs of one guard: what was let pass, until it is known what became of it.

    Without `reports`, outcomes are not reported, and only passes without a decision are journalled.
    """

    def __init__(
        self, journal: Journal | None, state: State, kill: KillSwitch, *, reports: bool, now: Callable[[], float]
    ) -> None:
        self._journal: Final = journal
        self._state: Final = state
        self._kill: Final = kill
        # What hears of each pass, not only of one without a decision.
        self._reported: Final = journal if reports else None
        self._now = now
        self.waits: Final = Run(0, None, "", "")

    def claim(self, settled: Settled) -> Flow[Settled]:
        """Claim an approved row, and keep the journal's entry with the claim; or say that it was used."""
        row, journal = settled.row, self._journal
        assert row is not None  # noqa: S101 - the caller checks
        process, number = "", 0
        if journal is not None:
            # Opened before, so that the lock is there whose release proves this process's death.
            _ = journal.log
            process, number = journal.process, journal.next_number()
        entry = {"id": row.action_id, "how": "approval", "rule": row.rule, "agent": row.agent_id}
        token = secrets.token_hex(8)

        def given_back(claimed: Approval | None) -> None:
            # The client left while the claim was under way: nothing ran.
            ours = claimed is not None and claimed.claimed_by == token
            if ours and not self._state.give_back(row.handle, by=token, most=_MOST_GIVEN_BACK):
                self._state.settle(row.handle, outcome="failed")

        claimed = yield step(
            self._state,
            self._state.claim,
            row.handle,
            abandon=given_back,
            by=token,
            process=process,
            entry=_encode({"n": number, **entry}).decode(),
            now=self._now(),
        )
        if claimed is None:
            return Settled(refusal=mismatch("There is no such approval."))
        if claimed.claimed_by != token:
            refusal = used(claimed) if claimed.claimed_by else denied(claimed.reason or "the approval has expired")
            return Settled(refusal=refusal, row=claimed)
        return Settled(decision=settled.decision, runs=True, row=claimed, number=number, entry=entry)

    def enter_at_once(self, action_id: str, begun: Begun) -> Run | None:
        """Journal a permission as `enter` does, if that waits for nothing; return `waits` where only `enter` can."""
        journal = self._reported
        if journal is None:
            return None
        try:
            number = journal.enter_allowed(action_id, begun)
        except AscendError:
            return self.waits
        return Run(number, None, "", action_id) if number else self.waits

    def enter(self, action: AgentAction, label: str, settled: Settled | None) -> Flow[Run | None]:
        """Journal a pass before its handler runs; None where nobody wants to hear of the outcome.

        An open rule lets it pass with `settled` None. What cannot be journalled raises, and its claim is given back.
        """
        journal, row = self._journal, None if settled is None else settled.row
        approval, claim = (None, "") if row is None else (row.handle, row.claimed_by)
        if journal is None or (settled is not None and self._reported is None):
            return None if row is None else Run(0, approval, claim, row.action_id)
        entry: Entry | dict[str, Any]
        action_id = ""
        if settled is None:
            entry = {"id": "", "how": "open", "rule": label, "agent": action.agent_id, "action": action.to_dict()}
        elif settled.entry is not None:
            entry, action_id = settled.entry, settled.entry["id"]
        else:
            action_id = "" if settled.decision is None else settled.decision.action_id
            entry = Entry(0, 0.0, action_id, settled.reuse or "allowed", label, action.agent_id)
        number = (settled.number if settled is not None else 0) or journal.next_number()
        run = Run(number, approval, claim, action_id)
        try:
            if not journal.enter(number, entry, wait=False):
                yield Blocking(journal.enter, (number, entry), abandon=lambda _: self._abandon(run))
        except AscendError as error:
            unentered = Run(0, approval, claim, action_id)
            yield from self._rest(unentered, error=f"the handler did not run: {error}", unused=True)
            raise
        return run

    def give_up(self, run: Run | None) -> None:
        """Conclude the entry of a request that is cancelled before its handler runs; waits for no shared state."""
        if run is None:
            return
        if run.approval is not None and self._state.blocks:
            threading.Thread(target=self._abandon, args=(run,), name="ascend-give-up", daemon=True).start()
        else:
            self._abandon(run)

    def _abandon(self, run: Run) -> None:
        flow = self.conclude(run, error="the handler did not run: the client left", unused=True)
        if flow is not None:
            drive(flow, lambda step: step.function(*step.arguments))

    def conclude(
        self, run: Run | None, error: str | None, duration_ms: int = 0, unused: bool = False
    ) -> Flow[None] | None:
        """Journal what became of a run, once; return what is left to do where that may wait for something.

        What is `unused` did not happen, so that an approval for it is given back.
        """
        if run is None or run.concluded:
            return None
        run.concluded = True
        journal = self._journal
        if run.approval is None and (
            journal is None
            or (error is None and journal.complete(run.number, duration_ms))
            or journal.conclude(run.number, error, duration_ms, wait=False)
        ):
            return None
        return self._rest(run, error=error, duration_ms=duration_ms, unused=unused)

    def _rest(self, run: Run, *, error: str | None, unused: bool, duration_ms: int = 0) -> Flow[None]:
        returned = 0
        if run.approval is not None:
            # Before the journal tells of it: an end of the process between the two gives back what did not happen.
            outcome = "completed" if error is None else "failed"
            try:
                if unused:
                    returned = yield step(
                        self._state, self._state.give_back, run.approval, by=run.claim, most=_MOST_GIVEN_BACK
                    )
                if not returned:
                    yield step(self._state, self._state.settle, run.approval, outcome=outcome)
            except StateError as failure:
                logger.error(
                    "the outcome of an approved run cannot be kept, later users learn nothing of it: %s", failure
                )
        if returned:
            self._kill.expire()  # its snapshot lists what is on hold
            error = f"{error}; the approval was given back ({returned} of {_MOST_GIVEN_BACK})"
            logger.warning("action %s: %s", run.action_id, error)
        if run.number and self._journal is not None:
            write = functools.partial(
                self._journal.conclude, run.number, error=error, duration_ms=duration_ms, given_back=returned
            )
            if not write(wait=False):
                yield Blocking(write)


class OpenBudget:
    """How many requests the open rules of a service may still pass without a decision in any 60 seconds.

    All workers that share the state count together; while it cannot be used, nothing passes.

    Attributes:
        total: how many this process has passed.
    """

    def __init__(self, core: ClientCore, settings: Settings, state: State, repeats: Repeats) -> None:
        self._per_minute = settings.open_per_minute
        self._name = f"open {settings.agent_id}"
        self._state = state
        self._repeats = repeats
        self._clock = core.clock
        self._now = core.now
        self._passed: deque[float] = deque()
        self.total = 0

    @property
    def spent(self) -> int:
        """How many this process passed in the last minute."""
        since = self._clock() - 60.0
        return sum(at > since for at in tuple(self._passed))

    def take(self) -> Flow[bool]:
        """Use one pass; False, and an error in the log, when the budget is spent or cannot be counted."""
        text = "the open_per_minute budget of %d is spent; refusing"
        why: object = self._per_minute
        try:
            if self._per_minute:
                count = step(self._state, self._state.take, self._name, limit=self._per_minute, now=self._now())
                if (yield count) is None:
                    now = self._clock()
                    while self._passed and now - self._passed[0] >= 60.0:
                        self._passed.popleft()
                    self._passed.append(now)
                    self.total += 1
                    return True
        except StateError as unusable:
            text, why = "the open_per_minute budget cannot be counted, the state cannot be used; refusing: %s", unusable
        self._repeats.say("budget", logging.ERROR, text, why)
        return False
