"""What the authority's answers come to, in HTTP; and who waits for them."""

import asyncio
import contextlib
import json
import logging
import os
import threading

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from kit import asgi
from kit.asgi import JSON, Handler, Wire, guard, http_scope, part, shake, unattended
from kit.engine import GIVEN, KEY, answer, options
from kit.states import NOW, state_at

from ascend_middleware import ConfigurationError
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.client import Send
from ascend_middleware.client.core import ClientCore
from ascend_middleware.client.http import ConnectFailed, DeadlinePassed, ExchangeFailed, Response
from ascend_middleware.config import Settings
from ascend_middleware.flow import Blocking, ReadBody, Watch, drive
from ascend_middleware.guard import Agent, Guard
from ascend_middleware.guard.request import RequestView
from ascend_middleware.rules import RuleTable

pytestmark = pytest.mark.anyio
PAY = {"match": "POST /pay", "action_type": "transaction", "details": {"amount": "body.amount"}}
RUN = {"match": "POST /run", "action_type": "run"}


def refusal(code, error=None, **headers):
    body = {"error": {"code": error, "message": "m"}} if error else {"detail": "d"}
    return Response(code, {"content-type": "application/json", **headers}, json.dumps(body).encode())


def raw(content, code=200):
    return Response(code, {}, content)


async def ask(app, path="/run", *, headers=JSON, body=b'{"amount": 1}'):
    return await asgi.ask(app, path, body=body, headers=headers)


def journalled(tmp_path):
    """Return what the journal of one process holds."""
    lines = b"".join(path.read_bytes().rstrip(b"\0") for path in tmp_path.rglob("*.journal")).splitlines()
    return [json.loads(line.partition(b" ")[2]) for line in lines]


@pytest.mark.parametrize("code", [302, 400, 401, 403, 404, 429, 500, 503])
async def test_nor_does_such_an_answer_where_nothing_else_has_to_be_asked(engine, handler, code):
    """From the second request on nothing has to be found out before, and the first attempt is made without a flow."""
    app = guard(handler, [RUN])
    assert (await ask(app)).status == 200
    engine.answers = [answer("approved", code)]
    wire = await ask(app)
    assert (wire.status != 200, handler.ran) == (True, 1)
    first, second = (dict(request.headers) for request in engine.requests[:2])
    assert first.keys() == second.keys()
    assert (second["X-API-Key"], second["Content-Type"]) == (KEY, "application/json")


@pytest.mark.parametrize("on_failure", ["closed", "open"])
@pytest.mark.parametrize(
    ("found", "status", "problem"),
    [
        (answer("denied", reason="no"), 403, "denied"),
        (answer("rejected"), 403, "denied"),
        (answer("expired"), 403, "denied"),
        (answer("pending"), 403, "approval-required"),
        (answer("requires_modification"), 403, "modification-required"),
        (refusal(500), 503, "unavailable"),
        (refusal(502), 503, "unavailable"),
        (refusal(503), 503, "unavailable"),
        (refusal(429, **{"retry-after": "17"}), 503, "unavailable"),
        (refusal(401), 500, "misconfigured"),
        (refusal(400), 400, "bad-request"),
        (refusal(413), 413, "body-too-large"),
        (refusal(404), 500, "misconfigured"),
        (refusal(405), 500, "misconfigured"),
        (refusal(415), 500, "misconfigured"),
        (refusal(408), 503, "unavailable"),
        (refusal(422), 422, "bad-request"),
        (refusal(403, "AGENT_BLOCKED"), 503, "kill-switch"),
        (raw(b""), 503, "unavailable"),
        (raw(b"<html>"), 503, "unavailable"),
        (raw(b"[]"), 503, "unavailable"),
        (raw(b'{"status": "approved"'), 503, "unavailable"),
        (raw(b'{"action_id": "7"}'), 503, "unavailable"),
        (raw(b'{"status": "approved"}'), 503, "unavailable"),
        (raw(b'{"status": "Approved!", "action_id": "7"}'), 503, "unavailable"),
        (raw(b'{"status": "approved", "decision": "denied", "action_id": "7"}'), 403, "denied"),
        (raw(b"", 204), 503, "unavailable"),
        (raw(b"", 302), 503, "unavailable"),
        # What such an answer says of the action counts for nothing.
        (answer("approved", 302), 503, "unavailable"),
        (answer("approved", 400), 400, "bad-request"),
        (answer("approved", 401), 500, "misconfigured"),
        (answer("approved", 403), 403, "denied"),
        (answer("approved", 404), 500, "misconfigured"),
        (answer("approved", 429), 503, "unavailable"),
        (answer("approved", 500), 503, "unavailable"),
        (answer("approved", 503), 503, "unavailable"),
        (ExchangeFailed("broke"), 503, "unavailable"),
    ],
)
async def test_no_answer_but_an_approval_passes_even_an_open_rule(engine, handler, found, status, problem, on_failure):
    engine.answers = [found]
    wire = await ask(guard(handler, [RUN], on_failure=on_failure))
    assert (wire.status, wire.problem, handler.ran) == (status, problem, 0)
    assert wire.headers["cache-control"] == "no-store"
    assert ("retry-after" in wire.headers) == (problem in ("unavailable", "approval-required"))
    if isinstance(found, Response) and "retry-after" in found.headers:
        assert wire.headers["retry-after"] == "17"


@pytest.mark.parametrize(
    ("word", "silent"),
    [("denied", "The authority denied it."), ("requires_modification", "See conditions.")],
)
@pytest.mark.parametrize("exposed", [True, False])
async def test_a_refusal_tells_the_reason_where_there_is_one_and_the_risk_where_that_is_wanted(
    engine, handler, word, silent, exposed
):
    engine.answers = [answer(word, reason="no", risk_score=7, conditions=["c"]), answer(word, reason="")]
    app = guard(handler, [RUN], expose_risk=exposed)
    told, silently = (await ask(app)).json, (await ask(app)).json
    assert (told["detail"], told["reason"], told.get("risk_score")) == ("no", "no", 7 if exposed else None)
    assert (silently["detail"], "reason" in silently, "risk_score" in silently) == (silent, False, False)
    assert told.get("conditions") == (["c"] if word == "requires_modification" else None)


@pytest.mark.parametrize("error", [ConnectFailed("no"), DeadlinePassed("late")])
async def test_an_open_rule_passes_when_nobody_answered(engine, error):
    engine.answers = [error]
    for on_failure, expected in (("open", 1), ("closed", 0)):
        handler = Handler()
        wire = await ask(guard(handler, [RUN], on_failure=on_failure))
        assert (handler.ran, wire.status) == (expected, 200 if expected else 503)


@pytest.mark.parametrize(
    ("found", "would"),
    [(answer("denied"), "denied"), (answer("pending"), "approval-required"), (refusal(500), "unavailable"),
     (refusal(401), "misconfigured"), (ConnectFailed("no"), "unavailable")],
)  # fmt: skip
async def test_observe_mode_records_and_passes(engine, handler, caplog, found, would):
    caplog.set_level(logging.INFO)
    engine.answers = [found]
    # It does not hold requests up either.
    app = guard(handler, [RUN], mode="observe", pending="wait:30s")
    wire = await asyncio.wait_for(ask(app), 2)
    assert (wire.status, handler.ran, len(engine.submitted)) == (200, 1, 1)
    assert handler.scope["state"]["ascend"].would == would
    assert f"would be {would}" in caplog.text


async def test_observe_mode_passes_what_cannot_be_judged_but_not_a_blocked_agent(engine, handler):
    app = guard(handler, [PAY, {"match": "* /closed", "block": "closed"}], mode="observe")
    for path in ("/pay", "/closed", "/unlisted", "/x//y"):
        wire = await ask(app, path, body=b"nonsense", headers=())
        assert (wire.status, handler.body) == (200, b"nonsense")
    engine.answers = [refusal(403, "AGENT_BLOCKED")]
    assert (await ask(app, "/pay")).problem == "kill-switch"
    assert handler.ran == 4


# --- pending


PATIENT = {"pending": "wait:30s", "poll_interval": 0.01}


async def test_a_held_request_is_released_when_approved(engine, handler):
    engine.answers = [answer("pending"), answer("pending"), answer("approved")]
    app = guard(handler, [PAY], **PATIENT)
    wire = await ask(app, "/pay")
    assert (wire.status, handler.body, app.guard.waiters) == (200, b'{"amount": 1}', 0)
    engine.answers = [answer("pending"), answer("denied")]
    wire = await ask(app, "/pay")
    assert (wire.problem, handler.ran) == ("denied", 1)


@pytest.mark.parametrize(
    ("path", "limit", "whole"), [("/run", 100, True), ("/run", 100, False), ("/pay", 100, True), ("/run", 5, True)]
)
async def test_the_wait_ends_when_the_client_leaves(engine, handler, path, limit, whole):
    engine.answers = [answer("pending")]
    app = guard(handler, [RUN, PAY], body_limit=limit, **PATIENT)
    wire = Wire(part(b'{"amount": 1}', more=not whole))
    headers = JSON if whole else [*JSON, ("content-length", "1000")]  # too long to be read before
    task = asyncio.ensure_future(app(http_scope("POST", path, headers=headers), wire.receive, wire.send))
    while len(engine.requests) < 3:
        await asyncio.sleep(0.001)
    wire.gone.set()
    await asyncio.wait_for(task, 2)
    assert (handler.ran, wire.sent, app.guard.waiters, wire.waiting) == (0, [], 0, 0)


async def test_what_was_read_while_waiting_still_arrives(engine, handler):
    engine.answers = [answer("pending"), answer("pending"), answer("pending"), answer()]
    messages = [part(b"one", more=True), part(b"two", more=True), part(b"three")]
    wire = await ask(guard(handler, [RUN], **PATIENT), body=messages)
    assert (wire.status, handler.body) == (200, b"onetwothree")


async def test_what_comes_while_it_is_decided_stays_in_its_order_also_from_a_servers_queue(engine, handler):
    """As hypercorn and daphne do it: `receive` is the `get` of a queue, and the wait has a receive under way."""
    queue, sent = asyncio.Queue(), []

    async def approved(request):
        # The receive that is under way takes the one, the others come in the same moment.
        queue.put_nowait(part(b"one", more=True))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queue.put_nowait(part(b"two", more=True))
        queue.put_nowait(part(b"three"))
        return answer()

    async def send(message):
        sent.append(message)

    engine.answers = [answer("pending"), answer("pending"), approved]
    headers = [*JSON, ("content-length", "11")]  # too long to be read before
    app = guard(handler, [RUN], body_limit=10, **PATIENT)
    await app(http_scope("POST", "/run", headers=headers), queue.get, send)
    assert (sent[0]["status"], handler.body) == (200, b"onetwothree")


async def test_one_receive_stays_under_way_throughout_a_wait(engine):
    engine.answers = [*[answer("pending")] * 5, answer()]
    seen = []

    async def handler(scope, receive, send):
        seen.append((wire.received, wire.waiting))

    wire = Wire(part(b"whole"))
    await wire.through(guard(handler, [RUN], **PATIENT), http_scope("POST", "/run"))
    assert seen == [(2, 1)]  # servers lose a message where a receive is cancelled


async def test_of_a_body_that_nobody_reads_a_wait_collects_no_more_than_the_limit(engine):
    engine.answers = [*[answer("pending")] * 20, answer()]
    seen = []

    async def handler(scope, receive, send):
        seen.append(wire.received)
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        seen.append(size)

    wire = Wire(*[part(b"x" * 40_000, more=True)] * 30, part())
    await wire.through(guard(handler, [RUN], body_limit=65_536, **PATIENT), http_scope("POST", "/run"))
    assert seen == [2, 1_200_000]


async def test_two_readers_after_a_wait_get_one_message_once(engine):
    engine.answers = [answer("pending"), answer()]
    got = []

    async def handler(scope, receive, send):
        async def read():
            got.append((await receive())["type"])

        readers = [asyncio.ensure_future(read()) for _ in range(2)]
        await asyncio.sleep(0.01)
        wire.gone.set()
        await asyncio.gather(*readers)

    wire = Wire(part(b"whole"))
    await wire.through(guard(handler, [RUN], **PATIENT), http_scope("POST", "/run"))
    assert sorted(got) == ["http.disconnect", "http.request"]


async def test_the_approval_of_another_action_releases_nobody(engine, handler):
    engine.answers = [answer("pending"), answer("approved", action_id="8")]
    wire = await ask(guard(handler, [RUN], pending="wait:0.05s", poll_interval=0.01))
    assert (wire.status, handler.ran) == (403, 0)


@pytest.mark.parametrize(
    ("found", "problem"),
    [(refusal(401), "misconfigured"), (refusal(405), "misconfigured"), (refusal(403, "AGENT_BLOCKED"), "kill-switch")],
)
async def test_a_wait_ends_with_what_no_further_poll_mends(engine, handler, found, problem):
    engine.answers = [answer("pending"), answer("pending"), found]
    wire = await ask(guard(handler, [RUN], **PATIENT))
    assert (wire.problem, handler.ran, len(engine.requests)) == (problem, 0, 3)


@pytest.mark.parametrize("found", [refusal(500), refusal(429), refusal(422), raw(b"<html>"), ConnectFailed("away")])
async def test_a_poll_that_fails_ends_no_wait(engine, handler, found):
    engine.answers = [answer("pending"), found, answer("pending"), answer()]
    wire = await ask(guard(handler, [RUN], **PATIENT))
    assert (wire.status, handler.ran, len(engine.requests)) == (200, 1, 4)


async def test_no_more_wait_than_are_allowed_to(engine, handler):
    engine.answers = [answer("pending")]
    app = guard(handler, [RUN], max_waiters=2, single_caller=True, **PATIENT)
    tasks = [asyncio.ensure_future(ask(app)) for _ in range(2)]
    while app.guard.waiters < 2:
        await asyncio.sleep(0.001)
    wire = await asyncio.wait_for(ask(app), 2)
    assert (wire.problem, wire.status) == ("approval-required", 403)
    engine.answers = [answer()]
    # Identical requests share one action, and its approval is good for one run.
    assert sorted(wire.status for wire in await asyncio.gather(*tasks)) == [200, 409]
    assert app.guard.waiters == 0


async def test_the_wait_ends_with_its_time_and_with_a_kill(engine, handler):
    engine.answers = [answer("pending")]
    wire = await ask(guard(handler, [RUN], pending="wait:0.05s", poll_interval=0.01))
    assert (wire.problem, handler.ran) == ("approval-required", 0)
    engine.answers = [answer("pending"), refusal(500), ConnectFailed("no"), refusal(403, "AGENT_BLOCKED")]
    wire = await ask(guard(handler, [RUN], **PATIENT, on_failure="open"))
    assert (wire.problem, handler.ran) == ("kill-switch", 0)


@pytest.mark.parametrize(("seconds", "polls"), [(3, 3), (2.5, 3), (0.5, 1), (0.25, 1)])
def test_a_wait_asks_until_its_time_is_up_and_not_once_more(seconds, polls):
    now, sent = [0.0], []
    settings = Settings(**GIVEN, poll_interval=1)
    core = ClientCore(settings, clock=lambda: now[0], now=lambda: NOW + now[0])
    table = RuleTable.from_mapping({"rule": [{**RUN, "pending": f"wait:{seconds}s"}]})
    decider = Guard(table=table, settings=settings, core=core, state=state_at(), journal=None, random=lambda: 1.0)
    view = RequestView(method="POST", path="/run", raw_path="/run", query=b"", headers=[])

    def perform(step):
        if isinstance(step, Send):
            sent.append(step)
            assert len(sent) < 9
            return answer("pending")
        if isinstance(step, Blocking):
            return step.function(*step.arguments)
        if isinstance(step, Watch):
            now[0] += step.seconds
        return b"" if isinstance(step, ReadBody) else False

    verdict = drive(decider.triage(view), perform)
    assert (verdict.outcome, now[0], len(sent) - 1) == ("approval-required", seconds, polls)


@pytest.mark.parametrize(
    ("set_", "headers"),
    [
        ({"respond_async": True}, []),
        ({}, [("prefer", "respond-async")]),
        ({}, [("prefer", "x=1, Respond-Async;wait=5")]),
    ],
)
async def test_who_prefers_gets_202_and_still_nothing_runs(engine, handler, set_, headers):
    engine.answers = [answer("pending")]
    wire = await ask(guard(handler, [RUN], **set_), headers=[*JSON, *headers])
    assert (wire.status, wire.json["executed"], handler.ran) == (202, False, 0)


@pytest.mark.parametrize("steps", range(40))
async def test_a_cancellation_at_any_moment_leaves_everything_whole(engine, handler, steps):
    async def slowly(request):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return answer("pending" if len(engine.requests) < 4 else "approved")

    engine.answers = [slowly]
    app = guard(handler, [PAY], pending="wait:5s", poll_interval=0.0001, circuit_breaker_threshold=1)
    wire = Wire(part(b'{"amount"', more=True), part(b": 1}"))
    task = asyncio.ensure_future(app(http_scope("POST", "/pay", headers=JSON), wire.receive, wire.send))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert (app.guard.waiters, wire.waiting) == (0, 0)
    assert (app.guard.core.breaker.state, app.guard.core.breaker.failures) == ("closed", 0)
    engine.answers = [answer()]
    assert (await ask(app, "/pay")).status == 200


async def test_a_cancelled_probe_is_given_back(engine, handler):
    async def hang(request):
        await asyncio.sleep(60)

    engine.answers = [ConnectFailed("no")]
    app = guard(handler, [RUN], circuit_breaker_threshold=1, circuit_breaker_timeout=0.001)
    assert (await ask(app)).status == 503
    await asyncio.sleep(0.005)
    engine.answers = [hang]
    task = asyncio.ensure_future(ask(app))
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait({task})
    engine.answers = [answer()]
    assert (await ask(app)).status == 200


# --- hooks


async def test_render_answers_in_the_applications_style(engine):
    engine.answers = [answer("denied", reason="no")]

    def render(status, headers, content):
        return 418, [("X-Style", "own")], b"<p>" + json.loads(content)["reason"].encode()

    app = FastAPI()
    app.add_middleware(AscendMiddleware, render=render, **options([RUN]))
    app.post("/run")(lambda: None)
    wire = await ask(app)
    assert (wire.status, wire.body, wire.sent[0]["headers"]) == (418, b"<p>no", [(b"x-style", b"own")])


async def test_a_render_that_raises_runs_nothing(engine, handler):
    engine.answers = [answer("denied")]

    def render(status, headers, content):
        raise LookupError("template")

    app = AscendMiddleware(handler, render=render, **options([RUN]))
    with pytest.raises(LookupError):
        await ask(app)
    assert handler.ran == 0


class Strange(Exception):
    pass


@pytest.mark.parametrize("error", [Strange(KEY), StopIteration(), StopAsyncIteration(), TimeoutError(), KeyError("x")])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_identify_that_raises_is_refused(engine, handler, error, asynchronous):
    async def later(scope):
        raise error

    def now(scope):
        raise error

    app = AscendMiddleware(handler, identify=later if asynchronous else now, **options([RUN], on_failure="open"))
    wire = await ask(app)
    assert (wire.status, wire.problem, handler.ran, engine.submitted) == (500, "misconfigured", 0, [])
    assert KEY.encode() not in wire.body


@pytest.mark.parametrize("found", [None, "bot", True, {}, object()])
async def test_identify_that_knows_nobody_is_refused(engine, handler, found, caplog):
    wire = await ask(AscendMiddleware(handler, identify=lambda scope: found, **options([RUN])))
    assert (wire.status, wire.problem, handler.ran, engine.submitted) == (403, "unknown-agent", 0, [])
    assert "authority" not in wire.body.decode()  # it was never asked
    returned = "nothing" if found is None else type(found).__name__
    assert f"identify returned {returned}; it returns an Agent" in caplog.text


@pytest.mark.parametrize("name", ["x" * 10_000, "\x85", "a\tb", "é", " "])
async def test_an_odd_agent_header_is_the_callers_fault(engine, handler, name):
    app = guard(handler, [RUN], agent_header="x-agent-id")
    assert (await ask(app, headers=[("x-agent-id", name)])).status in (200, 400)


async def test_a_handshake_waits_too(engine):
    engine.answers = [answer("pending"), answer()]
    handler = Handler(reads=False)
    await shake(guard(handler, [{"match": "WEBSOCKET /ws", "action_type": "talk"}], **PATIENT))
    assert (handler.ran, len(engine.requests)) == (1, 2)


async def test_switched_off_everything_passes(engine, handler, caplog):
    wire = await ask(guard(handler, [RUN], enabled=False))
    assert (wire.status, engine.requests) == (200, [])
    assert "switched off" in caplog.text


@pytest.mark.parametrize("approved", [True, False])
async def test_a_wait_inside_another_middleware(engine, approved):
    ran = []

    async def outer(request, call_next):
        return await call_next(request)

    async def run():
        ran.append(1)
        return StreamingResponse(iter([b"a", b"b"]))

    app = FastAPI()
    app.post("/run")(run)
    app.add_middleware(AscendMiddleware, **options([RUN], **PATIENT))
    app.middleware("http")(outer)
    engine.answers = [answer("pending"), answer("pending"), answer("approved" if approved else "pending")]
    wire = Wire(part(b"{}"))
    task = asyncio.ensure_future(app(http_scope("POST", "/run", headers=JSON), wire.receive, wire.send))
    while len(engine.requests) < 3:
        await asyncio.sleep(0.001)
    if approved:
        await asyncio.wait_for(task, 2)
        assert (wire.status, wire.body, ran) == (200, b"ab", [1])
    else:
        wire.gone.set()
        # The other middleware misses a response and raises; there is nobody left to read what comes of it.
        await asyncio.wait({task}, timeout=2)
        assert isinstance(task.exception(), RuntimeError)
        assert ran == []


async def test_a_request_cancelled_while_its_run_is_journalled_leaves_an_outcome(engine, handler, tmp_path):
    app = unattended(guard(handler, [RUN], report_outcomes=True, journal=str(tmp_path), durability="power"))
    journal = app.guard.journal
    wire = Wire(part())
    task = asyncio.create_task(app(http_scope("POST", "/run"), wire.receive, wire.send))
    while not journal.entered:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    for _ in range(500):
        if len(journalled(tmp_path)) == 2:
            break
        await asyncio.sleep(0.01)
    assert [record["k"] for record in journalled(tmp_path)] == ["entry", "outcome"]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (answer(), {"id": "7", "how": "allowed"}),
        (ConnectFailed("away"), {"id": "", "how": "open"}),
    ],
)
async def test_the_journal_says_how_each_run_passed(engine, handler, tmp_path, found, says):
    engine.answers = [found]
    app = unattended(guard(handler, [RUN], report_outcomes=True, journal=str(tmp_path), on_failure="open"))
    for _ in range(2):
        assert (await ask(app)).status == 200
    records = journalled(tmp_path)
    kinds = [("entry", 1), ("outcome", 1), ("entry", 2), ("outcome", 2)]
    assert [(record["k"], record["n"]) for record in records] == kinds
    for entry in records[::2]:
        action = entry.pop("action", None)
        known = {key: entry[key] for key in ("n", "at", "rule")}
        assert entry == {"k": "entry", "agent": "bot", **known, **says}
        assert (action is not None and action["action_type"] == "run") is (says["how"] == "open")
        assert entry["rule"] == "rule 1 (POST /run)"
    await app.aclose()


async def test_no_event_loop_waits_for_a_disk(engine, handler, tmp_path, monkeypatch):
    """Neither for the entry of a run nor for its outcome."""
    handler, here, synced, fsync = Handler(), threading.get_ident(), [], os.fsync

    def watched(descriptor):
        synced.append(threading.get_ident())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    app = unattended(guard(handler, [RUN], report_outcomes=True, journal=str(tmp_path), durability="power"))
    before = len(synced)
    assert (await ask(app)).status == 200
    assert len(synced) - before >= 2
    assert here not in synced[before:]
    await app.aclose()


async def test_names_that_callers_make_up_crowd_out_nobody_whose_commands_are_asked_for(engine, handler):
    app = guard(handler, [RUN], agent_header="x-agent")
    state = app.guard.state

    async def ask_as(name):
        return (await ask(app, headers=[("x-agent", name)])).status

    assert await ask_as("real") == 200
    engine.answers = [answer("denied")]
    assert [await ask_as(f"fake-{number}") for number in range(3)] == [403] * 3
    engine.answers = [answer("pending")]
    assert await ask_as("held") == 403
    assert list(state.agents(since=0)) == ["held", "real"]


@pytest.mark.parametrize("name", [".", ".."])
async def test_an_id_that_the_authority_cannot_be_asked_about_is_refused_where_it_comes_in(engine, handler, name):
    by_header = guard(handler, [RUN], agent_header="x-agent")
    by_hook = guard(handler, [RUN], identify=lambda request: Agent(name))
    for app in (by_header, by_hook):
        wire = await ask(app, headers=[("x-agent", name)])
        assert (wire.status, wire.problem) == (400, "bad-request")
    assert (handler.ran, engine.submitted) == (0, [])
    with pytest.raises(ConfigurationError, match="dot segment"):
        guard(handler, [RUN], agent_id=name)


async def test_an_agent_is_seen_when_it_acts_also_without_a_decision(engine, handler):
    engine.answers = [ConnectFailed("no")]
    app = guard(handler, [{**RUN, "on_failure": "open"}], agent_header="x-agent")
    assert (await ask(app, headers=[("x-agent", "open")])).status == 200
    assert list(app.guard.state.agents(since=0)) == ["open"]


async def test_an_error_says_its_class_once_in_the_log(engine, handler, caplog):
    engine.answers = [raw(b"<html>"), ConnectFailed("no")]
    app = guard(handler, [RUN])
    for _ in range(2):
        await ask(app)
    told = [record.getMessage() for record in caplog.records if "no decision under" in record.getMessage()]
    assert [text.count("ProtocolError") for text in told] == [1, 0]
    assert [text.count("NetworkError") for text in told] == [0, 1]
