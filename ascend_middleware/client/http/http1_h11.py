"""Answers read by h11, in Python.

One of the files that import an HTTP library.
"""

from __future__ import annotations

from typing import Final

import h11

from .common import MAX_ANSWER_BYTES, describe, response, too_long
from .http1 import MAX_HEAD_BYTES
from .transport import ExchangeFailed, Response

__all__ = ["H11"]

# h11 reads an answer only where a request was made; which one does not matter, since nobody asks for HEAD or CONNECT.
_ASKED: Final = h11.Request(method="GET", target="/", headers=[("Host", "h")])
_ALL_ASKED: Final = h11.EndOfMessage()


class H11:
    """See `HTTP1`."""

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
