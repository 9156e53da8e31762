"""The kill switch over HTTP: commands issued, fetched and acknowledged, and its status."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Broadcast, Command, Parameters, StatusQuery, Switch
from ascend_middleware.exceptions import NotFoundError, ValidationError

from .. import killswitch
from ..bodies import ApiError, wrong
from ..context import Call, Handlers, Reply

__all__ = ["HANDLERS"]


def _issue(call: Call) -> Reply:
    body = call.body(Command)
    return _issued(call, body.command_type, body.reason, body.parameters, agent_id=_agent_id(call))


def _broadcast(call: Call) -> Reply:
    body = call.body(Broadcast)
    return _issued(call, body.command_type, body.reason, body.parameters, mcp_server=body.mcp_server)


def _issued(call: Call, kind: str, reason: str, parameters: Parameters | None, **target: str | None) -> Reply:
    try:
        command = killswitch.issue(
            call.store,
            call.records,
            tenant=call.tenant,
            command_type=kind,
            reason=reason,
            issued_by=call.credential.name,
            issued_via="cli" if call.credential.is_operator else "api",
            key_id=None if call.credential.is_operator else call.credential.key_id,
            max_per_minute=parameters.max_per_minute if parameters and kind == "RATE_LIMIT" else None,
            **target,
        )
    except ValidationError as error:
        raise wrong(error.field or "body", error.message) from None
    return Reply(fields={"success": True, "command": command, "command_id": command["command_id"]}, status=201)


def _agent_id(call: Call) -> str:
    name = call.parameters["agent_id"]
    # Any agent can be blocked, also one that was never registered; it must only be possible to submit under the name.
    # An operator is told no such thing: what an earlier version let in can be stopped as well.
    if not (call.credential.is_operator or (0 < len(name) <= 255 and name == name.strip() and name.isprintable())):
        raise wrong("agent_id", "is no agent's id")
    return name


def _pending(call: Call) -> Reply:
    return Reply(fields={"commands": killswitch.pending(call.records, call.parameters["agent_id"], tenant=call.tenant)})


def _ack(call: Call) -> Reply:
    agent_id, command_id = call.parameters["agent_id"], call.parameters["command_id"]
    try:
        command = killswitch.acknowledge(
            call.records, command_id, agent_id, tenant=call.tenant, key_id=call.credential.key_id
        )
    except NotFoundError as error:
        call.audit("AGENT_COMMAND_ACK_REJECTED", agent_id=agent_id, command_id=command_id)
        raise ApiError(403, "COMMAND_ACK_REJECTED", error.message) from None
    kind = command["command_type"]
    call.audit("AGENT_COMMAND_ACKNOWLEDGED", agent_id=agent_id, command_id=command_id, command_type=kind)
    return Reply(
        fields={
            "success": True,
            "agent_id": agent_id,
            "command_id": command_id,
            "message": "acknowledged; an acknowledgement lifts nothing",
        }
    )


def _status(call: Call) -> Reply:
    agent_id = call.query(StatusQuery).agent_id
    return Reply(fields=_status_fields(call, None if agent_id is UNSET else agent_id))


def _status_fields(call: Call, agent_id: str | None) -> dict[str, Any]:
    """Return the standing in the words of every client generation (contract §2.10)."""
    standing = killswitch.standing(call.records, agent_id, tenant=call.tenant)
    blocking = standing.command if standing.blocked else None
    return {
        "blocked": standing.blocked,
        "active": standing.blocked,
        "is_active": standing.blocked,
        "reason": blocking["reason"] if blocking else None,
        "activated_at": blocking["created_at"] if blocking else None,
        "activated_by": blocking["issued_by"] if blocking else None,
        "command_id": blocking["command_id"] if blocking else None,
        "agent_id": agent_id,
        "standing": standing.word,
        "code": standing.code or None,
        "max_per_minute": standing.max_per_minute,
        "organization_id": call.records.organization_id(call.tenant),
    }


def _trigger(call: Call) -> Reply:
    return _thrown(call, "BLOCK", "kill switch triggered: every agent of the organisation is blocked")


def _release(call: Call) -> Reply:
    return _thrown(call, "UNBLOCK", "kill switch released; agents that were blocked by themselves stay so")


def _thrown(call: Call, kind: str, message: str) -> Reply:
    named, own = call.parameters["organization_id"], call.records.organization_id(call.tenant)
    if named not in (str(own), call.tenant):
        raise ApiError(404, "NOT_FOUND", "there is no such organisation")
    command = _issued(call, kind, call.body(Switch).reason, None).fields["command"]
    fields = {**_status_fields(call, None), "success": True, "message": message, "command": command}
    return Reply(fields=fields)


HANDLERS: Final[Handlers] = {
    endpoints.COMMAND_AGENT: _issue,
    endpoints.COMMAND_ALL: _broadcast,
    endpoints.PENDING_COMMANDS: _pending,
    endpoints.ACK_COMMAND: _ack,
    endpoints.KILL_SWITCH_STATUS: _status,
    endpoints.TRIGGER_KILL_SWITCH: _trigger,
    endpoints.RELEASE_KILL_SWITCH: _release,
}
