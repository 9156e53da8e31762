"""Which type of value each column has: SQLite takes any value in any column, and somebody may have put one there.

What reads rows may then rely on their types, and need not look at each value again.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from .engine import Misfit, Reader, StorageError
from .schema import SQLITE

__all__ = ["misfits"]

_CLASSES: Final = {"INTEGER": "integer", "TEXT": "text", "REAL": "real", "BLOB": "blob"}
_WORDS: Final = {"integer": "an integer", "text": "a text", "real": "a number", "blob": "bytes", "null": "nothing"}
# What grows with the number of actions.
_LARGE: Final = frozenset(
    {"actions", "approvals", "answers", "audit", "deliveries", "tallies", "actors", "actor_days", "sessions"}
)


class _Column(NamedTuple):
    """What may stand in a column, and whether the row is found by it."""

    allowed: tuple[str, ...]
    is_key: bool


@functools.cache
def _columns(version: int) -> Mapping[str, Mapping[str, _Column]]:
    """Return the columns of each table of a schema's version."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statements in SQLITE[:version]:
            for statement in statements:
                connection.execute(statement)
        tables: dict[str, dict[str, _Column]] = {}
        for table, name, declared, fixed, key in connection.execute(
            'SELECT t.name, c.name, c.type, c."notnull", c.pk FROM sqlite_master AS t, pragma_table_info(t.name) AS c'
            " WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%'"
        ):
            allowed = (_CLASSES[declared],) if fixed or key else (_CLASSES[declared], "null")
            tables.setdefault(table, {})[name] = _Column(allowed, bool(key))
        return tables


def misfits(reader: Reader, *, version: int, all_tables: bool) -> Iterator[Misfit]:
    """Yield the values of another type than their columns', by a version of the schema.

    Not `all_tables` leaves out those that grow with the actions: a million of these take some seconds.

    Raises:
        StorageError: a column is not there.
    """
    for table, columns in _columns(version).items():
        if table in _LARGE and not all_tables:
            continue
        there = {row[0] for row in reader.rows("SELECT name FROM pragma_table_info(?)", (table,))}
        missing = [name for name in columns if name not in there]
        if missing:
            raise StorageError(f"the table {table} has no column {missing[0]}")
        yield from _of_table(reader, table, columns)


def _of_table(reader: Reader, table: str, columns: Mapping[str, _Column]) -> Iterator[Misfit]:
    wrong = " OR ".join(
        f"typeof({name}) NOT IN ({', '.join(map(repr, column.allowed))})" for name, column in columns.items()
    )
    # A key is shown as text whatever it is, bytes that are no text included.
    keys = [name for name, column in columns.items() if column.is_key] or ["rowid"]
    shown = [f"CASE typeof({key}) WHEN 'text' THEN quote(substr({key}, 1, 40)) ELSE quote({key}) END" for key in keys]
    types = [f"typeof({name})" for name in columns]
    statement = f"SELECT {', '.join([*shown, *types])} FROM {table} WHERE {wrong}"  # noqa: S608 - names are ours
    for row in reader.each(statement):
        number = "/".join(str(value).strip("'") for value in tuple(row)[: len(keys)])
        for (name, column), found in zip(columns.items(), tuple(row)[len(keys) :], strict=True):
            if found not in column.allowed:
                words = f"it is {_WORDS[found]}, and only {_WORDS[column.allowed[0]]} can stand there"
                yield Misfit(table, number, name, f"{table} {number}, {name}: {words}")
