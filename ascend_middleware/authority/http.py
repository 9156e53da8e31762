"""The authority's HTTP door: an ASGI application on the core."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from .bodies import MAX_BODY
from .page import create_page, is_page
from .service import Service

if TYPE_CHECKING:
    from asgiref.typing import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
        Scope,
    )

    from .core import Authority

__all__ = ["create_app"]

log = logging.getLogger(f"{__package__}.access")

_LONGEST_PATH: Final = 200
# A second one of these could be read differently by a proxy and by us.
_SINGLE: Final = frozenset({"authorization", "x-api-key", "idempotency-key", "x-api-version"})


def create_app(authority: Authority, *, service: Service | None = None, access_log: bool = False) -> ASGI3Application:
    """Return the ASGI application of an authority; it starts and stops with the server's lifespan.

    Args:
        authority: the core.
        service: what runs beside it; one of its own unless given.
        access_log: whether each request is logged.
    """
    service = service or Service(authority)
    page = create_page(service)
    service.streams.append(page.state.desk.feed.close)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(service, receive, send)
        elif scope["type"] == "http":
            if is_page(scope["path"]):
                await page(scope, receive, _logged(scope, send) if access_log else send)  # type: ignore[arg-type]
                return
            await _serve(service, scope, receive, _logged(scope, send) if access_log else send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    return app


async def _lifespan(service: Service, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await service.start()
            await send({"type": "lifespan.startup.complete"})
        else:
            await service.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _serve(service: Service, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
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

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue

    # The peer's own address; where a proxy stands in front, all failed sign-ins count as the proxy's.
    peer = scope.get("client")
    client = peer[0] if peer else ""
    query = scope["query_string"].decode("latin-1")
    status, answer_headers, content = await service.answer(
        scope["method"].upper(), scope["path"], query, headers, body, client=client, gone=gone
    )
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer_headers.items()]
    pairs.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs, "trailers": False})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _logged(scope: HTTPScope, send: ASGISendCallable) -> ASGISendCallable:
    """Log a request when it is answered: never its query, headers or body, which may hold secrets or lies."""
    started = time.perf_counter()

    async def logged(event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            client = scope["client"][0] if scope["client"] else "-"
            path = scope["path"][:_LONGEST_PATH].encode("unicode_escape").decode("ascii")
            milliseconds = (time.perf_counter() - started) * 1000
            log.info("%s %s %s %d %.1f ms", client, scope["method"], path, event["status"], milliseconds)
        await send(event)

    return logged


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
