"""Moves old actions and audit entries into archives, so that nothing is lost or there twice, wherever it is ended.

The steps of one archive, each durable before the next begins: the plan is stored; the file is written and read again;
an entry of the audit log names it; what it holds is deleted, some at a time. A run first ends what an earlier one left.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from ascend_middleware.exceptions import AscendError, ConflictError

from ..keys import DEFAULT_TENANT
from ..policy.approvers import OBSERVED
from .archives import (
    ARCHIVED_ACTIONS,
    ARCHIVED_AUDIT,
    archive_path,
    as_numbers,
    as_ranges,
    digest_of,
    discard_archive,
    read_archive,
    write_archive,
)
from .audit import NO_HASH, iso_time
from .comparison import compared_range
from .database import Reader, Row
from .erasure import lost_personal_data_only
from .kept_answers import KEEP_ANSWERS
from .leases import Lease
from .log import Log
from .past import ERASED, Past, archived_upto, as_written
from .registry_store import WEBHOOK

__all__ = ["Archived", "Archiver", "nobody_of", "under_hold", "unknown_organisations"]

# So much is in one file, and is deleted in one transaction, for which decisions wait.
_ACTIONS_IN_FILE: Final = 10_000
_ENTRIES_IN_FILE: Final = 50_000
_AT_ONCE: Final = 100
_READ_AT_ONCE: Final = 500
# The end of everything, where nothing sets an earlier one.
_NO_END: Final = 2**62
# Nothing will ever change in these.
_FINISHED: Final = f"(status IN ('denied', '{OBSERVED}') OR (status = 'approved' AND outcome IS NOT NULL))"
# The highest number of an action that was submitted before a time, by the index of each organisation.
_OLDEST: Final = (
    "WITH RECURSIVE whose (tenant) AS (SELECT min(tenant) FROM actions UNION ALL"
    " SELECT (SELECT min(tenant) FROM actions WHERE tenant > whose.tenant) FROM whose WHERE whose.tenant IS NOT NULL)"
    " SELECT max(id) FROM (SELECT (SELECT id FROM actions WHERE actions.tenant = whose.tenant AND created_at < ?"
    " ORDER BY created_at DESC, id DESC LIMIT 1) AS id FROM whose WHERE whose.tenant IS NOT NULL) AS found"
)
_Rows: TypeAlias = "Iterator[dict[str, Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """One archive that was made; `rows` is how many actions or entries it holds."""

    file: str
    kind: str
    first: int
    last: int
    rows: int
    sha256: str


class Archiver:
    """Archives into one folder.

    Args:
        store: the database.
        folder: where the files go.
        pause: is called between small parts of the work, so that a server can see to others first.
        held: organisations under a legal hold. Their actions stay; and as there is one chain of entries for all, so do
            all entries from the first one of theirs on.

    Attributes:
        lease: whose turn it is to write or to delete archives.
        held_from: the first entry that would have been archived, were there no legal hold; 0 where there is none.
    """

    def __init__(
        self, store: Log, folder: Path, *, pause: Callable[[], None] = lambda: None, held: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._folder = folder
        self._pause = pause
        self._held = tuple(held)
        self.held_from = 0
        self.lease = Lease(store, "archive")

    def run(self, *, actions: str | None, audit: str | None, without_outcome: str | None = None) -> Iterator[Archived]:
        """Archive the actions that were last changed before one time, and the entries before another; yield each file.

        An approved action of which nobody told what became of it is finished if that was before a third time, if any.

        Raises:
            AscendError: a file cannot be written or is gone, what would be archived is not what the log says, or nobody
            knows an organisation that is to be held.
            ConflictError: another process archives.
        """
        if not self._folder.is_dir():
            raise AscendError(f"there is no folder {self._folder} for archives")
        for name in unknown_organisations(self._store, self._held):
            raise AscendError(f"nothing is archived: {nobody_of(name)}; correct it, or take it out")
        if not self.lease.take():
            raise ConflictError("another process archives already")
        # What tells of answers that are kept for their repetition stays beside them.
        audit = audit and min(audit, iso_time(self._store.now() - KEEP_ANSWERS))
        try:
            self.resume()
            done = 0
            while actions is not None and (found := self._archive_actions(actions, without_outcome or "", done)):
                yield found
                done = found.last
            while audit is not None and (found := self._archive_entries(audit)):
                yield found
        finally:
            self.lease.give_back()

    # --- the steps

    def resume(self) -> None:
        """End what an earlier run left."""
        for row in self._store.rows("SELECT * FROM archives WHERE state = 'planned'"):
            # No entry names its file, and all that may be in it is still here.
            discard_archive(archive_path(self._folder, row["name"]))
            with self._store.write():
                self._store.execute("DELETE FROM archives WHERE name = ? AND state = 'planned'", (row["name"],))
        for row in self._store.rows("SELECT * FROM archives WHERE state = 'named' ORDER BY seq"):
            self._delete(row)
        for row in self._store.rows(
            "SELECT old.name, old.kind, new.name AS other, told.entry FROM archives AS old JOIN archives AS new"
            " ON new.kind = old.kind AND new.first = old.first AND new.last = old.last AND new.state = 'done'"
            " JOIN audit AS told ON told.seq = new.seq WHERE old.state = 'replaced'"
        ):
            # A word in the table alone removes no file.
            if json.loads(row["entry"])["data"].get("replaces") == row["name"]:
                self._discard_replaced(row)

    def _discard_replaced(self, row: Row) -> None:
        """Remove a file in whose place another one is; unless the two differ in more than what was erased."""
        path, other = archive_path(self._folder, row["name"]), archive_path(self._folder, row["other"])
        if not path.exists():
            return
        pairs = itertools.zip_longest(read_archive(path), self.gently(read_archive(other)))
        if not all(lost_personal_data_only(row["kind"], *pair) for pair in pairs):
            raise AscendError(f"{path} stays: {other} does not hold the same; see `audit verify --archive`")
        discard_archive(path)

    def plan(self, kind: str, first: int, last: int) -> str:
        """Note that a file is about to be written, and return its name."""
        # Drawn at random: a backup that is put back and archived again must not write over what is there.
        name = f"{kind}-{first}-{last}-{secrets.token_hex(4)}.jsonl.gz"
        with self._store.write():
            row = {"name": name, "kind": kind, "first": first, "last": last, "state": "planned"}
            self._store.insert("archives", row)
        return name

    def _name(self, name: str, event: str, data: dict[str, Any], head: int, changes: Callable[[Row], bool]) -> bool:
        """Have the log name a file that is written, and delete here what it holds.

        If an entry after `head` changes something of that, forget the file and say so.
        """
        store = self._store
        with store.write():
            self.lease.renew(anyway=True)
            later = store.rows("SELECT action_id, entry FROM audit WHERE seq > ?", (head,))
            changed = any(map(changes, later))
            if not changed:
                self.tell(name, event, data)
        self.resume()
        return not changed

    def tell(self, name: str, event: str, data: Mapping[str, Any]) -> None:
        """Have the log name a file that is written; only within a transaction."""
        store = self._store
        store.audit(event, tenant=DEFAULT_TENANT, actor="authority", data={"file": name, **data})
        named = (store.tip()[0], data["sha256"], name)
        store.execute("UPDATE archives SET state = 'named', seq = ?, sha256 = ? WHERE name = ?", named)

    def _delete(self, row: Row) -> None:
        """Delete what a named file holds, as far as that has not been done yet."""
        path = archive_path(self._folder, row["name"])
        if not path.exists() or digest_of(path) != row["sha256"]:
            raise AscendError(
                f"the archive {path} is missing or was changed; entry {row['seq']} of the audit log names it. Put it "
                "back into this folder: what it holds may be nowhere else"
            )
        delete = self._delete_actions if row["kind"] == "actions" else self._delete_entries
        for _ in delete(row):
            self._pause()
        with self._store.write():
            self._store.execute("UPDATE archives SET state = 'done' WHERE name = ?", (row["name"],))

    def gently(self, rows: Iterable[dict[str, Any]]) -> _Rows:
        """Pass rows on, and let others have their turn between."""
        for number, row in enumerate(rows):
            if number % _READ_AT_ONCE == _READ_AT_ONCE - 1:
                self.lease.renew()
                self._pause()
            yield row

    def _unread(self) -> int:
        """Return the first entry that is still to be read for webhooks; what it and later ones tell of is kept."""
        if not self._store.rows("SELECT 1 FROM records WHERE kind = ? LIMIT 1", (WEBHOOK,)):
            return _NO_END
        return int(self._store.rows("SELECT seq FROM webhook_scan")[0][0]) + 1

    # --- actions

    def _archive_actions(self, before: str, unknown_before: str, after: int) -> Archived | None:
        with self._store.snapshot() as reader:
            head = int(reader.rows("SELECT seq FROM audit_head")[0][0])
            old = self._old_actions(reader, before, unknown_before, after)
            ids = list(old)
            if not ids:
                return None
            for finding in compared_range(reader, Past.read(reader), ids[0], ids[-1]):
                raise AscendError(f"nothing more was archived: {finding.message}; see `audit verify`")
            name = self.plan("actions", ids[0], ids[-1])
            digest, count = write_archive(self._folder / name, self.gently(_action_rows(reader, ids)))
        data = {"sha256": digest, "first": ids[0], "last": ids[-1], "actions": count, "ids": as_ranges(ids)}
        if any(old.values()):
            data["without_outcome"] = as_ranges([number for number, unknown in old.items() if unknown])
        wanted = set(ids)
        # Nothing changes in them any more, but that somebody erases their data, or tells an outcome at last; then all
        # begins anew.
        if not self._name(name, ARCHIVED_ACTIONS, data, head, lambda row: row["action_id"] in wanted):
            return self._archive_actions(before, unknown_before, after)
        return Archived(file=name, kind="actions", first=ids[0], last=ids[-1], rows=count, sha256=digest)

    def _old_actions(self, reader: Reader, before: str, unknown_before: str, after: int) -> dict[int, bool]:
        """Return the numbers of actions to archive, and whether each has no outcome, though it may have run."""
        bound = reader.rows(_OLDEST, (before,))[0][0]
        if bound is None:
            return {}
        free = f" AND tenant NOT IN ({', '.join('?' * len(self._held))})" if self._held else ""
        rows = reader.rows(
            f"SELECT id, status, outcome FROM actions WHERE id > ? AND id <= ? AND updated_at < ?"  # noqa: S608 - ours
            f" AND ({_FINISHED} OR (status = 'approved' AND updated_at < ?)){free} ORDER BY id LIMIT ?",
            (after, bound, before, unknown_before, *self._held, _ACTIONS_IN_FILE),
        )
        unread = reader.rows(
            "SELECT DISTINCT action_id FROM audit WHERE seq >= ? AND action_id IS NOT NULL", (self._unread(),)
        )
        kept = {row["action_id"] for row in unread}
        return {
            row["id"]: row["status"] == "approved" and row["outcome"] is None for row in rows if row["id"] not in kept
        }

    def _delete_actions(self, row: Row) -> Iterator[None]:
        store = self._store
        told = json.loads(store.rows("SELECT entry FROM audit WHERE seq = ?", (row["seq"],))[0]["entry"])
        archived = archived_upto(self._store)
        numbers = (n for first, last in as_numbers(told["data"]["ids"]) for n in range(first, last + 1))
        while some := tuple(itertools.islice(numbers, _AT_ONCE)):
            places = f"({', '.join('?' * len(some))})"
            with store.write():
                self.lease.renew(anyway=True)
                store.execute(f"DELETE FROM approvals WHERE action_id IN {places}", some)  # noqa: S608 - places
                store.execute(f"DELETE FROM actions WHERE id IN {places}", some)  # noqa: S608
                # What an archive of the log left here because the action was still there.
                copies = f"DELETE FROM audit WHERE action_id IN {places} AND seq <= ?"  # noqa: S608
                store.execute(copies, (*some, archived))
            yield

    # --- entries

    def _archive_entries(self, before: str) -> Archived | None:
        with self._store.snapshot() as reader:
            head = int(reader.rows("SELECT seq FROM audit_head")[0][0])
            first = archived_upto(self._store) + 1
            last = self._last_before(reader, first, before)
            if last < first:
                return None
            name = self.plan("audit", first, last)
            rows = self._whole_entries(reader, first, last)
            digest, count = write_archive(self._folder / name, self.gently(rows))
            final = reader.rows("SELECT hash FROM audit WHERE seq = ?", (last,))[0]["hash"]
        data = {"sha256": digest, "first": first, "last": last, "entries": count, "hash": final}
        if not self._name(name, ARCHIVED_AUDIT, data, head, _erases):
            return self._archive_entries(before)
        return Archived(file=name, kind="audit", first=first, last=last, rows=count, sha256=digest)

    def _last_before(self, reader: Reader, first: int, before: str) -> int:
        last, end, held = first - 1, min(self._unread(), first + _ENTRIES_IN_FILE), self._first_held(reader, first)
        for row in reader.each("SELECT seq, entry FROM audit WHERE seq >= ? AND seq < ? ORDER BY seq", (first, end)):
            if not _is_before(row["entry"], before):
                break
            if row["seq"] >= held:
                self.held_from = held
                break
            last = row["seq"]
        return last

    def _first_held(self, reader: Reader, first: int) -> int:
        statement = "SELECT min(seq) FROM audit WHERE tenant = ? AND seq >= ?"
        found = [reader.rows(statement, (tenant, first))[0][0] for tenant in self._held]
        return min((int(seq) for seq in found if seq is not None), default=_NO_END)

    def _whole_entries(self, reader: Reader, first: int, last: int) -> _Rows:
        """Yield entries as they are stored; raise `AscendError` for one that is not what was written."""
        previous = self._hash_before(reader, first)
        statement = (
            "SELECT seq, entry, tenant, action_id, previous, hash FROM audit WHERE seq BETWEEN ? AND ? ORDER BY seq"
        )
        for expected, row in enumerate(reader.each(statement, (first, last)), start=first):
            if row["seq"] != expected or row["previous"] != previous or not as_written(reader, row):
                raise AscendError(f"nothing was archived: entry {expected} is not what was written; see `audit verify`")
            previous = row["hash"]
            yield dict(row)

    def _hash_before(self, reader: Reader, first: int) -> str:
        if first == 1:
            return NO_HASH
        rows = reader.rows(
            "SELECT entry FROM audit JOIN archives ON archives.seq = audit.seq"
            " WHERE archives.kind = 'audit' AND archives.last = ?",
            (first - 1,),
        )
        try:
            return str(json.loads(rows[0]["entry"])["data"]["hash"])
        except (ValueError, LookupError, TypeError):
            raise AscendError(
                f"nothing was archived: no entry tells of entry {first - 1}, the last archived one; see `audit verify`"
            ) from None

    def _delete_entries(self, row: Row) -> Iterator[None]:
        for first in range(row["first"], row["last"] + 1, _AT_ONCE):
            with self._store.write():
                self.lease.renew(anyway=True)
                self._store.execute(
                    "DELETE FROM audit WHERE seq BETWEEN ? AND ?"
                    " AND NOT EXISTS (SELECT 1 FROM actions WHERE actions.id = audit.action_id)",
                    (first, min(row["last"], first + _AT_ONCE - 1)),
                )
            yield


def unknown_organisations(store: Log, names: Sequence[str]) -> list[str]:
    """Return which of these no key and no audit entry is of."""
    statement = "SELECT 1 FROM keys WHERE tenant = ? UNION ALL SELECT 1 FROM audit WHERE tenant = ? LIMIT 1"
    return [name for name in names if name != DEFAULT_TENANT and not store.rows(statement, (name, name))]


def nobody_of(name: str) -> str:
    """Return in words that a legal hold names nobody."""
    return f"legal_hold in [retention] names {name!r}, and nothing is known of such an organisation"


def under_hold(held: Sequence[str], held_from: int) -> str:
    """Return in words what stays because of a legal hold."""
    entries = f"; audit entries from {held_from} on stay, those of others too" if held_from else ""
    return f"under a legal hold, and not archived: {', '.join(held)}{entries}"


def _erases(row: Row) -> bool:
    return f'"event":"{ERASED}"' in row["entry"]


def _is_before(entry: str, before: str) -> bool:
    try:
        return str(json.loads(entry)["at"]) < before
    except (ValueError, KeyError, TypeError):
        raise AscendError("nothing was archived: an entry is no JSON any more; see `audit verify`") from None


def _action_rows(reader: Reader, ids: Sequence[int]) -> _Rows:
    for first in range(0, len(ids), _READ_AT_ONCE):
        some = ids[first : first + _READ_AT_ONCE]
        places = ", ".join("?" * len(some))
        given: dict[int, list[dict[str, Any]]] = {}
        for row in reader.rows(
            f"SELECT * FROM approvals WHERE action_id IN ({places}) ORDER BY action_id, at, approver",  # noqa: S608
            some,
        ):
            given.setdefault(row["action_id"], []).append(dict(row))
        for row in reader.rows(f"SELECT * FROM actions WHERE id IN ({places}) ORDER BY id", some):  # noqa: S608
            yield {**dict(row), "approvals": given.get(row["id"], [])}
