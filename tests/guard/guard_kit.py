"""What the guard's tests share: a scripted engine, ASGI messages by hand, and an application to guard."""

import asyncio
import json

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.client.http import Response

KEY = "owkai_test_0123456789abcdef"


def answer(status="approved", code=200, **more):
    body = {"action_id": "7", "status": status, "decision": status, **more}
    return Response(code, {"content-type": "application/json"}, json.dumps(body).encode())


class Engine:
    """Records what is asked; `answers` are used up one by one, the last one stays. Callables are asked, errors raised."""

    def __init__(self, *answers):
        self.answers = list(answers) or [answer()]
        self.requests = []
        self.opened = 0
        self.closed = 0

    async def send(self, request, timeout):
        self.requests.append(request)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(found):
            found = found(request)
            if hasattr(found, "__await__"):
                found = await found
        if isinstance(found, BaseException):
            raise found
        return found

    async def aclose(self):
        self.closed += 1

    @property
    def submitted(self):
        return [json.loads(request.content) for request in self.requests if request.url.endswith("/submit")]


def plug(monkeypatch, engine):
    """Let every middleware made in this test ask this engine."""
    import ascend_middleware.adapters.runner as adapter

    def opened(settings, **given):
        engine.opened += 1
        return engine

    monkeypatch.setattr(adapter, "open_async_engine", opened)
    return engine


def guard(app, rules, **settings):
    given = {"agent_id": "bot", "api_url": "https://authority.example", "api_key": KEY, "report_outcomes": False}
    return AscendMiddleware(app, rules={"rule": rules}, **{**given, "max_retries": 0, **settings})


def options(rules, **settings):
    """Return the same as keyword arguments for `add_middleware`."""
    given = {"agent_id": "bot", "api_url": "https://authority.example", "api_key": KEY, "report_outcomes": False}
    return {"rules": {"rule": rules}, **given, "max_retries": 0, **settings}


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
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "server": ("site", 80),
        "client": ("client", 1),
        "state": {},
        **more,
    }


def ws_scope(path="/ws", **more):
    scope = http_scope("GET", path, **more)
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}


JSON = (("content-type", "application/json"),)


class Wire:
    """A server's side of one request: messages to receive, then silence; and what was sent."""

    def __init__(self, *messages, then=None):
        self.messages = list(messages)
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
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def problem(self):
        return json.loads(self.body)["type"].rpartition(":")[2]


def part(body=b"", more=False):
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


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


REFUND = {
    "name": "refund",
    "match": "POST /refunds/{id}",
    "action_type": "transaction",
    "details": {"amount": "body.amount", "channel": "header.x-channel?"},
}
UPLOAD = {"name": "upload", "match": "PUT /files/{name:path}", "action_type": "data_modification"}
BODY = b'{"amount": 5, "note": "a"}'


class Holding(Engine):
    """Holds every submitted action until the test decides; `meanwhile` is called before each answer."""

    def __init__(self):
        super().__init__()
        self.words = {}
        self.word = "pending"
        self.meanwhile = lambda: None
        self.reason = "because"
        self.down = None
        self.more = {}

    async def send(self, request, timeout):
        self.requests.append(request)
        await asyncio.sleep(0)
        self.meanwhile()
        if self.down is not None:
            raise self.down
        if request.url.endswith("/submit"):
            number = str(len(self.words) + 1)
            self.words[number] = self.word
        else:
            number = request.url.rsplit("/", 2)[1]
        if number not in self.words:
            return Response(404, {}, b'{"detail": "no such action"}')
        return answer(self.words[number], action_id=number, reason=self.reason, **self.more)

    def decide(self, word, number="1"):
        self.words[number] = word


def guarded(app, rules=(REFUND, UPLOAD), *, identify=None, **settings):
    given = {"agent_id": "bot", "api_url": "https://authority.example", "api_key": KEY, "report_outcomes": False}
    return AscendMiddleware(
        app, rules={"rule": list(rules)}, identify=identify, **{**given, "max_retries": 0, **settings}
    )


async def ask(
    app, handle=None, *, path="/refunds/7", method="POST", body=BODY, headers=JSON, host="site", query=b"", who="alice"
):
    """Make one request; `who` is the caller by the credentials that are sent along, None for an unknown one."""
    wire = Wire(*(body if isinstance(body, list) else [part(body)]))
    given = [("host", host), *headers, *([("authorization", f"Bearer {who}")] if who else [])]
    if handle is not None:
        given.append(("ascend-approval", handle))
    await app(http_scope(method, path, headers=given, query=query), wire.receive, wire.send)
    wire.json = json.loads(wire.body) if wire.body.startswith(b"{") else None
    wire.headers = {name.decode(): value.decode() for name, value in wire.sent[0]["headers"]}
    return wire


async def held(app, **more):
    wire = await ask(app, **more)
    assert (wire.status, wire.problem) == (403, "approval-required"), wire.body
    return wire.json["approval"]["handle"]


async def status(app, handle):
    wire = Wire(part())
    await app(http_scope("GET", f"/.ascend/approvals/{handle}"), wire.receive, wire.send)
    return wire.status, json.loads(wire.body)["state"]
