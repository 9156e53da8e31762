"""Reading the audit log again: whether its chain holds, and whether the actions are what it says of them.

What is kept in memory at a time does not grow with the log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from .audit import NO_HASH, Head, chained
from .comparison import Watching, compared_actions
from .counts import compared_counts
from .database import Database, Row
from .engine import Reader
from .facts import Facts
from .findings import Finding
from .kept_answers import KeptAnswers

__all__ = ["Finding", "Verification", "verify"]

_MOST_FINDINGS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a reading of the log found; `entries` were read, `head` is its last entry as it stands.

    Of so many `untold` rows the log does not tell all: an earlier version stored them.
    """

    entries: int
    head: Head
    findings: tuple[Finding, ...] = ()
    untold: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(
    database: Database,
    *,
    known: tuple[Head, ...] = (),
    start: Head | None = None,
    watch: Watching = lambda items, what, total: items,
) -> Verification:
    """Read the log and say which entries were changed, removed, reordered or inserted afterwards.

    What it tells of is compared with it too: actions and approvals, keys, commands, records, kept answers, sessions.

    What this cannot see: whoever can write the file can also make a whole new chain and head. Heads that were noted
    elsewhere (`known`) show that: an entry that one of them names must still be there with that hash.

    Args:
        database: which log.
        known: heads that were noted elsewhere.
        start: a head up to which the log was verified before: what it names must be there, only what follows is read,
            and only the actions that this tells of are compared. What else is kept is compared as ever.
        watch: is handed what is read, for a progress bar.
    """
    findings: list[Finding] = []
    wanted = {item.seq: item.hash for item in (*known, *((start,) if start else ()))}
    first = max(start.seq, 1) if start else 1
    expected, previous, count = first, None if start and start.seq else NO_HASH, 0
    last = start or Head(0, NO_HASH)
    moved: dict[int, str] = {}
    facts, answers = Facts(), KeptAnswers(database.now())
    with database.snapshot() as reader:
        recorded = next(reader.each("SELECT seq, hash FROM audit_head"), None)
        if recorded and not isinstance(recorded["seq"], int):
            recorded = None  # something forged
        for row in reader.each(
            "SELECT seq, entry FROM audit WHERE action_id IS NULL AND seq < ? ORDER BY seq", (first,)
        ):
            facts.add(row)
        rows = reader.each("SELECT * FROM audit WHERE seq >= ? ORDER BY seq", (first,))
        for row in watch(rows, "entries", max(recorded["seq"] - first + 1, 0) if recorded else None):
            seq, count = row["seq"], count + 1
            claimed = _claimed(row)
            if claimed is not None and claimed.data.kept:
                answers.add(seq, claimed.at, len(claimed.data.kept))
            if row["action_id"] is None:
                facts.add(row)
            if len(findings) < _MOST_FINDINGS:
                findings += _findings(row, claimed, expected, previous, moved)
                if seq in wanted and wanted[seq] != row["hash"]:
                    findings.append(Finding(seq, "changed", f"entry {seq} is not the one that was noted earlier"))
            wanted.pop(seq, None)
            expected, previous = seq + 1, row["hash"]
            last = Head(seq, row["hash"])
        compared = compared_actions(reader, start.seq if start else 0, last.seq, watch)
        findings += itertools.islice(compared, _MOST_FINDINGS)
        findings += itertools.islice(_others(reader, facts, answers, first, counts=start is None), _MOST_FINDINGS)
    for seq in [seq for seq in wanted if seq < first]:
        del wanted[seq]
    beyond = max([recorded["seq"] if recorded else 0, *wanted])
    if recorded is None:
        findings.append(Finding(last.seq, "head", "the record of the last entry is missing"))
    elif beyond > last.seq:
        findings.append(Finding(last.seq + 1, "removed", f"{_span(last.seq + 1, beyond)} removed from the end"))
    elif recorded["seq"] < last.seq:
        following = recorded["seq"] + 1
        findings.append(Finding(following, "inserted", f"{_span(following, last.seq)} appended by something else"))
    elif recorded["hash"] != last.hash and not findings:
        findings.append(Finding(last.seq, "changed", f"entry {last.seq} is not the one that was recorded as the last"))
    return Verification(entries=count, head=last, findings=tuple(findings), untold=facts.untold)


def _others(reader: Reader, facts: Facts, answers: KeptAnswers, first: int, *, counts: bool) -> Iterator[Finding]:
    yield from facts.compared(reader, complete=True)
    yield from answers.compared(reader, first, old=facts.old)
    if counts:
        yield from compared_counts(reader, archived=False)


# --- the chain


class _Data(msgspec.Struct):
    kept: list[msgspec.Raw] = []


class _Columns(msgspec.Struct):
    """What stands in an entry and in columns of its own, when it was written, and what answers it tells of."""

    seq: int
    tenant: str
    action_id: int | None
    at: str = ""
    data: _Data = msgspec.field(default_factory=_Data)


_read_columns = msgspec.json.Decoder(_Columns).decode


def _claimed(row: Row) -> _Columns | None:
    try:
        return _read_columns(row["entry"])
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        return None


def _findings(
    row: Row, claimed: _Columns | None, expected: int, previous: str | None, moved: dict[int, str]
) -> list[Finding]:
    seq = row["seq"]
    found = []
    if seq > expected:
        # The chain says so too, in the entry after the gap; one finding tells both.
        found.append(Finding(expected, "removed", f"{_span(expected, seq - 1)} removed"))
    if claimed is None:
        return [*found, Finding(seq, "changed", f"entry {seq} was changed: it is no entry any more")]
    if row["hash"] != chained(row["previous"], row["entry"]):
        found.append(Finding(seq, "changed", f"entry {seq} was changed: its hash does not fit its content"))
    elif claimed.seq != seq:
        moved[claimed.seq] = row["hash"]
        found.append(Finding(seq, "reordered", f"at place {seq} stands entry {claimed.seq}"))
    elif (claimed.tenant, claimed.action_id) != (row["tenant"], row["action_id"]):
        found.append(Finding(seq, "changed", f"entry {seq} was changed: its columns do not fit its content"))
    elif previous is not None and seq == expected and row["previous"] not in (previous, moved.get(seq - 1)):
        message = f"entry {seq} does not continue entry {seq - 1}: one of the two was replaced"
        found.append(Finding(seq, "changed", message))
    return found


def _span(first: int, last: int) -> str:
    return f"entry {first} was" if first == last else f"entries {first} to {last} were"
