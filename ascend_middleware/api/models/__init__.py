"""What is asked and what is answered: actions, decisions, records and pages.

Answers serve both generations of documented programs: attributes (`result.reason`) and items (`result["reason"]`).
"""

from .answers import (
    ActionPage,
    ActionRecord,
    AgentHealthStatus,
    ApprovalStatus,
    AuditEvent,
    AuditLogResponse,
    BulkActionResult,
    BulkEvaluationResult,
    ConnectionStatus,
    KillSwitchStatus,
    PolicyEvaluationResult,
    Webhook,
    WebhookTestResult,
)
from .decision import (
    ActionResult,
    ActionType,
    AgentAction,
    AuthorizationDecision,
    Decision,
    DecisionStatus,
    FailMode,
    Record,
    RiskLevel,
)

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
