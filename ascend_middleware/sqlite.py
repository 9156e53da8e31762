"""The one place that opens SQLite: durable, shared by processes, migrated by `user_version`."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ERRORS", "MEMORY", "open_database", "open_evidence", "open_reader", "transaction"]

MEMORY: Final = ":memory:"
# SQLite quotes a damaged schema in its messages, and Python does not read those that are no text.
ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)

# The switch to WAL answers "locked" at once, whatever the busy timeout, when two processes open a new file together.
_WAL_ATTEMPTS: Final = 100
_WAL_PAUSE: Final = 0.02


class _Connection(sqlite3.Connection):
    """Closes itself once nothing holds it, without a warning."""

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.close()


def open_database(
    path: str | Path,
    *,
    migrations: Sequence[Sequence[str]],
    busy_timeout: float = 5.0,
    synchronous: str = "FULL",
    create: bool = True,
) -> sqlite3.Connection:
    """Open a database, create it if need be, and bring its schema up to date.

    The connection is in autocommit mode (use `transaction`) and may be used from any thread under the caller's lock.
    Never carry it across a fork. `migrations` are the statements of each schema version, oldest first; `user_version`
    counts those applied. `synchronous` FULL survives a power cut, NORMAL the end of the process.

    Raises:
        ConfigurationError: the file cannot be opened, is no database, or was made by a newer version.
    """
    place = str(path)
    if place != MEMORY:
        _prepare_file(Path(place), create=create)
    connection: sqlite3.Connection | None = None
    try:
        connection = _connect(place, busy_timeout)
        if place != MEMORY:
            # Before anything that would change the file.
            if _refuse_others(connection, migrations, place) == len(migrations):
                _check_schema(connection, migrations, place)
            _use_wal(connection)
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        _migrate(connection, migrations, place)
        _check_schema(connection, migrations, place)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, ERRORS):
            raise ConfigurationError(f"the database {place} cannot be opened: {error}") from None
        raise
    connection.row_factory = sqlite3.Row
    return connection


def open_reader(path: str | Path, *, busy_timeout: float = 5.0, uri: bool = False) -> sqlite3.Connection:
    """Open one more connection to a database that `open_database` has opened, one that only reads."""
    connection = _connect(str(path), busy_timeout, uri=uri)
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def open_evidence(path: str | Path, *, oldest: int, newest: int) -> sqlite3.Connection:
    """Open a database without changing anything of it, also where nothing can be written.

    Raises:
        ConfigurationError: there is no such file, it is no database, or its schema has another version.
    """
    place = Path(path)
    if not place.exists():
        raise ConfigurationError(f"there is no database {place}")
    url = place.absolute().as_uri()
    try:
        try:
            connection = open_reader(f"{url}?mode=ro", uri=True)
        except sqlite3.OperationalError:
            # Where nothing can be written, nobody can make the side files that even a reader needs. Without them a
            # file is whole only if no write-ahead log stands beside it.
            log = place.with_name(f"{place.name}-wal")
            if log.exists() and log.stat().st_size:
                raise
            connection = open_reader(f"{url}?mode=ro&immutable=1", uri=True)
    except ERRORS as error:
        raise ConfigurationError(f"the database {place} cannot be read: {error}") from None
    found = _version(connection)
    if not oldest <= found <= newest:
        connection.close()
        older = "an older version of this package; start the authority on it once"
        raise ConfigurationError(f"the database {place} was made by {older if found < oldest else 'a newer version'}")
    return connection


def _connect(place: str, busy_timeout: float, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        place, timeout=busy_timeout, isolation_level=None, check_same_thread=False, uri=uri, factory=_Connection
    )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block as one transaction that holds the write lock from its start; roll back if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT (disk full) may leave the transaction open or may have closed it.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _prepare_file(path: Path, *, create: bool) -> None:
    """Make the file readable by its owner only; its side files inherit that.

    A file that cannot be written is refused here: SQLite opens it all the same, and each change fails later.
    """
    if path.is_dir():
        raise ConfigurationError(f"the database {path} is a folder; name a file in it")
    if path.exists():
        for needed in (path, path.parent):  # the side files stand in the directory
            if not os.access(needed, os.W_OK):
                raise ConfigurationError(
                    f"the database {path} cannot be used: {needed} cannot be written; it belongs to another user, or "
                    "its file system is mounted read-only"
                )
        return
    if not create:
        raise ConfigurationError(f"there is no database {path}")
    if not path.parent.exists():
        raise ConfigurationError(
            f"the database {path} cannot be created: there is no folder {path.parent}; make it first"
        )
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigurationError(f"the database {path} cannot be created: {error.strerror}") from None


def _use_wal(connection: sqlite3.Connection) -> None:
    for attempt in range(_WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(_WAL_PAUSE)


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], place: str) -> None:
    if _version(connection) == len(migrations):
        return
    with transaction(connection):
        version = _refuse_others(connection, migrations, place)  # another process may have migrated meanwhile
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(migrations)}")


def _refuse_others(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], place: str) -> int:
    """Return the version of the tables, 0 where there are none; refuse other programs'."""
    # In one statement, and so of one moment: another process may be making the tables.
    version, tables = connection.execute(
        "SELECT (SELECT user_version FROM pragma_user_version), "
        "(SELECT count(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite%')"
    ).fetchone()
    if version == 0 and tables:
        raise ConfigurationError(f"the database {place} is another program's; it was not touched")
    if version > len(migrations):
        raise ConfigurationError(f"the database {place} was made by a newer version of this package; upgrade")
    return int(version)


@functools.cache
def _schema(migrations: Sequence[Sequence[str]]) -> frozenset[str]:
    connection = _connect(MEMORY, 0.0)
    for statement in itertools.chain(*migrations):
        connection.execute(statement)
    return _names(connection)


def _names(connection: sqlite3.Connection) -> frozenset[str]:
    rows = connection.execute("SELECT type || ' ' || name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")
    return frozenset(row[0] for row in rows)


def _check_schema(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]], place: str) -> None:
    missing = sorted(_schema(tuple(map(tuple, migrations))) - _names(connection))
    if missing:
        raise ConfigurationError(
            f"the database {place} is damaged, or another program's: it has no {', '.join(missing[:5])}; put a backup "
            "in its place, or name another file"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
