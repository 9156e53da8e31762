"""Analytics over HTTP: counts, rates and series of an organisation's actions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Days, Nothing

from ..context import Call, Handlers, Reply
from ..policy.approvers import OBSERVED
from ..store.store import iso_time

__all__ = ["HANDLERS"]

_HOUR: Final = 3600.0
_DAY: Final = 86_400.0
_TOP: Final = 5
_STATES: Final = ("approved", "pending", "denied")


def _counts(call: Call, column: str, since: float | None = None) -> dict[str, int]:
    where, values = "tenant = ?", [call.tenant]
    if since is not None:
        where, values = f"{where} AND created_at >= ?", [call.tenant, iso_time(since)]
    statement = f"SELECT {column}, count(*) FROM actions WHERE {where} GROUP BY {column}"  # noqa: S608 - texts of ours
    return {str(row[0]): int(row[1]) for row in call.records.rows(statement, values)}


def _summary(states: dict[str, int]) -> dict[str, Any]:
    undecided = ("pending", OBSERVED)
    total, decided = sum(states.values()), sum(count for word, count in states.items() if word not in undecided)
    by_status = {word: states.get(word, 0) for word in _STATES} | states
    return {
        "total": total,
        "by_status": by_status,
        "approval_rate": round(states.get("approved", 0) / decided, 4) if decided else None,
        "denial_rate": round((decided - states.get("approved", 0)) / decided, 4) if decided else None,
    }


def _realtime(call: Call) -> Reply:
    call.query(Nothing)
    now = call.authority.now()
    minute = _counts(call, "status", now - 60)
    return Reply(
        fields={
            "timestamp": iso_time(now),
            "actions_last_minute": sum(minute.values()),
            "actions_last_hour": sum(_counts(call, "status", now - _HOUR).values()),
            "last_24_hours": _summary(_counts(call, "status", now - _DAY)),
            "pending_actions": _counts(call, "status").get("pending", 0),
            "by_risk_level": _counts(call, "risk_level", now - _DAY),
            "active_agents": len(_counts(call, "agent_id", now - _HOUR)),
        }
    )


def _dashboard(call: Call) -> Reply:
    days = call.query(Days).days
    now = call.authority.now()
    since = now - days * _DAY
    agents = _counts(call, "agent_id", since)
    risk = call.records.rows(
        "SELECT avg(risk_score), max(risk_score) FROM actions WHERE tenant = ? AND created_at >= ?",
        (call.tenant, iso_time(since)),
    )[0]
    return Reply(
        fields={
            "period": {"start": iso_time(since), "end": iso_time(now), "days": days},
            "summary": _summary(_counts(call, "status", since)),
            "by_risk_level": _counts(call, "risk_level", since),
            "average_risk_score": None if risk[0] is None else round(float(risk[0]), 2),
            "highest_risk_score": risk[1],
            "pending_actions": _counts(call, "status").get("pending", 0),
            "agents": len(agents),
            "top_agents": [
                {"agent_id": name, "actions": count}
                for name, count in sorted(agents.items(), key=lambda item: (-item[1], item[0]))[:_TOP]
            ],
        }
    )


def _trends(call: Call) -> Reply:
    days = call.query(Days).days
    today = datetime.fromisoformat(iso_time(call.authority.now())).date()
    series = {str(today - timedelta(days=back)): dict.fromkeys(_STATES, 0) for back in reversed(range(days))}
    rows = call.records.rows(
        "SELECT substr(created_at, 1, 10) AS day, status, count(*) AS n, sum(risk_score) AS risk FROM actions"
        " WHERE tenant = ? AND created_at >= ? GROUP BY day, status",
        (call.tenant, min(series)),
    )
    risks: dict[str, int] = dict.fromkeys(series, 0)
    for row in rows:
        if row["day"] in series:  # not so for what a clock ahead of ours has stored
            series[row["day"]][row["status"]] = row["n"]
            risks[row["day"]] += row["risk"]
    points = []
    for day, states in series.items():
        total = sum(states.values())
        points.append(
            {
                "date": day,
                **states,
                "total": total,
                "average_risk_score": round(risks[day] / total, 2) if total else None,
            }
        )
    return Reply(fields={"days": days, "interval": "day", "trends": points})


HANDLERS: Final[Handlers] = {
    endpoints.ANALYTICS_NOW: _realtime,
    endpoints.ANALYTICS_PERIOD: _dashboard,
    endpoints.ANALYTICS_TRENDS: _trends,
}
