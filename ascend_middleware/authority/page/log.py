"""The audit log on the page: its entries, and whether it is whole."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from .views_base import Desk, Form, signed_in

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from .sessions import Session

__all__ = ["listing", "verify"]

_PER_PAGE: Final = 50
_LONGEST_OFFSET: Final = 9


@signed_in
async def listing(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Show the entries, the newest first, and the state of the whole log."""
    return await desk.read(session, functools.partial(_listing, desk, request, session))


def _listing(desk: Desk, request: Request, session: Session) -> Response:
    text = request.query_params.get("offset", "0")
    offset = int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_OFFSET else 0
    found, at = desk.verifier.state()
    tenant = session.credential.tenant
    total = desk.authority.store.rows("SELECT count(*) FROM audit WHERE tenant = ?", (tenant,))[0][0]
    rows = desk.authority.store.rows(
        "SELECT seq, entry, hash FROM audit WHERE tenant = ? ORDER BY seq DESC LIMIT ? OFFSET ?",
        (tenant, _PER_PAGE, offset),
    )
    bad = {finding.seq for finding in found.findings}
    return desk.page(
        request,
        "audit.html",
        session=session,
        found=found,
        verified_at=at,
        entries=[{**_entry(row), "hash": row["hash"], "bad": row["seq"] in bad} for row in rows],
        total=total,
        first=offset + 1,
        newer=_place(offset - _PER_PAGE),
        older=_place(offset + _PER_PAGE) if offset + len(rows) < total else "",
    )


def _entry(row: Any) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(row["entry"])
        return {name: entry[name] for name in ("seq", "at", "event", "actor", "action_id", "data")}
    except (ValueError, KeyError, TypeError):
        return {
            "seq": row["seq"],
            "at": "",
            "event": "UNREADABLE",
            "actor": "",
            "action_id": None,
            "data": row["entry"],
        }


def _place(offset: int) -> str:
    return "/audit?" + urlencode({"offset": max(offset, 0)}) if offset > -_PER_PAGE else ""


@signed_in
async def verify(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Read the whole log again."""
    await desk.read(session, functools.partial(desk.verifier.state, again=True))
    return desk.done(request, "verified", to="/audit")
