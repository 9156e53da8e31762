"""Whether an agent may act now: the kill switch, how old its state may be, and the agent's rate."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import AscendError
from ..flow import Blocking, ClientGone, Sleep, Watch
from ..killswitch.switch import unavailable_state
from ..masking import get_logger
from ..state.base import StateError
from ..verdict import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..flow import Flow
    from ..killswitch.poller import CommandPoller
    from ..killswitch.switch import KillSwitch
    from ..state.base import State

__all__ = ["KillCheck"]

logger = get_logger("ascend_middleware.guard")

_SEEN_AGAIN: Final = 3600.0
_MAX_SEEN: Final = 10_000
# How often a request looks whether another one has read the kill state meanwhile.
_WAIT_SECONDS: Final = 0.01
# After a failed attempt to confirm a stale kill state, others block without an attempt of their own for so long.
_FAILED_SECONDS: Final = 1.0


class KillCheck:
    """Tell whether an agent may act now.

    Args:
        kill: what is known of the kill switch in this process.
        state: what workers share.
        poller: asks the authority, where what is known is too old.
        own: the agent of the settings, which is asked about anyway.
        clock: monotonic seconds, the same as the kill switch's.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        kill: KillSwitch,
        state: State,
        poller: CommandPoller,
        *,
        own: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kill = kill
        self._state = state
        self._poller = poller
        self._clock = clock
        self._now = now
        self._seen: dict[str, float] = {own: float("inf")}
        self._confirming_until = -1e9
        self._failed_at = -1e9
        # Of single other agents: until when somebody asks for their commands, and when that failed.
        self._asking: dict[str, float] = {}
        self._unheard: dict[str, float] = {}

    def obey(self, agent_id: str, *, deadline: float) -> Flow[Refusal | None]:
        """Return why an agent may not act now: it is blocked, the kill state is unknown or too old, or it is too fast.

        Raises:
            ClientGone: the client left meanwhile.
        """
        refusal = yield from self.blocked(agent_id)
        if refusal is not None:
            return refusal
        if self._kill.is_stale:
            refusal = yield from self._confirmed(agent_id, deadline)
            if refusal is not None:
                return refusal
        if self._poller.is_silent_about(agent_id):
            refusal = yield from self._heard_of(agent_id, deadline)
            if refusal is not None:
                return refusal
        limit = self._kill.limit(agent_id)
        return None if limit is None else (yield from self._take(agent_id, limit))

    def blocked(self, agent_id: str) -> Flow[Refusal | None]:
        """Return why an agent is blocked, by what the workers share; read again if that is older than 250 ms."""
        while not self._kill.is_fresh:
            turn = self._kill.turn()
            if turn == "wait":
                yield Sleep(_WAIT_SECONDS)
                continue
            try:
                if turn == "fail":
                    raise StateError("the kill state could not be read")
                yield Blocking(self._kill.refresh, inline=not self._state.blocks)
            except StateError:
                return self._kill.refusal(agent_id) or unavailable_state()
            break
        return self._kill.refusal(agent_id)

    def _confirmed(self, agent_id: str, deadline: float) -> Flow[Refusal | None]:
        """Have a stale kill state confirmed by the authority, once for all who wait for it; refuse if that fails."""
        while self._clock() < self._confirming_until:
            if (yield Watch(0.05)):
                raise ClientGone
        if self._kill.is_stale and self._clock() - self._failed_at >= _FAILED_SECONDS:
            yield from self._confirm(deadline)
        return self._kill.stale_refusal if self._kill.is_stale else self._kill.refusal(agent_id)

    def _confirm(self, deadline: float) -> Flow[None]:
        self._confirming_until = deadline
        try:
            yield from self._poller.poll(deadline=deadline)
            yield Blocking(self._kill.refresh, inline=not self._state.blocks)
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
        if self._poller.is_silent_about(agent_id) and self._clock() - tried_at >= _FAILED_SECONDS:
            self._asking[agent_id] = deadline
            try:
                yield from self._poller.ask_for(agent_id, deadline=deadline)
                yield Blocking(self._kill.refresh, inline=not self._state.blocks)
            except AscendError as error:
                if len(self._unheard) >= _MAX_SEEN:
                    self._unheard.clear()
                self._unheard[agent_id] = self._clock()
                logger.error("the kill state of agent %r is stale and cannot be confirmed: %s", agent_id[:80], error)
            finally:
                self._asking.pop(agent_id, None)
        if self._poller.is_silent_about(agent_id):
            return self._kill.stale_refusal
        return self._kill.refusal(agent_id)

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
            yield self._blocking(self._state.see, agent_id, now=self._now())
        except StateError as error:
            logger.warning("an agent's activity cannot be kept: %s", error)

    def _take(self, agent_id: str, limit: int) -> Flow[Refusal | None]:
        try:
            wait = yield self._blocking(self._state.take, f"agent {agent_id}", limit=limit, now=self._now())
        except StateError:
            return unavailable_state()
        if wait is None:
            return None
        detail = f"The agent is held to {limit} requests a minute."
        return Refusal(problem="agent-rate-limit", detail=detail, retry_after=max(wait, 0.001))

    def _blocking(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Blocking:
        return Blocking(functools.partial(function, **named), arguments, inline=not self._state.blocks)
