"""Agents over HTTP: registration, the model they are linked to, heartbeats, and the kill switch."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET

from ascend_middleware.api import bodies, endpoints
from ascend_middleware.api.endpoint import given
from ascend_middleware.exceptions import ConflictError, NotFoundError, ValidationError

from .. import killswitch
from ..bodies import ApiError, wrong
from ..context import Call, Fields, Known, answers
from ..orchestration import Refusal, find_model
from ..paging import listed
from ..store.registry_store import AGENT
from ..store.store import canonical_json

# An agent that was silent for longer is shown as offline.
_SILENCE: Final = 120.0


@answers(endpoints.REGISTER_AGENT)
def _register(call: Call) -> Fields:
    return _register_new(call, call.body(bodies.NewAgent))


def _register_new(call: Call, new: bodies.NewAgent) -> Fields:
    fields = {**msgspec.to_builtins(new), "status": "active"}
    # The generations of clients call it by either name.
    fields["display_name"] = new.display_name or new.agent_name or new.agent_id
    fields["agent_name"] = new.agent_name or fields["display_name"]
    name = fields.pop("agent_id")
    call.speak_for(name)
    try:
        record = call.store.add(AGENT, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
    except ConflictError:
        return _registered_before(call, name)
    call.audit("AGENT_REGISTERED", agent_id=name, agent_type=new.agent_type)
    return _told(call, record, "agent registered")


def _registered_before(call: Call, name: str) -> Fields:
    try:
        record = _agent(call, name)
    except ApiError:
        call.audit("AGENT_REGISTRATION_REFUSED", agent_id=name)
        # Some clients take a refusal that says "already exists" for a success.
        raise ApiError(409, "AGENT_ID_TAKEN", "this agent_id is taken by another organisation") from None
    fields = _told(call, record, "agent already registered; nothing was changed")
    return Known({**fields, "status": "already_registered"})


def _told(call: Call, record: dict[str, Any], message: str) -> Fields:
    agent = _shown(call, record)
    shown = {name: agent[name] for name in ("agent_id", "status", "trust_level")}
    return {"success": True, "message": message, **shown, "agent": agent}


def _shown(call: Call, record: dict[str, Any]) -> Fields:
    return _with_standing(record, killswitch.standing(call.store, record["name"], tenant=call.tenant))


def _with_standing(record: dict[str, Any], standing: killswitch.Standing) -> Fields:
    """Return an agent as the API shows it; its status is what the kill switch says of it."""
    kept = {name: value for name, value in record.items() if name not in ("name", "key_id")}
    return {
        **kept,
        "agent_id": record["name"],
        "agent_name": record.get("agent_name") or record["display_name"],
        "status": standing.word,
        "blocked": standing.blocked,
        "trust_level": "standard",
        "model_id": record.get("model_id"),
        "registered_by_key": record["key_id"],
    }


@answers(endpoints.LIST_AGENTS)
def _list(call: Call) -> Fields:
    page = call.query(bodies.Page)
    everybody = killswitch.standing(call.store, None, tenant=call.tenant)
    standings = killswitch.standings(call.store, tenant=call.tenant)

    def shown(row: dict[str, Any]) -> Fields:
        return _with_standing(row, standings.get(row["name"], everybody))

    return listed("agents", page, call.page(AGENT, page).of(shown))


@answers(endpoints.GET_AGENT)
def _get(call: Call) -> Fields:
    return _shown(call, _agent(call))


def _agent(call: Call, name: str = "") -> Fields:
    return call.record(AGENT, name or call.parameters["agent_id"], "agent")


def _acting(call: Call) -> Fields:
    """Return an agent; one that has acted, and that nobody registered, is registered by whoever changes it."""
    try:
        return _agent(call)
    except ApiError:
        name = call.parameters["agent_id"]
        acted = call.store.rows(
            "SELECT submission FROM actions WHERE tenant = ? AND agent_id = ? ORDER BY id DESC LIMIT 1",
            (call.tenant, name),
        )
        if not acted:
            raise
    _register_new(call, bodies.NewAgent(agent_id=name, agent_name=json.loads(acted[0][0]).get("agent_name") or None))
    return _agent(call)


@answers(endpoints.UPDATE_AGENT)
def _update(call: Call) -> Fields:
    call.speak_for(call.parameters["agent_id"])
    record, change = _acting(call), call.body(bodies.AgentChange)
    fields, message = given(**call.fields()), "agent updated"
    if change.model_id is not None:
        model = find_model(call.authority, change.model_id, tenant=call.tenant)
        if isinstance(model, Refusal):
            call.audit("AGENT_MODEL_LINK_REFUSED", agent_id=record["name"], model_id=change.model_id, code=model.code)
            # No governance form: some clients take one for a success, whatever the endpoint.
            raise ApiError(403, *model)
        fields["model_id"] = model.id
        message = f"model {model.id} linked to agent {record['name']}"
        call.audit("AGENT_MODEL_LINKED", agent_id=record["name"], model_id=model.id)
    if set(fields) - {"model_id"}:
        call.audit("AGENT_UPDATED", agent_id=record["name"], changed=sorted(fields))
    return _told(call, call.store.update(record, fields, tenant=call.tenant), message)


@answers(endpoints.DEREGISTER_AGENT)
def _delete(call: Call) -> Fields:
    record = _agent(call)
    name = record["name"]
    call.speak_for(name)
    if not call.credential.role.administers and record["key_id"] != call.credential.key_id:
        call.audit("ACCESS_REFUSED", agent_id=name, endpoint="DELETE /api/registry/agents/{agent_id}")
        raise ApiError(403, "ADMIN_REQUIRED", "only an admin, or the key that registered an agent, may remove it")
    call.store.remove(record, tenant=call.tenant)
    call.store.execute("DELETE FROM heartbeats WHERE tenant = ? AND agent_id = ?", (call.tenant, name))
    # Its commands stay: a blocked agent must not come back unblocked by registering again.
    call.audit("AGENT_DEREGISTERED", agent_id=name)
    return {"success": True, "agent_id": name, "message": "agent removed"}


@answers(endpoints.HEARTBEAT)
def _heartbeat(call: Call) -> Fields:
    kept, now = given(**call.fields()), call.store.moment()
    name = kept.pop("agent_id")
    call.speak_for(name)
    call.store.execute(
        "INSERT INTO heartbeats (tenant, agent_id, first_at, last_at, fields) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant, agent_id) DO UPDATE SET last_at = excluded.last_at, fields = excluded.fields",
        (call.tenant, name, now, now, canonical_json(kept)),
    )
    standing = killswitch.standing(call.store, name, tenant=call.tenant)
    return {"success": True, "agent_id": name, "status": standing.word, "server_time": now}


@answers(endpoints.AGENT_HEALTH)
def _health(call: Call) -> Fields:
    name = call.parameters["agent_id"]
    beats = call.store.rows("SELECT * FROM heartbeats WHERE tenant = ? AND agent_id = ?", (call.tenant, name))
    if not beats:
        _agent(call)  # 404 for one that is not even registered
    standing = killswitch.standing(call.store, name, tenant=call.tenant)
    now = datetime.fromisoformat(call.store.moment())
    first, last = (beats[0]["first_at"], beats[0]["last_at"]) if beats else (None, None)
    up = last is not None and (now - datetime.fromisoformat(last)).total_seconds() <= _SILENCE
    return {
        "agent_id": name,
        "status": standing.word if standing.word != "active" else "online" if up else "offline",
        "last_heartbeat": last,
        "uptime_seconds": int((now - datetime.fromisoformat(first)).total_seconds()) if first and up else 0,
        "metadata": json.loads(beats[0]["fields"]) if beats else {},
    }


# --- the kill switch


@answers(endpoints.COMMAND_AGENT)
def _command(call: Call) -> Fields:
    body, name = call.body(bodies.Command), call.parameters["agent_id"]
    # Any agent can be blocked, also one that was never registered; it must only be possible to submit under the name.
    # An operator is told no such thing: what an earlier version let in can be stopped as well.
    if not (call.credential.is_operator or (0 < len(name) <= 255 and name == name.strip() and name.isprintable())):
        raise wrong("agent_id", "is no agent's id")
    return _issued(call, body.command_type, body.reason, body.parameters, agent_id=name)


@answers(endpoints.COMMAND_ALL)
def _broadcast(call: Call) -> Fields:
    body = call.body(bodies.Broadcast)
    return _issued(call, body.command_type, body.reason, body.parameters, mcp_server=body.mcp_server)


def _issued(call: Call, kind: str, reason: str, parameters: bodies.Parameters | None, **target: str | None) -> Fields:
    try:
        command = killswitch.issue(
            call.store,
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
def _pending_commands(call: Call) -> Fields:
    return {"commands": killswitch.pending(call.store, call.parameters["agent_id"], tenant=call.tenant)}


@answers(endpoints.ACK_COMMAND)
def _ack(call: Call) -> Fields:
    named: dict[str, Any] = {name: call.parameters[name] for name in ("agent_id", "command_id")}
    call.speak_for(named["agent_id"])
    try:
        command = killswitch.acknowledge(call.store, **named, tenant=call.tenant, key_id=call.credential.key_id)
    except NotFoundError as error:
        call.audit("AGENT_COMMAND_ACK_REJECTED", **named)
        raise ApiError(403, "COMMAND_ACK_REJECTED", error.message) from None
    call.audit("AGENT_COMMAND_ACKNOWLEDGED", **named, command_type=command["command_type"])
    return {"success": True, **named, "message": "acknowledged; an acknowledgement lifts nothing"}


@answers(endpoints.KILL_SWITCH_STATUS)
def _kill_switch_status(call: Call) -> Fields:
    agent_id = call.query(bodies.StatusQuery).agent_id
    return _status_of(call, None if agent_id is UNSET else agent_id)


def _status_of(call: Call, agent_id: str | None) -> Fields:
    """Return the standing in the words of every client generation (contract §2.10)."""
    standing = killswitch.standing(call.store, agent_id, tenant=call.tenant)
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
        "policy_state": call.authority.policy_state(),
        "max_per_minute": standing.max_per_minute,
        "organization_id": call.store.organization_id(call.tenant),
    }


@answers(endpoints.TRIGGER_KILL_SWITCH)
def _trigger(call: Call) -> Fields:
    return _thrown(call, "BLOCK", "kill switch triggered: every agent of the organisation is blocked")


@answers(endpoints.RELEASE_KILL_SWITCH)
def _release(call: Call) -> Fields:
    return _thrown(call, "UNBLOCK", "kill switch released; agents that were blocked by themselves stay so")


def _thrown(call: Call, kind: str, message: str) -> Fields:
    if call.parameters["organization_id"] not in (str(call.store.organization_id(call.tenant)), call.tenant):
        raise ApiError(404, "NOT_FOUND", "there is no such organisation")
    command = _issued(call, kind, call.body(bodies.Switch).reason, None)["command"]
    return {**_status_of(call, None), "success": True, "message": message, "command": command}
