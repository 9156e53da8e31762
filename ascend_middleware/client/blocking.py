"""How a blocking client runs a flow: one step after the other in the calling thread."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from ..flow import Hook, Sleep, drive, drive_async
from ..fork import ProcessLock
from .background import Repeating
from .base import ClientBase
from .core import Send
from .http import open_engine
from .http.transport import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from ..api.endpoint import Operation
    from ..flow import Flow

__all__ = ["Blocking", "run_on_loop"]

T = TypeVar("T")


class Blocking(ClientBase):
    """Runs flows in the calling thread; safe to share between threads, and to use on both sides of a fork."""

    def _open(self, engine: object, http_client: object) -> None:
        self._engine: Engine = open_engine(self.settings, engine=engine, http_client=http_client)
        self._closing = ProcessLock()

    def run(self, flow: Flow[T]) -> T:
        """Run one flow of `core` to its result.

        Args:
            flow: from a method of `core`; it runs once.
        """
        return drive(flow, self._perform)

    def _ask(self, operation: Operation[T]) -> T:
        """Make one call of the authority."""
        return self.run(self.core.call(operation))

    def _side_by_side(self, flows: Sequence[Flow[T]], workers: int) -> tuple[T, ...]:
        """Run flows, so many at a time; return their results in the order of the flows."""
        if not flows:
            return ()
        with ThreadPoolExecutor(min(workers, len(flows)), thread_name_prefix="ascend-bulk") as pool:
            return tuple(pool.map(self.run, flows))

    def _repeating(self, name: str, job: Callable[[], object], interval: float) -> Repeating:
        return Repeating(name, job, interval)

    def _perform(self, step: object) -> object:
        if isinstance(step, Send):
            self._check_sending()
            return self._engine.send(step.request, step.timeout)
        if isinstance(step, Sleep):
            self._sleep(step.seconds)
            return None
        if isinstance(step, Hook):
            return step.function(*step.arguments)
        raise TypeError(f"unknown step {type(step).__name__}")

    async def _perform_on_loop(self, step: object) -> object:
        if isinstance(step, Hook):
            result = step.function(*step.arguments)
            return await result if inspect.isawaitable(result) else result
        if isinstance(step, Sleep):
            # Not in a thread: many calls may wait long for a person.
            await self._sleep_on_loop(step.seconds)
            return None
        return await anyio.to_thread.run_sync(self._perform, step, abandon_on_cancel=True)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def _sleep_on_loop(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def close(self) -> None:
        """Close the connections and end what runs in the background.

        Calls after it raise `ClientClosedError`; so does one under way in another thread, at its next attempt.
        Closing twice is harmless. Leaving a `with` block closes too. Source: contract §1.1.
        """
        with self._closing:
            if self.core.closed:
                return
            self.core.closed = True
        self.background.stop_all()
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def run_on_loop(client: Blocking, flow: Flow[T]) -> T:
    """Run one flow of a blocking client on an event loop, which it does not hold up: it sends in worker threads."""
    return await drive_async(flow, client._perform_on_loop)
