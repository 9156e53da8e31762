"""A request, its body, a refusal and the end of a response, in Django's terms."""

from __future__ import annotations

import asyncio
import functools
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from asgiref.sync import async_to_sync
from django.core.exceptions import RequestDataTooBig
from django.http import FileResponse, HttpResponse
from django.http.request import RawPostDataException, UnreadablePostError

from ..adapters.outcome import HandledRequest, WatchedParts
from ..adapters.runner import SyncRunner
from ..guard import (
    BodyConsumed,
    BodyTooLarge,
    ClientGone,
    LazyRequestView,
    RequestView,
    answer_of,
    is_ordinary_environ,
    quoted,
)
from ..routing import Kind, Resolved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from django.http import HttpRequest

    from ..adapters.runner import AsyncRunner
    from ..guard import Verdict

# Django puts bytes that are not UTF-8 back into percent signs.
_BROKEN = re.compile(r"%[89A-Fa-f][0-9A-Fa-f]")
_ATTRIBUTE = "_ascend_handled"


def begin(request: HttpRequest, runner: SyncRunner | AsyncRunner) -> HandledRequest:
    """Return what is known of a request from now on, which stays with it."""
    handled = HandledRequest(runner)
    setattr(request, _ATTRIBUTE, handled)
    request.ascend = None  # type: ignore[attr-defined]  # what views read
    return handled


def handled_of(request: HttpRequest) -> HandledRequest | None:
    """Return what is known of a request, or None if the guard has not seen it."""
    found = getattr(request, _ATTRIBUTE, None)
    return found if isinstance(found, HandledRequest) else None


def target_of(
    request: HttpRequest, *, headers: list[tuple[str, str]] | None = None, resolved: Resolved | None = None
) -> RequestView:
    """Return the request line as the guard sees it, before anything is routed."""
    scope: Any = getattr(request, "scope", {})
    raw = _raw_of(request, scope)
    path = request.path_info
    broken = _BROKEN.search(path) is not None and not (raw is not None and _is_utf8(raw))
    query = request.META.get("QUERY_STRING", "")
    return RequestView(
        method=(request.method or "").upper(),
        path=path,
        raw_path=raw,
        # As `request.GET` decodes it.
        query=query.encode() if scope else query.encode("latin-1", "replace"),
        headers=headers or [],
        resolved=resolved,
        findings=("invalid-utf8",) if broken else (),
        request=request,
        prefix=quoted(prefix) if (prefix := request.META.get("SCRIPT_NAME", "").rstrip("/")) else "",
    )


def _raw_of(request: HttpRequest, scope: Any) -> str | None:
    raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
    if raw is None and scope.get("raw_path"):
        raw = scope["raw_path"].decode("latin-1")
    return raw.partition("?")[0] if isinstance(raw, str) else None


class OrdinaryView(LazyRequestView):
    """An ordinary request of WSGI as it stands now."""

    __slots__ = ()

    def __init__(self, request: HttpRequest, resolved: Resolved | None) -> None:
        meta = request.META
        self.method, self.path = (request.method or "").upper(), request.path_info
        self.raw_path = _raw_of(request, {})
        self.query = meta.get("QUERY_STRING", "").encode("latin-1", "replace")
        prefix = meta.get("SCRIPT_NAME", "").rstrip("/")
        self.prefix = quoted(prefix) if prefix else ""
        self.resolved, self.request = resolved, request
        self.other_path, self.findings, self.is_ordinary, self._query_pairs = None, (), True, None
        self._headers = self._header_names = None

    def _read_headers(self) -> list[tuple[str, str]]:
        return _headers(self.request)


def is_ordinary(request: HttpRequest) -> bool:
    """Say at one glance that `inspect` finds nothing about a request; see `is_ordinary_environ`."""
    meta = request.META
    # Both are what middlewares may have set anew; on ASGI there is another target to look at.
    if hasattr(request, "scope") or request.path_info != meta.get("PATH_INFO"):
        return False
    return is_ordinary_environ(meta, _raw_of(request, {}))


def unrouted(request: HttpRequest) -> Resolved:
    """Return what stands for a view where Django has run none."""
    return Resolved(None, Kind.NOT_FOUND, {}, request.path_info)


def view_of(request: HttpRequest, resolved: Resolved) -> RequestView:
    """Return the request as the guard sees it: as the view will, whatever the middlewares before made of it."""
    view: RequestView
    if is_ordinary(request):
        view = OrdinaryView(request, resolved)
    else:
        view = target_of(request, headers=_headers(request), resolved=resolved)
    encoding = request.encoding
    if "GET" in vars(request) or not (encoding is None or encoding.lower() in ("utf-8", "utf8")):
        # Somebody looked at it, and may have replaced it; or Django decodes it by the charset of the content type.
        seen = [(name, value) for name, values in request.GET.lists() for value in values]
        if sorted(seen) != sorted(_pairs(view)):
            view.query, view._query_pairs = request.GET.urlencode().encode(), None
    return view


def _pairs(view: RequestView) -> list[tuple[str, str]]:
    try:
        return view.query_pairs
    except ValueError:
        return []  # whoever reads a value refuses; a query that was put in its place is judged


def _is_utf8(raw: str) -> bool:
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def _headers(request: HttpRequest) -> list[tuple[str, str]]:
    """Return what the view can see, and where the server shows them, repeats and second spellings apart."""
    names = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
    seen = {}
    for key, value in request.META.items():
        name = key[5:].replace("_", "-").lower() if key.startswith("HTTP_") else names.get(key)
        if name is not None and value != "":
            seen[name] = str(value)
    sent: dict[str, list[str]] = {}
    for name, value in getattr(request, "scope", {}).get("headers", ()):
        sent.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    headers = []
    for name, values in sent.items():
        if "_" in name or seen.get(name) == ",".join(values):
            headers += [(name, value) for value in values]
            seen.pop(name, None)
    return [*headers, *seen.items()]


def read_body(request: Any, limit: int, seconds: float) -> bytes:
    """Return the whole body, which the view gets likewise; see the step `ReadBody`.

    How long it may take is the server's to say. On an event loop Django has received it already.
    """
    if not hasattr(request, "_body"):
        # On ASGI Django has received the whole body before; one without a length is measured where it lies.
        stream = request._stream
        if getattr(stream, "seekable", bool)() and not request._read_started:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if size > limit:
                raise BodyTooLarge
    try:
        content: bytes = request.body
    except RequestDataTooBig:
        raise BodyTooLarge from None
    except RawPostDataException:
        raise BodyConsumed("The body was used up before it could be judged.") from None
    except UnreadablePostError as error:
        raise ClientGone from error
    if len(content) > limit:
        raise BodyTooLarge
    return content


class Body:
    """A request's body and connection, for a guard on an event loop."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    async def read(self, limit: int, seconds: float) -> bytes:
        """Return the whole body."""
        return read_body(self._request, limit, seconds)

    async def watch(self, seconds: float, *, limit: int) -> bool:
        """Let time pass; when the client leaves, Django cancels the request."""
        await asyncio.sleep(seconds)
        return False


def refusal_of(request: HttpRequest, verdict: Verdict, render: Callable[..., Any] | None) -> HttpResponse:
    """Return the answer to a request that does not pass."""
    status, headers, content = answer_of(verdict, render)
    return HttpResponse(b"" if request.method == "HEAD" else content, status=status, headers=dict(headers))


# --- how a streaming response ends: whole, broken, or given up by the client

_tasks: set[asyncio.Task[None]] = set()


def watch(request: HttpRequest, response: Any, handled: HandledRequest) -> None:
    """Record how a streaming response ended, at the latest when it is closed."""
    conclude = functools.partial(_conclude, handled)
    file = getattr(response, "file_to_stream", None) if isinstance(response, FileResponse) else None
    if file is not None and "wsgi.file_wrapper" in request.META:

        def closed() -> None:
            handled.is_whole = True
            conclude()

        # The server sends the file by itself, and only closes it: nobody sees how much of it the client took.
        response._resource_closers.append(closed)
    elif response.is_async:
        response.streaming_content = _WatchedAsync(response.streaming_content, handled, conclude)
    else:
        response.streaming_content = WatchedParts(response.streaming_content, handled, conclude)


def _conclude(handled: HandledRequest) -> None:
    """Record the outcome, from wherever Django closes a response: mostly in a thread of its own."""
    if isinstance(handled.runner, SyncRunner):
        handled.conclude()
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        async_to_sync(handled.conclude_async)()
        return
    task = loop.create_task(handled.conclude_async())
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
                self._handled.is_whole = True
            else:
                self._handled.raised(failure)
            await self._handled.conclude_async()
            raise

    def close(self) -> None:
        self._handled.left()
        self._conclude()
