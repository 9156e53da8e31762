"""Answers read by httptools (llhttp, in C), where it is installed: a tenth of the time.

One of the files that import an HTTP library.
"""

from __future__ import annotations

from typing import Final

import httptools

from .common import MAX_ANSWER_BYTES, describe, response, too_long
from .http1 import MAX_HEAD_BYTES
from .transport import ExchangeFailed, Response

__all__ = ["Httptools"]


class Httptools:
    """See `HTTP1`."""

    __slots__ = (
        "_body",
        "_done",
        "_early",
        "_extra",
        "_fed",
        "_headers",
        "_keeps",
        "_open_ended",
        "_parser",
        "_size",
        "_status",
    )

    def __init__(self) -> None:
        self._parser: Final = httptools.HttpResponseParser(self)
        self._extra = False
        self.begin()

    def begin(self) -> None:  # noqa: D102 - see HTTP1
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._status = self._size = self._fed = 0
        self._done = self._early = self._keeps = self._open_ended = False

    def feed(self, data: bytes) -> Response | None:  # noqa: D102 - see HTTP1
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

    def has_surplus(self) -> bool:  # noqa: D102 - see HTTP1
        return self._extra

    def ends(self) -> bool:  # noqa: D102 - see HTTP1
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
