"""Actions on the page: those that wait for a person, one action in full, and the history."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import anyio.to_thread

from ascend_middleware.exceptions import NotFoundError

from .. import approvals
from ..answers import record_fields
from ..bodies import ApiError
from ..keys import LOCAL
from ..pagination import read_query
from ..policy.approvers import approved_by, requirement
from .views_base import Desk, Form, RefusedError, signed_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from .sessions import Session

__all__ = ["decide", "details", "history", "queue"]

_MOST_PENDING: Final = 100
_PER_PAGE: Final = 50
_ABSENT: Final = dict.fromkeys(
    (
        "tool_name",
        "resource_id",
        "description",
        "business_justification",
        "mcp_server_name",
        "model_id",
        "orchestration_session_id",
        "parent_action_id",
        "orchestration_depth",
    )
)
_FILTERS: Final = ("status", "risk_level", "agent_id", "start_date", "end_date")


def _view(desk: Desk, row: Mapping[str, Any], session: Session) -> dict[str, Any]:
    """Return an action as the templates show it."""
    record = record_fields(row)
    needed = requirement(row)
    given = approved_by(row)
    name = session.credential.name
    if approvals.is_own(row, session.credential):
        barred = "You submitted this yourself, so somebody else decides."
    elif not needed.admits(name):
        barred = f"Decided by {', '.join(needed.names)}."
    else:
        barred = ""
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
        "approved_before": any(approvals.same_person(session.credential, one, None) for one in given),
        "barred": barred,
        "outcome": row["outcome"],
        "approval": {"via": "", "by": "", **row["approval"]} if row["approval"] else None,
        "version": f"{row['status']}.{row['updated_at']}.{len(given)}",
    }


@signed_in
async def queue(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Show what waits for a person, the riskiest first among those that came at once, the oldest first of all."""
    return await desk.read(session, functools.partial(_queue, desk, request, session))


def _queue(desk: Desk, request: Request, session: Session) -> Response:
    rows, total = desk.authority.store.actions(
        tenant=session.credential.tenant, equal={"status": "pending"}, descending=False, limit=_MOST_PENDING
    )
    cards = [_view(desk, row, session) for row in rows]
    return desk.page(request, "queue.html", session=session, cards=cards, total=total)


def _find(desk: Desk, request: Request, session: Session) -> dict[str, Any]:
    try:
        return desk.authority.store.action(request.path_params["id"], tenant=session.credential.tenant)
    except NotFoundError:
        raise RefusedError(404, "There is no such action.") from None


@signed_in
async def details(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Show one action in full, with what the audit log says of it."""
    return await anyio.to_thread.run_sync(_details, desk, request, session)


def _details(desk: Desk, request: Request, session: Session) -> Response:
    row = _find(desk, request, session)
    trail = desk.authority.store.audit_trail(row["id"], tenant=session.credential.tenant)
    return desk.page(request, "action.html", session=session, card=_view(desk, row, session), trail=trail)


@signed_in
async def decide(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Record a person's decision, through the same function as the API and the command line."""
    word = form.get("decision")
    if word not in ("approve", "deny"):
        raise RefusedError(400, "The form says neither approve nor deny.")
    row = await anyio.to_thread.run_sync(_find, desk, request, session)
    row = await desk.change(
        functools.partial(
            approvals.decide,
            desk.authority.store,
            row,
            {"comments": form.text("comments")},
            approved=word == "approve",
            by=session.credential,
            via="page",
        )
    )
    code = "counted" if row["status"] == "pending" else str(row["status"])
    return desk.done(request, code, to="/")


@signed_in
async def history(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Show what was, filtered."""
    return await desk.read(session, functools.partial(_history, desk, request, session))


def _history(desk: Desk, request: Request, session: Session) -> Response:
    chosen = {name: request.query_params.get(name, "").strip() for name in _FILTERS}
    offset = request.query_params.get("offset", "0")
    problem = ""
    query = urlencode(
        {**{name: value for name, value in chosen.items() if value}, "limit": _PER_PAGE, "offset": offset}
    )
    try:
        arguments = read_query(query)
    except ApiError as error:
        problem, arguments = error.message, read_query(f"limit={_PER_PAGE}")
    rows, total = desk.authority.store.actions(tenant=session.credential.tenant, **arguments)
    return desk.page(
        request,
        "history.html",
        session=session,
        cards=[_view(desk, row, session) for row in rows],
        total=total,
        first=arguments["offset"] + 1,
        chosen=chosen,
        problem=problem,
        newer=_place(chosen, arguments["offset"] - _PER_PAGE),
        older=_place(chosen, arguments["offset"] + _PER_PAGE) if arguments["offset"] + len(rows) < total else "",
    )


def _place(chosen: Mapping[str, str], offset: int) -> str:
    if offset <= -_PER_PAGE:
        return ""
    kept = {name: value for name, value in chosen.items() if value}
    return "/history?" + urlencode({**kept, "offset": max(offset, 0)})
