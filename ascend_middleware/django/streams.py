"""See how a streaming response ends: whole, broken, or given up by the client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.http import FileResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from django.http import HttpRequest

__all__ = ["watch", "watch_async"]

_GONE = "the client left, or the server stopped, before the response ended"
_BROKEN = "the response's stream raised {}"

_tasks: set[asyncio.Task[None]] = set()


def watch(request: HttpRequest, response: Any, ended: Callable[[str | None], None]) -> None:
    """Tell how a streaming response ended, at the latest when it is closed.

    Args:
        request: what it answers.
        response: with `streaming` set.
        ended: called with None or with what went wrong, where the response ends; more than once.
    """

    async def ended_async(failure: str | None) -> None:
        ended(failure)

    file = getattr(response, "file_to_stream", None) if isinstance(response, FileResponse) else None
    if file is not None and "wsgi.file_wrapper" in request.META:
        # The server sends the file by itself, and only closes it: nobody sees how much of it the client took.
        response._resource_closers.append(lambda: ended(None))
    elif response.is_async:
        response.streaming_content = _WatchedAsync(response.streaming_content, ended_async)
    else:
        response.streaming_content = _Watched(response.streaming_content, ended)


def watch_async(response: Any, ended: Callable[[str | None], Coroutine[Any, Any, None]]) -> None:
    """The same on an event loop."""
    if response.is_async:
        response.streaming_content = _WatchedAsync(response.streaming_content, ended)
    else:
        response.streaming_content = _Watched(response.streaming_content, lambda failure: _call(ended, failure))


def _call(function: Callable[[str | None], Coroutine[Any, Any, None]], failure: str | None) -> None:
    """Run a coroutine function from wherever Django closes a response: mostly in a thread of its own."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        async_to_sync(function)(failure)
        return
    task = loop.create_task(function(failure))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class _Watched:
    """A response's parts; tells `ended` how they ended. Django calls `close` with the response's."""

    __slots__ = ("_ended", "_parts")

    def __init__(self, parts: Iterator[bytes], ended: Callable[[str | None], None]) -> None:
        self._parts = iter(parts)
        self._ended = ended

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            self._ended(None)
            raise
        except BaseException as failure:
            self._ended(_BROKEN.format(type(failure).__name__))
            raise

    def close(self) -> None:
        self._ended(_GONE)


class _WatchedAsync:
    """The same for an asynchronous iterator."""

    __slots__ = ("_ended", "_parts")

    def __init__(self, parts: AsyncIterator[bytes], ended: Callable[[str | None], Coroutine[Any, Any, None]]) -> None:
        self._parts = parts
        self._ended = ended

    def __aiter__(self) -> _WatchedAsync:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            await self._ended(None)
            raise
        except Exception as failure:
            await self._ended(_BROKEN.format(type(failure).__name__))
            raise

    def close(self) -> None:
        _call(self._ended, _GONE)
