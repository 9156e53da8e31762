"""The agent itself: its registration, its model, its life signs, and the kill switch that stops it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from ..._version import __version__
from ...api import answers, endpoints
from ...api.endpoint import given, is_number
from ...api.models import AgentHealthStatus, KillSwitchStatus, Record
from ...exceptions import AscendError, ClientClosedError, ConflictError, KillSwitchError, ProtocolError, ValidationError
from ...flow import Flow
from ..base import ClientBase, positive_seconds
from ..drivers import done, sync_and_async

__all__ = ["AgentMethods"]

# The threads, or tasks, that run in the background.
_POLLING: Final = "ascend-kill-switch"
_BEATING: Final = "ascend-heartbeat"
_METRICS: Final = ("response_time_ms", "error_rate", "requests_count")
_HEARTBEAT_SECONDS: Final = 60.0
_KILL_SWITCH_SECONDS: Final = 5.0


class AgentMethods(ClientBase):
    """What concerns the agent on whose behalf the client asks."""

    @sync_and_async
    def register(
        self,
        agent_type: str = "supervised",
        capabilities: Sequence[str] | None = None,
        allowed_resources: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Flow[Record]:
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

        Source: contract §1.2.
        """
        agent_id = self._agent(None)
        body = {
            "agent_id": agent_id,
            "display_name": self.settings.agent_name,
            "agent_type": agent_type,
            "environment": self.settings.environment,
            "capabilities": capabilities or (),
            "allowed_resources": allowed_resources or (),
            "sdk_version": __version__,
            "metadata": metadata or {},
        }
        try:
            record = yield from self.core.call(endpoints.REGISTER_AGENT.call(body=body))
        except ConflictError:
            # The refusal does not tell whose agent it is, and the text of an error proves nothing.
            if agent_id not in (yield from self.core.call(endpoints.LIST_AGENTS.call())):
                raise
            return Record({"success": True, "status": "already_registered", "agent_id": agent_id})
        return record

    @sync_and_async
    def deregister(self) -> Flow[Record]:
        """Remove the client's agent from the registry, and end its heartbeat.

        Raises:
            ValidationError: the client has no agent id.
            NotFoundError: the agent is not registered.

        Source: contract §3.2.
        """
        record = yield from self.core.call(endpoints.DEREGISTER_AGENT.call(agent_id=self._agent(None)))
        self.background.stop(_BEATING)
        return record

    @sync_and_async
    def link_model_to_agent(self, agent_id: str, model_id: int) -> Flow[Record]:
        """Say which model of the registry an agent uses.

        Args:
            agent_id: the agent.
            model_id: the model's number, at least 1.

        Returns:
            The authority's answer: `success`, `agent`, `message`.

        Raises:
            AuthorizationDeniedError: the model is unknown, not approved, or another organisation's.
            NotFoundError: there is no such agent.

        Source: contract §1.2, §4.
        """
        if not is_number(model_id, int) or model_id < 1:
            raise ValidationError("model_id must be a whole number, at least 1", field="model_id")
        return self.core.call(endpoints.UPDATE_AGENT.call(body={"model_id": model_id}, agent_id=agent_id))

    @sync_and_async
    def get_agent_status(self, agent_id: str | None = None) -> Flow[AgentHealthStatus]:
        """Return how an agent is, as far as its heartbeats tell.

        Args:
            agent_id: the client's agent when None.

        Raises:
            NotFoundError: there is no such agent.

        Source: contract §3.2.
        """
        agent_id = self._agent(agent_id)
        decode = partial(answers.agent_health, agent_id=agent_id)
        return self.core.call(endpoints.AGENT_HEALTH.call(decode=decode, agent_id=agent_id))

    @sync_and_async
    def heartbeat(
        self,
        response_time_ms: float | None = None,
        error_rate: float | None = None,
        requests_count: int | None = None,
    ) -> Flow[bool]:
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
        numbers = given(response_time_ms=response_time_ms, error_rate=error_rate, requests_count=requests_count)
        return self.core.heartbeat(self._agent(None), **numbers)

    @sync_and_async
    def send_heartbeat(
        self,
        metrics: Mapping[str, Any] | None = None,
        *,
        response_time_ms: float | None = None,
        error_rate: float | None = None,
        requests_count: int | None = None,
    ) -> Flow[bool]:
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
        numbers = given(response_time_ms=response_time_ms, error_rate=error_rate, requests_count=requests_count)
        numbers = {**(metrics or {}), **numbers}
        unknown = sorted(numbers.keys() - set(_METRICS))
        if unknown:
            raise ValidationError(f"unknown metric {unknown[0]!r}; known: {', '.join(_METRICS)}", field="metrics")
        return self.core.heartbeat(self._agent(None), **numbers)

    @sync_and_async
    def start_heartbeat(self, interval_seconds: float | None = None) -> Flow[None]:
        """Send heartbeats in the background: one now, then one at each interval, until `stop_heartbeat` or `close`.

        Starting it again replaces the one that runs. A forked child sends its own from its first action on.

        Args:
            interval_seconds: seconds from one to the next, 60 when None.

        Raises:
            ValidationError: the client has no agent id, or the interval is not more than 0.

        Source: contract §3.2.
        """
        agent_id = self._agent(None)
        interval = positive_seconds("interval_seconds", interval_seconds, _HEARTBEAT_SECONDS)
        self._repeat(_BEATING, lambda: self.core.heartbeat(agent_id), interval)
        return done(None)

    @sync_and_async
    def stop_heartbeat(self) -> Flow[None]:
        """End the heartbeats in the background; harmless when there are none.

        Source: contract §3.2.
        """
        self.background.stop(_BEATING)
        return done(None)

    @sync_and_async
    def get_pending_commands(self, agent_id: str | None = None) -> Flow[list[dict[str, Any]]]:
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

        Source: contract §1.2, §2.10, C27.
        """
        wanted = self._agent(agent_id)
        rows = yield from self.core.call(endpoints.PENDING_COMMANDS.call(agent_id=wanted))
        commands = [{"reason": "", **row, "command_id": str(row["command_id"])} for row in rows if _is_command(row)]
        if wanted == self.settings.agent_id:
            for command in commands:
                self.kill.learn_command(command)
        # A stop that cannot be read must not pass for none; those that can be read count all the same.
        if len(commands) < len(rows):
            raise ProtocolError("the authority sent a command without a type or an id")
        return commands

    @sync_and_async
    def ack_command(self, command_id: str, agent_id: str | None = None) -> Flow[bool]:
        """Confirm that a command was received; that neither carries it out nor lifts it.

        Args:
            command_id: from `get_pending_commands`.
            agent_id: the agent that received it; the client's when None.

        Returns:
            Whether the authority recorded it. Confirming twice is harmless.

        Raises:
            AuthorizationDeniedError: there is no such command for this agent in this organisation.

        Source: contract §1.2, §4.
        """
        return self.core.call(endpoints.ACK_COMMAND.call(agent_id=self._agent(agent_id), command_id=command_id))

    @sync_and_async
    def get_kill_switch_status(self) -> Flow[KillSwitchStatus]:
        """Ask the authority whether the client's agent, or its whole organisation, is stopped.

        Raises:
            ProtocolError: the answer does not say so in a known way; that is never "not blocked".

        Source: contract §2.10, §3.2.
        """
        return self._kill_status()

    @sync_and_async
    def start_kill_switch_polling(self, interval_seconds: float = 5.0) -> Flow[None]:
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
        self.kill.expect(interval)
        self._repeat(_POLLING, lambda: self._polled(interval), interval)
        return done(None)

    @sync_and_async
    def stop_kill_switch_polling(self) -> Flow[None]:
        """End the questions in the background; harmless when there are none.

        A stop that was told stays known.

        Source: contract §3.2.
        """
        self.background.stop(_POLLING)
        self.kill.expect(None)
        return done(None)

    @sync_and_async
    def is_blocked(self) -> Flow[bool]:
        """Say whether the client knows that its agent must not act; asks nobody.

        Known are the commands that `get_pending_commands` fetched and what the polling learnt.

        Source: contract §3.2.
        """
        return done(self.kill.stopped() is not None)

    def _kill_status(self, **how: Any) -> Flow[KillSwitchStatus]:
        operation = endpoints.KILL_SWITCH_STATUS.call(query={"agent_id": self.settings.agent_id or None})
        return self.core.call(operation, **how)

    def _polled(self, interval: float) -> Flow[None]:
        """Ask for the kill switch once, within one interval, so that three silent ones are noticed in three."""
        deadline = self.core.clock() + min(interval, self.settings.timeout)
        try:
            # This goes on while calls do not: it has to notice when the authority is back.
            status = yield from self._kill_status(deadline=deadline, breaker=self.core.unbroken)
        except KillSwitchError as error:
            # Also an answer, and a clear one.
            self.kill.learn_status(KillSwitchStatus({"blocked": True, "reason": str(error)}))
        except ClientClosedError:
            return
        except AscendError as error:
            self.kill.poll_failed(error)
        else:
            self.kill.learn_status(status)


def _is_command(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("command_type"), str):
        return False
    return isinstance(row.get("command_id"), str | int)
