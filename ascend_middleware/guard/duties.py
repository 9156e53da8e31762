"""What a guard owes besides a decision: to obey the kill switch, to hold agents to their rate, to journal what runs."""

from __future__ import annotations

import functools
import hashlib
import time
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import AscendError
from ..flow import Blocking, ClientGone, Sleep, Watch, drive
from ..killswitch.poller import CommandPoller
from ..killswitch.switch import KillSwitch, unavailable_state
from ..masking import get_logger
from ..state.base import StateError
from ..verdict import Refusal
from .approvals import MOST_GIVEN_BACK, Approvals

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..rules import CompiledRule
    from ..state.base import State
    from ..verdict import Verdict
    from .approvals import Settled

__all__ = ["Duties"]

logger = get_logger("ascend_middleware.guard")

_SEEN_AGAIN: Final = 3600.0
_MAX_SEEN: Final = 10_000
# How often a request looks whether another one has read the kill state meanwhile.
_WAIT_SECONDS: Final = 0.01
# After a failed attempt to confirm a stale kill state, others block without an attempt of their own for so long.
_FAILED_SECONDS: Final = 1.0


class Duties:
    """The shared state, the journal and the kill switch of one guard.

    Args:
        settings: checked settings.
        core: the client's flows.
        state: what workers share.
        journal: where what runs is kept; None where it is switched off.
        clock: monotonic seconds, the same as the core's.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        core: ClientCore,
        state: State,
        journal: Journal | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.state: Final = state
        self.journal: Final = journal
        self.kill: Final = KillSwitch(
            state, kill_file=settings.kill_file, max_staleness=settings.max_staleness, clock=clock, now=now
        )
        self.approvals: Final = Approvals(state, journal, core, settings, self.kill, blocked=self.blocked, now=now)
        self.receiver: Final = CommandPoller(core, state, self.kill, settings, now=now)
        text = "\n".join([settings.api_url, settings.organization_id, settings.api_key])
        self.tenant: Final = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._settings = settings
        self._clock = clock
        self.now: Final = now
        # Set where there is a background worker: whether it runs in this process.
        self.worker_runs: Callable[[], bool] = _nobody
        self._seen: dict[str, float] = {settings.agent_id: float("inf")}
        self._confirming_until = -1e9
        self._failed_at = -1e9
        # Of single other agents: until when somebody asks for their commands, and when that failed.
        self._asking: dict[str, float] = {}
        self._unheard: dict[str, float] = {}

    # --- before

    def obey(self, agent_id: str, *, deadline: float) -> Flow[Refusal | None]:
        """Return why an agent may not act now: it is blocked, the kill state is unknown or too old, or it is too fast.

        Raises:
            ClientGone: the client left meanwhile.
        """
        refusal = yield from self.blocked(agent_id)
        if refusal is not None:
            return refusal
        if self.kill.is_stale:
            refusal = yield from self._confirmed(agent_id, deadline)
            if refusal is not None:
                return refusal
        if self.receiver.is_silent_about(agent_id):
            refusal = yield from self._heard_of(agent_id, deadline)
            if refusal is not None:
                return refusal
        limit = self.kill.limit(agent_id)
        return None if limit is None else (yield from self._take(agent_id, limit))

    def blocked(self, agent_id: str) -> Flow[Refusal | None]:
        """Return why an agent is blocked, by what the workers share; read again if that is older than 250 ms."""
        while not self.kill.is_fresh:
            turn = self.kill.turn()
            if turn == "wait":
                yield Sleep(_WAIT_SECONDS)
                continue
            try:
                if turn == "fail":
                    raise StateError("the kill state could not be read")
                yield Blocking(self.kill.refresh, inline=not self.state.blocks)
            except StateError:
                return self.kill.refusal(agent_id) or unavailable_state()
            break
        return self.kill.refusal(agent_id)

    def _confirmed(self, agent_id: str, deadline: float) -> Flow[Refusal | None]:
        """Have a stale kill state confirmed by the authority, once for all who wait for it; refuse if that fails."""
        while self._clock() < self._confirming_until:
            if (yield Watch(0.05)):
                raise ClientGone
        if self.kill.is_stale and self._clock() - self._failed_at >= _FAILED_SECONDS:
            yield from self._confirm(deadline)
        return self.kill.stale_refusal if self.kill.is_stale else self.kill.refusal(agent_id)

    def _confirm(self, deadline: float) -> Flow[None]:
        self._confirming_until = deadline
        try:
            yield from self.receiver.poll(deadline=deadline)
            yield Blocking(self.kill.refresh, inline=not self.state.blocks)
        except AscendError as error:
            self._failed_at = self._clock()
            logger.error("the kill state is stale and cannot be confirmed: %s", error)
        finally:
            self._confirming_until = -1e9

    def _heard_of(self, agent_id: str, deadline: float) -> Flow[Refusal | None]:
        """Have one agent's own commands asked for, once for all who wait for it; refuse if that fails."""
        while self._clock() < self._asking.get(agent_id, -1e9):
            if (yield Watch(0.05)):
                raise ClientGone
        tried_at = self._unheard.get(agent_id, -1e9)
        if self.receiver.is_silent_about(agent_id) and self._clock() - tried_at >= _FAILED_SECONDS:
            self._asking[agent_id] = deadline
            try:
                yield from self.receiver.ask_for(agent_id, deadline=deadline)
                yield Blocking(self.kill.refresh, inline=not self.state.blocks)
            except AscendError as error:
                if len(self._unheard) >= _MAX_SEEN:
                    self._unheard.clear()
                self._unheard[agent_id] = self._clock()
                logger.error("the kill state of agent %r is stale and cannot be confirmed: %s", agent_id[:80], error)
            finally:
                self._asking.pop(agent_id, None)
        if self.receiver.is_silent_about(agent_id):
            return self.kill.stale_refusal
        return self.kill.refusal(agent_id)

    def see(self, agent_id: str) -> Flow[None]:
        """Keep that an agent acts here, so that its commands are asked for.

        Only one that the authority let act, or holds: names that a caller made up must not crowd out the others.
        """
        if self._clock() - self._seen.get(agent_id, -1e9) <= _SEEN_AGAIN:
            return
        if len(self._seen) > _MAX_SEEN:
            self._seen.clear()
        self._seen[agent_id] = self._clock()
        try:
            yield self._blocking(self.state.see, agent_id, now=self.now())
        except StateError as error:
            logger.warning("an agent's activity cannot be kept: %s", error)

    def _take(self, agent_id: str, limit: int) -> Flow[Refusal | None]:
        try:
            wait = yield self._blocking(self.state.take, f"agent {agent_id}", limit=limit, now=self.now())
        except StateError:
            return unavailable_state()
        if wait is None:
            return None
        detail = f"The agent is held to {limit} requests a minute."
        return Refusal(problem="agent-rate-limit", detail=detail, retry_after=max(wait, 0.001))

    # --- what runs

    def enter(self, verdict: Verdict, settled: Settled, rule: CompiledRule) -> Flow[None]:
        """Journal a pass before its handler runs.

        Raises:
            JournalError: it cannot be journalled; a claim for it is given back.
        """
        journal = self.journal
        opened = verdict.outcome == "open"
        if journal is None or not (opened or self._settings.report_outcomes):
            return
        action, number = verdict.action, settled.number or journal.next_number()
        entry: dict[str, Any]
        if settled.entry is not None:
            entry = settled.entry
        elif opened and action is not None:
            entry = {"id": "", "how": "open", "rule": rule.label, "agent": action.agent_id, "action": action.to_dict()}
        else:
            agent = "" if action is None else action.agent_id
            entry = {"id": verdict.action_id or "", "how": "allowed", "rule": rule.label, "agent": agent}
        try:
            if not journal.enter(number, entry, wait=False):
                yield Blocking(
                    journal.enter, (number, entry), abandon=functools.partial(self._abandon, verdict, number)
                )
        except AscendError as error:
            yield from self.conclude(verdict, error=f"the handler did not run: {error}", unused=True)
            raise
        verdict.entry = number

    def _abandon(self, verdict: Verdict, number: int, entered: bool) -> None:
        """Conclude an entry whose request was cancelled while it was written: the handler never ran."""
        verdict.entry = number
        flow = self.conclude(verdict, error="the handler did not run: the client left", unused=True)
        drive(flow, lambda step: step.function(*step.arguments))

    def conclude(
        self, verdict: Verdict, *, error: str | None, duration_ms: int = 0, unused: bool = False
    ) -> Flow[None]:
        """Journal what became of a run, once.

        Args:
            verdict: what let it pass.
            error: what went wrong, or None.
            duration_ms: how long it took.
            unused: whether the action did not happen, so that an approval for it is given back.
        """
        number, verdict.entry = verdict.entry, 0
        handle, verdict.approval = verdict.approval, None
        returned = 0
        if handle is not None:
            # Before the journal tells of it: an end of the process between the two gives back what did not happen.
            outcome = "completed" if error is None else "failed"
            try:
                if unused:
                    returned = yield self.approvals.give_back(handle, verdict.claim)
                if not returned:
                    yield self.approvals.settle(handle, outcome=outcome)
            except StateError as failure:
                logger.error(
                    "the outcome of an approved run cannot be kept, later users learn nothing of it: %s", failure
                )
        if returned:
            self.kill.expire()  # its snapshot lists what is on hold
            error = f"{error}; the approval was given back ({returned} of {MOST_GIVEN_BACK})"
            logger.warning("action %s: %s", verdict.action_id, error)
        if number and self.journal is not None:
            write = functools.partial(
                self.journal.conclude, number, error=error, duration_ms=duration_ms, given_back=returned
            )
            if not write(wait=False):
                yield Blocking(write)

    def _blocking(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Blocking:
        return Blocking(functools.partial(function, **named), arguments, inline=not self.state.blocks)


def _nobody() -> bool:
    return False
