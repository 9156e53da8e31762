"""Reading the audit log again: whether its chain holds, and whether the actions are what it says of them.

What is kept in memory at a time does not grow with the log.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from .archived import ArchivedActions
from .audit import NO_HASH, Head, entry_hash
from .comparison import Watching, compared_actions
from .counts import compared_counts
from .database import Database, Row
from .engine import Reader
from .facts import Facts
from .findings import Finding, mistyped
from .kept_answers import KeptAnswers
from .past import Erasures, Past

__all__ = ["Finding", "Verification", "verify"]

_MOST_FINDINGS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a reading of the log found; `entries` were read, `head` is its last entry as it stands.

    Of so many `untold` rows the log does not tell all: they are of an earlier version, or it is archived.
    `archived` entries were not read, since no archives were given; text of `erased` entries was erased, as others tell.
    """

    entries: int
    head: Head
    findings: tuple[Finding, ...] = ()
    untold: int = 0
    archived: int = 0
    erased: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(
    database: Database,
    *,
    known: tuple[Head, ...] = (),
    start: Head | None = None,
    archive: Path | None = None,
    watch: Watching = lambda items, what, total: items,
) -> Verification:
    """Read the log and say which entries were changed, removed, reordered or inserted afterwards.

    What it tells of is compared with it too: actions and approvals, keys, commands, records, kept answers, sessions. If
    any value in the database is of another type than its column's, all such values are told, and nothing else is read.

    What this cannot see: whoever can write the file can also make a whole new chain and head. Heads that were noted
    elsewhere (`known`) show that: an entry that one of them names must still be there with that hash.

    Args:
        database: which log.
        known: heads that were noted elsewhere.
        start: a head up to which the log was verified before: what it names must be there, only what follows is read,
            and only the actions that this tells of are compared. What else is kept is compared as ever.
        archive: the folder with the archives, if they are to be read as well.
        watch: is handed what is read, for a progress bar.
    """
    wanted = {item.seq: item.hash for item in (*known, *((start,) if start else ()))}
    with database.snapshot() as reader, contextlib.ExitStack() as opened:
        # Whatever reads rows below relies on their types.
        found = tuple(map(mistyped, itertools.islice(database.engine.misfits(reader), _MOST_FINDINGS)))
        if found:
            return Verification(entries=0, head=Head(0, NO_HASH), findings=found)
        past = Past.read(reader)
        chain = _Chain(past, whole=archive is not None, start=start, wanted=wanted, now=database.now())
        first, facts = chain.first, chain.facts
        recorded = next(reader.each("SELECT seq, hash FROM audit_head"), None)
        for row in reader.each(
            "SELECT seq, entry FROM audit WHERE action_id IS NULL AND seq < ? ORDER BY seq", (first,)
        ):
            facts.add(row)
        rows: Iterable[Any] = reader.each("SELECT * FROM audit WHERE seq >= ? ORDER BY seq", (first,))
        actions: ArchivedActions | None = None
        if archive is not None:
            held = past.entries(archive)
            if first == 1:
                actions = opened.enter_context(contextlib.closing(ArchivedActions(reader, past, archive)))
                held = actions.noting(held)
            archived = (row for row in held if isinstance(row, Finding) or row["seq"] >= first)
            rows = _merged(archived, rows)
        for row in watch(rows, "entries", max(recorded["seq"] - first + 1, 0) if recorded else None):
            chain.read(row)
        last, findings = chain.last, [*past.findings, *chain.findings, *chain.erasures.findings()]
        compared = compared_actions(reader, past, start.seq if start else 0, last.seq, watch)
        findings += itertools.islice(compared, _MOST_FINDINGS)
        if actions is not None:
            findings += itertools.islice(actions.compared(), _MOST_FINDINGS)
        complete = not past.last or (archive is not None and first == 1)
        findings += itertools.islice(_others(reader, past, chain, complete, counts=start is None), _MOST_FINDINGS)
    for seq in [seq for seq in wanted if seq <= chain.skipped or seq < first]:
        if seq <= chain.skipped and (start is None or seq >= start.seq):
            findings.append(Finding(seq, "archived", f"entry {seq} is archived: have the archives read as well"))
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
    return Verification(
        entries=chain.count,
        head=last,
        findings=tuple(findings),
        untold=facts.untold,
        archived=chain.skipped,
        erased=chain.erasures.count,
    )


def _others(reader: Reader, past: Past, chain: _Chain, complete: bool, *, counts: bool) -> Iterator[Finding]:
    yield from chain.facts.compared(reader, complete=complete)
    yield from chain.answers.compared(reader, chain.first, old=chain.facts.old)
    if counts:
        yield from compared_counts(reader, archived=bool(past.actions))


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


class _Chain:
    """What is found in entries that are read one after the other.

    Where archives are not read, the chain begins after what they hold. Entries before that place are copies, of actions
    that are still there: each is looked at by itself.
    """

    def __init__(self, past: Past, *, whole: bool, start: Head | None, wanted: dict[int, str], now: float) -> None:
        self.findings: list[Finding] = []
        self.erasures = Erasures()
        self.facts, self.answers = Facts(), KeptAnswers(now)
        self.count = 0
        self.skipped = 0 if whole else past.last
        self.first = 1
        self.last = Head(past.last, past.hash) if self.skipped else Head(0, NO_HASH)
        self._expected, self._previous = self.last.seq + 1, self.last.hash or None
        if start is not None and start.seq > self.skipped:
            self.first, self.last = start.seq, start
            self._expected, self._previous = start.seq, None
        self._wanted = wanted
        self._moved: dict[int, str] = {}

    def read(self, row: Row | Finding) -> None:
        """Take the next entry."""
        if isinstance(row, Finding):
            self.findings.append(row)
            return
        seq, self.count = row["seq"], self.count + 1
        copied = seq <= self.skipped
        claimed = _claimed(row)
        if claimed is not None and claimed.data.kept:
            self.answers.add(seq, claimed.at, len(claimed.data.kept))
        if row["action_id"] is None:
            self.facts.add(row)
        if len(self.findings) < _MOST_FINDINGS:
            place = (seq, None) if copied else (self._expected, self._previous)
            self.findings += self._found(row, claimed, *place)
            if self._wanted.get(seq, row["hash"]) != row["hash"]:
                self.findings.append(Finding(seq, "changed", f"entry {seq} is not the one that was noted earlier"))
        self._wanted.pop(seq, None)
        self.erasures.told(row)
        if not copied:
            self._expected, self._previous = seq + 1, row["hash"]
            self.last = Head(seq, row["hash"])

    def _found(self, row: Row, claimed: _Columns | None, expected: int, previous: str | None) -> list[Finding]:
        seq = row["seq"]
        found = []
        if seq > expected:
            # The chain says so too, in the entry after the gap; one finding tells both.
            found.append(Finding(expected, "removed", f"{_span(expected, seq - 1)} removed"))
        if claimed is None:
            return [*found, Finding(seq, "changed", f"entry {seq} was changed: it is no entry any more")]
        self.erasures.claims(row)
        if row["hash"] != entry_hash(row["previous"], row["entry"]):
            found.append(Finding(seq, "changed", f"entry {seq} was changed: its hash does not fit its content"))
        elif claimed.seq != seq:
            self._moved[claimed.seq] = row["hash"]
            found.append(Finding(seq, "reordered", f"at place {seq} stands entry {claimed.seq}"))
        elif (claimed.tenant, claimed.action_id) != (row["tenant"], row["action_id"]):
            found.append(Finding(seq, "changed", f"entry {seq} was changed: its columns do not fit its content"))
        elif previous is not None and seq == expected and row["previous"] not in (previous, self._moved.get(seq - 1)):
            message = f"entry {seq} does not continue entry {seq - 1}: one of the two was replaced"
            found.append(Finding(seq, "changed", message))
        return found


def _merged(archived: Iterable[Any], live: Iterable[Row]) -> Iterator[Any]:
    """Yield what archives hold, and then the others; what stands in both must be the same."""
    rows = iter(live)
    copy = next(rows, None)
    for row in archived:
        if isinstance(row, Finding):
            yield row
            continue
        while copy is not None and copy["seq"] < row["seq"]:
            yield copy
            copy = next(rows, None)
        if copy is not None and copy["seq"] == row["seq"]:
            if any(copy[name] != row[name] for name in ("entry", "previous", "hash")):
                yield Finding(row["seq"], "changed", f"entry {row['seq']} is not the one that its archive holds")
            copy = next(rows, None)
        yield row
    if copy is not None:
        yield copy
    yield from rows


def _span(first: int, last: int) -> str:
    return f"entry {first} was" if first == last else f"entries {first} to {last} were"
