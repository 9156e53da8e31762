"""Work repeated in the background until it is stopped: when it is due, which failures are logged, how it ends.

A forked child has none of its parent's threads: each is started again there at the next use.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import anyio

from .. import masking
from ..exceptions import ConfigurationError
from ..flow import asyncio_loop
from ..fork import only_forks, process_id, renew_once

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncRepeating", "Background", "FailureCount", "Repeating", "Schedule", "repeat"]

_log = masking.get_logger("ascend_middleware.client.background")


class Schedule:
    """When a job is due: each `interval` seconds from one start to the next, and missed times are skipped."""

    def __init__(self, interval: float, clock: Callable[[], float]) -> None:
        self._interval: Final = interval
        self._clock: Final = clock
        self._started_at = -1e9

    def left(self, *, times: int = 1) -> float:
        """Return the seconds until the job is due, after so many intervals; 0 if it is."""
        return max(0.0, self._started_at + times * self._interval - self._clock())

    def start(self) -> None:
        """Say that the job starts now."""
        self._started_at = self._clock()


class FailureCount:
    """Failures in a row: the first is told and, if they go on, number `again`; no others."""

    def __init__(self, *, again: int) -> None:
        self._again: Final = again
        self.number = 0

    def failed(self) -> bool:
        """Count a failure; return whether it is to be told."""
        self.number += 1
        return self.number in (1, self._again)

    def succeeded(self) -> None:
        """Begin anew."""
        self.number = 0


def repeat(job: Callable[[], float | None], end: threading.Event, *, interval: float, name: str) -> None:
    """Run a job in this thread, at once and then again and again until `end` is set, which ends the waiting too.

    It is due `interval` seconds after its last start, or returns the seconds until the next one. What it raises is
    logged and ends nothing.
    """
    schedule = Schedule(interval, time.monotonic)
    while not end.is_set():
        schedule.start()
        pause = None
        try:
            pause = job()
        except Exception:
            _log.exception("%s failed; it goes on", name)
        end.wait(schedule.left() if pause is None else pause)


class Repeating:
    """Runs a job in a daemon thread, at once and then at each interval (seconds), whatever the job took or raised."""

    def __init__(self, name: str, job: Callable[[], object], interval: float) -> None:
        self.name: Final = name
        self._job: Final = job
        self._interval: Final = interval
        self._end = threading.Event()
        self._pid = 0

    def ensure(self) -> None:
        """Start the thread, or start it again in a forked child, where it was lost."""
        if self._pid != process_id() and not only_forks():
            renew_once(lambda: self._pid, self._start)

    def _start(self) -> None:
        # A new one: a thread of the parent may have held the lock in it.
        ended, self._end = self._end.is_set(), threading.Event()
        if ended:
            self._end.set()
        else:
            how = {"interval": self._interval, "name": self.name}
            threading.Thread(
                target=repeat, args=(self._once, self._end), kwargs=how, name=self.name, daemon=True
            ).start()
        self._pid = process_id()

    def stop(self) -> None:
        """Let it not begin again; does not wait for a job under way."""
        if self._pid != process_id():
            self._end = threading.Event()
        self._end.set()

    def _once(self) -> None:
        self._job()


class AsyncRepeating:
    """The same as a task of the running asyncio loop; it ends with its loop."""

    def __init__(self, name: str, job: Callable[[], Awaitable[object]], interval: float) -> None:
        self.name: Final = name
        self._interval: Final = interval
        self._job: Final = job
        self._task: asyncio.Task[None] | None = None
        self._pid = 0
        self._ended = False

    def ensure(self) -> None:
        """Start the task, or start it again where its loop or process is no more.

        Raises:
            ConfigurationError: no asyncio loop runs here.
        """
        loop = asyncio_loop()
        if loop is None:
            raise ConfigurationError(f"{self.name} needs a running asyncio loop")
        if not self._ended and (self._task is None or self._task.done() or not self._is_here(self._task)):
            self._pid, self._task = process_id(), loop.create_task(self._run(loop), name=self.name)

    def _is_here(self, task: asyncio.Task[None]) -> bool:
        return self._pid == process_id() and not task.get_loop().is_closed()

    def stop(self) -> None:
        """Cancel it; from any thread."""
        self._ended = True
        if self._task is not None and self._is_here(self._task):
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        schedule = Schedule(self._interval, loop.time)
        while not self._ended:
            schedule.start()
            try:
                await self._job()
            except Exception:
                _log.exception("%s failed; it goes on", self.name)
            await anyio.sleep(schedule.left())


class Background:
    """What one client repeats in the background, by name."""

    def __init__(self) -> None:
        self._jobs: dict[str, Repeating | AsyncRepeating] = {}

    def start(self, job: Repeating | AsyncRepeating) -> None:
        """Start a job in place of the one of the same name."""
        self.stop(job.name)
        self._jobs[job.name] = job
        job.ensure()

    def ensure(self) -> None:
        """Start again what was lost with a fork or an event loop."""
        for job in list(self._jobs.values()):
            job.ensure()

    def stop(self, name: str) -> None:
        """Stop a job, if there is one."""
        job = self._jobs.pop(name, None)
        if job is not None:
            job.stop()

    def stop_all(self) -> None:
        """Stop every job, for good: those that a fork lost are not started again either."""
        for job in list(self._jobs.values()):
            job.stop()
