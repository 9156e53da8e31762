"""What a submission claims about its surroundings: parent action, session, MCP server and model."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from ascend_middleware.exceptions import NotFoundError, ProtocolError
from ascend_middleware.wire import normalize_action_id

from .forms import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keys import Credential
    from .listing import Request
    from .policy import PolicySet
    from .store import Store

__all__ = ["check"]


def check(
    action: dict[str, Any], request: Request, store: Store, policy: PolicySet, credential: Credential
) -> dict[str, Any]:
    """Refuse claims that do not hold (403, with an audit entry), and return what was found for the answer.

    An action without a session inherits its parent's.
    """
    found: dict[str, Any] = {}
    refusal = _parent(action, store, credential) or _server(action, policy, found) or _model(action, policy, found)
    if refusal is None:
        return found
    event, code, message, governance = refusal
    data = {
        "code": code,
        "key": credential.key_id,
        "agent_id": action["agent_id"],
        "severity": "CRITICAL" if event == "ORCHESTRATION_GRAFT_ATTEMPT" else "WARNING",
        "correlation_id": request.correlation_id,
    }
    store.audit(event, tenant=credential.tenant, actor=credential.name, data=data)
    detail = {**governance, "code": code, "detail": message, "correlation_id": request.correlation_id}
    raise ApiError(403, code, message, detail=detail if governance else None)


# event, code, message, and what makes the answer's detail one of governance
_Refusal = tuple[str, str, str, "Mapping[str, Any]"]


def _parent(action: dict[str, Any], store: Store, credential: Credential) -> _Refusal | None:
    given = action.get("parent_action_id")
    if given is None:
        return None
    rejected = "ORCHESTRATION_FIELD_REJECTED"
    try:
        digits = normalize_action_id(given)
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 19 else 0
        parent = store.action(number, tenant=credential.tenant)
    except (ProtocolError, NotFoundError):
        return rejected, rejected, "parent_action_id names no action of this organisation", {}
    except sqlite3.Error:
        # Whatever keeps the claim from being checked refuses it; the audit entry may not be possible either.
        raise ApiError(403, rejected, "parent_action_id could not be checked") from None
    session = action.get("orchestration_session_id")
    if session is None and parent["session"] is not None:
        action["orchestration_session_id"] = parent["session"]
    elif session != parent["session"]:
        graft = "ORCHESTRATION_GRAFT_ATTEMPT"
        return graft, graft, "orchestration_session_id is not the parent action's session", {}
    return None


def _server(action: Mapping[str, Any], policy: PolicySet, found: dict[str, Any]) -> _Refusal | None:
    name = action.get("mcp_server_name")
    if name is None:
        return None
    server = policy.mcp_servers.get(name)
    if server is None:
        code, message = "MCP_SERVER_UNREGISTERED_DENY", f"the MCP server {name!r} is not registered"
    elif not server.active:
        code, message = "MCP_SERVER_DEACTIVATED_DENY", f"the MCP server {name!r} is deactivated"
    elif _tools(action) & set(server.blocked_tools):
        code, message = "MCP_TOOL_BLOCKED_DENY", f"the MCP server {name!r} may not be used for this tool"
    else:
        found["mcp_governance"] = {"server_registered": True, "enforcement": "Layer 13"}
        return None
    return "MCP_GOVERNANCE_DENY", code, message, {"error": "MCP governance violation", "mcp_server_name": name}


def _tools(action: Mapping[str, Any]) -> set[str]:
    # Some clients send the tool's name among the parameters.
    given = (action.get("tool_name"), action["action_details"].get("tool_name"))
    return {name for name in given if isinstance(name, str)}


def _model(action: Mapping[str, Any], policy: PolicySet, found: dict[str, Any]) -> _Refusal | None:
    given = action.get("model_id")
    if given is None:
        return None
    model = next((row for row in policy.models if given in (row.id, str(row.id)) or given == (row.name or None)), None)
    if model is None:
        code, message = "MODEL_UNREGISTERED_DENY", "the model is not registered"
    elif model.compliance_status not in ("approved", "partially_approved"):
        code, message = "MODEL_NOT_APPROVED_DENY", f"the model is {model.compliance_status}"
    else:
        found["model_governance"] = {
            "registry_checked": True,
            "compliance_status": model.compliance_status,
            "enforcement": "SR-11-7/EU-AI-ACT-ART9",
        }
        return None
    return "MODEL_GOVERNANCE_DENY", code, message, {"error": "Model governance violation", "model_id": given}
