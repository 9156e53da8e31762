"""In front of every engine: turns if connections are short, and which part of the time was this process's own."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import anyio

from ...exceptions import AscendError
from ...flow import asyncio_loop, running_loop
from .network import deadline_passed, defect
from .transport import STALL_SECONDS, DeadlinePassed, Overloaded, PerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import AsyncEngine, Begun, Engine, Request, Response

__all__ = ["AsyncGate", "Gate", "Slots"]

# Who waits for longer than this part of its time would leave the authority too little of it.
_WAITING_PART: Final = 0.5
# How often an event loop is looked at while it waits for an answer.
_TICK: Final = 0.1


class Slots:
    """So many requests at the same time, of threads or of tasks.

    The slot that becomes free goes to the agent that was not served for longest, and of its requests to the one that
    waits longest: one agent with many requests keeps another one waiting for a single answer.

    Attributes:
        limit: requests at the same time.
        busy: how many there are.
        waiting: who waits, by agent.
    """

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self._lock: Final = threading.Lock()
        self.waiting: Final[dict[str, deque[_Turn]]] = {}
        self.busy = 0

    def __len__(self) -> int:
        return sum(len(turns) for turns in self.waiting.values())

    def ask(self, agent: str, event: Callable[[], Any]) -> _Turn | None:
        """Take a slot if one is free; else return the turn to wait for."""
        with self._lock:
            if self.busy < self.limit:
                self.busy += 1
                return None
            turn = _Turn(agent, event())
            self.waiting.setdefault(agent, deque()).append(turn)
            return turn

    def wait(self, turn: _Turn, timeout: float) -> float:
        """Take a slot by blocking the thread; return for how long that was.

        Raises:
            Overloaded: none became free in half of `timeout`.
        """
        began = time.monotonic()
        try:
            if not turn.event.wait(timeout * _WAITING_PART):
                raise Overloaded("no connection became free in time")
        except BaseException:
            self._give_up(turn)
            raise
        return time.monotonic() - began

    async def wait_async(self, turn: _Turn, timeout: float) -> float:  # noqa: ASYNC109 - one deadline for all
        """Take a slot by waiting on the event loop; see `wait`."""
        began = time.monotonic()
        try:
            with anyio.move_on_after(timeout * _WAITING_PART):
                await turn.event.wait()
            if not turn.served:
                raise Overloaded("no connection became free in time")
        except BaseException:
            self._give_up(turn)
            raise
        return time.monotonic() - began

    def leave(self) -> None:
        """Give the slot back: hand it over to who is next, so that nobody who comes later takes it in between."""
        with self._lock:
            agent = next(iter(self.waiting), None)
            if agent is None:
                self.busy -= 1
                return
            turns = self.waiting.pop(agent)
            turn = turns.popleft()
            if turns:
                self.waiting[agent] = turns  # behind the others
            turn.served = True
        turn.event.set()

    def _give_up(self, turn: _Turn) -> None:
        with self._lock:
            served = turn.served
            if not served:
                turns = self.waiting[turn.agent]
                turns.remove(turn)
                if not turns:
                    del self.waiting[turn.agent]
        if served:
            self.leave()  # handed over too late


class _Turn:
    __slots__ = ("agent", "event", "served")

    def __init__(self, agent: str, event: Any) -> None:
        self.agent: Final = agent
        self.event: Final = event
        self.served = False


class Gate:
    """Engines whose requests take turns, and whose failures say what this process itself has to do with them.

    Args:
        engine: sends in every process; or a function that opens what sends in this one.
        limit: requests at the same time.
    """

    def __init__(self, engine: Engine | Callable[[], Engine], limit: int) -> None:
        self._shared: Final[Any] = engine if hasattr(engine, "send") else None
        # No cycle through self: a client that is dropped frees its connections at once.
        self._places: Final = PerProcess(lambda: (Slots(limit), engine if hasattr(engine, "send") else engine()))

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        slots: Slots
        engine: Engine
        slots, engine = self._places.get()
        turn = slots.ask(request.agent, threading.Event)
        waited = 0.0 if turn is None else slots.wait(turn, timeout)
        try:
            if waited >= timeout:
                raise deadline_passed()
            return engine.send(request, timeout - waited)
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
        """Close what is open in this process."""
        _, engine = self._places.take() or (None, self._shared)
        if engine is not None:
            engine.close()


class AsyncGate:
    """The same for event loops.

    Args:
        engine: sends on every loop; or a function that opens what sends on the running one, and is closed with it.
        limit: requests at the same time, on each loop.
    """

    def __init__(self, engine: AsyncEngine | Callable[[], AsyncEngine], limit: int) -> None:
        self._shared: Final[Any] = engine if hasattr(engine, "send") else None
        self._places: Final = PerProcess(lambda: _LoopPlace(engine, limit))

    def begin(self, request: Request, timeout: float) -> Begun | None:
        """Send a request if that waits for nothing; None where `send` has to.

        For where each coroutine on the way to the answer counts; raises what `send` does.
        """
        place: _LoopPlace = self._places.get(asyncio_loop() or running_loop())
        slots = place.slots
        if place.begin_at_once is None or slots.busy >= slots.limit or timeout <= 0:
            return None
        try:
            begun = place.begin_at_once(request, timeout)
        except AscendError:
            raise
        except Exception as error:
            raise defect(error) from None
        if begun is not None:
            slots.busy += 1  # of one loop, so that no other thread takes one
            begun.turn, begun.lost = place, place.begin()
        return begun

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the answer within `timeout` seconds in all; see `Engine`."""
        place: _LoopPlace = self._places.get(asyncio_loop() or running_loop())
        slots, waited = place.slots, 0.0
        if slots.busy < slots.limit:  # of one loop, so that no other thread takes one
            slots.busy += 1
        else:
            turn = slots.ask(request.agent, anyio.Event)
            waited = 0.0 if turn is None else await slots.wait_async(turn, timeout)
        before = place.begin()
        try:
            if waited >= timeout:
                raise deadline_passed()
            return await place.engine.send(request, timeout - waited)
        except DeadlinePassed as error:
            error.waited += waited + place.stalled(before)
            raise
        except AscendError:
            raise
        except Exception as error:
            raise defect(error) from None
        finally:
            place.leave()

    async def aclose(self) -> None:
        """Close what is open in this process, on this loop."""
        place = self._places.take(running_loop())
        if place is not None:
            await place.aclose()
        if self._shared is not None:
            await self._shared.aclose()


class _LoopPlace:
    """What the requests of one loop share, and for how long other work kept an asyncio loop from them.

    Attributes:
        engine: what sends.
        begin_at_once: what sends without waiting, if the engine has it.
        slots: who may.
        users: the requests under way; one timer looks at the loop for all of them, and ends when it finds none.
    """

    __slots__ = ("_due", "_is_armed", "_loop", "_lost", "_opened", "begin_at_once", "engine", "slots", "users")

    def __init__(self, engine: Any, limit: int) -> None:
        self._loop: Final = asyncio_loop()
        self._opened: Final = not hasattr(engine, "send")
        self.engine: Final[AsyncEngine] = engine() if self._opened else engine
        # An engine of the user's may name anything so.
        self.begin_at_once: Final[Callable[[Request, float], Begun | None] | None] = (
            getattr(self.engine, "begin", None) if self._opened else None
        )
        self.slots: Final = Slots(limit)
        self._lost = self._due = 0.0
        self._is_armed = False
        self.users = 0

    def begin(self) -> float:
        """Count one request more, and return what `lost` is before it."""
        self.users += 1
        if self._loop is not None:
            now = self._loop.time()
            if self._is_armed:
                return self._lost + max(0.0, now - self._due)
            self._arm(now)
        return self._lost

    def leave(self) -> None:
        """End one request."""
        self.users -= 1
        slots = self.slots
        if slots.waiting:
            slots.leave()
        else:
            slots.busy -= 1

    def stalled(self, before: float) -> float:
        """Return the seconds that were lost since `begin` returned `before`; 0 where they are what any loop takes."""
        lost = self.lost() - before
        return lost if lost > STALL_SECONDS else 0.0

    def lost(self) -> float:
        """Return the seconds that were lost since this was made, to within a tick."""
        if self._loop is None or not self._is_armed:
            return self._lost
        return self._lost + max(0.0, self._loop.time() - self._due)

    def _arm(self, now: float) -> None:
        if self._loop is not None:
            self._is_armed, self._due = True, now + _TICK
            self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lost = self.lost()
        self._is_armed = False
        if self.users and self._loop is not None:
            self._arm(self._loop.time())

    async def aclose(self) -> None:
        """Close what was opened for this loop."""
        if self._opened:
            await self.engine.aclose()
