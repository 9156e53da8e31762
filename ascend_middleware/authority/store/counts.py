"""The counts that are kept for analytics, compared with the actions that they count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .engine import Reader
from .findings import ROW, Finding

__all__ = ["compared_counts"]

# What is counted once more, with the other sign: what is left must be nothing.
_SUMS: Final = {
    "tallies": (
        "SELECT tenant, hour, status, risk_level, sum(n) AS n, sum(risk) AS risk FROM ("
        "SELECT tenant, hour, status, risk_level, n, risk FROM tallies UNION ALL"
        " SELECT tenant, substr(created_at, 1, 13), status, risk_level, -1, -risk_score FROM actions) AS counted"
        " GROUP BY tenant, hour, status, risk_level HAVING {} ORDER BY tenant, hour, status, risk_level",
        ("n", "risk"),
    ),
    "actors": (
        "SELECT tenant, agent_id, sum(n) AS n, max(kept_at) AS kept_at, max(made_at) AS made_at FROM ("
        "SELECT tenant, agent_id, n, last_at AS kept_at, '' AS made_at FROM actors UNION ALL"
        " SELECT tenant, agent_id, -1, '', created_at FROM actions) AS counted"
        " GROUP BY tenant, agent_id HAVING {} ORDER BY tenant, agent_id",
        ("n", "last_at"),
    ),
    "actor_days": (
        "SELECT tenant, day, agent_id, sum(n) AS n FROM ("
        "SELECT tenant, day, agent_id, n FROM actor_days UNION ALL"
        " SELECT tenant, substr(created_at, 1, 10), agent_id, -1 FROM actions) AS counted"
        " GROUP BY tenant, day, agent_id HAVING {} ORDER BY tenant, day, agent_id",
        ("n",),
    ),
}
_EXACT: Final = {
    "tallies": "sum(n) <> 0 OR sum(risk) <> 0",
    "actors": "sum(n) <> 0 OR max(kept_at) <> max(made_at)",
    "actor_days": "sum(n) <> 0",
}
# Archived actions stay counted: there may be more than there are actions, never fewer.
_AT_LEAST: Final = {
    "tallies": "sum(n) < 0 OR sum(risk) < 0",
    "actors": "sum(n) < 0 OR max(kept_at) < max(made_at)",
    "actor_days": "sum(n) < 0",
}
_VALUES: Final = frozenset({"n", "risk", "kept_at", "made_at"})


def compared_counts(reader: Reader, *, archived: bool) -> Iterator[Finding]:
    """Yield the counts that are not those of the actions; `archived`: some actions are elsewhere, and stay counted."""
    conditions = _AT_LEAST if archived else _EXACT
    for table, (statement, facts) in _SUMS.items():
        for row in reader.each(statement.format(conditions[table])):
            name = "/".join(str(row[column]) for column in row.keys() if column not in _VALUES)  # noqa: SIM118
            differ = [fact for fact in facts if fact == "last_at" or row[fact] != 0]
            if table == "actors" and row["kept_at"] == row["made_at"]:
                differ.remove("last_at")
            message = f"{table} {name}, {', '.join(differ)}: it is not what the actions sum up to"
            yield Finding(0, ROW, message, table, name, ", ".join(differ))
