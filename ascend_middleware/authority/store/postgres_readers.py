"""Connections to PostgreSQL that are lent for one reading each."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from .engine import StorageError
from .postgres_link import Connection, Link

__all__ = ["Readers"]

# Seconds after which a connection that nobody used is looked at before it is lent.
_TRUSTED: Final = 1.0


class Readers:
    """Lends so many connections at most. Each is made by who needs it, and kept for the next.

    So an outage is told at once, and over for whoever asks after it; a pool that connects in the background has its
    callers wait, for both.
    """

    def __init__(self, link: Link, most: int) -> None:
        self._link = link
        self._places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Connection]] = []
        self._closed = False

    @contextlib.contextmanager
    def lend(self, wait: float) -> Iterator[Connection]:
        """Lend a connection; wait so many seconds at most until one is free."""
        if not self._places.acquire(timeout=max(0.0, wait)):
            raise StorageError("all connections for reading are in use")
        try:
            if self._closed:
                raise StorageError("the database is closed")
            connection = self._kept() or self._link.connect()
            try:
                yield connection
            finally:
                self._take_back(connection)
        finally:
            self._places.release()

    def _kept(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if time.monotonic() - since < _TRUSTED:
                return connection
            try:
                connection.execute(b"")
            except psycopg.Error:
                connection.close()
            else:
                return connection

    def _take_back(self, connection: Connection) -> None:
        with contextlib.suppress(psycopg.Error):
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute(b"ROLLBACK")
        if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
            self.forget()  # the others were lost with it, or are looked at by being made anew
            return
        with self._lock:
            if not self._closed:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def forget(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def close(self) -> None:
        """Close them all, those that are lent when they come back."""
        self._closed = True
        self.forget()
