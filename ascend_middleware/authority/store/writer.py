"""One thread makes every change of a serving authority: requests that arrive together share a commit."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from .database import Database

__all__ = ["Writer"]

_T = TypeVar("_T")

# A group ends when nothing waits or when it has so many parts: its first part must not wait for ever.
_MOST_PARTS: Final = 128


class _Job:
    __slots__ = ("error", "future", "loop", "result", "run")

    def __init__(self, run: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.run = run
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():  # its waiter was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Runs jobs in a thread of its own, in the order they come, as many to a commit as have come meanwhile.

    What a job returned or raised is told only after the commit. While one group is synced to disk the next gathers, so
    that the cost of a commit is shared the more, the more there is to do.

    Args:
        database: what the jobs change, each within `Database.write()`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether jobs can be given."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="ascend-authority-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what has been given, and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    async def run(self, job: Callable[[], _T]) -> _T:
        """Run a job, and return what it returned once that is durable.

        A caller that is cancelled does not undo its job.

        Raises:
            sqlite3.Error: the group could not be committed, so nothing of the job was kept; or the job raised it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put(_Job(job, loop, future))
        return await future

    def _work(self) -> None:
        while True:
            group = self._gather()
            if group:
                self._commit(group)
                _settle(group)
            else:
                return

    def _gather(self) -> list[_Job]:
        """Return what waits, at least one job; nothing once the end was asked for and all before it is done."""
        job = self._jobs.get()
        group: list[_Job] = []
        while job is not None:
            group.append(job)
            if len(group) == _MOST_PARTS:
                return group
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._jobs.put(None)
        return group

    def _commit(self, group: list[_Job]) -> None:
        # Everything is caught, panics of compiled libraries too: a writer that ends would leave all others waiting.
        try:
            with self._database.group():
                for job in group:
                    try:
                        job.result = job.run()
                    except BaseException as error:
                        job.error = _told(error)
        except BaseException as error:
            for job in group:
                job.error = _told(error)


def _told(error: BaseException) -> Exception:
    """Return what the caller gets: its own exception, unless that would end more than its request."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def _settle(group: list[_Job]) -> None:
    """Tell the results, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_all, jobs)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            continue


def _settle_all(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()
