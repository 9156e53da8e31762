"""What the store asks of a kind of database: SQLite and PostgreSQL each answer it in a file of their own."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ascend_middleware.exceptions import StorageError

__all__ = [
    "NO_HASH",
    "Begun",
    "Done",
    "Engine",
    "Fleet",
    "Lease",
    "Misfit",
    "Reader",
    "Row",
    "StorageError",
    "UnreachableError",
    "UnstorableError",
    "Watch",
    "check_storable",
    "check_texts",
    "insertion",
    "stored_json",
]

# What stands for the hash before the audit log's first entry.
NO_HASH = "0" * 64
_decode: Final = msgspec.json.Decoder().decode
_UNSTORABLE = "a text holds a character that the database does not store, NUL or half of a pair"


class UnstorableError(StorageError):
    """A value cannot be stored, whatever the state of the database: PostgreSQL takes no text with a NUL in it."""


class UnreachableError(StorageError):
    """The database cannot be asked just now; that tells nothing of what it holds."""


class Begun(NamedTuple):
    """What was read as a transaction began: the audit log's head, and the numbers of the last change and last action.

    The change is that of a record or a command.
    """

    head: tuple[int, str]
    revision: int
    action: int


class Misfit(NamedTuple):
    """A value that no authority writes where it stands."""

    table: str
    row: str
    column: str
    message: str


class Lease(NamedTuple):
    """What was taken of a limit that all replicas share: how much, how much is in use, and for how many seconds."""

    taken: int
    used: int
    age: float | None


class Fleet(Protocol):
    """What replicas of one database do together beside the audit log, without waiting for whoever writes that."""

    def aside(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement as a transaction of its own; of what the log tells nothing of."""

    def lease(self, subject: str, limit: int, most: int) -> Lease:
        """Take up to `most` of what is left of a limit within the last minute, by the database's clock."""

    def forget(self) -> None:
        """Drop what was taken so long ago that nobody counts it."""

    def meet(self, name: str, policy: str) -> dict[str, str]:
        """Say that this replica is there, and return the others with the versions of their policy files."""

    def leave(self, name: str) -> None:
        """Say that this replica is gone."""


class Row(Protocol):
    """One row of an answer: its values by number and by name."""

    def __getitem__(self, key: int | str, /) -> Any:
        """Return a value."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the values."""

    def keys(self) -> Iterable[str]:
        """Return the columns' names, so that `dict(row)` works."""


class Done(Protocol):
    """What came of a statement that changes something."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""


class Reader(Protocol):
    """A connection for reading."""

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return all that a statement selects."""

    def each(self, statement: str, values: Sequence[object] = ()) -> Generator[Row, None, None]:
        """Yield what a statement selects, without holding all of it in memory."""


class Watch(Protocol):
    """Tells whether the database has changed since it last looked; the first look always says so."""

    def changed(self) -> bool:
        """Look; it costs a few microseconds."""

    def close(self) -> None:
        """End the watch."""


class Engine(Protocol):
    """One kind of database. Whatever fails in it raises `StorageError`.

    What changes something runs on its one connection that writes, which the caller guards with a lock. Statements are
    written so that each kind takes them; `?` stands for a value.
    """

    @property
    def place(self) -> str:
        """How messages name the database, without any password."""

    @property
    def alone(self) -> bool:
        """Whether the connection that writes is the only one, so that readers use it too."""

    @property
    def fleet(self) -> Fleet | None:
        """What several replicas do together; None where one process serves the database."""

    # --- one transaction

    def begin(self) -> Begun:
        """Begin a transaction in which nobody else can change anything that the audit log tells of."""

    @property
    def in_transaction(self) -> bool:
        """Whether it is still there: a database may undo all of it when one statement fails."""

    def mark(self) -> None:
        """Begin a part, which can be undone alone."""

    def release(self) -> None:
        """End the part and keep it."""

    def undo(self) -> None:
        """End the part and take it back."""

    def commit(self, tip: tuple[int, str] | None) -> None:
        """Keep everything for good, with the audit log's new head where there is one."""

    def rollback(self) -> None:
        """Take everything back, if there still is a transaction."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> Done:
        """Run one statement that changes something."""

    def insert(self, table: str, columns: tuple[str, ...], values: Sequence[object], *, once: bool) -> int:
        """Add a row and return its number, if it has one. `once`: unless there is one of its key."""

    def insert_many(self, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
        """Add rows in as few statements as can be. If one of them cannot be added, some of the others may have been."""

    def check(self, values: Sequence[object]) -> None:
        """Raise `UnstorableError` for a text that cannot be stored."""

    @property
    def writer(self) -> Reader:
        """What reads on the connection that writes, and so sees the running transaction."""

    # --- beside it

    def reading(self) -> AbstractContextManager[Reader]:
        """Lend a connection for reading; several statements on it may see different states."""

    def snapshot(self) -> AbstractContextManager[Reader]:
        """Lend a connection on which all statements see the same state."""

    def watch(self) -> Watch:
        """Return a watch that tells whether anything was stored since it last looked, by whatever process."""

    # --- the whole

    def probe(self, seconds: float) -> None:
        """Write something, down to the disk, on the connection that writes; wait for others so long at most."""

    def damage(self) -> str:
        """Say what is wrong with the database's pages, nothing if they are sound or the engine cannot tell."""

    def misfits(self, reader: Reader, *, all_tables: bool = True) -> Iterator[Misfit]:
        """Yield values of other types than their columns'; see `column_types`."""

    def advice(self) -> str:
        """Say what to do about a damaged database."""

    def backup(self, target: str | Path) -> int:
        """Copy the database to a new file; see `Database.backup`."""

    def version(self) -> int:
        """Return the version of the tables: how many migrations they have had."""

    def last_numbers(self, reader: Reader) -> dict[str, int]:
        """Return the last number that the database gave in each table, where it did."""

    def close_writer(self) -> None:
        """Close the connection that writes."""

    def close_readers(self) -> None:
        """Close all others."""


def check_texts(values: Iterable[object]) -> None:
    """Raise `UnstorableError` for a text that is none in UTF-8."""
    for value in values:
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise UnstorableError(_UNSTORABLE) from None


def check_storable(values: Sequence[object]) -> None:
    """Raise `UnstorableError` for a text that PostgreSQL does not take."""
    check_texts(values)
    for value in values:
        if isinstance(value, str) and "\0" in value:
            raise UnstorableError(_UNSTORABLE)


def stored_json(text: Any, place: str) -> Any:
    """Return what a text in the database says; raise `StorageError` with its place if it is no JSON any more."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"{place} is damaged: {error}") from None


def insertion(table: str, columns: Sequence[str], *, once: bool) -> str:
    """Return the statement that adds a row."""
    places = ", ".join("?" * len(columns))
    end = " ON CONFLICT DO NOTHING" if once else ""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}){end}"  # noqa: S608 - names are ours
