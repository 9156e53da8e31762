"""The audit log as what the store does writes it: an entry in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from ..cursors import Cursor
from ..keys import DEFAULT_TENANT, Credential
from . import audit, verification
from .audit import answer_digest
from .comparison import compared_action
from .engine import stored_json
from .findings import Finding
from .listing import Listing, read_page
from .registry_store import Records

__all__ = ["Log"]

# In an entry's text; within a text of its data the quotes would have backslashes.
_USED: Final = '%"event":"ACTION_USED"%'


class _Entry(msgspec.Struct):
    event: str
    tenant: str
    actor: str
    action_id: int | None
    data: dict[str, Any]
    at: str


class Log(Records):
    """Records, and the log of what happens to them and to everything else.

    An entry is held open until the next one, or the end of what is written together: what is stored after it, too, is
    told in it.

    Attributes:
        on_entry: is told of each entry, event, tenant and data, once it is durable, and how many are alike; it must be
            quick.
    """

    on_entry: Callable[[str, str, Mapping[str, Any], int], None] | None = None

    def audit(
        self,
        event: str,
        *,
        tenant: str,
        actor: str,
        action_id: int | None = None,
        data: Mapping[str, Any],
        at: str | None = None,
    ) -> None:
        """Append an entry whose hash covers the one before, in the transaction that the event belongs to.

        `at` is the time that is stored with what the entry tells of, where one is.
        """
        with self.write():
            self.seal()
            self._running().entry = _Entry(event, tenant, actor, action_id, dict(data), at or self.moment())

    def seal(self, *, end: bool = False) -> None:
        """Write the entry that is held open, with what was stored; at the end what belongs to none gets its own."""
        running = self._running()
        entry: _Entry | None = running.entry
        if entry is None and not (end and running.stored):
            return
        stored, running.entry, running.stored = running.stored, None, []
        if entry is not None and entry.action_id is not None:
            # What is told of other tables stands in entries about no action, by which it is found again.
            self._append(entry)
            entry = None
        if stored:
            tenant = stored[0].get("tenant", DEFAULT_TENANT)
            entry = entry or _Entry("STORED", tenant, "authority", None, {}, self.moment())
            entry.data["stored"] = stored
        if entry is not None:
            self._append(entry)

    def _append(self, entry: _Entry) -> None:
        # The head, not the last row: if rows are missing at the end, the gap must stay visible for ever.
        last, previous = super().tip()
        told = {"seq": last + 1, "action_id": entry.action_id, "at": entry.at, "tenant": entry.tenant}
        text, digest = audit.written(previous, {**told, "event": entry.event, "actor": entry.actor}, entry.data)
        columns = {"seq": last + 1, "entry": text, "tenant": entry.tenant, "action_id": entry.action_id}
        self.insert_late("audit", {**columns, "previous": previous, "hash": digest})
        self.advance(last + 1, digest)
        if self.on_entry is not None:
            self.after_commit(partial(self.on_entry, entry.event, entry.tenant, entry.data, 1))

    def tell_answer(self, row: Mapping[str, Any], *, by: Credential) -> int | None:
        """Have the entry that is held open tell what answer is kept, and return its number, or None if none is told."""
        running = self._running()
        if running.entry is None:
            if not running.logged:
                return None
            self.audit("ANSWER_KEPT", tenant=by.tenant, actor=by.name, data={"key": by.key_id})
        kept = {"key": row["key_id"], "path": row["path"], "name": row["name"], "answer": answer_digest(row)}
        running.entry.data.setdefault("kept", []).append(kept)
        return super().tip()[0] + 1

    def tip(self) -> tuple[int, str]:
        """Return number and hash of the last entry, as the running transaction sees it."""
        if self.memo is not None:
            self.seal()
        return super().tip()

    def audit_trail(self, action_id: int, *, tenant: str, uses: int = 0) -> list[dict[str, Any]]:
        """Return the entries about one action, oldest first, each with its hash; of its uses the last so many."""
        about, place = "SELECT seq, entry, hash FROM audit WHERE action_id = ? AND tenant = ?", (action_id, tenant)
        rows = list(self.rows(f"{about} AND entry NOT LIKE ? ORDER BY seq", (*place, _USED)))
        if uses:
            rows += self.rows(f"{about} AND entry LIKE ? ORDER BY seq DESC LIMIT ?", (*place, _USED, uses))
            rows.sort(key=lambda row: int(row["seq"]))
        found = [{**stored_json(row["entry"], f"audit entry {row['seq']}"), "hash": row["hash"]} for row in rows]
        for entry in found:
            entry.pop("salt", None)  # it confirms guesses of what was erased, so it goes nowhere
            entry.pop("sealed", None)
        return found

    def count_uses(self, action_id: int, *, tenant: str) -> int:
        """Return how often the decision about an action let a further request pass."""
        count = "SELECT count(*) FROM audit WHERE action_id = ? AND tenant = ? AND entry LIKE ?"
        return int(self.rows(count, (action_id, tenant, _USED))[0][0])

    def audit_page(self, tenant: str, *, limit: int, offset: int = 0, cursor: Cursor | None = None) -> Listing:
        """Return one page of an organisation's entries, the newest first; `ValueError` for another list's cursor."""
        with self.snapshot() as reader:
            where = {"tenant = ?": tenant}
            page: dict[str, Any] = {"limit": limit, "offset": offset, "cursor": cursor}
            return read_page(reader, "audit", where, number="seq", descending=True, **page)

    def submissions(self, action_ids: Sequence[int | None]) -> dict[int, str]:
        """Return what was submitted as each of the actions, as it is stored."""
        known = sorted({number for number in action_ids if number is not None})
        if not known:
            return {}
        places = ", ".join("?" * len(known))
        found = self.rows(f"SELECT id, submission FROM actions WHERE id IN ({places})", known)  # noqa: S608 - places
        return {row["id"]: row["submission"] for row in found}

    def unlike_log(self, action_id: int) -> list[Finding]:
        """Return what of one action, and of its approvals, is not as the log says; within `write` as it stands now."""
        with self.reading() as reader:
            return compared_action(reader, action_id)

    def verify_audit(self) -> int | None:
        """Return the number of the first audit entry that was tampered with, or None if the chain holds."""
        found = verification.verify(self).findings
        return found[0].seq if found else None
