"""Made of `methods/agents.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...api import endpoints
from ...api.models import AgentHealthStatus, KillSwitchStatus, Record
from .. import requests
from ..awaiting import Awaiting
from ..base import BEATING, POLLING, positive_seconds
from ..methods.agents import AgentMethods
from ..twins import twin_of

_HEARTBEAT_SECONDS: Final = 60.0
_KILL_SWITCH_SECONDS: Final = 5.0
__all__ = ["AsyncAgentMethods"]


@twin_of(AgentMethods)
class AsyncAgentMethods(Awaiting):
    """The awaitable twin of `AgentMethods`."""

    async def register(
        self,
        agent_type: str = "supervised",
        capabilities: Sequence[str] | None = None,
        allowed_resources: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        """See `AscendClient.register`."""
        return await self.run(self._registered(agent_type, capabilities, allowed_resources, metadata))

    async def deregister(self) -> Record:
        """See `AscendClient.deregister`."""
        record = await self._ask(endpoints.DEREGISTER_AGENT.call(agent_id=self._agent(None)))
        self.background.stop(BEATING)
        return record

    async def link_model_to_agent(self, agent_id: str, model_id: int) -> Record:
        """See `AscendClient.link_model_to_agent`."""
        return await self._ask(requests.model_link(agent_id, model_id))

    async def get_agent_status(self, agent_id: str | None = None) -> AgentHealthStatus:
        """See `AscendClient.get_agent_status`."""
        return await self._ask(requests.agent_health(self._agent(agent_id)))

    async def heartbeat(
        self, response_time_ms: float | None = None, error_rate: float | None = None, requests_count: int | None = None
    ) -> bool:
        """See `AscendClient.heartbeat`."""
        return await self.run(
            self.core.heartbeat(
                self._agent(None),
                response_time_ms=response_time_ms,
                error_rate=error_rate,
                requests_count=requests_count,
            )
        )

    async def send_heartbeat(
        self,
        metrics: Mapping[str, Any] | None = None,
        *,
        response_time_ms: float | None = None,
        error_rate: float | None = None,
        requests_count: int | None = None,
    ) -> bool:
        """See `AscendClient.send_heartbeat`."""
        single = {"response_time_ms": response_time_ms, "error_rate": error_rate, "requests_count": requests_count}
        return await self.run(self._beat(metrics, single))

    async def start_heartbeat(self, interval_seconds: float | None = None) -> None:
        """See `AscendClient.start_heartbeat`."""
        self._agent(None)
        interval = positive_seconds("interval_seconds", interval_seconds, _HEARTBEAT_SECONDS)
        self.background.start(self._repeating(BEATING, self.heartbeat, interval))

    async def stop_heartbeat(self) -> None:
        """See `AscendClient.stop_heartbeat`."""
        self.background.stop(BEATING)

    async def get_pending_commands(self, agent_id: str | None = None) -> list[dict[str, Any]]:
        """See `AscendClient.get_pending_commands`."""
        return await self.run(self._commands(agent_id))

    async def ack_command(self, command_id: str, agent_id: str | None = None) -> bool:
        """See `AscendClient.ack_command`."""
        return await self._ask(endpoints.ACK_COMMAND.call(agent_id=self._agent(agent_id), command_id=command_id))

    async def get_kill_switch_status(self) -> KillSwitchStatus:
        """See `AscendClient.get_kill_switch_status`."""
        return await self._ask(requests.kill_switch_status(self.settings.agent_id))

    async def start_kill_switch_polling(self, interval_seconds: float = 5.0) -> None:
        """See `AscendClient.start_kill_switch_polling`."""
        interval = positive_seconds("interval_seconds", interval_seconds, _KILL_SWITCH_SECONDS)
        self._poll_with(self._repeating(POLLING, lambda: self.run(self._polled(interval)), interval))

    async def stop_kill_switch_polling(self) -> None:
        """See `AscendClient.stop_kill_switch_polling`."""
        self._stop_polling()

    async def is_blocked(self) -> bool:
        """See `AscendClient.is_blocked`."""
        return self.kill.stopped() is not None
