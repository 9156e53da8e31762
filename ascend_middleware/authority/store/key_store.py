"""Keys in the database, of which only hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from ascend_middleware.exceptions import ConflictError, NotFoundError, ValidationError

from ..keys import Credential, Role, person
from .audit import iso_time
from .database import Row
from .engine import Engine, stored_json
from .log import Log
from .registry_store import AGENT, WEBHOOK

__all__ = ["VALID", "Keys", "credential_of"]

_RANDOM_BYTES: Final = 32
_LONGEST_PATTERN: Final = 255
_MOST_SEEN: Final = 10_000
# A key that is valid; the place is for the time.
VALID: Final = "keys.revoked_at IS NULL AND (keys.expires_at IS NULL OR keys.expires_at > ?)"


class Keys(Log):
    """Issues, finds, rotates and revokes keys, each time with an audit entry."""

    def __init__(self, engine: Engine, *, now: Callable[[], float]) -> None:
        super().__init__(engine, now=now)
        self._used: dict[int, str] = {}
        # Hashes of keys that were valid when they came last.
        self._seen: set[str] = set()

    def issue_key(
        self, *, name: str, role: Role, tenant: str, lifetime: float | None = None, agents: Sequence[str] = ()
    ) -> str:
        """Store a new key and return it; it cannot be shown again.

        Args:
            name: whose key it is.
            role: what it may do.
            tenant: its organisation.
            lifetime: seconds after which it ends by itself.
            agents: for which agents it may speak; see `Credential`.
        """
        expires_at = None if lifetime is None else iso_time(self.now() + lifetime)
        return self._issue(name, role, tenant, expires_at, agents, {})[0]

    def _issue(
        self, name: str, role: Role, tenant: str, expires_at: str | None, agents: Sequence[str], more: dict[str, Any]
    ) -> tuple[str, int]:
        if not person(name):
            raise ValidationError("a key needs a name that can be seen: it says whose key it is", field="name")
        _check_agents(agents)
        # Letters, digits and underscores only: some clients take no other, and others mask a key up to its first other
        # sign. The role in its text is a hint for people; the stored role counts.
        key = f"owkai_{role}_{secrets.token_hex(_RANDOM_BYTES)}"
        digest = _hash(key)
        with self.write():
            self._running().memo.clear()
            told = {"name": name, "role": role.value, "expires_at": expires_at, "agents": list(agents)}
            row = {**told, "tenant": tenant, "agents": json.dumps(list(agents)), "lookup": digest[:8], "hash": digest}
            now = self.moment()
            number = self.insert("keys", {**row, "created_at": now})
            data = {"key": number, **told, "fingerprint": digest, **more}
            self.audit("KEY_ISSUED", tenant=tenant, actor="command line", data=data, at=now)
        return key, number

    def is_worth_a_transaction(self, key: str) -> bool:
        """Say whether a key is valid, or was when it came last: who has none makes nobody wait for a transaction."""
        return _hash(key) in self._seen or self.find_key(key) is not None

    def find_key(self, key: str) -> Credential | None:
        """Return whose key it is, or None if it is unknown, revoked or expired."""
        memo = self.memo
        if memo is not None and ("key", key) in memo:
            known: Credential | None = memo["key", key]
            return known
        digest, found, now = _hash(key), None, self.moment()
        # The index narrows by a part of the hash only; the whole is compared in constant time.
        for row in self.rows(f"SELECT * FROM keys WHERE lookup = ? AND {VALID}", (digest[:8], now)):  # noqa: S608 - ours
            if hmac.compare_digest(row["hash"].encode(), digest.encode()):
                found = credential_of(row)
                self._used[found.key_id] = now
        if memo is not None:
            memo["key", key] = found
        self._seen.discard(digest)
        if found is not None and len(self._seen) < _MOST_SEEN:
            self._seen.add(digest)
        return found

    def key(self, number: int) -> Credential | None:
        """Return whose key has a number, or None if it is unknown, revoked or expired."""
        rows = self.rows(f"SELECT * FROM keys WHERE id = ? AND {VALID}", (number, self.moment()))  # noqa: S608 - ours
        return credential_of(rows[0]) if rows else None

    def is_valid(self, number: int) -> bool:
        """Say whether who has a number may still ask; who has no key of the database always may."""
        return number <= 0 or self.key(number) is not None

    def key_of(self, key: str) -> tuple[int, str] | None:
        """Return number and organisation of a key, also of one that is not valid any more; None if there is none."""
        digest = _hash(key)
        rows = self.rows("SELECT id, tenant, hash FROM keys WHERE lookup = ?", (digest[:8],))
        return next(
            ((row["id"], row["tenant"]) for row in rows if hmac.compare_digest(row["hash"], digest)),
            None,
        )

    def list_keys(self) -> list[dict[str, Any]]:
        """Return what is known of every key; never the key."""
        columns = "id, tenant, name, role, created_at, revoked_at, expires_at, used_at, agents"
        rows = [dict(row) for row in self.rows(f"SELECT {columns} FROM keys ORDER BY id")]  # noqa: S608 - ours
        now = self.moment()
        for row in rows:
            row["agents"] = stored_json(row["agents"], f"agents of key {row['id']}")
            ended = row["expires_at"] is not None and row["expires_at"] <= now
            row["state"] = "revoked" if row["revoked_at"] else "expired" if ended else "valid"
        return rows

    def revoke_key(self, key_id: int) -> None:
        """Make a key invalid; raise `NotFoundError` if there is none of that number."""
        with self.write():
            row, now = self._row(key_id), self.moment()
            self._running().memo.clear()
            self.execute("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now, key_id))
            data = {"key": key_id, "revoked_at": row["revoked_at"] or now}
            self.audit("KEY_REVOKED", tenant=row["tenant"], actor="command line", data=data, at=now)

    def rotate_key(self, key_id: int, *, overlap: float, lifetime: float | None = None) -> tuple[str, str]:
        """Issue another key for the same and return it, and when the old one ends.

        Both are valid for `overlap` seconds. What the old one registered, its agents and webhooks, is the new one's.
        The new one ends after `lifetime` seconds; unless told, after as many as the old one was issued for.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: it is not valid any more.
        """
        with self.write():
            row, now = self._row(key_id), self.moment()
            if self.key(key_id) is None:
                raise ConflictError(f"key {key_id} is not valid any more; make a new one with `keys issue`")
            end = min(iso_time(self.now() + overlap), row["expires_at"] or "9")
            if lifetime is None and row["expires_at"] is not None:
                lifetime = _seconds(row["expires_at"]) - _seconds(row["created_at"])
            expires_at = None if lifetime is None else iso_time(self.now() + lifetime)
            agents = stored_json(row["agents"], f"agents of key {row['id']}")
            more = {"replaces": key_id}
            key, number = self._issue(row["name"], Role(row["role"]), row["tenant"], expires_at, agents, more)
            self.execute("UPDATE keys SET expires_at = ? WHERE id = ?", (end, key_id))
            self.changed()
            self.execute(
                "UPDATE records SET key_id = ? WHERE key_id = ? AND kind IN (?, ?)", (number, key_id, AGENT, WEBHOOK)
            )
            data = {"key": key_id, "expires_at": end, "by": number}
            self.audit("KEY_ROTATED", tenant=row["tenant"], actor="command line", data=data, at=now)
        return key, end

    def end_tokens(self, key_id: int) -> int:
        """End every token that stands for a key, and return how often that was done; only within `write`."""
        self._running().memo.clear()
        self.execute("UPDATE keys SET token_round = token_round + 1 WHERE id = ?", (key_id,))
        return self.token_round(key_id)

    def token_round(self, key_id: int) -> int:
        """Return how often the tokens of a key were ended."""
        rows = self.rows("SELECT token_round FROM keys WHERE id = ?", (key_id,))
        return int(rows[0][0]) if rows else 0

    def note_uses(self) -> None:
        """Store when keys were used last, as far as it was not yet; a use is only in memory until then."""
        used, self._used = self._used, {}
        if used:
            with self.write():
                for number, at in used.items():
                    self.execute("UPDATE keys SET used_at = ? WHERE id = ?", (at, number))

    def _row(self, key_id: int) -> Row:
        rows = self.rows("SELECT * FROM keys WHERE id = ?", (key_id,))
        if not rows:
            raise NotFoundError(f"there is no key {key_id}; `keys list` shows them")
        return rows[0]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _check_agents(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        head = pattern.removesuffix("*")
        if not pattern or "*" in head or head != head.strip() or not head.isprintable() or len(head) > _LONGEST_PATTERN:
            message = f"{pattern!r} is neither an agent's id nor the beginning of one with a * at its end: billing-*"
            raise ValidationError(message, field="agents")


def _hash(key: str) -> str:
    # 32 random bytes: a plain hash is enough, since such a key cannot be guessed from it.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def credential_of(row: Row) -> Credential:
    """Return whose a stored key is."""
    agents = () if row["agents"] == "[]" else tuple(stored_json(row["agents"], f"agents of key {row['id']}"))
    return Credential(row["id"], row["name"], Role(row["role"]), row["tenant"], agents)
