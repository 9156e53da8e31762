"""What open pages are told: that something has changed, by server-sent events, and whether the audit log is whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ..store.database import StorageError
from ..store.patience import patience
from ..store.store import Store, iso_time
from ..store.verification import Verification, verify

__all__ = ["Feed", "Verifier"]

log = logging.getLogger(__name__)

# Seconds between looks, and between signs of life on a silent stream.
_PERIOD: Final = 0.25
_SIGN_OF_LIFE: Final = 15.0
_MOST: Final = 200
# Seconds for which a verification of a long log is good enough for those who only look.
_FRESH: Final = 300.0
# Entries up to which the log is read again whenever somebody looks and something was added.
_SHORT: Final = 20_000


class Feed:
    """Tells each open page, of which there are at most so many, when what it shows may have changed."""

    def __init__(self, store: Store, *, period: float = _PERIOD, most: int = _MOST) -> None:
        self._store = store
        self._period = period
        self._most = most
        self._pages: dict[asyncio.Queue[str | None], str] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether no more pages may listen."""
        return self._closed or len(self._pages) >= self._most

    async def listen(self, tenant: str, *, valid: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield the events for one page of an organisation until it leaves or the server stops.

        Whether the page's session still is `valid` is asked before anything is told.
        """
        inbox: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
        self._pages[inbox] = tenant
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._watch())
            told = ""
            state: str | None = await asyncio.to_thread(self._told, tenant)
            while state is not None and await asyncio.to_thread(valid):
                if state != told:
                    told = state
                    yield f"retry: 2000\ndata: {state}\n\n".encode()
                try:
                    async with asyncio.timeout(_SIGN_OF_LIFE):
                        state = await inbox.get()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._pages.pop(inbox, None)

    def state(self, tenant: str) -> dict[str, Any]:
        """Return what a page needs to know: how many actions wait, which (as one text), and how long the log is."""
        statement = "SELECT count(*), max(id), max(updated_at) FROM actions WHERE tenant = ? AND status = 'pending'"
        with self._store.snapshot() as reader:
            waiting = tuple(reader.rows(statement, (tenant,))[0])
            head = reader.rows("SELECT seq FROM audit_head")[0][0]
        return {"pending": waiting[0], "queue": ".".join(map(str, waiting)), "head": head}

    def _told(self, tenant: str) -> str:
        return json.dumps(self.state(tenant))

    async def close(self) -> None:
        """End every stream."""
        self._closed = True
        for inbox in list(self._pages):
            _put(inbox, None)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        watch = self._store.watch()
        try:
            while self._pages:
                try:
                    if await asyncio.to_thread(watch.changed):
                        for tenant in set(self._pages.values()):
                            state = await asyncio.to_thread(self._told, tenant)
                            for inbox, whose in list(self._pages.items()):
                                if whose == tenant:
                                    _put(inbox, state)
                except StorageError as error:
                    log.error("the database failed, open pages are not updated: %s", error)
                await asyncio.sleep(self._period)
        finally:
            watch.close()


def _put(inbox: asyncio.Queue[str | None], state: str | None) -> None:
    """Leave the newest in an inbox; what was not read yet is old."""
    with contextlib.suppress(asyncio.QueueEmpty):
        inbox.get_nowait()
    inbox.put_nowait(state)


class Verifier:
    """Reads the audit log when somebody looks, but a long log not each time."""

    def __init__(self, store: Store, *, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._last: tuple[Verification, float] | None = None

    def state(self, *, again: bool = False) -> tuple[Verification, str]:
        """Return what the last reading found, and when that was; a reading blocks others that want one."""
        with self._lock:
            found, at = self._last or (None, 0.0)
            if again or found is None or found.entries <= _SHORT or self._now() - at >= _FRESH:
                at = self._now()
                with patience(None):  # as long as the log is
                    found = verify(self._store)
                self._last = found, at
            return found, iso_time(at)
