"""WebSockets are decided about at the handshake."""

import json

import pytest
from fastapi import FastAPI, WebSocket
from guard_kit import Engine, Handler, Wire, answer, guard, http_scope, options, part, plug, ws_scope

from ascend_middleware.asgi import AscendMiddleware

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(monkeypatch):
    return plug(monkeypatch, Engine(answer("denied", reason="no")))


WS = [{"match": "WEBSOCKET /ws", "action_type": "talk"}]


async def test_a_refused_handshake_is_answered_over_http_or_closed(engine):
    handler = Handler(reads=False)
    wire = Wire({"type": "websocket.connect"})
    await guard(handler, WS)(ws_scope(extensions={"websocket.http.response": {}}), wire.receive, wire.send)
    assert [message["type"] for message in wire.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (wire.status, wire.problem) == (403, "denied")
    for more in ({}, {"extensions": None}, {"extensions": {}}):
        wire = Wire({"type": "websocket.connect"})
        await guard(handler, WS)(ws_scope(**more), wire.receive, wire.send)
        assert wire.sent == [{"type": "websocket.close", "code": 1008, "reason": "denied"}]
    wire = Wire({"type": "websocket.disconnect", "code": 1006})
    await guard(handler, WS)(ws_scope(), wire.receive, wire.send)
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
    wire = Wire({"type": "websocket.connect"}, {"type": "websocket.receive", "text": "a"})
    await app(ws_scope(), wire.receive, wire.send)
    assert [message.get("text") for message in wire.sent] == [None, "a7", None]
    # A GET rule permits no handshake.
    app = guard(Handler(), [{"match": "GET /ws", "exempt": True}])
    wire = Wire({"type": "websocket.connect"})
    await app(ws_scope(), wire.receive, wire.send)
    assert wire.sent[0]["code"] == 1008


async def test_a_handshake_is_no_request_of_that_method_and_the_other_way_round(engine):
    handler = Handler(reads=False)
    app = guard(handler, WS)
    wire = Wire({"type": "websocket.connect"})
    await app(ws_scope(), wire.receive, wire.send)
    wire = Wire(part())
    await app(http_scope("WEBSOCKET", "/ws"), wire.receive, wire.send)
    assert (wire.status, wire.problem, handler.ran) == (403, "unmapped-route", 0)
    assert [action["resource"] for action in engine.submitted] == ["WEBSOCKET /ws"]
    # Under a rule for everything both are governed, and the authority can tell them apart.
    app = guard(handler, [{"match": "* /**", "action_type": "any"}])
    for scope, first in ((ws_scope(), {"type": "websocket.connect"}), (http_scope("WEBSOCKET", "/ws"), part())):
        wire = Wire(first)
        await app(scope, wire.receive, wire.send)
    assert [action["resource"] for action in engine.submitted[1:]] == ["WEBSOCKET /ws", "HTTP WEBSOCKET /ws"]


@pytest.mark.parametrize("headers", [[], [("content-length", "0")]])
async def test_a_handshake_that_was_held_is_resumed_once_by_its_handle(engine, headers):
    ran = []

    async def handler(scope, receive, send):
        ran.append((await receive())["type"])
        await send({"type": "websocket.accept"})

    app = guard(handler, WS)

    async def ask(*more):
        wire = Wire({"type": "websocket.connect"})
        extensions = {"websocket.http.response": {}}
        await app(ws_scope(headers=[*headers, *more], extensions=extensions), wire.receive, wire.send)
        return wire

    engine.answers = [answer("pending")]
    held = await ask()
    assert (held.problem, ran) == ("approval-required", [])
    handle = ("ascend-approval", json.loads(held.body)["approval"]["handle"])
    engine.answers = [answer()]
    assert (await ask(handle)).sent == [{"type": "websocket.accept"}]
    assert ((await ask(handle)).problem, ran) == ("approval-used", ["websocket.connect"])


async def test_by_method_a_handshake_is_a_change(engine):
    app = guard(Handler(reads=False), [], unmapped="by-method")
    wire = Wire({"type": "websocket.connect"})
    await app(ws_scope(), wire.receive, wire.send)
    assert engine.submitted[0]["action_type"] == "data_modification"
