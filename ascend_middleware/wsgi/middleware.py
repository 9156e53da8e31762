"""The WSGI middleware: build a request view, run the guard, pass or refuse.

    application = AscendMiddleware(application, rules="ascend.toml")

No router can be asked here, so the canonical decoded path below SCRIPT_NAME decides. Whoever has Flask or Django in
hand takes their adapters, which know the route.
"""

from __future__ import annotations

import io
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, WatchedParts
from ..adapters.runner import Sight, SyncRunner
from ..guard import (
    BodyTimeout,
    BodyTooLarge,
    ClientGone,
    LazyRequestView,
    RequestView,
    answer_of,
    is_ordinary_environ,
    quoted,
)
from ..masking import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ..guard import Guard, Verdict
    from ..routing import Resolved

logger = get_logger("ascend_middleware.wsgi")


class AscendMiddleware:
    """Ask the authority before a WSGI application runs; the verdict is at `environ["ascend.verdict"]`.

    Args:
        app: the application.
        rules: the path of an `ascend.toml`, a mapping of the same shape, or `Rule` objects.
        identify: called with the environ; returns `Agent` or `NotAnAgent`.
        render: called with status, headers and body of a refusal; returns the three to answer instead.
        http_client: your own `httpx2.Client` or `httpx.Client` to ask the authority with; you close it.
        settings: any field of `ascend_middleware.config.Settings`.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        /,
        *,
        rules: Any = None,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        http_client: object = None,
        **settings: Any,
    ) -> None:
        self.app = app
        self._runner = SyncRunner(rules, settings, identify=identify, render=render, http_client=http_client)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Decide about one request and run the application, or refuse."""
        verdict = self._runner.judge(_SIGHT, Body(environ), None)
        if not verdict.passes:
            return refuse(environ, start_response, verdict, self.guard.render)
        environ[VERDICT] = verdict
        return run_reported(HandledRequest(self._runner, verdict), self.app, environ, start_response)

    @property
    def guard(self) -> Guard:
        """What decides."""
        return self._runner.guard

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
        return self._runner.health()

    def close(self) -> None:
        """Close this process's connections and deliver the outcomes that wait."""
        self._runner.close()


def run_reported(
    handled: HandledRequest,
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    *,
    on_success: Callable[[HandledRequest], None] | None = None,
) -> Iterable[bytes]:
    """Run an application; record what became of it when its response ends, at the latest when it is closed.

    The verdict may be found meanwhile. `on_success` is called when a response begins with a success status.
    """

    def start(status: str, headers: Any, exc_info: Any = None, /) -> Any:
        handled.began(int(status[:3]), headers)
        if handled.status < 300 and on_success is not None:
            on_success(handled)
        return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

    try:
        parts = app(environ, start)
    except BaseException as failure:
        handled.raised(failure)
        handled.conclude()
        raise
    if handled.status and not handled.is_awaited:
        return parts  # nothing to record; the server may know a quicker way to send it
    if isinstance(parts, list | tuple):
        handled.is_whole = True
        handled.conclude()
        return parts
    return WatchedParts(parts, handled)


# --- a request, its body and a refusal

_CHUNK = 16_384


class EnvironView(LazyRequestView):
    """The request as the guard sees it: as the application will, before anything of its body is read.

    Its headers are taken out of the environ when somebody asks for them, at the latest before the body is read.

    Args:
        environ: the request.
        resolved: what the framework's router found, if there is one.
        request: the framework's own object, for `identify`; the environ without one.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment, *, resolved: Resolved | None = None, request: Any = None) -> None:
        self._environ = environ
        self.raw_path = _raw_path(environ)
        self.is_ordinary = is_ordinary_environ(environ, self.raw_path)
        self.path = decoded_path(environ)
        self.method = environ["REQUEST_METHOD"].upper()
        self.resolved = resolved
        self.request = environ if request is None else request
        self.other_path, self.findings = None, ()
        self._query_pairs = None
        self._headers = self._header_names = None

    @property
    def query(self) -> bytes:  # type: ignore[override]  # nobody sets it here, nor the following
        """See `RequestView`. Never escaped here: what is not ASCII is refused by whoever reads it."""
        return self._environ.get("QUERY_STRING", "").encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]

    @property
    def prefix(self) -> str:  # type: ignore[override]
        """See `RequestView`."""
        prefix = self._environ.get("SCRIPT_NAME", "")
        return quoted(_decoded(prefix)) if prefix else ""

    def _read_headers(self) -> list[tuple[str, str]]:
        return _headers(self._environ, self._environ.get("asgi.scope") or {})


def _raw_path(environ: WSGIEnvironment) -> str | None:
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is None and "asgi.scope" in environ and environ["asgi.scope"].get("raw_path"):
        raw = environ["asgi.scope"]["raw_path"].decode("latin-1")
    return raw.partition("?")[0] if isinstance(raw, str) else None


def is_ordinary(environ: WSGIEnvironment) -> bool:
    """Say at one glance that the firewall finds nothing in a request's target and headers."""
    return is_ordinary_environ(environ, _raw_path(environ))


def decoded_path(environ: WSGIEnvironment) -> str:
    """Return the path below SCRIPT_NAME as the application reads it."""
    path = environ.get("PATH_INFO") or "/"
    return path if path.isascii() else _decoded(path)


def view_of(environ: WSGIEnvironment, *, request: Any = None) -> RequestView:
    """Return the same, with everything in it."""
    view = EnvironView(environ, request=request)
    names = ("method", "path", "raw_path", "query", "headers", "request", "prefix")
    return RequestView(**{name: getattr(view, name) for name in names})


def _decoded(text: str) -> str:
    """Return a path as frameworks decode it; what they read in different ways becomes U+FFFD, which is refused."""
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return "�"


def _headers(environ: WSGIEnvironment, scope: Any) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    for key, header in (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")):
        value = environ.get(key)
        if value:
            headers.append((header, value))
        # Frameworks do not look at a second spelling; one that differs makes the header ambiguous.
        if environ.get(f"HTTP_{key}", value) != value:
            headers.append((header, environ[f"HTTP_{key}"]))
    for key, value in environ.items():
        if key.startswith("HTTP_") and key not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            headers.append((key[5:].replace("_", "-").lower(), value))
    # The environ makes one name of X_Name and X-Name: shown as they arrived, the guard can tell.
    for name, value in scope.get("headers", ()):
        if b"_" in name:
            headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))
    return headers


class Body:
    """Read the body ahead of the handler, and leave in its place what gives the handler the same bytes."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ: Final = environ
        self._content: bytes | None = None
        self._is_too_large = False

    def read(self, limit: int, seconds: float) -> bytes:
        """Return the whole body; see the step `ReadBody`. It may be asked for again.

        How long one read may block is the server's to say; `seconds` are looked at between reads.
        """
        if self._content is None and not self._is_too_large:
            self._content = self._read(limit, seconds)
        if self._content is None or len(self._content) > limit:
            raise BodyTooLarge
        return self._content

    def _read(self, limit: int, seconds: float) -> bytes | None:
        environ = self.environ
        stream, length = environ["wsgi.input"], _length(environ)
        if length is None and not environ.get("wsgi.input_terminated"):
            length = 0  # a server that says neither has no body that may be read
        until = time.monotonic() + seconds
        parts: list[bytes] = []
        size = 0
        while size <= limit and size != length:
            wanted = min(_CHUNK, limit + 1 - size, _CHUNK if length is None else length - size)
            try:
                part = stream.read(wanted)
            except Exception as error:
                logger.info("a body broke off: %s", type(error).__name__)
                raise ClientGone from error
            if not part:
                break
            parts.append(part)
            size += len(part)
            if time.monotonic() > until:
                raise BodyTimeout
        content = b"".join(parts)
        if size > limit:
            # Where nothing is refused (observe), the handler gets this and then the rest.
            left = None if length is None else length - size
            environ["wsgi.input"] = io.BufferedReader(_Resumed(content, stream, left))
            self._is_too_large = True
            return None
        if length is not None and size < length:
            raise ClientGone
        environ["wsgi.input"] = io.BytesIO(content)
        environ["wsgi.input_terminated"] = True
        # For a chunked body, too: whoever reads by length gets what was judged, and nobody takes it for chunks still.
        environ["CONTENT_LENGTH"] = str(size)
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return content


_SIGHT: Final = Sight(lambda body, resolved: EnvironView(body.environ, resolved=resolved), Body.read)


class _Resumed(io.RawIOBase):
    """What was read ahead, then the rest of the stream, and never more than belongs to the body."""

    def __init__(self, ahead: bytes, stream: Any, left: int | None) -> None:
        self._ahead = memoryview(ahead)
        self._stream = stream
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._ahead:
            part = bytes(self._ahead[: len(buffer)])
            self._ahead = self._ahead[len(part) :]
        else:
            part = self._stream.read(len(buffer) if self._left is None else min(len(buffer), self._left))
            if self._left is not None:
                self._left -= len(part)
        buffer[: len(part)] = part
        return len(part)


def _length(environ: WSGIEnvironment) -> int | None:
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def refuse(
    environ: WSGIEnvironment, start_response: StartResponse, verdict: Verdict, render: Callable[..., Any] | None
) -> Iterable[bytes]:
    """Answer a refusal."""
    status, headers, content = answer_of(verdict, render)
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Refused"
    start_response(f"{status} {phrase}", headers)
    return [] if environ["REQUEST_METHOD"].upper() == "HEAD" else [content]
