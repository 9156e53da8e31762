"""What is told of many actions: read from the counts that are kept of full hours and days, and of what is left over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from .audit import iso_time
from .engine import Reader

__all__ = ["States", "active_agents", "by_day", "pending", "since", "top_agents"]

# How much of a stored time is its hour, and its day.
_HOUR: Final = 13
_DAY: Final = 10


class States(NamedTuple):
    """How many actions there are of a status and a level, the sum of their scores, and the highest."""

    status: str
    risk_level: str
    n: int
    risk: int
    highest: int


def _following(moment: str, length: int) -> str:
    """Return the first full hour, or day, from a time on."""
    step = timedelta(hours=1) if length == _HOUR else timedelta(days=1)
    start = datetime.fromisoformat(
        moment[:_HOUR] + ":00:00+00:00" if length == _HOUR else moment[:_DAY] + "T00:00:00+00:00"
    )
    if iso_time(start.timestamp()) < moment:
        start += step
    return iso_time(start.timestamp())


def since(reader: Reader, tenant: str, moment: str, *, now: str) -> list[States]:
    """Return what an organisation submitted since a time, by status and level; what is overdue counts as denied."""
    full = _following(moment, _HOUR)
    rows = reader.rows(
        "SELECT status, risk_level, sum(n), sum(risk), max(highest) FROM tallies WHERE tenant = ? AND hour >= ?"
        " GROUP BY status, risk_level HAVING sum(n) > 0",
        (tenant, full[:_HOUR]),
    )
    rows += reader.rows(
        "SELECT status, risk_level, count(*), sum(risk_score), max(risk_score) FROM actions"
        " WHERE tenant = ? AND created_at >= ? AND created_at < ? GROUP BY status, risk_level",
        (tenant, moment, full),
    )
    late = reader.rows(
        "SELECT risk_level, count(*), sum(risk_score), max(risk_score) FROM actions"
        " WHERE tenant = ? AND status = 'pending' AND expires_at <= ? AND created_at >= ? GROUP BY risk_level",
        (tenant, now, moment),
    )
    moved = [(status, row[0], sign * row[1], sign * row[2], row[3]) for row in late for status, sign in _MOVES]
    # PostgreSQL sums whole numbers as decimals.
    found: list[tuple[Any, ...]] = [*map(tuple, rows), *moved]
    return [States(status, level, int(n), int(risk), highest) for status, level, n, risk, highest in found]


# What is overdue, and not stored as denied yet.
_MOVES: Final = (("pending", -1), ("denied", 1))


def by_day(reader: Reader, tenant: str, day: str, *, now: str) -> Iterable[tuple[str, str, int, int]]:
    """Return what was submitted from a day on: the day, the status, how many, and the sum of their scores."""
    rows = reader.rows(
        f"SELECT substr(hour, 1, {_DAY}), status, sum(n), sum(risk) FROM tallies WHERE tenant = ? AND hour >= ?"  # noqa: S608
        f" GROUP BY substr(hour, 1, {_DAY}), status",
        (tenant, day),
    )
    late = reader.rows(
        f"SELECT substr(created_at, 1, {_DAY}), count(*), sum(risk_score) FROM actions"  # noqa: S608
        " WHERE tenant = ? AND status = 'pending' AND expires_at <= ?"
        f" GROUP BY substr(created_at, 1, {_DAY})",
        (tenant, now),
    )
    moved = [(row[0], status, sign * row[1], sign * row[2]) for row in late for status, sign in _MOVES]
    found: list[tuple[Any, ...]] = [*map(tuple, rows), *moved]
    return [(day, status, int(n), int(risk)) for day, status, n, risk in found]


def pending(reader: Reader, tenant: str, *, now: str) -> int:
    """Return how many actions wait for a person."""
    waiting = "SELECT count(*) FROM actions WHERE tenant = ? AND status = 'pending' AND"
    later = reader.rows(f"{waiting} expires_at > ?", (tenant, now))[0][0]
    return int(later) + int(reader.rows(f"{waiting} expires_at IS NULL", (tenant,))[0][0])


def active_agents(reader: Reader, tenant: str, moment: str) -> int:
    """Return how many agents have submitted something since a time."""
    found = reader.rows("SELECT count(*) FROM actors WHERE tenant = ? AND last_at >= ?", (tenant, moment))
    return int(found[0][0])


def top_agents(reader: Reader, tenant: str, moment: str, *, most: int) -> list[tuple[str, int]]:
    """Return which agents submitted most since a time, with how much."""
    begin, full = f"{moment[:_DAY]}T", _following(moment, _DAY)
    if _days(reader, tenant, before=begin) < _days(reader, tenant, since=full):
        # Few days came before: what was submitted in them is taken from what each agent ever submitted.
        parts = (
            "SELECT agent_id, n FROM actors WHERE tenant = ? AND last_at >= ? UNION ALL "
            "SELECT agent_id, -n AS n FROM actor_days WHERE tenant = ? AND day < ? UNION ALL "
            "SELECT agent_id, -1 AS n FROM actions WHERE tenant = ? AND created_at >= ? AND created_at < ?"
        )
        values: tuple[object, ...] = (tenant, moment, tenant, begin[:_DAY], tenant, begin, moment)
    else:
        parts = (
            "SELECT agent_id, n FROM actor_days WHERE tenant = ? AND day >= ? UNION ALL "
            "SELECT agent_id, 1 AS n FROM actions WHERE tenant = ? AND created_at >= ? AND created_at < ?"
        )
        values = (tenant, full[:_DAY], tenant, moment, full)
    rows = reader.rows(
        f"SELECT agent_id, sum(n) AS n FROM ({parts}) AS all_parts"  # noqa: S608 - ours
        " GROUP BY agent_id HAVING sum(n) > 0 ORDER BY sum(n) DESC, agent_id LIMIT ?",
        (*values, most),
    )
    return [(row["agent_id"], int(row["n"])) for row in rows]


def _days(reader: Reader, tenant: str, *, before: str = "", since: str = "") -> int:
    """Return over how many days actions are spread that came before a time, or since then."""
    statement = "SELECT {}(hour) FROM tallies WHERE tenant = ?"
    end = reader.rows(statement.format("min" if before else "max"), (tenant,))[0][0] or since or before
    first, last = (end, before) if before else (since, end)
    return (date.fromisoformat(last[:_DAY]) - date.fromisoformat(first[:_DAY])).days
