"""ASGI by hand: scopes, a server's side of one request, a handler, and a guard around it."""

import asyncio
import json

from ascend_middleware.asgi import AscendMiddleware

from .engine import options

JSON = (("content-type", "application/json"),)
GONE = {"type": "http.disconnect"}
CONNECT = {"type": "websocket.connect"}


def guard(app, rules, **settings):
    return AscendMiddleware(app, **options(rules, **settings))


def unattended(app):
    """Let nobody deliver the journal of this guard."""
    app._runner.worker = None
    return app


def inside(app, rules, **settings):
    """Guard an application of Starlette or FastAPI from within."""
    app.add_middleware(AscendMiddleware, **options(rules, **settings))
    return app


def http_scope(method="GET", path="/", *, headers=(), query=b"", **more):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers],
        "server": ("site", 80),
        "client": ("client", 1),
        "state": {},
        **more,
    }


def ws_scope(path="/ws", **more):
    scope = http_scope("GET", path, **more)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


class Wire:
    """A server's side of one request: messages to receive, then silence; and what was sent."""

    def __init__(self, *messages, then=None):
        self.messages = list(messages)
        self.shakes = CONNECT in messages
        self.sent = []
        self.received = 0
        self.waiting = 0
        self._then = then
        self.gone = asyncio.Event()

    async def receive(self):
        self.received += 1
        if self.messages:
            return self.messages.pop(0)
        self.waiting += 1
        try:
            await self.gone.wait()
        finally:
            self.waiting -= 1
        return {"type": "websocket.disconnect", "code": 1000} if self.shakes else GONE

    async def send(self, message):
        self.sent.append(message)

    async def through(self, app, scope):
        """Let an application answer this request."""
        await app(scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def problem(self):
        return self.json["type"].rpartition(":")[2]

    @property
    def json(self):
        return json.loads(self.body) if self.body.startswith(b"{") else None

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


class Answered(Wire):
    """Its client stays until it is answered, and no longer."""

    async def send(self, message):
        await super().send(message)
        if message["type"] != "http.response.start" and not message.get("more_body", False):
            self.gone.set()


def part(body=b"", more=False):
    return {"type": "http.request", "body": body, "more_body": more}


class Handler:
    """A plain ASGI application that records that it ran and what it read."""

    def __init__(self, *, reads=True):
        self.ran = 0
        self.body = None
        self.scope = None
        self._reads = reads

    async def __call__(self, scope, receive, send):
        self.ran += 1
        self.scope = scope
        if self._reads:
            self.body = b""
            while True:
                message = await receive()
                self.body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


async def ask(app, path="/run", method="POST", *, body=b"{}", headers=JSON, **more):
    """Make one request; a list as a body is the server's messages."""
    wire = Wire(*(body if isinstance(body, list) else [part(body)]))
    return await wire.through(app, http_scope(method, path, headers=headers, **more))


async def get(app, path, **more):
    return await ask(app, path, "GET", **{"body": b"", "headers": (), **more})


async def shake(app, *messages, **more):
    """Ask for a WebSocket; the messages come after its handshake."""
    return await Wire(CONNECT, *messages).through(app, ws_scope(**more))
