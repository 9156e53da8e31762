"""In front of every engine: turns if connections are short, and which part of the time was this process's own."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import anyio

from ...exceptions import AscendError
from ...flow import running_loop
from .common import deadline_passed, defect
from .transport import STALL_SECONDS, DeadlinePassed, Overloaded, PerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import AsyncEngine, Engine, Request, Response

__all__ = ["AsyncGate", "Gate", "Slots"]

# Who waits for longer than this part of its time would leave the authority too little of it.
_WAITING_PART: Final = 0.5
# How often an event loop is looked at while it waits for an answer.
_TICK: Final = 0.1


class Slots:
    """So many requests at the same time, of threads or of tasks.

    The slot that becomes free goes to the agent that was not served for longest, and of its requests to the one that
    waits longest: one agent with many requests keeps another one waiting for a single answer.

    Args:
        limit: requests at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._lock: Final = threading.Lock()
        self._waiting: Final[dict[str, deque[_Turn]]] = {}
        self.busy = 0

    def __len__(self) -> int:
        return sum(len(turns) for turns in self._waiting.values())

    def enter(self, agent: str, timeout: float) -> bool:
        """Take a slot, if need be by blocking the thread; True when it waited for it.

        Raises:
            Overloaded: none became free in half of `timeout`.
        """
        turn = self._ask(agent, threading.Event)
        if turn is None:
            return False
        try:
            if not turn.event.wait(timeout * _WAITING_PART):
                raise _overloaded()
        except BaseException:
            self._give_up(turn)
            raise
        return True

    async def enter_async(self, agent: str, timeout: float) -> bool:  # noqa: ASYNC109 - one deadline for all
        """Take a slot, if need be by waiting on the event loop; see `enter`."""
        turn = self._ask(agent, anyio.Event)
        if turn is None:
            return False
        try:
            with anyio.fail_after(timeout * _WAITING_PART):
                await turn.event.wait()
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                raise _overloaded() from None
            raise
        return True

    def leave(self) -> None:
        """Give the slot back: hand it over to who is next, so that nobody who comes later takes it in between."""
        with self._lock:
            agent = next(iter(self._waiting), None)
            if agent is None:
                self.busy -= 1
                return
            turns = self._waiting.pop(agent)
            turn = turns.popleft()
            if turns:
                self._waiting[agent] = turns  # behind the others
            turn.served = True
        turn.event.set()

    def _ask(self, agent: str, event: Callable[[], Any]) -> _Turn | None:
        with self._lock:
            if self.busy < self._limit:
                self.busy += 1
                return None
            turn = _Turn(agent, event())
            self._waiting.setdefault(agent, deque()).append(turn)
            return turn

    def _give_up(self, turn: _Turn) -> None:
        with self._lock:
            served = turn.served
            if not served:
                turns = self._waiting[turn.agent]
                turns.remove(turn)
                if not turns:
                    del self._waiting[turn.agent]
        if served:
            self.leave()  # handed over too late


class _Turn:
    __slots__ = ("agent", "event", "served")

    def __init__(self, agent: str, event: Any) -> None:
        self.agent: Final = agent
        self.event: Final = event
        self.served = False


def _left(timeout: float, waited: float) -> float:
    """Return what the engine may take, or raise where nothing is left: no engine is asked then."""
    if waited >= timeout:
        raise deadline_passed()
    return timeout - waited


def _overloaded() -> Overloaded:
    return Overloaded("no connection became free in time")


class Gate:
    """An engine whose requests take turns, and whose failures say what this process itself has to do with them.

    Args:
        engine: sends.
        limit: requests at the same time.
    """

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine: Final = engine
        self._slots: Final = PerProcess(lambda: Slots(limit))

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        slots: Slots = self._slots.get()
        began = time.monotonic()
        waited = time.monotonic() - began if slots.enter(request.agent, timeout) else 0.0
        try:
            return self._engine.send(request, _left(timeout, waited))
        except DeadlinePassed as error:
            error.waited += waited
            raise
        except AscendError:
            raise
        except Exception as error:
            raise defect(error) from None
        finally:
            slots.leave()

    def close(self) -> None:
        """Close what is open."""
        self._engine.close()


class AsyncGate:
    """The same for an engine of event loops.

    Args:
        engine: sends.
        limit: requests at the same time, on each loop.
    """

    def __init__(self, engine: AsyncEngine, limit: int) -> None:
        self._engine: Final = engine
        self._places: Final = PerProcess(lambda: (Slots(limit), _watch()))

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        slots: Slots
        slots, watch = self._places.get(running_loop())
        began = time.monotonic()
        waited = time.monotonic() - began if await slots.enter_async(request.agent, timeout) else 0.0
        before = watch.begin() if watch is not None else 0.0
        try:
            return await self._engine.send(request, _left(timeout, waited))
        except DeadlinePassed as error:
            lost = watch.lost - before if watch is not None else 0.0
            error.waited += waited + (lost if lost > STALL_SECONDS else 0.0)
            raise
        except AscendError:
            raise
        except Exception as error:
            raise defect(error) from None
        finally:
            if watch is not None:
                watch.users -= 1
            slots.leave()

    async def aclose(self) -> None:
        """Close what is open on this loop."""
        await self._engine.aclose()


def _watch() -> _Watch | None:
    loop = running_loop()
    return _Watch(loop) if isinstance(loop, asyncio.AbstractEventLoop) else None


class _Watch:
    """Count for how long other work kept an event loop from its exchanges: one timer for all that are under way.

    Attributes:
        users: the exchanges under way; the timer ends by itself when a tick finds none.
    """

    __slots__ = ("_due", "_is_armed", "_loop", "_lost", "users")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not the other way round, too: a loop that holds this until the next tick is no reason to keep the loop.
        self._loop: Final = weakref.ref(loop)
        self._lost = 0.0
        self._due = 0.0
        self._is_armed = False
        self.users = 0

    def begin(self) -> float:
        """Count one exchange more, and return what `lost` is before it."""
        self.users += 1
        if not self._is_armed:
            self._arm()
        return self.lost

    def _arm(self) -> None:
        loop = self._loop()
        if loop is not None:
            self._is_armed = True
            self._due = loop.time() + _TICK
            loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._lost = self.lost
        self._is_armed = False
        if self.users:
            self._arm()

    @property
    def lost(self) -> float:
        """Seconds since this was made, to within a tick."""
        loop = self._loop()
        if loop is None or not self._is_armed:
            return self._lost
        return self._lost + max(0.0, loop.time() - self._due)
