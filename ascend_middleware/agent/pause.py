"""Tokens: a request that is on hold, as text that another process goes on with."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from ..secret_names import is_secret
from .hold import HANDLE_HEADER

__all__ = ["resume", "token_of"]

_VERSION: Final = 1
# What the client that resumes sets by itself, and what only concerned the first connection.
_NOT_KEPT: Final = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "user-agent",
        HANDLE_HEADER.lower(),
    }
)


class _Request(msgspec.Struct, array_like=True):
    version: int
    method: str
    url: str
    headers: list[tuple[str, str]]
    content: bytes
    handle: str


def token_of(method: str, url: str, headers: Iterable[tuple[str, str]], content: bytes, handle: str) -> str:
    """Return a token; credentials are left out, by the names of their headers."""
    kept = [(name, value) for name, value in headers if name.lower() not in _NOT_KEPT and not is_secret(name)]
    request = _Request(_VERSION, method, url, kept, content, handle)
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(request)).decode("ascii")


def resume(client: Any, token: str) -> Any:
    """Send a request that was on hold again, with its handle.

    The client brings what the token leaves out, the credentials above all: an approval is for the same caller. Where
    the client has `ApprovalAuth` or `ApprovalAdapter` it waits on, if nobody has decided yet.

    Args:
        client: of httpx or httpx2, or a session of requests. An `AsyncClient` returns what is to be awaited.
        token: of `ApprovalPaused` or `ApprovalTimeout`. Whoever can change it can send another request, which the
            service then refuses: an approval is for the same request only.

    Returns:
        The client's response.

    Raises:
        ValueError: it is no token. What the client raises passes.
    """
    try:
        request = msgspec.msgpack.decode(base64.urlsafe_b64decode(token), type=_Request)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise ValueError("this is no token of an action on hold") from error
    if request.version != _VERSION:
        raise ValueError(f"this token is of version {request.version}, and {_VERSION} is known here")
    headers = [*request.headers, (HANDLE_HEADER, request.handle)]
    content = request.content or None
    if hasattr(client, "mount"):  # a session of requests
        return client.request(request.method, request.url, headers=dict(headers), data=content)
    return client.request(request.method, request.url, headers=headers, content=content)
