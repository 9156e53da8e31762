"""What is asked and what is answered: actions, decisions, records and pages.

Answers serve both generations of documented programs: attributes (`result.reason`) and items (`result["reason"]`).
"""

from .action import AgentAction
from .answers import ActionPage, ActionRecord, ConnectionStatus
from .decision import ActionResult, AuthorizationDecision
from .governance import (
    AgentHealthStatus,
    ApprovalStatus,
    AuditEvent,
    AuditLogResponse,
    BulkActionResult,
    BulkEvaluationResult,
    KillSwitchStatus,
    PolicyEvaluationResult,
    Webhook,
    WebhookTestResult,
)
from .record import Record
from .words import ActionType, Decision, DecisionStatus, FailMode, RiskLevel

__all__ = [
    "ActionPage",
    "ActionRecord",
    "ActionResult",
    "ActionType",
    "AgentAction",
    "AgentHealthStatus",
    "ApprovalStatus",
    "AuditEvent",
    "AuditLogResponse",
    "AuthorizationDecision",
    "BulkActionResult",
    "BulkEvaluationResult",
    "ConnectionStatus",
    "Decision",
    "DecisionStatus",
    "FailMode",
    "KillSwitchStatus",
    "PolicyEvaluationResult",
    "Record",
    "RiskLevel",
    "Webhook",
    "WebhookTestResult",
]
