"""What agents use, over HTTP: MCP servers, actions submitted in the words of MCP, and supply-chain components."""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import UNSET

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import ComponentQuery, Deactivation, McpAction, Page
from ascend_middleware.api.endpoint import given
from ascend_middleware.exceptions import ConflictError

from ..bodies import ApiError, decision_fields
from ..context import Call, Fields, Known, answers, check_patterns
from ..orchestration import find_server
from ..paging import cut, listed
from ..store.registry_store import AGENT, COMPONENT, MCP_SERVER
from .actions import check_standing, submit


@answers(endpoints.SUBMIT_MCP)
def _submit(call: Call) -> Fields:
    body = call.body(McpAction)
    action: dict[str, Any] = given(**call.fields())
    # What only MCP has words for becomes part of the context.
    words = {name: action.pop(name) for name in ("mcp_server", "namespace", "verb", "environment") if name in action}
    name = f"{body.namespace}.{body.verb}"
    action.setdefault("action_type", name)
    action.update(
        agent_id=body.agent_id or _agent_of_key(call, action["action_type"]),
        mcp_server_name=body.mcp_server,
        action_details=action.pop("parameters", {}),
        context=action.get("context", {}) | words,
    )
    # The verb is the tool where none is named: it must not be a way around the server's blocked tools.
    action.setdefault("tool_name", body.verb)
    fields = decision_fields(submit(call, action, tools=(body.verb, name)))
    # Some clients take for allowed what neither is denied nor requires an approval.
    return {**fields, "success": fields["status"] != "denied", "requires_approval": fields["status"] == "pending"}


def _agent_of_key(call: Call, action_type: str) -> str:
    """Return the agent that a key registered: existing clients do not say on whose behalf an MCP action is.

    Where it registered none or several, the key itself is the agent, and none of those may be blocked.
    """
    rows = call.store.rows(
        "SELECT name FROM records WHERE tenant = ? AND kind = ? AND key_id = ? ORDER BY id",
        (call.tenant, AGENT, call.credential.key_id),
    )
    if len(rows) == 1:
        return str(rows[0]["name"])
    for row in rows:
        check_standing(call, row["name"], action_type)
    return f"key-{call.credential.key_id}"


# --- MCP servers


@answers(endpoints.REGISTER_MCP_SERVER)
def _register_server(call: Call) -> Fields:
    fields = call.fields()
    name = fields.pop("server_name")
    check_patterns(fields, "blocked_tools", "auto_approve_tools", "tool_risk_overrides")
    # What a user registers waits for an admin, or registering would be a way around the registry.
    active = call.credential.role.administers
    fields |= {"active": active, "deactivated_reason": None if active else "not activated by an admin yet"}
    try:
        record = call.store.add(MCP_SERVER, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
    except ConflictError:
        raise ApiError(409, "CONFLICT", f"the MCP server {name!r} already exists") from None
    call.audit("MCP_SERVER_REGISTERED", mcp_server=name, active=active, blocked_tools=fields["blocked_tools"])
    message = "MCP server registered" if active else "MCP server registered; an admin must activate it"
    return {"success": True, "message": message, "server": _shown_server(call, record)}


def _shown_server(call: Call, record: dict[str, Any]) -> Fields:
    hidden = ("key_id",) if call.credential.role.administers else ("key_id", "connection_config")
    kept = {name: value for name, value in record.items() if name not in hidden}
    both = find_server(call.authority, record["name"], tenant=call.tenant)
    return {**kept, **_state(record["name"], both is not None and both.active), "source": "registry"}


def _state(name: str, active: bool) -> Fields:
    status = "active" if active else "inactive"
    return {"name": name, "server_name": name, "active": active, "is_active": active, "status": status}


def _declared(call: Call) -> dict[str, dict[str, Any]]:
    """Return the servers of the policy file by their names."""
    return {
        name: {
            "id": None,
            **_state(name, server.active),
            "blocked_tools": list(server.blocked_tools),
            "source": "policy file",
        }
        for name, server in call.authority.policy.mcp_servers.items()
    }


@answers(endpoints.LIST_MCP_SERVERS)
def _list_servers(call: Call) -> Fields:
    page = call.query(Page)
    rows = [_shown_server(call, record) for record in call.store.all(MCP_SERVER, tenant=call.tenant)]
    taken = {row["name"] for row in rows}
    rows += [row for name, row in _declared(call).items() if name not in taken]
    return listed("servers", page, cut(rows, page))


def _server(call: Call) -> Fields:
    return call.record(MCP_SERVER, call.parameters["name"], "MCP server")


@answers(endpoints.GET_MCP_SERVER)
def _get_server(call: Call) -> Fields:
    declared = _declared(call).get(call.parameters["name"])
    try:
        return _shown_server(call, _server(call))
    except ApiError:
        if declared is None:
            raise
        return declared


@answers(endpoints.ACTIVATE_MCP_SERVER)
def _activate(call: Call) -> Fields:
    fields = _switched(call, "activated", active=True, reason=None)
    if not fields["server"]["active"]:
        fields["message"] = "MCP server activated here, but the policy file keeps it deactivated"
    return fields


@answers(endpoints.DEACTIVATE_MCP_SERVER)
def _deactivate(call: Call) -> Fields:
    return _switched(call, "deactivated", active=False, reason=call.body(Deactivation).reason)


def _switched(call: Call, word: str, *, active: bool, reason: str | None) -> Fields:
    change = {"active": active, "deactivated_reason": reason}
    record = call.store.update(_server(call), change, tenant=call.tenant)
    call.audit(f"MCP_SERVER_{word.upper()}", mcp_server=record["name"], reason=reason)
    return {"success": True, "message": f"MCP server {word}", "server": _shown_server(call, record)}


@answers(endpoints.DELETE_MCP_SERVER)
def _delete_server(call: Call) -> Fields:
    record = _server(call)
    call.store.remove(record, tenant=call.tenant)
    call.audit("MCP_SERVER_REMOVED", mcp_server=record["name"])
    return {"success": True, "message": "MCP server removed", "server_name": record["name"]}


# --- supply-chain components


@answers(endpoints.REGISTER_COMPONENT)
def _register_component(call: Call) -> Fields:
    fields = call.fields()
    name = fields.pop("component_id")
    fields |= {"active": True, "vulnerability_count": 0}
    try:
        record = call.store.add(COMPONENT, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
        word = "registered"
    except ConflictError:
        record = call.store.update(call.record(COMPONENT, name, "component"), fields, tenant=call.tenant)
        word = "updated"
    kind, risk = fields["component_type"], fields["risk_level"]
    call.audit(f"SUPPLY_CHAIN_COMPONENT_{word.upper()}", component_id=name, component_type=kind, risk_level=risk)
    told = {"success": True, "component": _shown_component(record), "message": f"component {word}"}
    return Known(told) if word == "updated" else told


def _shown_component(record: dict[str, Any]) -> Fields:
    kept = {name: value for name, value in record.items() if name not in ("name", "key_id")}
    return {**kept, "component_id": record["name"]}


@answers(endpoints.LIST_COMPONENTS)
def _list_components(call: Call) -> Fields:
    query = call.query(ComponentQuery)
    rows = [
        _shown_component(record)
        for record in call.store.all(COMPONENT, tenant=call.tenant)
        if query.component_type in (UNSET, record["component_type"])
        and query.risk_level in (UNSET, record["risk_level"])
        and query.has_vulnerabilities in (UNSET, record["vulnerability_count"] > 0)
        and (query.active_only is not True or record["active"])
    ]
    return listed("components", query, cut(rows, query))


@answers(endpoints.COMPONENT_STATS)
def _component_stats(call: Call) -> Fields:
    rows = call.store.all(COMPONENT, tenant=call.tenant)
    return {
        "total": len(rows),
        "total_components": len(rows),
        "active_components": sum(bool(row["active"]) for row in rows),
        "by_type": dict(Counter(row["component_type"] for row in rows)),
        "by_risk_level": dict(Counter(row["risk_level"] for row in rows)),
        "provenance_verified": sum(bool(row["provenance_verified"]) for row in rows),
        "outdated": sum(row["latest_version"] not in (None, row["version"]) for row in rows),
        "vulnerable_components": sum(row["vulnerability_count"] > 0 for row in rows),
    }
