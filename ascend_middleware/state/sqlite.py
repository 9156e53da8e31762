"""State in SQLite: a file that the workers of a machine share, or the memory of one process."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..api.orders import Order, Orders, rank
from ..exceptions import ConfigurationError
from ..fork import process_id, renew_once
from ..masking import get_logger
from ..setting_values import make_directory
from ..sqlite import MEMORY, open_database, transaction
from .base import KEPT_SECONDS, MAX_HINTS, Approval, Snapshot, StateError, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
_ORDERS: Final = f"SELECT {', '.join(_ORDER_FIELDS)} FROM orders WHERE scope = :scope"  # noqa: S608
_ROWS: Final = f"SELECT {_COLUMNS} FROM approvals WHERE scope = :scope"  # noqa: S608
_ROW: Final = f"{_ROWS} AND key = :key"
_OPEN_ROW: Final = f"{_ROWS} AND sharing = :sharing AND claimed_by = '' AND expires_at > :now"
_UNSETTLED: Final = f"{_ROWS} AND process = :process AND claimed_by <> '' AND outcome = ''"
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
            with self._writing():
                pass  # a file that cannot be written is told now
            self.close()

    # --- approvals

    def hold(self, approval: Approval, *, now: float) -> Approval:
        with self._writing() as run:
            # Old rows go where new ones come, so that nothing grows without a bound.
            run(
                "DELETE FROM approvals WHERE scope = :scope AND expires_at < :late"
                " AND (claimed_by = '' OR outcome <> '' OR expires_at < :too_late)",
                late=now - KEPT_SECONDS,
                too_late=now - _APPLIED_SECONDS,
            )
            run(
                "UPDATE approvals SET sharing = 'expired ' || key"
                " WHERE scope = :scope AND sharing = :sharing AND claimed_by = '' AND expires_at <= :now",
                sharing=approval.sharing,
                now=now,
            )
            found = _first(run(_OPEN_ROW, sharing=approval.sharing, now=now))
            if found is not None:
                return found
            run(
                f"INSERT INTO approvals (scope, key, {_COLUMNS}) VALUES (:scope, :key, {_values(_FIELDS)})",  # noqa: S608
                key=approval.key,
                **asdict(approval),
            )
            return approval

    def find(self, handle: str) -> Approval | None:
        with self._used() as run:
            return _first(run(_ROW, key=key_of(handle)))

    def find_open(self, sharing: str, *, now: float) -> Approval | None:
        with self._used() as run:
            return _first(run(_OPEN_ROW, sharing=sharing, now=now))

    def note(self, handle: str, *, status: str, reason: str = "") -> None:
        sql = (
            "UPDATE approvals SET status = :status, reason = :reason"
            " WHERE scope = :scope AND key = :key AND claimed_by = '' AND status <> 'denied'"
        )
        with self._writing() as run:
            run(sql, key=key_of(handle), status=status, reason=reason)

    def drop(self, handle: str, *, now: float) -> None:
        with self._writing() as run:
            run(
                "UPDATE approvals SET expires_at = :now WHERE scope = :scope AND key = :key AND claimed_by = ''",
                key=key_of(handle),
                now=now,
            )

    def claim(self, handle: str, *, by: str, process: str, entry: str, now: float) -> Approval | None:
        sql = (
            "UPDATE approvals SET claimed_by = :by, process = :process, entry = :entry, claimed_at = :now"
            " WHERE scope = :scope AND key = :key AND claimed_by = '' AND status <> 'denied' AND expires_at > :now"
        )
        key = key_of(handle)
        with self._writing() as run:
            run(sql, key=key, by=by, process=process, entry=entry, now=now)
            return _first(run(_ROW, key=key))

    def give_back(self, handle: str, *, by: str, most: int) -> int:
        sql = (
            "UPDATE approvals SET claimed_by = '', process = '', entry = '', claimed_at = 0, outcome = '',"
            " given_back = given_back + 1, sharing = :sharing WHERE scope = :scope AND key = :key"
        )
        with self._writing() as run:
            row = _first(run(_ROW, key=key_of(handle)))
            if row is None or not by or row.claimed_by != by or row.given_back >= most:
                return 0
            # An identical request may have an action of its own by now: then only the handle finds this one.
            is_taken = _first(run(_OPEN_ROW, sharing=row.sharing, now=0.0)) is not None
            run(sql, key=row.key, sharing=f"given back {row.key}" if is_taken else row.sharing)
            return row.given_back + 1

    def settle(self, handle: str, *, outcome: str) -> None:
        sql = (
            "UPDATE approvals SET outcome = :outcome"
            " WHERE scope = :scope AND key = :key AND claimed_by <> '' AND outcome IN ('', 'unknown')"
        )
        with self._writing() as run:
            run(sql, key=key_of(handle), outcome=outcome)

    def unsettled(self, process: str) -> Sequence[Approval]:
        with self._used() as run:
            return [Approval(**dict(row)) for row in run(_UNSETTLED, process=process)]

    # --- the kill state

    def apply(self, orders: Sequence[Order], *, command_id: str, now: float) -> bool:
        with self._writing() as run:
            if command_id:
                new = run("INSERT OR IGNORE INTO applied VALUES (:scope, :id, :now)", id=command_id, now=now)
                if not new.rowcount:
                    return False
                run("DELETE FROM applied WHERE scope = :scope AND at < :late", late=now - _APPLIED_SECONDS)
            for order in orders:
                sql = f"{_ORDERS} AND target = :target AND slot = :slot"
                row = run(sql, target=order.target, slot=order.slot).fetchone()
                if row is None or rank(Order(**dict(row))) < rank(order):
                    run(
                        f"INSERT OR REPLACE INTO orders (scope, {', '.join(_ORDER_FIELDS)})"  # noqa: S608
                        f" VALUES (:scope, {_values(_ORDER_FIELDS)})",
                        **asdict(order),
                    )
            return True

    def confirm(self, *, now: float) -> None:
        with self._writing() as run:
            run("INSERT OR REPLACE INTO confirmed VALUES (:scope, :now)", now=now)

    def snapshot(self, *, now: float) -> Snapshot:
        sql = "SELECT DISTINCT hint FROM approvals WHERE scope = :scope AND claimed_by = '' AND expires_at > :now"
        with self._used() as run:
            orders = run(_ORDERS).fetchall()
            hints = run(f"{sql} LIMIT :most", now=now, most=MAX_HINTS + 1).fetchall()
            confirmed = run("SELECT at FROM confirmed WHERE scope = :scope").fetchone()
        return Snapshot(
            orders=Orders(((row["target"], row["slot"]), Order(**dict(row))) for row in orders),
            hints=None if len(hints) > MAX_HINTS else frozenset(row["hint"] for row in hints),
            confirmed_at=0.0 if confirmed is None else confirmed["at"],
        )

    def take(self, name: str, *, limit: int, now: float) -> float | None:
        of_name = "FROM takes WHERE scope = :scope AND agent_id = :name"
        with self._writing() as run:
            # What lies in the future was counted before the clock was set back.
            run(
                f"DELETE {of_name} AND (at <= :past OR at > :future)",
                name=name,
                past=now - _WINDOW,
                future=now + _WINDOW,
            )
            times = run(f"SELECT at {of_name} ORDER BY at DESC LIMIT :limit", name=name, limit=limit).fetchall()
            if len(times) >= limit:
                return max(0.0, min(_WINDOW, float(times[-1]["at"]) + _WINDOW - now))
            run("INSERT INTO takes VALUES (:scope, :name, :now)", name=name, now=now)
            return None

    # --- background workers

    def lease(self, name: str, *, owner: str, seconds: float, now: float) -> bool:
        with self._writing() as run:
            row = run("SELECT owner, until FROM leases WHERE scope = :scope AND name = :name", name=name).fetchone()
            # A lease that ends too late was taken before the clock was set back.
            if row is not None and row["owner"] != owner and now < row["until"] <= now + 10 * seconds:
                return False
            sql = "INSERT OR REPLACE INTO leases VALUES (:scope, :name, :owner, :until)"
            run(sql, name=name, owner=owner, until=now + seconds)
            return True

    def see(self, agent_id: str, *, now: float) -> None:
        with self._writing() as run:
            run("INSERT OR REPLACE INTO agents VALUES (:scope, :agent_id, :now)", agent_id=agent_id, now=now)
            run("DELETE FROM agents WHERE scope = :scope AND at < :late", late=now - _APPLIED_SECONDS)

    def agents(self, *, since: float) -> Sequence[str]:
        sql = "SELECT agent_id FROM agents WHERE scope = :scope AND at >= :since ORDER BY at DESC"
        with self._used() as run:
            return [row["agent_id"] for row in run(sql, since=since)]

    def close(self) -> None:
        if self._pid != process_id():
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
        self._pid = process_id()

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._used() as run, transaction(run.args[0]):
            yield run

    @contextmanager
    def _used(self) -> Iterator[partial[sqlite3.Cursor]]:
        """Lend what runs statements, whose parameters have names; `:scope` is this service's."""
        if self._pid != process_id():
            renew_once(lambda: self._pid, self._renew)
        if not self._lock.acquire(timeout=self._timeout):
            raise StateError("the state is busy: another thread did not release it in time")
        try:
            try:
                yield partial(_run, self._current(), scope=self._scope)
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


def _run(connection: sqlite3.Connection, sql: str, **values: Any) -> sqlite3.Cursor:
    return connection.execute(sql, values)


def _first(rows: sqlite3.Cursor) -> Approval | None:
    row = rows.fetchone()
    return None if row is None else Approval(**dict(row))


def _values(names: Sequence[str]) -> str:
    return ", ".join(f":{name}" for name in names)
