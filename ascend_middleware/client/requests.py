"""What a client asks where arguments take another form than the endpoint's body: actions, reports, registrations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from ..api import answers, endpoints
from ..api.decode import check_values, strip_risk_claims, submit_body
from ..api.endpoint import Operation, given
from ..api.models import (
    ActionPage,
    ActionRecord,
    AgentAction,
    AuthorizationDecision,
    Record,
)
from ..exceptions import ValidationError

__all__ = [
    "action_from_fields",
    "checked_action",
    "complete_action",
    "fail_action",
    "get_action",
    "get_status",
    "list_actions",
    "submit_mcp",
]


def get_status(action_id: str | int, *, hold: float = 0.0, agent: str = "") -> Operation[AuthorizationDecision]:
    """Ask what was decided about an action; an answer about another action is refused.

    Args:
        action_id: the action.
        hold: for how many seconds the authority may keep the question while the action is pending; one that knows no
            `Prefer: wait` (RFC 7240) answers at once.
        agent: whose action it is.
    """
    headers = (("Prefer", f"wait={int(hold)}"),) if hold >= 1 else ()
    decode = partial(answers.decision_about, action_id=action_id)
    return endpoints.ACTION_STATUS.call(decode=decode, headers=headers, agent=agent, action_id=action_id)


def get_action(action_id: str | int) -> Operation[ActionRecord]:
    """Fetch the full record of an action."""
    decode = partial(answers.action_record, action_id=action_id)
    return endpoints.GET_ACTION.call(decode=decode, action_id=action_id)


def list_actions(
    *, limit: int = 50, offset: int = 0, status: str | None = None, filters: Mapping[str, object] | None = None
) -> Operation[ActionPage]:
    """Fetch one page of actions; filters go into the query as they are, those that are None left out."""
    query = {"limit": limit, "offset": offset, "status": status, **(filters or {})}
    return endpoints.LIST_ACTIONS.call(query=query, decode=partial(answers.action_page, limit=limit, offset=offset))


def complete_action(
    action_id: str | int, *, at: str, result: object | None = None, duration_ms: float | None = None
) -> Operation[Record]:
    """Report that a passed action was carried out."""
    body = {"action_id": str(action_id), "status": "completed", "completed_at": at}
    more = given(result=result, duration_ms=duration_ms)
    return endpoints.COMPLETE_ACTION.call(body={**body, **more}, action_id=action_id)


def fail_action(
    action_id: str | int,
    *,
    at: str,
    error: object,
    duration_ms: float | None = None,
    given_back: int | None = None,
) -> Operation[Record]:
    """Report that a passed action failed; with `given_back`, that it did not happen and its approval is still good."""
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    body = {"action_id": str(action_id), "status": "failed", "failed_at": at}
    more = given(error=error, duration_ms=duration_ms, given_back=given_back)
    return endpoints.FAIL_ACTION.call(body={**body, **more}, action_id=action_id)


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
    action_body = submit_body(action)
    body = {
        "mcp_server": mcp_server,
        "namespace": namespace,
        "verb": verb,
        "resource": action.resource,
        "action_type": action.action_type,
        "description": action.description,
        "parameters": action_body.get("action_details", {}),
        "context": action_body.get("context", {}),
        "environment": environment,
        "tool_name": action.tool_name,
    }
    # Beyond the documented keys: who acts, and what binds the action to a session and a model.
    binding = ("agent_id", "agent_name", "orchestration_session_id", "parent_action_id", "orchestration_depth")
    return endpoints.SUBMIT_MCP.call(
        body={**body, **{name: action_body[name] for name in (*binding, "model_id") if name in action_body}}
    )


# What clients without an agent's id send: the authority takes the action for one of the key's own agent.
UNNAMED_AGENT: Final = "unknown"


def action_from_fields(fields: Mapping[str, Any], *, agent_id: str, agent_name: str) -> AgentAction:
    """Build an action from the spelled-out fields of a call; the agent's default identity fills in.

    Raises:
        ValidationError: an unknown field, a value of the wrong kind, or `parameters` contradicting `action_details`.
    """
    values = {name: value for name, value in fields.items() if value is not None}
    for claim in ("risk_score", "riskScore", "risk_level", "riskLevel"):
        values.pop(claim, None)
    if "parameters" in values:
        check_values(values)  # what holds itself cannot be compared
        parameters = values.pop("parameters")
        if values.setdefault("action_details", parameters) != parameters:
            raise ValidationError("parameters and action_details are one thing; give one of them", field="parameters")
    unknown = sorted(str(name) for name in values if name not in AgentAction.__struct_fields__)
    if unknown:
        raise ValidationError(
            f"unknown action field {unknown[0]!r}; known: {', '.join(AgentAction.__struct_fields__)}", field=unknown[0]
        )
    given_agent = values.pop("agent_id", None)
    values["agent_id"] = (agent_id or UNNAMED_AGENT) if given_agent is None else given_agent
    own_name = (agent_name or values["agent_id"]) if given_agent in (None, agent_id) else given_agent
    values.setdefault("agent_name", own_name)
    values.setdefault("resource", "")
    values.setdefault("action_type", "")
    return checked_action(AgentAction(**values))


_TEXTS: Final = ("agent_name", "resource", "resource_id", "tool_name", "description", "orchestration_session_id")
_OBJECTS: Final = ("action_details", "context", "risk_indicators")
_NAMES: Final = ("mcp_server_name", "model_id", "parent_action_id")


def checked_action(action: AgentAction) -> AgentAction:
    """Return the action after checking the kinds of its values; `submit_body` checks the rest.

    Raises:
        ValidationError: naming the first bad field.
    """
    for name in _TEXTS:
        if not isinstance(getattr(action, name), str | None):
            raise ValidationError(f"{name} must be a string", field=name)
    for name in _OBJECTS:
        value = getattr(action, name)
        if value is not None and not isinstance(value, Mapping):
            raise ValidationError(f"{name} must be a mapping", field=name)
        if value is not None and not isinstance(value, dict):
            setattr(action, name, strip_risk_claims(dict(value)))
    for name in _NAMES:
        value = getattr(action, name)
        if value is None:
            continue
        if name == "mcp_server_name" and not isinstance(value, str):
            raise ValidationError(f"{name} must be a string", field=name)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise ValidationError(f"{name} must be a non-empty string or a whole number", field=name)
    submit_body(action)
    return action
