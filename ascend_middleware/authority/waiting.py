"""Requests that are held until a decision is made, without a thread each: one watch serves all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from .bodies import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .store.store import Store

__all__ = ["MAX_WAIT", "Waiters", "read_wait"]

log = logging.getLogger(__name__)

# Seconds. Below a minute, after which proxies commonly give up on a silent connection.
MAX_WAIT: Final = 55.0
# How soon what another process decided is seen; what this one decides is seen at once.
_PERIOD: Final = 0.05
_MOST_WAITERS: Final = 4096
_PREFERRED = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)


def read_wait(query: str, headers: Mapping[str, str]) -> float:
    """Return for how many seconds a status request asks to be held, at most `MAX_WAIT`.

    It asks by `?wait=30`, or by `Prefer: wait=30` (RFC 7240), which other authorities ignore.

    Raises:
        ApiError: 422, the parameter is no number of seconds. What is odd in a preference is ignored.
    """
    given = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "wait"]
    if given:
        if len(given) > 1 or not _SECONDS.fullmatch(given[0]):
            message = "wait must be a number of seconds, given once"
            raise ApiError(422, "VALIDATION_ERROR", message, details={"field": "wait", "issue": message})
        return min(float(given[0]), MAX_WAIT)
    preferred = _PREFERRED.search(headers.get("prefer", ""))
    return min(float(preferred[1]), MAX_WAIT) if preferred else 0.0


class Waiters:
    """Holds callers until their action is decided.

    While anybody waits, one task looks whether the database has changed, which costs a few microseconds, and only then
    which of the awaited actions are decided.

    Args:
        store: where the actions are.
        period: seconds between looks.
        most: how many may wait at once; beyond it nobody is held.
    """

    def __init__(self, store: Store, *, period: float = _PERIOD, most: int = _MOST_WAITERS) -> None:
        self._store = store
        self._period = period
        self._most = most
        self._awaited: dict[int, list[asyncio.Future[None]]] = {}
        self._fresh: set[int] = set()
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def count(self) -> int:
        """How many wait."""
        return self._count

    async def until_decided(self, action_id: int, seconds: float) -> None:
        """Return when the action is not pending, when the seconds have passed, or at once if too many wait."""
        if self._count >= self._most or self._closed:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(action_id, []).append(future)
        self._fresh.add(action_id)
        self._count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return
        finally:
            self._count -= 1
            waiting = self._awaited.get(action_id, [])
            with contextlib.suppress(ValueError):
                waiting.remove(future)
            if not waiting:
                self._awaited.pop(action_id, None)

    async def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self._release(list(self._awaited))
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()

        def decided() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)

        watch = self._store.watch()
        remove = self._store.on_decision(decided)
        try:
            while self._awaited:
                changed = await asyncio.to_thread(watch.changed) or wake.is_set()
                wake.clear()
                # Who has just come may wait for what was decided before.
                fresh, self._fresh = self._fresh, set()
                asked = list(self._awaited) if changed else list(fresh)
                if asked:
                    self._release(await asyncio.to_thread(self._store.decided, asked))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._period):
                        await wake.wait()
        except sqlite3.Error as error:
            log.error("the database failed, so nobody is held until a decision: %s", error)
            self._release(list(self._awaited))
        finally:
            remove()
            watch.close()

    def _release(self, decided: list[int]) -> None:
        for number in decided:
            for future in self._awaited.pop(number, []):
                if not future.done():
                    future.set_result(None)
