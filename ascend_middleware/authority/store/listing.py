"""Pages of lists: read by an index, and counted only so far, so that none costs more, the more is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..cursors import Cursor, OtherListError
from .engine import Reader, Row
from .patience import in_pieces

__all__ = ["Listing", "read_page", "rows_of"]

# Rows that are counted for a total.
_COUNTED: Final = 10_000
_ASKED_AT_ONCE: Final = 500
# Columns that hold numbers; the others hold texts.
_NUMBERS: Final = frozenset({"risk_score"})


class Listing(NamedTuple):
    """One page of a list.

    Attributes:
        rows: of the page.
        total: of all pages.
        next: where the page after this one begins, None after the last one.
        exact: whether that many there are; where not, there are more.
    """

    rows: list[Any]
    total: int
    next: Cursor | None = None
    exact: bool = True

    @property
    def more(self) -> bool:
        """Whether there is a page after this one."""
        return self.next is not None

    def of(self, shown: Callable[[Any], Any]) -> Listing:
        """Return the same page with its rows as they are shown."""
        return self._replace(rows=[shown(row) for row in in_pieces(self.rows)])


def read_page(
    reader: Reader,
    table: str,
    where: Mapping[str, object],
    *,
    number: str = "id",
    order: str = "",
    descending: bool = False,
    limit: int,
    offset: int = 0,
    cursor: Cursor | None = None,
) -> Listing:
    """Return the rows of a table that meet all conditions, as they are stored.

    Args:
        reader: on which it is read.
        table: its name.
        where: conditions with one `?` each, and what stands for it.
        number: the column with a row's number.
        order: by which column the list is ordered, those of equal value by their number; nothing for the number alone.
        descending: whether the highest comes first.
        limit: rows of the page.
        offset: rows to leave out.
        cursor: where the page begins, in place of the offset.

    Raises:
        OtherListError: the cursor is of a list in another order.
    """
    sign, word = ("<", "DESC") if descending else (">", "ASC")
    named = f"{'-' if descending else ''}{order or number}"
    condition, values = " AND ".join(where), tuple(where.values())
    columns = f"{order} {word}, {number} {word}" if order else f"{number} {word}"
    counted = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT ?) AS counted"  # noqa: S608 - names are ours
    total = int(reader.rows(counted, (*values, _COUNTED + 1))[0][0])
    if cursor is not None:
        kind = int if order in _NUMBERS else str if order else type(None)
        if cursor.order != named or not isinstance(cursor.value, kind):
            raise OtherListError("the cursor is of a list in another order")
        place = f"({order}, {number}) {sign} (?, ?)" if order else f"{number} {sign} ?"
        condition = f"{condition} AND {place}"
        values = (*values, cursor.value, cursor.number) if order else (*values, cursor.number)
    # Only numbers are skipped and sorted, not whole rows.
    page = f"SELECT {number} FROM {table} WHERE {condition} ORDER BY {columns} LIMIT ? OFFSET ?"  # noqa: S608
    rows = reader.rows(
        f"SELECT * FROM {table} WHERE {number} IN ({page}) ORDER BY {columns}",  # noqa: S608
        (*values, limit + 1, offset),
    )
    last: Row | None = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else Cursor(last[number], named, last[order] if order else None)
    return Listing(rows[:limit], min(total, _COUNTED), following, total <= _COUNTED)


def rows_of(reader: Reader, statement: str, chosen: Sequence[object], *values: object) -> Iterator[Row]:
    """Yield what a statement selects by keys, some hundreds at a time; they stand for its `{}`, after other values."""
    for first in range(0, len(chosen), _ASKED_AT_ONCE):
        some = chosen[first : first + _ASKED_AT_ONCE]
        yield from reader.rows(statement.format(", ".join("?" * len(some))), (*values, *some))
