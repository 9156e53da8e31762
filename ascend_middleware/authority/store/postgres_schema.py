"""The tables in PostgreSQL: made, brought up to date by one replica at a time, and looked at."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from ascend_middleware.exceptions import ConfigurationError

from .engine import StorageError
from .postgres_link import Connection, ours
from .schema import FIRST_WITH_HEAD, POSTGRES

__all__ = ["check_empty", "known", "lock", "mark", "migrate", "unmark"]

# Any number that no other program is likely to lock by.
_LOCK: Final = 0x617363656E64
_MADE: Final = re.compile(r"CREATE (?:UNIQUE |UNLOGGED )?(TABLE|INDEX|TRIGGER) (\w+)")
_DROPPED: Final = re.compile(r"DROP (TABLE|INDEX|TRIGGER) (\w+)")
_NAMES: Final = (
    b"SELECT lower(CASE relkind WHEN 'i' THEN 'index' ELSE 'table' END), relname FROM pg_class"
    b" WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'i')"
    b" UNION ALL SELECT 'trigger', tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
    b" WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal"
)
_VERSION: Final = b"SELECT version FROM ascend_schema"
# Stands there from a copy's begin to its end, so that nobody serves what is not whole.
_MARK: Final = "ascend_copy"


def migrate(connection: Connection, place: str, *, create: bool) -> None:
    """Bring the tables up to date, or make them.

    Raises:
        ConfigurationError: they are another program's, of a newer version, or incomplete; or the user may not make any.
    """
    with _preparing(connection, place):
        version = _version(connection, place)
        if version > len(POSTGRES):
            raise ConfigurationError(f"the database {place} was made by a newer version of this package; upgrade")
        if version == 0 and not create:
            raise ConfigurationError(f"there are no tables of an authority in the database {place}")
        for statements in POSTGRES[version:]:
            for statement in statements:
                connection.execute(statement.encode())
        if version < len(POSTGRES):
            connection.execute(b"UPDATE ascend_schema SET version = $1", (len(POSTGRES),))
        _check(connection, place)


@contextlib.contextmanager
def _preparing(connection: Connection, place: str) -> Iterator[None]:
    """Run the block as one transaction, and say what is wrong if nothing can be made."""
    try:
        with ours(), connection.transaction():
            lock(connection)
            yield
    except StorageError as error:
        raise ConfigurationError(
            f"the database {place} cannot be prepared: {error}. Whoever connects there needs CREATE on the schema, or "
            "owns the database"
        ) from None


def lock(connection: Connection) -> None:
    """Have others that would make tables wait until the transaction ends, such as a replica that starts."""
    connection.execute(b"SELECT pg_advisory_xact_lock($1)", (_LOCK,))


def mark(connection: Connection, place: str) -> None:
    """Say that a copy is being made here, where nothing is yet; raises as `migrate`."""
    with _preparing(connection, place):
        check_empty(connection, place)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_MARK} (begun TIMESTAMPTZ DEFAULT now())".encode())


def unmark(connection: Connection) -> None:
    """Say so no longer: it is whole, or nothing of it is left."""
    connection.execute(f"DROP TABLE IF EXISTS {_MARK}".encode())


def check_empty(connection: Connection, place: str) -> None:
    """Raise `ConfigurationError` if there are tables other than what an earlier copy left when it was ended."""
    with ours():
        names = connection.execute(_NAMES).fetchall()
    if any(kind == "table" and name != _MARK for kind, name in names):
        raise ConfigurationError(f"the database {place} holds tables already; nothing was touched. Name an empty one")


def known(connection: Connection, place: str) -> None:
    """Raise `ConfigurationError` unless the tables are of a version that can be read."""
    try:
        with ours(), connection.transaction():
            version = _version(connection, place, make=False)
    except StorageError as error:
        raise ConfigurationError(f"the database {place} cannot be read: {error}") from None
    if version == 0:
        raise ConfigurationError(f"there are no tables of an authority in the database {place}")
    if not FIRST_WITH_HEAD <= version <= len(POSTGRES):
        older = "an older version of this package; start the authority on it once"
        made = older if version < FIRST_WITH_HEAD else "a newer version"
        raise ConfigurationError(f"the database {place} was made by {made}")


def _version(connection: Connection, place: str, *, make: bool = True) -> int:
    """Return the version of the tables, 0 where there are none; refuse other programs'."""
    names = {(kind, name) for kind, name in connection.execute(_NAMES).fetchall()}
    if ("table", _MARK) in names:
        raise ConfigurationError(
            f"the database {place} is not whole: a copy into it still runs, or was ended half-way. Run `authority "
            f"copy` again; for a new database, drop the table {_MARK}"
        )
    if ("table", "ascend_schema") in names:
        return int(connection.execute(_VERSION).fetchall()[0][0])
    if any(kind == "table" for kind, _ in names):
        raise ConfigurationError(
            f"the database {place} holds tables of another program; nothing was touched. Give the authority a "
            "database, or a schema that is first in its user's search_path"
        )
    if make:
        connection.execute(b"CREATE TABLE ascend_schema (version BIGINT NOT NULL)")
        connection.execute(b"INSERT INTO ascend_schema (version) VALUES (0)")
    return 0


def _check(connection: Connection, place: str) -> None:
    expected: set[tuple[str, str]] = set()
    for statements in POSTGRES:
        for statement in statements:
            expected |= {(kind.lower(), name.lower()) for kind, name in _MADE.findall(statement)}
            expected -= {(kind.lower(), name.lower()) for kind, name in _DROPPED.findall(statement)}
    missing = sorted(expected - {(kind, name) for kind, name in connection.execute(_NAMES).fetchall()})
    if missing:
        raise ConfigurationError(
            f"the database {place} is damaged: it has no {', '.join(' '.join(one) for one in missing[:5])}; restore a "
            "backup as a database of its own"
        )
