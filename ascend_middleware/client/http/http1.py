"""HTTP/1.1 without IO: a request as bytes, and an answer of bytes, read by httptools or by h11; and whom it is for.

One of the files that import an HTTP library.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import h11

from .common import MAX_ANSWER_BYTES, describe, response, too_long
from .transport import ExchangeFailed, Request, Response, Unsendable

try:
    import httptools
except ImportError:
    has_httptools = False  # h11 reads the same, slower
else:
    has_httptools = True

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["H11", "HTTP1", "MAX_HEAD_BYTES", "Httptools", "Origin", "encode"]

MAX_HEAD_BYTES: Final = 100 * 1024
# The request line and headers, nothing else; how many lines they are is counted beside.
_HEAD: Final = re.compile(
    r"(?:GET|POST|PUT|PATCH|DELETE) /[!-~]* HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~]*)*"
)


class HTTP1(Protocol):
    """One connection's protocol: a request is begun, then bytes are fed until its answer is whole; and again."""

    def begin(self) -> None:
        """Expect the answer to a request that is being sent."""
        ...

    def feed(self, data: bytes) -> Response | None:
        """Take bytes that arrived, none at the end of the connection; return the answer when it is whole.

        Raises:
            ExchangeFailed: what arrived is not HTTP, or the connection ended in the middle.
            ProtocolError: the answer is too long, or came compressed.
        """
        ...

    def has_surplus(self) -> bool:
        """Say, after an answer, whether more than it has arrived."""
        ...

    def ends(self) -> bool:
        """Say, after an answer, whether the connection is done with; else it is ready for the next request."""
        ...


def encode(request: Request, host: str) -> bytes:
    """Return the whole request as bytes.

    Args:
        request: its URL's path and query are sent as they stand.
        host: the Host header.

    Raises:
        Unsendable: it is not HTTP.
    """
    content, url = request.content, request.url
    target = url[url.index("/", url.index("//") + 2) :]
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if content or request.method != "GET":
        lines.append(f"Content-Length: {len(content)}")
    head = "\r\n".join(lines)
    # A value with a line break of its own would make one line more.
    if _HEAD.fullmatch(head) is None or head.count("\r\n") != len(lines) - 1:
        del head, lines  # they hold the key, and reporters of errors show locals
        raise Unsendable("the request cannot be sent: a header or the target is not HTTP")
    return f"{head}\r\n\r\n".encode("ascii") + content


# h11 reads an answer only where a request was made; which one does not matter, since nobody asks for HEAD or CONNECT.
_ASKED: Final = h11.Request(method="GET", target="/", headers=[("Host", "h")])
_ALL_ASKED: Final = h11.EndOfMessage()


class H11:
    """Read by h11, in Python; see `HTTP1`."""

    __slots__ = ("_body", "_head", "_size", "_state")

    def __init__(self) -> None:
        self._state: Final = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._size = 0

    def begin(self) -> None:  # noqa: D102 - see HTTP1
        self._state.send(_ASKED)
        self._state.send(_ALL_ASKED)

    def feed(self, data: bytes) -> Response | None:  # noqa: D102 - see HTTP1
        state = self._state
        try:
            state.receive_data(data)
            while True:
                event = state.next_event()
                if event is h11.NEED_DATA:
                    if not data:
                        raise ExchangeFailed("the authority closed the connection without an answer")
                    return None
                if isinstance(event, h11.Data):
                    self._size += len(event.data)
                    if self._size > MAX_ANSWER_BYTES:
                        raise too_long()
                    self._body.append(bytes(event.data))
                elif isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.EndOfMessage):
                    return self._whole()
                elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                    raise ExchangeFailed("the authority closed the connection, or speaks another protocol")
        except h11.RemoteProtocolError as error:
            raise ExchangeFailed(f"the exchange with the authority broke: {describe(error)}") from None

    def _whole(self) -> Response:
        head, self._head = self._head, None
        if head is None:
            raise ExchangeFailed("the authority's answer has no head")
        content = b"".join(self._body)
        self._body, self._size = [], 0
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        return response(head.status_code, pairs, content)

    def has_surplus(self) -> bool:  # noqa: D102 - see HTTP1
        return bool(self._state.trailing_data[0])

    def ends(self) -> bool:  # noqa: D102 - see HTTP1
        state = self._state
        if state.our_state is not h11.DONE or state.their_state is not h11.DONE or any(state.trailing_data):
            return True
        state.start_next_cycle()
        return False


class Httptools:
    """Read by httptools (llhttp, in C), where it is installed: a tenth of the time; see `HTTP1`."""

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


class Origin:
    """One authority, reached without a proxy.

    Args:
        url: its base URL.
        context: the certificates to trust; not used for plain HTTP.

    Attributes:
        header: the Host header.
        host: its name or address.
        port: its port.
        context: None for plain HTTP.
        protocol: makes what reads a connection's answers: httptools where it is installed, else h11.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        self.header: Final = parts.netloc
        self.host: Final = parts.hostname or ""
        self.port: Final = parts.port or (443 if tls else 80)
        self.context: Final = context if tls else None
        self.protocol: Final[Callable[[], HTTP1]] = Httptools if has_httptools else H11
