"""The application's own HTTP client in every adapter, also one whose answers are loaded already."""

import json
import re
import threading
import time

import anyio
import flask
import httpx2
import pytest
from kit.asgi import Handler
from kit.engine import API, KEY
from kit.processes import wait_until
from werkzeug.test import Client

from ascend_middleware import AscendClient, AsyncAscendClient, ConfigurationError, NetworkError
from ascend_middleware.asgi import AscendMiddleware as ASGIMiddleware
from ascend_middleware.exceptions import TimeoutError as AscendTimeoutError
from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware as WSGIMiddleware

RULES = {"rule": [{"match": "POST /pay", "action_type": "pay"}]}
TOLD = {"api_url": API, "api_key": KEY, "agent_id": "a"}
GIVEN = {**TOLD, "journal": "off"}


class Authority:
    """Approves the first, denies what comes after."""

    def __init__(self):
        self.asked = []

    def __call__(self, request):
        self.asked.append(json.loads(request.content)["action_type"])
        word = "approved" if len(self.asked) == 1 else "denied"
        return httpx2.Response(200, json={"action_id": "7", "status": word, "decision": word})


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def own(authority):
    return httpx2.Client(transport=httpx2.MockTransport(authority))


@pytest.fixture
def own_async(authority):
    return httpx2.AsyncClient(transport=httpx2.MockTransport(authority))


def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


def test_wsgi(authority, own):
    app = WSGIMiddleware(hello, rules=RULES, http_client=own, **GIVEN)
    assert [Client(app).post("/pay").status_code for _ in range(2)] == [200, 403]
    assert authority.asked == ["pay", "pay"]
    app.close()
    assert not own.is_closed


@pytest.mark.parametrize("configured", [True, False])
def test_flask(authority, own, configured):
    app = flask.Flask("own", static_folder=None)
    app.add_url_rule("/pay", "pay", lambda: "hello", methods=["POST"])
    if configured:
        app.config["ASCEND"] = {"rules": RULES, "http_client": own, **GIVEN}
        Ascend(app)
    else:
        Ascend(app, rules=RULES, http_client=own, **GIVEN)
    assert [app.test_client().post("/pay").status_code for _ in range(2)] == [200, 403]
    assert not own.is_closed


def test_the_background_worker_asks_through_it_too():
    asked = []

    def answer(request):
        asked.append(request.method)
        return httpx2.Response(200, json={"action_id": "7", "status": "approved", "decision": "approved"})

    own = httpx2.Client(transport=httpx2.MockTransport(answer))
    app = WSGIMiddleware(hello, rules=RULES, http_client=own, **GIVEN)
    assert Client(app).post("/pay").status_code == 200
    wait_until(lambda: "GET" in asked, "nobody tried the key")
    app.close()


def test_asgi(authority, own_async):
    async def main():
        app = ASGIMiddleware(Handler(), rules=RULES, http_client=own_async, **GIVEN)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as client:
            found = [(await client.post("/pay")).status_code for _ in range(2)]
        await app.aclose()
        return found

    assert anyio.run(main) == [200, 403]
    assert not own_async.is_closed


def test_a_client_of_the_wrong_kind_is_told_at_once(own, own_async):
    with pytest.raises(ConfigurationError, match="Client here"):
        WSGIMiddleware(hello, rules=RULES, http_client=own_async, **GIVEN)
    with pytest.raises(ConfigurationError, match="AsyncClient here"):
        ASGIMiddleware(object(), rules=RULES, http_client=own, **GIVEN)


@pytest.mark.parametrize("loaded", [False, True])
def test_clients_take_answers_that_are_loaded(authority, loaded):
    hooks = {"response": [lambda answer: answer.read()]} if loaded else {}
    own = httpx2.Client(transport=httpx2.MockTransport(authority), event_hooks=hooks)
    with AscendClient(http_client=own, **TOLD) as client:
        assert client.submit_action(action_type="t", resource="r").is_approved()

    async def main():
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(Authority())) as own:
            return await AsyncAscendClient(http_client=own, **TOLD).submit_action(action_type="t", resource="r")

    assert anyio.run(main).is_approved()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("403 Forbidden", ConfigurationError),
        ("407 Proxy Authentication Required", ConfigurationError),
        ("Requested authentication, but none was given", ConfigurationError),
        ("Invalid username/password", ConfigurationError),
        ("502 Bad Gateway", NetworkError),
        ("host unreachable (407)", NetworkError),
    ],
)
def test_a_proxy_that_lets_nobody_through_is_no_outage(said, error):
    def away(request):
        raise httpx2.ProxyError(said)

    own = httpx2.Client(transport=httpx2.MockTransport(away))
    with AscendClient(http_client=own, max_retries=0, **TOLD) as client:
        with pytest.raises(error, match=re.escape(said)):
            client.submit_action(action_type="t", resource="r")


def test_an_answer_without_end_is_read_no_further_than_its_bound():
    sent = []

    def parts():
        for _ in range(1000):
            sent.append(1)
            yield b" " * 1_000_000

    async def parts_async():
        for one in parts():
            yield one

    own = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=parts())))
    with AscendClient(http_client=own, **TOLD) as client:
        with pytest.raises(Exception, match="longer than"):
            client.submit_action(action_type="t", resource="r")
    assert len(sent) < 10
    sent.clear()

    async def main():
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=parts_async()))
        async with httpx2.AsyncClient(transport=transport) as own:
            await AsyncAscendClient(http_client=own, **TOLD).submit_action(action_type="t", resource="r")

    with pytest.raises(Exception, match="longer than"):
        anyio.run(main)
    assert len(sent) < 10


def test_an_answer_that_comes_too_late_is_read_no_further():
    sent, before = [], set(threading.enumerate())

    def parts():
        for _ in range(2000):
            sent.append(1)
            time.sleep(0.01)
            yield b" "

    own = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=parts())))
    with AscendClient(http_client=own, timeout=0.1, max_retries=0, **TOLD) as client:
        with pytest.raises(AscendTimeoutError):
            client.submit_action(action_type="t", resource="r")
    wait_until(lambda: set(threading.enumerate()) <= before, "somebody still reads")
    assert len(sent) < 2000


def test_a_loaded_answer_is_bounded_too():
    own = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=b" " * 5_000_000)))
    with AscendClient(http_client=own, **TOLD) as client:
        with pytest.raises(Exception, match="longer than"):
            client.submit_action(action_type="t", resource="r")
