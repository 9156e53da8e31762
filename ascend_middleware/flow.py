"""Flows: generators that yield steps and receive their results, driven with or without an event loop.

What has to happen is written once, in generators; how a step is performed differs between sync and async and stands
in the caller's `perform`. A flow never yields while it cleans up: when its driver is cancelled or interrupted, the
flow is closed at the step it stands at, and its `finally` blocks release what it holds synchronously.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator, Hashable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "Blocking",
    "BodyConsumed",
    "BodyTimeout",
    "BodyTooLarge",
    "ClientGone",
    "Flow",
    "Hook",
    "ReadBody",
    "Shared",
    "Sleep",
    "Watch",
    "asyncio_loop",
    "drive",
    "drive_async",
    "running_loop",
]

T = TypeVar("T")

# Yields steps, receives each step's result, returns T. A step's failure is thrown into it.
Flow: TypeAlias = Generator[Any, Any, T]


class Sleep(msgspec.Struct, frozen=True):
    """A step: let `seconds` pass."""

    seconds: float


class ReadBody(msgspec.Struct, frozen=True):
    """Read the whole body, at most `limit` bytes, within `seconds`; the result is bytes.

    Fails with `BodyTooLarge`, `BodyTimeout`, `BodyConsumed` or `ClientGone`.
    """

    limit: int
    seconds: float


class Hook(msgspec.Struct, frozen=True):
    """Call a function of the application; the result is what it returns or, if that is awaitable, what it gives."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Blocking(msgspec.Struct, frozen=True):
    """Call a function of ours that may wait for a disk or a network; the result is what it returns.

    Attributes:
        function: what to call, in a thread where there is an event loop.
        arguments: with what.
        inline: whether it never waits, so that no thread is needed.
        abandon: called with the result when whoever asked was cancelled meanwhile; the call itself is never undone.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    inline: bool = False
    abandon: Callable[[Any], Any] | None = None


class Watch(msgspec.Struct, frozen=True):
    """Let `seconds` pass or the client leave, whichever comes first; the result is True when the client left."""

    seconds: float


class Shared(msgspec.Struct, frozen=True):
    """Make a call once for all who ask for the same thing at the same time.

    The result is what the call gives, and whether this is the first to get it; or None where the call is another
    one's and has failed, or is not made within `seconds`. Of its own call, the failure is raised. Who began a call may
    be cancelled; on an event loop the call goes on.

    Attributes:
        key: what is asked for.
        make: begins the call, whose steps are `Send` and `Sleep` only.
        seconds: how long to wait for another one's call.
    """

    key: Hashable
    make: Callable[[], Flow[Any]]
    seconds: float


class BodyConsumed(ValueError):  # noqa: N818 - what happened, not an error of ours
    """Something before the guard has read the body and did not keep it."""


class BodyTooLarge(Exception):  # noqa: N818 - what happened, not an error of ours
    """The body is larger than the limit."""


class BodyTimeout(Exception):  # noqa: N818 - what happened, not an error of ours
    """The body did not arrive in time."""


class ClientGone(Exception):  # noqa: N818 - what happened, not an error of ours
    """The client left before its body was whole."""


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


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop of asyncio, which whoever runs one has imported: threads need none of it."""
    try:
        loop: asyncio.AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
    except (KeyError, AttributeError, RuntimeError):
        return None
    return loop


def running_loop() -> Any:
    """Return the running event loop, or what trio knows its run by; RuntimeError where none runs."""
    loop = asyncio_loop()
    if loop is not None:
        return loop
    if "trio" not in sys.modules:
        raise RuntimeError("no running event loop")
    return sys.modules["trio"].lowlevel.current_trio_token()
