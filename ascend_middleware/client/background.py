"""Work that a client repeats in the background until it is closed: heartbeats, and asking for the kill switch."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from .. import masking
from ..exceptions import ConfigurationError
from ..fork import only_forks, renew_once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncRepeating", "Repeating"]

_log = masking.get_logger("ascend_middleware.client.background")


class Repeating:
    """Runs a job in a daemon thread, at once and then at each interval, whatever the job took.

    Args:
        name: of the thread.
        job: what to do; what it raises is logged and ends nothing.
        interval: seconds from one start to the next.
    """

    def __init__(self, name: str, job: Callable[[], object], interval: float) -> None:
        self._name: Final = name
        self._job: Final = job
        self.interval: Final = interval
        self._end = threading.Event()
        self._pid = 0
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Start the thread, or start it again in a forked child, where it was lost."""
        if self._pid != os.getpid() and not only_forks():
            renew_once(lambda: self._pid, self._start)

    def _start(self) -> None:
        ended, self._end = self._end.is_set(), threading.Event()
        if ended:
            self._end.set()
        else:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._pid = os.getpid()

    def stop(self) -> None:
        """Let it not begin again; does not wait for a job under way."""
        if self._pid != os.getpid():
            self._end = threading.Event()  # a thread of the parent may have held the lock in this one
        self._end.set()

    def _run(self) -> None:
        end = self._end
        due = time.monotonic()
        while not end.is_set():
            try:
                self._job()
            except Exception:
                _log.exception("%s failed", self._name)
            due = max(due + self.interval, time.monotonic())
            end.wait(max(0.0, due - time.monotonic()))


class AsyncRepeating:
    """The same as a task of the running asyncio loop; it ends with its loop."""

    def __init__(self, name: str, job: Callable[[], Awaitable[object]], interval: float) -> None:
        self._name: Final = name
        self._job: Final = job
        self.interval: Final = interval
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._ended = False

    def ensure(self) -> None:
        """Start the task, or start it again where its loop or process is no more.

        Raises:
            ConfigurationError: no asyncio loop runs here.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(f"{self._name} needs a running asyncio loop") from None
        alive = self._task is not None and not self._task.done() and self._pid == os.getpid()
        if self._ended or (alive and self._loop is not None and not self._loop.is_closed()):
            return
        self._pid, self._loop = os.getpid(), loop
        self._task = loop.create_task(self._run(), name=self._name)

    def stop(self) -> None:
        """Cancel it; from any thread."""
        self._ended = True
        task, loop = self._task, self._loop
        if task is None or loop is None or loop.is_closed() or self._pid != os.getpid():
            return
        loop.call_soon_threadsafe(task.cancel)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._ended:
            try:
                await self._job()
            except Exception:
                _log.exception("%s failed", self._name)
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(max(0.0, due - loop.time()))
