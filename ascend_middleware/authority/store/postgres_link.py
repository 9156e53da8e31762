"""Connections to PostgreSQL: what their URL says, what is wrong with one, and statements that travel together."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import psycopg
import psycopg.conninfo
from psycopg.pq import TransactionStatus

from ascend_middleware.exceptions import ConfigurationError

from .engine import Reader, Row, StorageError, UnreachableError, check_storable
from .patience import TooLongError, seconds_left

__all__ = ["Connection", "Late", "Link", "Session", "SessionReader", "ours"]

Connection: TypeAlias = "psycopg.Connection[Row]"

# Seconds until a connection attempt is given up, unless the URL says otherwise.
_CONNECT: Final = 5
# So that a connection whose other end went away without a word is noticed; seconds, and the last in milliseconds.
_ALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_OLDEST: Final = 140_000
# Rows that are fetched at a time.
_AT_ONCE: Final = 1000
# What is queued without an answer to wait for.
_MOST_QUEUED: Final = 500
_LONG: Final = 2000
_CURSORS: Final = ("DECLARE ", "FETCH ", "CLOSE ")


class _Row:
    __slots__ = ("_names", "_values")

    def __init__(self, names: dict[str, int], values: Sequence[Any]) -> None:
        self._names, self._values = names, values

    def __getitem__(self, key: int | str) -> Any:
        return self._values[self._names[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> Iterator[str]:
        return iter(self._names)


def _row_factory(cursor: psycopg.Cursor[Any]) -> Any:
    names = {column.name: number for number, column in enumerate(cursor.description or ())}
    return functools.partial(_Row, names)


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Raise what psycopg raises as `StorageError`."""
    try:
        yield
    except psycopg.Error as error:
        raise _told(error) from error


def _told(error: psycopg.Error) -> StorageError:
    if isinstance(error, psycopg.errors.QueryCanceled):
        return TooLongError("reading took longer than it may")
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return StorageError("another process did not let go of the audit log in time")
    # Details name values; the first line is the message.
    words = error.diag.message_primary or str(error).partition("\n")[0]
    kind = UnreachableError if isinstance(error, psycopg.OperationalError) else StorageError
    return kind(words.strip() or type(error).__name__)


# --- the URL

_URL: Final = re.compile(r"(?s)postgres(?:ql)?://(?:(?P<user>[^/?#@:]*)(?::(?P<password>[^/?#@]*))?@)?(?P<rest>[^@]*)")


@dataclass(frozen=True, slots=True)
class Link:
    """How a database is reached. Neither its text nor its errors hold the password.

    Attributes:
        place: how messages name the database.
        pooled: whether a pooler such as pgbouncer stands between, where a session is none for long.
    """

    place: str
    pooled: bool = False
    _parameters: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str) -> Link:
        """Read a URL; raise `ConfigurationError` if it is none, without repeating it."""
        # libpq would take a part of a password with a bare @, / or # for the host, and tell it to everybody.
        found = _URL.fullmatch(url)
        try:
            parameters = psycopg.conninfo.conninfo_to_dict(url) if found else {}
        except psycopg.Error:
            found = None
        if found is None:
            raise ConfigurationError(
                "the URL of the database cannot be read; expected postgresql://user@host/name, in which special "
                "characters of a password are written as %40 for @; a password is better kept in PGPASSWORD or a "
                "password file"
            )
        address = found["rest"].partition("?")[0]
        user = f"{unquote(found['user'])}@" if found["user"] else ""
        return cls(f"postgresql://{user}{address}", False, {**_ALIVE, "connect_timeout": _CONNECT, **parameters})

    def through_pooler(self) -> Link:
        """Return the same, with a pooler between."""
        return Link(self.place, True, self._parameters)

    @property
    def options(self) -> dict[str, Any]:
        """What a pool needs to make connections of this kind."""
        # A statement that was prepared in one session of a pooler is not there in the next.
        more: dict[str, Any] = {"prepare_threshold": None} if self.pooled else {}
        made = {"autocommit": True, "row_factory": _row_factory, "cursor_factory": psycopg.RawCursor}
        return {"application_name": "ascend-middleware", **self._parameters, **made, **more}

    def connect(self) -> Connection:
        """Return a new connection, which commits each statement unless told otherwise."""
        with ours():
            connection: Connection = psycopg.connect(**self.options)
            return connection

    def opened(self) -> tuple[Link, Connection]:
        """Connect for the first time, and see what is there; return the link as it turned out to be.

        Raises:
            ConfigurationError: the server cannot be reached, refuses, is too old, or the database cannot be used.
        """
        try:
            connection = Link(self.place, True, self._parameters).connect()
        except StorageError as error:
            cause = error.__cause__
            raise ConfigurationError(f"the database {self.place} cannot be opened: {_reason(cause)}") from None
        try:
            with ours():
                said = connection.execute(
                    b"SELECT pg_backend_pid(), current_setting('server_version_num')::int,"
                    b" current_setting('server_encoding'), current_setting('synchronous_commit'),"
                    b" current_setting('server_version')"
                ).fetchall()[0]
            pid, version, encoding, commits, shown = said
            if version < _OLDEST:
                raise ConfigurationError(
                    f"the database {self.place} is PostgreSQL {shown}; this needs {_OLDEST // 10_000} or newer"
                )
            if encoding != "UTF8":
                raise ConfigurationError(
                    f"the database {self.place} keeps its texts in {encoding}; make one with: "
                    "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
                )
            if commits == "off":
                raise ConfigurationError(
                    f"synchronous_commit is off for the database {self.place}: what was acknowledged could be lost; "
                    "leave it on"
                )
            # A pooler tells a number of its own.
            if pid != connection.info.backend_pid:
                return self.through_pooler(), connection
        except BaseException as error:
            connection.close()
            if isinstance(error, StorageError):
                raise ConfigurationError(f"the database {self.place} cannot be used: {error}") from None
            raise
        connection.prepare_threshold = 5
        return self, connection


def _reason(error: object) -> str:
    """Return why no connection came to be, in one line; libpq repeats no password."""
    words = str(error).strip().replace("\n", "; ").replace("\t", "")
    return re.sub(r"connection failed: |connection to server at |FATAL: +", "", words)


# --- statements


@functools.lru_cache(maxsize=1024)
def _numbered(statement: str) -> bytes:
    parts = statement.split("?")
    return "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)).encode() + parts[-1].encode()


class Late:
    """A statement whose answer nobody has asked for yet."""

    __slots__ = ("_session", "cursor", "statement", "values")

    def __init__(self, session: Session, statement: str, values: Sequence[object]) -> None:
        self._session, self.statement, self.values = session, statement, values
        self.cursor: psycopg.Cursor[Row] | None = None

    @property
    def rowcount(self) -> int:
        """How many rows it changed; this sends it."""
        return self.answered().rowcount

    def answered(self) -> psycopg.Cursor[Row]:
        """Return its answer."""
        if self.cursor is None:
            self._session.send()
        if self.cursor is None:
            raise StorageError("the statement was taken back")
        return self.cursor


class Session:
    """Statements on one connection: those without an answer to wait for go with the next that has one."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Final = connection
        self.queued: Final[list[Late]] = []
        self._cursors = 0
        self._pipeline: psycopg.Pipeline | None = None
        self._way = contextlib.ExitStack()

    def later(self, statement: str, values: Sequence[object] = ()) -> Late:
        """Queue a statement; what goes wrong with it is raised where the queue is sent."""
        check_storable(values)
        one = Late(self, statement, values)
        self.queued.append(one)
        if len(self.queued) > _MOST_QUEUED:
            self.send()
        return one

    def run(self, statement: str, values: Sequence[object] = ()) -> psycopg.Cursor[Row]:
        """Run a statement after all that is queued, at the price of one round trip, and return its answer."""
        if self.queued or self._pipeline:
            return self.later(statement, values).answered()
        check_storable(values)
        with ours():
            return self._execute(statement, values)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run a statement and return what it selects; nothing if it selects nothing."""
        cursor = self.run(statement, values)
        return cursor.fetchall() if cursor.description else []

    def _execute(self, statement: str, values: Sequence[object]) -> psycopg.Cursor[Row]:
        # Not worth preparing: those with a place for each of many rows, and those about a cursor, which is another one
        # the next time.
        once = len(statement) > _LONG or statement.startswith(_CURSORS)
        query = _numbered.__wrapped__(statement) if once else _numbered(statement)
        return self.connection.execute(query, values, prepare=False if once else None)

    def send(self) -> None:
        """Send what is queued. If one statement fails, those behind it were not run."""
        with ours():
            if self._pipeline is None:
                with self.connection.pipeline():
                    self._send()
                return
            try:
                self._send()
                self._pipeline.sync()
            except psycopg.Error:
                with contextlib.suppress(psycopg.Error):
                    self._pipeline.sync()  # from here on statements are taken again
                raise

    def _send(self) -> None:
        queue = self.queued[:]
        self.queued.clear()
        for one in queue:
            one.cursor = self._execute(one.statement, one.values)

    def begin(self) -> None:
        """Begin a transaction: from here to `end` the connection takes statements without leaving their answers.

        A way into this mode and out of it each time that something is sent would tell the server each time that more
        follows, and a process that then stands still would keep its locks for ever.
        """
        with ours():
            self._pipeline = self._way.enter_context(self.connection.pipeline())

    def end(self) -> None:
        """Send what is queued, and end what `begin` began."""
        self._pipeline = None
        with ours():
            try:
                self._send()
            except psycopg.Error:
                with contextlib.suppress(psycopg.Error):
                    self._way.close()
                raise
            self._way.close()

    @property
    def status(self) -> TransactionStatus:
        """Where the transaction stands."""
        return self.connection.info.transaction_status

    @property
    def broken(self) -> bool:
        """Whether the connection cannot be used any more."""
        return self.connection.closed or self.status == TransactionStatus.UNKNOWN

    def each(self, statement: str, values: Sequence[object]) -> Generator[Row, None, None]:
        """Yield what a statement selects, some rows at a time; only within a transaction."""
        self._cursors += 1
        name = f"each_{self._cursors}"
        self.later(f"DECLARE {name} NO SCROLL CURSOR FOR {statement}", values)
        try:
            while rows := self.run(f"FETCH {_AT_ONCE} FROM {name}").fetchall():
                yield from rows
                if len(rows) < _AT_ONCE:
                    break
        finally:
            if self.status == TransactionStatus.INTRANS:
                self.later(f"CLOSE {name}")


class SessionReader(Reader):
    """Reads on a session, no longer than patience lasts."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return all that a statement selects."""
        self._limit()
        return self._session.rows(statement, values)

    def each(self, statement: str, values: Sequence[object] = ()) -> Generator[Row, None, None]:
        """Yield what a statement selects."""
        self._limit()
        return self._session.each(statement, values)

    def _limit(self) -> None:
        left = seconds_left()
        if left is None:
            return
        if left <= 0:
            raise TooLongError("reading took longer than it may")
        # For this transaction alone: behind a pooler the session is somebody else's afterwards.
        self._session.later(f"SET LOCAL statement_timeout = {max(1, round(left * 1000))}")
