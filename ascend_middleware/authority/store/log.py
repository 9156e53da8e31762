"""The audit log as what the store does writes it: an entry in the transaction of what it tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import audit, verification
from .audit import canonical_json
from .registry_store import Records

__all__ = ["Log"]


class Log(Records):
    """Records, and the log of what happens to them and to everything else."""

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

    def audit_trail(self, action_id: int, *, tenant: str) -> list[dict[str, Any]]:
        """Return the entries about one action, oldest first, each with its hash."""
        rows = self.rows(
            "SELECT entry, hash FROM audit WHERE action_id = ? AND tenant = ? ORDER BY seq", (action_id, tenant)
        )
        return [{**json.loads(row["entry"]), "hash": row["hash"]} for row in rows]

    def verify_audit(self) -> int | None:
        """Return the number of the first audit entry that was tampered with, or None if the chain holds."""
        found = verification.verify(self).findings
        return found[0].seq if found else None
