"""What became of many actions at once: the body of a batch, and how its answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from ..exceptions import AscendError, ProtocolError
from .bodies import Name, Outcome
from .decode import error_from_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_OUTCOMES", "Outcomes", "ReportedOutcome", "read_errors"]

MAX_OUTCOMES: Final = 500


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
