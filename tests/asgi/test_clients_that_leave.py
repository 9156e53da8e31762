"""A client that leaves while its request is decided about: nothing runs, and the authority hears that."""

import asyncio

import pytest
from kit.asgi import CONNECT, GONE, JSON, Handler, guard, http_scope, part, unattended, ws_scope
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ascend_middleware.asgi import AscendMiddleware

pytestmark = pytest.mark.anyio


@pytest.fixture
def handler():
    return Handler()


def scope(*headers):
    return http_scope("POST", "/pay", headers=[*JSON, *headers])


class Server:
    """Receives as a server does: what has come is there at once, and then it waits."""

    def __init__(self, *messages):
        self.queue = asyncio.Queue()
        self.received = 0
        self.sent = []
        for message in messages:
            self.queue.put_nowait(message)

    async def receive(self):
        self.received += 1
        message = await self.queue.get()
        if message == GONE:
            self.queue.put_nowait(GONE)
        return message

    async def send(self, message):
        self.sent.append(message)


class Hypercorn(Server):
    """Receives from a queue itself."""

    def __init__(self, *messages):
        super().__init__(*messages)
        self.receive = self.queue.get


class Uvicorn(Server):
    """Says itself whether its client has left."""

    __module__ = "uvicorn.protocols.http.any"

    @property
    def disconnected(self):
        return GONE in self.queue._queue


def make(ran, rules, *, plain):
    async def endpoint(request):
        ran.append(await request.body())
        return PlainTextResponse("done")

    async def application(scope, receive, send):
        await (await endpoint(Request(scope, receive)))(scope, receive, send)

    given = {"rules": {"rule": rules}}
    if plain:
        return AscendMiddleware(application, **given)
    app = Starlette(routes=[Route("/pay", endpoint, methods=["POST"])])
    app.add_middleware(AscendMiddleware, **given)
    return app


READS = [{"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}}]
UNREAD = [{"match": "POST /pay", "action_type": "pay"}]
BODY = b'{"amount": 1}'


@pytest.mark.parametrize("server", [Server, Hypercorn, Uvicorn])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("rules", [READS, UNREAD])
@pytest.mark.parametrize(
    "messages",
    [[part(BODY), GONE], [part(BODY[:5], True), part(BODY[5:]), GONE]],
)
async def test_it_runs_nothing_and_is_reported(ran, ascend_authority, messages, rules, plain, server):
    ascend_authority.approve()
    app = make(ran, rules, plain=plain)
    server = server(*messages)
    await app(scope(), server.receive, server.send)
    assert (ran, server.sent, len(ascend_authority.asked)) == ([], [], 1)
    inner = app if plain else app.middleware_stack.app
    await inner.aclose()
    assert list(ascend_authority.outcomes.values()) == ["failed"]


async def test_the_journal_says_that_the_handler_did_not_run(engine, handler, tmp_path):
    app = unattended(guard(handler, UNREAD, report_outcomes=True, journal=str(tmp_path)))
    server = Server(part(BODY), GONE)
    await app(scope(), server.receive, server.send)
    (journal,) = tmp_path.rglob("*.journal")
    assert '"error":"the handler did not run: the client left"' in journal.read_text()


async def test_one_that_left_in_the_middle_of_a_body_that_nobody_reads_runs_nothing(ran, ascend_authority):
    ascend_authority.approve()
    server = Server(part(BODY[:5], True), GONE)
    await make(ran, UNREAD, plain=True)(scope(), server.receive, server.send)
    assert (ran, server.sent) == ([], [])


@pytest.mark.parametrize("server", [Server, Hypercorn, Uvicorn])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("rules", [READS, UNREAD])
async def test_one_that_stays_is_served_with_its_whole_body(ran, ascend_authority, rules, plain, server):
    ascend_authority.approve()
    server = server(part(BODY[:5], True), part(BODY[5:]))
    await make(ran, rules, plain=plain)(scope(), server.receive, server.send)
    assert (ran, server.sent[0]["status"]) == ([BODY], 200)


@pytest.mark.parametrize(
    ("messages", "headers", "received"),
    [
        ([*[part(b"a" * 40_000, True)] * 50, part()], [], 2),
        # Who expects to continue is told so by the handler alone.
        ([part(BODY)], [("expect", "100-continue")], 0),
    ],
)
async def test_a_body_that_nobody_reads_is_not_collected(ran, ascend_authority, messages, headers, received):
    ascend_authority.approve()
    server = Server(*messages)

    async def handler(scope, receive, send):
        ran.append(server.received)
        await PlainTextResponse("done")(scope, receive, send)

    await AscendMiddleware(handler, rules={"rule": UNREAD})(scope(*headers), server.receive, server.send)
    assert ran == [received]


@pytest.mark.parametrize("waits", [True, False])
async def test_the_client_is_looked_for_however_soon_the_decision_is_there(engine, ran, waits):
    engine.waits = waits
    server = Server(part(BODY))

    async def handler(scope, receive, send):
        ran.append(server.received)
        ran.append(await receive())
        await PlainTextResponse("done")(scope, receive, send)

    await guard(handler, UNREAD)(scope(), server.receive, server.send)
    assert ran == [2, part(BODY)]


class Other(Uvicorn):
    """A server whose attribute of that name may mean anything."""

    __module__ = "other"


class Method(Uvicorn):
    def disconnected(self):
        return False


@pytest.mark.parametrize(
    ("server", "runs"), [(Uvicorn, False), (Other, True), (Method, True), (Server, True), (Hypercorn, True)]
)
async def test_of_a_client_that_waits_to_be_told_to_continue_only_uvicorn_says_that_it_left(
    ran, ascend_authority, server, runs
):
    ascend_authority.approve()
    server = server(GONE)

    async def handler(scope, receive, send):
        ran.append(True)

    app = AscendMiddleware(handler, rules={"rule": UNREAD})
    await app(scope(("expect", "100-continue")), server.receive, server.send)
    assert ran == [True] * runs


LEFT = {"type": "websocket.disconnect", "code": 1006}


@pytest.mark.parametrize("server", [Server, Hypercorn])
@pytest.mark.parametrize("leaves", [True, False])
async def test_a_handshake_whose_client_left_runs_nothing(ran, ascend_authority, server, leaves):
    ascend_authority.approve()
    server = server(CONNECT, *([LEFT] if leaves else []))

    async def handler(scope, receive, send):
        ran.append(await receive())
        await send({"type": "websocket.accept"})
        server.queue.put_nowait({"type": "websocket.receive", "text": "hello"})
        ran.append((await receive())["text"])

    app = AscendMiddleware(handler, rules={"rule": [{"match": "WEBSOCKET /pay", "action_type": "talk"}]})
    await app(ws_scope("/pay", headers=JSON), server.receive, server.send)
    assert ran == ([] if leaves else [CONNECT, "hello"])
    await app.aclose()
    assert list(ascend_authority.outcomes.values()) == (["failed"] if leaves else ["completed"])
