"""What became of an action, of many in one request, and of many that a client asked about one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from ..exceptions import AscendError, ProtocolError
from .bodies import Name
from .decode import error_from_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .models import AuthorizationDecision

__all__ = [
    "MAX_OUTCOMES",
    "BulkActionResult",
    "BulkEvaluationResult",
    "Outcome",
    "Outcomes",
    "ReportedOutcome",
    "read_errors",
]

MAX_OUTCOMES: Final = 500


class Outcome(Struct, kw_only=True):
    """What became of an action."""

    action_id: Any = None
    status: Any = None
    result: Any = None
    error: Any = None
    duration_ms: Annotated[float, Meta(ge=0)] | None = None
    completed_at: Any = None
    failed_at: Any = None
    given_back: Annotated[int, Meta(ge=1)] | None = None


class ReportedOutcome(Outcome, kw_only=True):
    """One outcome of a batch: what path and headers say of a single one stands in it.

    With the status `used`, it is not the action's own outcome: the decision about it let a further, identical request
    pass, and `outcome` is what became of that. `use` names it at the service that tells, `how` says whether the
    decision was kept (`cached`) or made for several requests at once (`coalesced`).
    """

    action_id: int | Name
    status: Literal["completed", "failed", "used"]
    outcome: Literal["completed", "failed"] | None = None
    use: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    how: Literal["cached", "coalesced"] | None = None
    used_at: Annotated[str, Meta(max_length=64)] | None = None
    idempotency_key: Annotated[str, Meta(pattern=r"^[!-~]{1,255}$(?!\n)")] | None = None


class Outcomes(Struct, kw_only=True):
    """What became of many actions. Each is read by itself as a `ReportedOutcome`: a bad one stops no other."""

    outcomes: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_OUTCOMES)]


def read_errors(answer: Mapping[str, Any], *, count: int) -> list[AscendError | None]:
    """Read for each outcome of a batch, in their order, the error that it was refused with; None where it was taken."""
    found: Any = answer.get("outcomes")
    rows = [row if isinstance(row, dict) else {} for row in found] if isinstance(found, list) else []
    statuses: list[Any] = [row.get("status") for row in rows]
    if len(rows) != count or not all(type(status) is int and status >= 200 for status in statuses):
        raise ProtocolError("the authority's answer does not say what became of each outcome")
    return [
        None if status < 300 else error_from_answer(status, msgspec.json.encode(row), {})
        for status, row in zip(statuses, rows, strict=True)
    ]


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
