"""Pages of lists: what a query asks for and where it wants one to begin, and how one is answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET

from ascend_middleware.api.bodies import ActionQuery, Page

from .bodies import read_query_fields, wrong
from .cursors import Cursor, OtherListError, read_cursor
from .store.listing import Listing
from .store.store import iso_time

__all__ = ["cursor_of", "cut", "in_order", "listed", "read_query"]

# The words of two generations of clients for one status.
_STATUS: Final = {"pending_approval": "pending", "rejected": "denied"}


def read_query(query: str) -> dict[str, Any]:
    """Return the arguments of `Store.actions` for a list's query; refuse what would silently filter otherwise."""
    read = read_query_fields(query, ActionQuery)
    given = msgspec.to_builtins(read)  # without what is not given
    arguments = {name: given[name] for name in ("limit", "offset", "sort") if name in given}
    arguments["equal"] = {name: given[name] for name in ("status", "risk_level", "agent_id") if name in given}
    if "status" in given:
        arguments["equal"]["status"] = _STATUS.get(given["status"], given["status"])
    arguments["cursor"] = cursor_of(read)
    if "order" in given:
        arguments["descending"] = given["order"] == "desc"
    for bound, name in (("since", "start_date"), ("before", "end_date")):
        if name in given:
            arguments[bound] = _moment(name, given[name], end=name == "end_date")
    return arguments


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
        raise wrong(name, "must be a date or a date-time in ISO 8601") from None


def cursor_of(page: Page) -> Cursor | None:
    """Return the cursor that a query gives, if it gives one."""
    if page.cursor is UNSET:
        return None
    if page.offset:
        raise wrong("offset", "beside a cursor means nothing; leave one of them out")
    try:
        return read_cursor(page.cursor)
    except ValueError:
        raise wrong("cursor", "is none that a list gave; pass `next` of a page as it is") from None


def in_order(read: Callable[[], Listing]) -> Listing:
    """Return a page that is read; refuse a cursor of a list that was ordered otherwise."""
    try:
        return read()
    except OtherListError as error:
        raise wrong("cursor", str(error)) from None


def listed(name: str, page: Page, found: Listing) -> dict[str, Any]:
    """Return a list's answer in the union of its documented forms."""
    paging: dict[str, Any] = {"total": found.total, "limit": page.limit, "offset": page.offset, "has_more": found.more}
    if found.more:
        paging["next"] = str(found.next)
    if not found.exact:
        paging["total_exact"] = False
    return {name: found.rows, "data": found.rows, **paging, "pagination": paging}


def cut(rows: list[dict[str, Any]], page: Page) -> Listing:
    """Return one page of rows that are all there; its cursor is how many come before the next."""
    given = cursor_of(page)
    first = page.offset if given is None else max(given.number, 0)
    end = first + page.limit
    return Listing(rows[first:end], len(rows), Cursor(end) if end < len(rows) else None)
