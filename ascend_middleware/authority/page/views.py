"""What a signed-in person sees and does: pending actions, history, agents, and the audit log.

A view is a plain function; `app` says whether it runs as a reader, in the writer, or just in a thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from ascend_middleware.api.bodies import Page
from ascend_middleware.exceptions import NotFoundError, ValidationError

from .. import approvals, killswitch
from ..bodies import ApiError, read_query_fields, record_fields
from ..context import shown_to
from ..keys import DEFAULT_TENANT, LOCAL
from ..paging import cursor_of, in_order, read_query
from ..policy.approvers import approved_by, requirement
from ..roster import read_roster
from ..store.findings import Finding
from ..store.listing import Listing
from .views_base import RefusedError, Visit, sentence

__all__ = ["agents", "audit_log", "command", "decide", "details", "history", "queue", "verify"]

_MOST_PENDING: Final = 100
_MOST_AGENTS: Final = 100
_MOST_USES: Final = 100
_PER_PAGE: Final = 50
_LONGEST_PLACE: Final = 9
_LONGEST_ID: Final = 255
_MIN_BROADCAST_REASON: Final = 10
_FILTERS: Final = ("status", "risk_level", "agent_id", "start_date", "end_date")
# What the templates ask for, though a submission does not say it.
_ABSENT: Final = {
    **dict.fromkeys(("tool_name", "resource_id", "description", "business_justification", "mcp_server_name")),
    **dict.fromkeys(("model_id", "orchestration_session_id", "parent_action_id", "orchestration_depth")),
}

# --- actions


def _card(visit: Visit, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an action as the templates show it."""
    record, needed, given = record_fields(row), requirement(row), approved_by(row)
    barred = ""
    if not visit.who.role.decides:
        barred = "Your key only reads."
    elif approvals.is_own(row, visit.who):
        barred = "You submitted this yourself, so somebody else decides."
    elif not needed.admits(visit.who.name):
        barred = f"Decided by {', '.join(needed.names)}."
    return {
        "record": record,
        "id": row["id"],
        "pending": row["status"] == "pending",
        # Whoever decides must see the words that were submitted, not what the record says of them now.
        "submission": {**_ABSENT, **row["submission"]},
        "submitter": "this machine" if row["submitted_by"] == LOCAL.key_id else row["submitter"],
        "explanation": record["metadata"].get("explanation") or {},
        "needed": needed.count,
        "given": given,
        "approved_before": any(approvals.same_person(visit.who, one, None) for one in given),
        "barred": barred,
        "outcome": row["outcome"],
        "approval": {"via": "", "by": "", **row["approval"]} if row["approval"] else None,
        "version": f"{row['status']}.{row['updated_at']}.{len(given)}",
    }


def queue(visit: Visit) -> Response:
    """Show what waits for a person, the riskiest first among those that came at once, the oldest first of all."""
    found = visit.store.actions(tenant=visit.tenant, equal={"status": "pending"}, descending=False, limit=_MOST_PENDING)
    return visit.page("queue.html", cards=[_card(visit, row) for row in found.rows], total=found.total)


def _action(visit: Visit) -> dict[str, Any]:
    try:
        return visit.store.action(visit.request.path_params["id"], tenant=visit.tenant)
    except NotFoundError:
        raise RefusedError(404, "There is no such action.") from None


def details(visit: Visit) -> Response:
    """Show one action in full, with what the audit log says of it."""
    row = _action(visit)
    trail = visit.store.audit_trail(row["id"], tenant=visit.tenant, uses=_MOST_USES)
    return visit.page("action.html", card=_card(visit, row), trail=trail)


def decide(visit: Visit) -> Response:
    """Record a person's decision, through the same function as the API and the command line."""
    word = visit.form.get("decision")
    if word not in ("approve", "deny"):
        raise RefusedError(400, "The form says neither approve nor deny.")
    body = {"comments": visit.form.text("comments")}
    row = approvals.decide(visit.store, _action(visit), body, approved=word == "approve", by=visit.who, via="page")
    return visit.done("counted" if row["status"] == "pending" else str(row["status"]), to="/")


def history(visit: Visit) -> Response:
    """Show what was, filtered."""
    given = visit.request.query_params
    chosen = {name: given.get(name, "").strip() for name in _FILTERS}
    filters = {name: value for name, value in chosen.items() if value}
    problem = ""
    try:
        found = _history(visit, {**filters, **_place(given)})
    except ApiError as error:
        problem, found = error.message, _history(visit, {})
    cards = [_card(visit, row) for row in found.rows]
    pager = _pager("/history", filters, given, found)
    return visit.page("history.html", cards=cards, chosen=chosen, problem=problem, **pager)


def _history(visit: Visit, query: Mapping[str, str]) -> Listing:
    arguments = read_query(urlencode({**query, "limit": _PER_PAGE}))
    return in_order(lambda: visit.store.actions(tenant=visit.tenant, **arguments))


def _place(given: Mapping[str, str]) -> dict[str, str]:
    """Return where a page of a list begins: by a cursor, or, in older links, by an offset."""
    return {name: given[name] for name in ("cursor", "offset") if given.get(name)}


def _pager(path: str, filters: Mapping[str, str], given: Mapping[str, str], found: Listing) -> dict[str, Any]:
    """Return what the templates say of a page of a list, and where the next one is."""
    text = given.get("at") or given.get("offset") or ""
    first = int(text) + 1 if text.isascii() and text.isdigit() and len(text) <= _LONGEST_PLACE else 1
    place = {**filters, "cursor": str(found.next), "at": str(first - 1 + len(found.rows))}
    newest = f"{path}?{urlencode(filters)}" if filters else path
    return {
        "total": f"{found.total:,}" if found.exact else f"more than {found.total:,}",
        "first": first,
        "newest": newest if first > 1 else "",
        "older": f"{path}?{urlencode(place)}" if found.more else "",
    }


# --- agents


def agents(visit: Visit) -> Response:
    """Show the agents, those that need attention first."""
    find = visit.request.query_params.get("find", "").strip()
    found = read_roster(visit.store, tenant=visit.tenant, most=_MOST_AGENTS, find=find)
    everybody = killswitch.standing(visit.store, None, tenant=visit.tenant)
    return visit.page(
        "agents.html", agents=found.agents, total=found.total, hidden=found.hidden, find=find, everybody=everybody
    )


def command(visit: Visit) -> Response:
    """Issue a command to one agent, or to all of them."""
    if not visit.who.role.administers:
        raise RefusedError(403, "Commands need an admin key.")
    form, agent_id = visit.form, visit.form.get("agent_id")
    if agent_id is not None and not (
        0 < len(agent_id) <= _LONGEST_ID and agent_id == agent_id.strip() and agent_id.isprintable()
    ):
        raise RefusedError(400, "The form names no agent.")
    reason, rate, kind = form.text("reason"), form.text("max_per_minute"), form.get("command_type", "")
    if agent_id is None and len(reason) < _MIN_BROADCAST_REASON:
        message = f"A command to all agents needs a reason of at least {_MIN_BROADCAST_REASON} characters."
        raise RefusedError(422, message)
    if rate and not (rate.isascii() and rate.isdigit() and len(rate) < 9):
        raise RefusedError(422, "The limit must be a whole number.")
    try:
        limit = int(rate) if rate and kind == "RATE_LIMIT" else None
        killswitch.issue(visit.store, kind, reason, by=visit.who, via="page", agent_id=agent_id, max_per_minute=limit)
    except ValidationError as error:
        field, _, rest = error.message.partition(": ")
        raise RefusedError(422, sentence(f"{field.replace('_', ' ')} {rest}" if rest else error.message)) from None
    return visit.done("commanded", to="/agents")


# --- the audit log


def audit_log(visit: Visit) -> Response:
    """Show the entries, the newest first, and the state of the whole log."""
    given = visit.request.query_params
    found, at = visit.desk.verifier.state()
    try:
        page = read_query_fields(urlencode(_place(given)), Page)
        cursor = cursor_of(page)
        shown = in_order(
            lambda: visit.store.audit_page(visit.tenant, limit=_PER_PAGE, offset=page.offset, cursor=cursor)
        )
    except ApiError:
        shown = visit.store.audit_page(visit.tenant, limit=_PER_PAGE)
    bad = {finding.seq for finding in found.findings}
    entries = [{**_entry(visit, row), "hash": row["hash"], "bad": row["seq"] in bad} for row in shown.rows]
    findings = [(one.kind, _told(visit, one)) for one in found.findings]
    pager = _pager("/audit", {}, given, shown)
    return visit.page("audit.html", found=found, findings=findings, verified_at=at, entries=entries, **pager)


def _told(visit: Visit, finding: Finding) -> str:
    """Return what somebody may know of a finding: it may hold what stands in another organisation's rows."""
    if visit.tenant == DEFAULT_TENANT and visit.who.role.administers:
        return finding.message
    place = f"table {finding.table}" if finding.table else f"entry {finding.seq}"
    return f"{place}; an admin of the organisation {DEFAULT_TENANT} sees what, and so does `audit verify`"


def _entry(visit: Visit, row: Any) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(row["entry"])
        told = {name: entry[name] for name in ("seq", "at", "event", "actor", "action_id")}
        return {**told, "data": shown_to(visit.who, entry["data"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        unread = {"at": "", "event": "UNREADABLE", "actor": "", "action_id": None}
        return {**unread, "seq": row["seq"], "data": row["entry"] if visit.who.role.administers else ""}


def verify(visit: Visit) -> Response:
    """Read the whole log again."""
    visit.desk.verifier.state(again=True)
    return visit.done("verified", to="/audit")
