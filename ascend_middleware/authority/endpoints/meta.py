"""Looking at the authority over HTTP: deployment, audit log, resource classifications, counts and rates of actions."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET

from ascend_middleware._version import __version__
from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import ClassificationQuery, Days, Nothing, Page
from ascend_middleware.api.outcomes import MAX_OUTCOMES

from ..bodies import listed
from ..context import Call, Fields, answers
from ..policy.approvers import OBSERVED
from ..store.database import Row
from ..store.store import iso_time

# What became of it, by a part of the event's name, unless the entry says what was decided.
_OUTCOMES: Final = (
    *((sign, "refused") for sign in ("REFUSED", "REJECTED", "DENY", "GRAFT")),
    *((sign, "failed") for sign in ("ACTION_FAILED", "GIVEN_UP")),
)
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0
_TOP: Final = 5
_STATES: Final = ("approved", "pending", "denied")


@answers(endpoints.DEPLOYMENT_INFO)
def _deployment(call: Call) -> Fields:
    return {
        "version": __version__,
        "environment": call.authority.environment,
        "server_time": iso_time(call.authority.now()),
        "policy_version": call.authority.policy.version,
        "max_outcomes": MAX_OUTCOMES,
    }


@answers(endpoints.AUDIT_LOG)
def _audit(call: Call) -> Fields:
    page = call.query(Page)
    total = call.store.rows("SELECT count(*) FROM audit WHERE tenant = ?", (call.tenant,))[0][0]
    rows = call.store.rows(
        "SELECT audit.*, actions.submission FROM audit LEFT JOIN actions ON actions.id = audit.action_id"
        " WHERE audit.tenant = ? ORDER BY seq DESC LIMIT ? OFFSET ?",
        (call.tenant, page.limit, page.offset),
    )
    events = [_event(call, row) for row in rows]
    more = {"logs": events, "items": events, "page": page.offset // page.limit + 1, "page_size": page.limit}
    return {**listed("events", events, page, total), **more}


def _event(call: Call, row: Row) -> Fields:
    entry = json.loads(row["entry"])
    data, event = entry["data"], entry["event"]
    resource = json.loads(row["submission"])["resource"] if row["submission"] else None
    return {
        "event_id": str(entry["seq"]),
        "event_type": event,
        "timestamp": entry["at"],
        "actor": entry["actor"],
        "resource": resource or data.get("agent_id") or data.get("mcp_server"),
        "action": None if entry["action_id"] is None else str(entry["action_id"]),
        "outcome": data.get("decision") or next((word for sign, word in _OUTCOMES if sign in event), "success"),
        "details": call.shown(data),
        "hash": row["hash"],
    }


@answers(endpoints.CLASSIFICATIONS)
def _classifications(call: Call) -> Fields:
    kind = call.query(ClassificationQuery).resource_type
    rows = [dict(row) for row in call.authority.policy.classifications if kind in (UNSET, row["resource_type"])]
    return {"classifications": rows, "total": len(rows)}


# --- analytics


def _counts(call: Call, column: str, since: float | None = None) -> dict[str, int]:
    where, values = "tenant = ?", [call.tenant]
    if since is not None:
        where, values = f"{where} AND created_at >= ?", [call.tenant, iso_time(since)]
    statement = f"SELECT {column}, count(*) FROM actions WHERE {where} GROUP BY {column}"  # noqa: S608 - texts of ours
    return {str(row[0]): int(row[1]) for row in call.store.rows(statement, values)}


def _summary(call: Call, since: float) -> Fields:
    states = _counts(call, "status", since)
    approved = states.get("approved", 0)
    decided = sum(count for word, count in states.items() if word not in ("pending", OBSERVED))
    return {
        "total": sum(states.values()),
        "by_status": dict.fromkeys(_STATES, 0) | states,
        "approval_rate": round(approved / decided, 4) if decided else None,
        "denial_rate": round((decided - approved) / decided, 4) if decided else None,
    }


@answers(endpoints.ANALYTICS_NOW)
def _realtime(call: Call) -> Fields:
    call.query(Nothing)
    now = call.authority.now()
    return {
        "timestamp": iso_time(now),
        "actions_last_minute": sum(_counts(call, "status", now - 60).values()),
        "actions_last_hour": sum(_counts(call, "status", now - _HOUR).values()),
        "last_24_hours": _summary(call, now - _DAY),
        "pending_actions": _counts(call, "status").get("pending", 0),
        "by_risk_level": _counts(call, "risk_level", now - _DAY),
        "active_agents": len(_counts(call, "agent_id", now - _HOUR)),
    }


@answers(endpoints.ANALYTICS_PERIOD)
def _dashboard(call: Call) -> Fields:
    days, now = call.query(Days).days, call.authority.now()
    since = now - days * _DAY
    agents = _counts(call, "agent_id", since)
    statement = "SELECT avg(risk_score), max(risk_score) FROM actions WHERE tenant = ? AND created_at >= ?"
    average, highest = call.store.rows(statement, (call.tenant, iso_time(since)))[0]
    most = sorted(agents.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
    return {
        "period": {"start": iso_time(since), "end": iso_time(now), "days": days},
        "summary": _summary(call, since),
        "by_risk_level": _counts(call, "risk_level", since),
        "average_risk_score": None if average is None else round(float(average), 2),
        "highest_risk_score": highest,
        "pending_actions": _counts(call, "status").get("pending", 0),
        "agents": len(agents),
        "top_agents": [{"agent_id": name, "actions": count} for name, count in most],
    }


@answers(endpoints.ANALYTICS_TRENDS)
def _trends(call: Call) -> Fields:
    days = call.query(Days).days
    today = datetime.fromisoformat(iso_time(call.authority.now())).date()
    series = {str(today - timedelta(days=back)): dict.fromkeys(_STATES, 0) for back in reversed(range(days))}
    risks: dict[str, int] = dict.fromkeys(series, 0)
    for row in call.store.rows(
        "SELECT substr(created_at, 1, 10) AS day, status, count(*) AS n, sum(risk_score) AS risk FROM actions"
        " WHERE tenant = ? AND created_at >= ? GROUP BY day, status",
        (call.tenant, min(series)),
    ):
        if row["day"] in series:  # not so for what a clock ahead of ours has stored
            series[row["day"]][row["status"]] = row["n"]
            risks[row["day"]] += row["risk"]
    points = []
    for day, states in series.items():
        total = sum(states.values())
        average = round(risks[day] / total, 2) if total else None
        points.append({"date": day, **states, "total": total, "average_risk_score": average})
    return {"days": days, "interval": "day", "trends": points}
