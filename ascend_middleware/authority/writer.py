"""The one thread that makes every change of a served authority."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from .ahead import Coming, look_ahead
from .store.store import Store

__all__ = ["Writer"]

# A group ends when nothing waits or when it has so many parts: its first part must not wait for ever.
_MOST_PARTS: Final = 128
# Where groups had so many parts, a smaller one waits for so many seconds for more.
_MANY: Final = 8
_MOMENT: Final = 0.0005
_T = TypeVar("_T")

# A job, the request that it answers, if it is told, and who waits for it.
_Job: TypeAlias = tuple[Callable[[], Any], Coming | None, "asyncio.Future[Any]"]


class Writer:
    """One thread makes every change: jobs run in the order they come, as many to a commit as have come meanwhile.

    What a job returned or raised is told only after the commit. While one group is synced to disk the next gathers, so
    that the cost of a commit is shared the more, the more there is to do. The jobs of one turn of the event loop go to
    the thread together: each time that it is woken costs as much as much of a job.

    Attributes:
        waiting: how many jobs wait for their commit.
    """

    def __init__(self, store: Store, *, moment: float = _MOMENT) -> None:
        self._store = store
        self._moment = moment
        self._turn: list[_Job] = []
        self._turns: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._usual = 0  # how many jobs the largest of the last groups had
        self.waiting = 0

    @property
    def running(self) -> bool:
        """Whether jobs can be given."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread, for callers on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="ascend-authority-writer", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Finish what has been given, and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon(self._turns.put, None)  # behind what this turn has gathered
            await anyio.to_thread.run_sync(thread.join)

    async def run(self, job: Callable[[], _T], coming: Coming | None = None) -> _T:
        """Run a job, and return what it returned or raise what it raised once that is durable.

        A caller that is cancelled does not undo its job. If the group could not be committed, nothing of it was kept.
        """
        return await self.give(job, coming)

    def give(self, job: Callable[[], _T], coming: Coming | None = None) -> asyncio.Future[_T]:
        """Have a job run, and return what will have what `run` returns or raises."""
        future: asyncio.Future[_T] = self._loop.create_future()
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append((job, coming, future))
        self.waiting += 1
        return future

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        self._turns.put(turn)

    def _work(self) -> None:
        gathered: deque[_Job] = deque()
        while group := self._gather(gathered):
            results = self._commit(group)
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(self._tell, [future for *_, future in group], results)

    def _gather(self, gathered: deque[_Job]) -> list[_Job]:
        """Return what waits, at least one job; nothing once the end was asked for and all before it is done."""
        while len(gathered) < _MOST_PARTS:
            try:
                # Where many ask, most of those who were just answered ask again in a moment: a few do not go alone.
                few = self._usual >= _MANY and 0 < len(gathered) * 4 < self._usual * 3
                turn = self._turns.get(block=few or not gathered, timeout=self._moment if few else None)
            except queue.Empty:
                break
            if turn is None:
                if gathered:
                    self._turns.put(None)
                break
            gathered.extend(turn)
        count = min(len(gathered), _MOST_PARTS)
        self._usual = max(count, self._usual * 7 // 8)
        return [gathered.popleft() for _ in range(count)]

    def _commit(self, group: list[_Job]) -> list[tuple[Any, Exception | None]]:
        """Return what each job returned or raised."""
        results: list[tuple[Any, Exception | None]] = []
        # Everything is caught, panics of compiled libraries too: a writer that ends would leave all others waiting.
        try:
            with self._store.group():
                with contextlib.suppress(Exception):  # each job meets it by itself, and says so
                    look_ahead(self._store, [coming for _, coming, _ in group if coming is not None])
                for job, *_ in group:
                    try:
                        results.append((job(), None))
                    except BaseException as error:
                        results.append((None, _harmless(error)))
        except BaseException as error:
            return [(None, _harmless(error))] * len(group)
        return results

    def _tell(self, futures: list[asyncio.Future[Any]], results: list[tuple[Any, Exception | None]]) -> None:
        self.waiting -= len(futures)
        for future, (result, error) in zip(futures, results, strict=True):
            if future.done():  # its waiter was cancelled
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)


def _harmless(error: BaseException) -> Exception:
    """Return what the caller gets: its own exception, unless that would end more than its request."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
