"""How a replica hears of what others write: by a connection that listens, and by a look each second all the same."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Final

from .engine import StorageError
from .postgres_link import Connection, Link, ours

__all__ = ["CHANNEL", "Listener"]

log = logging.getLogger(__name__)

CHANNEL: Final = "ascend_middleware"
# Seconds between looks.
_PERIOD: Final = 1.0


class Listener:
    """Counts the changes that were heard of; one thread and one connection, from the first watch on.

    Behind a pooler nothing can be heard, and the look each second is all.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._connection: Connection | None = None
        self.count = 0
        self.problem = ""

    def tell(self) -> None:
        """Count a change of this process's own, which is known before it is heard of."""
        self.count += 1

    def watch(self) -> _Watch:
        """Return a watch, and listen from now on."""
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._listen, name="ascend-authority-listener", daemon=True)
                self._thread.start()
        return _Watch(self)

    def close(self) -> None:
        """Stop listening, at once."""
        with self._lock:
            self._ended.set()
            thread = self._thread
            if self._connection is not None:
                _hang_up(self._connection)
        if thread is not None:
            thread.join(2 * _PERIOD)

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                with contextlib.closing(self._link.connect()) as connection, self._within_reach(connection):
                    self._follow(connection, hears=not self._link.pooled)
            except StorageError as error:
                if self._ended.is_set():
                    return
                if not self.problem:
                    log.error("changes of other replicas are not heard of: %s", error)
                self.problem = str(error)
                self._ended.wait(_PERIOD)

    @contextlib.contextmanager
    def _within_reach(self, connection: Connection) -> Iterator[None]:
        """Let `close` hang up while the connection is open, and never later: its number may be another one's then."""
        with self._lock:
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def _follow(self, connection: Connection, *, hears: bool) -> None:
        with ours():
            if hears:
                connection.execute(f"LISTEN {CHANNEL}".encode())
            seen = None
            while not self._ended.is_set():
                head = connection.execute(b"SELECT seq FROM audit_head").fetchall()
                if head != seen:
                    seen = head
                    self.count += 1
                if self.problem:
                    self.problem = ""
                    log.warning("changes of other replicas are heard of again")
                if not hears:
                    self._ended.wait(_PERIOD)
                    continue
                for _ in connection.notifies(timeout=_PERIOD):
                    self.count += 1
                    if self._ended.is_set():
                        break


def _hang_up(connection: Connection) -> None:
    """End a connection on which another thread waits, so that it waits no longer."""
    with contextlib.suppress(OSError, StorageError), ours(), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class _Watch:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._seen = -1
        self._closed = False

    def changed(self) -> bool:
        """Look whether anything was heard of since."""
        if self._closed:
            return False
        if self._listener.problem:
            raise StorageError(self._listener.problem)
        seen = self._listener.count
        changed, self._seen = seen != self._seen, seen
        return changed

    def close(self) -> None:
        """End the watch."""
        self._closed = True
