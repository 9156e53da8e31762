"""What belongs to one transaction until its end: what was read in it, and what is added and told once it ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

import msgspec

from .tallies import Counted

__all__ = ["Late", "Mark", "Transaction"]


class Late(msgspec.Struct):
    """Rows that are added at a transaction's end, and how many of them have been already."""

    rows: list[tuple[object, ...]] = []
    added: int = 0


# By table and columns.
_Lates: TypeAlias = dict[tuple[str, tuple[str, ...]], Late]


class Mark(msgspec.Struct):
    """How far a transaction was when a part of it began."""

    tip: tuple[int, str] | None
    notices: int
    counted: int
    noted: int
    late: dict[tuple[str, tuple[str, ...]], tuple[int, int]]
    action: int


class Transaction(msgspec.Struct):
    """A running transaction.

    Attributes:
        memo: what was read.
        head: the audit log's last entry as it began.
        tip: and the one that is new.
        notices: whom to tell.
        late: rows that are added at its end.
        known: rows of some tables by a key, as they stand now; None where there is none.
        noted: the keys of these in their order.
        action: the last number that an action was given.
        counted: what is added to the counts.
        straight: those of `late` that submissions add to; see `Submissions`.
        submitted: those of `counted` that count what joined it, by what they have in common; see `Submissions`.
        entry: the audit entry that is held open; see `Log`.
        logged: whether the part that is running wrote one.
        stored: what the next one tells was stored.
    """

    memo: dict[Hashable, Any]
    head: tuple[int, str]
    action: int
    tip: tuple[int, str] | None = None
    notices: list[Callable[[], None]] = []
    late: _Lates = {}
    known: dict[str, dict[Hashable, Mapping[str, Any] | None]] = {}
    noted: list[tuple[str, Hashable]] = []
    counted: list[Counted] = []
    straight: tuple[Late, ...] | None = None
    submitted: dict[Hashable, Counted] = {}
    entry: Any = None
    logged: bool = False
    stored: list[dict[str, Any]] = []

    def mark(self) -> Mark:
        """Begin a part, and return how far it is."""
        self.logged = False
        late = {key: (len(one.rows), one.added) for key, one in self.late.items()}
        return Mark(self.tip, len(self.notices), len(self.counted), len(self.noted), late, self.action)

    def note(self, table: str, key: Hashable, row: Mapping[str, Any] | None) -> None:
        """Keep in mind what stands under a key."""
        self.known.setdefault(table, {})[key] = row
        self.noted.append((table, key))

    def undo(self, mark: Mark) -> None:
        """Forget all since a mark, and what was read, which may be of it."""
        self.tip, self.action, self.entry = mark.tip, mark.action, None
        del self.notices[mark.notices :], self.counted[mark.counted :]
        for key, one in self.late.items():
            length, one.added = mark.late.get(key, (0, 0))
            del one.rows[length:]
        for table, place in self.noted[mark.noted :]:
            self.known[table].pop(place, None)
        del self.noted[mark.noted :]
        self.stored.clear()
        self.memo.clear()
