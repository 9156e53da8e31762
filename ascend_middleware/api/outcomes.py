"""What became of many actions at once: the body of a batch, and how its answer is read."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from ..exceptions import AscendError, ProtocolError
from .bodies import Name, Outcome
from .decode import decode_object, error_from_answer

__all__ = ["MAX_OUTCOMES", "Outcomes", "ReportedOutcome", "read_errors"]

MAX_OUTCOMES: Final = 500


class ReportedOutcome(Outcome, kw_only=True):
    """One outcome of a batch: what path and headers say of a single one stands in it."""

    action_id: int | Name
    status: Literal["completed", "failed"]
    idempotency_key: Annotated[str, Meta(pattern=r"^[!-~]{1,255}$(?!\n)")] | None = None


class Outcomes(Struct, kw_only=True):
    """What became of many actions. Each is read by itself as a `ReportedOutcome`: a bad one stops no other."""

    outcomes: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_OUTCOMES)]


def read_errors(content: bytes, *, count: int) -> list[AscendError | None]:
    """Read for each outcome of a batch, in their order, the error that it was refused with; None where it was taken."""
    found: Any = decode_object(content).get("outcomes")
    rows = [row if isinstance(row, dict) else {} for row in found] if isinstance(found, list) else []
    statuses: list[Any] = [row.get("status") for row in rows]
    if len(rows) != count or not all(type(status) is int and status >= 200 for status in statuses):
        raise ProtocolError("the authority's answer does not say what became of each outcome")
    return [
        None if status < 300 else error_from_answer(status, msgspec.json.encode(row), {})
        for status, row in zip(statuses, rows, strict=True)
    ]
