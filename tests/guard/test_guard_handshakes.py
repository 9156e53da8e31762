"""WebSockets are decided about at the handshake."""

import pytest
from fastapi import FastAPI, WebSocket
from kit.asgi import Handler, Wire, ask, guard, shake, ws_scope
from kit.engine import answer, options

from ascend_middleware.asgi import AscendMiddleware

pytestmark = pytest.mark.anyio
OVER_HTTP = {"extensions": {"websocket.http.response": {}}}


@pytest.fixture
def engine(engine):
    engine.answers = [answer("denied", reason="no")]
    return engine


@pytest.fixture
def handler():
    return Handler(reads=False)


WS = [{"match": "WEBSOCKET /ws", "action_type": "talk"}]


async def test_a_refused_handshake_is_answered_over_http_or_closed(engine, handler):
    app = guard(handler, WS)
    wire = await shake(app, **OVER_HTTP)
    kinds = [message["type"] for message in wire.sent]
    assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (wire.status, wire.problem) == (403, "denied")
    for more in ({}, {"extensions": None}, {"extensions": {}}):
        assert (await shake(app, **more)).sent == [{"type": "websocket.close", "code": 1008, "reason": "denied"}]
    wire = await Wire({"type": "websocket.disconnect", "code": 1006}).through(app, ws_scope())
    assert (wire.sent, handler.ran) == ([], 0)


async def test_an_allowed_handshake_runs(engine):
    engine.answers = [answer()]
    app = FastAPI()

    @app.websocket("/ws")
    async def talk(socket: WebSocket):
        await socket.accept()
        await socket.send_text(await socket.receive_text() + socket.state.ascend.action_id)
        await socket.close()

    app.add_middleware(AscendMiddleware, **options(WS))
    wire = await shake(app, {"type": "websocket.receive", "text": "a"})
    assert [message.get("text") for message in wire.sent] == [None, "a7", None]
    # A GET rule permits no handshake.
    app = guard(Handler(), [{"match": "GET /ws", "exempt": True}])
    assert (await shake(app)).sent[0]["code"] == 1008


async def test_a_handshake_is_no_request_of_that_method_and_the_other_way_round(engine, handler):
    app = guard(handler, WS)
    await shake(app)
    wire = await ask(app, "/ws", "WEBSOCKET")
    assert (wire.status, wire.problem, handler.ran) == (403, "unmapped-route", 0)
    assert [action["resource"] for action in engine.submitted] == ["WEBSOCKET /ws"]
    # Under a rule for everything both are governed, and the authority can tell them apart.
    app = guard(handler, [{"match": "* /**", "action_type": "any"}])
    await shake(app)
    await ask(app, "/ws", "WEBSOCKET")
    assert [action["resource"] for action in engine.submitted[1:]] == ["WEBSOCKET /ws", "HTTP WEBSOCKET /ws"]


@pytest.mark.parametrize("headers", [[], [("content-length", "0")]])
async def test_a_handshake_that_was_held_is_resumed_once_by_its_handle(engine, ran, headers):

    async def handler(scope, receive, send):
        ran.append((await receive())["type"])
        await send({"type": "websocket.accept"})

    app = guard(handler, WS)

    async def ask(*more):
        return await shake(app, headers=[*headers, *more], **OVER_HTTP)

    engine.answers = [answer("pending")]
    held = await ask()
    assert (held.problem, ran) == ("approval-required", [])
    handle = ("ascend-approval", held.json["approval"]["handle"])
    engine.answers = [answer()]
    assert (await ask(handle)).sent == [{"type": "websocket.accept"}]
    assert ((await ask(handle)).problem, ran) == ("approval-used", ["websocket.connect"])


async def test_by_method_a_handshake_is_a_change(engine, handler):
    await shake(guard(handler, [], unmapped="by-method"))
    assert engine.kinds == ["data_modification"]
