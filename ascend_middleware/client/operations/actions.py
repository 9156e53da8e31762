"""Actions: submitted, asked about, listed, reported on; and the checks of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...exceptions import ProtocolError, ValidationError
from ...models import ActionPage, ActionRecord, AgentAction, AuthorizationDecision, Record
from ...wire import (
    check_values,
    decode_decision,
    decode_governance_refusal,
    decode_page,
    decode_record,
    encode_json,
    normalize_action_id,
    strip_risk_claims,
    submit_body,
)
from .operation import Operation, acknowledgement, is_number, page_query, path

__all__ = [
    "action_from_fields",
    "checked_action",
    "complete_action",
    "fail_action",
    "get_action",
    "get_status",
    "list_actions",
    "submit",
]


def submit(action: AgentAction) -> Operation[AuthorizationDecision]:
    """Submit an action for a decision."""
    return Operation(
        method="POST",
        target="/api/v1/actions/submit",
        content=encode_json(submit_body(action)),
        decode=decode_decision,
        refusal=decode_governance_refusal,
        agent=action.agent_id,
    )


def get_status(action_id: str | int, *, hold: float = 0.0, agent: str = "") -> Operation[AuthorizationDecision]:
    """Ask what was decided about an action; an answer about another action is refused.

    Args:
        action_id: the action.
        hold: for how many seconds the authority may keep the question while the action is pending; one that knows no
            `Prefer: wait` (RFC 7240) answers at once.
        agent: whose action it is.
    """
    target = path("/api/v1/actions/{action_id}/status", action_id=action_id)
    wanted = _same_spelling(action_id)

    def decode(content: bytes) -> AuthorizationDecision:
        decision = decode_decision(content)
        if decision.action_id and _same_spelling(decision.action_id) != wanted:
            raise ProtocolError("the authority answered about another action than the one asked about")
        return decision

    headers = (("Prefer", f"wait={int(hold)}"),) if hold >= 1 else ()
    return Operation(method="GET", target=target, decode=decode, headers=headers, agent=agent)


def _same_spelling(action_id: str | int) -> str:
    try:
        text = normalize_action_id(action_id)
    except ProtocolError:
        return str(action_id)
    return str(int(text)) if text.isdigit() else text


def get_action(action_id: str | int) -> Operation[ActionRecord]:
    """Fetch the full record of an action."""
    target = path("/api/v1/actions/{action_id}", action_id=action_id)
    wanted = _same_spelling(action_id)

    def decode(content: bytes) -> ActionRecord:
        record = decode_record(content)
        if _same_spelling(record["action_id"]) != wanted:
            raise ProtocolError("the authority answered about another action than the one asked about")
        return record

    return Operation(method="GET", target=target, decode=decode)


def list_actions(
    *, limit: int = 50, offset: int = 0, status: str | None = None, filters: Mapping[str, object] | None = None
) -> Operation[ActionPage]:
    """Fetch one page of actions; filters go into the query as they are, those that are None left out."""
    target = page_query("/api/v1/actions", limit=limit, offset=offset, filters={"status": status, **(filters or {})})

    def decode(content: bytes) -> ActionPage:
        return decode_page(content, limit=limit, offset=offset)

    return Operation(method="GET", target=target, decode=decode)


def complete_action(
    action_id: str | int, *, at: str, result: object | None = None, duration_ms: float | None = None
) -> Operation[Record]:
    """Report that a passed action was carried out."""
    target = path("/api/agent-action/{action_id}/complete", action_id=action_id)
    body = {"action_id": str(action_id), "status": "completed", "completed_at": at}
    return _report(target, body, result=result, duration_ms=_duration(duration_ms))


def fail_action(
    action_id: str | int,
    *,
    at: str,
    error: object,
    duration_ms: float | None = None,
    given_back: int | None = None,
) -> Operation[Record]:
    """Report that a passed action failed; with `given_back`, that it did not happen and its approval is still good."""
    target = path("/api/agent-action/{action_id}/fail", action_id=action_id)
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    body = {"action_id": str(action_id), "status": "failed", "failed_at": at}
    return _report(target, body, error=error, duration_ms=_duration(duration_ms), given_back=given_back)


def _duration(value: float | None) -> float | None:
    if value is not None and (not is_number(value, int, float) or not value >= 0):
        raise ValidationError("duration_ms must be a number, at least 0", field="duration_ms")
    return value


def _report(target: str, body: Mapping[str, object], **optional: object) -> Operation[Record]:
    given = {name: value for name, value in optional.items() if value is not None}
    return Operation(method="POST", target=target, content=encode_json({**body, **given}), decode=acknowledgement)


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
