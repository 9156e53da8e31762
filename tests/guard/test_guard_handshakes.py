"""WebSockets are decided about at the handshake."""

import pytest
from fastapi import FastAPI, WebSocket
from guard_kit import Engine, Handler, Wire, answer, guard, options, plug, ws_scope

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
