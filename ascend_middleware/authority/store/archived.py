"""Archived actions compared with what the log says of them, where the archives are read."""

from __future__ import annotations

import bisect
import heapq
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from ascend_middleware.exceptions import AscendError

from .archives import archive_path, as_numbers, as_ranges, read_archive
from .comparison import compared_rows
from .engine import Reader
from .findings import Finding, gone
from .past import Past

__all__ = ["ArchivedActions"]

# Actions that are compared at a time, entries that are stored at a time, and numbers that are looked up at a time.
_AT_ONCE: Final = 500
_of_a_place: Final = itemgetter("action_id", "seq")


class ArchivedActions:
    """The actions in the archives of one database.

    What archives say of actions stands in a temporary file until `close`: they may be larger than the memory.
    """

    def __init__(self, reader: Reader, past: Past, folder: Path) -> None:
        self._reader = reader
        self._past = past
        self._folder = folder
        self._noted = sqlite3.connect("")  # a file without a name, which goes with the connection
        self._noted.row_factory = sqlite3.Row
        self._noted.execute(
            "CREATE TABLE audit (action_id INTEGER, seq INTEGER, entry, PRIMARY KEY (action_id, seq)) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Remove the temporary file."""
        self._noted.close()

    def noting(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Pass archived entries on, and note those about actions."""
        insert = "INSERT OR IGNORE INTO audit VALUES (?, ?, ?)"
        for some in _batched(rows):
            about = [(row["action_id"], row["seq"], row["entry"]) for row in some if _is_about_an_action(row)]
            self._noted.executemany(insert, about)
            yield from some

    def compared(self) -> Iterator[Finding]:
        """Yield in what the files are not what the log says, once all entries were noted."""
        ranges: list[tuple[int, int]] = []
        for file in self._past.files:
            if file["kind"] == "audit" or file["state"] == "replaced":
                continue  # nothing of a replaced one is proven by anybody: another file has to hold it
            try:
                rows = sorted(map(_Row, read_archive(archive_path(self._folder, file["name"]))), key=_number)
            except AscendError:
                return  # told by whoever read its hash; what else is missing cannot be said then
            for first in range(0, len(rows), _AT_ONCE):
                some = rows[first : first + _AT_ONCE]
                numbers = [_number(row) for row in some]
                yield from compared_rows(self._entries(numbers), some)
                ranges += as_numbers(as_ranges(numbers))
        yield from self._missing(sorted(ranges))

    def _entries(self, numbers: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        """Yield what the archives and the table tell of actions, in their order, each entry once."""
        statement = "SELECT action_id, seq, entry FROM audit WHERE action_id BETWEEN ? AND ? ORDER BY action_id, seq"
        bounds, wanted = (numbers[0], numbers[-1]), set(numbers)
        both = heapq.merge(
            self._noted.execute(statement, bounds), self._reader.each(statement, bounds), key=_of_a_place
        )
        for (number, _), same in itertools.groupby(both, key=_of_a_place):
            if number in wanted:
                yield next(same)

    def _missing(self, ranges: list[tuple[int, int]]) -> Iterator[Finding]:
        """Yield the actions of which entries tell, and which are nowhere."""
        for first, last in self._past.actions:
            for number in range(first, last + 1):
                if not _holds(ranges, number):
                    yield gone(0, "actions", number)
        told = self._noted.execute("SELECT action_id, min(seq) AS seq FROM audit GROUP BY action_id ORDER BY action_id")
        while some := told.fetchmany(_AT_ONCE):
            left = {row["action_id"]: row["seq"] for row in some if not _holds(ranges, row["action_id"])}
            places = ", ".join("?" * len(left)) or "NULL"
            for row in self._reader.rows(f"SELECT id FROM actions WHERE id IN ({places})", tuple(left)):  # noqa: S608
                left.pop(row["id"], None)
            for number, seq in left.items():
                if not self._past.has_action(number):
                    yield gone(seq, "actions", number)


class _Row(dict[str, Any]):
    """A line of a file, whatever it lacks."""

    def __missing__(self, name: str) -> None:
        return None


def _number(row: Mapping[str, Any]) -> int:
    return row["id"] if type(row["id"]) is int else 0


def _is_about_an_action(row: Any) -> bool:
    return not isinstance(row, Finding) and type(row["action_id"]) is int


def _batched(rows: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(rows)
    while some := list(itertools.islice(left, _AT_ONCE)):
        yield some


def _holds(ranges: list[tuple[int, int]], number: int) -> bool:
    place = bisect.bisect_right(ranges, (number, 2**63)) - 1
    return place >= 0 and ranges[place][0] <= number <= ranges[place][1]
