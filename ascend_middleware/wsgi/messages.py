"""A request, its body and a refusal, in WSGI terms."""

from __future__ import annotations

import io
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..guard import BodyTimeout, BodyTooLarge, ClientGone, RequestView, answer_of, quoted
from ..masking import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from ..guard import Verdict
    from ..routing import Resolved

__all__ = ["Body", "refuse", "view_of"]

logger = get_logger("ascend_middleware.wsgi")

_CHUNK = 16_384


def view_of(environ: WSGIEnvironment, *, resolved: Resolved | None = None, request: Any = None) -> RequestView:
    """Return the request as the guard sees it: as the application will, before anything of its body is read.

    Args:
        environ: the request.
        resolved: what the framework's router found, if there is one.
        request: the framework's own object, for `identify`; the environ without one.
    """
    scope = environ.get("asgi.scope") or {}  # left by adapters from WSGI to ASGI
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is None and scope.get("raw_path"):
        raw = scope["raw_path"].decode("latin-1")
    return RequestView(
        method=environ["REQUEST_METHOD"].upper(),
        path=_decoded(environ.get("PATH_INFO", "")) or "/",
        raw_path=raw.partition("?")[0] if isinstance(raw, str) else None,
        # Never escaped here: what is not ASCII is refused by whoever reads it.
        query=environ.get("QUERY_STRING", "").encode("utf-8", "surrogatepass"),
        headers=_headers(environ, scope),
        resolved=resolved,
        request=environ if request is None else request,
        prefix=quoted(_decoded(prefix)) if (prefix := environ.get("SCRIPT_NAME", "")) else "",
    )


def _decoded(text: str) -> str:
    """Return a path as frameworks decode it; what they read in different ways becomes U+FFFD, which is refused."""
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return "�"


def _headers(environ: WSGIEnvironment, scope: Any) -> list[tuple[str, str]]:
    headers = []
    for key, name in (("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")):
        value = environ.get(key)
        if value:
            headers.append((name, value))
        # Frameworks do not look at a second spelling; one that differs makes the header ambiguous.
        if environ.get(f"HTTP_{key}", value) != value:
            headers.append((name, environ[f"HTTP_{key}"]))
    for key, value in environ.items():
        if key.startswith("HTTP_") and key not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            headers.append((key[5:].replace("_", "-").lower(), value))
    # The environ makes one name of X_Name and X-Name: shown as they arrived, the guard can tell.
    headers += [
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in scope.get("headers", ())
        if b"_" in name
    ]
    return headers


class Body:
    """Read the body ahead of the handler, and leave in its place what gives the handler the same bytes."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
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
        environ = self._environ
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
