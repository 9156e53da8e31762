"""Rules at the handlers of Starlette and FastAPI: the middleware decides under them, and nothing runs undecided."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from kit.asgi import CONNECT, JSON, Answered, http_scope, inside, part, ws_scope
from kit.engine import answer
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from ascend_middleware import fastapi
from ascend_middleware.asgi import governed, require_decision
from ascend_middleware.asgi.decorator import VERDICT
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.guard import Verdict

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine(engine):
    engine.answers = [
        lambda request: answer("denied" if json.loads(request.content)["action_type"] == "denied" else "approved")
    ]
    return engine


def guard(app, *rules, **settings):
    return inside(app, rules, **settings)


async def ask(app, method, path, body=b"", kind="http"):
    """Ask by hand: an exception of the application is the answer 500, and a handshake refused is its status."""
    headers = [*JSON, ("content-length", str(len(body)))]
    if kind == "http":
        scope, wire = http_scope(method, path, headers=headers), Answered(part(body))
    else:
        scope = ws_scope(path, headers=headers, extensions={"websocket.http.response": {}})
        wire = Answered(CONNECT)
    with contextlib.suppress(ConfigurationError):
        await wire.through(app, scope)
    return wire.sent[0].get("status", wire.sent[0]["type"]) if wire.sent else 500


def fastapi_application(ran):
    app = FastAPI()

    @app.post(
        "/refunds/{number}",
        dependencies=[Depends(fastapi.governed(action_type="refund", details={"amount": "body.amount"}))],
    )
    async def refund(number: int, request: Request):
        ran.append(await request.json())
        return {}

    @app.get("/denied")
    def denied(verdict=Depends(fastapi.governed(action_type="denied"))):
        ran.append("denied")

    @app.get("/value")
    async def value(verdict=Depends(fastapi.governed(action_type="value"))):
        ran.append(verdict.outcome)

    def nested(verdict=Depends(fastapi.governed(action_type="nested"))):
        return verdict

    @app.get("/nested")
    async def deep(value=Depends(nested)):
        ran.append("nested")

    @app.get("/decorated/{number}")
    @governed(action_type="decorated", resource_id="{path.number}")
    async def decorated(number: int):
        ran.append(number)

    @app.get("/threaded")
    @governed(action_type="threaded")
    def threaded(request: Request, extra: str = "none"):
        ran.append(extra)

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, verdict=Depends(fastapi.governed(action_type="socket"))):
        await websocket.accept()
        ran.append("socket")

    return app


async def test_a_dependency_is_a_rule_of_its_route(engine, ran):
    app = guard(fastapi_application(ran))
    assert await ask(app, "POST", "/refunds/7", b'{"amount": 5}') == 200
    assert await ask(app, "GET", "/denied") == 403
    assert await ask(app, "GET", "/value") == 200
    assert await ask(app, "GET", "/nested") == 200
    assert await ask(app, "GET", "/decorated/9") == 200
    assert await ask(app, "GET", "/threaded") == 200
    assert await ask(app, "GET", "/ws", kind="websocket") == "websocket.accept"
    assert ran == [{"amount": 5}, "allowed", "nested", 9, "none", "socket"]
    assert engine.kinds == ["refund", "denied", "value", "nested", "decorated", "threaded", "socket"]
    assert engine.submitted[0]["action_details"] == {"amount": 5}
    assert engine.submitted[4]["resource_id"] == "9"


async def test_the_schema_does_not_show_it():
    app = fastapi_application([])
    operations = app.openapi()["paths"]
    assert [one["name"] for one in operations["/decorated/{number}"]["get"]["parameters"]] == ["number"]
    assert "parameters" not in operations["/value"]["get"]


async def test_where_nobody_decided_nothing_runs(ran, caplog):
    app = fastapi_application(ran)
    for method, path in [
        ("POST", "/refunds/7"),
        *(("GET", p) for p in ("/denied", "/value", "/nested", "/decorated/9", "/threaded")),
    ]:
        assert await ask(app, method, path, b"{}") == 500
    assert await ask(app, "GET", "/ws", kind="websocket") == 500
    assert ran == []
    assert "nobody decided about this request" in caplog.text


@pytest.mark.parametrize("found", [None, SimpleNamespace(passes=True), Verdict(outcome="denied", passes=False)])
def test_only_a_verdict_that_passes_is_a_decision(found):
    scope = {"type": "http"} if found is None else {"type": "http", VERDICT: found}
    with pytest.raises(RuntimeError, match="no ASCEND decision"):
        require_decision(HTTPConnection(scope))


async def test_a_rule_of_a_router_or_of_the_application(engine, ran):
    router = APIRouter(dependencies=[Depends(fastapi.governed(action_type="of-the-router"))])

    @router.get("/one")
    async def one():
        ran.append("one")

    @router.websocket("/ws")
    async def socket(websocket: WebSocket):
        await websocket.accept()
        ran.append("ws")

    app = FastAPI()
    app.include_router(router, prefix="/a")
    outer = APIRouter()
    outer.include_router(router, prefix="/deep")
    app.include_router(outer, prefix="/b")
    plain = APIRouter()

    @plain.get("/two")
    async def two():
        ran.append("two")

    app.include_router(plain, prefix="/c", dependencies=[Depends(fastapi.governed(action_type="of-the-inclusion"))])
    app.include_router(plain, prefix="/d", dependencies=[Depends(fastapi.governed(action_type="denied"))])
    guard(app)
    for path in ("/a/one", "/b/deep/one", "/c/two"):
        assert await ask(app, "GET", path) == 200
    assert await ask(app, "GET", "/d/two") == 403
    assert await ask(app, "GET", "/b/deep/ws", kind="websocket") == "websocket.accept"
    assert engine.kinds == ["of-the-router"] * 2 + ["of-the-inclusion", "denied", "of-the-router"]

    whole = FastAPI(dependencies=[Depends(fastapi.governed(action_type="whole"))])
    whole.include_router(plain)
    assert await ask(guard(whole), "GET", "/two") == 200
    assert engine.kinds[-1] == "whole"


async def test_starlette_endpoints_of_every_kind(engine, ran):
    @governed(action_type="function")
    async def function(request):
        ran.append("function")
        return PlainTextResponse("")

    @governed(action_type="threaded")
    def threaded(request):
        ran.append("threaded")
        return PlainTextResponse("")

    @governed(action_type="class")
    class Whole(HTTPEndpoint):
        async def get(self, request):
            ran.append("class")
            return PlainTextResponse("")

    class Parts(HTTPEndpoint):
        async def get(self, request):
            ran.append("open")
            return PlainTextResponse("")

        @governed(action_type="denied")
        async def put(self, request):
            ran.append("put")

        @governed(action_type="posting")
        def post(self, request):
            ran.append("post")
            return PlainTextResponse("")

    @governed(action_type="listening")
    class Socket(WebSocketEndpoint):
        async def on_connect(self, websocket):
            ran.append("socket")
            await websocket.accept()

    routes = [
        *(Route("/function", function), Route("/threaded", threaded), Route("/class", Whole), Route("/parts", Parts)),
        WebSocketRoute("/ws", Socket),
        Mount("/again", routes=[Route("/elsewhere", function)]),
    ]
    app = guard(Starlette(routes=routes), {"match": "GET /parts", "exempt": True})
    for path in ("/function", "/again/elsewhere", "/threaded", "/class", "/parts"):
        assert await ask(app, "GET", path) == 200
    assert await ask(app, "PUT", "/parts") == 403
    assert await ask(app, "POST", "/parts") == 200
    assert await ask(app, "GET", "/ws", kind="websocket") == "websocket.accept"
    assert ran == ["function", "function", "threaded", "class", "open", "post", "socket"]
    assert engine.kinds == ["function", "function", "threaded", "class", "denied", "posting", "listening"]
    ran.clear()
    bare = Starlette(routes=routes)
    for path in ("/function", "/threaded", "/class"):
        assert await ask(bare, "GET", path) == 500
    assert await ask(bare, "POST", "/parts") == 500
    assert await ask(bare, "GET", "/ws", kind="websocket") == 500
    assert ran == []


async def test_rules_of_equal_rank_that_differ_refuse_the_route(engine, ran, caplog):
    app = guard(fastapi_application(ran), {"endpoint": "value", "action_type": "other"})
    assert await ask(app, "GET", "/value") == 500
    assert "contradict each other" in caplog.text
    twice = FastAPI(dependencies=[Depends(fastapi.governed(action_type="one"))])

    @twice.get("/", dependencies=[Depends(fastapi.governed(action_type="two"))])
    async def root():
        ran.append("root")

    assert await ask(guard(twice), "GET", "/") == 500
    assert (ran, engine.submitted) == ([], [])


async def test_the_tables_blocks_beat_it_and_its_templates_do_not(engine, ran):
    rules = [{"match": "* /value", "exempt": True}, {"match": "* /nested", "block": "closed"}]
    app = guard(fastapi_application(ran), *rules)
    assert await ask(app, "GET", "/value") == 200
    assert await ask(app, "GET", "/nested") == 403
    assert (ran, engine.kinds) == (["allowed"], ["value"])


class Foreign:
    """An application that nobody can look into."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.mark.parametrize("action_type", ["all-of-it", "denied"])
@pytest.mark.parametrize("mode", ["enforce", "observe"])
async def test_a_decision_under_another_rule_does_not_count(engine, ran, caplog, mode, action_type):
    """Nor does one that the other rule only observed: the handler's own rule may enforce."""
    rule = {"name": "the-whole", "match": "* /sub/**", "action_type": action_type, "mode": mode}
    app = guard(Starlette(routes=[Mount("/sub", Foreign(fastapi_application(ran)))]), rule)
    passes = (mode, action_type) != ("enforce", "denied")
    assert await ask(app, "GET", "/sub/value") == (500 if passes else 403)
    assert (ran, engine.kinds) == ([], [action_type])
    assert ("it was decided under the-whole" in caplog.text) is passes


async def test_where_a_guard_that_only_observes_has_no_rule_the_handler_runs(engine, ran):
    app = guard(Starlette(routes=[Mount("/sub", Foreign(fastapi_application(ran)))]), mode="observe")
    assert await ask(app, "GET", "/sub/value") == 200
    assert (ran, engine.submitted) == (["observed"], [])


async def test_a_handler_that_answers_where_nothing_was_found_is_not_let_pass_with_that(engine, ran, caplog):
    @governed(action_type="missing")
    async def missing(request, error):
        ran.append("missing")
        return PlainTextResponse("")

    assert await ask(guard(Starlette(exception_handlers={404: missing})), "GET", "/nowhere") == 500
    assert (ran, engine.submitted) == ([], [])
    assert "it was decided under no rule (framework)" in caplog.text


async def test_switched_off_or_only_observing_it_runs(engine, ran):
    assert await ask(guard(fastapi_application(ran), enabled=False), "GET", "/value") == 200
    assert await ask(guard(fastapi_application(ran), mode="observe"), "GET", "/denied") == 200
    assert ran == ["disabled", "denied"]


def test_what_cannot_be_governed_is_refused_at_once():
    for target in (PlainTextResponse("x"), object):
        with pytest.raises(ConfigurationError, match="governed stands at"):
            governed(action_type="x")(target)
    with pytest.raises(ConfigurationError, match=r"test_governed_handlers line \d+.*action_tipe"):
        fastapi.governed(action_tipe="x")


def test_the_connection_is_what_it_asks_for():
    assert fastapi.governed(action_type="x").__call__.__annotations__["connection"] is HTTPConnection
