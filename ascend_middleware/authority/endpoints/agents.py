"""Agents: registration, the model they are linked to, heartbeats."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import msgspec

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import AgentChange, Heartbeat, NewAgent, Page
from ascend_middleware.exceptions import ConflictError, NotFoundError

from .. import killswitch
from ..bodies import ApiError
from ..context import Call, Handlers, Reply
from ..pagination import listed
from ..policy.registry_rules import find_model
from ..store.registry_store import AGENT
from ..store.store import canonical_json

__all__ = ["HANDLERS"]

_TRUST: Final = "standard"
# An agent that was silent for longer is shown as offline.
_SILENCE: Final = 120.0


def _register(call: Call) -> Reply:
    return _register_new(call, call.body(NewAgent))


def _register_new(call: Call, new: NewAgent) -> Reply:
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
    return _told(call, record, "agent registered", 201)


def _registered_before(call: Call, name: str) -> Reply:
    try:
        record = call.records.get(AGENT, name, tenant=call.tenant)
    except NotFoundError:
        call.audit("AGENT_REGISTRATION_REFUSED", agent_id=name)
        # Some clients take a refusal that says "already exists" for a success.
        raise ApiError(409, "AGENT_ID_TAKEN", "this agent_id is taken by another organisation") from None
    reply = _told(call, record, "agent already registered; nothing was changed", 200)
    return Reply(fields={**reply.fields, "status": "already_registered"})


def _told(call: Call, record: dict[str, Any], message: str, status: int = 200) -> Reply:
    agent = agent_fields(call, record)
    shown = {name: agent[name] for name in ("agent_id", "status", "trust_level")}
    return Reply(fields={"success": True, "message": message, **shown, "agent": agent}, status=status)


def agent_fields(call: Call, record: dict[str, Any]) -> dict[str, Any]:
    """Return an agent as the API shows it; its status is what the kill switch says of it."""
    standing = killswitch.standing(call.records, record["name"], tenant=call.tenant)
    kept = {name: value for name, value in record.items() if name not in ("name", "key_id")}
    return {
        **kept,
        "agent_id": record["name"],
        "agent_name": record.get("agent_name") or record["display_name"],
        "status": standing.word,
        "blocked": standing.blocked,
        "trust_level": _TRUST,
        "model_id": record.get("model_id"),
        "registered_by_key": record["key_id"],
    }


def _list(call: Call) -> Reply:
    page = call.query(Page)
    rows, total = call.records.page(AGENT, tenant=call.tenant, limit=page.limit, offset=page.offset)
    return Reply(fields=listed(page, "agents", [agent_fields(call, row) for row in rows], total))


def _get(call: Call) -> Reply:
    return Reply(fields=agent_fields(call, _agent(call)))


def _agent(call: Call) -> dict[str, Any]:
    try:
        return call.records.get(AGENT, call.parameters["agent_id"], tenant=call.tenant)
    except NotFoundError:
        raise ApiError(404, "NOT_FOUND", "there is no such agent") from None


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
    new = NewAgent(agent_id=name, agent_name=acted[0][0] or None)
    _register_new(call, new)
    return _agent(call)


def _update(call: Call) -> Reply:
    record = _acting(call)
    change = call.body(AgentChange)
    fields = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
    message = "agent updated"
    if change.model_id is not None:
        model, refusal = find_model(call.authority, change.model_id, tenant=call.tenant)
        if model is None or refusal is not None:
            code, words = refusal or ("MODEL_UNREGISTERED_DENY", "the model is not registered")
            call.audit("AGENT_MODEL_LINK_REFUSED", agent_id=record["name"], model_id=change.model_id, code=code)
            # No governance form: some clients take one for a success, whatever the endpoint.
            raise ApiError(403, code, words)
        fields["model_id"] = model.id
        message = f"model {model.id} linked to agent {record['name']}"
        call.audit("AGENT_MODEL_LINKED", agent_id=record["name"], model_id=model.id)
    if set(fields) - {"model_id"}:
        call.audit("AGENT_UPDATED", agent_id=record["name"], changed=sorted(fields))
    return _told(call, call.records.update(record, fields, tenant=call.tenant), message)


def _delete(call: Call) -> Reply:
    record = _agent(call)
    if not call.credential.role.administers and record["key_id"] != call.credential.key_id:
        call.audit("ACCESS_REFUSED", agent_id=record["name"], endpoint="DELETE /api/registry/agents/{agent_id}")
        raise ApiError(403, "ADMIN_REQUIRED", "only an admin, or the key that registered an agent, may remove it")
    call.records.remove(record, tenant=call.tenant)
    call.records.change("DELETE FROM heartbeats WHERE tenant = ? AND agent_id = ?", (call.tenant, record["name"]))
    # Its commands stay: a blocked agent must not come back unblocked by registering again.
    call.audit("AGENT_DEREGISTERED", agent_id=record["name"])
    return Reply(fields={"success": True, "agent_id": record["name"], "message": "agent removed"})


def _heartbeat(call: Call) -> Reply:
    beat = call.body(Heartbeat)
    now = call.records.now()
    kept = {name: value for name, value in msgspec.structs.asdict(beat).items() if value is not None}
    name = kept.pop("agent_id")
    call.records.change(
        "INSERT INTO heartbeats (tenant, agent_id, first_at, last_at, fields) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant, agent_id) DO UPDATE SET last_at = excluded.last_at, fields = excluded.fields",
        (call.tenant, name, now, now, canonical_json(kept)),
    )
    standing = killswitch.standing(call.records, name, tenant=call.tenant)
    return Reply(fields={"success": True, "agent_id": name, "status": standing.word, "server_time": now})


def _health(call: Call) -> Reply:
    name = call.parameters["agent_id"]
    beats = call.records.rows("SELECT * FROM heartbeats WHERE tenant = ? AND agent_id = ?", (call.tenant, name))
    if not beats:
        _agent(call)  # 404 for one that is not even registered
    standing = killswitch.standing(call.records, name, tenant=call.tenant)
    now = datetime.fromisoformat(call.records.now())
    first, last = (beats[0]["first_at"], beats[0]["last_at"]) if beats else (None, None)
    silence = (now - datetime.fromisoformat(last)).total_seconds() if last else None
    up = silence is not None and silence <= _SILENCE
    fields = {
        "agent_id": name,
        "status": standing.word if standing.word != "active" else "online" if up else "offline",
        "last_heartbeat": last,
        "uptime_seconds": int((now - datetime.fromisoformat(first)).total_seconds()) if first and up else 0,
        "metadata": json.loads(beats[0]["fields"]) if beats else {},
    }
    return Reply(fields=fields)


HANDLERS: Final[Handlers] = {
    endpoints.LIST_AGENTS: _list,
    endpoints.REGISTER_AGENT: _register,
    endpoints.GET_AGENT: _get,
    endpoints.UPDATE_AGENT: _update,
    endpoints.DEREGISTER_AGENT: _delete,
    endpoints.HEARTBEAT: _heartbeat,
    endpoints.AGENT_HEALTH: _health,
}
