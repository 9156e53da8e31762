"""How a stored action looks in answers: its decision, and its full record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .policy.approvers import EXPIRY, OBSERVED, approved_by, missing_approvers, required_approvers

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["decision_fields", "record_fields"]


def decision_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented flat form of a decision for a stored action."""
    judgement, approval, status = row["judgement"], row["approval"], row["status"]
    pending = status == "pending" and not judgement.get(OBSERVED)
    status = "pending" if status == OBSERVED else status
    reason = judgement["reason"]
    expired = bool(approval) and approval.get("via") == EXPIRY
    if expired:
        reason = f"expired: nobody decided before {row['expires_at']}"
    elif approval:
        reason = f"{status} by {approval['by']}" + (f": {approval['comments']}" if approval["comments"] else "")
    fields = {
        "id": row["id"],
        "action_id": str(row["id"]),
        "status": status,
        "decision": status,
        "risk_score": row["risk_score"],
        "risk_level": row["risk_level"],
        "reason": reason,
        "policy_matched": judgement["policy_matched"] or None,
        "timestamp": row["updated_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "summary": f"{row['submission']['action_type']} on {row['submission']['resource']}: {status}",
        "approval_request_id": str(row["id"]) if pending or approval else None,
        "required_approvers": required_approvers(row) if pending else [],
        "pending_approvers": missing_approvers(row) if pending else [],
        "approved_by": approved_by(row),
        "expires_at": row["expires_at"],
        "policy_violations": _violations(judgement) if status == "denied" and not approval else [],
        "conditions": [],
        "execution_allowed": status == "approved",
        "correlation_id": judgement["correlation_id"],
        "metadata": {
            "risk_factors": judgement["factors"],
            "matched_policies": judgement["matched"],
            # Absent of what an earlier version decided.
            "explanation": judgement.get("explanation"),
        },
    }
    if not approval or expired:  # the words of this field know no person
        words = {"approved": "auto_approved", "pending": "pending_approval", "denied": "denied"}
        fields["enforcement_decision"] = words[status]
    else:
        fields["decided_by"] = approval["by"]
        fields["decided_at"] = approval["at"]
        fields["comments"] = approval["comments"]
    for name in ("mcp_governance", "model_governance", OBSERVED):
        if judgement.get(name):
            fields[name] = judgement[name]
    return fields


def _violations(judgement: Mapping[str, Any]) -> list[str]:
    """Return the policies that deny, by name; none where the score alone denied."""
    explanation = judgement.get("explanation")
    if explanation is None:  # of an earlier version, which kept only the one that decided
        return [judgement["policy_matched"]] if judgement["policy_matched"] else []
    return [policy["name"] for policy in explanation["policies"] if policy["decision"] == "denied"]


def record_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the full record of a stored action: what was submitted, what was decided, what became of it."""
    record = {**row["submission"], **decision_fields(row)}
    if row["outcome"]:
        record["outcome"] = row["outcome"]
    return record
