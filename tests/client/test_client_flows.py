"""Retry, deadlines, waiting and failure mode, on a scripted clock: no socket, no sleeping."""

import contextlib
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.clocked import APPROVED, PENDING, World, answer

from ascend_middleware import exceptions as errors
from ascend_middleware.api import endpoints
from ascend_middleware.api.decode import decode_decision, encode_json
from ascend_middleware.api.models import AgentAction
from ascend_middleware.client import (
    ConnectFailed,
    DeadlinePassed,
    ExchangeFailed,
    Overloaded,
    Unsendable,
    base,
)
from ascend_middleware.client.calls import backoff, may_repeat, parse_retry_after

ACTION = AgentAction("a", "A", "data_access", "r")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_four_attempts_with_growing_jitter_one_key_and_one_correlation_id(status):
    world = World(answer(status))
    with pytest.raises((errors.ServerError, errors.RateLimitError)) as caught:
        world.run(world.core.submit(ACTION))
    assert len(world.sent) == 4
    for number, slept in enumerate(world.sleeps):
        assert 0 <= slept <= 0.5 * 2**number
    assert len(set(world.headers("Idempotency-Key"))) == 1
    assert len(set(world.headers("X-Correlation-ID"))) == 1
    assert caught.value.status_code == status
    assert not caught.value.unanswered
    with pytest.raises(errors.AscendError):
        world.run(world.core.submit(ACTION))
    assert len(set(world.headers("Idempotency-Key"))) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 501, 520])
def test_other_statuses_are_not_retried(status):
    world = World(answer(status))
    with pytest.raises(errors.AscendError):
        world.run(world.core.submit(ACTION))
    assert len(world.sent) == 1


@pytest.mark.parametrize("failure", [ConnectFailed("c"), ExchangeFailed("x")])
def test_lost_connections_are_retried_and_then_a_network_error(failure):
    world = World(failure)
    with pytest.raises(errors.NetworkError) as caught:
        world.run(world.core.submit(ACTION))
    assert len(world.sent) == 4 and len(set(world.headers("Idempotency-Key"))) == 1
    assert caught.value.unanswered is isinstance(failure, ConnectFailed)
    world = World(failure, failure, APPROVED)
    assert world.run(world.core.submit(ACTION)).is_approved()


def test_an_answer_of_an_earlier_attempt_is_an_answer():
    for last in (ConnectFailed("c"), DeadlinePassed("d")):
        world = World(answer(503), last)
        with pytest.raises((errors.NetworkError, errors.TimeoutError)) as caught:
            world.run(world.core.submit(ACTION))
        assert not caught.value.unanswered
    world = World(answer(503), ConnectFailed("c"), fail_mode="open")
    with pytest.raises(errors.NetworkError):
        world.run(world.core.submit_or_open(ACTION))


def test_retry_after_is_honoured_and_never_beyond_the_deadline():
    world = World(answer(429, retry_after="8"), APPROVED)
    assert world.run(world.core.submit(ACTION)).is_approved()
    assert world.sleeps == [8.0]
    world = World(answer(503, retry_after="Tue, 14 Nov 2023 22:13:24 GMT"), APPROVED)
    assert world.run(world.core.submit(ACTION)).is_approved()
    assert world.sleeps == [4.0]
    world = World(answer(429, retry_after="31"))
    with pytest.raises(errors.RateLimitError) as caught:
        world.run(world.core.submit(ACTION))
    assert world.sleeps == []
    assert caught.value.retry_after == 31
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3), ("1.5", 1.5), ("0", 0), ("", None), (None, None), ("soon", None), ("-1", None), ("nan", None),
     ("0" * 63 + "3", 3), ("0" * 64 + "3", None), ("1e999", None), ("9" * 400, None), ("٣", None), ("Mon, 01 Jan 1990 00:00:00 GMT", 0)],
)  # fmt: skip
def test_parse_retry_after(value, seconds):
    assert parse_retry_after(value, now=1_700_000_000.0) == seconds


def test_the_log_numbers_the_attempts(caplog):
    caplog.set_level("DEBUG", "ascend_middleware.client")
    world = World(ConnectFailed("c"), answer(503), APPROVED)
    world.run(world.core.submit(ACTION))
    said = [record.getMessage().rpartition(" [")[0] for record in caplog.records]
    place = "POST /api/v1/actions/submit attempt"
    assert said == [f"{place} 1 failed: ConnectFailed: c", f"{place} 2: HTTP 503", f"{place} 3: HTTP 200"]


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"api_version": "9", "version": "8", "server_time": "t"}, {"api_version": "9", "server_time": "t"}),
        ({"version": "8", "environment": "e"}, {"api_version": "8", "server_time": "h", "environment": "e"}),
    ],
)
def test_a_connection_says_what_was_found_and_how_long_that_took(info, found):
    world = World(answer(200, {"status": "healthy", "server_time": "h"}), answer(200, info), cost=0.25)
    status = world.run(world.core.test_connection())
    assert {"status": "connected", "connected": True, "latency_ms": 500.0} | found == {
        name: value for name, value in status.items() if value is not None
    }
    assert [step.timeout for step in world.sent] == [30.0, 29.75], "one deadline for both"
    assert ["Authorization" in dict(step.request.headers) for step in world.sent] == [False, True]


def test_a_connection_that_fails_says_why_and_how_long_that_took():
    world = World(answer(200, {"status": "healthy"}), answer(401, {"detail": "bad key"}), cost=0.1234567)
    status = world.run(world.core.test_connection())
    assert (status["status"], status["connected"], status["latency_ms"]) == ("error", False, 246.913)
    assert "bad key" in status["error"]


def test_backoff_bounds():
    assert [backoff(n, lambda: 0.0) for n in range(3)] == [0, 0, 0]
    assert [backoff(n, lambda: 1.0) for n in range(4)] == [0.5, 1, 2, 4]


def test_the_deadline_is_shared_by_all_attempts():
    world = World(ConnectFailed("c"), cost=2.0, timeout=5.0)
    with pytest.raises(errors.NetworkError):
        world.run(world.core.submit(ACTION))
    assert [step.timeout for step in world.sent][0] == 5.0
    assert world.time <= 1000.0 + 5.0 + 2.0
    assert all(later.timeout < earlier.timeout for earlier, later in zip(world.sent, world.sent[1:]))


def test_wait_polls_at_least_once_and_never_sleeps_past_the_deadline():
    world = World(PENDING)
    with pytest.raises(errors.TimeoutError) as caught:
        world.run(world.core.wait("7", timeout=0))
    assert len(world.sent) == 1
    assert caught.value.action_id == "7"
    world = World(PENDING)
    with pytest.raises(TimeoutError):
        world.run(world.core.wait("7", timeout=1, poll_interval=5))
    assert world.time == 1001.0
    world = World(PENDING, PENDING, APPROVED)
    assert world.run(world.core.wait(7, timeout=60, poll_interval=2)).is_approved()
    assert world.sleeps == [2, 2]


@pytest.mark.parametrize("hiccup", [answer(501), answer(429), ConnectFailed("c"), DeadlinePassed("d")])
def test_a_failing_poll_does_not_end_the_wait(hiccup):
    world = World(hiccup, APPROVED, max_retries=0)
    assert world.run(world.core.wait("7", timeout=60)).is_approved()


def test_an_unreadable_or_foreign_status_ends_the_wait():
    for body in ({"action_id": "7", "status": "sure"}, {"action_id": "8", "status": "approved"}):
        world = World(answer(200, body))
        with pytest.raises(errors.ProtocolError):
            world.run(world.core.wait("7", timeout=60))
        assert len(world.sent) == 1


@pytest.mark.parametrize("word", ["timeout", "rejected", "expired", "requires_modification"])
def test_final_words_end_the_wait_and_are_not_allowed(word):
    world = World(answer(200, {"action_id": "7", "status": word}))
    decision = world.run(world.core.wait("7", timeout=60))
    assert decision.is_denied()
    assert len(world.sent) == 1


def test_evaluate_returns_the_pending_result_on_expiry_even_in_open_mode():
    world = World(PENDING, ConnectFailed("c"), fail_mode="open", max_retries=0)
    decision = world.run(world.core.evaluate(ACTION, wait=10))
    assert decision.is_pending()
    assert world.time == 1010.0
    world = World(PENDING)
    assert world.run(world.core.evaluate(ACTION, wait=0)).is_pending()
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    "item", [answer(401), answer(429), answer(503), answer(200, {}), ExchangeFailed("x"), answer(422)]
)
def test_open_mode_never_covers_an_answer(item):
    world = World(item, fail_mode="open")
    with pytest.raises(errors.AscendError):
        world.run(world.core.submit_or_open(ACTION))


def test_open_mode_covers_an_open_breaker():
    world = World(ConnectFailed("c"), fail_mode="open", max_retries=0, circuit_breaker_threshold=2)
    for _ in range(5):
        decision = world.run(world.core.submit_or_open(ACTION))
        assert decision.metadata["fail_open"] is True
    assert len(world.sent) == 2


def test_raise_on_denied():
    for item, action_id in (
        (answer(200, {"action_id": "7", "status": "denied", "reason": "because"}), "7"),
        (answer(403, {"detail": {"error": "Model governance violation", "detail": "because"}}), None),
    ):
        world = World(item)
        assert world.run(world.core.submit_or_open(ACTION)).is_denied()
        with pytest.raises(PermissionError, match="because") as caught:
            world.run(world.core.submit_or_open(ACTION, raise_on_denied=True))
        assert caught.value.action_id == action_id
    for item, word in ((APPROVED, "approved"), (PENDING, "pending")):
        world = World(item)
        assert world.run(world.core.submit_or_open(ACTION, raise_on_denied=True)).status == word
    world = World(PENDING, APPROVED)
    assert world.run(world.core.evaluate(ACTION, wait=9.0, raise_on_denied=True)).is_approved()


@pytest.mark.parametrize("bad", ["", "   ", None, True, 1.5, "..", ".", b"7", "\ud800"])
def test_identifiers_are_checked_before_anything_is_sent(bad):
    world = World(APPROVED)
    for flow in (
        lambda: world.core.status(bad),
        lambda: world.core.report(bad, failed=False),
        lambda: world.core.call(base.get_action(bad)),
    ):
        with pytest.raises(errors.ValidationError):
            world.run(flow())
    assert not world.sent


@pytest.mark.parametrize("bad", ["", "x\r\ny", "é", "k" * 256, 7])
def test_idempotency_keys_are_checked(bad):
    world = World(APPROVED)
    with pytest.raises(errors.ValidationError):
        world.run(world.core.submit(ACTION, idempotency_key=bad))
    assert not world.sent
    assert world.run(world.core.submit(ACTION, idempotency_key="k" * 255)).is_approved()
    assert may_repeat("POST", has_idempotency_key=True) and not may_repeat("POST", has_idempotency_key=False)


def test_reports():
    world = World(answer(200, {"ok": True}))
    assert world.run(world.core.report("7", failed=False, result={"n": 1}, duration_ms=3.5))["ok"] is True
    assert world.sent[0].request.url == "http://localhost/api/agent-action/7/complete"
    assert json.loads(world.sent[0].request.content) == {
        "action_id": "7",
        "status": "completed",
        "completed_at": "2023-11-14T22:13:20.000Z",
        "result": {"n": 1},
        "duration_ms": 3.5,
    }
    world = World(answer(204))
    assert world.run(world.core.report("7", failed=True, error=ValueError("x"))).to_dict() == {}
    world = World(answer(500))
    with pytest.raises(errors.ServerError):
        world.run(world.core.report("7", failed=False))


def test_list_query():
    world = World(answer(200, {"actions": [{"action_id": "1", "status": "odd"}], "total": 3}))
    page = world.run(world.core.call(base.list_actions(limit=1, status="a&b", filters={"sort": None, "order": "asc"})))
    assert page.has_more
    assert world.sent[0].request.url.endswith("?limit=1&offset=0&status=a%26b&order=asc")
    for bad in ({"limit": 0}, {"offset": -1}, {"limit": True}, {"filters": {"x": []}}):
        with pytest.raises(errors.ValidationError):
            base.list_actions(**bad)


def test_a_poll_with_hardly_any_time_does_not_count_against_the_authority():
    world = World(DeadlinePassed("d"), circuit_breaker_threshold=1)
    with pytest.raises(errors.TimeoutError):
        world.run(world.core.status("7", deadline=world.time + 0.01))
    assert world.core.breaker.state == "closed"
    with pytest.raises(errors.TimeoutError):
        world.run(world.core.status("7"))
    assert world.core.breaker.state == "open"


def test_a_wait_lets_the_authority_hold_the_question_but_not_beyond_its_end():
    world = World(PENDING, cost=1.0)
    with pytest.raises(errors.TimeoutError):
        world.run(world.core.wait("7", timeout=7.0, poll_interval=3.0))
    # What the authority held the question for counts as waited.
    assert world.headers("Prefer") == ["wait=3", "wait=3", None]
    assert world.sleeps == [2.0, 2.0]
    world = World(PENDING)
    with pytest.raises(errors.TimeoutError):
        world.run(world.core.wait("7", timeout=0.0))
    assert world.headers("Prefer") == [None]
    world = World(PENDING)
    for hold in (0.9, 1.0):
        world.run(world.core.status("7", hold=hold))
    assert world.headers("Prefer") == [None, "wait=1"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("1.5", 1.5), ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0), ("soon", None), ("", None)],
)
def test_a_rate_limit_says_how_long_and_how_much(header, seconds):
    told = {
        "retry_after": header,
        "x_ratelimit_limit": "1000",
        "x_ratelimit_remaining": "0",
        "x_ratelimit_reset": "1702656060",
    }
    world = World(answer(429, {"detail": "slow down"}, **told), max_retries=0)
    with pytest.raises(errors.RateLimitError, match="slow down") as caught:
        world.run(world.core.submit(ACTION))
    error = caught.value
    assert (error.retry_after, error.limit, error.remaining, error.reset) == (seconds, 1000, 0, 1_702_656_060)
    assert error.status_code == 429 and error.correlation_id == world.headers("X-Correlation-ID")[0]


class Pairs(list):
    """An object of JSON, in which a name may stand twice."""


names = st.sampled_from(["status", "decision", "action_id", "a", ":", " :", 'q"', "\\", "é"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["approved", '":', '\\":', "x : y", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=3).map(Pairs),
    max_leaves=8,
)


def written(value, gap):
    """Write JSON in which a name may stand twice, with white space where it may be."""
    if isinstance(value, Pairs):
        inside = ",".join(f"{json.dumps(name)}{gap}:{written(item, gap)}" for name, item in value)
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{','.join(written(item, gap) for item in value)}]"
    return json.dumps(value)


def repeats(value):
    if isinstance(value, Pairs):
        return len({name for name, _ in value}) != len(value) or any(repeats(item) for _, item in value)
    return isinstance(value, list) and any(repeats(item) for item in value)


@given(st.lists(st.tuples(names, values), max_size=5), st.sampled_from(["", " ", "\n"]))
def test_a_name_given_twice_is_seen_wherever_it_stands(pairs, gap):
    whole = Pairs(
        [
            ("status", "approved"),
            ("action_id", 7),
            *((name, item) for name, item in pairs if name not in ("status", "decision", "action_id")),
        ]
    )
    text = written(whole, gap).encode()
    try:
        decode_decision(text)
    except errors.ProtocolError as error:
        assert repeats(whole) == ("a name twice" in str(error)) is True
    else:
        assert not repeats(whole)


def holding_itself():
    value = {}
    value["self"] = [value]
    return value


def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


BAD_VALUES = {
    "nan": (float("nan"), "amount"),
    "infinity": (float("-inf"), "amount"),
    "nan in a tuple": ((1, float("nan")), "amount.1"),
    "a decimal that is none": (Decimal("NaN"), "amount"),
    "a decimal that signals": ([Decimal("sNaN")], "amount.0"),
    "a decimal without end": (Decimal("-Infinity"), "amount"),
    "nan as a key": ({"x": {float("nan"): 1}}, "amount.x"),
    "a decimal that is none as a key": ({Decimal("NaN"): 1}, "amount"),
    "2**63": (2**63, "amount"),
    "-2**63 - 1": (-(2**63) - 1, "amount"),
    "2**70": (2**70, "amount"),
    "holds itself": (holding_itself(), "amount."),
    "one too deep": (nested(31), "amount."),
    "very deep": (nested(100_000), "amount."),
    "many": (list(range(20_000)), "amount"),
}


@pytest.mark.parametrize(("value", "place"), BAD_VALUES.values(), ids=BAD_VALUES)
@pytest.mark.parametrize("where", ["action_details", "context", "risk_indicators"])
def test_a_value_that_readers_take_differently_is_refused_by_its_place(where, value, place):
    world = World(APPROVED)
    for build in (
        lambda: AgentAction("a", "A", "data_access", "r", **{where: {"amount": value}}),
        lambda: base.action_from_fields(
            {"action_type": "t", "resource": "r", where: {"amount": value}}, agent_id="a", agent_name="A"
        ),
    ):
        with pytest.raises(errors.ValidationError) as caught:
            world.run(world.core.submit(build()))
        assert (caught.value.field or "").startswith(f"{where}.{place}")
    assert not world.sent
    for good in (2**63 - 1, -(2**63), 0.5, Decimal("19.90"), {2.5: "NaN"}, nested(30), None):
        assert world.run(world.core.submit(AgentAction("a", "A", "t", "r", **{where: {"amount": good}}))).is_approved()


@pytest.mark.parametrize(
    "bad",
    [*(value for value, _ in list(BAD_VALUES.values())[:8]), holding_itself()],
)
def test_no_call_encodes_what_json_cannot_hold(bad):
    for call in (
        lambda: World(APPROVED).core.report("7", failed=False, result=bad),
        lambda: World(APPROVED).core.report("7", failed=True, error=[None, bad]),
        lambda: endpoints.EVALUATE_POLICY.call(body={"action_type": "t", "resource": "r", "context": {"x": bad}}),
        lambda: base.action_from_fields(
            {"parameters": {"x": bad}, "action_details": {"x": bad}}, agent_id="a", agent_name="A"
        ),
        lambda: encode_json({"x": None, "y": bad}),
    ):
        with pytest.raises(errors.ValidationError):
            call()
    assert encode_json({"x": None, "y": [1.5, "null", "nan"]}) == b'{"x":null,"y":[1.5,"null","nan"]}'


@pytest.mark.parametrize(
    ("failure", "cost", "left", "error", "unanswered"),
    [
        (DeadlinePassed("d"), 30.0, 30.0, errors.TimeoutError, True),
        (DeadlinePassed("d"), 32.9, 30.0, errors.TimeoutError, True),  # a little late is what threads are
        (DeadlinePassed("d"), 33.1, 30.0, errors.OverloadedError, False),  # this process was kept from its work
        (DeadlinePassed("d"), 0.6, 0.2, errors.TimeoutError, True),
        (DeadlinePassed("d", waited=2.9), 30.0, 30.0, errors.TimeoutError, True),
        (DeadlinePassed("d", waited=3.1), 30.0, 30.0, errors.OverloadedError, False),
        (DeadlinePassed("d"), 0.0, 0.0, errors.OverloadedError, False),  # nobody was asked
        (DeadlinePassed("d"), 0.0, -5.0, errors.OverloadedError, False),
        (Overloaded("o"), 1.0, 30.0, errors.OverloadedError, False),
    ],
)
def test_only_the_time_that_the_authority_had_is_its_silence(failure, cost, left, error, unanswered):
    world = World(failure, cost=cost)
    with pytest.raises(errors.TimeoutError) as caught:
        world.run(world.core.submit(ACTION, deadline=world.time + left))
    assert (type(caught.value), caught.value.unanswered) == (error, unanswered)
    assert world.core.breaker.failures == (1 if unanswered and left >= 1 else 0)


def test_a_defect_of_this_process_is_no_answer_and_no_silence():
    world = World(Unsendable("ImportError: socksio"), fail_mode="open")
    with pytest.raises(errors.ConfigurationError, match="socksio"):
        world.run(world.core.submit_or_open(ACTION))
    assert len(world.sent) == 1 and world.core.breaker.failures == 0


def test_whether_the_key_is_known_is_learnt_from_calls_that_have_it():
    world = World(APPROVED)
    health, info = endpoints.HEALTH.call(), endpoints.DEPLOYMENT_INFO.call()
    for operation, answered, known in (
        (health, answer(401), True),
        (health, answer(200, {"status": "healthy"}), True),
        (info, answer(200, {}), True),
        (info, answer(401), False),
        (info, answer(403), False),
        (health, answer(200, {"status": "healthy"}), False),
        (info, answer(200, {}), True),
    ):
        world.script = [answered]
        with contextlib.suppress(errors.AscendError):
            world.run(world.core.call(operation))
        assert world.core.key_refused is not known


def test_only_what_has_a_body_names_its_type():
    world = World(APPROVED)
    world.run(world.core.submit(ACTION))
    world.run(world.core.status("7"))
    assert [dict(step.request.headers).get("Content-Type") for step in world.sent] == ["application/json", None]


def test_a_try_of_the_key_is_made_however_many_have_failed():
    world = World(ConnectFailed("c"), max_retries=0)
    for _ in range(5):
        with pytest.raises(errors.NetworkError):
            world.run(world.core.try_key(seconds=1.0))
    assert len(world.sent) == 5 and world.core.breaker.state == "closed"


def test_an_answer_that_began_opens_nothing():
    world = World(DeadlinePassed("d", answered=True), fail_mode="open")
    with pytest.raises(errors.TimeoutError) as caught:
        world.run(world.core.submit_or_open(ACTION))
    assert not caught.value.unanswered
    world = World(DeadlinePassed("d"), fail_mode="open")
    assert world.run(world.core.submit_or_open(ACTION)).is_approved()


@pytest.mark.parametrize(("status", "state"), [(499, "closed"), (500, "open")])
def test_only_a_failure_of_the_authority_opens_the_breaker(status, state):
    world = World(answer(status), max_retries=0, circuit_breaker_threshold=1)
    with pytest.raises(errors.AscendError):
        world.run(world.core.submit(ACTION))
    assert world.core.breaker.state == state


def test_what_the_present_policies_are_is_kept():
    world = World(answer(200, {"action_id": "7", "status": "approved", "policy_state": "p1"}))
    world.run(world.core.submit(ACTION))
    assert world.core.policy_state == "p1"


@pytest.mark.parametrize("key", ["k", "k" * 255])
def test_a_key_that_is_given_is_the_one_that_is_sent(key):
    world = World(answer(503), APPROVED)
    world.run(world.core.submit(ACTION, idempotency_key=key))
    assert world.headers("Idempotency-Key") == [key, key]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    ("decided", "denies"), [(APPROVED, False), (answer(200, {"action_id": "7", "status": "denied"}), True)]
)
def test_what_was_decided_while_it_waited_is_raised_where_that_is_asked_for(raises, decided, denies):
    world = World(PENDING, decided)
    with pytest.raises(errors.AuthorizationDeniedError) if raises and denies else contextlib.nullcontext():
        decision = world.run(world.core.evaluate(ACTION, wait=9.0, raise_on_denied=raises))
        assert decision.is_denied() is denies
