"""Keys in the database, of which only hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, Final

from ascend_middleware.exceptions import NotFoundError, ValidationError

from ..keys import Credential, Role, person
from .database import Row
from .log import Log

__all__ = ["Keys"]

_RANDOM_BYTES: Final = 32


class Keys(Log):
    """Issues, finds and revokes keys, each time with an audit entry."""

    def issue_key(self, *, name: str, role: Role, tenant: str) -> str:
        """Store a new key and return it; it cannot be shown again."""
        if not person(name):
            raise ValidationError("a key needs a name that can be seen: it says whose key it is", field="name")
        # Letters, digits and underscores only: some clients take no other, and others mask a key up to its first other
        # sign. The role in its text is a hint for people; the stored role counts.
        key = f"owkai_{role}_{secrets.token_hex(_RANDOM_BYTES)}"
        digest = _hash(key)
        with self.write():
            self._running().memo.clear()
            row = {"tenant": tenant, "name": name, "role": role.value, "lookup": digest[:8], "hash": digest}
            number = self.insert("keys", {**row, "created_at": self.moment()})
            self.audit("KEY_ISSUED", tenant=tenant, actor="command line", data={"key": number, "role": role})
        return key

    def find_key(self, key: str) -> Credential | None:
        """Return whose key it is, or None if it is unknown or revoked."""
        digest = _hash(key)
        memo = self.memo
        if memo is not None and ("key", digest) in memo:
            known: Credential | None = memo["key", digest]
            return known
        found = None
        # The index narrows by a part of the hash only; the whole is compared in constant time.
        for row in self.rows("SELECT * FROM keys WHERE lookup = ? AND revoked_at IS NULL", (digest[:8],)):
            if hmac.compare_digest(row["hash"].encode(), digest.encode()):
                found = _credential(row)
        if memo is not None:
            memo["key", digest] = found
        return found

    def key(self, number: int) -> Credential | None:
        """Return whose key has a number, or None if it is unknown or revoked."""
        rows = self.rows("SELECT * FROM keys WHERE id = ? AND revoked_at IS NULL", (number,))
        return _credential(rows[0]) if rows else None

    def list_keys(self) -> list[dict[str, Any]]:
        """Return what is known of every key; never the key."""
        rows = self.rows("SELECT id, tenant, name, role, created_at, revoked_at FROM keys ORDER BY id")
        return [dict(row) for row in rows]

    def revoke_key(self, key_id: int) -> None:
        """Make a key invalid; raise `NotFoundError` if there is none of that number."""
        with self.write():
            rows = self.rows("SELECT tenant FROM keys WHERE id = ?", (key_id,))
            if not rows:
                raise NotFoundError(f"there is no key {key_id}")
            self._running().memo.clear()
            self.execute("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (self.moment(), key_id))
            self.audit("KEY_REVOKED", tenant=rows[0]["tenant"], actor="command line", data={"key": key_id})


def _hash(key: str) -> str:
    # 32 random bytes: a plain hash is enough, since such a key cannot be guessed from it.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _credential(row: Row) -> Credential:
    return Credential(row["id"], row["name"], Role(row["role"]), row["tenant"])
