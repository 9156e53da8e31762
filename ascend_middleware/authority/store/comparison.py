"""Actions and approvals compared with what the audit log says of them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from ..keys import LOCAL, person
from .audit import DECIDED, Entry, canonical_json, digest, read_entry, without_faults
from .engine import Reader, Row
from .findings import Finding, gone, unknown, unlike
from .past import ERASED, Past, as_written

__all__ = ["SUBMITTED", "Watching", "compared_action", "compared_actions", "compared_range", "compared_rows"]

# Actions that are compared at a time.
_AT_ONCE: Final = 1000
_THOUSANDS: Final = "thousands of {}"
# Passes items on, and tells somebody what they are and how many there will be.
Watching: TypeAlias = "Callable[[Iterable[Any], str, int | None], Iterable[Any]]"
SUBMITTED: Final = "ACTION_SUBMITTED"
_ADDED: Final = "ACTION_APPROVAL_ADDED"
_EXPIRED: Final = "ACTION_EXPIRED"
_OUTCOMES: Final = ("ACTION_COMPLETED", "ACTION_FAILED")
_USED: Final = "ACTION_USED"
# Status and approval of what may be used by further requests.
_REUSABLE: Final = ("approved", None)
_OBSERVED: Final = "observed"
# What an entry says of a submission besides its judgement.
_APART: Final = frozenset(
    {
        "agent_id",
        "action_type",
        "credentials",
        "judgement",
        "kept",
        "key",
        "parent_action_id",
        "rest",
        "risk_level",
        "risk_score",
        "session",
        "submission",
        "via",
    }
)
_MISSING: Final = object()
_FAULTS: Final = '"faults":'
_SALT: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class _Told:
    """What the log says of one action.

    `columns` are the values that its row must have; `hashes` those of its texts; `approvals` are by whom, with the
    number of the entry.
    """

    seq: int = 0
    last: int = 0
    columns: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    submitted: Mapping[str, Any] = field(default_factory=dict)
    approvals: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    erased: int = 0  # the entry that tells that its data was erased
    # What the log says against itself: the fact, and the words.
    against: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Take the next entry about the action."""
        seq = self.last = row["seq"]
        try:
            entry = read_entry(row["entry"])
            entry.data.pop("kept", None)  # of the answer that was kept, and not of the action
            self._check(seq, entry.event)
            if entry.event == SUBMITTED:
                self.seq = seq
                self._submitted(entry)
            elif self.seq and entry.event == _ADDED:
                self._added(seq, entry)
            elif self.seq and entry.event in DECIDED:
                self.seq = seq
                self._decided(seq, entry)
            elif self.seq and entry.event == ERASED:
                self.erased = seq
                # Both were told with the submission: an erasure cannot put anything else there.
                self.hashes["submission"] = self.submitted["rest"]
                self.columns["salt"] = ""
            elif self.seq and entry.event in _OUTCOMES:
                self.columns |= {"outcome": canonical_json(entry.data), "updated_at": entry.at}
            elif self.seq and entry.event == _USED and (self.columns["status"], self.columns["approval"]) != _REUSABLE:
                words = f"entry {seq} uses again what was not approved, or was approved by a person for one run"
                self.against.append((seq, "use", words))
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # told as a changed entry

    def _check(self, seq: int, event: str) -> None:
        """Note an entry that cannot follow what was told before: no authority does that."""
        if event == SUBMITTED and self.submitted:
            self.against.append((seq, "submission", f"entry {seq} submits what was submitted before"))
        if not self.seq:
            return
        status = self.columns["status"]
        if event in (_ADDED, *DECIDED) and status != "pending":
            self.against.append((seq, "status", f"entry {seq} decides about what was {status} already"))
        if event in _OUTCOMES and (status != "approved" or self.columns["outcome"] is not None):
            was = "concluded already" if status == "approved" else status
            self.against.append((seq, "outcome", f"entry {seq} concludes what was {was}"))

    def _submitted(self, entry: Entry) -> None:
        data = entry.data
        decision = data["decision"]
        self.submitted = data
        self.columns = {
            "tenant": entry.tenant,
            "agent_id": data["agent_id"],
            "status": _OBSERVED if decision == "pending" and data.get(_OBSERVED) else decision,
            "risk_score": data["risk_score"],
            "submitter": entry.actor,
            "submitted_by": data.get("key", -1),
            "expires_at": (data.get("approval") or {}).get("expires_at"),
            "approval": None,
            "outcome": None,
        }
        if "risk_level" in data:
            # Earlier versions did not tell these.
            told = {"risk_level": data["risk_level"], "session": data["session"]}
            self.columns |= {**told, "created_at": entry.at, "updated_at": entry.at}
        self.hashes = {name: data[name] for name in ("submission", "judgement") if name in data}

    def _added(self, seq: int, entry: Entry) -> None:
        data = entry.data
        key = data["key"]
        given = {"by": data["by"], "key": key if key and key > 0 else None, "comments": data["comments"]}
        self.approvals[data["by"]] = seq, {**given, "at": entry.at}
        self.columns["updated_at"] = entry.at

    def _decided(self, seq: int, entry: Entry) -> None:
        data, word = entry.data, DECIDED[entry.event]
        self.columns |= {"status": word, "approval": canonical_json(data), "updated_at": entry.at}
        given = [one for _, one in self.approvals.values()]
        given.sort(key=lambda one: (one["at"], one["by"]))
        if entry.event != _EXPIRED and data.get("approvals", []) != given:
            self.against.append((seq, "approvals", f"entry {seq} names other approvals than those before it"))
        if word != "approved":
            return
        terms = self.submitted.get("approval") or {}
        people = {person(name) for name in (*self.approvals, data["by"])}
        needed, named = terms.get("count", 1), {person(name) for name in terms.get("names", ())}
        if len(people) < needed:
            words = f"entry {seq} approves after {len(people)} of {needed} people"
            self.against.append((seq, "required count", words))
        if named and not people <= named:
            self.against.append((seq, "approver", f"entry {seq} approves, and not all who did may"))
        if self.columns["submitted_by"] != LOCAL.key_id and person(self.columns["submitter"]) in people:
            self.against.append((seq, "approver", f"entry {seq} approves by whoever submitted it"))

    def differences(self, row: Row, number: int) -> Iterator[Finding]:
        """Yield in what the action's row is not what it must be."""
        if self.erased and digest(row["submission"], str(row["salt"])) == self.submitted.get("submission"):
            words = f"entry {self.erased} tells that its data was erased, and it is still there; erase it again"
            yield Finding(self.erased, "row", f"actions {number}: {words}", "actions", str(number), "submission")
            return
        for column, said in self.columns.items():
            if row[column] != said:
                yield unlike(self.seq, "actions", number, column, row[column], said)
        salt = row["salt"] if "salt" in row.keys() else ""  # noqa: SIM118 - as with the submitter
        salted = isinstance(salt, str) and (salt == "" or _SALT.fullmatch(salt) is not None)
        if not salted:
            yield self._other(number, "salt")
        if salted and digest(row["submission"], salt) != self.hashes.get("submission", _MISSING):
            yield self._other(number, "submission")
        for fact in self._unlike_judgement(row):
            yield self._other(number, fact)
        for seq, fact, words in self.against:
            yield Finding(seq, "row", f"actions {number}, {fact}: {words}", "actions", str(number), fact)

    def _other(self, number: int, fact: str) -> Finding:
        message = f"actions {number}, {fact}: it is not what was submitted with entry {self.seq}"
        return Finding(self.seq, "row", message, "actions", str(number), fact)

    def _unlike_judgement(self, row: Row) -> list[str]:
        text, said = row["judgement"], self.hashes.get("judgement")
        has_faults = isinstance(text, str) and _FAULTS in text
        if said is not None and not has_faults and digest(text) == said:
            return []
        facts = sorted(self._misjudged(row))
        # Which texts stand in the faults, the entry tells by itself: they may be erased, and the hash stays.
        if facts or said is None or said in (digest(text), _hash_without_faults(text)):
            return facts
        return ["judgement"]

    def _misjudged(self, row: Row) -> Iterator[str]:
        """Yield which parts of the judgement are not those that the entry tells; it does not tell the explanation."""
        try:
            kept = json.loads(row["judgement"])
            names = (set(kept) | set(self.submitted)) - _APART - {"explanation"}
        except (ValueError, TypeError, RecursionError):
            yield "judgement"
            return
        for name in names:
            found, said = kept.get(name, _MISSING), self.submitted.get(name, _MISSING)
            if found == said:
                continue
            if isinstance(found, dict) and isinstance(said, dict):
                yield from (f"judgement.{name}.{one}" for one in {*found, *said} if found.get(one) != said.get(one))
            else:
                yield f"judgement.{name}"

    def unlike_approvals(self, number: int, rows: Iterable[Row]) -> Iterator[Finding]:
        """Yield in what the approvals of the action are not those that the log tells."""
        left = dict(self.approvals)
        for row in rows:
            name, place = row["approver"], f"{number}/{row['approver']}"
            if name not in left:
                yield unknown("approvals", place)
                continue
            seq, said = left.pop(name)
            for column, word in (("key_id", "key"), ("comments", "comments"), ("at", "at")):
                if row[column] != said[word]:
                    yield unlike(seq, "approvals", place, column, row[column], said[word])
        for name, (seq, _) in left.items():
            yield gone(seq, "approvals", f"{number}/{name}")


def _hash_without_faults(text: object) -> str:
    try:
        judgement = json.loads(str(text))
        return digest(canonical_json(without_faults(judgement))) if canonical_json(judgement) == text else ""
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ""


def compared_actions(reader: Reader, past: Past, start: int, end: int, watch: Watching) -> Iterator[Finding]:
    """Yield what of the actions and approvals is not what the log says; of those only told of after `start`."""
    if start:
        firsts = range(start + 1, end + 1, _AT_ONCE)
        for first in watch(firsts, _THOUSANDS.format("entries"), len(firsts)):
            upto = min(first + _AT_ONCE - 1, end)
            about = "IN (SELECT action_id FROM audit WHERE seq BETWEEN ? AND ?)"
            yield from _compared(reader, past, about, (first, upto), upto)
        alone = "SELECT id FROM actions WHERE NOT EXISTS (SELECT 1 FROM audit WHERE action_id = actions.id) ORDER BY id"
        for row in reader.each(alone):
            yield unknown("actions", row["id"])
    else:
        for first in watch(_firsts(reader), _THOUSANDS.format("actions"), _ranges(reader)):
            yield from _compared(reader, past, "BETWEEN ? AND ?", (first, first + _AT_ONCE - 1), end)
    alone = (
        "SELECT action_id, approver FROM approvals WHERE NOT EXISTS (SELECT 1 FROM actions WHERE id = action_id)"
        " ORDER BY action_id, approver"
    )
    for row in reader.each(alone):
        yield unknown("approvals", f"{row['action_id']}/{row['approver']}", "is of no action that there is")


def compared_range(reader: Reader, past: Past, first: int, last: int) -> Iterator[Finding]:
    """Yield what of the actions with these numbers is not what the log says."""
    for start in range(first, last + 1, _AT_ONCE):
        yield from _compared(reader, past, "BETWEEN ? AND ?", (start, min(last, start + _AT_ONCE - 1)), 0)


def compared_rows(entries: Iterable[Any], actions: Iterable[Any]) -> Iterator[Finding]:
    """Yield in what actions, each with its approvals, are not what entries about them say, which come in order."""
    told: dict[int, _Told] = {}
    for entry in entries:
        told.setdefault(entry["action_id"], _Told()).add(entry)
    for row in actions:
        number = row["id"]
        said = told.get(number) if isinstance(number, int) else None
        if said is None or not said.seq:
            yield unknown("actions", number)
            continue
        yield from said.differences(row, number)
        yield from said.unlike_approvals(number, row["approvals"] if isinstance(row["approvals"], list) else ())


def compared_action(reader: Reader, number: int) -> list[Finding]:
    """Return what of one action is not what the log says, the entries about it included."""
    rows = reader.rows("SELECT seq, action_id, entry, previous, hash FROM audit WHERE action_id = ?", (number,))
    found = [
        Finding(row["seq"], "changed", f"entry {row['seq']} was changed: its hash does not fit its content")
        for row in rows
        if not as_written(reader, row)
    ]
    return found + list(_compared(reader, Past(), "BETWEEN ? AND ?", (number, number), 0))


def _ranges(reader: Reader) -> int | None:
    """Return how many ranges of actions there are at most, as far as that can be told."""
    first, last = reader.rows("SELECT (SELECT min(id) FROM actions), (SELECT max(id) FROM actions)")[0]
    return (last - first) // _AT_ONCE + 1 if isinstance(first, int) and isinstance(last, int) else None


def _firsts(reader: Reader) -> Iterator[int]:
    """Yield where each range of numbers begins in which there are actions, or entries about some."""
    following = (
        "SELECT min(n) FROM (SELECT min(id) AS n FROM actions WHERE id >= ?"
        " UNION ALL SELECT min(action_id) AS n FROM audit WHERE action_id >= ?) AS firsts"
    )
    first = 0
    while True:
        found = reader.rows(following, (first, first))[0][0]
        if not isinstance(found, int):  # nothing, or what was forged, which SQLite sorts last
            return
        yield found
        first = found + _AT_ONCE


def _compared(reader: Reader, past: Past, about: str, values: tuple[int, int], end: int) -> Iterator[Finding]:
    """Compare some actions; those of which something is told after `end` (unless 0) have their turn with that."""
    told: dict[int, _Told] = {}
    entries = f"SELECT seq, action_id, entry FROM audit WHERE action_id {about} ORDER BY action_id, seq"  # noqa: S608
    for row in reader.each(entries, values):
        told.setdefault(row["action_id"], _Told()).add(row)
    approvals = _approvals(reader, about, values)
    for row in reader.each(f"SELECT * FROM actions WHERE id {about} ORDER BY id", values):  # noqa: S608
        number, said = row["id"], told.pop(row["id"], None)
        if said is not None and end and said.last > end:
            continue
        if said is None or not said.seq:
            yield unknown("actions", number)
            continue
        if "submitter" not in row.keys():  # noqa: SIM118 - a row's `in` is of values; older schemas have no such column
            said.columns.pop("submitter", None)
        yield from said.differences(row, number)
        yield from said.unlike_approvals(number, approvals.pop(number, ()))
    for number, said in told.items():
        if said.seq and not (end and said.last > end) and not past.has_action(number):
            yield gone(said.seq, "actions", number)


def _approvals(reader: Reader, about: str, values: tuple[int, int]) -> dict[int, list[Row]]:
    statement = f"SELECT * FROM approvals WHERE action_id {about} ORDER BY action_id, approver"  # noqa: S608
    groups = itertools.groupby(reader.each(statement, values), key=lambda row: row["action_id"])
    return {number: list(rows) for number, rows in groups}
