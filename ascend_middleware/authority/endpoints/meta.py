"""Looking at the authority over HTTP: deployment, audit log, resource classifications, counts and rates of actions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import UNSET

from ascend_middleware._version import __version__
from ascend_middleware.api import endpoints
from ascend_middleware.api.batches import MAX_OUTCOMES
from ascend_middleware.api.bodies import ClassificationQuery, Days, Nothing, Page

from ..context import Call, Fields, answers
from ..paging import cursor_of, in_order, listed
from ..policy.approvers import OBSERVED
from ..store import analytics
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
        "policy_state": call.authority.policy_state(),
        "max_outcomes": MAX_OUTCOMES,
    }


@answers(endpoints.AUDIT_LOG)
def _audit(call: Call) -> Fields:
    page = call.query(Page)
    cursor = cursor_of(page)
    found = in_order(lambda: call.store.audit_page(call.tenant, limit=page.limit, offset=page.offset, cursor=cursor))
    submissions = call.store.submissions([row["action_id"] for row in found.rows])
    answer = listed("events", page, found.of(lambda row: _event(call, row, submissions)))
    same = dict.fromkeys(("logs", "items"), answer["events"])
    return {**answer, **same, "page": page.offset // page.limit + 1, "page_size": page.limit}


def _event(call: Call, row: Row, submissions: Mapping[int, str]) -> Fields:
    entry = json.loads(row["entry"])
    data, event = entry["data"], entry["event"]
    submission = submissions.get(row["action_id"])
    resource = json.loads(submission)["resource"] if submission else None
    return {
        "event_id": str(entry["seq"]),
        "event_type": event,
        "timestamp": entry["at"],
        "actor": entry["actor"],
        "resource": resource or data.get("agent_id") or data.get("mcp_server"),
        "action": None if entry["action_id"] is None else str(entry["action_id"]),
        "outcome": _outcome(event, data),
        "details": call.shown(data),
        "hash": row["hash"],
    }


def _outcome(event: str, data: Mapping[str, Any]) -> str:
    if event == "ACTION_USED":
        return "failed" if data["outcome"] == "failed" else "success"
    decision: str | None = data.get("decision")
    return decision or next((word for sign, word in _OUTCOMES if sign in event), "success")


@answers(endpoints.CLASSIFICATIONS)
def _classifications(call: Call) -> Fields:
    kind = call.query(ClassificationQuery).resource_type
    rows = [dict(row) for row in call.authority.policy.classifications if kind in (UNSET, row["resource_type"])]
    return {"classifications": rows, "total": len(rows)}


# --- analytics


def _summary(states: Sequence[analytics.States]) -> Fields:
    by_status: Counter[str] = Counter()
    for one in states:
        by_status[one.status] += one.n
    approved, total = by_status["approved"], by_status.total()
    decided = total - by_status["pending"] - by_status[OBSERVED]
    shown = {word: count for word, count in by_status.items() if count or word in _STATES}
    return {
        "total": total,
        "by_status": dict.fromkeys(_STATES, 0) | shown,
        "approval_rate": round(approved / decided, 4) if decided else None,
        "denial_rate": round((decided - approved) / decided, 4) if decided else None,
    }


def _levels(states: Sequence[analytics.States]) -> dict[str, int]:
    levels: Counter[str] = Counter()
    for one in states:
        levels[one.risk_level] += one.n
    return dict(levels)


@answers(endpoints.ANALYTICS_NOW)
def _realtime(call: Call) -> Fields:
    call.query(Nothing)
    now, tenant = call.authority.now(), call.tenant
    moment = iso_time(now)
    count = "SELECT count(*) FROM actions WHERE tenant = ? AND created_at >= ?"
    with call.store.snapshot() as reader:
        states = analytics.since(reader, tenant, iso_time(now - _DAY), now=moment)
        return {
            "timestamp": moment,
            "actions_last_minute": reader.rows(count, (tenant, iso_time(now - 60)))[0][0],
            "actions_last_hour": reader.rows(count, (tenant, iso_time(now - _HOUR)))[0][0],
            "last_24_hours": _summary(states),
            "pending_actions": analytics.pending(reader, tenant, now=moment),
            "by_risk_level": _levels(states),
            "active_agents": analytics.active_agents(reader, tenant, iso_time(now - _HOUR)),
        }


@answers(endpoints.ANALYTICS_PERIOD)
def _dashboard(call: Call) -> Fields:
    days, now, tenant = call.query(Days).days, call.authority.now(), call.tenant
    since, moment = iso_time(now - days * _DAY), iso_time(now)
    with call.store.snapshot() as reader:
        states = analytics.since(reader, tenant, since, now=moment)
        summary = _summary(states)
        return {
            "period": {"start": since, "end": moment, "days": days},
            "summary": summary,
            "by_risk_level": _levels(states),
            "average_risk_score": round(sum(one.risk for one in states) / summary["total"], 2)
            if summary["total"]
            else None,
            "highest_risk_score": max((one.highest for one in states), default=None),
            "pending_actions": analytics.pending(reader, tenant, now=moment),
            "agents": analytics.active_agents(reader, tenant, since),
            "top_agents": [
                {"agent_id": name, "actions": count}
                for name, count in analytics.top_agents(reader, tenant, since, most=_TOP)
            ],
        }


@answers(endpoints.ANALYTICS_TRENDS)
def _trends(call: Call) -> Fields:
    days = call.query(Days).days
    now = iso_time(call.authority.now())
    today = datetime.fromisoformat(now).date()
    series = {str(today - timedelta(days=back)): dict.fromkeys(_STATES, 0) for back in reversed(range(days))}
    risks: dict[str, int] = dict.fromkeys(series, 0)
    with call.store.snapshot() as reader:
        for day, status, count, risk in analytics.by_day(reader, call.tenant, min(series), now=now):
            if day in series:  # not so for what a clock ahead of ours has stored
                series[day][status] = series[day].get(status, 0) + count
                risks[day] += risk
    points = []
    for day, states in series.items():
        total = sum(states.values())
        average = round(risks[day] / total, 2) if total else None
        points.append({"date": day, **states, "total": total, "average_risk_score": average})
    return {"days": days, "interval": "day", "trends": points}
