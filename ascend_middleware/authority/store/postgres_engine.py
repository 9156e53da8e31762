"""PostgreSQL: one connection that writes, some that read, and one that hears of what other replicas write."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

from psycopg.pq import TransactionStatus

from ascend_middleware.exceptions import AscendError

from . import postgres_schema
from .engine import Begun, Done, Fleet, Misfit, Reader, Row, StorageError, Watch, check_storable, insertion
from .patience import seconds_left
from .postgres_fleet import PostgresFleet
from .postgres_link import Connection, Late, Link, Session, SessionReader
from .postgres_readers import Readers
from .postgres_watch import CHANNEL, Listener
from .schema import NUMBERS

__all__ = ["PostgresEngine"]

# Connections for reading. What reads much takes two of them at most (see the service), so that some are left for
# whoever signs in or looks at one thing.
_READERS: Final = 8
# Seconds to wait for one.
_WAIT: Final = 5.0
# PostgreSQL takes so many values in a statement.
_MOST_VALUES: Final = 65_535
# Milliseconds to wait for another replica's group, and after which PostgreSQL ends ours if this process stands still:
# others must not wait for it for ever.
_LIMITS: Final = (
    "SELECT set_config('lock_timeout', '5000', true), set_config('idle_in_transaction_session_timeout', '10000', true)"
)

_statement = functools.cache(insertion)


class PostgresEngine:
    """A database that several replicas use at the same time; see `Engine`.

    A group begins with the lock on the audit log's head. Whoever holds it is the only one that changes anything, as
    SQLite's writer is: what was read stays true until the group's end.
    """

    alone: Final = False

    def __init__(self, link: Link, connection: Connection, *, direct: Link | None = None) -> None:
        """Use a first connection for writing.

        Args:
            link: how others are made.
            connection: the first one.
            direct: a way to the same database without a pooler, to hear of changes.

        Attributes:
            link: how others are made.
            within: whether a transaction was begun and not ended.
        """
        self.link: Final = link
        self.place: Final = link.place
        self._session: Session | None = Session(connection)
        self.writer: Final[Reader] = _Writer(self)
        self._parts = 0
        self._savepoint: Late | None = None
        self.within = self._lost = self._closed = False
        self._readers = Readers(link, _READERS)
        self.listener: Final = Listener(direct or link)
        self.fleet: Final[Fleet] = PostgresFleet(self._readers, _WAIT)

    @classmethod
    def open(cls, url: str, *, create: bool = True, direct: str = "") -> PostgresEngine:
        """Open a database and bring its tables up to date, or make them; `ConfigurationError` if it cannot be used."""
        link, connection = Link.parse(url).opened()
        try:
            postgres_schema.migrate(connection, link.place, create=create)
            return cls(link, connection, direct=Link.parse(direct) if direct else None)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def evidence(cls, url: str) -> PostgresEngine:
        """Open a database only to read it; raise `ConfigurationError` if this version knows no such tables."""
        link, connection = Link.parse(url).opened()
        try:
            postgres_schema.known(connection, link.place)
            return cls(link, connection)
        except BaseException:
            connection.close()
            raise

    def close_writer(self) -> None:
        """Close the connection that writes."""
        session, self._session, self._closed = self._session, None, True
        if session is not None:
            session.connection.close()

    def close_readers(self) -> None:
        """Close all others."""
        self.listener.close()
        self._readers.close()

    # --- one transaction

    def begin(self) -> Begun:
        """Take the lock on the audit log's head."""
        for attempt in (1, 2):
            session = self.session()
            try:
                session.begin()
                session.later("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
                session.later(_LIMITS)
                locked = session.later("SELECT seq, hash FROM audit_head FOR UPDATE")
                # Statements of their own: the one before may have waited, and sees nothing of what happened meanwhile.
                numbered = session.later("SELECT last_value, is_called FROM actions_id_seq")
                revision = session.run("SELECT n FROM revision").fetchall()
                head, (last, given) = locked.answered().fetchall(), numbered.answered().fetchall()[0]
                break
            except StorageError:
                lost = session.broken
                self.rollback()
                # The server was started anew since the last group; nothing is lost by asking again.
                if not lost or attempt == 2:
                    raise
        if not head or not revision:
            self.rollback()
            raise StorageError("the record of the audit log's last entry is missing")
        self.within, self._lost = True, False
        return Begun((head[0][0], head[0][1]), revision[0][0], last if given else 0)

    def session(self) -> Session:
        """Return the session that writes, with a new connection if the last one is lost."""
        if self._closed:
            raise StorageError("the database is closed")
        if self._session is None or (self._session.broken and not self.within):
            if self._session is not None:
                self._session.connection.close()
                self._session = None
            self._session = Session(self.link.connect())
        return self._session

    @property
    def in_transaction(self) -> bool:
        """Whether it is still there."""
        return self.within and not self._lost and self._session is not None and not self._session.broken

    def mark(self) -> None:
        """Begin a part; the savepoint goes with its first statement."""
        self._parts += 1
        self._savepoint = self.session().later(f"SAVEPOINT part_{self._parts}")

    def release(self) -> None:
        """Keep the part."""
        session = self.session()
        if session.queued and session.queued[-1] is self._savepoint:
            session.queued.pop()  # nothing came after it
        else:
            session.later(f"RELEASE part_{self._parts}")

    def undo(self) -> None:
        """Take the part back."""
        session = self.session()
        if self._savepoint in session.queued:
            del session.queued[session.queued.index(self._savepoint) :]  # nothing of it was sent
            return
        session.queued.clear()
        try:
            session.later(f"ROLLBACK TO part_{self._parts}")
            session.later(f"RELEASE part_{self._parts}")
            session.send()
        except StorageError:
            # A statement of an earlier part had failed, which nobody had waited for.
            self._lost = True

    def commit(self, tip: tuple[int, str] | None) -> None:
        """Keep everything, and tell other replicas."""
        session = self.session()
        if tip is not None:
            session.later("UPDATE audit_head SET seq = ?, hash = ?", tip)
            session.later(f"NOTIFY {CHANNEL}")
        ended = session.later("COMMIT")
        self.within = False
        session.end()
        if ended.answered().statusmessage != "COMMIT":
            raise StorageError("the database undid the whole transaction")
        if tip is not None:
            self.listener.tell()

    def rollback(self) -> None:
        """Take everything back."""
        self.within = False
        session = self._session
        if session is None:
            return
        session.queued.clear()
        with contextlib.suppress(StorageError):
            session.end()
            if session.status != TransactionStatus.IDLE:
                session.run("ROLLBACK")
        if session.broken or session.status != TransactionStatus.IDLE:
            session.connection.close()
            self._session = None

    def execute(self, statement: str, values: Sequence[object] = ()) -> Done:
        """Run one statement by the group's end, or as soon as somebody wants to know what came of it."""
        return self.session().later(statement, values)

    def insert(self, table: str, columns: tuple[str, ...], values: Sequence[object], *, once: bool) -> int:
        """Add a row and return its number."""
        number = NUMBERS.get(table)
        statement = _statement(table, columns, once=once)
        if number is None:
            self.session().run(statement, values)
            return 0
        rows = self.session().run(f"{statement} RETURNING {number}", values).fetchall()
        if rows and number in columns:
            # The next one that is given must not be one that was named.
            self.session().later(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{number}'), max({number})) FROM {table}"  # noqa: S608 - names are ours
            )
        return int(rows[0][0]) if rows else 0

    def insert_many(self, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
        """Add rows by the group's end."""
        most = _MOST_VALUES // len(columns)
        place = f"({', '.join('?' * len(columns))})"
        for first in range(0, len(rows), most):
            some = rows[first : first + most]
            places = ", ".join([place] * len(some))
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {places}"  # noqa: S608 - names are ours
            self.session().later(statement, [value for row in some for value in row])
        if (number := NUMBERS.get(table)) in columns:
            # The numbers ascend.
            self.session().later(f"SELECT setval('{table}_{number}_seq', ?)", (rows[-1][columns.index(number)],))

    check = staticmethod(check_storable)

    # --- reading

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Lend a connection for reading."""
        with self._reading("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY") as reader:
            yield reader

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Lend a connection on which all statements see the same state."""
        with self._reading("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as reader:
            yield reader

    @contextlib.contextmanager
    def _reading(self, begin: str) -> Iterator[Reader]:
        left = seconds_left()
        with self._readers.lend(_WAIT if left is None else min(left, _WAIT)) as connection:
            session = Session(connection)
            session.later(begin)
            yield SessionReader(session)

    def watch(self) -> Watch:
        """Return a watch."""
        return self.listener.watch()

    # --- the whole

    def probe(self, seconds: float) -> None:
        """Write what stands there already."""
        session = self.session()
        try:
            session.later("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            session.later(f"SET LOCAL lock_timeout = {round(seconds * 1000)}")
            session.later("UPDATE ascend_schema SET version = version")
            session.run("COMMIT")
        except StorageError:
            self.rollback()
            raise

    def damage(self) -> str:
        """Say nothing: PostgreSQL looks after its own pages."""
        return ""

    def misfits(self, reader: Reader, *, all_tables: bool = True) -> Iterator[Misfit]:
        """Yield nothing: PostgreSQL keeps the types of its columns."""
        return iter(())

    def advice(self) -> str:
        """Say what to do about a damaged database."""
        return (
            "Restore a backup of PostgreSQL, as a database of its own; what this one still holds tell `audit verify` "
            "and `audit export`"
        )

    def version(self) -> int:
        """Return the version of the tables."""
        return int(self.writer.rows("SELECT version FROM ascend_schema")[0][0])

    def last_numbers(self, reader: Reader) -> dict[str, int]:
        """Return the last number that was given in each table."""
        found = {
            table: reader.rows(f"SELECT last_value, is_called FROM {table}_{number}_seq")[0]  # noqa: S608 - ours
            for table, number in NUMBERS.items()
        }
        return {table: int(row["last_value"]) for table, row in found.items() if row["is_called"]}

    def backup(self, target: str | Path) -> int:
        """Refuse: PostgreSQL has better ways."""
        raise AscendError(
            f"{self.place} is backed up by PostgreSQL's own means, pg_dump or a base backup with its log; `authority "
            "copy` writes it to a file"
        )


class _Writer(Reader):
    """Reads on the connection that writes."""

    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return all that a statement selects."""
        session = self._engine.session()
        try:
            return session.rows(statement, values)
        except StorageError:
            if self._engine.within or not session.broken:
                raise
        return self._engine.session().rows(statement, values)

    def each(self, statement: str, values: Sequence[object] = ()) -> Generator[Row, None, None]:
        """Yield what a statement selects."""
        if self._engine.within:
            yield from self._engine.session().each(statement, values)
        else:
            yield from self.rows(statement, values)
