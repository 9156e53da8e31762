"""Looking at the authority over HTTP: health, deployment, the audit log, resource classifications."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from ascend_middleware._version import __version__
from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import ClassificationQuery, Page

from ..context import Call, Handlers, Reply
from ..pagination import listed
from ..store.store import iso_time

if TYPE_CHECKING:
    import sqlite3

__all__ = ["HANDLERS"]


# What became of it, by a part of the event's name, unless the entry says what was decided.
_OUTCOMES: Final = (
    *((sign, "refused") for sign in ("REFUSED", "REJECTED", "DENY", "GRAFT")),
    *((sign, "failed") for sign in ("ACTION_FAILED", "GIVEN_UP")),
)


def _deployment(call: Call) -> Reply:
    return Reply(
        fields={
            "version": __version__,
            "environment": call.authority.environment,
            "server_time": iso_time(call.authority.now()),
            "policy_version": call.authority.policy.version,
        }
    )


def _audit(call: Call) -> Reply:
    page = call.query(Page)
    total = call.records.rows("SELECT count(*) FROM audit WHERE tenant = ?", (call.tenant,))[0][0]
    rows = call.records.rows(
        "SELECT audit.*, actions.submission FROM audit LEFT JOIN actions ON actions.id = audit.action_id"
        " WHERE audit.tenant = ? ORDER BY seq DESC LIMIT ? OFFSET ?",
        (call.tenant, page.limit, page.offset),
    )
    events = [_event(call, row) for row in rows]
    fields = listed(page, "events", events, total)
    number = page.offset // page.limit + 1
    return Reply(fields={**fields, "logs": events, "items": events, "page": number, "page_size": page.limit})


def _event(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    entry = json.loads(row["entry"])
    data, event = entry["data"], entry["event"]
    outcome = data.get("decision") or next((word for sign, word in _OUTCOMES if sign in event), "success")
    resource = json.loads(row["submission"])["resource"] if row["submission"] else None
    return {
        "event_id": str(entry["seq"]),
        "event_type": event,
        "timestamp": entry["at"],
        "actor": entry["actor"],
        "resource": resource or data.get("agent_id") or data.get("mcp_server"),
        "action": None if entry["action_id"] is None else str(entry["action_id"]),
        "outcome": outcome,
        "details": call.shown(data),
        "hash": row["hash"],
    }


def _classifications(call: Call) -> Reply:
    kind = call.query(ClassificationQuery).resource_type
    rows = [dict(row) for row in call.authority.policy.classifications if kind in (UNSET, row["resource_type"])]
    return Reply(fields={"classifications": rows, "total": len(rows)})


HANDLERS: Final[Handlers] = {
    endpoints.DEPLOYMENT_INFO: _deployment,
    endpoints.AUDIT_LOG: _audit,
    endpoints.CLASSIFICATIONS: _classifications,
}
