"""The words of the API: action types, decisions, statuses, levels."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ActionType", "Decision", "DecisionStatus", "FailMode", "RiskLevel"]


class ActionType(StrEnum):
    """The action types that the reference client names; an action may have any other type, too."""

    DATA_ACCESS = "data_access"
    DATA_MODIFICATION = "data_modification"
    TRANSACTION = "transaction"
    RECOMMENDATION = "recommendation"
    COMMUNICATION = "communication"
    SYSTEM_OPERATION = "system_operation"


class DecisionStatus(StrEnum):
    """The words of the `status` field."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REQUIRES_MODIFICATION = "requires_modification"
    TIMEOUT = "timeout"


class Decision(StrEnum):
    """What the authority answered.

    `Decision.ALLOWED == "approved" == DecisionStatus.APPROVED`; the synonyms of other API generations
    (`allowed`, `auto_approved`, `executed`, `pending_approval`, `escalated`) construct the same members.
    """

    ALLOWED = "approved"
    APPROVED = "approved"
    DENIED = "denied"
    PENDING = "pending"

    @classmethod
    def _missing_(cls, value: object) -> Decision | None:
        if value in ("allowed", "auto_approved", "executed"):
            return cls.ALLOWED
        if value in ("pending_approval", "escalated"):
            return cls.PENDING
        return None


class FailMode(StrEnum):
    """What a client does when the authority cannot be asked: refuse, or answer ALLOWED and mark it so."""

    CLOSED = "closed"
    OPEN = "open"


class RiskLevel(StrEnum):
    """The words of the `risk_level` field, lower case only."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
