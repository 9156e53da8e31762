"""The known defects of the vendor's SDK, E1 to E9, that concern the client: retries, failures and time.

Not part of this version yet: the background polling of the kill switch, and the tool decorators for MCP clients.
"""

import json
import threading
import time

import pytest
from clocked import PENDING as PENDING_ANSWER
from clocked import World, answer
from parties import ACTION, KEY, House, run
from scripted import APPROVED, DROP, HANG, PENDING, Scripted, Trickle, http

from ascend_middleware import exceptions as errors
from ascend_middleware.api.decode import decode_decision
from ascend_middleware.api.models import AgentAction
from ascend_middleware.client import (
    AscendClient,
    AsyncAscendClient,
    ClientCore,
    ConnectFailed,
    DeadlinePassed,
    ExchangeFailed,
    requests,
)
from ascend_middleware.client.breaker import CircuitBreaker
from ascend_middleware.config import Settings
from ascend_middleware.flow import Sleep, drive

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ENGINES = pytest.mark.parametrize("engine", ["auto", "httpx2"])
SUBJECT = AgentAction("a", "a", "t", "r")
YES = {"action_id": "7", "decision": "approved", "status": "approved"}


@pytest.mark.parametrize("loss", [ConnectFailed("refused"), ExchangeFailed("dropped")])
def test_defect_e1_one_retry_layer_and_one_key(loss):
    world = World(loss)
    with pytest.raises(errors.NetworkError):
        world.run(world.core.submit(SUBJECT))
    assert len(world.sent) == 4
    assert len({*world.headers("Idempotency-Key")}) == 1
    assert world.time - 1000.0 <= 3.5


@ENGINES
@KINDS
def test_defect_e1_the_engine_does_not_retry(kind, engine):
    with Scripted(DROP) as server:
        with pytest.raises(errors.NetworkError):
            run(kind, server.url, lambda client: client.submit_action(ACTION), engine=engine)
        assert len(server.requests) == 1
    with Scripted(HANG) as server:
        with pytest.raises(errors.TimeoutError):
            run(
                kind, server.url, lambda client: client.submit_action(ACTION), engine=engine, timeout=0.3, max_retries=3
            )
        assert len(server.requests) == 1


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


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, errors.RateLimitError)] + [(status, errors.ServerError) for status in (500, 501, 502, 503, 504, 520)],
)
def test_defect_e2_statuses_leave_as_our_errors(status, error):
    world = World(answer(status, {"detail": "d"}, retry_after="0.5"), fail_mode="open")
    with pytest.raises(error) as caught:
        world.run(world.core.submit_or_open(SUBJECT))
    assert caught.value.status_code == status
    if status == 429:
        assert caught.value.retry_after == 0.5


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


def test_defect_e4_one_probe_among_fifty_threads():
    now = [0.0]
    breaker = CircuitBreaker(threshold=1, timeout=30, clock=lambda: now[0])
    breaker.acquire().fail()
    now[0] = 31.0
    start, passed = threading.Barrier(50), []

    def probe():
        start.wait()
        try:
            passed.append(breaker.acquire())
        except errors.CircuitBreakerOpen:
            pass

    threads = [threading.Thread(target=probe) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 1


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
def test_defect_e4_e8_the_wall_clock_decides_nothing(cls):
    subject = cls(KEY, api_url="http://localhost:1")
    assert subject.core.clock is time.monotonic
    assert subject.core.breaker._clock is time.monotonic


@pytest.mark.parametrize("value", ["1.5", "soon", "", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "nan", "1e400"])
@pytest.mark.parametrize("status", [429, 503])
def test_defect_e5_retry_after_is_read_or_ignored(status, value):
    world = World(answer(status, retry_after=value), max_retries=1)
    with pytest.raises((errors.RateLimitError, errors.ServerError)):
        world.run(world.core.submit(SUBJECT))
    assert len(world.sent) == 2
    assert world.sleeps[0] == (1.5 if value == "1.5" else pytest.approx(0.0, abs=0.5))


def test_defect_e5_retry_after_is_bounded_by_the_deadline():
    world = World(answer(429, retry_after="8"), timeout=1.0)
    with pytest.raises(errors.RateLimitError) as caught:
        world.run(world.core.submit(SUBJECT))
    assert (world.time, caught.value.retry_after) == (1000.0, 8)


@KINDS
@pytest.mark.parametrize(
    ("step", "error"),
    [
        (http(200), errors.ProtocolError),
        (http(202), errors.ProtocolError),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", errors.ProtocolError),
        (http(200, b"<html>"), errors.ProtocolError),
        (http(200, b'{"status": "appr'), errors.ProtocolError),
        (http(200, b"[]"), errors.ProtocolError),
        (http(200, b"null"), errors.ProtocolError),
        (http(200, b'"approved"'), errors.ProtocolError),
        (http(404, b"?"), errors.NotFoundError),
        (http(405, b"?"), errors.ProtocolError),
        (http(409, b"?"), errors.ConflictError),
    ],
)
def test_defect_e6_no_body_raises_anything_but_our_errors(kind, step, error):
    for call in (
        lambda client: client.submit_action(ACTION),
        lambda client: client.get_action_status("7"),
        lambda client: client.get_action("7"),
        lambda client: client.list_actions(),
    ):
        with Scripted(step) as server, pytest.raises(error):
            run(kind, server.url, call)


@KINDS
def test_defect_e6_an_empty_success_is_one_where_nothing_is_decided(kind):
    with Scripted(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as server:
        assert run(kind, server.url, lambda client: client.log_action_completed("7")).to_dict() == {}


@pytest.mark.parametrize("level", ["severe", "MEDIUM", 3, None])
def test_defect_e6_odd_levels_and_stored_words_are_read(level):
    decision = decode_decision(json.dumps({**YES, "risk_level": level}).encode())
    assert decision.is_approved() and (decision.risk_level is None or decision.risk_level == level)
    world = World(answer(200, {"action_id": "7", "status": "pending_approval"}))
    assert world.run(world.core.call(requests.get_action("7")))["status"] == "pending_approval"


def test_defect_e6_the_error_envelope_keeps_code_and_field():
    details = {"field": "agent_id", "requirement": "required"}
    body = {"status": "error", "error": {"code": "INVALID_REQUEST", "message": "m", "details": details}}
    world = World(answer(400, body))
    with pytest.raises(errors.ValidationError, match="m") as caught:
        world.run(world.core.submit(SUBJECT))
    assert (caught.value.code, caught.value.field) == ("INVALID_REQUEST", "agent_id")
    assert caught.value.details == details


@pytest.mark.parametrize("word", ["timeout", "rejected", "expired", "denied", "requires_modification", "sure"])
def test_defect_e7_final_and_unknown_words_end_the_polling(word):
    world = World(answer(200, {"action_id": "7", "status": word}))
    try:
        assert world.run(world.core.wait("7", timeout=60)).is_denied()
    except errors.ProtocolError:
        assert word == "sure"
    assert len(world.sent) == 1


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


def test_defect_e8_waits_keep_their_time():
    for timeout, end in ((1, 1001.0), (0, 1000.0), (0.5, 1000.5)):
        world = World(PENDING_ANSWER)
        with pytest.raises(errors.TimeoutError):
            world.run(world.core.wait("7", timeout=timeout, poll_interval=5))
        assert (len(world.sent), world.time) == (1, end)
    for hiccup in (answer(503), answer(429), ConnectFailed("c"), DeadlinePassed("d")):
        world = World(hiccup, answer(200, YES), max_retries=0)
        assert world.run(world.core.wait("7", timeout=10)).is_approved()


@KINDS
def test_defect_e8_evaluating_with_no_time_does_not_wait(kind):
    with Scripted(PENDING) as server:
        assert run(kind, server.url, lambda client: client.evaluate_action("t", "r", timeout=0)).is_pending()
        assert len(server.requests) == 1


@ENGINES
@KINDS
def test_defect_e9_a_trickle_does_not_stretch_the_deadline(kind, engine):
    with Scripted(Trickle(APPROVED, pause=0.1)) as server, pytest.raises(errors.TimeoutError):
        run(kind, server.url, lambda client: client.submit_action(ACTION), engine=engine, timeout=0.3)
