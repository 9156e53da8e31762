"""One writer and many readers on one SQLite file; what belongs to one request is stored whole or not at all.

Only this file and the statements of the store know SQLite: whoever stands above catches `StorageError`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.sqlite import MEMORY, open_database, open_evidence, open_reader, transaction

from .schema import MIGRATIONS

__all__ = ["Database", "Row", "StorageError", "Watch"]

Row: TypeAlias = sqlite3.Row
# The database cannot be used, or did not keep what it was given.
StorageError: Final = sqlite3.Error

_IDLE_READERS: Final = 8
# Bytes; a disk that has less counts as full.
_LEAST_FREE: Final = 1024 * 1024
# Seconds for which a look at the database waits for whoever is writing.
_LOOK: Final = 1.0
_MAX_CACHED: Final = 10_000
_JOINED: Final = contextlib.nullcontext()
# The schema version that brought the audit log's head.
_FIRST_WITH_HEAD: Final = 2


class Watch:
    """Tells whether the database has changed since it last looked; the first look always says so."""

    def __init__(self, connection: sqlite3.Connection, statement: str, *, own: bool) -> None:
        self._connection = connection
        self._statement = statement
        self._own = own
        self._closed = False
        # SQLite crashes the process if a connection is closed while another thread is using it.
        self._lock = threading.Lock()
        self._seen = -1

    def changed(self) -> bool:
        """Look; it costs a few microseconds."""
        with self._lock:
            if self._closed:
                return False
            seen = int(self._connection.execute(self._statement).fetchone()[0])
            changed, self._seen = seen != self._seen, seen
            return changed

    def close(self) -> None:
        """Close the watch's connection."""
        with self._lock:
            self._closed = True
            if self._own:
                self._connection.close()


_Value = TypeVar("_Value")


@dataclass(slots=True)
class _Transaction:
    """What is kept until a transaction's end: what was read, the audit log's new last entry, whom to tell."""

    memo: dict[Hashable, Any] = field(default_factory=dict)
    tip: tuple[int, str] | None = None
    notices: list[Callable[[], None]] = field(default_factory=list)


def _identity(name: str, *, may_be_empty: bool) -> tuple[int, int, bool] | None:
    try:
        place = os.stat(name)
    except OSError:
        return None
    return place.st_dev, place.st_ino, may_be_empty or place.st_size > 0


@functools.cache
def _insertion(table: str, columns: tuple[str, ...], once: bool) -> str:
    places = ", ".join("?" * len(columns))
    end = " ON CONFLICT DO NOTHING" if once else ""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}){end}"  # noqa: S608 - names are ours


class Database:
    """The authority's SQLite file: one connection that writes, under a lock, and others that only read.

    Every change happens within `write()`, and what must stand or fall together within the same one. Other processes
    may use the file at the same time; SQLite itself keeps them apart. A database in memory has only the one connection.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, now: Callable[[], float] = time.time, path: str | Path = MEMORY
    ) -> None:
        self._db = connection
        self.now = now
        # Absolute: the process may change its directory before the next reader is opened.
        self._path = MEMORY if path == MEMORY else os.path.abspath(path)
        self._names = () if path == MEMORY else (self._path, f"{self._path}-wal")
        self._files = self._named()
        self._lock = threading.RLock()
        self._owner: int | None = None  # the thread that is within `write` or `group`
        self._inside = False  # within `write`
        self._transaction: _Transaction | None = None
        self._cache_lock = threading.Lock()
        self._revision = -1
        self._cached: dict[Hashable, Any] = {}
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False

    @staticmethod
    def connect(path: str | Path, *, create: bool = True) -> sqlite3.Connection:
        """Return the writing connection; raise `ConfigurationError` if the file cannot be used."""
        log = f"{path}-wal"
        if path != MEMORY and not os.path.exists(path) and os.path.exists(log) and os.path.getsize(log):
            raise ConfigurationError(
                f"the database {path} was moved away or deleted: its log {log} still holds what came last. Put the "
                "file back beside it; for a new database, move the log away"
            )
        return open_database(path, migrations=MIGRATIONS, create=create)

    @classmethod
    @contextlib.contextmanager
    def evidence(cls, path: str | Path) -> Iterator[Database]:
        """Open a database only to read it; raise `ConfigurationError` if this version knows no such database."""
        connection = open_evidence(path, oldest=_FIRST_WITH_HEAD, newest=len(MIGRATIONS))
        with contextlib.closing(Database(connection)) as database:
            yield database

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._db.close()
        with self._idle_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- writing

    def write(self) -> AbstractContextManager[None]:
        """Run the block as one durable transaction; within another one, join it.

        Within `group` it is a part that stands or falls alone, and durable once the group is.
        """
        # Most of what is written joins; that is worth a short way.
        return _JOINED if self._inside and self._owner == threading.get_ident() else self._written()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Run the block as a part of the group, or of one that it is alone in."""
        if self._owner != threading.get_ident():
            with self.group(), self._written():
                yield
            return
        if self._transaction is None:
            self._db.execute("BEGIN IMMEDIATE")
            self._transaction = _Transaction()
        self._check_whole()
        now = self._transaction
        mark, tip = len(now.notices), now.tip
        self._db.execute("SAVEPOINT part")
        self._inside = True
        try:
            yield
            self._db.execute("RELEASE part")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO part")
                self._db.execute("RELEASE part")
            del now.notices[mark:]
            now.tip = tip
            now.memo.clear()
            raise
        finally:
            self._inside = False

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """Commit all that the block writes at its end, at the price of one.

        Nothing that happened in the block may be told to anybody before the block has ended. If it raises, nothing of
        it was kept.
        """
        with self._lock:
            if self._owner is not None:
                raise RuntimeError("a group holds whole writes, and no other group")
            self._owner = threading.get_ident()
            try:
                yield
                done = self._transaction
                if done is not None:
                    self._check_whole()
                    if done.tip is not None:  # once for all that is committed together, not for each entry
                        self._db.execute("UPDATE audit_head SET seq = ?, hash = ?", done.tip)
                    self._db.execute("COMMIT")
                    self._check_name()
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._owner = self._transaction = None
            for notice in done.notices if done is not None else ():
                notice()

    def _check_whole(self) -> None:
        # A full disk may have ended the transaction and undone what earlier parts were told is kept.
        if not self._db.in_transaction:
            raise sqlite3.OperationalError("the database undid the whole transaction")

    @property
    def memo(self) -> dict[Hashable, Any] | None:
        """What was read in the running transaction, in which nobody else changes anything; None outside of one.

        Whoever changes what is kept there removes it.
        """
        return self._transaction.memo if self._transaction and self._owner == threading.get_ident() else None

    def changed(self) -> None:
        """Say that a record or a command changes, only within `write`: what is `cached` of them is old."""
        self._running().memo.pop("revision", None)

    def cached(self, key: Hashable, load: Callable[[], _Value]) -> _Value:
        """Return what `load` gave for a key, until any record or command changes, in whatever process."""
        revision = self._read_revision()
        with self._cache_lock:
            if revision != self._revision or len(self._cached) > _MAX_CACHED:
                self._cached.clear()
                self._revision = revision
            elif key in self._cached:
                value: _Value = self._cached[key]
                return value
        value = load()
        with self._cache_lock:
            # Loaded while something changed, it may be old already.
            if self._revision == revision:
                self._cached[key] = value
        return value

    def _read_revision(self) -> int:
        # Read once in a transaction, where nobody else can change anything.
        memo = self.memo
        revision: int | None = None if memo is None else memo.get("revision")
        if revision is None:
            revision = int(self.rows("SELECT n FROM revision")[0][0])
            if memo is not None:
                memo["revision"] = revision
        return revision

    def tip(self) -> tuple[int, str]:
        """Return number and hash of the audit log's last entry, as the running transaction sees it."""
        if self._owner == threading.get_ident() and self._transaction and self._transaction.tip:
            return self._transaction.tip
        row = self.rows("SELECT seq, hash FROM audit_head")[0]
        return int(row["seq"]), str(row["hash"])

    def advance(self, seq: int, digest: str) -> None:
        """Note the audit log's new last entry; it is stored with the transaction."""
        self._running().tip = (seq, digest)

    def after_commit(self, notice: Callable[[], None]) -> None:
        """Call `notice` once what is being written is durable, and never if it is undone; it must be quick."""
        self._running().notices.append(notice)

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement that changes something; only within `write`."""
        self._running()
        return self._db.execute(statement, values)

    def insert(self, table: str, row: Mapping[str, object], *, once: bool = False) -> int:
        """Add a row and return its number; only within `write`. `once`: unless there is one of its key."""
        return self.execute(_insertion(table, tuple(row), once), tuple(row.values())).lastrowid or 0

    def _running(self) -> _Transaction:
        if self._transaction is None or self._owner != threading.get_ident():
            raise RuntimeError("changes happen within write()")
        return self._transaction

    # --- reading

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return what a statement selects: within `write` and `read` as they see it, else as it was last committed."""
        if self._owner == threading.get_ident():
            return self._db.execute(statement, values).fetchall()
        with self.reading() as connection:
            return connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for reading; several statements on it may see different states, see `snapshot`."""
        if self._owner == threading.get_ident():
            yield self._db
            return
        if self._path == MEMORY:
            with self._lock:
                yield self._db
            return
        connection = self._borrow()
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            with self._idle_lock:
                keep = not self._closed and len(self._idle) < _IDLE_READERS
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection on which all statements see the same state."""
        with self.reading() as connection:
            if not connection.in_transaction and connection is not self._db:
                connection.execute("BEGIN")
            yield connection

    def probe(self) -> None:
        """Read something and write something, so that a database that cannot be used raises `StorageError`."""
        self.rows("SELECT seq FROM audit_head")
        # The little that is written here may still fit where an action does not.
        if self._path != MEMORY and shutil.disk_usage(os.path.dirname(self._path) or ".").free < _LEAST_FREE:
            raise sqlite3.OperationalError(f"the disk of {self._path} is full")
        if not self._lock.acquire(timeout=_LOOK):
            raise sqlite3.OperationalError(f"nothing could be written for {_LOOK:g} s")
        try:
            usual = self._db.execute("PRAGMA busy_timeout").fetchone()[0]
            self._db.execute(f"PRAGMA busy_timeout={min(usual, round(_LOOK * 1000))}")
            try:
                with transaction(self._db):
                    # What is written is what stands there, and yet it goes the way of every change, down to the disk.
                    self._db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
            finally:
                self._db.execute(f"PRAGMA busy_timeout={usual}")
        finally:
            self._lock.release()

    def _named(self) -> list[tuple[int, int, bool] | None]:
        """Return which files stand under the names of the database and its log; False: the database was emptied."""
        return [_identity(name, may_be_empty=name != self._path) for name in self._names]

    def _check_name(self) -> None:
        """Raise `StorageError` if what is written here is not what stands under the file's name.

        SQLite goes on with a file that was moved away, deleted or replaced, and all of it is lost in the end.
        """
        if self._named() != self._files:
            raise sqlite3.OperationalError(
                f"the database {self._path} was moved away, deleted, replaced or emptied; put the file and its log "
                "back, or start the authority again"
            )

    def check(self, *, pages: bool = False) -> None:
        """Raise `ConfigurationError` unless the audit log ends where its head says and, if asked for, pages are sound.

        That takes about a second for each gigabyte or less.
        """
        try:
            found = str(self.rows("PRAGMA quick_check(1)")[0][0]) if pages else "ok"
            problem = self.end_problem() if found == "ok" else found
        except StorageError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(
                f"the database {self._path} is damaged: {problem}. Put a backup in its place (`authority backup` makes "
                "them), without the side files -wal and -shm of the old one; what the old one still holds tell "
                "`audit verify` and `audit export`"
            )

    def end_problem(self) -> str:
        """Return in words that the audit log does not end where its head says, or nothing if it does."""
        try:
            with self.snapshot() as connection:
                last = connection.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
                head = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
        except StorageError as error:
            return str(error)
        fits = head is not None and tuple(head) == (tuple(last) if last else (0, "0" * 64))
        return "" if fits else "the audit log does not end where its head says"

    def watch(self) -> Watch:
        """Return a watch that tells whether anything was stored since it last looked, by whatever process."""
        if self._path == MEMORY:
            return Watch(self._db, "SELECT total_changes()", own=False)
        return Watch(open_reader(self._path), "PRAGMA data_version", own=True)

    def _borrow(self) -> sqlite3.Connection:
        with self._idle_lock:
            if self._closed:
                raise sqlite3.ProgrammingError("the database is closed")
            self._check_name()
            if self._idle:
                return self._idle.pop()
        connection = open_reader(self._path)
        self._check_name()
        return connection

    # --- the whole file

    def backup(self, target: str | Path) -> int:
        """Copy the database to a new file while it is in use, and return the copy's size in bytes.

        The copy is one consistent state, is checked, and appears under its name only when it is whole.

        Raises:
            AscendError: the file exists already, cannot be written, or the copy is not sound.
        """
        place = Path(target)
        if place.exists():
            raise AscendError(f"{place} exists already; it was not touched")
        partial = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
                with self.reading() as source:
                    source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, without side files
                found = copy.execute("PRAGMA integrity_check").fetchone()[0]
                if found != "ok":
                    raise AscendError(f"the copy of {self._path} is not sound: {found}")
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.link(partial, place)  # unlike a rename, never over a file that has come meanwhile
            return place.stat().st_size
        except FileExistsError:
            raise AscendError(f"{place} exists already; it was not touched") from None
        except (OSError, StorageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AscendError(f"the backup {place} cannot be written: {reason}") from None
        finally:
            partial.unlink(missing_ok=True)
