"""What replicas on one PostgreSQL do together beside the audit log: claim deliveries, count requests, meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .engine import Lease, Row
from .postgres_link import Session
from .postgres_readers import Readers

__all__ = ["PostgresFleet"]

_MINUTE: Final = 60.0
# Seconds to wait for a connection: whoever is counted can be counted here alone if need be.
_WAIT: Final = 0.5
# Seconds without a word after which a replica counts as gone.
_GONE: Final = 15
# The server's own clock, in epoch seconds: those of the replicas differ.
_NOW: Final = "extract(epoch FROM clock_timestamp())"
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


class PostgresFleet:
    """Statements on connections of their own, which wait for no group; see `Fleet`."""

    def __init__(self, readers: Readers, wait: float) -> None:
        self._readers = readers
        self._wait = wait

    def aside(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement as a transaction of its own."""
        with self._readers.lend(self._wait) as connection:
            return Session(connection).rows(statement, values)

    def lease(self, subject: str, limit: int, most: int) -> Lease:
        """Take some of what is left of a limit; the table is unlogged, so that nothing is synced for it."""
        with self._readers.lend(_WAIT) as connection:
            session = Session(connection)
            session.later(_BEGIN)
            session.later("SET LOCAL lock_timeout = 500")
            session.later("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (subject,))
            # What is older is free again, and what is far ahead was taken before the clock was set back.
            session.later(
                f"DELETE FROM allowances WHERE subject = ? AND abs(at - {_NOW}) >= ?",  # noqa: S608
                (subject, _MINUTE),
            )
            taken = session.later(
                f"INSERT INTO allowances (subject, at, n) SELECT ?, {_NOW}, least(?, ? - coalesce(sum(n), 0))"  # noqa: S608
                " FROM allowances WHERE subject = ? HAVING coalesce(sum(n), 0) < ? RETURNING n",
                (subject, most, limit, subject, limit),
            )
            state = session.later(
                f"SELECT coalesce(sum(n), 0), ({_NOW} - min(at))::DOUBLE PRECISION"  # noqa: S608
                " FROM allowances WHERE subject = ?",
                (subject,),
            )
            session.run("COMMIT")
            rows, (count, age) = taken.answered().fetchall(), state.answered().fetchall()[0]
        return Lease(int(rows[0][0]) if rows else 0, int(count), age)

    def forget(self) -> None:
        """Drop what was taken so long ago that nobody counts it."""
        self.aside(f"DELETE FROM allowances WHERE at < {_NOW} - ?", (2 * _MINUTE,))  # noqa: S608

    def meet(self, name: str, policy: str) -> dict[str, str]:
        """Say that this replica is there, and return the others with the versions of their policy files."""
        with self._readers.lend(_WAIT) as connection:
            session = Session(connection)
            session.later(_BEGIN)
            session.later(
                f"INSERT INTO replicas (name, policy, seen) VALUES (?, ?, {_NOW})"  # noqa: S608
                " ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, seen = excluded.seen",
                (name, policy),
            )
            session.later(f"DELETE FROM replicas WHERE seen < {_NOW} - {_GONE}")  # noqa: S608
            others = session.later("SELECT name, policy FROM replicas WHERE name <> ? ORDER BY name", (name,))
            session.run("COMMIT")
            return {row["name"]: row["policy"] for row in others.answered().fetchall()}

    def leave(self, name: str) -> None:
        """Say that this replica is gone."""
        self.aside("DELETE FROM replicas WHERE name = ?", (name,))
