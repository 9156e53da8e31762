"""The audit log: every entry's hash covers the entry before, so that a later change can be seen."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from .database import Database, Row

__all__ = ["DECIDED", "Head", "Verification", "canonical_json", "chained", "entries", "head", "iso_time", "verify"]

_encoder = msgspec.json.Encoder(order="sorted")
_NO_HASH: Final = "0" * 64
_MOST_FINDINGS: Final = 100


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, no blanks, characters as they are."""
    return _encoder.encode(value).decode()


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds; such texts sort as the times do."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry: its number and its hash. Whoever keeps one elsewhere can tell whether the log still holds it."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read the form that `str` gives; raise `ValueError` for another text."""
        number, _, digest = text.strip().partition(":")
        if not (number.isascii() and number.isdigit() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
            raise ValueError("expected NUMBER:HASH, as `audit verify` prints it")
        return cls(int(number), digest)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong at one entry; `seq` is 0 for an action that no entry tells of.

    The kind is `changed`, `removed`, `reordered`, `inserted`; `head` if the record of the last entry is missing;
    `action` if the action is not what the log says of it.
    """

    seq: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a whole reading of the log found; `head` is its last entry as it stands."""

    entries: int
    head: Head
    findings: tuple[Finding, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def head(database: Database) -> Head:
    """Return the recorded head; of an empty log number 0 and a hash of zeros."""
    return Head(*database.tip())


def entries(database: Database, *, after: int = 0, tenant: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the entries with their hashes, oldest first, from one consistent state of the log."""
    with database.snapshot() as connection:
        for row in connection.execute("SELECT * FROM audit WHERE seq > ? ORDER BY seq", (after,)):
            if tenant is None or row["tenant"] == tenant:
                yield {**json.loads(row["entry"]), "previous": row["previous"], "hash": row["hash"]}


def verify(database: Database, *, known: tuple[Head, ...] = ()) -> Verification:
    """Read the whole log and say which entries were changed, removed, reordered or inserted afterwards.

    The actions that it tells of are compared with it too: what was submitted by whom, and how it was decided.

    What this cannot see: whoever can write the file can also make a whole new chain and head. Heads that were noted
    elsewhere (`known`) show that: an entry that one of them names must still be there with that hash.
    """
    findings: list[Finding] = []
    wanted = {item.seq: item.hash for item in known}
    expected, previous, count = 1, _NO_HASH, 0
    last = Head(0, _NO_HASH)
    moved: dict[int, str] = {}
    actions: dict[int, _Told] = {}
    with database.snapshot() as connection:
        recorded = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
        for row in connection.execute("SELECT * FROM audit ORDER BY seq"):
            seq, count = row["seq"], count + 1
            if len(findings) < _MOST_FINDINGS:
                findings += _findings(row, expected, previous, moved)
                if seq in wanted and wanted[seq] != row["hash"]:
                    findings.append(Finding(seq, "changed", f"entry {seq} is not the one that was noted earlier"))
            wanted.pop(seq, None)
            expected, previous = seq + 1, row["hash"]
            last = Head(seq, row["hash"])
            if row["action_id"] is not None:
                _note(actions, row)
        stored = connection.execute("SELECT * FROM actions ORDER BY id")
        findings += itertools.islice(_unlike(actions, stored), _MOST_FINDINGS)
    beyond = max([recorded["seq"] if recorded else 0, *wanted])
    if recorded is None:
        findings.append(Finding(last.seq, "head", "the record of the last entry is missing"))
    elif beyond > last.seq:
        findings.append(Finding(last.seq + 1, "removed", f"{_span(last.seq + 1, beyond)} removed from the end"))
    elif recorded["seq"] < last.seq:
        first = recorded["seq"] + 1
        findings.append(Finding(first, "inserted", f"{_span(first, last.seq)} appended by something else"))
    elif recorded["hash"] != last.hash and not findings:
        findings.append(Finding(last.seq, "changed", f"entry {last.seq} is not the one that was recorded as the last"))
    return Verification(entries=count, head=last, findings=tuple(findings))


def _findings(row: Row, expected: int, previous: str, moved: dict[int, str]) -> list[Finding]:
    seq = row["seq"]
    found = []
    if seq > expected:
        # The chain says so too, in the entry after the gap; one finding tells both.
        found.append(Finding(expected, "removed", f"{_span(expected, seq - 1)} removed"))
    try:
        entry = json.loads(row["entry"])
        claimed = (entry["seq"], entry["tenant"], entry["action_id"])
    except (ValueError, KeyError, TypeError):
        return [*found, Finding(seq, "changed", f"entry {seq} was changed: it is no entry any more")]
    if row["hash"] != chained(row["previous"], row["entry"]):
        found.append(Finding(seq, "changed", f"entry {seq} was changed: its hash does not fit its content"))
    elif claimed[0] != seq:
        moved[claimed[0]] = row["hash"]
        found.append(Finding(seq, "reordered", f"at place {seq} stands entry {claimed[0]}"))
    elif claimed[1:] != (row["tenant"], row["action_id"]):
        found.append(Finding(seq, "changed", f"entry {seq} was changed: its columns do not fit its content"))
    elif seq == expected and row["previous"] not in (previous, moved.get(seq - 1)):
        message = f"entry {seq} does not continue entry {seq - 1}: one of the two was replaced"
        found.append(Finding(seq, "changed", message))
    return found


@dataclass(slots=True)
class _Told:
    """What the log says of one action."""

    seq: int
    status: str = ""
    submission: str = ""
    submitter: str = ""


# The entries that decide a pending action, and how.
DECIDED: Final = {"ACTION_APPROVED": "approved", "ACTION_DENIED": "denied", "ACTION_EXPIRED": "denied"}


def _note(actions: dict[int, _Told], row: Row) -> None:
    try:
        entry = json.loads(row["entry"])
        event, data = entry["event"], entry["data"]
        if event == "ACTION_SUBMITTED":
            actions[row["action_id"]] = _Told(row["seq"], data["decision"], data["submission"], entry["actor"])
        elif event in DECIDED and row["action_id"] in actions:
            told = actions[row["action_id"]]
            told.seq, told.status = row["seq"], DECIDED[event]
    except (ValueError, KeyError, TypeError):
        return  # told as a changed entry


def _unlike(actions: dict[int, _Told], stored: Iterable[Row]) -> Iterator[Finding]:
    """Yield the actions that are not what the log says of them."""
    for row in stored:
        number, told = row["id"], actions.pop(row["id"], None)
        if told is None:
            yield Finding(0, "action", f"action {number} is not in the log")
        elif hashlib.sha256(row["submission"].encode()).hexdigest() != told.submission:
            yield Finding(told.seq, "action", f"action {number} is not what was submitted")
        elif "submitter" in row.keys() and row["submitter"] != told.submitter:  # noqa: SIM118 - a row's `in` is of values
            # Older schemas have no such column. Whoever could change it could approve what is their own.
            yield Finding(told.seq, "action", f"action {number} was not submitted by {row['submitter']!r}")
        elif row["status"] != told.status:
            message = f"action {number} says {row['status']}, entry {told.seq} says {told.status}"
            yield Finding(told.seq, "action", message)
    for number, told in actions.items():
        yield Finding(told.seq, "action", f"action {number} is gone")


def _span(first: int, last: int) -> str:
    return f"entry {first} was" if first == last else f"entries {first} to {last} were"


def chained(previous: str, entry: str) -> str:
    """Return the hash of an entry that follows the one of a hash."""
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()
