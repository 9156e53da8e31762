"""How the client is told of a decision that does not let the handler run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..findings import FINDINGS
from ..verdict import Refusal
from .approvals import HANDLE_HEADER

if TYPE_CHECKING:
    from ..api.models import AuthorizationDecision
    from ..config import Settings
    from ..journal.journal import JournalError
    from ..state.base import Approval
    from .approvals import Approvals, Settled
    from .request import RequestView

__all__ = ["refusal_of", "refusal_of_findings", "unjournalled"]


def refusal_of(settled: Settled, view: RequestView, approvals: Approvals, settings: Settings) -> Refusal:
    """Return the refusal for what was decided; for an approval that waits for its handle, too."""
    if settled.refusal is not None:
        return settled.refusal
    decision, row = settled.decision, settled.row
    assert decision is not None  # noqa: S101 - one of the two is there
    extra: dict[str, Any] = {"reason": decision.reason} if decision.reason else {}
    if settings.expose_risk and decision.risk_score is not None:
        extra["risk_score"] = decision.risk_score
    if decision.is_pending() or decision.is_approved():
        return _required(decision, row, view, extra, approvals, settings)
    if decision.status == "requires_modification":
        extra["conditions"] = decision.conditions
        return Refusal(problem="modification-required", detail=decision.reason or "See conditions.", extra=extra)
    return Refusal(problem="denied", detail=decision.reason or "The authority denied it.", extra=extra)


def _required(
    decision: AuthorizationDecision,
    row: Approval | None,
    view: RequestView,
    extra: dict[str, Any],
    approvals: Approvals,
    settings: Settings,
) -> Refusal:
    """Refuse what a person has to approve, or has approved and the client is to resume with its handle."""
    detail = "A person has to approve this action"
    headers: list[tuple[str, str]] = []
    if row is None:
        detail += "; the request is too large to be resumed under an approval."
    else:
        offer = approvals.offer(row, view.prefix)
        extra = {**extra, "approval": {**offer, "state": "approved" if decision.is_approved() else "pending"}}
        detail += "; once it is approved, repeat the request with the header Ascend-Approval."
        headers = [(HANDLE_HEADER, row.handle), ("location", offer["status_url"])]
    return Refusal(
        problem="approval-required",
        detail=detail,
        retry_after=max(1.0, settings.poll_interval),
        extra={**extra, "executed": False},
        status=202 if settings.respond_async or _prefers_async(view) else None,
        headers=tuple(headers),
    )


def refusal_of_findings(findings: list[str]) -> Refusal:
    """Return the refusal of a request that servers, frameworks and handlers may read differently."""
    text = "; ".join(FINDINGS[finding] for finding in findings)
    return Refusal(problem="bad-request", detail=f"Refused: {text}.", extra={"findings": findings})


def unjournalled(error: JournalError) -> Refusal:
    """Return the refusal of an action that could not be journalled."""
    detail = "Too much waits to be reported." if error.full else "What was to run could not be recorded."
    return Refusal(problem="unavailable", detail=detail, retry_after=5.0)


def _prefers_async(view: RequestView) -> bool:
    preferences = (
        part.partition(";")[0].strip().lower() for value in view.header("prefer") for part in value.split(",")
    )
    return "respond-async" in preferences
