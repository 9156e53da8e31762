"""The same as `Speech`, heard by httptools (llhttp, in C) where it is installed: a tenth of the time.

One of the files that import an HTTP library.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from .common import MAX_ANSWER_BYTES, describe, response, too_long
from .http1_h11 import MAX_HEAD_BYTES, target_of
from .transport import ExchangeFailed, Request, Response, Unsendable

__all__ = ["FastSpeech"]

# The request line and headers, nothing else; how many lines they are is counted beside.
_HEAD: Final = re.compile(
    r"(?:GET|POST|PUT|PATCH|DELETE) /[!-~]* HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~]*)*"
)


class FastSpeech:
    """What is said on one connection, one request after the other; see `Speech`.

    Args:
        host: the Host header.
    """

    __slots__ = (
        "_body",
        "_done",
        "_early",
        "_extra",
        "_fed",
        "_headers",
        "_host",
        "_keeps",
        "_open_ended",
        "_parser",
        "_size",
        "_status",
    )

    def __init__(self, host: str) -> None:
        self._host: Final = host
        self._parser: Final = httptools.HttpResponseParser(self)
        self._extra = False
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._status = self._size = self._fed = 0
        self._done = self._early = self._keeps = self._open_ended = False

    def say(self, request: Request) -> bytes:
        """Return the whole request as bytes; raise `Unsendable` for one that is not HTTP."""
        content = request.content
        lines = [f"{request.method} {target_of(request.url)} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in request.headers]
        if content or request.method != "GET":
            lines.append(f"Content-Length: {len(content)}")
        head = "\r\n".join(lines)
        # A value with a line break of its own would make one line more.
        if _HEAD.fullmatch(head) is None or head.count("\r\n") != len(lines) - 1:
            raise Unsendable("the request cannot be sent: a header or the target is not HTTP")
        self._begin()
        return f"{head}\r\n\r\n".encode("ascii") + content

    def hear(self, data: bytes) -> Response | None:
        """Take bytes that arrived, none at the end of the connection; return the answer when it is whole.

        Raises:
            ExchangeFailed: what arrived is not HTTP, or the connection ended in the middle.
            ProtocolError: the answer is too long, or came compressed.
        """
        if not data:
            if self._status and self._open_ended and not self._done:
                self._keeps = False
                return self._whole()
            raise ExchangeFailed("the authority closed the connection without an answer")
        if not self._status:
            self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._done:
                raise ExchangeFailed(f"the exchange with the authority broke: {describe(error)}") from None
            self._extra = True  # the answer is whole; what came behind it is not
        if self._size > MAX_ANSWER_BYTES:
            raise too_long()
        if self._fed > MAX_HEAD_BYTES and not self._status:
            raise ExchangeFailed("the head of the authority's answer does not end")
        return self._whole() if self._done else None

    def _whole(self) -> Response:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers]
        return response(self._status, pairs, b"".join(self._body))

    def has_surplus(self) -> bool:
        """Say, after an answer, whether more than it has arrived."""
        return self._extra

    def ends(self) -> bool:
        """Say, after an answer, whether the connection is done with; else it is ready for the next request."""
        return self._extra or not self._keeps

    # --- what the parser tells

    def on_message_begin(self) -> None:  # noqa: D102 - of the parser's protocol
        if self._done:
            self._extra = True  # a second answer, which nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102 - of the parser's protocol
        if not self._done:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:  # noqa: D102 - of the parser's protocol
        if self._done:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._early = True
            return
        self._status = status
        self._keeps = self._parser.should_keep_alive()
        named = {name.lower() for name, _ in self._headers}
        self._open_ended = not named & {b"content-length", b"transfer-encoding"}

    def on_body(self, body: bytes) -> None:  # noqa: D102 - of the parser's protocol
        if not self._done:
            self._size += len(body)
            if self._size <= MAX_ANSWER_BYTES:
                self._body.append(body)

    def on_message_complete(self) -> None:  # noqa: D102 - of the parser's protocol
        if self._early:
            self._early = False
            self._headers = []
        else:
            self._done = True
