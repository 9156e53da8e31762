"""Signed-in people: a session represents a key of a person, for some hours at most, and ends with the key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..keys import Credential, Role
from ..store.key_store import VALID, credential_of
from ..store.store import Store, iso_time

__all__ = ["LIFETIME", "Session", "Sessions"]

# Seconds: a working day at most, and an hour without a click.
LIFETIME: Final = 8 * 3600.0
_IDLE: Final = 3600.0
# A click is noted only so often, since each note is a commit.
_NOTED_EVERY: Final = 60.0
_RANDOM_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser. The cookie's value is a secret; the database holds only its hash."""

    cookie: str
    credential: Credential
    seen_at: float

    @property
    def csrf(self) -> str:
        """The token that every form carries: only who can read the session's pages knows it."""
        return _hash("csrf", self.cookie)

    def accepts(self, token: str) -> bool:
        """Compare a form's token in constant time."""
        return hmac.compare_digest(self.csrf.encode(), token.encode("utf-8", "surrogatepass"))


class Sessions:
    """The sessions in the database, so that any of them can be ended there."""

    def __init__(self, store: Store, *, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    def open(self, credential: Credential) -> Session:
        """Begin a session for a key, and note it in the audit log."""
        now, cookie = self._now(), secrets.token_urlsafe(_RANDOM_BYTES)
        with self._store.write():
            self._store.execute("DELETE FROM sessions WHERE expires_at <= ? OR seen_at <= ?", (now, now - _IDLE))
            row = {"key_id": credential.key_id, "created_at": now, "expires_at": now + LIFETIME}
            self._store.insert("sessions", {"hash": _hash("session", cookie), **row, "seen_at": now})
            self._store.told("sessions", _hash("session", cookie), **row)
            data = {"key": credential.key_id, "via": "page"}
            self._store.audit("SIGNED_IN", tenant=credential.tenant, actor=credential.name, data=data)
        return Session(cookie, credential, now)

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie, or None if it has ended, or its key is valid no more or a user's."""
        now = self._now()
        rows = self._store.rows(
            "SELECT keys.*, sessions.seen_at FROM sessions JOIN keys ON keys.id = sessions.key_id"  # noqa: S608 - ours
            f" WHERE sessions.hash = ? AND sessions.expires_at > ? AND sessions.seen_at > ? AND {VALID}",
            (_hash("session", cookie), now, now - _IDLE, iso_time(now)),
        )
        if not rows:
            return None
        who = credential_of(rows[0])
        return None if who.role is Role.USER else Session(cookie, who, rows[0]["seen_at"])

    def is_due(self, session: Session) -> bool:
        """Say whether it is time to note that a person is there."""
        return self._now() - session.seen_at >= _NOTED_EVERY

    def touch(self, session: Session) -> None:
        """Note that a person is there."""
        with self._store.write():
            digest = _hash("session", session.cookie)
            self._store.execute("UPDATE sessions SET seen_at = ? WHERE hash = ?", (self._now(), digest))

    def close(self, session: Session, *, everywhere: bool) -> None:
        """End one session, or all of the same key and its tokens."""
        who, digest = session.credential, _hash("session", session.cookie)
        data: dict[str, object] = {"key": who.key_id, "via": "page"}
        with self._store.write():
            if everywhere:
                self._store.execute("DELETE FROM sessions WHERE key_id = ?", (who.key_id,))
                data["round"] = self._store.end_tokens(who.key_id)
            else:
                self._store.execute("DELETE FROM sessions WHERE hash = ?", (digest,))
                self._store.told("sessions", digest, gone=True)
            event = "SIGNED_OUT_EVERYWHERE" if everywhere else "SIGNED_OUT"
            self._store.audit(event, tenant=who.tenant, actor=who.name, data=data)


def _hash(purpose: str, cookie: str) -> str:
    return hashlib.sha256(f"{purpose}:{cookie}".encode("utf-8", "surrogatepass")).hexdigest()
