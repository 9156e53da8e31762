"""See how a streaming response ends: whole, broken, or given up by the client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.http import FileResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from django.http import HttpRequest

    from ..guard import Outcome

__all__ = ["watch", "watch_async"]

_tasks: set[asyncio.Task[None]] = set()


def watch(request: HttpRequest, response: Any, outcome: Outcome, ended: Callable[[], None]) -> None:
    """Tell how a streaming response ended, at the latest when it is closed.

    Args:
        request: what it answers.
        response: with `streaming` set.
        outcome: is told how.
        ended: called where the response ends; more than once.
    """

    async def ended_async() -> None:
        ended()

    def closed() -> None:
        outcome.ended()
        ended()

    file = getattr(response, "file_to_stream", None) if isinstance(response, FileResponse) else None
    if file is not None and "wsgi.file_wrapper" in request.META:
        # The server sends the file by itself, and only closes it: nobody sees how much of it the client took.
        response._resource_closers.append(closed)
    elif response.is_async:
        response.streaming_content = _WatchedAsync(response.streaming_content, outcome, ended_async)
    else:
        response.streaming_content = _Watched(response.streaming_content, outcome, ended)


def watch_async(response: Any, outcome: Outcome, ended: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The same on an event loop."""
    if response.is_async:
        response.streaming_content = _WatchedAsync(response.streaming_content, outcome, ended)
    else:
        response.streaming_content = _Watched(response.streaming_content, outcome, lambda: _call(ended))


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


class _Watched:
    """A response's parts; tells how they ended. Django calls `close` with the response's."""

    __slots__ = ("_ended", "_outcome", "_parts")

    def __init__(self, parts: Iterator[bytes], outcome: Outcome, ended: Callable[[], None]) -> None:
        self._parts = iter(parts)
        self._outcome = outcome
        self._ended = ended

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            self._outcome.ended()
            self._ended()
            raise
        except BaseException as failure:
            self._outcome.raised(failure)
            self._ended()
            raise

    def close(self) -> None:
        # Without effect after the last part; else the client left, or the server stopped.
        self._outcome.left()
        self._ended()


class _WatchedAsync:
    """The same for an asynchronous iterator."""

    __slots__ = ("_ended", "_outcome", "_parts")

    def __init__(
        self, parts: AsyncIterator[bytes], outcome: Outcome, ended: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._parts = parts
        self._outcome = outcome
        self._ended = ended

    def __aiter__(self) -> _WatchedAsync:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            self._outcome.ended()
            await self._ended()
            raise
        except Exception as failure:
            self._outcome.raised(failure)
            await self._ended()
            raise

    def close(self) -> None:
        self._outcome.left()
        _call(self._ended)
