"""How a client reads answers: strict where something depends on it, whatever generation of the API answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..exceptions import ProtocolError
from .decode import action_id_of, decode_decision, decode_object, normalize_action_id
from .models import (
    ActionPage,
    ActionRecord,
    AgentHealthStatus,
    ApprovalStatus,
    AuditEvent,
    AuditLogResponse,
    AuthorizationDecision,
    KillSwitchStatus,
    PolicyEvaluationResult,
    Record,
    Webhook,
    WebhookTestResult,
)

__all__ = [
    "acknowledged",
    "acknowledgement",
    "action_page",
    "action_record",
    "agent_health",
    "agent_ids",
    "approval",
    "audit_page",
    "commands",
    "decision_about",
    "evaluation",
    "kill_switch",
    "record",
    "servers",
    "webhook",
    "webhook_test",
    "webhooks",
]


def record(content: bytes) -> Record:
    """Read an answer that is an object and nothing more."""
    return Record(decode_object(content))


def acknowledgement(content: bytes) -> Record:
    """Read an answer that only confirms: an object, or no body at all."""
    return Record(decode_object(content) if content else {})


def acknowledged(content: bytes) -> bool:
    """Read whether a confirmation confirms."""
    return not content or decode_object(content).get("success", True) is True


def _rows(answer: Mapping[str, Any], *names: str, problem: str, of: type = dict) -> list[Any]:
    """Return the rows of a list, under the first of the names that is there."""
    rows = next((answer[name] for name in names if name in answer), None)
    if not isinstance(rows, list) or not all(isinstance(row, of) for row in rows):
        raise ProtocolError(problem)
    return rows


def _saying(content: bytes, name: str, kind: type, problem: str, **usual: Any) -> dict[str, Any]:
    """Return an answer that has to say something under a name; the usual rest may be missing."""
    answer = decode_object(content)
    if not isinstance(answer.get(name), kind):
        raise ProtocolError(problem)
    return {**usual, **answer}


# --- actions


def _same_spelling(action_id: str | int) -> str:
    try:
        text = normalize_action_id(action_id)
    except ProtocolError:
        return str(action_id)
    return str(int(text)) if text.isdigit() else text


def _check_named(found: str | int, wanted: str | int) -> None:
    if _same_spelling(found) != _same_spelling(wanted):
        raise ProtocolError("the authority answered about another action than the one asked about")


def decision_about(content: bytes, action_id: str | int) -> AuthorizationDecision:
    """Read what was decided about an action; an answer about another one is refused."""
    decision = decode_decision(content)
    if decision.action_id:
        _check_named(decision.action_id, action_id)
    return decision


def action_record(content: bytes, action_id: str | int | None = None) -> ActionRecord:
    """Read the full record of an action; one of another action than the one asked about is refused.

    Unknown status words stand as they are, since a record permits nothing.
    """
    answer = decode_object(content)
    found = action_id_of(answer)
    if not found:
        raise ProtocolError("the authority's record names no action")
    if action_id is not None:
        _check_named(found, action_id)
    return ActionRecord({**answer, "action_id": found})


def action_page(content: bytes, *, limit: int = 50, offset: int = 0) -> ActionPage:
    """Read a page of actions, in any of its documented shapes."""
    answer = decode_object(content)
    rows = _rows(answer, "actions", "data", "items", problem="the authority's list holds no rows")
    paging = answer.get("pagination")
    paging = {**answer, **paging} if isinstance(paging, dict) else answer
    total = paging.get("total", offset + len(rows))
    page = {
        "total": total,
        "limit": paging.get("limit", limit),
        "offset": paging.get("offset", offset),
        "has_more": bool(paging.get("has_more", isinstance(total, int) and offset + len(rows) < total)),
        "next": paging.get("next"),
    }
    actions = [ActionRecord({**row, "action_id": action_id_of(row)}) for row in rows]
    rest = {key: value for key, value in answer.items() if key not in ("data", "items", "pagination")}
    return ActionPage({**rest, **page, "actions": actions})


_APPROVALS: Final[Mapping[str, str]] = {
    "approved": "approved",
    "denied": "denied",
    "rejected": "denied",
    "expired": "denied",
    "timeout": "denied",
    "pending": "pending",
    "pending_approval": "pending",
    "escalated": "pending",
}


def approval(content: bytes) -> ApprovalStatus:
    """Read what became of an approval request."""
    answer = decode_object(content)
    word = answer.get("status")
    meaning = _APPROVALS.get(word) if isinstance(word, str) else None
    if meaning is None:
        raise ProtocolError("the authority's answer has no known word for the approval")
    if answer.get("decision", word) != word or answer.get("approved", meaning == "approved") != (meaning == "approved"):
        raise ProtocolError("the authority's answer says two things about the approval")
    return ApprovalStatus(
        {
            "status": word,
            **{each: each == meaning for each in ("approved", "denied", "pending")},
            "approver": answer.get("approved_by") or answer.get("rejected_by"),
            "timestamp": answer.get("decided_at"),
            "comments": answer.get("comments") or answer.get("rejection_reason"),
            "metadata": answer,
        }
    )


# --- agents, and what stops them


def agent_ids(content: bytes) -> list[str]:
    """Read the ids of the organisation's agents."""
    problem = "the authority's list holds no agents"
    rows = _rows(decode_object(content), "agents", "data", problem=problem, of=object)
    return [str(row["agent_id"]) for row in rows if isinstance(row, dict) and "agent_id" in row]


def agent_health(content: bytes, agent_id: str | None = None) -> AgentHealthStatus:
    """Read how an agent is; an answer about another one than the one that is named is refused."""
    problem = "the authority's answer tells no status of the agent"
    usual: dict[str, Any] = {"agent_id": agent_id, "last_heartbeat": None, "uptime_seconds": None, "metadata": {}}
    health = AgentHealthStatus(_saying(content, "status", str, problem, **usual))
    if agent_id is not None and health["agent_id"] != agent_id:
        raise ProtocolError("the authority answered about another agent than the one asked about")
    return health


def commands(content: bytes) -> list[Any]:
    """Read the commands that wait for an agent; what each of them says is judged one by one."""
    problem = "the authority's answer holds no commands"
    return _rows(decode_object(content), "commands", "data", problem=problem, of=object)


_FLAGS: Final = ("blocked", "active", "is_active", "is_blocked")
_STOPPED: Final = frozenset({"blocked", "suspended", "quarantined", "killed", "active"})


def kill_switch(content: bytes) -> KillSwitchStatus:
    """Read whether an agent, or the organisation, is stopped.

    One flag or one word that says so stops. Not stopped is only what flags say, all that are there, with a plain false;
    what says neither is unreadable.
    """
    answer = decode_object(content)
    data = answer.get("data")
    sources = [answer, data] if isinstance(data, dict) else [answer]
    flags = [source[flag] for source in sources for flag in _FLAGS if flag in source]
    words = [str(source.get("status")).strip().lower() for source in sources]
    blocked = any(flag is True for flag in flags) or not _STOPPED.isdisjoint(words)
    if not blocked and not (flags and all(flag is False for flag in flags)):
        raise ProtocolError("the authority's answer does not say whether the kill switch is thrown")
    known: dict[str, Any] = {"reason": None, "activated_at": None, "activated_by": None}
    return KillSwitchStatus({**known, **answer, "blocked": blocked})


# --- registers, policies, audit, webhooks


def servers(content: bytes) -> Record:
    """Read the registered MCP servers."""
    answer = decode_object(content)
    rows = _rows(answer, "servers", "mcp_servers", "data", problem="the authority's answer holds no MCP servers")
    kept = {key: value for key, value in answer.items() if key != "data"}
    return Record({**kept, "servers": [Record(row) for row in rows]})


def evaluation(content: bytes) -> PolicyEvaluationResult:
    """Read what the policies would say."""
    problem = "the authority's answer holds no decision"
    usual: dict[str, Any] = {"matched_policies": [], "violations": [], "risk_score": None, "evaluation_time_ms": None}
    return PolicyEvaluationResult(_saying(content, "decision", str, problem, **usual))


def audit_page(content: bytes, *, limit: int = 50, offset: int = 0) -> AuditLogResponse:
    """Read a page of the audit log."""
    answer = decode_object(content)
    problem = "the authority's answer holds no audit entries"
    rows = _rows(answer, "events", "logs", "items", "data", problem=problem)
    events = [AuditEvent({"event_id": str(row.get("id", "")), **row}) for row in rows]
    rest = {key: value for key, value in answer.items() if key not in ("logs", "items", "data")}
    bounds = {"total": offset + len(rows), "limit": limit, "offset": offset, "next": None}
    return AuditLogResponse({**bounds, **rest, "events": events})


def webhook(content: bytes) -> Webhook:
    """Read a subscription."""
    answer = decode_object(content)
    inner = answer.get("webhook")
    return _webhook(inner if isinstance(inner, dict) else answer)


def _webhook(row: dict[str, Any]) -> Webhook:
    webhook_id = row.get("webhook_id", row.get("id"))
    if isinstance(webhook_id, bool) or not isinstance(webhook_id, str | int):
        raise ProtocolError("the authority's answer names no web hook")
    url, events = row.get("url", row.get("target_url")), row.get("events", row.get("event_types"))
    return Webhook({**row, "webhook_id": str(webhook_id), "url": url, "events": events})


def webhooks(content: bytes) -> list[Webhook]:
    """Read the subscriptions, also where they are a bare list."""
    try:
        plain = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        plain = None
    answer = {"webhooks": plain} if isinstance(plain, list) else decode_object(content)
    rows = _rows(answer, "webhooks", "data", problem="the authority's answer holds no web hooks")
    return [_webhook(row) for row in rows]


def webhook_test(content: bytes) -> WebhookTestResult:
    """Read how a test event fared."""
    problem = "the authority's answer does not say whether the test succeeded"
    usual = {"status_code": None, "response_time_ms": None, "error": None}
    return WebhookTestResult(_saying(content, "success", bool, problem, **usual))
