"""What only one process may do at a time, also where several serve one database."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final

from ascend_middleware.exceptions import ConflictError

from .database import Database

__all__ = ["Lease"]

# Seconds for which it holds without being renewed: so long nobody takes over from a process that was killed.
_SECONDS: Final = 15.0
_RENEWED_AFTER: Final = 3.0


class Lease:
    """One process's turn at something, which ends by itself unless it is renewed."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._renewed = 0.0

    def take(self) -> bool:
        """Take the turn, unless it is somebody else's."""
        database, now = self._database, self._database.now()
        with database.write():
            row = {"name": self._name, "holder": self._holder, "until": now + _SECONDS}
            database.insert("leases", row, once=True)
            done = database.execute(
                "UPDATE leases SET holder = ?, until = ? WHERE name = ? AND (holder = ? OR until <= ?)",
                (self._holder, now + _SECONDS, self._name, self._holder, now),
            )
            self._renewed = now
            return bool(done.rowcount)

    def renew(self, *, anyway: bool = False) -> None:
        """Keep the turn; raise `ConflictError` if another process has taken it. Within `write`: `anyway`."""
        if (anyway or not 0 <= self._database.now() - self._renewed < _RENEWED_AFTER) and not self.take():
            raise ConflictError(f"another process has taken over: {self._name}")

    def give_back(self) -> None:
        """Let others have their turn."""
        with self._database.write():
            self._database.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (self._name, self._holder))
