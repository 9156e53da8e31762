"""SQLite: one file, or none in memory; one connection that writes, and others that only read."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.sqlite import ERRORS, MEMORY, open_database, open_evidence, open_reader, transaction

from .column_types import misfits
from .engine import Begun, Done, Misfit, Reader, Row, StorageError, Watch, check_texts, insertion
from .patience import give_way, seconds_left
from .schema import FIRST_WITH_HEAD, SQLITE
from .sqlite_errors import DamagedError, ours, told
from .unfinished import check_finished, making, sync_folder

__all__ = ["SQLiteEngine"]

_IDLE_READERS: Final = 8
# Steps of SQLite's machine between two looks at the time: about a millisecond.
_STEPS: Final = 20_000
# Bytes; a disk that has less counts as full.
_LEAST_FREE: Final = 1024 * 1024

# Of one statement: the oldest SQLite takes 999 values.
_MOST_VALUES: Final = 999
_MOST_ROWS: Final = 64

# The last number of an action as SQLite itself would go on from it.
_BEGUN: Final = """SELECT seq, hash, n, max(
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'actions'), 0),
    coalesce((SELECT max(id) FROM actions), 0)) FROM audit_head, revision"""
_statement = functools.cache(insertion)


@functools.cache
def _many(table: str, columns: tuple[str, ...], count: int) -> str:
    """Return the statement that adds so many rows.

    What fails takes all that belongs together with it, so SQLite need not prepare to take back this statement alone.
    """
    head, _, places = insertion(table, columns, once=False).replace("INSERT", "INSERT OR FAIL", 1).partition(" VALUES ")
    return f"{head} VALUES {', '.join([places] * count)}"


class SQLiteEngine:
    """One SQLite file, which other processes may use at the same time; see `Engine`."""

    fleet: Final = None

    def __init__(self, connection: sqlite3.Connection, *, path: str | Path = MEMORY, shown: str = "") -> None:
        self.connection: Final = connection
        # Absolute: the process may change its directory before the next reader is opened.
        self.place: Final = shown or (MEMORY if path == MEMORY else os.path.abspath(path))
        self.alone: Final = path == MEMORY
        self.writer: Final[Reader] = _SQLiteWriter(self)
        self._names = () if path == MEMORY else (self.place, f"{self.place}-wal")
        self._files = self._named()
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False
        self._damage = ""
        self._is_marked = self._has_savepoint = False

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True) -> SQLiteEngine:
        """Open a file, or make it; raise `ConfigurationError` if it cannot be used."""
        log = f"{path}-wal"
        if path != MEMORY:
            check_finished(path)
        if path != MEMORY and not os.path.exists(path) and os.path.exists(log) and os.path.getsize(log):
            raise ConfigurationError(
                f"the database {path} was moved away or deleted: its log {log} still holds what came last. Put the "
                "file back beside it; for a new database, move the log away"
            )
        return cls(open_database(path, migrations=SQLITE, create=create), path=path)

    @classmethod
    def evidence(cls, path: str | Path) -> SQLiteEngine:
        """Open a file only to read it; raise `ConfigurationError` if this version knows no such database."""
        return cls(open_evidence(path, oldest=FIRST_WITH_HEAD, newest=len(SQLITE)), shown=str(path))

    def close_writer(self) -> None:
        """Close the connection that writes."""
        self.connection.close()

    def close_readers(self) -> None:
        """Close all others."""
        with self._idle_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- one transaction

    def begin(self) -> Begun:
        """Take the write lock."""
        self._check_pages()
        self.execute("BEGIN IMMEDIATE")
        found = self._run(_BEGUN, ()).fetchall()
        if not found:
            raise StorageError("the record of the audit log's last entry is missing")
        seq, digest, revision, action = found[0]
        return Begun((seq, digest), revision, action)

    @property
    def in_transaction(self) -> bool:
        """Whether there is one: a full disk may have ended it."""
        return self.connection.in_transaction

    def mark(self) -> None:
        """Begin a part; the savepoint comes before its first change, and with it copies of all pages that change."""
        self._is_marked, self._has_savepoint = True, False

    def release(self) -> None:
        """Keep the part."""
        self._is_marked = False
        if self._has_savepoint:
            self.execute("RELEASE part")

    def undo(self) -> None:
        """Take the part back."""
        self._is_marked = False
        if self._has_savepoint:
            self.execute("ROLLBACK TO part")
            self.execute("RELEASE part")

    def commit(self, tip: tuple[int, str] | None) -> None:
        """Commit, and see that what was written stands under the file's name."""
        if tip is not None:  # once for all that is committed together, not for each entry
            self.execute("UPDATE audit_head SET seq = ?, hash = ?", tip)
        self.execute("COMMIT")
        self._check_name()

    def rollback(self) -> None:
        """Take everything back."""
        self._is_marked = False
        if self.connection.in_transaction:
            self.execute("ROLLBACK")

    def execute(self, statement: str, values: Sequence[object] = ()) -> Done:
        """Run one statement that changes something."""
        return self._run(statement, values)

    def _run(self, statement: str, values: Sequence[object]) -> sqlite3.Cursor:
        try:
            self.before_change()
            return self.connection.execute(statement, values)
        except ERRORS as error:
            found = told(error)
            raise (self._damaged(found) if isinstance(found, DamagedError) else found) from error

    def before_change(self) -> None:
        """Begin the savepoint of the part, if it has none yet."""
        if self._is_marked:
            self._is_marked = False
            self.connection.execute("SAVEPOINT part")
            self._has_savepoint = True

    def insert(self, table: str, columns: tuple[str, ...], values: Sequence[object], *, once: bool) -> int:
        """Add a row and return its number."""
        return self._run(_statement(table, columns, once=once), values).lastrowid or 0

    def insert_many(self, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
        """Add rows."""
        first, most = 0, min(_MOST_ROWS, _MOST_VALUES // len(columns))
        while first < len(rows):
            # Few lengths, so that each statement is prepared once: powers of two.
            size = 1 << (min(most, len(rows) - first).bit_length() - 1)
            values = list(itertools.chain.from_iterable(rows[first : first + size]))
            self._run(_many(table, columns, size), values)
            first += size

    check = staticmethod(check_texts)

    # --- reading

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Lend a connection for reading."""
        with self._noted():
            connection = self._borrow()
        limited = seconds_left() is not None
        if limited:
            # The handler runs in the thread that reads, which is the one that has the limit.
            connection.set_progress_handler(_is_over, _STEPS)
        try:
            with self._noted():
                yield _SQLiteReader(connection)
        finally:
            if limited:
                connection.set_progress_handler(None, 0)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            with self._idle_lock:
                keep = not self._closed and len(self._idle) < _IDLE_READERS
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Lend a connection on which all statements see the same state."""
        with self.reading() as reader:
            reader.rows("BEGIN")
            yield reader

    def _borrow(self) -> sqlite3.Connection:
        with self._idle_lock:
            if self._closed:
                raise StorageError("the database is closed")
            self._check_name()
            if self._idle:
                return self._idle.pop()
        connection = open_reader(self.place)
        self._check_name()
        return connection

    def watch(self) -> Watch:
        """Return a watch."""
        with ours():
            if self.alone:
                return _SQLiteWatch(self.connection, "SELECT total_changes()", own=False)
            return _SQLiteWatch(open_reader(self.place), "PRAGMA data_version", own=True)

    # --- the file

    def _named(self) -> list[tuple[int, int, bool] | None]:
        """Return which files stand under the names of the database and its log; False: the database was emptied."""
        return [_identity(name, may_be_empty=name != self.place) for name in self._names]

    def _check_name(self) -> None:
        """Raise `StorageError` if what is written here is not what stands under the file's name.

        SQLite goes on with a file that was moved away, deleted or replaced, and all of it is lost in the end.
        """
        if self._named() != self._files:
            raise StorageError(
                f"the database {self.place} was moved away, deleted, replaced or emptied; put the file and its log "
                "back, or start the authority again"
            )

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Raise what SQLite raises as `StorageError`, and keep in mind that a page is damaged."""
        try:
            with ours():
                yield
        except DamagedError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: StorageError) -> StorageError:
        self._damage = f"the database {self.place} is damaged: {error}. {self.advice()}"
        return StorageError(self._damage)

    def _check_pages(self) -> None:
        """Raise `StorageError` if a damaged page was found.

        Of a file that somebody wrote over, the connection that writes may still know all that it needs. What it wrote
        would be lost with the file.
        """
        if self._damage:
            raise StorageError(self._damage)

    def probe(self, seconds: float) -> None:
        """Write something, and read something of every table."""
        self._check_pages()
        # The little that is written here may still fit where an action does not.
        if not self.alone and shutil.disk_usage(os.path.dirname(self.place) or ".").free < _LEAST_FREE:
            raise StorageError(f"the disk of {self.place} is full")
        with ours():
            usual = self.connection.execute("PRAGMA busy_timeout").fetchone()[0]
            self.connection.execute(f"PRAGMA busy_timeout={min(usual, round(seconds * 1000))}")
            try:
                with transaction(self.connection):
                    # What is written is what stands there, and yet it goes the way of every change, down to the disk.
                    self.connection.execute(f"PRAGMA user_version={len(SQLITE)}")
            finally:
                self.connection.execute(f"PRAGMA busy_timeout={usual}")
        if self.alone:
            return
        # Other connections read anew after a change: they see a file that somebody wrote over.
        with self.reading() as reader:
            for (name,) in reader.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
                reader.rows(f'SELECT 1 FROM "{name}" LIMIT 1')  # noqa: S608 - of our own schema

    def damage(self) -> str:
        """Say what is wrong with the pages; that takes about a second for each gigabyte or less."""
        with contextlib.ExitStack() as stack:
            reader = self.writer if self.alone else stack.enter_context(self.reading())
            found = " ".join(str(reader.rows("PRAGMA quick_check(1)")[0][0]).split())
        return "" if found == "ok" else found

    def misfits(self, reader: Reader, *, all_tables: bool = True) -> Iterator[Misfit]:
        """Yield values of other types than their columns'."""
        return misfits(reader, version=reader.rows("PRAGMA user_version")[0][0], all_tables=all_tables)

    def advice(self) -> str:
        """Say what to do about a damaged file."""
        return (
            "Put a backup in its place with `authority restore` (`authority backup` makes them); what the damaged one "
            "still holds tell `audit verify` and `audit export`"
        )

    def version(self) -> int:
        """Return the version of the tables."""
        return int(self.writer.rows("PRAGMA user_version")[0][0])

    def last_numbers(self, reader: Reader) -> dict[str, int]:
        """Return the last number that was given in each table."""
        return {row["name"]: row["seq"] for row in reader.rows("SELECT name, seq FROM sqlite_sequence")}

    def backup(self, target: str | Path) -> int:
        """Copy the file while it is in use."""
        place = Path(target)
        if place.exists():
            raise AscendError(f"{place} exists already; it was not touched")
        try:
            with making(place) as partial:
                os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
                    self._copy_to(copy)
                    copy.execute("PRAGMA journal_mode=DELETE")  # one file, without side files
                    found = copy.execute("PRAGMA integrity_check").fetchone()[0]
                    if found != "ok":
                        raise AscendError(f"the copy of {self.place} is not sound: {found}")
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
                os.link(partial, place)  # unlike a rename, never over a file that has come meanwhile
                sync_folder(place.parent)
                return place.stat().st_size
        except FileExistsError:
            raise AscendError(f"{place} exists already; it was not touched") from None
        except (OSError, *ERRORS, StorageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AscendError(f"the backup {place} cannot be written: {reason}") from None

    def _copy_to(self, copy: sqlite3.Connection) -> None:
        if self.alone:
            self.connection.backup(copy)
            return
        source = self._borrow()
        try:
            source.backup(copy)
        finally:
            source.close()


class _SQLiteReader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except ERRORS as error:
            raise told(error) from error

    def each(self, statement: str, values: Sequence[object] = ()) -> Generator[Row, None, None]:
        with ours():
            yield from self._connection.execute(statement, values)


class _SQLiteWriter(_SQLiteReader):
    """Reads on the connection that writes, also by a statement that changes something and returns what it changed."""

    def __init__(self, engine: SQLiteEngine) -> None:
        super().__init__(engine.connection)
        self._engine = engine

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        if not statement.startswith("SELECT"):
            with ours():
                self._engine.before_change()
        return super().rows(statement, values)


class _SQLiteWatch:
    def __init__(self, connection: sqlite3.Connection, statement: str, *, own: bool) -> None:
        self._connection = connection
        self._statement = statement
        self._own = own
        self._closed = False
        # SQLite crashes the process if a connection is closed while another thread is using it.
        self._lock = threading.Lock()
        self._seen = -1

    def changed(self) -> bool:
        with self._lock, ours():
            if self._closed:
                return False
            seen = int(self._connection.execute(self._statement).fetchone()[0])
            changed, self._seen = seen != self._seen, seen
            return changed

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._own:
                self._connection.close()


def _is_over() -> bool:
    """Say whether what reads has read for too long, after what is more urgent."""
    give_way()
    return (seconds_left() or 0) < 0


def _identity(name: str, *, may_be_empty: bool) -> tuple[int, int, bool] | None:
    try:
        place = os.stat(name)
    except OSError:
        return None
    return place.st_dev, place.st_ino, may_be_empty or place.st_size > 0
