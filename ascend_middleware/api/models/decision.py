"""What is asked and decided about one action: the API's words, the action, the decision."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "ActionResult",
    "ActionType",
    "AgentAction",
    "AuthorizationDecision",
    "Decision",
    "DecisionStatus",
    "FailMode",
    "Record",
    "RiskLevel",
]


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


class AgentAction(msgspec.Struct, omit_defaults=True):
    """One action that an agent wants to take.

    Args:
        agent_id: who acts; a stable identifier.
        agent_name: the same for people.
        action_type: what kind of action, `database_read`; free text, `ActionType` names common ones.
        resource: what is acted on, in words.
        resource_id: the identifier of what is acted on.
        action_details: the action's own parameters; policies read them.
        context: where the action comes from: session, request, user.
        risk_indicators: facts that raise the risk; the authority scores, `risk_score` and `risk_level` are never sent.
        tool_name: the tool or service that would carry the action out.
        description: a sentence for the person who approves.
        orchestration_session_id: the run that several agents share.
        parent_action_id: the action that caused this one; must belong to the same session.
        orchestration_depth: 0 for a root action, at most 5.
        mcp_server_name: the MCP server that would carry the action out; must be registered.
        model_id: the number or the name of the model that the agent uses; must be approved.
        business_justification: why, for the person who approves.
    """

    agent_id: str
    agent_name: str
    action_type: str
    resource: str
    resource_id: str | None = None
    action_details: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    risk_indicators: dict[str, Any] | None = None
    tool_name: str | None = None
    description: str | None = None
    orchestration_session_id: str | None = None
    parent_action_id: int | str | None = None
    orchestration_depth: int | None = None
    mcp_server_name: str | None = None
    model_id: int | str | None = None
    business_justification: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the four required keys and whatever else is set."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class Record(dict[str, Any]):
    """An object of the API: a dict whose keys are attributes too; where a method of dicts has the name, it goes first.

    A key that the authority did not send raises `KeyError` as an item and `AttributeError` as an attribute.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self)}") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._summary().items())})"

    def _summary(self) -> dict[str, Any]:
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)


class AuthorizationDecision(Record):
    """What the authority decided about one action.

    Build it from an answer with `api.decode.decode_decision` only: that is where an answer is checked.
    It has no truth value, because `if result:` would take a denial for a permission: use `is_approved()`.

    Attributes:
        action_id: decimal digits; empty only on a refusal that created no action.
        decision: `Decision.ALLOWED`, `DENIED` or `PENDING`; the strictest of all that the answer says.
        status: the same word, or `requires_modification` or `timeout` (both are not allowed).
        escalated: whether the authority says that the decision went on to a senior person; it is pending then.
    """

    __slots__ = ("action_id", "decision", "escalated", "status")

    action_id: str
    decision: Decision
    status: DecisionStatus
    escalated: bool

    def __init__(
        self, fields: Mapping[str, Any], *, action_id: str, decision: Decision, status: DecisionStatus
    ) -> None:
        super().__init__(fields)
        self.action_id = action_id
        self.decision = decision
        self.status = status
        self.escalated = decision is Decision.PENDING and (
            fields.get("escalated") is True
            or any(fields.get(name) == "escalated" for name in ("status", "decision", "enforcement_decision"))
        )
        if self.escalated:  # the words below forget it, and a decision may be made of another one's fields
            self["escalated"] = True
        self.update(
            action_id=action_id,
            decision=decision,
            status=status,
            execution_allowed=decision is Decision.ALLOWED,
        )

    def __bool__(self) -> bool:
        raise TypeError("a decision has no truth value; ask is_approved(), is_denied() or is_pending()")

    def _summary(self) -> dict[str, Any]:
        return {"action_id": self.action_id, "status": str(self.status), "reason": self.reason}

    def is_approved(self) -> bool:
        """Say whether the action may be carried out now."""
        return self.decision is Decision.ALLOWED

    def is_denied(self) -> bool:
        """Say whether the action must not be carried out."""
        return self.decision is Decision.DENIED

    def is_pending(self) -> bool:
        """Say whether a person has still to decide."""
        return self.decision is Decision.PENDING

    @property
    def execution_allowed(self) -> bool:
        """Whether the action may be carried out; derived from `decision`, never taken from the wire alone."""
        return self.decision is Decision.ALLOWED

    @property
    def risk_score(self) -> float | None:
        """The authority's score, 0 to 100, or None when it sent none."""
        score = self.get("risk_score")
        return score if isinstance(score, int | float) and not isinstance(score, bool) else None

    @property
    def risk_level(self) -> str | None:
        """One of low, medium, high, critical, as sent."""
        return self._text("risk_level") or None

    @property
    def reason(self) -> str:
        """Why, in the authority's words; may be empty."""
        return self._text("reason") or self._text("denial_reason") or self._text("message")

    @property
    def policy_matched(self) -> str | None:
        """The policy that decided, when one did."""
        return self._text("policy_matched") or None

    @property
    def timestamp(self) -> str | None:
        """When the answer was given, ISO 8601."""
        return self._text("timestamp") or self._text("updated_at") or self._text("created_at") or None

    @property
    def created_at(self) -> str | None:
        """When the action was submitted, ISO 8601."""
        return self._text("created_at") or None

    @property
    def updated_at(self) -> str | None:
        """When the action last changed, ISO 8601."""
        return self._text("updated_at") or None

    @property
    def approval_request_id(self) -> str | None:
        """Where the approval is asked for; the action's id when the authority names no other, None unless pending."""
        if not self.is_pending():
            return self._text("approval_request_id") or None
        return self._text("approval_request_id") or self.action_id

    @property
    def model_governance(self) -> dict[str, Any] | None:
        """What the authority checked about the model."""
        return self._object("model_governance")

    @property
    def mcp_governance(self) -> dict[str, Any] | None:
        """What the authority checked about the MCP server."""
        return self._object("mcp_governance")

    @property
    def conditions(self) -> list[Any]:
        """What has to hold for the approval to be used."""
        return self._list("conditions")

    @property
    def policy_violations(self) -> list[Any]:
        """The policies that the action breaks."""
        return self._list("policy_violations")

    @property
    def required_approvers(self) -> list[Any]:
        """Who may approve."""
        return self._list("required_approvers")

    @property
    def metadata(self) -> dict[str, Any]:
        """What the authority sent beyond the fields named above; its own `metadata` object is merged in."""
        own = self.get("metadata")
        rest = {key: value for key, value in self.items() if key not in _DECISION_FIELDS}
        return {**rest, **own} if isinstance(own, dict) else rest

    def _text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else ""

    def _object(self, key: str) -> dict[str, Any] | None:
        value = self.get(key)
        return value if isinstance(value, dict) else None

    def _list(self, key: str) -> list[Any]:
        value = self.get(key)
        return value if isinstance(value, list) else []


ActionResult = AuthorizationDecision

_DECISION_FIELDS = frozenset(
    {
        "action_id",
        "approval_request_id",
        "created_at",
        "decision",
        "execution_allowed",
        "id",
        "metadata",
        "policy_matched",
        "reason",
        "risk_level",
        "risk_score",
        "status",
        "timestamp",
        "updated_at",
    },
)
