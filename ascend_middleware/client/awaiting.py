"""How a client for event loops runs a flow: one step after the other in the calling task."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

import anyio

from ..flow import Hook, Sleep, drive_async
from .background import AsyncRepeating
from .base import ClientBase
from .core import Send
from .http import open_async_engine
from .http.transport import AsyncEngine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from ..api.endpoint import Operation
    from ..flow import Flow

__all__ = ["Awaiting"]

T = TypeVar("T")


class Awaiting(ClientBase):
    """Runs flows in the calling task; connections belong to the event loop that opened them."""

    def _open(self, engine: object, http_client: object) -> None:
        self._engine: AsyncEngine = open_async_engine(self.settings, engine=engine, http_client=http_client)

    async def run(self, flow: Flow[T]) -> T:
        """Run one flow of `core` to its result.

        Args:
            flow: from a method of `core`; it runs once.
        """
        return await drive_async(flow, self._perform)

    async def _ask(self, operation: Operation[T]) -> T:
        """Make one call of the authority."""
        return await self.run(self.core.call(operation))

    async def _side_by_side(self, flows: Sequence[Flow[T]], workers: int) -> tuple[T, ...]:
        """Run flows, so many at a time; return their results in the order of the flows."""
        results: dict[int, T] = {}
        limit = anyio.CapacityLimiter(workers)

        async def one(place: int, flow: Flow[T]) -> None:
            async with limit:
                results[place] = await self.run(flow)

        async with anyio.create_task_group() as group:
            for place, flow in enumerate(flows):
                group.start_soon(one, place, flow)
        return tuple(results[place] for place in range(len(flows)))

    def _repeating(self, name: str, job: Callable[[], Awaitable[object]], interval: float) -> AsyncRepeating:
        return AsyncRepeating(name, job, interval)

    async def _perform(self, step: object) -> object:
        if isinstance(step, Send):
            self._check_sending()
            return await self._engine.send(step.request, step.timeout)
        if isinstance(step, Sleep):
            await self._sleep(step.seconds)
            return None
        if isinstance(step, Hook):
            told = step.function(*step.arguments)
            return await told if inspect.isawaitable(told) else told
        raise TypeError(f"unknown step {type(step).__name__}")

    async def _sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        """Close the connections of this event loop and end what runs in the background.

        Calls after it raise `ClientClosedError`. Closing twice is harmless. Leaving an `async with` block closes too;
        `close` is the same. Source: contract §1.1.
        """
        if not self.core.closed:
            self.core.closed = True
            self.background.stop_all()
            await self._engine.aclose()

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
