"""The quick way: what most requests come to, told without a view of the request, a case or a flow.

It may only say "nothing here is out of the ordinary": everything else is left to `Guard.triage` and to the flow, which
would come to the same about these requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..verdict import PermittedVerdict
from .plan import Asked, Plan

if TYPE_CHECKING:
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..killswitch.switch import KillSwitch
    from ..routing import Known, Resolved
    from ..verdict import Verdict
    from .cache import Reuse
    from .log import Recorder
    from .plan import Plans
    from .request import Agent, Came
    from .runs import Runs

__all__ = ["QuickWay"]

_copy: Final = msgspec.structs.replace


class _Told(msgspec.Struct, frozen=True, eq=False):
    """What is said of all requests of one path and method: the plan, and the action with its bytes if one is asked."""

    guard: QuickWay
    plan: Plan
    action: Any = None
    content: bytes = b""


class QuickWay:
    """What a `Guard` can tell of ordinary requests; the guard says with what."""

    settings: Settings
    core: ClientCore
    kill: KillSwitch
    recorder: Recorder
    reuse: Reuse
    runs: Runs
    _agent: Agent
    _asks_at_once: bool
    _misconfigured_at: float
    _own_paths: tuple[str, ...]
    _plans: Plans

    def at_once(self, resolved: Resolved, method: str) -> Verdict | Asked | None:
        """Return what becomes of an ordinary request, or what is to be asked about it; None where `triage` must tell.

        It is what `triage` comes to where nothing of the request counts but what the router found: a verdict where a
        rule exempts it and nobody wants to hear of that, else the question, where nobody who might be blocked, on hold
        or unknown is to be looked for. No view is built, and no case.
        """
        known = resolved.known
        told = None if known is None else known.told
        if told is None or told.guard is not self:
            told = self._tell(resolved, method)
            if told is None:
                return None
        plan = told.plan
        if plan.settled is not None:
            return plan.settled if self.recorder.is_silent else None
        if not (self._asks_at_once and self.kill.is_idle):
            return None
        attempt = self.core.begin_submit(told.content, self._agent.id, seconds=self.settings.deadline)
        # What an application writes into an action is its own.
        return None if attempt is None else Asked(plan, _copy(told.action), attempt)

    def _tell(self, resolved: Resolved, method: str) -> _Told | None:
        """Find out what the path and the method say, and keep it where they come again."""
        if resolved.path.startswith(self._own_paths):
            return None
        key = resolved.leaf, method
        exempt = self._plans.exempt.get(key)
        if exempt is not None:
            told = _Told(self, exempt)
        elif key in self._plans.plain:
            agent, (plan, resource) = self._agent, self._plans.plain[key]
            # What makes and encodes it is there in what is plain.
            action = plan.make_of_path(resolved.params, resource, agent.id, agent.name or agent.id)  # type: ignore[misc]
            content = None if action is None else plan.encode(action)  # type: ignore[misc]
            if action is None or content is None:
                return None
            told = _Told(self, plan, action, content)
        else:
            return None
        if resolved.known is not None:
            resolved.known.told = told
        return told

    def hear(self, asked: Asked) -> PermittedVerdict | Flow[Verdict] | None:
        """Return the verdict where the answer to the one attempt permits, or the last look at the kill switch.

        None where only a flow can tell what becomes of it: see `go_on`.
        """
        permission = self.core.permitted(asked.attempt)
        if permission is None:
            return None
        plan = asked.plan
        if asked.case is not None and asked.case.ticket is not None:
            self.reuse.keep(asked.case, permission.decision)
        run = self.runs.enter_at_once(permission.action_id, plan.entry)
        if run is self.runs.waits:
            return None
        self._misconfigured_at = -1e9
        verdict = PermittedVerdict(
            outcome="allowed", passes=True, rule=plan.rule, action=asked.action, permission=permission, run=run
        )
        return verdict if self.kill.is_quiet else self._look_last(verdict)

    def recall(self, known: Known, came: Came) -> Verdict | Flow[Verdict] | None:
        """Return the verdict on an ordinary request that came before, by the decision that is kept for it.

        Or the last look at the kill switch; None where only `triage` can say what becomes of it.
        """
        found = self.reuse.recall(known, came)
        if found is None or not (self.recorder.is_idle and self.kill.is_idle):
            return None
        kept, rule, entry = found
        run = self.runs.enter_at_once(kept.known.action_id, entry)
        if run is self.runs.waits:
            return None
        verdict = kept.verdict(rule, run)
        if not self.kill.is_quiet:
            return self._look_last(verdict)
        self.recorder.reused["cached"] += 1
        return verdict

    def _look_last(self, verdict: Verdict) -> Flow[Verdict]:
        raise NotImplementedError
