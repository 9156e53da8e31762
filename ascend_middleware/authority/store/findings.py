"""What a verification finds: entries of the audit log, or rows of other tables that are not what the log says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .engine import Misfit

__all__ = ["DAMAGED", "ROW", "Finding", "gone", "mistyped", "unknown", "unlike"]

# The kind of a finding about a row of another table than the log.
ROW: Final = "row"
# And about the pages of the database.
DAMAGED: Final = "damaged"
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong at one entry; `seq` is 0 for a row that no entry tells of.

    The kind is `changed`, `removed`, `reordered`, `inserted`; `head` if the record of the last entry is missing; `row`
    if a row of another table is not what the log says, where `table`, `row` and `fact` name what; `damaged` if pages of
    the database are.
    """

    seq: int
    kind: str
    message: str
    table: str = ""
    row: str = ""
    fact: str = ""


def unlike(seq: int, table: str, row: object, fact: str, found: object, said: object) -> Finding:
    """Return the finding that a row has another value than the log says."""
    message = f"{table} {row}, {fact}: it is {_shown(found)}, and entry {seq} says {_shown(said)}"
    return Finding(seq, ROW, message, table, str(row), fact)


def unknown(table: str, row: object, words: str = "is not in the log") -> Finding:
    """Return the finding that no entry tells of a row."""
    return Finding(0, ROW, f"{table} {row} {words}", table, str(row), "row")


def gone(seq: int, table: str, row: object) -> Finding:
    """Return the finding that a row is missing that an entry tells of."""
    return Finding(seq, ROW, f"{table} {row} is gone, and entry {seq} tells of it", table, str(row), "row")


def mistyped(misfit: Misfit) -> Finding:
    """Return the finding that a value is of another type than its column's."""
    if misfit.table == "audit":
        return Finding(int(misfit.row), "changed", f"entry {misfit.row} was changed: {misfit.message}")
    return Finding(0, ROW, misfit.message, misfit.table, misfit.row, misfit.column)


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
