"""What a guard writes into the log: one line for each decision, an outage once, nothing secret."""

import asyncio
import logging

import pytest
from kit import asgi
from kit.asgi import ask, get, unattended
from kit.engine import KEY, answer, failed
from starlette.applications import Starlette
from starlette.routing import Route

from ascend_middleware.asgi.messages import RootPath, ScopeView
from ascend_middleware.client.http import ConnectFailed
from ascend_middleware.guard.log import REPEAT_SECONDS, Repeats

RULES = [
    {"match": "POST /pay/{name}", "action_type": "transaction", "details": {"card": "body.card"}},
    {"match": "POST /open", "action_type": "t", "on_failure": "open"},
    {"match": "GET /free", "exempt": True},
]


@pytest.fixture
def guard(engine, handler):
    """Make a guard around `handler` that asks an authority with these answers."""

    def make(*answers, rules=RULES, **settings):
        engine.answers = list(answers) or [answer()]
        return unattended(asgi.guard(handler, rules, **settings))

    return make


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "ascend_middleware")
    return lambda level=logging.INFO: [
        record for record in caplog.records if record.levelno == level and record.name == "ascend_middleware.guard"
    ]


def run(app, *requests):
    async def main():
        for method, path, body in requests:
            await ask(app, path, method, body=body)

    asyncio.run(main())


def test_each_decision_leaves_one_line_with_its_facts_for_machines(guard, lines):
    app = guard(answer("approved"), answer("denied", reason="no"))
    run(app, ("POST", "/pay/x", b'{"card": "1"}'), ("POST", "/pay/x", b'{"card": "1"}'), ("GET", "/free", b""))
    assert [record.ascend_outcome for record in lines()] == ["allowed", "denied", "exempt"]
    allowed, _, exempt = lines()
    assert allowed.ascend_rule == app.guard.table.rules[0].label
    assert (allowed.ascend_action_id, allowed.ascend_agent, allowed.ascend_action_type) == ("7", "bot", "transaction")
    assert allowed.ascend_duration_ms > 0
    assert (allowed.ascend_cause, allowed.ascend_would) == (None, None)
    assert (exempt.ascend_agent, exempt.ascend_action_id) == (None, None)
    assert "POST /pay/x: allowed" in allowed.getMessage()
    assert f"{allowed.ascend_duration_ms:.1f} ms)" in allowed.getMessage()


@pytest.mark.parametrize(("level", "told"), [("INFO", 1), ("WARNING", 0)])
def test_rules_without_use_are_told_where_somebody_reads_that(engine, handler, caplog, level, told):
    caplog.set_level(level, "ascend_middleware")
    app = asgi.inside(Starlette(routes=[Route("/free", handler)]), RULES[1:])
    run(app, ("GET", "/free", b""))
    said = [record for record in caplog.records if "can never match" in record.getMessage()]
    assert [record.levelname for record in said] == ["INFO"] * told


def test_a_line_tells_milliseconds(guard, lines):
    app = guard().guard
    view = ScopeView(asgi.http_scope("GET", "/free"), None, RootPath(None, None))
    app.log(view, app.triage(view), seconds=1.2345678)
    assert (lines()[0].ascend_duration_ms, lines()[0].getMessage()[-12:]) == (1234.568, ", 1234.6 ms)")


@pytest.mark.parametrize(
    ("failure", "cause", "outcome"),
    [
        (ConnectFailed("away"), "connect-error", "open"),
        (failed(500), "server-error", "unavailable"),
        (failed(200, b"<html>"), "unreadable", "unavailable"),
        (failed(429, retry_after="9"), "rate-limit", "unavailable"),
        (failed(401), "misconfigured", "misconfigured"),
    ],
)
def test_the_line_says_why_there_is_no_decision(guard, lines, failure, cause, outcome):
    run(guard(failure, deadline=0.5, report_outcomes=True), ("POST", "/open", b"{}"))
    (line,) = lines()
    assert (line.ascend_outcome, line.ascend_cause) == (outcome, cause)


def test_what_would_have_been_refused_is_said(guard, lines):
    run(guard(answer("denied"), mode="observe"), ("POST", "/open", b"{}"))
    (line,) = lines()
    assert (line.ascend_outcome, line.ascend_would) == ("observed", "denied")


def test_an_outage_is_said_once_and_its_end_with_what_it_cost(guard, engine, lines):
    app = guard(ConnectFailed("away"), enable_circuit_breaker=False, report_outcomes=True, open_per_minute=1000)
    run(app, *[("POST", "/open", b"{}")] * 50)
    assert len(lines()) == 50
    assert len(lines(logging.WARNING)) == 2  # no decision, and passed open
    engine.answers = [answer()]
    run(app, *[("POST", "/open", b"{}")] * 2)
    assert len(lines(logging.WARNING)) == 3
    assert lines(logging.WARNING)[-1].getMessage().startswith("the authority decides again")
    assert "50 requests went without a decision" in lines(logging.WARNING)[-1].getMessage()


def test_what_callers_send_is_no_outage(guard, lines):
    app = guard(failed(422), answer(), rules=[RULES[0] | {"details": {"n": "body.n"}}])
    run(app, *(("POST", "/pay/x", body) for body in (b'{"n": 9223372036854775808}', b'{"n": 1}', b'{"n": 1}')))
    assert [line.ascend_cause for line in lines()] == ["bad-request", "bad-request", None]
    assert [line for line in lines(logging.WARNING) if "decides again" in line.getMessage()] == []


def test_an_authority_that_comes_and_goes_does_not_flood_the_log(guard, engine, lines):
    app = guard(enable_circuit_breaker=False, report_outcomes=True, open_per_minute=1000)
    for _ in range(20):
        engine.answers = [ConnectFailed("away")]
        run(app, *[("POST", "/open", b"{}")] * 3)
        engine.answers = [answer()]
        run(app, ("POST", "/open", b"{}"))
    assert len(lines(logging.WARNING)) == 3
    assert len(lines()) == 80


def test_each_outage_is_told_with_what_it_cost_by_itself(guard, engine, lines):
    app = guard(enable_circuit_breaker=False, report_outcomes=True, open_per_minute=1000)
    for cost in (3, 1, 2):
        app.guard.recorder.repeats._said.clear()  # each a long time after the one before
        engine.answers = [ConnectFailed("away")]
        run(app, *[("POST", "/open", b"{}")] * cost)
        engine.answers = [answer()]
        run(app, ("POST", "/open", b"{}"))
    told = [line.getMessage() for line in lines(logging.WARNING) if "decides again" in line.getMessage()]
    assert [int(line.split("; ")[1].split()[0]) for line in told] == [3, 2]  # of a single one nothing is said


def test_what_is_said_again_says_how_often_it_was_not(caplog):
    clock = [0.0]
    repeats = Repeats(clock=lambda: clock[0])
    for _ in range(10):
        repeats.say("a", logging.WARNING, "gone: %s", "x")
    repeats.say("b", logging.WARNING, "another")
    clock[0] += REPEAT_SECONDS
    repeats.say("a", logging.WARNING, "gone: %s", "x")
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["gone: x", "another", "gone: x (and 9 times more in 30 s)"]
    assert [record.ascend_repeats for record in caplog.records] == [0, 0, 9]
    clock[0] += REPEAT_SECONDS
    repeats.say("a", logging.WARNING, "gone: %s", "x")
    assert caplog.records[-1].getMessage() == "gone: x"


def test_strangers_cannot_fill_the_memory_with_what_they_make_it_say():
    repeats = Repeats(clock=lambda: 0.0)
    for number in range(5000):
        repeats.say(number, logging.DEBUG, "x")
    assert len(repeats._said) <= 1000


def test_an_attack_on_unmapped_routes_does_not_flood_the_log(guard, lines):
    run(guard(), *[("POST", "/nowhere", b"")] * 20)
    assert len(lines(logging.WARNING)) == 1
    assert len(lines()) == 20


def test_no_line_holds_what_callers_sent_or_a_handle(guard, lines, caplog):
    app = guard(answer("pending"), ConnectFailed(f"key {KEY}"), expose_risk=True)

    async def main():
        wire = await ask(app, "/pay/x", body=b'{"card": "4111111111111111"}')
        await get(app, wire.json["approval"]["status_url"])
        return wire.json["approval"]["handle"]

    handle = asyncio.run(main())
    run(app, ("POST", "/pay/y", b'{"card": "4111111111111111"}'), ("POST", "/pay/a\nforged", b'{"card": "1"}'))
    for record in caplog.records:
        extras = {name: value for name, value in vars(record).items() if name.startswith("ascend_")}
        text = f"{record.getMessage()} {record.exc_text} {extras | {'ascend_duration_ms': 0}}"
        for secret in (KEY, handle, "4111"):
            assert secret not in text
        assert "\n" not in record.getMessage()


def test_a_method_forges_no_line(guard, lines):
    run(guard(), ("GET\x1b[2K\nadmin GET /pay: allowed", "/free", b""))
    (line,) = lines()
    assert line.ascend_outcome == "bad-request"
    assert line.getMessage().isprintable()
