"""A request read off the wire as a whole, and an answer written to it: for what needs neither a parser nor ASGI.

Nothing is refused here: what is not written as clients write it is the server's own protocol's to read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

from .bodies import Answer

__all__ = ["Asked", "read_whole", "written_answer"]

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHODS: Final = frozenset({"DELETE", "GET", "PATCH", "POST", "PUT"})
# Headers that change how the bytes are to be read, or what comes before or after them.
_ELSE: Final = frozenset({"expect", "http2-settings", "te", "trailer", "transfer-encoding", "upgrade"})
_line: Final = "%s: %s".__mod__
_own_line: Final = b"%s: %s\r\n".__mod__


class Asked(NamedTuple):
    """One request; names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def read_whole(data: bytes) -> Asked | None:
    """Return the one request that these bytes are, from its first to its last; None where that is not plain to see."""
    end = data.find(b"\r\n\r\n")
    try:
        head = data[:end].decode("ascii") if end > 0 else ""
        first, *lines = head.split("\r\n")
        method, target, version = first.split(" ")
        headers = {}
        for line in lines:
            name, value = line.split(": ", 1)
            headers[_lower(name)] = value
    except ValueError:
        return None
    body = data[end + 4 :]
    if (
        version != "HTTP/1.1"
        or method not in _METHODS
        or len(headers) != len(lines)  # a name that comes twice
        or not head.replace("\r\n", "").isprintable()
        or not _ELSE.isdisjoint(headers)
        or "host" not in headers
        or headers.get("content-length", "0" if body else "") != (str(len(body)) if body else "")
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        # A value that is empty, or has a blank at one of its ends.
        or ":  " in head
        or " \r\n" in head
        or head[-1] == " "
    ):
        return None
    return Asked(method, target, headers, body)


@functools.lru_cache(maxsize=256)
def _lower(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("it is no name of a header")
    return name.lower()


def written_answer(answer: Answer, first: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return an answer as it is sent; `first` are headers of the server itself."""
    status, headers, body = answer
    lines = "\r\n".join(map(_line, headers.items()))
    rest = f"{lines}\r\ncontent-length: {len(body)}\r\n\r\n".encode("latin-1")
    return b"".join((_status_line(status), *map(_own_line, first), rest, body))


@functools.cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
