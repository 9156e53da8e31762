"""What belongs to one transaction until its end: what was read in it, and what is added and told once it ends."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import msgspec

from .tallies import Counted

__all__ = ["Late", "Mark", "Transaction"]


class Late(msgspec.Struct):
    """Rows that are added at a transaction's end, how many of them have been already, and which are looked for."""

    rows: list[tuple[object, ...]] = []
    added: int = 0
    known: dict[Hashable, int] = {}

    def undo(self, length: int, added: int) -> None:
        """Forget the rows beyond a length; of the others so many had been added."""
        del self.rows[length:]
        self.added = added
        self.known = {key: number for key, number in self.known.items() if number < length}


# By table and columns.
_Lates: TypeAlias = dict[tuple[str, tuple[str, ...]], Late]


class Mark(msgspec.Struct):
    """How far a transaction was when a part of it began."""

    tip: tuple[int, str] | None
    notices: int
    counted: int
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
        action: the last number that an action was given.
        counted: what is added to the counts.
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
    counted: list[Counted] = []
    entry: Any = None
    logged: bool = False
    stored: list[dict[str, Any]] = []

    def mark(self) -> Mark:
        """Begin a part, and return how far it is."""
        self.logged = False
        late = {key: (len(one.rows), one.added) for key, one in self.late.items()}
        return Mark(self.tip, len(self.notices), len(self.counted), late, self.action)

    def undo(self, mark: Mark) -> None:
        """Forget all since a mark, and what was read, which may be of it."""
        self.tip, self.action, self.entry = mark.tip, mark.action, None
        del self.notices[mark.notices :], self.counted[mark.counted :]
        for key, one in self.late.items():
            one.undo(*mark.late.get(key, (0, 0)))
        self.stored.clear()
        self.memo.clear()
