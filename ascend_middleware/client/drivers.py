"""How clients run flows: in the calling thread, or in the calling task of an event loop.

A method of both clients is written once, as the flow of what it does, and `sync_and_async` makes it a method of either.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

import anyio
import anyio.to_thread
import msgspec

from ..flow import Flow, Hook, Sleep, drive, drive_async
from ..fork import ProcessLock
from .background import AsyncRepeating, Repeating
from .base import ClientBase
from .core import Send
from .http import open_async_engine, open_engine

if TYPE_CHECKING:
    from typing import Self

    from .http.transport import AsyncEngine, Engine

__all__ = ["Awaiting", "Awaits", "Blocking", "Blocks", "SideBySide", "done", "run_on_loop", "sync_and_async"]

T = TypeVar("T")
P = ParamSpec("P")


class SideBySide(msgspec.Struct):
    """A step: run flows, so many at a time; the result is a list of their results, in the order of the flows."""

    flows: list[Flow[Any]]
    workers: int


def done(result: T) -> Flow[T]:
    """Return a flow of no step at all."""
    yield from ()
    return result


class sync_and_async(Generic[P, T]):  # noqa: N801 - a decorator
    """Make a method whose text is the flow of what it does: it blocks in a class of `Blocks`, is awaited in `Awaits`.

    Each such class gets a plain function in its place, which is what `help`, `inspect` and mocks see.
    """

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self._flow: Final = flow
        flow.__annotations__["return"] = flow.__annotations__["return"].removeprefix("Flow[").removesuffix("]")

    @overload
    def __get__(self, instance: Blocks, owner: Any) -> Callable[P, T]: ...

    @overload
    def __get__(self, instance: Awaits, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...

    @overload
    def __get__(self, instance: None, owner: type[Blocks]) -> Callable[Concatenate[Any, P], T]: ...

    @overload
    def __get__(self, instance: None, owner: type[Awaits]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]: ...

    def __get__(self, instance: object, owner: Any) -> Any:
        return self

    def function(self, *, blocks: bool) -> Callable[..., Any]:
        """Return the function that runs the flow, and waits for it or is awaited."""
        flow = self._flow

        def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            result: T = self._run(flow(self, *args, **kwargs))
            return result

        async def run_async(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            result: T = await self._run(flow(self, *args, **kwargs))
            return result

        made: Callable[..., Any] = functools.update_wrapper(run if blocks else run_async, flow)
        made.__annotations__ = flow.__annotations__
        return made


def _complete(cls: type, *, blocks: bool) -> None:
    inherited = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    for name, value in inherited.items():
        if isinstance(value, sync_and_async):
            setattr(cls, name, value.function(blocks=blocks))


class Blocks:
    """Whatever runs flows in the calling thread."""

    def __init_subclass__(cls) -> None:
        _complete(cls, blocks=True)

    def _run(self, flow: Flow[T]) -> T:
        return drive(flow, self._perform)

    def _perform(self, step: Any) -> object:
        if isinstance(step, Hook):
            return step.function(*step.arguments)
        raise TypeError(f"unknown step {type(step).__name__}")


class Awaits:
    """Whatever runs flows in the calling task of an event loop."""

    def __init_subclass__(cls) -> None:
        _complete(cls, blocks=False)

    async def _run(self, flow: Flow[T]) -> T:
        return await drive_async(flow, self._perform)

    async def _perform(self, step: Any) -> object:
        if isinstance(step, Hook):
            return await _call(step)
        raise TypeError(f"unknown step {type(step).__name__}")


async def _call(hook: Hook) -> object:
    result = hook.function(*hook.arguments)
    return await result if inspect.isawaitable(result) else result


class Blocking(Blocks, ClientBase):
    """A client that runs flows in the calling thread."""

    _repeating = Repeating

    def _open(self, engine: object, http_client: object) -> None:
        self._engine: Engine = open_engine(self.settings, engine=engine, http_client=http_client)
        self._closing = ProcessLock()

    def run(self, flow: Flow[T]) -> T:
        """Run one flow of `core` to its result.

        Args:
            flow: from a method of `core`; it runs once.
        """
        return self._run(flow)

    def _perform(self, step: Any) -> object:
        if isinstance(step, Send):
            self._check_sending()
            return self._engine.send(step.request, step.timeout)
        if isinstance(step, Sleep):
            self._sleep(step.seconds)
            return None
        if isinstance(step, SideBySide):
            with ThreadPoolExecutor(step.workers, thread_name_prefix="ascend-bulk") as pool:
                return list(pool.map(self._run, step.flows))
        return super()._perform(step)

    async def _perform_on_loop(self, step: Any) -> object:
        if isinstance(step, Hook):
            return await _call(step)
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

    def __exit__(self, *_: object) -> None:
        self.close()


async def run_on_loop(client: Blocking, flow: Flow[T]) -> T:
    """Run one flow of a blocking client on an event loop, which it does not hold up: it sends in worker threads."""
    return await drive_async(flow, client._perform_on_loop)


class Awaiting(Awaits, ClientBase):
    """A client that runs flows in the calling task; connections belong to the event loop that opened them."""

    _repeating = AsyncRepeating

    def _open(self, engine: object, http_client: object) -> None:
        self._engine: AsyncEngine = open_async_engine(self.settings, engine=engine, http_client=http_client)

    async def run(self, flow: Flow[T]) -> T:
        """Run one flow of `core` to its result.

        Args:
            flow: from a method of `core`; it runs once.
        """
        return await self._run(flow)

    async def _perform(self, step: Any) -> object:
        if isinstance(step, Send):
            self._check_sending()
            return await self._engine.send(step.request, step.timeout)
        if isinstance(step, Sleep):
            await self._sleep(step.seconds)
            return None
        if isinstance(step, SideBySide):
            return await self._side_by_side(step.flows, anyio.CapacityLimiter(step.workers))
        return await super()._perform(step)

    async def _side_by_side(self, flows: list[Flow[Any]], limit: anyio.CapacityLimiter) -> list[Any]:
        results: list[Any] = [None] * len(flows)

        async def one(place: int) -> None:
            async with limit:
                results[place] = await self._run(flows[place])

        async with anyio.create_task_group() as group:
            for place in range(len(flows)):
                group.start_soon(one, place)
        return results

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

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
