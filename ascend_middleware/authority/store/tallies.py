"""Counts of actions that are kept with them, so that what is told of a year costs no reading of the year.

They stand in the hour and the day in which an action was submitted.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

__all__ = ["HOUR", "Counted", "additions"]

# How much of a stored time is its hour, and its day.
HOUR: Final = 13
_DAY: Final = 10
_AT_ONCE: Final = 500


class Counted(msgspec.Struct):
    """Actions that have come into a status, or, with -1, one that has left it; `agent_id` only of new ones."""

    n: int
    tenant: str
    created_at: str
    status: str
    risk_level: str
    risk_score: int
    agent_id: str = ""


def additions(counted: Sequence[Counted]) -> Iterator[tuple[str, list[object]]]:
    """Yield the statements that add them up, with their values."""
    states: dict[tuple[str, str, str, str], list[int]] = {}
    actors: dict[tuple[str, str], tuple[int, str]] = {}
    days: dict[tuple[str, str, str], int] = {}
    for one in counted:
        n, tenant, created_at, status, risk_level, risk_score, agent_id = msgspec.structs.astuple(one)
        sums = states.setdefault((tenant, created_at[:HOUR], status, risk_level), [0, 0, 0])
        sums[0] += n
        sums[1] += n * risk_score
        if risk_score > sums[2]:
            sums[2] = risk_score
        if agent_id:
            count, last = actors.get((tenant, agent_id), (0, ""))
            actors[tenant, agent_id] = count + n, max(last, created_at)
            day = tenant, created_at[:_DAY], agent_id
            days[day] = days.get(day, 0) + n
    yield from _upserts(
        "INSERT INTO tallies (tenant, hour, status, risk_level, n, risk, highest) VALUES {} ON CONFLICT"
        " (tenant, hour, status, risk_level) DO UPDATE SET n = tallies.n + excluded.n,"
        " risk = tallies.risk + excluded.risk, highest = CASE WHEN excluded.highest > tallies.highest"
        " THEN excluded.highest ELSE tallies.highest END",
        [(*key, *sums) for key, sums in states.items()],
    )
    yield from _upserts(
        "INSERT INTO actors (tenant, agent_id, n, last_at) VALUES {} ON CONFLICT (tenant, agent_id) DO UPDATE SET"
        " n = actors.n + excluded.n,"
        " last_at = CASE WHEN excluded.last_at > actors.last_at THEN excluded.last_at ELSE actors.last_at END",
        [(*key, *found) for key, found in actors.items()],
    )
    yield from _upserts(
        "INSERT INTO actor_days (tenant, day, agent_id, n) VALUES {} ON CONFLICT (tenant, day, agent_id) DO UPDATE SET"
        " n = actor_days.n + excluded.n",
        [(*key, count) for key, count in days.items()],
    )


def _upserts(statement: str, rows: list[tuple[object, ...]]) -> Iterator[tuple[str, list[object]]]:
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        yield _with_places(statement, len(some), len(some[0])), list(itertools.chain.from_iterable(some))


@functools.lru_cache(maxsize=64)
def _with_places(statement: str, rows: int, values: int) -> str:
    places = f"({', '.join('?' * values)})"
    return statement.format(", ".join([places] * rows))
