"""An authority's whole database, copied to a place where there is none: ids, chain and keys stay what they are."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from ascend_middleware.exceptions import AscendError, ConfigurationError, StorageError
from ascend_middleware.text import is_postgres

from .audit import Head, head
from .database import Database, postgres_engine
from .engine import Reader
from .schema import SQLITE
from .sqlite_engine import SQLiteEngine
from .unfinished import making, sync_folder
from .verification import verify

__all__ = ["Copied", "Target", "copy"]

# Passes rows on, and tells somebody of which table they are and how many there will be.
_Watching: TypeAlias = "Callable[[Iterable[Any], str, int | None], Iterable[Any]]"
# In the order in which they were made: none refers to a later one.
TABLES: Final = tuple(dict.fromkeys(re.findall(r"CREATE TABLE (\w+)", "\n".join(itertools.chain(*SQLITE)))))
# Of these one row is there from the beginning.
_SINGLE: Final = frozenset({"audit_head", "revision", "webhook_scan"})


class Copied(NamedTuple):
    """What was copied: how many rows, and the audit log's head."""

    rows: int
    head: Head


class Target(Protocol):
    """A new database that is there once all of it is, and not before."""

    @property
    def database(self) -> Database:
        """The database, for whoever is within its one transaction."""

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add rows."""

    def change(self, statement: str, values: Sequence[object]) -> None:
        """Change a row."""

    def go_on(self, numbers: dict[str, int]) -> None:
        """Give numbers after these from now on, by table."""


def copy(source: str, target: str, *, watch: _Watching = lambda items, what, total: items) -> Copied:
    """Copy a database, a file or a URL, to another place, and verify the copy before it is kept.

    Raises:
        ConfigurationError: one of the two cannot be used; there is something at the target.
        AscendError: what was copied is not whole, or the source was written to meanwhile. Then nothing is left there.
    """
    try:
        with Database.evidence(source) as origin, _made(target) as made:
            if origin.engine.version() != len(SQLITE):
                raise ConfigurationError(
                    f"the database {origin.engine.place} was made by another version of this package; start the "
                    "authority on it once"
                )
            with _one_state(origin) as reader:
                misfit = next(origin.engine.misfits(reader), None)
                if misfit is not None:
                    raise AscendError(f"the database {origin.engine.place} cannot be copied: {misfit.message}")
                copied = Head(*reader.rows("SELECT seq, hash FROM audit_head")[0])
                count = sum(_table(reader, made, table, watch) for table in TABLES)
                made.go_on(origin.engine.last_numbers(reader))
            _check(made.database, copied, watch)
            if head(origin) != copied:
                raise AscendError(
                    f"the database {origin.engine.place} was written to while it was copied; stop the authority, then "
                    "copy again"
                )
        return Copied(count, copied)
    except StorageError as error:
        raise AscendError(f"the copy was given up, nothing of it is left: {error}") from None


@contextlib.contextmanager
def _one_state(origin: Database) -> Iterator[Reader]:
    with origin.snapshot() as reader:
        if not origin.engine.alone:
            yield reader
            return
        reader.rows("BEGIN")
        try:
            yield reader
        finally:
            reader.rows("ROLLBACK")


def _table(reader: Reader, target: Target, table: str, watch: _Watching) -> int:
    """Copy one table; return how many rows it has."""
    total = int(reader.rows(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - names are ours
    with contextlib.closing(reader.each(f"SELECT * FROM {table}")) as found:  # noqa: S608
        rows = iter(watch(found, table, total))
        first = next(rows, None)
        if first is None:
            return 0
        columns = list(first.keys())
        if table in _SINGLE:
            where = " WHERE seq < ?" if table == "audit_head" else ""  # nothing but a higher one takes its place
            marks = ", ".join(f"{column} = ?" for column in columns)
            values = [*first, first["seq"]] if where else [*first]
            target.change(f"UPDATE {table} SET {marks}{where}", values)  # noqa: S608
        else:
            target.fill(table, columns, map(tuple, itertools.chain([first], rows)))
    return total


def _check(database: Database, copied: Head, watch: _Watching) -> None:
    found = verify(database, known=(copied,), watch=watch)
    if found.whole and found.head == copied:
        return
    words = "; ".join(one.message for one in found.findings[:3]) or f"it ends at {found.head}"
    raise AscendError(f"the copy is not whole ({words}), nothing of it is left; see `audit verify` of the source")


def _made(place: str) -> contextlib.AbstractContextManager[Target]:
    if is_postgres(place):
        postgres_engine()  # tells what is missing
        from .postgres_copy import made

        return made(place)
    return _file(place)


class _File(NamedTuple):
    database: Database

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add rows."""
        for row in rows:
            self.database.engine.insert(table, tuple(columns), row, once=False)

    def change(self, statement: str, values: Sequence[object]) -> None:
        """Change a row."""
        self.database.execute(statement, values)

    def go_on(self, numbers: dict[str, int]) -> None:
        """Give numbers after these from now on."""
        for table, number in numbers.items():
            self.database.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            self.database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))


@contextlib.contextmanager
def _file(place: str) -> Iterator[Target]:
    """Make a file that has its name once it is whole."""
    path = Path(place)
    if path.exists():
        raise ConfigurationError(f"{place} exists already; it was not touched")
    try:
        with making(path) as partial:
            with contextlib.closing(Database(SQLiteEngine.open(partial))) as database:
                with database.group(), database.write():
                    yield _File(database)
                database.engine.execute("PRAGMA journal_mode=DELETE")  # one file, without side files
            os.link(partial, path)  # unlike a rename, never over a file that has come meanwhile
            sync_folder(path.parent)
    except FileExistsError:
        raise ConfigurationError(f"{place} exists already; it was not touched") from None
    except OSError as error:
        raise ConfigurationError(f"the database {place} cannot be created: {error.strerror}") from None
