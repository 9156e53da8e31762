"""Answers that are kept for repetitions, compared with what the audit log says of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from .audit import answer_digest, iso_time
from .engine import Reader, Row
from .findings import Finding, gone, unknown, unlike

__all__ = ["KEEP_ANSWERS", "KeptAnswers"]

# Seconds for which an answer is kept.
KEEP_ANSWERS: Final = 48 * 3600.0


class _Kept(msgspec.Struct):
    key: int
    path: str
    name: str
    answer: str


class _Data(msgspec.Struct):
    kept: list[_Kept] = []


class _Entry(msgspec.Struct):
    at: str
    data: _Data


_read: Final = msgspec.json.Decoder(_Entry).decode


class KeptAnswers:
    """What the log says is kept, of the entries that it is given; `now` is in epoch seconds."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._since = iso_time(now - KEEP_ANSWERS)
        self._told = array("q")  # the number of the entry, for each answer of the last hours
        self._first = ""

    def add(self, seq: int, at: str, count: int) -> None:
        """Take the next entry, which tells of so many answers."""
        self._first = self._first or at
        if at >= self._since:
            self._told.extend([seq] * count)

    def compared(self, reader: Reader, first: int, *, old: bool) -> Iterator[Finding]:
        """Yield the answers that are not as the log says, and, of entries from `first` on, those that are missing.

        `old`: an earlier version kept answers too, of which its log tells nothing.
        """
        found = array("q")
        begin = self._told[0] if self._told else 0
        for row in reader.each(
            "SELECT answers.*, audit.entry FROM answers LEFT JOIN audit ON audit.seq = answers.seq"
            " ORDER BY answers.key_id, answers.path, answers.name"
        ):
            name = f"{row['key_id']} {row['path']} {row['name']}"
            if "seq" not in row.keys():  # noqa: SIM118 - a row's `in` is of values
                return
            if not (isinstance(row["at"], float) and isinstance(row["seq"], int)):
                yield unknown("answers", name)
                continue
            if row["at"] < self._now - KEEP_ANSWERS:
                continue  # it is answered to nobody any more
            if begin and row["seq"] >= begin:
                found.append(row["seq"])
            if not row["seq"] and old and (not self._first or iso_time(row["at"]) < self._first):
                continue
            yield from _differences(row, name)
        if len(found) != len(self._told):
            for seq, count in (Counter(self._told) - Counter(found)).items():
                yield gone(seq, "answers", f"told by entry {seq}" if count == 1 else f"{count} told by entry {seq}")


def _differences(row: Row, name: str) -> Iterator[Finding]:
    kept: list[_Kept] = []
    if row["entry"] is not None:
        try:
            kept = _read(row["entry"]).data.kept
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            kept = []
    said = next(
        (one for one in kept if (one.key, one.path, one.name) == (row["key_id"], row["path"], row["name"])), None
    )
    if said is None:
        yield unknown("answers", name)
    elif _digest(row) != said.answer:
        yield unlike(row["seq"], "answers", name, "answer", _digest(row), said.answer)


def _digest(row: Any) -> str:
    try:
        return answer_digest(row)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return ""
