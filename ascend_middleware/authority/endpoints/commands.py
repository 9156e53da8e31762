"""The kill switch over HTTP: commands issued, fetched and acknowledged, and its status."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Broadcast, Command, Parameters, StatusQuery, Switch
from ascend_middleware.exceptions import NotFoundError, ValidationError

from .. import killswitch
from ..bodies import ApiError, wrong
from ..context import Call, answers


@answers(endpoints.COMMAND_AGENT)
def _issue(call: Call) -> dict[str, Any]:
    body, name = call.body(Command), call.parameters["agent_id"]
    # Any agent can be blocked, also one that was never registered; it must only be possible to submit under the name.
    # An operator is told no such thing: what an earlier version let in can be stopped as well.
    if not (call.credential.is_operator or (0 < len(name) <= 255 and name == name.strip() and name.isprintable())):
        raise wrong("agent_id", "is no agent's id")
    return _issued(call, body.command_type, body.reason, body.parameters, agent_id=name)


@answers(endpoints.COMMAND_ALL)
def _broadcast(call: Call) -> dict[str, Any]:
    body = call.body(Broadcast)
    return _issued(call, body.command_type, body.reason, body.parameters, mcp_server=body.mcp_server)


def _issued(call: Call, kind: str, reason: str, parameters: Parameters | None, **target: str | None) -> dict[str, Any]:
    try:
        command = killswitch.issue(
            call.records,
            kind,
            reason,
            by=call.credential,
            via="cli" if call.credential.is_operator else "api",
            max_per_minute=parameters.max_per_minute if parameters and kind == "RATE_LIMIT" else None,
            **target,
        )
    except ValidationError as error:
        raise wrong(error.field or "body", error.message) from None
    return {"success": True, "command": command, "command_id": command["command_id"]}


@answers(endpoints.PENDING_COMMANDS)
def _pending(call: Call) -> dict[str, Any]:
    return {"commands": killswitch.pending(call.records, call.parameters["agent_id"], tenant=call.tenant)}


@answers(endpoints.ACK_COMMAND)
def _ack(call: Call) -> dict[str, Any]:
    named: dict[str, Any] = {name: call.parameters[name] for name in ("agent_id", "command_id")}
    try:
        command = killswitch.acknowledge(call.records, **named, tenant=call.tenant, key_id=call.credential.key_id)
    except NotFoundError as error:
        call.audit("AGENT_COMMAND_ACK_REJECTED", **named)
        raise ApiError(403, "COMMAND_ACK_REJECTED", error.message) from None
    call.audit("AGENT_COMMAND_ACKNOWLEDGED", **named, command_type=command["command_type"])
    return {"success": True, **named, "message": "acknowledged; an acknowledgement lifts nothing"}


@answers(endpoints.KILL_SWITCH_STATUS)
def _status(call: Call) -> dict[str, Any]:
    agent_id = call.query(StatusQuery).agent_id
    return _status_of(call, None if agent_id is UNSET else agent_id)


def _status_of(call: Call, agent_id: str | None) -> dict[str, Any]:
    """Return the standing in the words of every client generation (contract §2.10)."""
    standing = killswitch.standing(call.records, agent_id, tenant=call.tenant)
    blocking = standing.command if standing.blocked and standing.command is not None else {}
    return {
        **dict.fromkeys(("blocked", "active", "is_active"), standing.blocked),
        "reason": blocking.get("reason"),
        "activated_at": blocking.get("created_at"),
        "activated_by": blocking.get("issued_by"),
        "command_id": blocking.get("command_id"),
        "agent_id": agent_id,
        "standing": standing.word,
        "code": standing.code or None,
        "max_per_minute": standing.max_per_minute,
        "organization_id": call.records.organization_id(call.tenant),
    }


@answers(endpoints.TRIGGER_KILL_SWITCH)
def _trigger(call: Call) -> dict[str, Any]:
    return _thrown(call, "BLOCK", "kill switch triggered: every agent of the organisation is blocked")


@answers(endpoints.RELEASE_KILL_SWITCH)
def _release(call: Call) -> dict[str, Any]:
    return _thrown(call, "UNBLOCK", "kill switch released; agents that were blocked by themselves stay so")


def _thrown(call: Call, kind: str, message: str) -> dict[str, Any]:
    if call.parameters["organization_id"] not in (str(call.records.organization_id(call.tenant)), call.tenant):
        raise ApiError(404, "NOT_FOUND", "there is no such organisation")
    command = _issued(call, kind, call.body(Switch).reason, None)["command"]
    return {**_status_of(call, None), "success": True, "message": message, "command": command}
