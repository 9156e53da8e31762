"""See how a streaming response ends: whole, broken, or given up by the client."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.http import FileResponse

from ..adapters.outcome import WatchedParts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from django.http import HttpRequest

    from ..adapters.outcome import HandledRequest

__all__ = ["watch"]

_tasks: set[asyncio.Task[None]] = set()


def watch(request: HttpRequest, response: Any, handled: HandledRequest, *, is_async: bool) -> None:
    """Record how a streaming response ended, at the latest when it is closed.

    Args:
        request: what it answers.
        response: with `streaming` set.
        handled: the request's.
        is_async: whether the guard runs on an event loop.
    """
    conclude = functools.partial(_call, handled.conclude_async) if is_async else handled.conclude
    file = getattr(response, "file_to_stream", None) if isinstance(response, FileResponse) else None
    if file is not None and "wsgi.file_wrapper" in request.META:

        def closed() -> None:
            handled.ended()
            conclude()

        # The server sends the file by itself, and only closes it: nobody sees how much of it the client took.
        response._resource_closers.append(closed)
    elif response.is_async:
        response.streaming_content = _WatchedAsync(response.streaming_content, handled, conclude)
    else:
        response.streaming_content = WatchedParts(response.streaming_content, handled, conclude)


def _call(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function from wherever Django closes a response: mostly in a thread of its own."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        async_to_sync(function)()
        return
    task = loop.create_task(function())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class _WatchedAsync:
    """The parts of a response that come from an asynchronous iterator."""

    __slots__ = ("_conclude", "_handled", "_parts")

    def __init__(self, parts: AsyncIterator[bytes], handled: HandledRequest, conclude: Callable[[], object]) -> None:
        self._parts = parts
        self._handled = handled
        self._conclude = conclude

    def __aiter__(self) -> _WatchedAsync:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except Exception as failure:
            if isinstance(failure, StopAsyncIteration):
                self._handled.ended()
            else:
                self._handled.raised(failure)
            await self._handled.conclude_async()
            raise

    def close(self) -> None:
        self._handled.left()
        self._conclude()
