"""Somebody who may write an authority's database, and wants to hide something."""

import json

from ascend_middleware.authority.store import audit

from .databases import Owner


class Forger(Owner):
    """Somebody who may write the database, of either kind, and knows how the log is made."""

    def __init__(self, place):
        super().__init__(place, guarded=False)
        ((self.last, self.hash),) = self.rows("SELECT seq, hash FROM audit_head")

    def entry(self, event):
        (text,) = self.rows("SELECT entry FROM audit WHERE entry LIKE ? ORDER BY seq LIMIT 1", f'%"{event}"%')[0]
        return json.loads(text)

    def append(self, event, data, *, action_id=1, **more):
        entry = {"seq": self.last + 1, "action_id": action_id, "at": "2023-11-14T22:13:20.000Z", "tenant": "default"}
        text = audit.canonical_json({**entry, "event": event, "actor": "boss", "data": data, **more})
        row = (self.last + 1, text, "default", action_id, self.hash, audit.entry_hash(self.hash, text))
        self.change("INSERT INTO audit (seq, entry, tenant, action_id, previous, hash) VALUES (?,?,?,?,?,?)", *row)
        self.last, self.hash = row[0], row[-1]
        self.change("UPDATE audit_head SET seq = ?, hash = ?", self.last, self.hash)

    def put(self, **columns):
        for name, value in columns.items():
            self.change(f"UPDATE actions SET {name} = ? WHERE id = 1", value)

    def write_over(self, *entries):
        """Put other texts in the place of entries, and append an erasure that tells just these."""
        told = {}
        for entry in entries:
            text = audit.canonical_json({**entry, "erased": self.last + 1})
            told[str(entry["seq"])] = audit.digest(text)
            self.change("UPDATE audit SET entry = ? WHERE seq = ?", text, entry["seq"])
        self.append("ACTION_ERASED", {"reason": "x", "entries": told, "columns": {}})
