"""A governed service on a socket, whose authority the test directs."""

import json
import threading
import time

import anyio
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from ascend_middleware.asgi import AscendMiddleware

RULES = [
    {
        "match": ["POST /refunds", "POST /customers/{customer_id}/refunds"],
        "action_type": "transaction",
        "details": {"amount": "body.amount"},
    },
    {"match": "GET /stream", "exempt": True},
    {"match": "POST /forged", "exempt": True},
]


@pytest.fixture
def forged():
    """What the route /forged answers: status, type of content, body."""
    return {"status": 403, "type": "application/problem+json", "body": {}}


@pytest.fixture
def serve():
    """Serves an application on a port of its own; the result has its `url`."""
    servers = []

    def serve(app):
        server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        until = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < until, "uvicorn did not start"
            time.sleep(0.01)
        server.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        return server

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def site(ascend_authority, forged, serve):
    app, ran = FastAPI(), []
    app.add_middleware(AscendMiddleware, rules={"rule": RULES}, report_outcomes=False, poll_interval=0.001)

    @app.post("/refunds")
    @app.post("/customers/{customer_id}/refunds")
    async def refund(request: Request):
        ran.append((await request.body(), request.headers.get("authorization")))
        return {"refunded": True}

    @app.post("/forged")
    async def forge():

        return Response(json.dumps(forged["body"]), forged["status"], media_type=forged["type"])

    @app.get("/stream")
    async def stream():
        async def forever():
            yield b"first"
            await anyio.sleep(30)

        return StreamingResponse(forever())

    server = serve(app)
    server.ran = ran
    return server
