"""The authority over HTTP: an ASGI application on the core, and a server of it on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.text import is_loopback

from .bodies import MAX_BODY, Answer
from .connections import Connections, Limits, Straight
from .service import Service
from .wire import Asked

if sys.platform != "win32":
    import resource

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
    from .door import Door

__all__ = ["bind", "create_app", "load_tls", "serve", "shown_url"]

log = logging.getLogger(f"{__package__}.access")

# Seconds that requests have to end when the server is told to stop; those that wait for a decision end at once.
_GRACE: Final = 5
# One in so many of the files that may be open, and the least and the most: for connections that the system takes while
# the loop is busy, and for open ones. The rest is for the database and webhooks.
_BACKLOG: Final = (8, 16, 512)
# Seconds. The server does not see each request, so how long a connection may be idle is for `Connections` alone.
_NEVER: Final = 10**9
_CONNECTIONS: Final = (2, 8, 4096)
_LONGEST_PATH: Final = 200
# What to choose where an address cannot be had.
_OTHER: Final = {errno.EADDRNOTAVAIL: "an address of this machine as --host", errno.EACCES: "a --port above 1023"}
# Seconds for which a thread keeps the interpreter's lock while others want it.
_TURN: Final = 0.0005
# Objects that are made before the youngest are looked through for garbage: those of some ten requests.
_GARBAGE: Final = 10_000
# A second one of these could be read differently by a proxy and by us.
_SINGLE: Final = frozenset({"authorization", "x-api-key", "idempotency-key", "x-api-version"})


def load_tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Load the files that a server speaks TLS with, or return None if neither is given."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigurationError("TLS needs both --tls-cert and --tls-key")

    def no_password() -> str:
        raise ConfigurationError(f"the private key {key} is encrypted; give the server one that is not")

    for path in (certificate, key):
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"the TLS file {path} does not exist or cannot be read")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=no_password)
    except (ssl.SSLError, OSError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        words = reason or "they are not in the form of PEM"
        raise ConfigurationError(f"{certificate} and {key} are no certificate and its key: {words}") from None
    return context


def bind(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """Return a socket bound to the address; one that others can reach must be asked for."""
    if not allow_remote and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other machines and keys would travel in plain HTTP; pass --tls-cert and "
            "--tls-key, put a TLS proxy in front of 127.0.0.1, or pass --allow-remote"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AscendError(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_files(*_BACKLOG))
    except OSError as error:
        listener.close()
        other = _OTHER.get(error.errno or 0, "another --port")
        raise AscendError(f"cannot listen on {host} port {port}: {error.strerror or error}; choose {other}") from None
    return listener


def _files(share: int, least: int, most: int) -> int:
    """Return a share of the files that this process may have open, within bounds."""
    soft = -1 if sys.platform == "win32" else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if soft < 0 else max(least, min(most, soft // share))


def shown_url(listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> str:
    """Return the URL under which a bound socket can be reached."""
    host, port = listener.getsockname()[:2]
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def create_app(
    authority: Authority,
    *,
    service: Service | None = None,
    access_log: bool = False,
    telemetry: bool = False,
    open_metrics: bool = False,
) -> ASGI3Application:
    """Return the ASGI application of an authority; it starts and stops with the server's lifespan."""
    from .door import Door

    service = service or Service(authority)
    door = Door(service, telemetry=telemetry, open_metrics=open_metrics)
    return _app(authority, service, door, access_log=access_log)


def _app(authority: Authority, service: Service, door: Door, *, access_log: bool) -> ASGI3Application:
    from .page import create_page, is_page  # here: other commands need not wait for the page's libraries

    page = create_page(service)
    service.streams.append(page.state.desk.feed.close)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(service, receive, send)
        elif scope["type"] == "http":
            answer = _logged(scope, send) if access_log else send
            if is_page(scope["path"]):
                refused = await door.refusal(_client(scope))
                if refused is not None:
                    await _send(authority.refused({}, refused), answer)
                else:
                    await page(scope, receive, answer)  # type: ignore[arg-type]
            else:
                await _serve(door, scope, receive, answer)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    return app


async def _lifespan(service: Service, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await receive()  # lifespan.startup
    await service.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await service.stop()
    await send({"type": "lifespan.shutdown.complete"})


async def _serve(door: Door, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = dict(pairs)
    if len(headers) != len(pairs):
        for name in _SINGLE.intersection(headers):
            if sum(given == name for given, _ in pairs) > 1:
                # Neither value counts: what the core then sees is refused there.
                headers[name] = "" if name != "idempotency-key" else "repeated header"
    body = await _read(receive)
    if body is None:
        return

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue

    query = scope["query_string"].decode("latin-1")
    method = scope["method"].upper()
    answer = await door.answer(method, scope["path"], query, headers, body, client=_client(scope), gone=gone)
    await _send(answer, send)


def _client(scope: HTTPScope) -> str:
    """Return the peer's own address; where a proxy stands in front, all limits of an address are the proxy's."""
    peer = scope.get("client")
    return peer[0] if peer else ""


async def _send(answer: Answer, send: ASGISendCallable) -> None:
    status, answer_headers, content = answer
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer_headers.items()]
    pairs.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs, "trailers": False})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _logged(scope: HTTPScope, send: ASGISendCallable) -> ASGISendCallable:
    """Log a request when it is answered."""
    started = time.perf_counter()

    async def logged(event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            _log(_client(scope), scope["method"], scope["path"], event["status"], started)
        await send(event)

    return logged


def _log(client: str, method: str, path: str, status: int, started: float) -> None:
    """Log a request: never its query, headers or body, which may hold secrets or lies."""
    shown = path[:_LONGEST_PATH].encode("unicode_escape").decode("ascii")
    log.info("%s %s %s %d %.1f ms", client or "-", method, shown, status, (time.perf_counter() - started) * 1000)


def _straight(door: Door, *, access_log: bool) -> Straight:
    """Return what answers submissions without ASGI."""
    if not access_log:
        return door.submit

    def submit(asked: Asked, client: str, reply: Callable[[Answer], None]) -> bool:
        started = time.perf_counter()

        def logged(answer: Answer) -> None:
            _log(client, asked.method, asked.target, answer.status, started)
            reply(answer)

        return door.submit(asked, client, logged)

    return submit


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


def serve(
    authority: Authority,
    listener: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    policy_path: str | Path | None = None,
    access_log: bool = False,
    telemetry: bool = False,
    open_metrics: bool = False,
) -> None:
    """Serve until the process is told to stop by SIGINT or SIGTERM, then end what was begun.

    The policy file at `policy_path` is loaded anew when it changes. Each request is logged with `access_log`, without
    its query, headers or body, and traced with `telemetry`. With `open_metrics` nobody needs a key for `/metrics`.

    While it serves, threads of this process take turns every half a millisecond (`sys.setswitchinterval`), and garbage
    is looked for more seldom. `create_app` and `local:` clients leave the process as it is.
    """
    import uvicorn  # here: other commands need not wait for it

    from .door import Door
    from .reload import Reloader

    service = Service(authority)
    connections = Connections(Limits(connections=_files(*_CONNECTIONS)), tls=tls)
    door = Door(service, telemetry=telemetry, open_metrics=open_metrics)
    app = _app(authority, service, door, access_log=access_log)
    connections.count = lambda name: authority.limited(name)
    connections.straight = _straight(door, access_log=access_log)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self._tasks = [asyncio.create_task(connections.watch())]
            if policy_path is not None:
                self._tasks.append(asyncio.create_task(Reloader(service, policy_path).run()))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for task in self._tasks:
                task.cancel()
            await service.release()  # they would hold the end up
            connections.release()
            await connections.settle(_GRACE)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        connections.around(app),
        log_config=None,  # logging is the caller's
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=_NEVER,
        # uvloop hands out what a client sends before TLS can be begun on its connection.
        loop="auto" if tls is None else "asyncio",
        backlog=_files(*_BACKLOG),
        h11_max_incomplete_event_size=connections.limits.request_bytes,  # ours are narrower, and for every parser
    )
    config.load()
    config.http_protocol_class = connections.protocol(config.http_protocol_class)  # type: ignore[assignment]
    with _tuned():
        Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _tuned() -> Iterator[None]:
    """Set the interpreter up for a server; as it belongs to the whole process, it is afterwards what it was before."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    # A decision waits for the interpreter's lock some ten times. A thread that makes a long list out of many rows would
    # keep it for the usual 5 ms each time.
    sys.setswitchinterval(_TURN)
    # What is there now stays for as long as it is served: nobody need look through it for garbage again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        sys.setswitchinterval(interval)
