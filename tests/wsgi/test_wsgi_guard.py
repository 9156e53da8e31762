"""What a governed WSGI application does, request by request."""

import json
import time

import bottle
import falcon
import httpx2
import pytest
from kit.engine import Engine, answer, options, plug
from kit.processes import together
from kit.wsgi import JSON, Call, Handler, Input, environ
from werkzeug.wrappers import Request as WerkzeugRequest
from werkzeug.wrappers import Response as WerkzeugResponse

from ascend_middleware import ConfigurationError
from ascend_middleware.client.http import ConnectFailed, DeadlinePassed
from ascend_middleware.flow import BodyTooLarge
from ascend_middleware.guard import Agent, NotAnAgent, Verdict
from ascend_middleware.wsgi import AscendMiddleware
from ascend_middleware.wsgi.middleware import Body

BODY = b'{"amount": 5}'


PAY = {"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}}
READ = {"match": "GET /items/{id}", "action_type": "read", "resource_id": "{path.id}"}


def guard(app, rules=(PAY, READ), **settings):
    return AscendMiddleware(app, **options(list(rules), **settings))


def pay(**more):
    return environ("POST", "/pay", **{"content": BODY, "headers": JSON, **more})


def test_an_allowed_request_runs_and_finds_its_verdict(engine):
    handler = Handler()
    call = Call(guard(handler), environ("GET", "/items/7"))
    assert (call.status, call.body, handler.ran) == (200, b"done", 1)
    verdict = handler.environ["ascend.verdict"]
    assert isinstance(verdict, Verdict)
    assert (verdict.outcome, verdict.action_id) == ("allowed", "7")
    assert engine.submitted[0]["action_type"] == "read"
    assert engine.submitted[0]["resource_id"] == "7"


def test_a_denial_is_a_problem_document(engine):
    engine.answers = [answer("denied", reason="no")]
    handler = Handler()
    call = Call(guard(handler), environ("GET", "/items/7"))
    assert (call.status, call.problem, handler.ran) == (403, "denied", 0)
    assert call.headers["content-type"] == "application/problem+json"
    assert call.headers["cache-control"] == "no-store"
    assert call.headers["ascend-action-id"] == "7"
    assert int(call.headers["content-length"]) == len(call.body)


def test_a_refused_head_has_no_body(engine):
    engine.answers = [answer("denied")]
    call = Call(guard(Handler()), environ("HEAD", "/items/7"))
    assert (call.status, call.body) == (403, b"")


def test_the_application_answers_in_its_own_style(engine):
    engine.answers = [answer("denied")]

    def render(status, headers, body):
        return 451, [("content-type", "text/plain"), ("x-was", str(status))], b"no"

    call = Call(guard(Handler(), render=render), environ("GET", "/items/7"))
    assert (call.status, call.headers["x-was"], call.body) == (451, "403", b"no")


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/other", 403, "unmapped-route"),
        ("DELETE", "/items/7", 403, "unmapped-route"),
        ("OPTIONS", "/items/7", 403, "unmapped-route"),
        ("GET", "/ITEMS/7", 403, "unmapped-route"),
        ("GET", "//items/7", 400, "bad-request"),
        ("GET", "/items//7", 400, "bad-request"),
        ("GET", "/items/../items/7", 400, "bad-request"),
        ("GET", "/items/7\n", 400, "bad-request"),
        ("GET", "/items/a;b", 400, "bad-request"),
        ("GET", "items/7", 400, "bad-request"),
        ("*", "/items/7", 400, "bad-request"),
    ],
)
def test_what_needs_no_authority(engine, method, path, status, problem):
    handler = Handler()
    call = Call(guard(handler), environ(method, path))
    assert (call.status, call.problem) == (status, problem)
    assert (handler.ran, engine.submitted) == (0, [])


@pytest.mark.parametrize("path", ["/items/\xff", "/items/\xed\xa0\x80", "/items/€"])
def test_a_path_that_is_no_utf8_is_refused(engine, path):
    given = environ("GET")
    given["PATH_INFO"] = path
    assert Call(guard(Handler()), given).problem == "bad-request"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/items/7"), ("GET", "/items/7/"), ("get", "/items/7"), ("Head", "/items/7")]
)
def test_a_trailing_slash_and_the_case_of_a_method_change_nothing(engine, method, path):
    assert Call(guard(Handler()), environ(method, path)).status == 200


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI", "asgi.scope"])
@pytest.mark.parametrize(
    "raw", ["//items/7", "http://site/items/7", "/items%2f7", "/x/../items/7", "/x/%2E./items/7", "/items/7#/pub", "*"]
)
def test_the_raw_target_counts_where_the_server_shows_it(engine, name, raw):
    handler = Handler()
    shown = {"raw_path": raw.encode()} if name == "asgi.scope" else raw
    assert Call(guard(handler), environ("GET", "/items/7", **{name: shown})).problem == "bad-request"
    assert handler.ran == 0


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_what_a_wsgi_server_shows_counts_before_what_stands_in_a_scope(engine, name):
    for raw, inner, status in (("//items/7", "/items/7", 400), ("/items/7", "//items/7", 200)):
        given = environ("GET", "/items/7", **{name: raw, "asgi.scope": {"raw_path": inner.encode()}})
        assert Call(guard(Handler()), given).status == status


def test_an_ordinary_raw_target_is_fine(engine):
    given = environ("GET", "/items/a b", query="q=%2F", RAW_URI="/items/a%20b?q=%2F")
    assert Call(guard(Handler()), given).status == 200


def test_a_hidden_raw_target_is_told_once(engine, caplog):
    app = guard(Handler())
    with caplog.at_level("INFO"):
        Call(app, environ("GET", "/items/7", RAW_URI="/items/7"))
        assert "raw target" not in caplog.text
        Call(app, environ("GET", "/items/7"))
        Call(app, environ("GET", "/items/7"))
    assert caplog.text.count("hides the raw target") == 1


@pytest.mark.parametrize(("script", "path"), [("/api", "/items/7"), ("/a/b", "/items/7")])
def test_what_is_below_the_script_name_decides(engine, script, path):
    given = environ("GET", path, SCRIPT_NAME=script, RAW_URI=f"{script}{path}")
    assert Call(guard(Handler()), given).status == 200
    given = environ("GET", f"{script}{path}", RAW_URI=f"{script}{path}")
    assert Call(guard(Handler()), given).status == 403


def test_the_root_of_a_mount_is_a_slash(engine):
    app = guard(Handler(), [{"match": "GET /", "action_type": "root"}])
    assert Call(app, environ("GET", "", SCRIPT_NAME="/api")).status == 200


# Headers


def test_an_agent_header_counts_once_only(engine):
    app = guard(Handler(), agent_header="X-Agent-Id")
    assert Call(app, environ("GET", "/items/7", headers=[("x-agent-id", "a")])).status == 200
    assert engine.submitted[0]["agent_id"] == "a"
    twin = {"asgi.scope": {"headers": [(b"x-agent-id", b"a"), (b"x_agent_id", b"b")]}}
    forged = {"asgi.scope": {"headers": [(b"x_agent_id", b"a")]}}
    for given in (
        environ("GET", "/items/7"),
        environ("GET", "/items/7", headers=[("x-agent-id", "a,b")]),
        environ("GET", "/items/7", headers=[("x-agent-id", "a,b")], **twin),
        environ("GET", "/items/7", headers=[("x-agent-id", "a")], **forged),
    ):
        assert Call(app, given).problem == "bad-request"
    assert len(engine.submitted) == 1


def test_a_second_content_type_is_ambiguous(engine):
    assert Call(guard(Handler()), pay(HTTP_CONTENT_TYPE="application/json")).status == 200
    assert Call(guard(Handler()), pay(HTTP_CONTENT_TYPE="text/plain")).problem == "bad-request"


def test_a_method_override_is_refused(engine):
    handler = Handler()
    given = environ("GET", "/items/7", headers=[("x-http-method-override", "DELETE")])
    assert Call(guard(handler), given).problem == "bad-request"
    assert handler.ran == 0


# Who asks


def test_identify_gets_the_environ(engine):
    found = {"bot": Agent("bot-7"), "person": NotAnAgent("signed in")}
    app = guard(Handler(), identify=lambda given: found.get(given.get("HTTP_AUTHORIZATION")))
    assert Call(app, environ("GET", "/items/7", headers=[("authorization", "bot")])).status == 200
    assert engine.submitted[0]["agent_id"] == "bot-7"
    assert Call(app, environ("GET", "/items/7", headers=[("authorization", "person")])).status == 200
    assert Call(app, environ("GET", "/items/7")).problem == "unknown-agent"
    assert len(engine.submitted) == 1


def test_a_coroutine_function_cannot_identify():
    async def identify(given): ...

    with pytest.raises(ConfigurationError, match="without an event loop"):
        guard(Handler(), identify=identify)


def test_a_function_that_returns_a_coroutine_identifies_nobody(engine, caplog):
    async def later(): ...

    call = Call(guard(Handler(), identify=lambda given: later()), environ("GET", "/items/7"))
    assert (call.status, call.problem, engine.submitted) == (500, "misconfigured", [])
    assert "identify returned a coroutine" in caplog.text


def test_without_an_agent_nothing_is_built():
    with pytest.raises(ConfigurationError):
        AscendMiddleware(Handler(), rules={"rule": [PAY]}, api_url="https://authority.example")


def test_only_what_the_server_says_of_headers_is_a_header(engine):
    rule = {**READ, "details": {"run": "header.x-run?"}}
    given = environ("GET", "/items/7")
    given |= {"OTHERX_RUN": "forged", "x.run": object()}
    assert Call(guard(Handler(), [rule]), given).status == 200
    given["HTTP_X_RUN"] = "told"
    assert Call(guard(Handler(), [rule]), given).status == 200
    assert [one.get("action_details") for one in engine.submitted] == [None, {"run": "told"}]


# Bodies


@pytest.mark.parametrize("length", ["\xb2", "-1", "+2", "9" * 19, "9" * 5000, "1, 2", " 2"])
def test_a_length_that_is_none_is_no_body(engine, length):
    call = Call(guard(Handler()), {**pay(), "CONTENT_LENGTH": length})
    assert (call.status, call.problem, engine.submitted) == (400, "bad-request", [])


@pytest.mark.parametrize(("digits", "status"), [(18, 200), (19, 400)])
def test_a_length_has_eighteen_digits_at_most(engine, digits, status):
    given = {**pay(), "CONTENT_LENGTH": str(len(BODY)).zfill(digits)}
    assert Call(guard(Handler()), given).status == status


def test_a_body_that_was_too_large_stays_so_and_is_not_read_on():
    stream = Input(BODY)
    given = pay(content=stream, length=len(BODY))
    body = Body(given)
    for limit in (3, 3, 100):
        with pytest.raises(BodyTooLarge):
            body.read(limit, 5.0)
        assert stream.reads == 1
    assert given["wsgi.input"].read() == BODY


def test_a_body_is_read_once_and_bounded_each_time():
    stream = Input(BODY)
    given = pay(content=stream, length=len(BODY))
    body = Body(given)
    assert [body.read(100, 5.0), body.read(len(BODY), 5.0)] == [BODY, BODY]
    with pytest.raises(BodyTooLarge):
        body.read(len(BODY) - 1, 5.0)
    assert given["wsgi.input"].read() == BODY


@pytest.mark.parametrize("part", [1 << 20, 3, 1])
@pytest.mark.parametrize("reads", ["length", "end"])
def test_the_handler_gets_the_bytes_that_were_judged(engine, part, reads):
    handler = Handler(reads=reads)
    call = Call(guard(handler), pay(content=Input(BODY, part=part), length=len(BODY)))
    assert (call.status, handler.body) == (200, BODY)
    assert engine.submitted[0]["action_details"] == {"amount": 5}


@pytest.mark.parametrize("reads", ["length", "end"])
def test_a_chunked_body_is_whole_where_the_server_ends_it(engine, reads):
    handler = Handler(reads=reads)
    call = Call(guard(handler), pay(content=Input(BODY, part=4), **{"wsgi.input_terminated": True}))
    assert (call.status, handler.body) == (200, BODY)
    assert (handler.environ["wsgi.input_terminated"], handler.environ["CONTENT_LENGTH"]) == (True, str(len(BODY)))


def test_a_body_of_unknown_end_is_not_read(engine):
    handler, content = Handler(), Input(BODY)
    call = Call(guard(handler), pay(content=content, headers=[*JSON, ("transfer-encoding", "chunked")]))
    assert (call.problem, handler.ran, content.reads) == ("bad-request", 0, 0)


def test_a_body_is_read_to_its_length_and_no_further(engine):
    handler = Handler(reads="end")
    content = Input(BODY + b"GET /next HTTP/1.1\r\n")
    assert Call(guard(handler), pay(content=content, length=len(BODY))).status == 200
    assert handler.body == BODY


@pytest.mark.parametrize("then", [None, OSError("gone"), ConnectionResetError(), ValueError("bad chunk")])
def test_a_body_that_breaks_off_never_reaches_the_handler(engine, then):
    handler = Handler()
    call = Call(guard(handler), pay(content=Input(BODY, then=then), length=40))
    assert (call.status, call.body, handler.ran, engine.submitted) == (400, b"", 0, [])  # nobody is there to be told
    chunked = pay(content=Input(BODY[:5], then=then or OSError()), **{"wsgi.input_terminated": True})
    assert Call(guard(handler), chunked).status == 400
    assert (handler.ran, engine.submitted) == (0, [])


def test_a_long_body_is_refused_unread(engine):
    content = Input(b"x" * 100_000)
    assert Call(guard(Handler()), pay(content=content, length=100_000)).problem == "body-too-large"
    assert content.reads == 0


def test_reading_a_long_chunked_body_stops(engine):
    content = Input(b"x" * 10_000_000)
    call = Call(guard(Handler(), body_limit=1000), pay(content=content, **{"wsgi.input_terminated": True}))
    assert call.problem == "body-too-large"
    assert len(content.read()) == 10_000_000 - 1001


@pytest.mark.parametrize("part", [1 << 20, 1])
@pytest.mark.parametrize("length", [None, len(BODY)])
@pytest.mark.parametrize(("spare", "status"), [(0, 200), (-1, 413)])
def test_a_body_may_be_as_long_as_the_limit(engine, length, spare, status, part):
    given = pay(content=Input(BODY, part=part), length=length, **{"wsgi.input_terminated": True})
    assert Call(guard(Handler(), body_limit=len(BODY) + spare), given).status == status


@pytest.mark.parametrize("length", [None, 200_000])
def test_who_only_observes_hands_a_long_body_on(engine, length):
    handler = Handler(reads="end")
    content = b"y" * 200_000
    given = pay(content=Input(content, part=999), length=length, **{"wsgi.input_terminated": True})
    assert Call(guard(handler, mode="observe", body_limit=1000), given).status == 200
    assert handler.body == content


def test_a_trickling_body_is_a_timeout(engine):
    handler = Handler()

    class Trickle:
        def read(self, size):
            time.sleep(0.02)
            return b"x"

    app = guard(handler, [{**PAY, "body_timeout": 0.05}])
    call = Call(app, pay(content=Trickle(), length=60_000))
    assert (call.problem, call.status, handler.ran) == ("body-timeout", 408, 0)


def test_a_body_that_takes_longer_than_the_deadline_is_no_outage(engine):
    """Looked at for an approval that is on hold; the authority's time begins with the submit."""
    times, handler = [], Handler()

    def send(request, timeout):
        times.append(timeout)
        if timeout < 0.15:
            raise DeadlinePassed("late")
        return answer("pending")

    class Slow(Input):
        def read(self, size=-1):
            time.sleep(0.15)
            return super().read(size)

    engine.send = send
    app = guard(handler, [{"match": "POST /run", "action_type": "run", "on_failure": "open"}], deadline=0.2)
    assert Call(app, environ("POST", "/run", content=Input(b"one"), length=3)).problem == "approval-required"
    call = Call(app, environ("POST", "/run", content=Slow(b"two", part=2), length=3))
    assert (call.problem, handler.ran) == ("approval-required", 0)
    assert times[-1] > 0.15


def test_a_body_that_no_rule_reads_is_the_handlers(engine):
    content = Input(BODY)
    call = Call(
        guard(Handler(reads=""), [{"match": "POST /up", "action_type": "up"}]),
        environ("POST", "/up", content=content, length=40),
    )
    assert (call.status, content.reads) == (200, 0)


@pytest.mark.parametrize("query", ["a=%ff", "a=\xe9", "a=€"])
def test_a_query_that_is_no_utf8_is_refused(engine, query):
    rule = {"match": "GET /q", "action_type": "q", "details": {"a": "query.a"}}
    assert Call(guard(Handler(), [rule]), environ("GET", "/q", query=query)).problem == "bad-request"


# Failure


def test_no_authority_no_handler_unless_the_rule_is_open(engine):
    engine.answers = [ConnectFailed("refused")]
    handler = Handler()
    call = Call(guard(handler), environ("GET", "/items/7"))
    assert (call.problem, handler.ran) == ("unavailable", 0)
    assert "retry-after" in call.headers
    assert Call(guard(handler, on_failure="open"), environ("GET", "/items/7")).status == 200


def test_a_held_request_waits_and_then_runs(engine):
    engine.answers = [answer("pending"), answer()]
    app = guard(Handler(), pending="wait:5s", poll_interval=0.01)
    assert Call(app, environ("GET", "/items/7")).status == 200
    assert len(engine.requests) == 2


def test_threads_get_one_engine_and_a_verdict_each(monkeypatch):
    engine = plug(monkeypatch, Engine(answer("denied")))
    handler = Handler()
    app = guard(handler)
    statuses = []
    together(*[lambda: statuses.append(Call(app, environ("GET", "/items/7")).status)] * 16)
    assert (statuses, handler.ran, engine.opened) == ([403] * 16, 0, 1)


# Frameworks


def falcon_application(seen):
    class Items:
        def on_get(self, request, response, item):
            seen.append(item)

    class Pay:
        def on_post(self, request, response):
            seen.append(request.get_media())

    app = falcon.App()
    app.add_route("/items/{item}", Items())
    app.add_route("/pay", Pay())
    return app


def bottle_application(seen):
    app = bottle.Bottle()

    @app.get("/items/<item>")
    def items(item):
        seen.append(item)

    @app.post("/pay")
    def pay():
        seen.append(bottle.request.json)

    return app


def werkzeug_application(seen):
    @WerkzeugRequest.application
    def app(request):
        seen.append(request.path.rpartition("/")[2] if request.method == "GET" else request.get_json())
        return WerkzeugResponse("done")

    return app


@pytest.mark.parametrize("build", [falcon_application, bottle_application, werkzeug_application])
def test_frameworks_run_under_it(engine, build):
    seen = []
    app = guard(build(seen))
    # As servers say of chunks; an older httpx2 tells neither that nor a length.
    transport = httpx2.WSGITransport(app=lambda environ, start: app({**environ, "wsgi.input_terminated": True}, start))
    with httpx2.Client(transport=transport, base_url="http://site") as client:
        assert client.get("/items/7").status_code == 200
        assert client.post("/pay", json={"amount": 5}).status_code == 200
        # No length, but chunks: the client's stream.
        chunked = client.post("/pay", content=iter([BODY]), headers={"content-type": "application/json"})
        assert client.post("/pay", content=b'{"amount": 5, "amount": 9}', headers=dict(JSON)).status_code == 400
        engine.answers = [answer("denied")]
        assert client.get("/items/8").status_code == 403
        assert client.post("/pay", json={"amount": 6}).status_code == 403
    assert chunked.status_code == 200
    assert seen == ["7", {"amount": 5}, {"amount": 5}]
    assert [action.get("action_details") for action in engine.submitted] == [None, *seen[1:], None, {"amount": 6}]


def test_a_table_may_stand_in_a_file(engine, tmp_path):
    file = tmp_path / "ascend.toml"
    file.write_text('[ascend]\nagent_id = "x"\n[[rule]]\nmatch = "GET /a"\naction_type = "read"\n')
    app = AscendMiddleware(
        Handler(),
        rules=file,
        api_url="https://authority.example",
        api_key="owkai_test_0123456789abcdef",
        report_outcomes=False,
    )
    assert Call(app, environ("GET", "/a")).status == 200
    assert json.loads(engine.requests[0].content)["agent_id"] == "x"
    app.close()
