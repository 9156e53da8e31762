"""Run a flow: one generator that yields steps and receives their results, driven with or without an event loop.

What has to happen is written once, in generators; how a step is performed differs between sync and async and stands
in the caller's `perform`. A flow never yields while it cleans up: when its driver is cancelled or interrupted, the
flow is closed at the step it stands at, and its `finally` blocks release what it holds synchronously.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

__all__ = ["Flow", "Sleep", "drive", "drive_async", "running_loop"]

T = TypeVar("T")

# Yields steps, receives each step's result, returns T. A step's failure is thrown into it.
Flow: TypeAlias = Generator[Any, Any, T]


@dataclass(frozen=True, slots=True)
class Sleep:
    """A step: let `seconds` pass."""

    seconds: float


def drive(flow: Flow[T], perform: Callable[[Any], Any]) -> T:
    """Run a flow to its result; `perform` carries out one step and returns its result or raises."""
    try:
        step = next(flow)
        while True:
            try:
                result = perform(step)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


async def drive_async(flow: Flow[T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """Run a flow to its result on the event loop; cancellation closes the flow where it stands."""
    try:
        step = next(flow)
        while True:
            try:
                result = await perform(step)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


def running_loop() -> Any:
    """Return the running event loop: asyncio's, else what trio knows its run by.

    Raises:
        RuntimeError: none runs here.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        if "trio" not in sys.modules:
            raise
        return sys.modules["trio"].lowlevel.current_trio_token()
