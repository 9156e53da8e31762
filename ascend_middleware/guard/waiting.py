"""Hold a request while a person decides about its action."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..exceptions import AscendError
from ..flow import ClientGone, Watch
from ..verdict import UNCONDITIONAL, Refusal
from .failure import refusal_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import AuthorizationDecision
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..rules import CompiledRule
    from .kill_check import KillCheck

__all__ = ["Waiting"]


class Waiting:
    """The requests of one guard that are held; beyond `max_waiters`, none is.

    Attributes:
        count: how many are held now.
    """

    def __init__(
        self,
        settings: Settings,
        core: ClientCore,
        check: KillCheck,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.count = 0
        self._settings = settings
        self._core = core
        self._check = check
        self._clock = clock
        self._random = random

    def wait(
        self, decision: AuthorizationDecision, rule: CompiledRule, agent_id: str
    ) -> Flow[AuthorizationDecision | Refusal]:
        """Poll until a person has decided, the time is up, the agent is killed, or the client has left."""
        if self.count >= self._settings.max_waiters:
            return decision
        self.count += 1
        try:
            until = self._clock() + rule.pending.seconds
            while decision.is_pending():
                left = until - self._clock()
                if left <= 0:
                    break
                # Jitter keeps many waiters from asking in step.
                pause = min(left, self._settings.poll_interval * (0.5 + self._random() / 2))
                while pause > 0:
                    gone = yield Watch(min(pause, 0.5))
                    if gone:
                        raise ClientGone
                    pause -= 0.5
                    stopped = yield from self._check.blocked(agent_id)
                    if stopped is not None:
                        return stopped
                try:
                    decision = yield from self._core.status(
                        decision.action_id,
                        deadline=self._clock() + min(self._settings.deadline, max(left, 0.5)),
                        agent=agent_id,
                    )
                except AscendError as error:
                    # A known pending action stays pending, whatever becomes of one poll; a kill ends the wait.
                    refusal = refusal_for(error)
                    if refusal.problem in UNCONDITIONAL or refusal.problem == "misconfigured":
                        return refusal
        finally:
            self.count -= 1
        return decision
