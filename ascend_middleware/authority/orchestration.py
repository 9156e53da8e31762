"""What a submission claims about its context: parent action, session, MCP server and model.

Servers and models may stand in the policy file and in the database. Where both speak of the same one, the stricter
counts: a server that either deactivates is deactivated, a tool that either blocks is blocked, a model that either
refuses is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ascend_middleware.exceptions import NotFoundError

from . import killswitch
from .bodies import ApiError
from .context import AuthorityContext, Call, action_number
from .policy import McpServer, Model, listed
from .store.database import StorageError
from .store.registry_store import AGENT, MCP_SERVER, MODEL
from .store.store import Store

__all__ = ["Findings", "Refusal", "check", "find_model", "find_server", "name_of", "registered", "try_out"]

_APPROVED: Final = ("approved", "partially_approved")


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
    server = check_server(call.authority, name, tools, tenant=call.tenant)
    if isinstance(server, Refusal):
        return "MCP_GOVERNANCE_DENY", *server, {"error": "MCP governance violation", "mcp_server_name": name}
    findings.found["mcp_governance"] = {"server_registered": True, "enforcement": "Layer 13", "mcp_server_name": name}
    for tool, risk in server.tool_risks:
        if names_tool(tool, tools):
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
        number = registered(call.store, action["agent_id"], tenant=call.tenant).get("model_id")
        given = number if isinstance(number, int) else None
    if given is None:
        return None
    model = find_model(call.authority, given, tenant=call.tenant)
    if isinstance(model, Refusal):
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
        agent_id = action["agent_id"]
        action["agent_name"] = name_of(agent_id, registered(call.store, agent_id, tenant=call.tenant))


def name_of(agent_id: str, registered: Mapping[str, Any]) -> str:
    """Return the name that is registered of an agent, its id if there is none."""
    return registered.get("agent_name") or registered.get("display_name") or agent_id


def registered(store: Store, agent_id: str, *, tenant: str) -> Mapping[str, Any]:
    """Return what is registered of an agent, nothing if it is not."""

    def load() -> Mapping[str, Any]:
        try:
            return store.get(AGENT, agent_id, tenant=tenant)
        except NotFoundError:
            return {}

    return store.cached(("registered", tenant, agent_id), load)


# --- servers and models


def _models(authority: AuthorityContext, *, tenant: str) -> list[Model]:
    """Return every model of an organisation: those of the policy file and those of the database."""

    def load() -> list[Model]:
        return [
            Model(id=int(row["name"]), name=row["model_name"], compliance_status=row["compliance_status"])
            for row in authority.store.all(MODEL, tenant=tenant)
        ]

    kept = authority.store.cached(("models", tenant), load)
    return [*(model for model in authority.policy.models if model.tenant in ("", tenant)), *kept]


class Refusal(NamedTuple):
    """Why something may not be used: the code and the words."""

    code: str
    message: str


def find_model(authority: AuthorityContext, given: int | str, *, tenant: str) -> Model | Refusal:
    """Return the model of a number or a name, or why it may not be used."""
    known = _models(authority, tenant=tenant)
    numbers = {
        model.id for model in known if given in (model.id, str(model.id)) or (model.name and given == model.name)
    }
    # Also where the other source gives the number and no name: it speaks of the same model.
    found = [model for model in known if model.id in numbers]
    if not found:
        return Refusal("MODEL_UNREGISTERED_DENY", "the model is not registered")
    for model in found:
        if model.compliance_status not in _APPROVED:
            return Refusal("MODEL_NOT_APPROVED_DENY", f"the model is {model.compliance_status}")
    # A number is one model's own, but a name and another one's number may be the same word.
    if len(numbers) > 1:
        return Refusal("MODEL_AMBIGUOUS_DENY", "more than one model has this name; use its number")
    # The stricter of two sources, one that approves it in part, goes first.
    return min(found, key=lambda model: model.compliance_status == "approved")


def names_tool(pattern: str, tools: set[str]) -> bool:
    """Say whether an entry of a server's lists is about one of the tools."""
    return any(listed(tool.strip().casefold(), (pattern.casefold(),)) for tool in tools)


def find_server(authority: AuthorityContext, name: str, *, tenant: str) -> McpServer | None:
    """Return an MCP server as the policy file and the database together have it, or None where neither does."""

    def load() -> McpServer | None:
        try:
            record = authority.store.get(MCP_SERVER, name, tenant=tenant)
        except NotFoundError:
            return None
        blocked, risks = tuple(record["blocked_tools"]), tuple(sorted(record["tool_risk_overrides"].items()))
        return McpServer(name=name, active=record["active"], blocked_tools=blocked, tool_risks=risks)

    kept, declared = authority.store.cached(("server", tenant, name), load), authority.policy.mcp_servers.get(name)
    if kept is None or declared is None:
        return kept or declared
    return McpServer(
        name=name,
        active=kept.active and declared.active,
        blocked_tools=(*declared.blocked_tools, *kept.blocked_tools),
        tool_risks=(*declared.tool_risks, *kept.tool_risks),
    )


def check_server(authority: AuthorityContext, name: str, tools: set[str], *, tenant: str) -> McpServer | Refusal:
    """Return the MCP server of a name, or why an action may not use it."""
    server = find_server(authority, name, tenant=tenant)
    if server is None:
        return Refusal("MCP_SERVER_UNREGISTERED_DENY", f"the MCP server {name!r} is not registered")
    if not server.active:
        return Refusal("MCP_SERVER_DEACTIVATED_DENY", f"the MCP server {name!r} is deactivated")
    blocked = authority.store.cached(
        ("server block", tenant, name), lambda: killswitch.server_block(authority.store, name, tenant=tenant)
    )
    if blocked:
        return Refusal("MCP_SERVER_BLOCKED_DENY", f"the MCP server {name!r} is blocked by the kill switch")
    if any(names_tool(pattern, tools) for pattern in server.blocked_tools):
        return Refusal("MCP_TOOL_BLOCKED_DENY", f"the MCP server {name!r} may not be used for this tool")
    return server
