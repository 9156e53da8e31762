"""Somebody who may write an authority's database, and wants to hide something."""

import json
import sqlite3

from ascend_middleware.authority.store import audit


class Forger:
    """Somebody who may write the database file, and knows how the log is made."""

    def __init__(self, path):
        self.raw = sqlite3.connect(path)
        self.triggers = self.raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in self.triggers:
            self.raw.execute(f'DROP TRIGGER "{name}"')
        self.last, self.hash = self.raw.execute("SELECT seq, hash FROM audit_head").fetchone()

    def entry(self, event):
        (text,) = self.raw.execute("SELECT entry FROM audit WHERE entry LIKE ?", (f'%"{event}"%',)).fetchone()
        return json.loads(text)

    def close(self):
        for _, statement in self.triggers:
            self.raw.execute(statement)
        self.raw.commit()
        self.raw.close()

    def append(self, event, data, *, action_id=1, **more):
        entry = {"seq": self.last + 1, "action_id": action_id, "at": "2023-11-14T22:13:20.000Z", "tenant": "default"}
        text = audit.canonical_json({**entry, "event": event, "actor": "boss", "data": data, **more})
        row = (self.last + 1, text, "default", action_id, self.hash, audit.entry_hash(self.hash, text))
        self.raw.execute("INSERT INTO audit (seq, entry, tenant, action_id, previous, hash) VALUES (?,?,?,?,?,?)", row)
        self.last, self.hash = row[0], row[-1]
        self.raw.execute("UPDATE audit_head SET seq = ?, hash = ?", (self.last, self.hash))

    def put(self, **columns):
        for name, value in columns.items():
            self.raw.execute(f"UPDATE actions SET {name} = ? WHERE id = 1", (value,))

    def write_over(self, *entries):
        """Put other texts in the place of entries, and append an erasure that tells just these."""
        told = {}
        for entry in entries:
            text = audit.canonical_json({**entry, "erased": self.last + 1})
            told[str(entry["seq"])] = audit.digest(text)
            self.raw.execute("UPDATE audit SET entry = ? WHERE seq = ?", (text, entry["seq"]))
        self.append("ACTION_ERASED", {"reason": "x", "entries": told, "columns": {}})
