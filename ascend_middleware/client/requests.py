"""Actions as they are submitted, and what a client asks in more than one place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from ..api import answers, endpoints
from ..api.decode import check_values, strip_risk_claims, submit_body
from ..api.endpoint import Operation, given
from ..api.models import ActionPage, ActionRecord, AgentAction, Record
from ..exceptions import ValidationError

__all__ = ["action_from_fields", "checked_action", "get_action", "list_actions", "outcome"]


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


def outcome(action_id: str | int, *, at: str, failed: bool, error: object = None, **fields: Any) -> Operation[Record]:
    """Report what became of a passed action: it was carried out, or tried and `failed`.

    Fields are `result`, `duration_ms`, and `given_back`: it did not happen, and its approval is still good.
    """
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    word, endpoint = ("failed", endpoints.FAIL_ACTION) if failed else ("completed", endpoints.COMPLETE_ACTION)
    body = {"action_id": str(action_id), "status": word, f"{word}_at": at, **given(error=error, **fields)}
    return endpoint.call(body=body, action_id=action_id)


# What clients without an agent's id send: the authority takes the action for one of the key's own agent.
UNNAMED_AGENT: Final = "unknown"


def action_from_fields(fields: Mapping[str, Any], *, agent_id: str, agent_name: str) -> AgentAction:
    """Build an action from the spelled-out fields of a call; the agent's default identity fills in."""
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
_NAME: Final = "a non-empty string or a whole number"
_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    **dict.fromkeys(_TEXTS, (str, "a string")),
    **dict.fromkeys(_OBJECTS, (Mapping, "a mapping")),
    **dict.fromkeys(_NAMES, (str | int, _NAME)),
    "mcp_server_name": (str, "a string"),
}


def checked_action(action: AgentAction) -> AgentAction:
    """Return the action after checking the kinds of its values; `submit_body` checks the rest."""
    for name, (kind, words) in _KINDS.items():
        value = getattr(action, name)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValidationError(f"{name} must be {words}", field=name)
        if name in _NAMES and not str(value).strip():
            raise ValidationError(f"{name} must be {_NAME}", field=name)
        if isinstance(value, Mapping) and not isinstance(value, dict):
            setattr(action, name, strip_risk_claims(dict(value)))
    submit_body(action)
    return action
