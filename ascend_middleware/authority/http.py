"""The authority's HTTP door: an ASGI application on the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio.to_thread

from .forms import MAX_BODY

if TYPE_CHECKING:
    from asgiref.typing import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        HTTPScope,
        Scope,
    )

    from .core import Authority

__all__ = ["create_app"]

# A second one of these could be read differently by a proxy and by us.
_SINGLE: Final = frozenset({"authorization", "x-api-key", "idempotency-key", "x-api-version"})


def create_app(authority: Authority) -> ASGI3Application:
    """Return the ASGI application of an authority."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _serve(authority, scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    return app


async def _lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _serve(authority: Authority, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers and name in _SINGLE:
            # Neither value counts: what the core then sees is refused there.
            value = "" if name != "idempotency-key" else "repeated header"
        headers[name] = value
    body = await _read(receive)
    if body is None:
        return
    query = scope["query_string"].decode("latin-1")
    # The database syncs to disk, which must not hold up the event loop.
    status, answer_headers, content = await anyio.to_thread.run_sync(
        authority.handle, scope["method"].upper(), scope["path"], query, headers, body
    )
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer_headers.items()]
    pairs.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs, "trailers": False})
    await send({"type": "http.response.body", "body": content, "more_body": False})


async def _read(receive: ASGIReceiveCallable) -> bytes | None:
    """Return the body, cut just beyond what the core takes, or None if the client left."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size > MAX_BODY or not message["more_body"]:
            return b"".join(parts)[: MAX_BODY + 1]
