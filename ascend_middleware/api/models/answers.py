"""What the API answers besides decisions, as Python objects: records, lists and states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .decision import Record

if TYPE_CHECKING:
    from ...exceptions import AscendError
    from .decision import AuthorizationDecision

__all__ = [
    "ActionPage",
    "ActionRecord",
    "AgentHealthStatus",
    "ApprovalStatus",
    "AuditEvent",
    "AuditLogResponse",
    "BulkActionResult",
    "BulkEvaluationResult",
    "ConnectionStatus",
    "KillSwitchStatus",
    "PolicyEvaluationResult",
    "Webhook",
    "WebhookTestResult",
]


class ActionRecord(Record):
    """One stored action, in full or as the row of a list; it informs, and only an `AuthorizationDecision` permits."""

    __slots__ = ()

    _NAMED: ClassVar[frozenset[str]] = frozenset(
        {"action_id", "status", "decision", "risk_score", "risk_level", "reason", "created_at", "updated_at"},
    )

    @property
    def metadata(self) -> dict[str, Any]:
        """What the authority sent beyond the named fields; its own `metadata` object is merged in."""
        rest = {key: value for key, value in self.items() if key not in self._NAMED and key != "metadata"}
        own = self.get("metadata")
        return {**rest, **own} if isinstance(own, dict) else rest


class ActionPage(Record):
    """One page of a list: `actions`, `total`, `limit`, `offset`, `has_more`.

    Iterate `.actions`, not the page.
    """

    __slots__ = ()

    @property
    def actions(self) -> list[ActionRecord]:
        """The rows of this page."""
        rows: list[ActionRecord] = self["actions"]
        return rows

    def _summary(self) -> dict[str, Any]:
        return {key: self.get(key) for key in ("total", "limit", "offset", "has_more")}

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that `json.dumps` takes."""
        return {**self, "actions": [row.to_dict() for row in self.actions]}


class ConnectionStatus(Record):
    """The result of `test_connection`; `status` is `connected` or `error`.

    Keys that are always there: status, connected, api_version, latency_ms (milliseconds), server_time; `error` is
    there only on failure, as `.get("error")` expects.
    """

    __slots__ = ()

    @property
    def connected(self) -> bool:
        """Whether the authenticated call succeeded."""
        return bool(self["connected"])

    @property
    def error(self) -> str | None:
        """What went wrong, or None."""
        return self.get("error")

    def _summary(self) -> dict[str, Any]:
        return {key: self.get(key) for key in ("status", "api_version", "error")}


class KillSwitchStatus(Record):
    """Whether an agent is stopped: `blocked`, `reason`, `activated_at` (ISO 8601), `activated_by`.

    It has no truth value, because `if status:` would take "not blocked" for "blocked": use `.blocked`.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        raise TypeError("a kill-switch status has no truth value; ask .blocked")

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

    def __bool__(self) -> bool:
        raise TypeError("an approval has no truth value; ask .approved, .denied or .pending")

    @property
    def approved(self) -> bool:
        """Whether a person approved."""
        return self["approved"] is True

    @property
    def denied(self) -> bool:
        """Whether a person denied, or the request expired."""
        return self["denied"] is True

    @property
    def pending(self) -> bool:
        """Whether nobody has decided yet."""
        return self["pending"] is True


class PolicyEvaluationResult(Record):
    """What the policies would say, as a dry run; it permits nothing and has no truth value.

    Keys: `decision` (the authority's word), `matched_policies`, `violations`, `risk_score` (0 to 100),
    `evaluation_time_ms` (milliseconds).
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        raise TypeError("a dry run has no truth value and permits nothing; compare .decision")


class AuditEvent(Record):
    """One entry of the audit: `event_id`, `event_type`, `timestamp` (ISO 8601), and what else was sent.

    That is, as far as the authority tells it: actor, resource, action, outcome, details.
    """

    __slots__ = ()


class AuditLogResponse(Record):
    """One page of the audit: `events`, `total`, `limit`, `offset`.

    Iterate `.events`, not the page.
    """

    __slots__ = ()

    @property
    def events(self) -> list[AuditEvent]:
        """The entries of this page, as the authority ordered them."""
        rows: list[AuditEvent] = self["events"]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that `json.dumps` takes."""
        return {**self, "events": [row.to_dict() for row in self.events]}


class AgentHealthStatus(Record):
    """How an agent is.

    Keys: `agent_id`, `status` (the authority's word), `last_heartbeat` (ISO 8601 or None), `uptime_seconds` (seconds
    or None), `metadata`.
    """

    __slots__ = ()


class Webhook(Record):
    """One subscription: `webhook_id`, `url`, `events`, and what else was sent: active, created_at.

    A `secret` that the authority sends back is an item and an attribute, and never part of the `repr`.
    """

    __slots__ = ()

    def _summary(self) -> dict[str, Any]:
        return {key: "***" if key == "secret" else value for key, value in self.items()}


class WebhookTestResult(Record):
    """How the receiver answered a test event: `success`, `status_code`, `response_time_ms` (milliseconds), `error`.

    It has no truth value: use `.success`.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        raise TypeError("a test result has no truth value; ask .success")


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkActionResult:
    """What became of one action of `evaluate_actions`.

    Attributes:
        action_type: as asked.
        resource: as asked.
        decision: the authority's decision, or None when there was none.
        exception: why there was no decision, or None.
    """

    action_type: str
    resource: str
    decision: AuthorizationDecision | None = None
    exception: AscendError | None = None

    def __bool__(self) -> bool:
        raise TypeError("a bulk result has no truth value; ask .is_approved() or .succeeded")

    @property
    def succeeded(self) -> bool:
        """Whether there is a decision, of whatever kind; it permits nothing."""
        return self.decision is not None

    @property
    def error(self) -> str | None:
        """Why there was no decision, in words."""
        return None if self.exception is None else str(self.exception) or type(self.exception).__name__

    def is_approved(self) -> bool:
        """Say whether the action may be carried out now."""
        return self.decision is not None and self.decision.is_approved()


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkEvaluationResult:
    """What became of the actions of `evaluate_actions`: one result for each, in the order asked.

    Attributes:
        results: a `BulkActionResult` for each action.
    """

    results: tuple[BulkActionResult, ...]

    @property
    def total(self) -> int:
        """How many were asked."""
        return len(self.results)

    @property
    def succeeded(self) -> int:
        """How many have a decision, of whatever kind."""
        return sum(result.succeeded for result in self.results)

    @property
    def failed(self) -> int:
        """How many have none."""
        return self.total - self.succeeded
