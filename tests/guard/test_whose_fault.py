"""An open rule opens for the authority's silence, and for nothing that this service or its callers do themselves."""

import asyncio
import collections
import contextlib
import errno
import importlib.util
import json
import re
import resource
import socket
import sqlite3

import pytest
import trustme
from kit.asgi import JSON, Handler, Wire, ask, guard, http_scope, part
from kit.engine import answer, failed, options
from starlette.applications import Starlette
from starlette.routing import Route

from ascend_middleware import Agent, AscendClient
from ascend_middleware.api.orders import Order
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.client.http import (
    ConnectFailed,
    DeadlinePassed,
    ExchangeFailed,
    Overloaded,
    TLSFailed,
    Unsendable,
)
from ascend_middleware.exceptions import ConfigurationError, NetworkError, OverloadedError

pytestmark = pytest.mark.anyio
RUN = {"match": "POST /run", "action_type": "run", "on_failure": "open"}


@pytest.mark.parametrize(
    ("error", "status", "problem", "ran"),
    [
        (ConnectFailed("no"), 200, None, 1),
        (DeadlinePassed("late"), 200, None, 1),
        (DeadlinePassed("late", waited=4.0), 503, "overloaded", 0),
        (DeadlinePassed("late", waited=0.6), 503, "overloaded", 0),
        (Overloaded("no connection"), 503, "overloaded", 0),
        (Unsendable("ImportError: socksio"), 500, "misconfigured", 0),
        (TLSFailed("certificate verify failed"), 500, "misconfigured", 0),
        (DeadlinePassed("late", answered=True), 503, "unavailable", 0),
        (ExchangeFailed("broke off"), 503, "unavailable", 0),
    ],
)
async def test_whose_time_it_was_decides(engine, handler, error, status, problem, ran):
    engine.answers = [error]
    app = guard(handler, [RUN])
    wire = await ask(app)
    assert (wire.status, handler.ran) == (status, ran)
    if problem:
        assert wire.problem == problem
        assert ("retry-after" in wire.headers) == (status == 503)
    # Whatever this service lacks says nothing about the authority.
    counted = 0 if problem == "overloaded" or type(error) is Unsendable else 1
    assert app.guard.core.breaker.failures == counted


@pytest.mark.parametrize("last", [DeadlinePassed("late"), ConnectFailed("no")])
async def test_a_failure_after_an_answer_is_not_silence(engine, handler, last):
    engine.answers = [failed(503), last]
    app = guard(handler, [RUN], max_retries=1, deadline=60)
    wire = await ask(app)
    assert (wire.status, wire.problem, handler.ran, len(engine.requests)) == (503, "unavailable", 0, 2)


async def test_a_body_that_dribbles_is_no_outage(engine, handler):
    """The clock of the authority runs from the submit; here the body, read to look for an approval, takes longer."""
    times = []

    async def send(request, timeout):
        times.append(timeout)
        if timeout < 0.15:
            raise DeadlinePassed("late")
        return answer("pending")

    engine.send = send
    app = guard(handler, [RUN], deadline=0.2)
    assert (await ask(app, body=b"one")).problem == "approval-required"
    wire = Wire()
    parts = [part(b"a", more=True), part(b"b", more=True), part(b"c")]

    async def receive():
        await asyncio.sleep(0.1)
        return parts.pop(0)

    headers = [*JSON, ("content-length", "3")]
    await app(http_scope("POST", "/run", headers=headers), receive, wire.send)
    assert (wire.status, wire.problem, handler.ran) == (403, "approval-required", 0)
    assert times[-1] > 0.15


async def test_a_hook_that_takes_long_is_no_outage(engine, handler):
    times = []

    async def send(request, timeout):
        times.append(timeout)
        return answer("denied")

    async def identify(request):
        await asyncio.sleep(0.25)
        return Agent("bot")

    engine.send = send
    given = options([RUN], deadline=0.2)
    assert (await ask(AscendMiddleware(handler, **given, identify=identify))).problem == "denied"
    assert times[0] > 0.15 and handler.ran == 0


# --- the breaker


@pytest.mark.parametrize(
    ("failures", "opens"),
    [
        ([ConnectFailed("no"), DeadlinePassed("late")], True),
        ([failed(500), failed(500)], False),
        ([ConnectFailed("no"), failed(500)], False),
        ([failed(500), ConnectFailed("no")], False),
        ([ExchangeFailed("reset"), ConnectFailed("no")], False),
        ([TLSFailed("no certificate"), ConnectFailed("no")], False),
    ],
)
async def test_only_a_breaker_that_silence_opened_opens_rules(engine, handler, failures, opens):
    engine.answers = [*failures, answer()]
    app = guard(handler, [{**RUN, "on_failure": "closed"}, {**RUN, "match": "POST /open"}],
                circuit_breaker_threshold=2)  # fmt: skip
    for _ in failures:
        await ask(app)
    assert app.guard.core.breaker.state == "open"
    wire = await ask(app, "/open")
    assert wire.status == (200 if opens else 503)
    assert len(engine.requests) == len(failures)


# --- connections of our own


class Slow:
    """An authority on a socket that denies after a while."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.asked = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        body = json.dumps({"action_id": "7", "status": "denied", "decision": "denied"}).encode()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get "):  # whether the key is known
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.asked.append(json.loads(await reader.readexactly(length)))
                await asyncio.sleep(self.seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()


async def test_a_crowd_before_a_healthy_authority_opens_nothing(handler):
    async with Slow(0.4) as authority:
        rules = [RUN, {**RUN, "match": "POST /closed", "on_failure": "closed"}]
        app = guard(handler, rules, api_url=authority.url, deadline=2.0, max_connections=2, max_retries=3)
        wires = await asyncio.gather(*(ask(app, "/run" if number % 2 else "/closed") for number in range(16)))
        seen = collections.Counter(wire.problem for wire in wires)
        assert handler.ran == 0
        assert set(seen) == {"denied", "overloaded"} and seen["denied"] >= 2
        assert app.guard.core.breaker.failures == 0
        assert (await ask(app)).problem == "denied"
        await app.aclose()


async def test_one_agent_cannot_use_up_all_connections(handler):
    async with Slow(0.05) as authority:
        app = guard(handler, [RUN], api_url=authority.url, max_connections=2, agent_header="x-agent")
        finished = []

        async def ask_as(agent):
            finished.append((agent, (await ask(app, headers=[*JSON, ("x-agent", agent)])).problem))

        crowd = [asyncio.ensure_future(ask_as("many")) for _ in range(30)]
        while len(authority.asked) < 4:
            await asyncio.sleep(0.005)
        await ask_as("one")
        assert finished[-1] == ("one", "denied")
        assert len(finished) < 10
        await asyncio.gather(*crowd)
        await app.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_file_left_is_overload_and_no_outage(handler, host):
    """Somebody who makes this process use up its files must not open its rules."""
    app = guard(handler, [RUN], api_url=f"http://{host}:1", kill_switch="off")
    app._runner.worker.start = lambda: None  # it would deliver what passed
    assert (await ask(app)).status == 200  # nobody listens there: an outage
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    app.guard.kill.refresh()
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[0], 256), limit[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(open("/dev/null"))  # noqa: SIM115, ASYNC230
        wire = await ask(app)
    finally:
        for file in taken:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert (wire.status, wire.problem, handler.ran) == (503, "overloaded", 1)
    await app.aclose()


@pytest.mark.parametrize(
    ("failures", "problem"),
    [
        ((errno.ECONNREFUSED, errno.EADDRNOTAVAIL), None),  # IPv6 is switched off, and the authority is away
        ((errno.EADDRNOTAVAIL, errno.ECONNREFUSED), None),
        ((errno.EADDRNOTAVAIL, errno.EADDRNOTAVAIL), "overloaded"),  # no port is left
        ((errno.ENOBUFS,), "overloaded"),
        ((errno.ENETUNREACH,), None),
    ],
)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_every_address_has_to_lack_something_here(handler, monkeypatch, failures, problem, asynchronous):
    """The machine's own answers to a connection, which no test can provoke, are those of a resolver and a socket here."""
    places = {f"127.9.9.{number}": failure for number, failure in enumerate(failures)}
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, 80)) for place in places]
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    class Refusing(socket.socket):
        def connect(self, address):
            if address[0] in places:
                raise OSError(places[address[0]], "no")
            return connect(self, address)

    monkeypatch.setattr(socket, "socket", Refusing)

    def look_up(host, *rest, **more):
        named = [entry for entry in entries if host in ("away", entry[4][0])]
        return named or resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    given = {"api_url": "https://away", "deadline": 5, "kill_switch": "off"}
    if asynchronous:
        app = guard(handler, [RUN], **given)
        app._runner.worker.start = lambda: None  # it would deliver what passed
        wire = await ask(app)
        assert (wire.problem if wire.status != 200 else None, handler.ran) == (problem, 0 if problem else 1)
        return
    with AscendClient("owkai_test_0123456789abcdef", agent_id="a", api_url="https://away", max_retries=0) as client:
        with pytest.raises(OverloadedError if problem else NetworkError) as caught:
            await asyncio.to_thread(client.submit_action, {"action_type": "t", "resource": "r"})
        assert caught.value.unanswered is (problem is None)


# --- what was set up wrongly


@pytest.mark.parametrize(
    ("settings", "environment", "says"),
    [
        ({"proxy": "socks5://127.0.0.1:1"}, {}, "socksio"),
        ({"trust_env": True}, {"ALL_PROXY": "socks5h://127.0.0.1:1"}, "socksio"),
        ({"trust_env": True}, {"HTTPS_PROXY": "socks4://127.0.0.1:1"}, "environment's proxy"),
        ({"proxy": "ftp://127.0.0.1:1"}, {}, "proxy must be"),
        ({"proxy": "http://127.0.0.1:port"}, {}, "proxy"),
        ({"ca_file": "/nowhere/ca.pem"}, {}, "ca_file '/nowhere/ca.pem'"),
        ({"ca_file": __file__}, {}, "ca_file"),
        ({"trust_env": True}, {"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE"),
        ({"trust_env": True}, {"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
        ({"trust_env": True}, {"SSL_CERT_DIR": "/nowhere"}, "SSL_CERT_DIR"),
        ({"api_url": "https://a..example"}, {}, "api_url"),
    ],
)
async def test_what_can_never_work_fails_the_start(monkeypatch, settings, environment, says):
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, find=importlib.util.find_spec:
                        None if name == "socksio" else find(name))  # fmt: skip
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        AscendMiddleware(Handler(), **options([RUN], **settings))


async def test_certificates_that_are_gone_at_the_first_request_are_no_silence_of_the_authority(handler, tmp_path):
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    app = guard(Starlette(routes=[Route("/run", handler, methods=["POST"])]), [RUN], ca_file=str(file))
    file.unlink()
    for _ in range(4):  # the first ones, and those of a path that is known by then
        answered = await ask(app)
        assert (answered.status, answered.problem, handler.ran) == (500, "misconfigured", 0)


# --- the budget of open rules


async def test_workers_that_share_a_state_share_the_budget(engine, handler, tmp_path):
    engine.answers = [ConnectFailed("no")]
    place = str(tmp_path / "state.db")
    workers = [guard(handler, [RUN], open_per_minute=5, state=place, enable_circuit_breaker=False) for _ in range(4)]
    statuses = [(await ask(app)).status for _ in range(5) for app in workers]
    assert (statuses.count(200), handler.ran) == (5, 5)
    # Another service that keeps its state at the same place has a budget of its own.
    other = guard(handler, [RUN], open_per_minute=5, state=place, agent_id="other")
    assert (await ask(other)).status == 200
    assert other.health()["open_passes"] == {"last_minute": 1, "per_minute": 5, "total": 1}
    none = guard(handler, [RUN], open_per_minute=0, state=place, agent_id="third")
    assert (await ask(none)).status == 503


async def test_an_agent_named_like_the_budget_does_not_use_it(engine, handler):
    engine.answers = [ConnectFailed("no")]
    app = guard(handler, [RUN], open_per_minute=1, agent_header="x-agent")
    app.guard.state.apply(
        [Order(target="open bot", slot="limit", kind="RATE_LIMIT", issued_at=1.0, max_per_minute=100)],
        command_id="c", now=1.0,
    )  # fmt: skip
    for agent, status in (("open bot", 200), ("open bot", 503)):
        assert (await ask(app, headers=[*JSON, ("x-agent", agent)])).status == status


async def test_a_budget_that_cannot_be_counted_is_spent(engine, tmp_path):
    engine.answers = [ConnectFailed("no")]
    handler, place = Handler(), tmp_path / "state.db"
    app = guard(handler, [RUN], state=str(place), state_timeout=0.05)
    assert (await ask(app)).status == 200
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        wire = await ask(app)
        writer.execute("ROLLBACK")
    assert (wire.status, wire.problem, handler.ran) == (503, "unavailable", 1)
    assert (await ask(app)).status == 200


@pytest.mark.parametrize("code", [408, 421, 425])
async def test_a_status_that_says_later_is_no_setting_of_ours(engine, handler, code):
    engine.answers = [failed(code)]
    wire = await ask(guard(handler, [RUN], max_retries=0))
    assert (wire.status, wire.problem, handler.ran) == (503, "unavailable", 0)


# --- what the caller sent


@pytest.mark.parametrize(
    ("code", "error", "status", "problem", "field"),
    [
        (422, {"error": {"code": "VALIDATION_ERROR", "message": "resource_id is too long",
                         "details": {"field": "resource_id"}}}, 422, "bad-request", "resource_id"),
        (422, {"detail": [{"loc": ["body", "amount"], "msg": "too large"}]}, 422, "bad-request", "amount"),
        (400, {"error": {"code": "INVALID_REQUEST", "message": "no"}}, 400, "bad-request", None),
        (413, {"error": {"code": "PAYLOAD_TOO_LARGE", "message": "131072 bytes"}}, 413, "body-too-large", None),
        (404, {"detail": "no such route"}, 500, "misconfigured", None),
        (401, {"detail": "no such key"}, 500, "misconfigured", None),
        (405, {"detail": "no such method"}, 500, "misconfigured", None),
        (415, {"detail": "no such type"}, 500, "misconfigured", None),
    ],
)  # fmt: skip
async def test_what_is_refused_about_the_content_is_the_callers(engine, handler, code, error, status, problem, field):
    engine.answers = [failed(code, json.dumps(error).encode())]
    wire = await ask(guard(handler, [RUN]))
    assert (wire.status, wire.problem, wire.json.get("field"), handler.ran) == (status, problem, field, 0)
    assert wire.json["status"] == status and "retry-after" not in wire.headers


@pytest.mark.parametrize(
    ("value", "status", "problem", "field"),
    [
        ('"' + "x" * 2000 + '"', 422, "bad-request", "resource_id"),
        ('"' + "x" * 200_000 + '"', 413, "body-too-large", None),
        ("9223372036854775808", 400, "bad-request", "action_details.value"),
        ("[" * 40 + "]" * 40, 400, "bad-request", "action_details.value.0.0"),
        ("[" + "1," * 20_000 + "1]", 400, "bad-request", "action_details.value"),
    ],
    ids=["long", "large", "2**63", "deep", "many"],
)
async def test_the_embedded_authority_blames_the_caller_for_the_callers_data(
    handler, tmp_path, value, status, problem, field
):
    (tmp_path / "policy.toml").write_text("[thresholds]\npending = 99\ndenied = 100\n")
    rule = {**RUN, "details": {"value": "body.value"}, "resource_id": "{body.id?}", "body_limit": 1_000_000}
    app = guard(handler, [rule], api_url=f"local:{tmp_path / 'policy.toml'}", kill_switch="off")
    name = "id" if field == "resource_id" else "value"
    wire = await ask(app, body=f'{{"value": 1, "{name}": {value}}}'.replace('"value": 1, "value"', '"value"').encode())
    assert (wire.status, wire.problem, wire.json.get("field")) == (status, problem, field)
    assert (await ask(app, body=b'{"value": 1}')).status == 200
    assert handler.ran == 1
    await app.aclose()
