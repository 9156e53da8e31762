"""What a submission claims about its context: parent action, session, MCP server and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ascend_middleware.exceptions import NotFoundError

from .bodies import ApiError
from .context import Call, action_number
from .policy import registry_rules
from .store.database import StorageError
from .store.registry_store import AGENT

__all__ = ["Findings", "check", "try_out"]


class Findings(NamedTuple):
    """What the answer says of the MCP server and the model, and what they add to the risk, by name."""

    found: dict[str, Any]
    signals: dict[str, int]


def check(action: dict[str, Any], call: Call, *, tools: Iterable[str] = ()) -> Findings:
    """Refuse claims that do not hold (403, with an audit entry), and return what was found for the answer.

    An action without a session inherits its parent's, one without a model or a name of its agent those of the agent.
    """
    _name(action, call)
    findings = Findings({}, {})
    named_tools = {*tools, *_tools(action)}
    refusal = _parent(action, call) or _server(action, call, named_tools, findings) or _model(action, call, findings)
    if refusal is None:
        return findings
    event, code, message, named = refusal
    severity = "CRITICAL" if event == "ORCHESTRATION_GRAFT_ATTEMPT" else "WARNING"
    told = {name: value for name, value in named.items() if name != "error"}
    call.audit(event, code=code, agent_id=action["agent_id"], severity=severity, **told)
    detail = {**named, "code": code, "detail": message, "correlation_id": call.request.correlation_id}
    raise ApiError(403, code, message, detail=detail if named else None)


def try_out(action: dict[str, Any], call: Call) -> tuple[list[str], Findings]:
    """Return what would be refused about an action that is not submitted, and what would be found."""
    _name(action, call)
    findings = Findings({}, {})
    refusals = (_server(action, call, _tools(action), findings), _model(action, call, findings))
    return [one[2] for one in refusals if one is not None], findings


# event, code, message, and what makes the answer's detail one of governance
_Refusal = tuple[str, str, str, "Mapping[str, Any]"]


def _parent(action: dict[str, Any], call: Call) -> _Refusal | None:
    given, depth = action.get("parent_action_id"), action.get("orchestration_depth", 0)
    rejected, strict = "ORCHESTRATION_FIELD_REJECTED", call.authority.policy.strict_depth
    if given is None:
        if strict and depth:
            return rejected, rejected, "orchestration_depth is above 0, and there is no parent_action_id", {}
        return None
    try:
        parent = call.store.action(action_number(given) or 0, tenant=call.tenant)
    except NotFoundError:
        return rejected, rejected, "parent_action_id names no action of this organisation", {}
    except StorageError:
        # Whatever keeps the claim from being checked refuses it; the audit entry may not be possible either.
        raise ApiError(403, rejected, "parent_action_id could not be checked") from None
    session = action.get("orchestration_session_id")
    if session is None and parent["session"] is not None:
        action["orchestration_session_id"] = parent["session"]
    elif session != parent["session"]:
        graft = "ORCHESTRATION_GRAFT_ATTEMPT"
        return graft, graft, "orchestration_session_id is not the parent action's session", {}
    if strict and depth != parent["submission"].get("orchestration_depth", 0) + 1:
        return rejected, rejected, "orchestration_depth is not one more than the parent action's", {}
    return None


def _server(action: Mapping[str, Any], call: Call, tools: set[str], findings: Findings) -> _Refusal | None:
    name = action.get("mcp_server_name")
    if name is None:
        return None
    server = registry_rules.check_server(call.authority, name, tools, tenant=call.tenant)
    if isinstance(server, registry_rules.Refusal):
        return "MCP_GOVERNANCE_DENY", *server, {"error": "MCP governance violation", "mcp_server_name": name}
    findings.found["mcp_governance"] = {"server_registered": True, "enforcement": "Layer 13", "mcp_server_name": name}
    for tool, risk in server.tool_risks:
        if registry_rules.names_tool(tool, tools):
            findings.signals[f"tool {tool}"] = max(risk, findings.signals.get(f"tool {tool}", 0))
    return None


def _tools(action: Mapping[str, Any]) -> set[str]:
    # Some clients send the tool's name among the parameters.
    given = (action.get("tool_name"), action["action_details"].get("tool_name"))
    return {name for name in given if isinstance(name, str)}


def _model(action: Mapping[str, Any], call: Call, findings: Findings) -> _Refusal | None:
    given = action.get("model_id")
    if given is None:
        # What the action does not say must not be a way around the model of its agent.
        number = _registered(call, action["agent_id"]).get("model_id")
        given = number if isinstance(number, int) else None
    if given is None:
        return None
    model = registry_rules.find_model(call.authority, given, tenant=call.tenant)
    if isinstance(model, registry_rules.Refusal):
        return "MODEL_GOVERNANCE_DENY", *model, {"error": "Model governance violation", "model_id": given}
    findings.found["model_governance"] = {
        "registry_checked": True,
        "compliance_status": model.compliance_status,
        "enforcement": "SR-11-7/EU-AI-ACT-ART9",
        "model_id": model.id,
    }
    return None


def _name(action: dict[str, Any], call: Call) -> None:
    """Give an action that says no name for its agent the registered one."""
    if action["agent_name"] == action["agent_id"]:
        registered = _registered(call, action["agent_id"])
        action["agent_name"] = registered.get("agent_name") or registered.get("display_name") or action["agent_id"]


def _registered(call: Call, agent_id: str) -> Mapping[str, Any]:
    """Return what is registered of an agent, nothing if it is not."""

    def load() -> Mapping[str, Any]:
        try:
            return call.store.get(AGENT, agent_id, tenant=call.tenant)
        except NotFoundError:
            return {}

    return call.store.cached(("registered", call.tenant, agent_id), load)
