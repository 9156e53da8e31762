"""MCP: actions of a server's tools, and the register of servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...exceptions import ProtocolError, ValidationError
from ...models import AgentAction, AuthorizationDecision, Record
from ...wire import decode_decision, decode_governance_refusal, decode_object, encode_json, submit_body
from .operation import Operation, acknowledgement, name, number, optional_texts, path, record, texts

__all__ = [
    "activate_server",
    "deactivate_server",
    "delete_server",
    "get_server",
    "list_servers",
    "register_server",
    "submit_mcp",
]

_SERVERS = "/api/registry/mcp-servers"


def submit_mcp(
    action: AgentAction, *, mcp_server: str, namespace: str, verb: str, environment: str
) -> Operation[AuthorizationDecision]:
    """Submit what a tool of an MCP server is about to do.

    Args:
        action: the same as an action; its details are the tool's arguments.
        mcp_server: the server's registered name.
        namespace: what the tool belongs to, `filesystem`.
        verb: what it does, `read_file`.
        environment: where, `production`.
    """
    checked = submit_body(action)
    body: dict[str, Any] = {
        "mcp_server": name("mcp_server", mcp_server),
        "namespace": name("namespace", namespace),
        "verb": name("verb", verb),
        "resource": action.resource,
        "action_type": action.action_type,
        "description": action.description,
        "parameters": checked.get("action_details", {}),
        "context": checked.get("context", {}),
        "environment": name("environment", environment),
        "tool_name": action.tool_name,
    }
    # Beyond the documented keys: who acts, and what binds the action to a session and a model.
    for extra in (
        "agent_id",
        "agent_name",
        "orchestration_session_id",
        "parent_action_id",
        "orchestration_depth",
        "model_id",
    ):
        if extra in checked:
            body[extra] = checked[extra]
    return Operation(
        method="POST",
        target="/api/v1/mcp/actions/submit",
        content=encode_json(body),
        decode=decode_decision,
        refusal=decode_governance_refusal,
    )


def register_server(
    server_name: str,
    *,
    transport_type: str,
    governance_enabled: bool,
    connection_config: Mapping[str, Any] | None,
    auto_approve_tools: Sequence[str] | None,
    blocked_tools: Sequence[str] | None,
    tool_risk_overrides: Mapping[str, int] | None,
    optional: Mapping[str, object],
) -> Operation[Record]:
    """Register an MCP server, so that actions may name it."""
    body: dict[str, Any] = {
        "server_name": name("server_name", server_name),
        "transport_type": name("transport_type", transport_type),
        "governance_enabled": governance_enabled,
        **optional_texts(**optional),
    }
    if not isinstance(governance_enabled, bool):
        raise ValidationError("governance_enabled must be True or False", field="governance_enabled")
    for field, tools in (("auto_approve_tools", auto_approve_tools), ("blocked_tools", blocked_tools)):
        if tools is not None:
            body[field] = texts(field, tools)
    for field, table in (("connection_config", connection_config), ("tool_risk_overrides", tool_risk_overrides)):
        if table is not None:
            if not isinstance(table, Mapping):
                raise ValidationError(f"{field} must be a mapping", field=field)
            body[field] = dict(table)
    for tool, risk in body.get("tool_risk_overrides", {}).items():
        number(f"tool_risk_overrides[{tool!r}]", risk, low=0, high=100)
    return Operation(method="POST", target=_SERVERS, content=encode_json(body), decode=record)


def list_servers() -> Operation[Record]:
    """Fetch the registered MCP servers."""
    return Operation(method="GET", target=_SERVERS, decode=_servers)


def _servers(content: bytes) -> Record:
    answer = decode_object(content)
    rows = next((answer[key] for key in ("servers", "mcp_servers", "data") if key in answer), None)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the authority's answer holds no MCP servers")
    servers = [Record(row) for row in rows]
    return Record({**{key: value for key, value in answer.items() if key != "data"}, "servers": servers})


def get_server(server_name: str) -> Operation[Record]:
    """Fetch one MCP server."""
    return Operation(method="GET", target=_server(server_name), decode=record)


def activate_server(server_name: str) -> Operation[Record]:
    """Let actions name the server again."""
    target = f"{_server(server_name)}/activate"
    return Operation(method="POST", target=target, content=b"{}", decode=acknowledgement)


def deactivate_server(server_name: str, reason: str | None) -> Operation[Record]:
    """Have every action that names the server denied."""
    content = encode_json(optional_texts(reason=reason))
    target = f"{_server(server_name)}/deactivate"
    return Operation(method="POST", target=target, content=content, decode=acknowledgement)


def delete_server(server_name: str) -> Operation[Record]:
    """Remove an MCP server from the register."""
    return Operation(method="DELETE", target=_server(server_name), decode=acknowledgement)


def _server(server_name: str) -> str:
    return path(_SERVERS + "/{server_name}", server_name=name("server_name", server_name))
