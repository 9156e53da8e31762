"""Agents: registered, linked to a model, alive or not, and the commands that reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...exceptions import ProtocolError, ValidationError
from ...models import AgentHealthStatus, KillSwitchStatus, Record
from ...wire import decode_object, encode_json
from .operation import Operation, acknowledgement, is_number, name, number, path, query, record, texts

__all__ = [
    "ack_command",
    "agent_status",
    "deregister",
    "heartbeat",
    "kill_switch_status",
    "link_model",
    "list_agents",
    "pending_commands",
    "register",
]


def register(
    *,
    agent_id: str,
    display_name: str,
    agent_type: str,
    environment: str,
    capabilities: Sequence[str] | None,
    allowed_resources: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    sdk_version: str,
) -> Operation[Record]:
    """Register an agent; a refusal is an error, whatever its form."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValidationError("metadata must be a mapping", field="metadata")
    body = {
        "agent_id": name("agent_id", agent_id),
        "display_name": name("agent_name", display_name),
        "agent_type": name("agent_type", agent_type),
        "environment": name("environment", environment),
        "capabilities": texts("capabilities", capabilities or ()),
        "allowed_resources": texts("allowed_resources", allowed_resources or ()),
        "sdk_version": sdk_version,
        "metadata": dict(metadata or {}),
    }
    return Operation(method="POST", target="/api/registry/agents", content=encode_json(body), decode=record)


def list_agents() -> Operation[list[str]]:
    """Fetch the ids of the organisation's own agents."""
    return Operation(method="GET", target="/api/registry/agents", decode=_agent_ids)


def _agent_ids(content: bytes) -> list[str]:
    answer = decode_object(content)
    rows = answer.get("agents", answer.get("data"))
    if not isinstance(rows, list):
        raise ProtocolError("the authority's list holds no agents")
    return [str(row["agent_id"]) for row in rows if isinstance(row, dict) and "agent_id" in row]


def deregister(agent_id: str) -> Operation[Record]:
    """Remove an agent from the registry."""
    target = path("/api/registry/agents/{agent_id}", agent_id=name("agent_id", agent_id))
    return Operation(method="DELETE", target=target, decode=acknowledgement)


def link_model(agent_id: str, model_id: int) -> Operation[Record]:
    """Say which model an agent uses."""
    if not is_number(model_id, int) or model_id < 1:
        raise ValidationError("model_id must be a whole number, at least 1", field="model_id")
    target = path("/api/registry/agents/{agent_id}", agent_id=name("agent_id", agent_id))
    return Operation(method="PUT", target=target, content=encode_json({"model_id": model_id}), decode=record)


def heartbeat(
    agent_id: str,
    *,
    at: str,
    sdk_version: str,
    response_time_ms: float | None = None,
    error_rate: float | None = None,
    requests_count: int | None = None,
) -> Operation[Record]:
    """Say that an agent is alive."""
    body: dict[str, Any] = {"agent_id": name("agent_id", agent_id), "sdk_version": sdk_version, "timestamp": at}
    if response_time_ms is not None:
        body["response_time_ms"] = number("response_time_ms", response_time_ms, low=0)
    if error_rate is not None:
        body["error_rate"] = number("error_rate", error_rate, low=0, high=1)
    if requests_count is not None:
        body["requests_count"] = number("requests_count", requests_count, low=0)
    target = "/api/agents/health/heartbeat"
    return Operation(method="POST", target=target, content=encode_json(body), decode=acknowledgement)


def agent_status(agent_id: str) -> Operation[AgentHealthStatus]:
    """Ask how an agent is."""
    target = path("/api/agents/health/{agent_id}", agent_id=name("agent_id", agent_id))
    return Operation(method="GET", target=target, decode=lambda content: _health(content, agent_id))


def _health(content: bytes, agent_id: str) -> AgentHealthStatus:
    answer = decode_object(content)
    if not isinstance(answer.get("status"), str):
        raise ProtocolError("the authority's answer tells no status of the agent")
    if answer.get("agent_id", agent_id) != agent_id:
        raise ProtocolError("the authority answered about another agent than the one asked about")
    known: dict[str, Any] = {"agent_id": agent_id, "last_heartbeat": None, "uptime_seconds": None, "metadata": {}}
    return AgentHealthStatus({**known, **answer})


def pending_commands(agent_id: str) -> Operation[list[dict[str, Any]]]:
    """Fetch the commands aimed at an agent, and those for the whole organisation."""
    target = path("/api/registry/agents/{agent_id}/commands", agent_id=name("agent_id", agent_id))
    return Operation(method="GET", target=target, decode=_commands)


def _commands(content: bytes) -> list[dict[str, Any]]:
    rows = decode_object(content).get("commands")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the authority's answer holds no commands")
    for row in rows:
        # A stop that cannot be read must not pass for none.
        if not isinstance(row.get("command_type"), str) or not isinstance(row.get("command_id"), str | int):
            raise ProtocolError("the authority sent a command without a type or an id")
        row["command_id"] = str(row["command_id"])
        row.setdefault("reason", "")
    return rows


def ack_command(agent_id: str, command_id: str) -> Operation[bool]:
    """Confirm that a command was received."""
    target = path(
        "/api/registry/agents/{agent_id}/commands/{command_id}/ack",
        agent_id=name("agent_id", agent_id),
        command_id=command_id,
    )
    return Operation(method="POST", target=target, content=b"{}", decode=_acknowledged)


def _acknowledged(content: bytes) -> bool:
    return not content or decode_object(content).get("success", True) is True


_FLAGS: Final = ("blocked", "active", "is_active", "is_blocked")
_STOPPED: Final = frozenset({"blocked", "suspended", "quarantined", "killed", "active"})


def kill_switch_status(agent_id: str) -> Operation[KillSwitchStatus]:
    """Ask whether an agent, or without one the organisation, is stopped.

    One flag or one word that says so stops. Not stopped is only what flags say, all that are there, with a plain false;
    what says neither is unreadable.
    """
    target = query("/api/sdk/kill-switch/status", {"agent_id": agent_id or None})
    return Operation(method="GET", target=target, decode=_kill_switch)


def _kill_switch(content: bytes) -> KillSwitchStatus:
    answer = decode_object(content)
    data = answer.get("data")
    sources = [answer, data] if isinstance(data, dict) else [answer]
    flags = [source[flag] for source in sources for flag in _FLAGS if flag in source]
    words = [str(source.get("status")).strip().lower() for source in sources]
    blocked = any(flag is True for flag in flags) or not _STOPPED.isdisjoint(words)
    if not blocked and not (flags and all(flag is False for flag in flags)):
        raise ProtocolError("the authority's answer does not say whether the kill switch is thrown")
    known: dict[str, Any] = {"reason": None, "activated_at": None, "activated_by": None}
    return KillSwitchStatus({**known, **answer, "blocked": blocked})
