"""State in SQLite: a file that the workers of a machine share, or the memory of one process."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..api.orders import Order, Orders, rank
from ..exceptions import ConfigurationError
from ..fork import renew_once
from ..masking import get_logger
from ..setting_values import make_directory
from ..sqlite import MEMORY, open_database, transaction
from .base import KEPT_SECONDS, MAX_HINTS, Approval, Snapshot, StateError, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SQLState"]

logger = get_logger("ascend_middleware.state")

_MIGRATIONS: Final = (
    (
        """CREATE TABLE approvals (
            scope TEXT NOT NULL, key TEXT NOT NULL, handle TEXT NOT NULL, action_id TEXT NOT NULL,
            fingerprint TEXT NOT NULL, sharing TEXT NOT NULL, hint TEXT NOT NULL, agent_id TEXT NOT NULL,
            rule TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL, status TEXT NOT NULL,
            reason TEXT NOT NULL, process TEXT NOT NULL, claimed_by TEXT NOT NULL, claimed_at REAL NOT NULL,
            outcome TEXT NOT NULL, entry TEXT NOT NULL, PRIMARY KEY (scope, key)
        ) WITHOUT ROWID, STRICT""",
        # That there is one open row for identical requests is the database's own rule.
        "CREATE UNIQUE INDEX open_approvals ON approvals (scope, sharing) WHERE claimed_by = ''",
        "CREATE INDEX open_hints ON approvals (scope, hint) WHERE claimed_by = ''",
        "CREATE INDEX unsettled ON approvals (scope, process) WHERE claimed_by <> '' AND outcome = ''",
        "CREATE INDEX ages ON approvals (scope, expires_at)",
        """CREATE TABLE orders (
            scope TEXT NOT NULL, target TEXT NOT NULL, slot TEXT NOT NULL, kind TEXT NOT NULL, issued_at REAL NOT NULL,
            command_id TEXT NOT NULL, reason TEXT NOT NULL, max_per_minute INTEGER NOT NULL,
            PRIMARY KEY (scope, target, slot)
        ) WITHOUT ROWID, STRICT""",
        """CREATE TABLE applied (
            scope TEXT NOT NULL, command_id TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (scope, command_id)
        ) WITHOUT ROWID, STRICT""",
        """CREATE TABLE confirmed (scope TEXT NOT NULL PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID, STRICT""",
        """CREATE TABLE leases (
            scope TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, until REAL NOT NULL,
            PRIMARY KEY (scope, name)
        ) WITHOUT ROWID, STRICT""",
        "CREATE TABLE takes (scope TEXT NOT NULL, agent_id TEXT NOT NULL, at REAL NOT NULL) STRICT",
        "CREATE INDEX takes_in_order ON takes (scope, agent_id, at)",
        """CREATE TABLE agents (
            scope TEXT NOT NULL, agent_id TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (scope, agent_id)
        ) WITHOUT ROWID, STRICT""",
    ),
    ("ALTER TABLE approvals ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0",),
)
_FIELDS: Final = tuple(Approval.__dataclass_fields__)
_COLUMNS: Final = ", ".join(_FIELDS)
_ORDER_FIELDS: Final = tuple(Order.__dataclass_fields__)
_APPLIED_SECONDS: Final = 30 * 86_400.0
_WINDOW: Final = 60.0


class SQLState:
    """A store in a SQLite file, or in memory with `path` None.

    The connection belongs to one process: after a fork it is opened anew. A file that is deleted or replaced under a
    running service is noticed, loudly, and opened again; the rows that were in it are gone.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, path: str | Path | None, *, scope: str, timeout: float, power_safe: bool = False) -> None:
        # Absolute at once: the process may change its directory before the first request.
        self._path = None if path is None else Path(path).expanduser().absolute()
        self.blocks = path is not None
        self.kind = "memory" if path is None else "file"
        self._scope = scope
        self._timeout = timeout
        self._synchronous = "FULL" if power_safe else "NORMAL"
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._inherited: list[sqlite3.Connection] = []
        self._renew()
        if self._path is not None:
            try:
                make_directory(self._path.parent)
            except OSError as error:
                raise ConfigurationError(
                    f"the directory {self._path.parent} cannot be made: {error.strerror}"
                ) from None
            with self._used() as connection, transaction(connection):
                pass  # a file that cannot be written is told now
            self.close()

    # --- approvals

    def hold(self, approval: Approval, *, now: float) -> Approval:
        """See `State.hold`."""
        with self._writing() as connection:
            # Old rows go where new ones come, so that nothing grows without a bound.
            connection.execute(
                "DELETE FROM approvals WHERE scope = ? AND expires_at < ?"
                " AND (claimed_by = '' OR outcome <> '' OR expires_at < ?)",
                (self._scope, now - KEPT_SECONDS, now - _APPLIED_SECONDS),
            )
            connection.execute(
                "UPDATE approvals SET sharing = 'expired ' || key WHERE scope = ? AND sharing = ? AND claimed_by = ''"
                " AND expires_at <= ?",
                (self._scope, approval.sharing, now),
            )
            found = self._open_row(connection, approval.sharing, now)
            if found is not None:
                return found
            connection.execute(
                f"INSERT INTO approvals (scope, key, {_COLUMNS}) VALUES (?, ?{', ?' * len(_FIELDS)})",  # noqa: S608
                (self._scope, approval.key, *(getattr(approval, name) for name in _FIELDS)),
            )
            return approval

    def find(self, handle: str) -> Approval | None:
        """See `State.find`."""
        with self._used() as connection:
            return self._row(connection, handle)

    def find_open(self, sharing: str, *, now: float) -> Approval | None:
        """See `State.find_open`."""
        with self._used() as connection:
            return self._open_row(connection, sharing, now)

    def note(self, handle: str, *, status: str, reason: str = "") -> None:
        """See `State.note`."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE approvals SET status = ?, reason = ?"
                " WHERE scope = ? AND key = ? AND claimed_by = '' AND status <> 'denied'",
                (status, reason, self._scope, key_of(handle)),
            )

    def drop(self, handle: str, *, now: float) -> None:
        """See `State.drop`."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE approvals SET expires_at = ? WHERE scope = ? AND key = ? AND claimed_by = ''",
                (now, self._scope, key_of(handle)),
            )

    def claim(self, handle: str, *, by: str, process: str, entry: str, now: float) -> Approval | None:
        """See `State.claim`."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE approvals SET claimed_by = ?, process = ?, entry = ?, claimed_at = ?"
                " WHERE scope = ? AND key = ? AND claimed_by = '' AND status <> 'denied' AND expires_at > ?",
                (by, process, entry, now, self._scope, key_of(handle), now),
            )
            return self._row(connection, handle)

    def give_back(self, handle: str, *, by: str, most: int) -> int:
        """See `State.give_back`."""
        with self._writing() as connection:
            row = self._row(connection, handle)
            if row is None or not by or row.claimed_by != by or row.given_back >= most:
                return 0
            # An identical request may have an action of its own by now: then only the handle finds this one.
            taken = self._open_row(connection, row.sharing, 0.0) is not None
            connection.execute(
                "UPDATE approvals SET claimed_by = '', process = '', entry = '', claimed_at = 0, outcome = '',"
                " given_back = given_back + 1, sharing = ? WHERE scope = ? AND key = ?",
                (f"given back {row.key}" if taken else row.sharing, self._scope, row.key),
            )
            return row.given_back + 1

    def settle(self, handle: str, *, outcome: str) -> None:
        """See `State.settle`."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE approvals SET outcome = ?"
                " WHERE scope = ? AND key = ? AND claimed_by <> '' AND outcome IN ('', 'unknown')",
                (outcome, self._scope, key_of(handle)),
            )

    def unsettled(self, process: str) -> Sequence[Approval]:
        """See `State.unsettled`."""
        with self._used() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM approvals"  # noqa: S608
                " WHERE scope = ? AND process = ? AND claimed_by <> '' AND outcome = ''",
                (self._scope, process),
            )
            return [_approval(row) for row in rows.fetchall()]

    def _row(self, connection: sqlite3.Connection, handle: str) -> Approval | None:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM approvals WHERE scope = ? AND key = ?",  # noqa: S608
            (self._scope, key_of(handle)),
        ).fetchone()
        return None if row is None else _approval(row)

    def _open_row(self, connection: sqlite3.Connection, sharing: str, now: float) -> Approval | None:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM approvals"  # noqa: S608
            " WHERE scope = ? AND sharing = ? AND claimed_by = '' AND expires_at > ?",
            (self._scope, sharing, now),
        ).fetchone()
        return None if row is None else _approval(row)

    # --- the kill state

    def apply(self, orders: Sequence[Order], *, command_id: str, now: float) -> bool:
        """See `State.apply`."""
        with self._writing() as connection:
            if command_id:
                new = connection.execute(
                    "INSERT OR IGNORE INTO applied VALUES (?, ?, ?)", (self._scope, command_id, now)
                )
                if not new.rowcount:
                    return False
                connection.execute(
                    "DELETE FROM applied WHERE scope = ? AND at < ?", (self._scope, now - _APPLIED_SECONDS)
                )
            for order in orders:
                row = connection.execute(
                    f"SELECT {', '.join(_ORDER_FIELDS)} FROM orders"  # noqa: S608
                    " WHERE scope = ? AND target = ? AND slot = ?",
                    (self._scope, order.target, order.slot),
                ).fetchone()
                if row is None or rank(Order(**dict(row))) < rank(order):
                    connection.execute(
                        f"INSERT OR REPLACE INTO orders (scope, {', '.join(_ORDER_FIELDS)})"  # noqa: S608
                        f" VALUES (?{', ?' * len(_ORDER_FIELDS)})",
                        (self._scope, *(getattr(order, name) for name in _ORDER_FIELDS)),
                    )
            return True

    def confirm(self, *, now: float) -> None:
        """See `State.confirm`."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO confirmed VALUES (?, ?)", (self._scope, now))

    def snapshot(self, *, now: float) -> Snapshot:
        """See `State.snapshot`."""
        with self._used() as connection:
            orders = connection.execute(
                f"SELECT {', '.join(_ORDER_FIELDS)} FROM orders WHERE scope = ?",  # noqa: S608
                (self._scope,),
            ).fetchall()
            hints = connection.execute(
                "SELECT DISTINCT hint FROM approvals WHERE scope = ? AND claimed_by = '' AND expires_at > ? LIMIT ?",
                (self._scope, now, MAX_HINTS + 1),
            ).fetchall()
            confirmed = connection.execute("SELECT at FROM confirmed WHERE scope = ?", (self._scope,)).fetchone()
        return Snapshot(
            orders=Orders(((row["target"], row["slot"]), Order(**dict(row))) for row in orders),
            hints=None if len(hints) > MAX_HINTS else frozenset(row["hint"] for row in hints),
            confirmed_at=0.0 if confirmed is None else confirmed["at"],
        )

    def take(self, name: str, *, limit: int, now: float) -> float | None:
        """See `State.take`."""
        with self._writing() as connection:
            # What lies in the future was counted before the clock was set back.
            connection.execute(
                "DELETE FROM takes WHERE scope = ? AND agent_id = ? AND (at <= ? OR at > ?)",
                (self._scope, name, now - _WINDOW, now + _WINDOW),
            )
            times = connection.execute(
                "SELECT at FROM takes WHERE scope = ? AND agent_id = ? ORDER BY at DESC LIMIT ?",
                (self._scope, name, limit),
            ).fetchall()
            if len(times) >= limit:
                return max(0.0, min(_WINDOW, float(times[-1]["at"]) + _WINDOW - now))
            connection.execute("INSERT INTO takes VALUES (?, ?, ?)", (self._scope, name, now))
            return None

    # --- background workers

    def lease(self, name: str, *, owner: str, seconds: float, now: float) -> bool:
        """See `State.lease`."""
        with self._writing() as connection:
            row = connection.execute(
                "SELECT owner, until FROM leases WHERE scope = ? AND name = ?", (self._scope, name)
            ).fetchone()
            # A lease that ends too late was taken before the clock was set back.
            if row is not None and row["owner"] != owner and now < row["until"] <= now + 10 * seconds:
                return False
            connection.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (self._scope, name, owner, now + seconds)
            )
            return True

    def see(self, agent_id: str, *, now: float) -> None:
        """See `State.see`."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO agents VALUES (?, ?, ?)", (self._scope, agent_id, now))
            connection.execute("DELETE FROM agents WHERE scope = ? AND at < ?", (self._scope, now - _APPLIED_SECONDS))

    def agents(self, *, since: float) -> Sequence[str]:
        """See `State.agents`."""
        with self._used() as connection:
            rows = connection.execute(
                "SELECT agent_id FROM agents WHERE scope = ? AND at >= ? ORDER BY at DESC",
                (self._scope, since),
            )
            return [row["agent_id"] for row in rows.fetchall()]

    def close(self) -> None:
        """See `State.close`."""
        if self._pid != os.getpid():
            return
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None and self._path is not None:
            connection.close()
        elif connection is not None:
            self._connection = connection  # what is in memory only would be gone

    # --- the connection

    def _renew(self) -> None:
        # SQLite forbids to use or even to close a connection on the other side of a fork, so it is kept aside.
        # The lock is new too: another thread of the parent may have held it.
        self._lock = threading.Lock()
        if self._connection is not None:
            self._inherited.append(self._connection)
            self._connection = None
        self._pid = os.getpid()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._used() as connection, transaction(connection):
            yield connection

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            renew_once(lambda: self._pid, self._renew)
        if not self._lock.acquire(timeout=self._timeout):
            raise StateError("the state is busy: another thread did not release it in time")
        try:
            try:
                yield self._current()
            except sqlite3.Error as error:
                self._drop_broken(error)
                raise StateError(f"the state cannot be used: {error}") from None
        finally:
            self._lock.release()

    def _current(self) -> sqlite3.Connection:
        if self._connection is not None and self._path is not None and self._identify() != self._identity:
            logger.error("the state %s was deleted or replaced; it is opened again without its rows", self._path)
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = self._open()
            self._identity = self._identify()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        try:
            if self._path is not None:
                make_directory(self._path.parent)
            return open_database(
                MEMORY if self._path is None else self._path,
                migrations=_MIGRATIONS,
                busy_timeout=self._timeout,
                synchronous=self._synchronous,
            )
        except (ConfigurationError, OSError) as error:
            raise StateError(str(error)) from None

    def _identify(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _drop_broken(self, error: Exception) -> None:
        """After anything but a busy file, the next call opens the file again."""
        if self._path is None or "locked" in str(error) or "busy" in str(error):
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _approval(row: Any) -> Approval:
    return Approval(**dict(row))
