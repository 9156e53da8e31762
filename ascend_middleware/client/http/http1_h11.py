"""One connection's HTTP/1.1, without IO: from a request to bytes, and from bytes to a whole answer. h11 speaks.

One of the files that import an HTTP library.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import h11

from .common import MAX_ANSWER_BYTES, describe, response, too_long
from .transport import ExchangeFailed, Request, Response, Unsendable

__all__ = ["MAX_HEAD_BYTES", "Speech", "authority_of", "target_of"]

MAX_HEAD_BYTES: Final = 100 * 1024


def authority_of(url: str) -> tuple[str, str, int, bool]:
    """Return what a base URL names: the Host header, host, port, and whether TLS is spoken."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return parts.netloc, parts.hostname or "", parts.port or (443 if tls else 80), tls


def target_of(url: str) -> str:
    """Return path and query of a URL as they stand."""
    return url[url.index("/", url.index("//") + 2) :]


class Speech:
    """What is said on one connection, one request after the other.

    Args:
        host: the Host header.
    """

    __slots__ = ("_body", "_head", "_host", "_size", "_state")

    def __init__(self, host: str) -> None:
        self._host: Final = host
        self._state: Final = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._size = 0

    def say(self, request: Request) -> bytes:
        """Return the whole request as bytes; raise `Unsendable` for one that is not HTTP."""
        target = target_of(request.url)
        headers = [("Host", self._host), *request.headers]
        content = request.content
        if content or request.method != "GET":
            headers.append(("Content-Length", str(len(content))))
        send = self._state.send
        try:
            said = send(h11.Request(method=request.method, target=target, headers=headers)) or b""
            if content:
                said += send(h11.Data(data=content)) or b""
            return said + (send(h11.EndOfMessage()) or b"")
        except (h11.LocalProtocolError, UnicodeError) as error:
            raise Unsendable(f"the request cannot be sent: {describe(error)}") from None

    def hear(self, data: bytes) -> Response | None:
        """Take bytes that arrived, none at the end of the connection; return the answer when it is whole.

        Raises:
            ExchangeFailed: what arrived is not HTTP, or the connection ended in the middle.
            ProtocolError: the answer is too long, or came compressed.
        """
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

    def has_surplus(self) -> bool:
        """Say, after an answer, whether more than it has arrived."""
        return bool(self._state.trailing_data[0])

    def ends(self) -> bool:
        """Say, after an answer, whether the connection is done with; else it is ready for the next request."""
        state = self._state
        if state.our_state is not h11.DONE or state.their_state is not h11.DONE or any(state.trailing_data):
            return True
        state.start_next_cycle()
        return False
