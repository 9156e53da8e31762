"""The agent itself: its registration, its model, its life signs, and the kill switch that stops it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...api import endpoints
from ...api.models import AgentHealthStatus, KillSwitchStatus, Record
from .. import requests
from ..base import BEATING, POLLING, positive_seconds
from ..blocking import Blocking

__all__ = ["AgentMethods"]

_HEARTBEAT_SECONDS: Final = 60.0
_KILL_SWITCH_SECONDS: Final = 5.0


class AgentMethods(Blocking):
    """What concerns the agent on whose behalf the client asks."""

    def register(
        self,
        agent_type: str = "supervised",
        capabilities: Sequence[str] | None = None,
        allowed_resources: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        """Register the client's agent.

        Args:
            agent_type: `supervised`, `autonomous`, `automation`, `mcp_server`; free text.
            capabilities: action types that it is made for, `["database.query"]`.
            allowed_resources: what it may act on, `["production_db"]`.
            metadata: anything else to keep with it.

        Returns:
            The authority's answer: `agent_id`, `status`, `trust_level`, … An agent that the own organisation has
            registered already is no error: `status` is `already_registered`.

        Raises:
            ValidationError: the client has no agent id, or a value is of the wrong kind; nothing was sent.
            ConflictError: the id belongs to another organisation.
            AuthorizationDeniedError: the key may not register agents.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2.
        """
        return self.run(self._registered(agent_type, capabilities, allowed_resources, metadata))

    def deregister(self) -> Record:
        """Remove the client's agent from the registry, and end its heartbeat.

        Raises:
            ValidationError: the client has no agent id.
            NotFoundError: the agent is not registered.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        record = self._ask(endpoints.DEREGISTER_AGENT.call(agent_id=self._agent(None)))
        self.background.stop(BEATING)
        return record

    def link_model_to_agent(self, agent_id: str, model_id: int) -> Record:
        """Say which model of the registry an agent uses.

        Args:
            agent_id: the agent.
            model_id: the model's number, at least 1.

        Returns:
            The authority's answer: `success`, `agent`, `message`.

        Raises:
            ValidationError: a value is missing or of the wrong kind; nothing was sent.
            AuthorizationDeniedError: the model is unknown, not approved, or another organisation's.
            NotFoundError: there is no such agent.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, §4.
        """
        return self._ask(requests.model_link(agent_id, model_id))

    def get_agent_status(self, agent_id: str | None = None) -> AgentHealthStatus:
        """Return how an agent is, as far as its heartbeats tell.

        Args:
            agent_id: the client's agent when None.

        Returns:
            `agent_id`, `status`, `last_heartbeat` (ISO 8601), `uptime_seconds`, `metadata`.

        Raises:
            NotFoundError: there is no such agent.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(requests.agent_health(self._agent(agent_id)))

    def heartbeat(
        self,
        response_time_ms: float | None = None,
        error_rate: float | None = None,
        requests_count: int | None = None,
    ) -> bool:
        """Tell the authority that the agent is alive; an authority that cannot hear it stops no agent.

        Args:
            response_time_ms: average time of a response, in milliseconds.
            error_rate: share of failures, 0 to 1.
            requests_count: requests served so far.

        Returns:
            Whether the authority heard it; a failure is logged.

        Raises:
            ValidationError: the client has no agent id, or a number is out of range; nothing was sent.

        Source: contract §3.2.
        """
        return self.run(
            self.core.heartbeat(
                self._agent(None),
                response_time_ms=response_time_ms,
                error_rate=error_rate,
                requests_count=requests_count,
            )
        )

    def send_heartbeat(
        self,
        metrics: Mapping[str, Any] | None = None,
        *,
        response_time_ms: float | None = None,
        error_rate: float | None = None,
        requests_count: int | None = None,
    ) -> bool:
        """Tell the authority that the agent is alive; the older name of `heartbeat`, which takes a mapping too.

        Args:
            metrics: the three numbers by name.
            response_time_ms: average time of a response, in milliseconds.
            error_rate: share of failures, 0 to 1.
            requests_count: requests served so far.

        Returns:
            Whether the authority heard it.

        Raises:
            ValidationError: the client has no agent id, an unknown metric, or a number out of range.

        Source: contract §3.2.
        """
        single = {"response_time_ms": response_time_ms, "error_rate": error_rate, "requests_count": requests_count}
        return self.run(self._beat(metrics, single))

    def start_heartbeat(self, interval_seconds: float | None = None) -> None:
        """Send heartbeats in the background: one now, then one at each interval, until `stop_heartbeat` or `close`.

        Starting it again replaces the one that runs. A forked child has none: its parent goes on.

        Args:
            interval_seconds: seconds from one to the next, 60 when None.

        Raises:
            ValidationError: the client has no agent id, or the interval is not more than 0.

        Source: contract §3.2.
        """
        self._agent(None)
        interval = positive_seconds("interval_seconds", interval_seconds, _HEARTBEAT_SECONDS)
        self.background.start(self._repeating(BEATING, self.heartbeat, interval))

    def stop_heartbeat(self) -> None:
        """End the heartbeats in the background; harmless when there are none.

        Source: contract §3.2.
        """
        self.background.stop(BEATING)

    def get_pending_commands(self, agent_id: str | None = None) -> list[dict[str, Any]]:
        """Fetch the commands that wait for an agent: its own and those for the whole organisation.

        Those for the client's agent are obeyed at once: BLOCK, SUSPEND and QUARANTINE stop it (`is_blocked()` is True
        and actions raise `KillSwitchError`) until UNBLOCK or RESUME; RATE_LIMIT bounds its actions by
        `parameters.max_per_minute` and stops it where that cannot be read. The newest by time of issue counts.

        Args:
            agent_id: the client's agent when None.

        Returns:
            Plain dicts, each with `command_id`, `command_type` and `reason`. Confirm each with `ack_command`.

        Raises:
            ValidationError: no agent is known; nothing was sent.
            ProtocolError: the answer, or a command in it, cannot be read.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, §2.10, C27.
        """
        return self.run(self._commands(agent_id))

    def ack_command(self, command_id: str, agent_id: str | None = None) -> bool:
        """Confirm that a command was received; that neither carries it out nor lifts it.

        Args:
            command_id: from `get_pending_commands`.
            agent_id: the agent that received it; the client's when None.

        Returns:
            Whether the authority recorded it. Confirming twice is harmless.

        Raises:
            AuthorizationDeniedError: there is no such command for this agent in this organisation.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, §4.
        """
        return self._ask(endpoints.ACK_COMMAND.call(agent_id=self._agent(agent_id), command_id=command_id))

    def get_kill_switch_status(self) -> KillSwitchStatus:
        """Ask the authority whether the client's agent, or its whole organisation, is stopped.

        Returns:
            `blocked`, `reason`, `activated_at` (ISO 8601), `activated_by`.

        Raises:
            ProtocolError: the answer does not say so in a known way; that is never "not blocked".
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §2.10, §3.2.
        """
        return self._ask(requests.kill_switch_status(self.settings.agent_id))

    def start_kill_switch_polling(self, interval_seconds: float = 5.0) -> None:
        """Ask for the kill switch in the background: now, then at each interval, until the stop or `close`.

        While it is active, and also when three questions in a row, or three intervals, stay without a readable answer,
        actions raise `KillSwitchError` before anything is sent. Starting it again replaces the one that runs; a forked
        child asks by itself from its first action on.

        Args:
            interval_seconds: seconds from one question to the next, more than 0.

        Raises:
            ValidationError: the interval is not more than 0.

        Source: contract §2.10, §3.2.
        """
        interval = positive_seconds("interval_seconds", interval_seconds, _KILL_SWITCH_SECONDS)
        self._poll_with(self._repeating(POLLING, lambda: self.run(self._polled(interval)), interval))

    def stop_kill_switch_polling(self) -> None:
        """End the questions in the background; harmless when there are none.

        A stop that was told stays known.

        Source: contract §3.2.
        """
        self._stop_polling()

    def is_blocked(self) -> bool:
        """Say whether the client knows that its agent must not act; asks nobody.

        Known are the commands that `get_pending_commands` fetched and what the polling learnt.

        Source: contract §3.2.
        """
        return self.kill.stopped() is not None
