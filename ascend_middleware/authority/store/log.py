"""The audit log as what the store does writes it: an entry in the transaction of what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from ..cursors import Cursor
from . import audit, verification
from .audit import canonical_json
from .comparison import compared_action
from .findings import Finding
from .listing import Listing, read_page
from .registry_store import Records

__all__ = ["Log"]

# In an entry's text; within a text of its data the quotes would have backslashes.
_USED: Final = '%"event":"ACTION_USED"%'


class Log(Records):
    """Records, and the log of what happens to them and to everything else.

    Attributes:
        on_entry: is told of each entry, event, tenant and data, once it is durable; it must be quick.
    """

    on_entry: Callable[[str, str, Mapping[str, Any]], None] | None = None

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
            # The head, not the last row: if rows are missing at the end, the gap must stay visible for ever.
            last, previous = self.tip()
            told = {"at": at or self.moment(), "tenant": tenant, "event": event, "actor": actor, "data": data}
            entry = canonical_json({"seq": last + 1, "action_id": action_id, **told})
            digest = audit.chained(previous, entry)
            row = {"seq": last + 1, "entry": entry, "tenant": tenant, "action_id": action_id, "previous": previous}
            self.insert_late("audit", {**row, "hash": digest})
            self.advance(last + 1, digest)
            if self.on_entry is not None:
                self.after_commit(partial(self.on_entry, event, tenant, data))

    def audit_trail(self, action_id: int, *, tenant: str, uses: int = 0) -> list[dict[str, Any]]:
        """Return the entries about one action, oldest first, each with its hash; of its uses the last so many."""
        about, place = "SELECT seq, entry, hash FROM audit WHERE action_id = ? AND tenant = ?", (action_id, tenant)
        rows = list(self.rows(f"{about} AND entry NOT LIKE ? ORDER BY seq", (*place, _USED)))
        if uses:
            rows += self.rows(f"{about} AND entry LIKE ? ORDER BY seq DESC LIMIT ?", (*place, _USED, uses))
            rows.sort(key=lambda row: int(row["seq"]))
        return [{**json.loads(row["entry"]), "hash": row["hash"]} for row in rows]

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
