"""Agents over HTTP: registration, the model they are linked to, heartbeats."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import msgspec

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import AgentChange, NewAgent, Page
from ascend_middleware.api.endpoint import given
from ascend_middleware.exceptions import ConflictError

from .. import killswitch
from ..bodies import ApiError, listed
from ..context import Call, Known, answers
from ..policy.registry_rules import Refusal, find_model
from ..store.registry_store import AGENT
from ..store.store import canonical_json

# An agent that was silent for longer is shown as offline.
_SILENCE: Final = 120.0


@answers(endpoints.REGISTER_AGENT)
def _register(call: Call) -> dict[str, Any]:
    return _register_new(call, call.body(NewAgent))


def _register_new(call: Call, new: NewAgent) -> dict[str, Any]:
    fields = {**msgspec.to_builtins(new), "status": "active"}
    # The generations of clients call it by either name.
    fields["display_name"] = new.display_name or new.agent_name or new.agent_id
    fields["agent_name"] = new.agent_name or fields["display_name"]
    name = fields.pop("agent_id")
    try:
        record = call.records.add(AGENT, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
    except ConflictError:
        return _registered_before(call, name)
    call.audit("AGENT_REGISTERED", agent_id=name, agent_type=new.agent_type)
    return _told(call, record, "agent registered")


def _registered_before(call: Call, name: str) -> dict[str, Any]:
    try:
        record = _agent(call, name)
    except ApiError:
        call.audit("AGENT_REGISTRATION_REFUSED", agent_id=name)
        # Some clients take a refusal that says "already exists" for a success.
        raise ApiError(409, "AGENT_ID_TAKEN", "this agent_id is taken by another organisation") from None
    fields = _told(call, record, "agent already registered; nothing was changed")
    return Known({**fields, "status": "already_registered"})


def _told(call: Call, record: dict[str, Any], message: str) -> dict[str, Any]:
    agent = _shown(call, record)
    shown = {name: agent[name] for name in ("agent_id", "status", "trust_level")}
    return {"success": True, "message": message, **shown, "agent": agent}


def _shown(call: Call, record: dict[str, Any]) -> dict[str, Any]:
    """Return an agent as the API shows it; its status is what the kill switch says of it."""
    standing = killswitch.standing(call.records, record["name"], tenant=call.tenant)
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
def _list(call: Call) -> dict[str, Any]:
    page = call.query(Page)
    rows, total = call.records.page(AGENT, tenant=call.tenant, limit=page.limit, offset=page.offset)
    return listed("agents", [_shown(call, row) for row in rows], page, total)


@answers(endpoints.GET_AGENT)
def _get(call: Call) -> dict[str, Any]:
    return _shown(call, _agent(call))


def _agent(call: Call, name: str = "") -> dict[str, Any]:
    return call.record(AGENT, name or call.parameters["agent_id"], "agent")


def _acting(call: Call) -> dict[str, Any]:
    """Return an agent; one that has acted, and that nobody registered, is registered by whoever changes it."""
    try:
        return _agent(call)
    except ApiError:
        name = call.parameters["agent_id"]
        acted = call.records.rows(
            "SELECT json_extract(submission, '$.agent_name') FROM actions WHERE tenant = ? AND agent_id = ?"
            " ORDER BY id DESC LIMIT 1",
            (call.tenant, name),
        )
        if not acted:
            raise
    _register_new(call, NewAgent(agent_id=name, agent_name=acted[0][0] or None))
    return _agent(call)


@answers(endpoints.UPDATE_AGENT)
def _update(call: Call) -> dict[str, Any]:
    record, change = _acting(call), call.body(AgentChange)
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
    return _told(call, call.records.update(record, fields, tenant=call.tenant), message)


@answers(endpoints.DEREGISTER_AGENT)
def _delete(call: Call) -> dict[str, Any]:
    record = _agent(call)
    name = record["name"]
    if not call.credential.role.administers and record["key_id"] != call.credential.key_id:
        call.audit("ACCESS_REFUSED", agent_id=name, endpoint="DELETE /api/registry/agents/{agent_id}")
        raise ApiError(403, "ADMIN_REQUIRED", "only an admin, or the key that registered an agent, may remove it")
    call.records.remove(record, tenant=call.tenant)
    call.records.change("DELETE FROM heartbeats WHERE tenant = ? AND agent_id = ?", (call.tenant, name))
    # Its commands stay: a blocked agent must not come back unblocked by registering again.
    call.audit("AGENT_DEREGISTERED", agent_id=name)
    return {"success": True, "agent_id": name, "message": "agent removed"}


@answers(endpoints.HEARTBEAT)
def _heartbeat(call: Call) -> dict[str, Any]:
    kept, now = given(**call.fields()), call.records.now()
    name = kept.pop("agent_id")
    call.records.change(
        "INSERT INTO heartbeats (tenant, agent_id, first_at, last_at, fields) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant, agent_id) DO UPDATE SET last_at = excluded.last_at, fields = excluded.fields",
        (call.tenant, name, now, now, canonical_json(kept)),
    )
    standing = killswitch.standing(call.records, name, tenant=call.tenant)
    return {"success": True, "agent_id": name, "status": standing.word, "server_time": now}


@answers(endpoints.AGENT_HEALTH)
def _health(call: Call) -> dict[str, Any]:
    name = call.parameters["agent_id"]
    beats = call.records.rows("SELECT * FROM heartbeats WHERE tenant = ? AND agent_id = ?", (call.tenant, name))
    if not beats:
        _agent(call)  # 404 for one that is not even registered
    standing = killswitch.standing(call.records, name, tenant=call.tenant)
    now = datetime.fromisoformat(call.records.now())
    first, last = (beats[0]["first_at"], beats[0]["last_at"]) if beats else (None, None)
    up = last is not None and (now - datetime.fromisoformat(last)).total_seconds() <= _SILENCE
    return {
        "agent_id": name,
        "status": standing.word if standing.word != "active" else "online" if up else "offline",
        "last_heartbeat": last,
        "uptime_seconds": int((now - datetime.fromisoformat(first)).total_seconds()) if first and up else 0,
        "metadata": json.loads(beats[0]["fields"]) if beats else {},
    }
