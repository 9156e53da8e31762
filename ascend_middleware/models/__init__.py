"""What is asked and what is answered: actions, decisions, records and pages.

Answers serve both generations of documented programs: attributes (`result.reason`) and items (`result["reason"]`).
"""

from .action import AgentAction
from .answers import ActionPage, ActionRecord, ConnectionStatus
from .decision import ActionResult, AuthorizationDecision
from .record import Record
from .words import ActionType, Decision, DecisionStatus, FailMode, RiskLevel

__all__ = [
    "ActionPage",
    "ActionRecord",
    "ActionResult",
    "ActionType",
    "AgentAction",
    "AuthorizationDecision",
    "ConnectionStatus",
    "Decision",
    "DecisionStatus",
    "FailMode",
    "Record",
    "RiskLevel",
]
