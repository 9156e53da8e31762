"""Requests as the core sees them, the query of a list, and the page it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, get_args

from ascend_middleware.api.bodies import Page
from ascend_middleware.api.types import MAX_LIMIT, MAX_OFFSET, RiskLevelWord

from .bodies import ApiError, query_pairs, read_object
from .store.store import SORT_FIELDS, iso_time

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Request", "listed", "read_query"]

_STATUS: Final = {
    "pending": "pending",
    "pending_approval": "pending",
    "approved": "approved",
    "denied": "denied",
    "rejected": "denied",
}
_LEVELS: Final = get_args(RiskLevelWord)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `path` has the v1 form; `envelope` says which form its answer takes."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    correlation_id: str
    envelope: bool
    _read: list[dict[str, Any]] = field(default_factory=list, init=False, repr=False, compare=False)

    def read(self) -> dict[str, Any]:
        """Return the body as an object, read once; see `bodies.read_object`."""
        if not self._read:
            self._read.append(read_object(self.body))
        return self._read[0]


def listed(name: str, rows: list[dict[str, Any]], page: Page, total: int | None = None) -> dict[str, Any]:
    """Return a list's answer in the union of its documented forms.

    Args:
        name: what the rows are called.
        rows: those of the page; without `total` all that there are, of which the page is cut.
        page: its bounds.
        total: how many there are.
    """
    if total is None:
        rows, total = rows[page.offset : page.offset + page.limit], len(rows)
    bounds = {"limit": page.limit, "offset": page.offset, "has_more": page.offset + len(rows) < total}
    paging = {"total": total, **bounds}
    return {name: rows, "data": rows, **paging, "pagination": paging}


def read_query(query: str) -> dict[str, Any]:
    """Return the arguments of `Store.actions` for a list's query; refuse what would silently filter otherwise."""
    given = query_pairs(query)
    arguments: dict[str, Any] = {"limit": 50, "offset": 0, "equal": {}}
    for name, text in given.items():
        if name == "limit":
            arguments["limit"] = _whole(name, text, 1, MAX_LIMIT)
        elif name == "offset":
            arguments["offset"] = _whole(name, text, 0, MAX_OFFSET)
        elif name == "status":
            arguments["equal"]["status"] = _STATUS[_word(name, text, tuple(_STATUS))]
        elif name == "risk_level":
            arguments["equal"]["risk_level"] = _word(name, text, _LEVELS)
        elif name == "agent_id":
            arguments["equal"]["agent_id"] = text
        elif name == "sort":
            arguments["sort"] = _word(name, text, SORT_FIELDS)
        elif name == "order":
            arguments["descending"] = _word(name, text, ("asc", "desc")) == "desc"
        elif name == "start_date":
            arguments["since"] = _moment(name, text)
        elif name == "end_date":
            arguments["before"] = _moment(name, text, end=True)
        else:
            raise _bad(name, "is no parameter of this list")
    return arguments


def _bad(name: str, message: str) -> ApiError:
    shown = name[:40]
    return ApiError(422, "VALIDATION_ERROR", f"{shown} {message}", details={"field": shown, "issue": message})


def _whole(name: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise _bad(name, f"must be a whole number from {low} to {high}")
    return int(text)


def _word(name: str, text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise _bad(name, f"must be one of {', '.join(words)}")
    return text


def _moment(name: str, text: str, *, end: bool = False) -> str:
    """Return a bound on stored times; an end is inclusive, a date as an end includes its whole day."""
    try:
        if len(text) == 10:
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            moment = day + timedelta(days=1) if end else day
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            moment += timedelta(milliseconds=1 if end else 0)
        return iso_time(moment.timestamp())
    except (ValueError, OverflowError):
        raise _bad(name, "must be a date or a date-time in ISO 8601") from None
