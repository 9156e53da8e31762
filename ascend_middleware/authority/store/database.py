"""One writer and many readers on one database; what belongs to one request is stored whole or not at all.

What kind of database it is, SQLite or PostgreSQL, only the engines know: whoever stands above catches `StorageError`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.text import is_postgres

from .engine import NO_HASH, Done, Engine, Reader, Row, StorageError, UnreachableError, UnstorableError, Watch
from .sqlite_engine import SQLiteEngine
from .tallies import Counted, additions
from .transaction import Late, Mark, Transaction

if TYPE_CHECKING:
    from .postgres_engine import PostgresEngine

__all__ = [
    "Database",
    "Reader",
    "Row",
    "StorageError",
    "UnstorableError",
    "Watch",
    "open_engine",
    "postgres_engine",
]

# The environment variable with a URL of the same database that leads around a pooler.
DIRECT: Final = "ASCEND_AUTHORITY_DB_DIRECT"
_EXTRA: Final = "install the extra ascend-middleware[postgres]"
# Seconds for which a look at the database waits for whoever is writing.
_LOOK: Final = 1.0
_MAX_CACHED: Final = 10_000
_JOINED: Final = contextlib.nullcontext()
_Value = TypeVar("_Value")


def open_engine(place: str | Path, *, create: bool = True) -> Engine:
    """Open the database of a file's path or of a URL, or make it; raise `ConfigurationError` if it cannot be used."""
    if is_postgres(str(place)):
        return postgres_engine().open(str(place), create=create, direct=os.environ.get(DIRECT, ""))
    return SQLiteEngine.open(place, create=create)


def postgres_engine() -> type[PostgresEngine]:
    """Return what speaks with PostgreSQL; raise `ConfigurationError` if its extra is missing."""
    try:
        import psycopg  # noqa: F401 - tells a missing extra from a broken package
    except ImportError as error:
        what = "no libpq is installed: install it, or psycopg[binary]" if "libpq" in str(error) else _EXTRA
        raise ConfigurationError(f"a postgresql: database needs psycopg: {what}") from None
    from .postgres_engine import PostgresEngine

    return PostgresEngine


class _Part:
    """A part of a group, which stands or falls alone."""

    __slots__ = ("_database", "_mark")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._mark = self._database._begin_part()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database._end_part(self._mark, undone=kind is not None)


class Database:
    """The authority's database: one connection that writes, under a lock, and others that only read.

    Every change happens within `write()`, and what must stand or fall together within the same one. Other processes
    may use the database at the same time; the engine keeps them apart.
    """

    def __init__(self, engine: Engine, *, now: Callable[[], float] = time.time) -> None:
        self.engine: Final = engine
        self.now = now
        self._lock = threading.RLock()
        self._owner: int | None = None  # the thread that is within `write` or `group`
        self._inside = False  # within `write`
        self._transaction: Transaction | None = None
        self._cache_lock = threading.Lock()
        self._revision = -1
        self._cached: dict[Hashable, Any] = {}

    @classmethod
    @contextlib.contextmanager
    def evidence(cls, place: str | Path) -> Iterator[Database]:
        """Open a database only to read it; raise `ConfigurationError` if this version knows no such database."""
        kind = postgres_engine() if is_postgres(str(place)) else SQLiteEngine
        with contextlib.closing(Database(kind.evidence(str(place)))) as database:
            yield database

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self.engine.close_writer()
        self.engine.close_readers()

    # --- writing

    def write(self) -> AbstractContextManager[None]:
        """Run the block as one durable transaction; within another one, join it.

        Within `group` it is a part that stands or falls alone, and durable once the group is.
        """
        if self._owner != threading.get_ident():
            return self._alone()
        return _JOINED if self._inside else _Part(self)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self.group(), _Part(self):
            yield

    def _begin_part(self) -> Mark:
        mark = self._begun().mark()
        self.engine.mark()
        self._inside = True
        return mark

    def _begun(self) -> Transaction:
        if self._transaction is None:
            begun = self.engine.begin()
            self._transaction = Transaction({"revision": begun.revision}, begun.head, begun.action)
        self._check_whole()
        return self._transaction

    def _end_part(self, mark: Mark, *, undone: bool) -> None:
        try:
            if undone:
                self._undo(mark)
                return
            try:
                self.seal(end=True)
                self.engine.release()
            except BaseException:
                self._undo(mark)
                raise
        finally:
            self._inside = False

    def _undo(self, mark: Mark) -> None:
        if self.engine.in_transaction:
            self.engine.undo()
        self._running().undo(mark)

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
                    self._write_late(done)
                    for statement, values in additions(done.counted):
                        self.engine.execute(statement, values)
                    self.engine.commit(done.tip)
            except BaseException:
                self.engine.rollback()
                raise
            finally:
                self._owner = self._transaction = None
            for notice in done.notices if done is not None else ():
                notice()

    def _check_whole(self) -> None:
        # A full disk may have ended the transaction and undone what earlier parts were told is kept.
        if not self.engine.in_transaction:
            raise StorageError("the database undid the whole transaction")

    @property
    def memo(self) -> dict[Hashable, Any] | None:
        """What was read in the running transaction, in which nobody else changes anything; None outside of one.

        Whoever changes what is kept there removes it.
        """
        return self._transaction.memo if self._transaction and self._owner == threading.get_ident() else None

    def changed(self) -> None:
        """Say that a record or a command changes, only within `write`: what is `cached` of them is old."""
        self._running().memo.clear()

    def cached(self, key: Hashable, load: Callable[[], _Value]) -> _Value:
        """Return what `load` gave for a key, until any record or command changes, in whatever process."""
        memo = self.memo
        if memo is None:
            return self._cached_at(self.revision(), key, load)
        if key not in memo:
            memo[key] = self._cached_at(self.revision(), key, load)
        found: _Value = memo[key]
        return found

    def _cached_at(self, revision: int, key: Hashable, load: Callable[[], _Value]) -> _Value:
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

    def revision(self) -> int:
        """Return a number that is another one after each change of a record or a command, in whatever process."""
        # Read once in a transaction, where nobody else can change anything.
        memo = self.memo
        revision: int | None = None if memo is None else memo.get("revision")
        if revision is None:
            revision = int(self.rows("SELECT n FROM revision")[0][0])
            if memo is not None:
                memo["revision"] = revision
        return revision

    def seal(self, *, end: bool = False) -> None:
        """Write the audit entry that is held open in the running transaction, if one is; `end` of what is one part."""

    def told(self, table: str, number: object, **columns: object) -> None:
        """Have the audit log tell what stands in a row from now on; only within `write`. `gone`: it is removed."""
        self._running().stored.append({"table": table, "id": number, **columns})

    def tip(self) -> tuple[int, str]:
        """Return number and hash of the audit log's last entry, as the running transaction sees it."""
        running = self._transaction if self._owner == threading.get_ident() else None
        known = running and (running.tip or running.head)
        if known:
            return known
        row = self.rows("SELECT seq, hash FROM audit_head")[0]
        return int(row["seq"]), str(row["hash"])

    def advance(self, seq: int, digest: str) -> None:
        """Note the audit log's new last entry; it is stored with the transaction."""
        running = self._running()
        running.tip, running.logged = (seq, digest), True

    def count(self, counted: Counted) -> None:
        """Add an action to the counts that are kept, at the transaction's end."""
        self._running().counted.append(counted)

    def after_commit(self, notice: Callable[[], None]) -> None:
        """Call `notice` once what is being written is durable, and never if it is undone; it must be quick."""
        self._running().notices.append(notice)

    def execute(self, statement: str, values: Sequence[object] = ()) -> Done:
        """Run one statement that changes something; only within `write`."""
        running = self._running()
        if running.late:
            self._write_late(running, statement)
        for table, rows in running.known.items():
            if table in statement:
                rows.clear()
        return self.engine.execute(statement, values)

    def insert(self, table: str, row: Mapping[str, object], *, once: bool = False) -> int:
        """Add a row and return its number; only within `write`. `once`: unless there is one of its key."""
        self._running()
        return self.engine.insert(table, tuple(row), tuple(row.values()), once=once)

    def insert_late(self, table: str, row: Mapping[str, object], *, key: Hashable = None) -> None:
        """Add a row by the transaction's end, in one statement with others of its table; only within `write`.

        `rows` sees it at once, unless it is asked for what is `settled`; under `key` it is `known`.
        """
        running, place, values = self._running(), (table, tuple(row)), tuple(row.values())
        self.engine.check(values)  # at the end, the whole group would fall
        late = running.late.get(place)
        if late is None:
            late = running.late[place] = Late()
        if key is not None:
            running.note(table, key, row)
        late.rows.append(values)

    def insert_action(self, row: Mapping[str, object]) -> int:
        """Add an action like `insert_late`, and return its number: nobody else gives one in this transaction."""
        running = self._running()
        running.action += 1
        self.insert_late("actions", {"id": running.action, **row})
        return running.action

    def _write_late(self, running: Transaction, statement: str | None = None) -> None:
        """Add the rows that wait, or only those of tables that a statement reads."""
        for (table, columns), one in running.late.items():
            if len(one.rows) > one.added and (statement is None or table in statement):
                self.engine.insert_many(table, columns, one.rows[one.added :])
                one.added = len(one.rows)

    def _running(self) -> Transaction:
        if self._transaction is None or self._owner != threading.get_ident():
            raise RuntimeError("changes happen within write()")
        return self._transaction

    # --- reading

    def rows(self, statement: str, values: Sequence[object] = (), *, settled: bool = False) -> list[Row]:
        """Return what a statement selects: within `write` as it sees it, else as it was last committed.

        Within `write` the statement may also be one that changes something and ends with RETURNING. `settled` leaves
        out what is held back.
        """
        if self._owner == threading.get_ident():
            if self._transaction is not None:
                if self._transaction.entry is not None and "audit" in statement:
                    self.seal()
                if not settled and self._transaction.late:
                    self._write_late(self._transaction, statement)
            return self.engine.writer.rows(statement, values)
        with self.reading() as reader:
            return reader.rows(statement, values)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Lend a connection for reading; several statements on it may see different states, see `snapshot`."""
        with self._lent(self.engine.reading) as reader:
            yield reader

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Lend a connection on which all statements see the same state."""
        with self._lent(self.engine.snapshot) as reader:
            yield reader

    @contextlib.contextmanager
    def _lent(self, lend: Callable[[], AbstractContextManager[Reader]]) -> Iterator[Reader]:
        if self._owner == threading.get_ident():
            if self._transaction is not None:
                self.seal()
                self._write_late(self._transaction)
            yield self.engine.writer
        elif self.engine.alone:
            with self._lock:
                yield self.engine.writer
        else:
            with lend() as reader:
                yield reader

    def probe(self) -> None:
        """Read something and write something, so that a database that cannot be used raises `StorageError`."""
        self.rows("SELECT seq FROM audit_head")
        if not self._lock.acquire(timeout=_LOOK):
            raise StorageError(f"nothing could be written for {_LOOK:g} s")
        try:
            self.engine.probe(_LOOK)
        finally:
            self._lock.release()

    def check(self, *, pages: bool = False) -> None:
        """Raise `ConfigurationError` unless the log ends where its head says and values have their columns' types.

        With `pages` also unless all pages are sound, and the types are looked at in the large tables too. That takes
        about a second for each gigabyte or less.
        """
        try:
            problem = (self.engine.damage() if pages else "") or self.misfit(all_tables=pages) or self.end_problem()
        except UnreachableError as error:
            raise ConfigurationError(f"the database {self.engine.place} cannot be used: {error}") from None
        except StorageError as error:
            problem = str(error)
        self._refuse(problem)

    @contextlib.contextmanager
    def typed(self) -> Iterator[None]:
        """Tell of a value that has not its column's type, where one is why the block fails.

        Looking for one takes some seconds if there are a million actions, so nobody looks before.

        Raises:
            ConfigurationError: there is such a value, in small tables also if the block does not fail.
        """
        self._refuse(self.misfit(all_tables=False))
        try:
            yield
        except AscendError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError):
            self._refuse(self.misfit())
            raise

    def _refuse(self, problem: str) -> None:
        if problem:
            raise ConfigurationError(f"the database {self.engine.place} is damaged: {problem}. {self.engine.advice()}")

    def misfit(self, *, all_tables: bool = True) -> str:
        """Return in words which value is not of its column's type, or nothing if none is; see `Engine.misfits`."""
        with self.snapshot() as reader:
            return next((one.message for one in self.engine.misfits(reader, all_tables=all_tables)), "")

    def end_problem(self) -> str:
        """Return in words that the audit log does not end where its head says, or nothing if it does."""
        with self.snapshot() as reader:
            last = reader.rows("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
            head = reader.rows("SELECT seq, hash FROM audit_head")
        fits = head and tuple(head[0]) == (tuple(last[0]) if last else (0, NO_HASH))
        return "" if fits else "the audit log does not end where its head says"

    def watch(self) -> Watch:
        """Return a watch that tells whether anything was stored since it last looked, by whatever process."""
        return self.engine.watch()

    def backup(self, target: str | Path) -> int:
        """Copy the database to a new file while it is in use, and return the copy's size in bytes.

        The copy is one consistent state, is checked, and appears under its name only when it is whole.

        Raises:
            AscendError: the file exists already, cannot be written, or the copy is not sound.
        """
        return self.engine.backup(target)
