"""What is asked and what is answered: the API's words, actions, decisions, records and pages.

Answers serve both generations of documented programs: attributes (`result.reason`) and items (`result["reason"]`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar

import msgspec

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
        return cls.PENDING if value in ("pending_approval", "escalated") else None


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

    # What `repr` shows where that is not all, the key of rows that are records, and why it is neither true nor false.
    _SHOWN: ClassVar[tuple[str, ...]] = ()
    _ROWS: ClassVar[str] = ""
    _NO_TRUTH: ClassVar[str] = ""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self)}") from None

    def __repr__(self) -> str:
        shown = {key: getattr(self, key, None) for key in self._SHOWN} if self._SHOWN else self
        texts = {key: str(value) if isinstance(value, str) else value for key, value in shown.items()}
        fields = (f"{key}={'***' if key == 'secret' else value!r}" for key, value in texts.items())
        return f"{type(self).__name__}({', '.join(fields)})"

    def __bool__(self) -> bool:
        if self._NO_TRUTH:
            raise TypeError(self._NO_TRUTH)
        return len(self) > 0

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that `json.dumps` takes."""
        rows = {self._ROWS: [row.to_dict() for row in self[self._ROWS]]} if self._ROWS else {}
        return {**self, **rows}


def _field(kind: Any, *names: str, other: Callable[[], Any] = lambda: None, doc: str) -> Any:
    """Make a property: what stands under the first of the names that has such a value, no empty text."""

    def read(record: Record) -> Any:
        found = (value for name in names if isinstance(value := record.get(name), kind))
        return next((value for value in found if value != "" and not isinstance(value, bool)), other())

    return property(read, doc=doc)


def _beyond(record: Record, named: frozenset[str]) -> dict[str, Any]:
    own = record.get("metadata")
    rest = {key: value for key, value in record.items() if key not in named}
    return {**rest, **own} if isinstance(own, dict) else rest


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
    _SHOWN = ("action_id", "status", "reason")
    _NO_TRUTH = "a decision has no truth value; ask is_approved(), is_denied() or is_pending()"

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
        allowed = decision is Decision.ALLOWED
        self.update(action_id=action_id, decision=decision, status=status, execution_allowed=allowed)

    @property
    def execution_allowed(self) -> bool:
        """Whether the action may be carried out; derived from `decision`, never taken from the wire alone."""
        return self.decision is Decision.ALLOWED

    def is_approved(self) -> bool:
        """Say whether the action may be carried out now."""
        return self.decision is Decision.ALLOWED

    def is_denied(self) -> bool:
        """Say whether the action must not be carried out."""
        return self.decision is Decision.DENIED

    def is_pending(self) -> bool:
        """Say whether a person has still to decide."""
        return self.decision is Decision.PENDING

    risk_score: float | None = _field(
        (int, float), "risk_score", doc="The authority's score, 0 to 100, if it sent one."
    )
    risk_level: str | None = _field(str, "risk_level", doc="One of low, medium, high, critical, as sent.")
    reason: str = _field(str, "reason", "denial_reason", "message", other=str, doc="Why, in words; may be empty.")
    policy_matched: str | None = _field(str, "policy_matched", doc="The policy that decided, when one did.")
    timestamp: str | None = _field(str, "timestamp", "updated_at", "created_at", doc="When it was given, ISO 8601.")
    created_at: str | None = _field(str, "created_at", doc="When the action was submitted, ISO 8601.")
    updated_at: str | None = _field(str, "updated_at", doc="When the action last changed, ISO 8601.")
    model_governance: dict[str, Any] | None = _field(dict, "model_governance", doc="What was checked about the model.")
    mcp_governance: dict[str, Any] | None = _field(dict, "mcp_governance", doc="What was checked about the MCP server.")
    conditions: list[Any] = _field(list, "conditions", other=list, doc="What has to hold for the approval to be used.")
    policy_violations: list[Any] = _field(list, "policy_violations", other=list, doc="What policies it breaks.")
    required_approvers: list[Any] = _field(list, "required_approvers", other=list, doc="Who may approve.")

    @property
    def approval_request_id(self) -> str | None:
        """Where the approval is asked for; the action's id when the authority names no other, None unless pending."""
        named = self.get("approval_request_id")
        return named if isinstance(named, str) and named else self.action_id if self.is_pending() else None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the authority sent beyond the fields named above; its own `metadata` object is merged in."""
        return _beyond(self, _DECISION_FIELDS)


ActionResult = AuthorizationDecision

_RECORD_FIELDS = frozenset(
    {"action_id", "created_at", "decision", "metadata", "reason", "risk_level", "risk_score", "status", "updated_at"}
)
_DECISION_FIELDS = _RECORD_FIELDS | {
    "approval_request_id",
    "execution_allowed",
    "id",
    "policy_matched",
    "policy_state",
    "timestamp",
}


class ActionRecord(Record):
    """One stored action, in full or as the row of a list; it informs, and only an `AuthorizationDecision` permits."""

    __slots__ = ()

    @property
    def metadata(self) -> dict[str, Any]:
        """What the authority sent beyond the named fields; its own `metadata` object is merged in."""
        return _beyond(self, _RECORD_FIELDS)


class ActionPage(Record):
    """One page of a list: `actions`, `total`, `limit`, `offset`, `has_more`, `next`; iterate `.actions`, not the page.

    `next` is what the following page is asked for with, as `cursor`.
    """

    __slots__ = ()
    _SHOWN = ("total", "limit", "offset", "has_more")
    _ROWS = "actions"
    actions: list[ActionRecord]


class ConnectionStatus(Record):
    """The result of `test_connection`; `status` is `connected` or `error`.

    Keys that are always there: status, connected, api_version, latency_ms (milliseconds), server_time; `error` is
    there only on failure, as `.get("error")` expects.
    """

    __slots__ = ()
    _SHOWN = ("status", "api_version", "error")
    connected: bool
    error: str | None = _field(str, "error", doc="What went wrong, or None.")


class KillSwitchStatus(Record):
    """Whether an agent is stopped: `blocked`, `reason`, `activated_at` (ISO 8601), `activated_by`.

    It has no truth value, because `if status:` would take "not blocked" for "blocked": use `.blocked`.
    """

    __slots__ = ()
    _NO_TRUTH = "a kill-switch status has no truth value; ask .blocked"

    @property
    def blocked(self) -> bool:
        """Whether the agent, or its whole organisation, is stopped."""
        return self["blocked"] is not False


class ApprovalStatus(Record):
    """What became of an approval request: exactly one of `approved`, `denied`, `pending` is true.

    Other keys: `status` (the authority's word), `approver`, `timestamp` (ISO 8601), `comments`, `metadata` (all that
    was sent). It informs; what may run is decided by the action's own status.
    """

    __slots__ = ()
    _NO_TRUTH = "an approval has no truth value; ask .approved, .denied or .pending"
    approved: bool
    denied: bool
    pending: bool


class PolicyEvaluationResult(Record):
    """What the policies would say, as a dry run; it permits nothing and has no truth value.

    Keys: `decision` (the authority's word), `matched_policies`, `violations`, `risk_score` (0 to 100),
    `evaluation_time_ms` (milliseconds).
    """

    __slots__ = ()
    _NO_TRUTH = "a dry run has no truth value and permits nothing; compare .decision"


class AuditEvent(Record):
    """One entry of the audit: `event_id`, `event_type`, `timestamp` (ISO 8601), and what else the authority tells."""

    __slots__ = ()


class AuditLogResponse(Record):
    """One page of the audit: `events`, `total`, `limit`, `offset`, `next`; iterate `.events`, not the page."""

    __slots__ = ()
    _ROWS = "events"
    events: list[AuditEvent]


class AgentHealthStatus(Record):
    """How an agent is: `agent_id`, `status` (the authority's word), `last_heartbeat`, `uptime_seconds`, `metadata`."""

    __slots__ = ()


class Webhook(Record):
    """One subscription: `webhook_id`, `url`, `events`, and what else was sent: active, created_at.

    A `secret` that the authority sends back is an item and an attribute, and never part of the `repr`.
    """

    __slots__ = ()


class WebhookTestResult(Record):
    """How the receiver answered a test event: `success`, `status_code`, `response_time_ms` (milliseconds), `error`.

    It has no truth value: use `.success`.
    """

    __slots__ = ()
    _NO_TRUTH = "a test result has no truth value; ask .success"
