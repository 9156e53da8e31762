"""A request, its path, its body and a refusal, in ASGI messages."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from ..exceptions import ConfigurationError
from ..flow import running_loop
from ..guard import BodyTimeout, BodyTooLarge, ClientGone, LazyRequestView, RequestView, answer_of, quoted
from ..masking import get_logger
from ..rules import WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..guard import Came, Verdict
    from ..routing import Resolved

logger = get_logger("ascend_middleware.asgi")

# What ASGI applications are called with.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Frameworks that strip the root path wherever a path begins with it.
_STRIPPING: Final = frozenset({"a2wsgi", "asgiref", "django", "litestar", "quart", "starlette"})

# The bytes of a body that are received, at the most, to see what comes behind them.
_AHEAD: Final = 65_536
_LOOKS: Final = 16
_MOMENT: Final = 0.001
_first: Final = itemgetter(0)


def _is_of_uvicorn(kind: type) -> bool:
    return kind.__module__.startswith("uvicorn.")


# Whether the requests of a class are uvicorn's.
_is_uvicorns: Final[Callable[[type], bool]] = functools.lru_cache(maxsize=64)(_is_of_uvicorn)


def _server_of(receive: Any) -> Any:
    """Return what says at any time whether the client is there: a request of uvicorn; None at other servers."""
    server: Any = getattr(receive, "__self__", None)
    tells = _is_uvicorns(type(server)) and isinstance(getattr(server, "disconnected", None), bool)
    return server if tells else None


def is_connected(receive: Receive) -> bool:
    """Say whether the server says that the client is there; at most servers only a `Body` can tell."""
    server: Any = getattr(receive, "__self__", None)
    return _is_uvicorns(type(server)) and getattr(server, "disconnected", None) is False


class Body:
    """Read messages ahead of the handler, and hand every one of them on, once, in order.

    `task` is the receive that is under way, if there is one.
    """

    __slots__ = ("_ahead", "_gone", "_looks", "_receive", "_server", "_size", "_websocket", "_whole", "task")

    def __init__(self, receive: Callable[[], Awaitable[Any]], *, websocket: bool = False) -> None:
        self._receive = receive
        self._websocket = websocket
        self._server = _server_of(receive)
        self._ahead: deque[Any] = deque()
        self._size = 0
        self._whole = False
        self._gone = self._looks = False
        self.task: asyncio.Task[Any] | None = None

    def stop(self) -> None:
        """Stop receiving, unless somebody has taken that over."""
        if self.task is not None:
            self.task.cancel()

    async def read(self, limit: int, seconds: float) -> bytes:
        """Return the whole body; see the step `ReadBody`. A handshake has none, and its messages are the handler's."""
        if self._websocket:
            return b""
        try:
            if _on_asyncio():
                async with asyncio.timeout(seconds):  # a third of the price
                    await self._read(limit)
            else:
                with anyio.fail_after(seconds):
                    await self._read(limit)
        except TimeoutError:
            raise BodyTimeout from None
        if self._gone:
            raise ClientGone
        if self._size > limit:
            raise BodyTooLarge  # asked for again
        return b"".join(message.get("body", b"") for message in self._ahead)

    async def _read(self, limit: int) -> None:
        while not self._whole and not self._gone:
            self._note(await self._receive())
            if self._size > limit:
                raise BodyTooLarge

    async def watch(self, seconds: float, *, limit: int) -> bool:
        """Let time pass; return True as soon as the client has left. One receive stays under way throughout."""
        if self._gone:
            return True
        if self._websocket or (self._size > limit and not self._whole):
            await anyio.sleep(seconds)
            return False
        if not _on_asyncio():
            with anyio.move_on_after(seconds):  # trio's servers lose no message when a receive is cancelled
                self._note(await self._receive())
            return self._gone
        if self.task is None:
            self.task = asyncio.ensure_future(self._receive())
        done, _ = await asyncio.wait({self.task}, timeout=seconds)
        if done:
            message, self.task = self.task.result(), None
            self._note(message)
        return self._gone

    def onward_at_once(self) -> Receive | None:
        """Return the `receive` for the handler if nothing was read ahead, and the server says the client is there."""
        leaves = self._server is None or self._server.disconnected
        return None if leaves or self._ahead or self.task is not None else self._receive

    async def onward(self, *, ahead: bool) -> Receive | None:
        """Return the `receive` for the handler: first what was read ahead, then the real one; None if the client left.

        `ahead` allows to receive a body that nobody has read yet, to see whether the client has left.
        """
        if self.task is not None or self._server is None:
            gone = await self._look(ahead=ahead)  # a receive and its task cost more than the rest of this
        else:
            gone = self._server.disconnected
        if gone or self._gone:
            return None
        if not self._ahead and self.task is None:
            return self._receive

        async def receive() -> Any:
            while True:
                if self._ahead:
                    return self._ahead.popleft()
                task = self.task
                if task is None:
                    return await self._receive()
                await asyncio.wait({task})
                # Two tasks of a handler may wait here; the message is for one of them.
                if self.task is task:
                    self.task = None
                    return task.result()

        return receive

    async def _look(self, *, ahead: bool) -> bool:
        """Look once whether the client has left, without waiting; what came meanwhile is kept for the handler."""
        is_queue = getattr(self._receive, "__func__", None) is asyncio.Queue.get
        queue = self._receive.__self__ if is_queue else None  # type: ignore[attr-defined]  # a method's
        for _ in range(_LOOKS):  # there are servers, and tests, that never come to an end
            if not self._may_receive(ahead=ahead):
                break
            was_whole = self._whole
            if queue is not None and self.task is None:  # hypercorn's and daphne's way, without a task likewise
                if queue.empty():
                    break
                self._note(queue.get_nowait())
                continue
            if not _on_asyncio():
                before = len(self._ahead)
                with anyio.move_on_after(_MOMENT):
                    self._note(await self._receive())
                if was_whole or len(self._ahead) == before:
                    break
                continue
            if self.task is None:
                await self._begin_to_receive(ahead=ahead)
                break
            await asyncio.sleep(0)
            if not self.task.done() or self.task.cancelled() or self.task.exception() is not None:
                break  # the handler gets what comes of it
            message, self.task = self.task.result(), None
            self._note(message)
            if was_whole:
                break
        return self._gone

    async def _begin_to_receive(self, *, ahead: bool) -> None:
        """Take what there is to receive, all of it in one task; the receive that has to wait stays under way."""
        self._looks = True
        coroutine = self._receive_on(ahead=ahead)
        if sys.version_info >= (3, 12):
            # It runs at once as far as it comes, which spares a turn of the loop.
            self.task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                await asyncio.sleep(0)  # a request that is cancelled meanwhile ends here, and not in its handler
        else:
            self.task = asyncio.ensure_future(coroutine)
            await asyncio.sleep(0)
        self._looks = False
        if self.task.done() and not self.task.cancelled() and self.task.exception() is None:
            self.task = None  # all of it was noted; of an exception, the handler hears

    async def _receive_on(self, *, ahead: bool) -> Any:
        """Note messages as long as somebody looks; the one that comes later is returned."""
        for _ in range(_LOOKS):  # there are servers, and tests, that never come to an end
            was_whole = self._whole
            message = await self._receive()
            if not self._looks:
                return message
            self._note(message)
            if was_whole or not self._may_receive(ahead=ahead):
                break
        return None

    def _may_receive(self, *, ahead: bool) -> bool:
        """Whether to receive what comes next, only to see whether it says that the client has left."""
        return not self._gone and (self._whole or self._websocket or (ahead and self._size <= _AHEAD))

    def _note(self, message: Any) -> None:
        self._ahead.append(message)
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            self._gone = True
        else:
            self._size += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)


def _on_asyncio() -> bool:
    return isinstance(running_loop(), asyncio.AbstractEventLoop)


async def refuse(
    scope: Any, receive: Any, send: Any, verdict: Verdict, *, render: Callable[..., Any] | None = None
) -> None:
    """Answer a refusal: over HTTP, or to a handshake as HTTP where the server can, else by closing with 1008."""
    if verdict.refusal is None:
        return  # nobody is there
    status, headers, content = answer_of(verdict, render)
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            if (await receive())["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.close", "code": 1008, "reason": verdict.outcome})
            return
        kind = "websocket.http.response"
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": f"{kind}.start", "status": status, "headers": encoded})
    await send({"type": f"{kind}.body", "body": content if scope.get("method") != "HEAD" else b""})


def as_it_came(scope: Any) -> Came:
    """Return a request as `Guard.recall` is told of it."""
    place = scope["path"], scope.get("root_path", ""), scope.get("http_version", "1.1")
    return place, scope.get("query_string", b""), scope.get("headers", ())


class ScopeView(LazyRequestView):
    """A request of which everything is decoded, and the framework's object made, only when somebody asks."""

    __slots__ = ("_query", "_request", "_scope")

    def __init__(
        self, scope: Any, resolved: Resolved | None, root_path: RootPath, *, is_ordinary: bool = False
    ) -> None:
        self._scope = scope
        self.method = scope["method"].upper() if scope["type"] == "http" else WEBSOCKET
        if resolved is not None:
            self.path, self.other_path, self.findings = resolved.path, None, ()
        else:
            self.path, self.other_path, self.findings = root_path.read(scope)
        self.resolved = resolved
        self.is_ordinary = is_ordinary and not self.findings
        self._query: bytes = scope.get("query_string", b"")
        self._query_pairs = None
        self._headers = self._header_names = None
        self._request: Any = None

    @property
    def query(self) -> bytes:  # type: ignore[override]  # nobody sets it here, nor the following
        """See `RequestView`."""
        return self._query

    @property
    def raw_path(self) -> str | None:  # type: ignore[override]
        """See `RequestView`."""
        raw = self._scope.get("raw_path")
        return raw.decode("latin-1").partition("?")[0] if raw else None

    @property
    def prefix(self) -> str:  # type: ignore[override]
        """See `RequestView`."""
        root = self._scope.get("root_path", "")
        return quoted(root) if root else ""

    @property
    def header_names(self) -> frozenset[str]:  # type: ignore[override]
        """See `RequestView`."""
        if self._header_names is None:
            lines = b"\n".join(map(_first, self._scope.get("headers", ())))
            self._header_names = frozenset(lines.lower().replace(b"_", b"-").decode("latin-1").split("\n"))
        return self._header_names

    def _read_headers(self) -> list[tuple[str, str]]:
        return [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._scope.get("headers", ())
        ]

    @property
    def came(self) -> Came:
        """See `RequestView`."""
        return as_it_came(self._scope)

    @property
    def may_have_body(self) -> bool:
        """See `RequestView`; from HTTP/2 on a body need not be announced."""
        if self._scope.get("http_version", "1.1") not in ("1.0", "1.1") and "content-length" not in self.header_names:
            return True
        return RequestView.may_have_body.fget(self)  # type: ignore[attr-defined, no-any-return]  # slots: no super()

    @property
    def request(self) -> Any:
        """Starlette's connection where its router was asked, else the scope."""
        if self._request is None:
            starlette = self.resolved is not None
            self._request = sys.modules["starlette.requests"].HTTPConnection(self._scope) if starlette else self._scope
        return self._request


class RootPath:
    """How an application reads the server's root path.

    ASGI says that `path` begins with `root_path`; uvicorn keeps to that, hypercorn and daphne do not. An application
    that strips the root path cannot tell either: it strips what looks like it. Where its reading may be another one
    than the guard's, the request is refused.

    `strips` settles it, where it is given. An unknown application is taken to strip; once the server was seen not to
    put the root path in front, paths that begin with it all the same are doubtful.
    """

    __slots__ = ("_apart", "_known", "_strips")

    def __init__(self, app: Any, strips: bool | None) -> None:
        if strips is not None and not isinstance(strips, bool):
            raise ConfigurationError(f"strips_root_path is true, false or not given, got {strips!r}")
        framework = type(app).__module__.partition(".")[0]
        self._known = strips is not None or framework in _STRIPPING
        self._strips = strips is not False
        self._apart = False

    def read(self, scope: Mapping[str, Any]) -> tuple[str, str | None, tuple[str, ...]]:
        """Return the path below the root path, what the application may read instead, and findings for the firewall."""
        path: str = scope["path"]
        root: str = (scope.get("root_path") or "").rstrip("/")
        if not root or not self._strips:
            return path, None, ()
        if path == root or path.startswith(root + "/"):
            doubtful = self._apart and not self._known
            return path[len(root) :] or "/", path if doubtful else None, ()
        if not path.startswith(root) and not self._apart:
            self._apart = True
            if not self._known:
                logger.warning(
                    "the server does not put its root path %r before the path: requests that begin with it all the "
                    "same are refused where rules differ; strips_root_path says how the application reads them",
                    root,
                )
        # `/apiadmin` and `/public/api/admin` below `/api`: frameworks cut them in different places.
        return path, None, ("root-path",) if root in path else ()
