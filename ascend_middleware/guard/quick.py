"""The quick way: what most requests come to, told without a view of the request, a case or a flow.

It may only say "nothing here is out of the ordinary": everything else is left to `Guard.triage` and to the flow, which
would come to the same about these requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ..verdict import PermittedVerdict
from .plan import Asked

if TYPE_CHECKING:
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..killswitch.switch import KillSwitch
    from ..routing import Leaf, Resolved
    from ..verdict import Verdict
    from .cache import Reuse
    from .log import Recorder
    from .plan import Plans
    from .request import Agent
    from .runs import Runs

__all__ = ["QuickWay"]

_copy: Final = msgspec.structs.replace


class QuickWay:
    """What a `Guard` can tell of ordinary requests; the guard says with what."""

    settings: Settings
    core: ClientCore
    kill: KillSwitch
    recorder: Recorder
    reuse: Reuse
    runs: Runs
    _agent: Agent
    _asks_who: bool
    _misconfigured_at: float
    _own_paths: tuple[str, ...]
    _plans: Plans

    def exempts(self, leaf: Leaf | None, method: str, path: str) -> Verdict | None:
        """Return the verdict of an ordinary request that a rule exempts, if nobody wants to hear of it; else None.

        It is what `triage` comes to; `path` is the decoded and application-relative one.
        """
        verdict = self._plans.exempt.get((leaf, method))
        if verdict is None or path.startswith(self._own_paths) or not self.recorder.is_silent:
            return None
        return verdict

    def ask(self, resolved: Resolved, method: str) -> Asked | None:
        """Return what is to be asked about an ordinary request; None where only `triage` can say what becomes of it.

        It is what `triage` comes to where nothing of the request counts but what the router found, and nobody who
        might be blocked, on hold or unknown is to be looked for: no view is built, and no case.
        """
        known, key = resolved.known, (resolved.leaf, method)
        told = None if known is None else known.told
        if told is None or told[0] is not self:
            told = None
            if key not in self._plans.plain:
                return None
        if self._asks_who or self.recorder.telemetry is not None or not self.settings.enabled:
            return None
        hints = self.kill.snapshot.hints
        if hints is None or hints or not self.kill.is_quiet:
            return None
        agent = self._agent
        if told is not None:
            # Of a path that came before, nothing is said anew; what an application writes into an action is its own.
            _, plan, kept, content = told
            action = _copy(kept)
        else:
            plan, resource = self._plans.plain[key]
            if resolved.path.startswith(self._own_paths):
                return None
            # What makes and encodes it is there in what is plain.
            action = plan.make_of_path(resolved.params, resource, agent.id, agent.name or agent.id)  # type: ignore[misc]
            content = None if action is None else plan.encode(action)  # type: ignore[misc]
            if action is None or content is None:
                return None
            if known is not None:
                known.told = self, plan, _copy(action), content
        attempt = self.core.begin_submit(content, agent.id, seconds=self.settings.deadline)
        return None if attempt is None else Asked(plan, action, attempt)

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

    def _look_last(self, verdict: Verdict) -> Flow[Verdict]:
        raise NotImplementedError
