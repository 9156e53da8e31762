"""A client of a real uvicorn that leaves while its request is decided about: nothing runs, and the authority hears that."""

import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request
from kit.scripted import APPROVED, Scripted

from ascend_middleware.asgi import AscendMiddleware

pytestmark = [pytest.mark.slow, pytest.mark.socket]

RULES = [
    {"match": "POST /pay", "action_type": "pay"},
    {"match": "POST /read", "action_type": "pay", "details": {"amount": "body.amount"}},
    {"match": "GET /health", "exempt": True},
]


class Held:
    """An authority that approves, once the test lets it."""

    def __init__(self):
        self.asked, self.let = threading.Event(), threading.Event()

    def __call__(self, request):
        if request.target.endswith("/submit"):
            self.asked.set()
            assert self.let.wait(30)
        return APPROVED


def site(ran, url):
    app = FastAPI()

    @app.post("/pay")
    @app.post("/read")
    async def act(request: Request):
        ran.append("began")
        ran.append(await request.body())

    @app.get("/health")
    async def health():
        return "well"

    settings = {"agent_id": "a", "api_url": url, "api_key": "owkai_live_0123456789abcdef", "deadline": 30}
    app.add_middleware(AscendMiddleware, rules={"rule": RULES}, kill_switch="off", **settings)
    return app


@pytest.fixture
def served(request):
    """A function that serves an application and returns its port."""
    running = []

    def serve(app, parser):
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=parser, ws="none", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        until = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < until, "uvicorn did not start"
            time.sleep(0.01)
        return server.servers[0].sockets[0].getsockname()[1]

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(30)


def is_well(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("path", ["/pay", "/read"])
@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_a_client_that_left_during_the_decision_runs_nothing(served, parser, path, leaves):
    held, ran = Held(), []
    with Scripted(held) as authority:
        port = served(site(ran, authority.url), parser)
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        head = f"POST {path} HTTP/1.1\r\nHost: site\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
        client.sendall(head.encode() + b'{"amount": 1}')
        assert held.asked.wait(30)
        if leaves:
            client.close()
        # Whatever its loop answers after this, it has noticed before.
        assert is_well(port)
        assert is_well(port)
        held.let.set()
        if not leaves:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.close()
        until = time.monotonic() + 30
        told = "/complete" if not leaves else "/fail"
        while not (reports := [one for one in authority.requests if one.target.endswith(("/complete", "/fail"))]):
            assert time.monotonic() < until, "the authority heard nothing"
            time.sleep(0.02)
    assert ran == ([] if leaves else ["began", b'{"amount": 1}'])
    assert reports[0].target.endswith(told), json.loads(reports[0].body)
