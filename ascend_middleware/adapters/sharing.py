"""Calls that are made once for all who ask for the same thing at the same time: the step `Shared`, for both runners."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..flow import Shared, asyncio_loop, drive, drive_async, running_loop
from ..fork import process_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncSharing", "SyncSharing"]


class _Call:
    """A call under way. `done` is an event of who waits for it; `failure` stays None where it was cancelled."""

    __slots__ = ("_turns", "done", "failure", "is_made", "value")

    def __init__(self, done: Any) -> None:
        self.done: Final = done
        self.is_made = False
        self.value: Any = None
        self.failure: BaseException | None = None
        self._turns = itertools.count()

    def result(self) -> tuple[Any, bool] | None:
        """Return what the call gave and whether this asks first; None where it gave nothing."""
        return (self.value, next(self._turns) == 0) if self.is_made else None


class SyncSharing:
    """Among threads: one makes the call, the others wait for it."""

    def __init__(self) -> None:
        self._calls: Final[dict[Any, _Call]] = {}

    def perform(self, step: Shared, send: Callable[[Any], Any]) -> tuple[Any, bool] | None:
        """Carry out a step; `send` performs the steps of a call."""
        # By the process, too: of a call of its parent, a forked child never hears.
        key, mine = (process_id(), step.key), _Call(threading.Event())
        call = self._calls.setdefault(key, mine)
        if call is not mine:
            call.done.wait(step.seconds)
            return call.result()
        try:
            mine.value = drive(step.make(), send)
            mine.is_made = True
        finally:
            self._calls.pop(key, None)
            mine.done.set()
        return mine.result()


class AsyncSharing:
    """On an event loop: a task of its own makes the call, which goes on when the one who began it is cancelled."""

    def __init__(self) -> None:
        self._calls: Final[dict[Any, _Call]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def perform(self, step: Shared, send: Callable[[Any], Awaitable[Any]]) -> tuple[Any, bool] | None:
        """Carry out a step; `send` performs the steps of a call."""
        key, mine = (running_loop(), step.key), _Call(anyio.Event())
        call = self._calls.setdefault(key, mine)
        if call is mine:
            self._begin(key, mine, step, send)
            await mine.done.wait()  # its own deadline ends it
            if mine.failure is not None:
                raise mine.failure
        else:
            with anyio.move_on_after(step.seconds):
                await call.done.wait()
        return call.result()

    def _begin(self, key: Any, call: _Call, step: Shared, send: Callable[[Any], Awaitable[Any]]) -> None:
        async def made() -> None:
            try:
                call.value = await drive_async(step.make(), send)
                call.is_made = True
            except Exception as error:
                call.failure = error
            finally:
                self._calls.pop(key, None)
                call.done.set()

        loop = asyncio_loop()
        if loop is None:
            sys.modules["trio"].lowlevel.spawn_system_task(made)
            return
        task = loop.create_task(made())
        self._tasks.add(task)  # the loop itself does not keep it
        task.add_done_callback(self._tasks.discard)
