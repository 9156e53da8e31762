"""Bodies by hand: whole, cut off, slow, too long, replayed."""

import asyncio
import json
import logging

import pytest
from kit.asgi import GONE, JSON, Wire, ask, guard, http_scope, part
from kit.engine import KEY, answer
from starlette.requests import Request
from starlette.responses import PlainTextResponse

pytestmark = pytest.mark.anyio
PAY = {"match": "POST /pay", "action_type": "transaction", "details": {"amount": "body.amount"}}
UPLOAD = {"match": "POST /upload", "action_type": "data_modification"}


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize(("then", "status"), [([GONE], None), ([], 408)], ids=["cut off", "slow"])
async def test_a_body_that_does_not_come_whole_runs_nothing(engine, handler, then, status, mode):
    app = guard(handler, [PAY], mode=mode, body_timeout=0.02)
    wire = await ask(app, "/pay", body=[part(b'{"amount": 1', more=True), *then])
    assert (wire.status, handler.ran, engine.submitted) == (status, 0, [])
    assert wire.sent == [] if status is None else wire.problem == "body-timeout"


@pytest.mark.parametrize(("declared", "received"), [([], 3), ([("content-length", "101")], 0)])
async def test_reading_stops_beyond_the_cap_and_does_not_begin_where_it_is_declared(
    engine, handler, declared, received
):
    messages = [part(b"x" * 40, more=True)] * 50
    wire = await ask(guard(handler, [PAY], body_limit=100), "/pay", body=messages, headers=[*JSON, *declared])
    assert (wire.status, wire.problem, handler.ran, wire.received) == (413, "body-too-large", 0, received)


@pytest.mark.parametrize(("size", "status"), [(19, 200), (20, 200), (21, 413)])
@pytest.mark.parametrize("parts", [1, 2])
async def test_a_body_may_be_as_long_as_its_limit(engine, handler, size, status, parts):
    content = b'{"amount": 1}'.ljust(size)
    cut = [part(content)] if parts == 1 else [part(content[:7], more=True), part(content[7:])]
    wire = await ask(guard(handler, [PAY], body_limit=20), "/pay", body=cut)
    assert (wire.status, handler.ran) == (status, 1 if status == 200 else 0)


@pytest.mark.parametrize("declared", [b"\xb2", "-1", "1, 2", "9" * 5000, ""])
async def test_an_odd_length_is_no_crash(engine, handler, declared):
    headers = [*JSON, ("content-length", declared)]
    wire = await ask(guard(handler, [PAY]), "/pay", body=b'{"amount": 1}', headers=headers)
    assert (wire.status, handler.ran) == (200, 1)


async def test_in_observe_mode_an_oversized_body_arrives_whole(engine, handler):
    messages = [part(b"x" * 80, more=True), part(b"y" * 80, more=True), part(b"z")]
    wire = await ask(guard(handler, [PAY], body_limit=100, mode="observe"), "/pay", body=messages)
    assert (wire.status, handler.body) == (200, b"x" * 80 + b"y" * 80 + b"z")


async def test_the_body_is_handed_on_once_and_then_the_server_is_asked(engine):
    seen = []

    async def handler(scope, receive, send):
        seen.append(await receive())
        seen.append(await receive())
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        wire.gone.set()
        seen.append(await waiting)

    wire = Wire(part(b'{"amount"', more=True), part(b": 3}"))
    await wire.through(guard(handler, [PAY]), http_scope("POST", "/pay", headers=JSON))
    assert [message.get("body") for message in seen] == [b'{"amount"', b": 3}", None]
    assert engine.submitted[0]["action_details"] == {"amount": 3}


async def test_asking_whether_the_client_left_does_not_freeze(engine):
    async def polite(scope, receive, send):
        request = Request(scope, receive)
        content = await request.body()
        for _ in range(3):
            assert not await asyncio.wait_for(request.is_disconnected(), 1)
        await PlainTextResponse(content)(scope, receive, send)

    wire = await ask(guard(polite, [PAY]), "/pay", body=b'{"amount": 3}')
    assert wire.body == b'{"amount": 3}'


async def test_a_handler_streams_a_body_that_no_rule_reads(engine):
    got = []

    async def handler(scope, receive, send):
        async for chunk in Request(scope, receive).stream():
            got.append((chunk, wire.received))
        await PlainTextResponse("ok")(scope, receive, send)

    wire = Wire(*(part(b"x" * 70_000, more=True) for _ in range(4)), part(b"end"))
    assert (await wire.through(guard(handler, [UPLOAD]), http_scope("POST", "/upload"))).status == 200
    # One message for each chunk: nothing was read ahead.
    assert [count for chunk, count in got if chunk] == [1, 2, 3, 4, 5]


async def test_secrets_are_redacted_and_nowhere_else(engine, handler, caplog):
    caplog.set_level(logging.DEBUG)
    rule = {
        "match": "POST /login",
        "action_type": "login",
        "details": {"password": "body.password", "user": "body.user", "all": "body.all"},
    }
    secret = "hunter2-very-secret"
    content = {"password": secret, "user": "ann", "all": {"card_number": "4111111111111111", "x": 1}}
    wire = await ask(guard(handler, [rule]), "/login", body=json.dumps(content).encode())
    all_of_it = {"card_number": "[redacted]", "x": 1}
    assert engine.submitted[0]["action_details"] == {"password": "[redacted]", "user": "ann", "all": all_of_it}
    assert json.loads(handler.body) == content
    refusals = [answer("denied", reason="no"), answer("nonsense"), answer("approved", 500), answer("x", 401)]
    broken = [json.dumps(content).encode()[:-3], b'{"password": "%s", "password": 1}' % secret.encode()]
    cases = [(found, json.dumps(content).encode()) for found in refusals] + [(answer(), sent) for sent in broken]
    for found, sent in cases:
        engine.answers = [found]
        wire = await ask(guard(handler, [rule]), "/login", body=sent)
        assert wire.status >= 400
        assert secret.encode() not in wire.body
        assert KEY.encode() not in wire.body
    assert handler.ran == 1
    for hidden in (secret, KEY, "4111111111111111"):
        assert hidden not in caplog.text
    assert all(secret.encode() not in request.content for request in engine.requests)


CONTENT_TYPES = {
    "application/json": True,
    "Application/JSON ;": True,
    "application/vnd.api+json": True,
    "application/json; charset=utf-8": True,
    'application/json; Charset = "UTF-8"': True,
    "application/json; charset=utf8": True,
    "application/json; profile=x; version*=utf-16''1": True,
    "application/json; charset=latin-1": False,
    "application/json; profile=x; charset=utf-16": False,
    "application/json; charset": False,
    "application/json; charset*=utf-8''utf-8": False,
    "application/json; charset*0=utf-8": False,
    "application/json; charset *=utf-8''utf-16": False,
    "text/json": False,
    "text/vnd.api+json": False,
    "application/json+x": False,
    "application/xml": False,
}
PARTS_OF_HEADERS = [
    ([], False),
    ([*JSON, *JSON], False),
    ([*JSON, ("content-encoding", "")], True),
    ([*JSON, ("content-encoding", " Identity")], True),
    ([*JSON, ("content-encoding", "gzip")], False),
    ([*JSON, ("content-encoding", "identity, gzip")], False),
    ([*JSON, ("content-encoding", "identity"), ("content-encoding", "br")], False),
]


@pytest.mark.parametrize(
    ("headers", "read"),
    [*(([("content-type", text)], read) for text, read in CONTENT_TYPES.items()), *PARTS_OF_HEADERS],
)
async def test_what_a_body_is_read_as_is_said_by_its_headers_and_by_nothing_else(engine, handler, headers, read):
    wire = await ask(guard(handler, [PAY]), "/pay", body=b'{"amount": 1}', headers=headers)
    assert (wire.status, handler.ran) == ((200, 1) if read else (400, 0))
    assert [one["action_details"] for one in engine.submitted] == ([{"amount": 1}] if read else [])


@pytest.mark.parametrize(
    "content",
    [
        b'{"amount": 1, "amount": 2}',
        b'{"amount": 1, "more": [{"x": 1, "x": 1}]}',
        b'{"amount": NaN}',
        b'{"amount": -Infinity}',
        b'{"amount": 1, "x": 1e999}',
        b'\xef\xbb\xbf{"amount": 1}',
        b'{"amount": 1, "x": "\xe9"}',
        b'{"amount": 1, "x": "\\ud800"}',
        b'{"amount": 1}\x00',
        b'{"amount": 1, "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"amount": 1, "x": ' + b"9" * 5_000 + b"}",
        b'{"amount": 1}{"amount": 2}',
        b"{'amount': 1}",
        b'{"\\u0061mount": 1, "amount": 2}',
        '{"amount": 1}'.encode("utf-16"),
        b'{"other": 1}',
        b"",
    ],
)
async def test_what_two_parsers_may_read_differently_is_refused(engine, handler, content):
    wire = await ask(guard(handler, [PAY]), "/pay", body=content)
    assert (wire.status, wire.problem, handler.ran, engine.submitted) == (400, "bad-request", 0, [])


@pytest.mark.parametrize(
    ("content", "account"),
    [
        (b"account=a", "a"),
        (b"account=", ""),
        (b"account=a;b", None),
        (b"account=a%3Bb", "a;b"),
        (b"account=%E9", None),
        (b"account=%C3%A9", "\xe9"),
        (b"account=\xc3\xa9", None),
        (b"account=a" + b"&x=1" * 999, "a"),
        (b"account=a" + b"&x=1" * 1000, None),
    ],
)
async def test_a_form_that_frameworks_decode_differently_is_refused(engine, handler, content, account):
    rule = {"match": "POST /pay", "action_type": "transaction", "details": {"account": "form.account"}}
    headers = [("content-type", "application/x-www-form-urlencoded")]
    wire = await ask(guard(handler, [rule]), "/pay", body=content, headers=headers)
    assert (wire.status, handler.body) == ((400, None) if account is None else (200, content))
    assert [one["action_details"]["account"] for one in engine.submitted] == ([] if account is None else [account])


async def test_a_body_over_the_cap_stays_so_when_it_is_asked_for_again(engine, handler):
    engine.answers = [answer("pending")]
    app = guard(handler, [UPLOAD], body_limit=100, on_failure="open", journal="memory:")
    # What is on hold makes the guard look at the second body before it asks, and again when the answer is pending.
    for size in (1, 200):
        wire = await ask(app, "/upload", body=b"x" * size, headers=[("transfer-encoding", "chunked")])
        assert ("approval" in wire.json) is (size == 1)
    assert len(engine.submitted) == 2
