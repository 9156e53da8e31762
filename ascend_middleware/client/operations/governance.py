"""Approvals, policies, the audit and the supply chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...exceptions import ProtocolError, ValidationError
from ...models import ApprovalStatus, AuditEvent, AuditLogResponse, PolicyEvaluationResult, Record, RiskLevel
from ...wire import decode_object, encode_json, strip_risk_claims
from .operation import Operation, name, optional_texts, page_query, path, record

__all__ = ["COMPONENT_TYPES", "check_approval", "evaluate_policy", "query_audit_log", "register_component"]

COMPONENT_TYPES: Final = ("library", "model", "dataset", "framework", "tool", "service")
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


def check_approval(approval_request_id: str) -> Operation[ApprovalStatus]:
    """Ask what became of an approval request."""
    target = path("/api/sdk/approval/{approval_request_id}", approval_request_id=approval_request_id)
    return Operation(method="GET", target=target, decode=_approval)


def _approval(content: bytes) -> ApprovalStatus:
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


def evaluate_policy(
    *,
    action_type: str,
    resource: str,
    context: Mapping[str, Any] | None,
) -> Operation[PolicyEvaluationResult]:
    """Ask what the policies would say, without submitting anything."""
    body: dict[str, Any] = {"action_type": name("action_type", action_type), "resource": name("resource", resource)}
    if context is not None:
        if not isinstance(context, Mapping):
            raise ValidationError("context must be a mapping", field="context")
        body["context"] = strip_risk_claims(dict(context))
    target = "/api/governance/policies/evaluate-realtime"
    return Operation(method="POST", target=target, content=encode_json(body), decode=_evaluation)


def _evaluation(content: bytes) -> PolicyEvaluationResult:
    answer = decode_object(content)
    if not isinstance(answer.get("decision"), str):
        raise ProtocolError("the authority's answer holds no decision")
    known: dict[str, Any] = {"matched_policies": [], "violations": [], "risk_score": None, "evaluation_time_ms": None}
    return PolicyEvaluationResult({**known, **answer})


def query_audit_log(*, limit: int, offset: int) -> Operation[AuditLogResponse]:
    """Fetch one page of the audit."""
    target = page_query("/audit/logs", limit=limit, offset=offset)

    def decode(content: bytes) -> AuditLogResponse:
        answer = decode_object(content)
        rows = next((answer[key] for key in ("events", "logs", "items", "data") if key in answer), None)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ProtocolError("the authority's answer holds no audit entries")
        events = [AuditEvent({"event_id": str(row.get("id", "")), **row}) for row in rows]
        rest = {key: value for key, value in answer.items() if key not in ("logs", "items", "data")}
        bounds = {"total": offset + len(rows), "limit": limit, "offset": offset}
        return AuditLogResponse({**bounds, **rest, "events": events})

    return Operation(method="GET", target=target, decode=decode)


def register_component(
    *,
    component_id: str,
    component_name: str,
    component_type: str,
    provenance_verified: bool,
    risk_level: str,
    optional: Mapping[str, object],
) -> Operation[Record]:
    """Record a component that the organisation depends on."""
    if component_type not in COMPONENT_TYPES:
        raise ValidationError(f"component_type must be one of {', '.join(COMPONENT_TYPES)}", field="component_type")
    if risk_level not in tuple(RiskLevel):
        raise ValidationError(f"risk_level must be one of {', '.join(RiskLevel)}", field="risk_level")
    if not isinstance(provenance_verified, bool):
        raise ValidationError("provenance_verified must be True or False", field="provenance_verified")
    body = {
        "component_id": name("component_id", component_id),
        "component_name": name("component_name", component_name),
        "component_type": str(component_type),
        "provenance_verified": provenance_verified,
        "risk_level": str(risk_level),
        **optional_texts(**optional),
    }
    target = "/api/v1/supply-chain/components"
    return Operation(method="POST", target=target, content=encode_json(body), decode=record)
