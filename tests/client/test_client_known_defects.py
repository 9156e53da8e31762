"""The known defects of the vendor's SDK, A1 to E9, that concern the client: what it allows and shows, retries, and time.

A2, A6, C2, E2, E6 and E9 are the table of misbehaving answers; A3 and A7 to A9 the kill switch's tests; A10 and A12 those
of MCP; E4, E5, E7 and E8 are with the breaker and the flows.
"""

import json
import time

import pytest
from kit.clients import ACTION, CLASSES, KEY, KINDS, House, run
from kit.clocked import World, answer
from kit.scripted import DROP, HANG, PENDING, Scripted, http

from ascend_middleware import exceptions as errors
from ascend_middleware.api.decode import decode_decision
from ascend_middleware.api.models import AgentAction
from ascend_middleware.client import AscendClient, ClientCore, ExchangeFailed, base
from ascend_middleware.config import Settings
from ascend_middleware.flow import Sleep, drive

ENGINES = pytest.mark.parametrize("engine", ["auto", "httpx2"])
SUBJECT = AgentAction("a", "a", "t", "r")
YES = {"action_id": "7", "decision": "approved", "status": "approved"}


@KINDS
@pytest.mark.parametrize("poll", [PENDING, DROP, HANG, http(503), http(404, {"detail": "?"}), http(200, b"<html>")])
def test_defect_a1_a_held_action_never_passes_in_open_mode(kind, poll):
    with Scripted(PENDING, poll) as server:
        try:
            result = run(
                kind,
                server.url,
                lambda client: client.evaluate_action("t", "r", timeout=0.3),
                fail_mode="open",
            )
        except errors.AscendError:
            pass
        else:
            assert result.is_pending() and not result.execution_allowed
        assert len(server.requests) >= 2


@KINDS
def test_defect_a1_open_mode_covers_nothing_but_a_submit(kind):
    calls = (
        lambda client: client.get_action_status("7"),
        lambda client: client.wait_for_decision("7", 0.05),
        lambda client: client.get_action("7"),
        lambda client: client.list_actions(),
    )
    for call in calls:
        with Scripted(DROP) as server, pytest.raises(errors.AscendError):
            run(kind, server.url, call, fail_mode="open")


REMOTE = [
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    " http://evil.example",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1:80@evil.example",
    "http://[::1]@evil.example",
    "\thttp://evil.example",
    "ftp://localhost",
    "localhost:8000",
    "HTTP://evil.example",
    "http://evil.example#localhost",
    "http://evil.example\\@localhost",
    "https://",
    "https://user:pw@evil.example",
    "https://evil.example\r\nX: y",
]


@CLASSES
@pytest.mark.parametrize("url", REMOTE)
def test_defect_c1_plain_http_leaves_the_machine_for_no_spelling(cls, url):
    with pytest.raises(errors.ConfigurationError) as caught:
        cls(KEY, api_url=url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "127.0.0.2", "[::1]:8"])
def test_defect_c1_loopback_is_loopback(host):
    assert AscendClient(KEY, api_url=f"http://{host}/").settings.api_url == f"http://{host}"


@CLASSES
@pytest.mark.parametrize(
    "key", ["owkai_live_SECRET\nSECRET123", "owkai_live_SECRET SECRET", "x", "changeme", "   ", "é"]
)
def test_defect_c4_no_ill_formed_key_and_none_in_an_error(cls, key, monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    monkeypatch.delenv("OWKAI_API_KEY", raising=False)
    with pytest.raises(errors.AscendError) as caught:
        cls(key, api_url="http://localhost:1")
    assert "SECRET" not in f"{caught.value!r}{vars(caught.value)}"
    assert caught.value.__cause__ is None


def test_defect_c4_a_key_from_a_file_is_stripped():
    with Scripted() as server, AscendClient(f"{KEY}\r\n", api_url=server.url, agent_id="a") as client:
        client.submit_action(ACTION)
        assert server.requests[0].headers["x-api-key"] == KEY


CLIMBERS = ["../../registry/agents/victim#", "../billing/kill-switch/1/release?x=1", "7/../8", "%2e%2e/8", "7\r\nX: y"]
PATHS = {
    "status": lambda client, name: client.get_action_status(name),
    "action": lambda client, name: client.get_action(name),
    "wait": lambda client, name: client.wait_for_decision(name, 0),
    "completed": lambda client, name: client.log_action_completed(name),
    "failed": lambda client, name: client.log_action_failed(name, "e"),
}


@ENGINES
@KINDS
@pytest.mark.parametrize("call", PATHS)
def test_defect_d2_an_identifier_stays_one_segment(kind, engine, call):
    with Scripted(http(404, {"detail": "none"})) as server:
        for name in CLIMBERS:
            with pytest.raises(errors.NotFoundError):
                run(kind, server.url, lambda client: PATHS[call](client, name), engine=engine)
        for request in server.requests:
            tail = request.target.removeprefix("/api/v1/actions/").removeprefix("/api/agent-action/")
            assert tail != request.target
            assert tail.count("/") == (call != "action")
            assert "#" not in tail and "?" not in tail
        asked = len(server.requests)
        for name in ("", " ", None, ".", "..", True, b"7"):
            with pytest.raises(errors.ValidationError):
                run(kind, server.url, lambda client: PATHS[call](client, name), engine=engine)
        assert len(server.requests) == asked


def test_defect_e1_lost_answers_create_one_action():
    house = House()

    def perform(step):
        if isinstance(step, Sleep):
            return None
        result = house.send(step.request, step.timeout)
        if len(house.asked) < 3:
            raise ExchangeFailed("dropped")
        return result

    core = ClientCore(Settings(api_key=house.user, api_url="http://localhost"))
    assert drive(core.submit(AgentAction("a", "a", "data_access", "r")), perform).action_id == "1"
    assert house.call("GET", "/api/v1/actions")[1]["total"] == 1
    house.authority.close()


@pytest.mark.parametrize("status", [500, 503, 520])
def test_defect_e3_the_breaker_counts_server_errors(status):
    world = World(answer(status), max_retries=0)
    for _ in range(5):
        with pytest.raises(errors.ServerError):
            world.run(world.core.submit(SUBJECT))
    assert world.core.breaker.state == "open"
    with pytest.raises(errors.CircuitBreakerOpen):
        world.run(world.core.submit(SUBJECT))
    assert len(world.sent) == 5


def test_defect_e3_refusals_do_not_close_a_half_open_breaker():
    world = World(answer(503), answer(401), max_retries=0, circuit_breaker_threshold=1)
    with pytest.raises(errors.ServerError):
        world.run(world.core.submit(SUBJECT))
    world.time += 31
    for _ in range(3):
        with pytest.raises(errors.AuthenticationError):
            world.run(world.core.submit(SUBJECT))
        assert world.core.breaker.state == "half-open"


@CLASSES
def test_defect_e4_e8_the_wall_clock_decides_nothing(cls):
    subject = cls(KEY, api_url="http://localhost:1")
    assert subject.core.clock is time.monotonic
    assert subject.core.breaker._clock is time.monotonic


@pytest.mark.parametrize("level", ["severe", "MEDIUM", 3, None])
def test_defect_e6_odd_levels_and_stored_words_are_read(level):
    decision = decode_decision(json.dumps({**YES, "risk_level": level}).encode())
    assert decision.is_approved() and (decision.risk_level is None or decision.risk_level == level)
    world = World(answer(200, {"action_id": "7", "status": "pending_approval"}))
    assert world.run(world.core.call(base.get_action("7")))["status"] == "pending_approval"


def test_defect_e7_nothing_is_polled_without_an_id():
    for body in ({"status": "pending"}, {"status": "success", "data": {"status": "pending"}}):
        world = World(answer(200, body))
        with pytest.raises(errors.ProtocolError):
            world.run(world.core.evaluate(SUBJECT, wait=60))
        assert len(world.sent) == 1
    enveloped = {"status": "success", "data": {"action_id": "act_7", "decision": "pending_approval"}}
    world = World(answer(200, enveloped), answer(200, YES))
    assert world.run(world.core.evaluate(SUBJECT, wait=60)).is_approved()
    assert world.sent[1].request.url.endswith("/api/v1/actions/7/status")
