"""One connection's HTTP/1.1, without IO: what its two readers share, h11 and httptools, and requests as bytes."""

from __future__ import annotations

import re
from typing import Final, Protocol
from urllib.parse import urlsplit

from .transport import Request, Response, Unsendable

__all__ = ["HTTP1", "MAX_HEAD_BYTES", "authority_of", "encode"]

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


def authority_of(url: str) -> tuple[str, str, int, bool]:
    """Return what a base URL names: the Host header, host, port, and whether TLS is spoken."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return parts.netloc, parts.hostname or "", parts.port or (443 if tls else 80), tls


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
