"""A new PostgreSQL database whose tables and rows are there all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ascend_middleware.exceptions import AscendError

from . import postgres_schema
from .database import Database
from .engine import StorageError, UnstorableError, check_storable
from .postgres_engine import PostgresEngine
from .postgres_link import Connection, Link, ours
from .schema import NUMBERS

__all__ = ["made"]


class _Filled(NamedTuple):
    database: Database
    connection: Connection

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add rows."""
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()
        with ours(), self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                try:
                    check_storable(row)
                except UnstorableError as error:
                    raise AscendError(
                        f"the row of {table} with {columns[0]} {row[0]!r} cannot be kept in PostgreSQL: {error}"
                    ) from None
                copy.write_row(row)

    def change(self, statement: str, values: Sequence[object]) -> None:
        """Change a row."""
        self.database.engine.execute(statement, values).rowcount  # noqa: B018 - this sends it

    def go_on(self, numbers: dict[str, int]) -> None:
        """Give numbers after these from now on."""
        for table, number in numbers.items():
            sequence = f"pg_get_serial_sequence('{table}', '{NUMBERS[table]}')"
            with ours():
                self.connection.execute(f"SELECT setval({sequence}, $1)".encode(), (number,))


@contextlib.contextmanager
def made(url: str) -> Iterator[_Filled]:
    """Make the tables in one transaction with whatever is filled in.

    Whoever is killed meanwhile leaves a mark, because of which nobody begins an authority there.
    """
    link, connection = Link.parse(url).opened()
    with contextlib.closing(connection):
        postgres_schema.mark(connection, link.place)
        try:
            with ours():
                connection.execute(b"BEGIN")
                postgres_schema.lock(connection)
                postgres_schema.check_empty(connection, link.place)  # somebody else may have come first
                postgres_schema.unmark(connection)
            postgres_schema.migrate(connection, link.place, create=True)
            engine = PostgresEngine(link, connection)
            engine.within = True
            database = Database(engine)
            with database.group():  # what reads within it sees what is filled in
                yield _Filled(database, connection)
            with ours():
                connection.execute(b"COMMIT")
        except BaseException:
            _undo(link, connection)
            raise


def _undo(link: Link, connection: Connection) -> None:
    """Take everything back, the mark too, unless the server is out of reach."""
    connection.close()  # in whatever state it is
    with contextlib.suppress(StorageError), contextlib.closing(link.connect()) as other, ours(), other.transaction():
        postgres_schema.lock(other)
        postgres_schema.unmark(other)
