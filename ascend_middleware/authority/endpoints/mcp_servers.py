"""The registry of MCP servers over HTTP, and actions submitted in the words of MCP."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Deactivation, McpAction, NewServer, Page
from ascend_middleware.exceptions import ConflictError, NotFoundError

from ..answers import decision_fields
from ..bodies import ApiError
from ..context import Call, Handlers, Reply, check_patterns
from ..pagination import listed
from ..policy.registry_rules import find_server
from ..store.registry_store import AGENT, MCP_SERVER
from .actions import check_standing, submit

__all__ = ["HANDLERS"]


# What a submission takes from an action in the words of MCP as it is.
_SAME: Final = (
    "resource",
    "description",
    "tool_name",
    "agent_name",
    "risk_indicators",
    "model_id",
    "orchestration_session_id",
    "parent_action_id",
    "orchestration_depth",
)


def _submit(call: Call) -> Reply:
    body = call.body(McpAction)
    action = {name: getattr(body, name) for name in _SAME if getattr(body, name) is not None}
    surroundings = {"mcp_server": body.mcp_server, "namespace": body.namespace, "verb": body.verb}
    if body.environment is not None:
        surroundings["environment"] = body.environment
    action |= {
        "agent_id": body.agent_id or _agent_of_key(call, body.action_type or f"{body.namespace}.{body.verb}"),
        "action_type": body.action_type or f"{body.namespace}.{body.verb}",
        "mcp_server_name": body.mcp_server,
        "action_details": body.parameters or {},
        "context": {**(body.context or {}), **surroundings},
    }
    # The verb is the tool where none is named: it must not be a way around the server's blocked tools.
    action.setdefault("tool_name", body.verb)
    fields = decision_fields(submit(call, action, tools=(body.verb, f"{body.namespace}.{body.verb}")))
    # Some clients take for allowed what neither is denied nor requires an approval.
    fields["success"] = fields["status"] != "denied"
    fields["requires_approval"] = fields["status"] == "pending"
    return Reply(fields=fields, kind="decision")


def _agent_of_key(call: Call, action_type: str) -> str:
    """Return the agent that a key registered: existing clients do not say on whose behalf an MCP action is.

    Where it registered none or several, the key itself is the agent, and none of those may be blocked.
    """
    rows = call.records.rows(
        "SELECT name FROM records WHERE tenant = ? AND kind = ? AND key_id = ? ORDER BY id",
        (call.tenant, AGENT, call.credential.key_id),
    )
    if len(rows) == 1:
        return str(rows[0]["name"])
    for row in rows:
        check_standing(call, row["name"], action_type)
    return f"key-{call.credential.key_id}"


def _register(call: Call) -> Reply:
    new = call.body(NewServer)
    fields = msgspec.to_builtins(new)
    name = fields.pop("server_name")
    check_patterns(fields, "blocked_tools", "auto_approve_tools", "tool_risk_overrides")
    # What a user registers waits for an admin, or registering would be a way around the registry.
    active = call.credential.role.administers
    fields |= {"active": active, "deactivated_reason": None if active else "not activated by an admin yet"}
    try:
        record = call.records.add(MCP_SERVER, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
    except ConflictError:
        raise ApiError(409, "CONFLICT", f"the MCP server {name!r} already exists") from None
    call.audit("MCP_SERVER_REGISTERED", mcp_server=name, active=active, blocked_tools=list(new.blocked_tools))
    message = "MCP server registered" if active else "MCP server registered; an admin must activate it"
    return Reply(fields={"success": True, "message": message, "server": _shown(call, record)}, status=201)


def _shown(call: Call, record: dict[str, Any]) -> dict[str, Any]:
    hidden = ("key_id",) if call.credential.role.administers else ("key_id", "connection_config")
    kept = {name: value for name, value in record.items() if name not in hidden}
    both = find_server(call.authority, record["name"], tenant=call.tenant)
    active = both is not None and both.active
    kept |= {"server_name": record["name"], "active": active, "is_active": active}
    return {**kept, "status": "active" if active else "inactive", "source": "registry"}


def _declared(call: Call, taken: set[str]) -> list[dict[str, Any]]:
    return [
        {
            "id": None,
            "name": server.name,
            "server_name": server.name,
            "active": server.active,
            "is_active": server.active,
            "status": "active" if server.active else "inactive",
            "blocked_tools": list(server.blocked_tools),
            "source": "policy file",
        }
        for server in call.authority.policy.mcp_servers.values()
        if server.name not in taken
    ]


def _list(call: Call) -> Reply:
    page = call.query(Page)
    records = call.records.all(MCP_SERVER, tenant=call.tenant)
    rows = [_shown(call, record) for record in records]
    rows += _declared(call, {record["name"] for record in records})
    shown = rows[page.offset : page.offset + page.limit]
    return Reply(fields=listed(page, "servers", shown, len(rows)))


def _server(call: Call) -> dict[str, Any]:
    try:
        return call.records.get(MCP_SERVER, call.parameters["name"], tenant=call.tenant)
    except NotFoundError:
        raise ApiError(404, "NOT_FOUND", "there is no such MCP server") from None


def _get(call: Call) -> Reply:
    declared = [row for row in _declared(call, set()) if row["name"] == call.parameters["name"]]
    try:
        return Reply(fields=_shown(call, _server(call)))
    except ApiError:
        if not declared:
            raise
        return Reply(fields=declared[0])


def _activate(call: Call) -> Reply:
    return _switch(call, active=True, reason=None)


def _deactivate(call: Call) -> Reply:
    return _switch(call, active=False, reason=call.body(Deactivation).reason)


def _switch(call: Call, *, active: bool, reason: str | None) -> Reply:
    record = _server(call)
    change = {"active": active, "deactivated_reason": reason}
    record = call.records.update(record, change, tenant=call.tenant)
    call.audit("MCP_SERVER_ACTIVATED" if active else "MCP_SERVER_DEACTIVATED", mcp_server=record["name"], reason=reason)
    server = _shown(call, record)
    message = f"MCP server {'activated' if active else 'deactivated'}"
    if active and not server["active"]:
        message = "MCP server activated here, but the policy file keeps it deactivated"
    return Reply(fields={"success": True, "message": message, "server": server})


def _delete(call: Call) -> Reply:
    record = _server(call)
    call.records.remove(record, tenant=call.tenant)
    call.audit("MCP_SERVER_REMOVED", mcp_server=record["name"])
    return Reply(fields={"success": True, "message": "MCP server removed", "server_name": record["name"]})


HANDLERS: Final[Handlers] = {
    endpoints.SUBMIT_MCP: _submit,
    endpoints.LIST_MCP_SERVERS: _list,
    endpoints.REGISTER_MCP_SERVER: _register,
    endpoints.GET_MCP_SERVER: _get,
    endpoints.DELETE_MCP_SERVER: _delete,
    endpoints.ACTIVATE_MCP_SERVER: _activate,
    endpoints.DEACTIVATE_MCP_SERVER: _deactivate,
}
