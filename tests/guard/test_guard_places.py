"""Wherever the middleware stands, nothing runs undecided."""

import asyncio
import logging
import threading

import pytest
from fastapi import FastAPI
from kit.asgi import Handler, Wire, get, guard, http_scope, inside, part, shake
from kit.engine import answer, options
from kit.processes import together
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.exceptions import AscendError

pytestmark = pytest.mark.anyio
RULES = [
    {"match": "GET /safe", "exempt": True},
    {"match": "GET /danger", "action_type": "danger"},
    {"match": "GET /sub/safe", "exempt": True},
    {"match": "GET /sub/danger", "action_type": "danger"},
]
EXEMPT = {"match": "GET /files/**", "exempt": True}


class Rewrite:
    """A middleware that turns /safe into /danger; it may change other fields instead."""

    def __init__(self, app, **changes):
        self.app = app
        self.changes = changes

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            if not self.changes:
                scope = {**scope, "path": scope["path"].replace("safe", "danger")}
            scope = {**scope, **self.changes}
        await self.app(scope, receive, send)


class Answers(Rewrite):
    async def __call__(self, scope, receive, send):
        inner = PlainTextResponse("from a middleware") if scope["type"] == "http" else self.app
        await inner(scope, receive, send)


@pytest.fixture
def engine(engine):
    engine.answers = [answer("denied", reason="no")]
    return engine


def endpoint(ran, name):
    async def run(request):
        ran.append(name)
        return PlainTextResponse(name)

    return run


def routes(ran):
    return [Route("/safe", endpoint(ran, "safe")), Route("/danger", endpoint(ran, "danger"))]


async def ask(app, path="/safe", **more):
    return await get(app, path, **more)


def added_first(ran):
    app = inside(Starlette(routes=routes(ran)), RULES)
    app.add_middleware(Rewrite)
    return app


def added_last(ran):
    return inside(Starlette(routes=routes(ran), middleware=[Middleware(Rewrite)]), RULES)


def wrapped(ran):
    return guard(Starlette(routes=routes(ran), middleware=[Middleware(Rewrite)]), RULES)


def router_with_middleware(ran):
    app = Starlette()
    app.router = Router(routes=routes(ran), middleware=[Middleware(Rewrite)])
    return guard(app, RULES)


def router_given_later(ran):
    app = Starlette(middleware=[Middleware(Rewrite)])
    outer = guard(app, RULES)
    app.router = Router(routes=routes(ran))
    return outer


@pytest.mark.parametrize("build", [added_first, added_last, wrapped, router_with_middleware, router_given_later])
async def test_what_the_router_runs_is_what_is_decided(engine, ran, build):
    app = build(ran)
    for _ in range(2):
        wire = await ask(app)
        assert (wire.status, ran) == (403, [])
    assert [action["action_type"] for action in engine.submitted] == ["danger"] * 2


def around_a_mounted_application(ran):
    return Starlette(routes=[Mount("/sub", guard(Handler(), [RULES[1]]))]), "/sub/danger"


def on_a_mount(ran):
    inner = [Middleware(AscendMiddleware, **options([RULES[1]]))]
    return Starlette(routes=[Mount("/sub", routes=routes(ran), middleware=inner)]), "/sub/danger"


def on_a_route(ran):
    inner = [Middleware(AscendMiddleware, **options([RULES[1]]))]
    return Starlette(routes=[Route("/danger", endpoint(ran, "danger"), middleware=inner)]), "/danger"


def on_a_bare_router(ran):
    return Router(routes=routes(ran), middleware=[Middleware(AscendMiddleware, **options([RULES[1]]))]), "/danger"


def in_a_mounted_application(ran):
    sub = inside(Starlette(routes=routes(ran)), [RULES[1]])
    return Starlette(routes=[Mount("/sub", sub)]), "/sub/danger"


def below_a_mounted_application(ran):
    sub = Starlette(routes=[Mount("/x", guard(Handler(), [RULES[1]]))])
    return FastAPI(routes=[Mount("/sub", sub)]), "/sub/x/danger"


@pytest.mark.parametrize(
    "build",
    [
        around_a_mounted_application,
        on_a_mount,
        on_a_route,
        on_a_bare_router,
        in_a_mounted_application,
        below_a_mounted_application,
    ],
)
async def test_inside_a_router_the_first_request_is_governed_too(engine, ran, build):
    app, path = build(ran)
    for _ in range(2):
        wire = await ask(app, path)
        assert (wire.status, ran) == (403, [])
    assert len(engine.submitted) == 2


@pytest.mark.parametrize(
    ("changes", "caught"),
    [
        *((changes, True) for changes in ({}, {"path": "/sub/danger"}, {"method": "POST"}, {"query_string": b"a=1"})),
        ({"state": {}}, False),
    ],
)
async def test_a_mounted_applications_middleware_may_not_change_what_was_decided(engine, ran, changes, caught):
    sub = Starlette(routes=routes(ran), middleware=[Middleware(Rewrite, **changes)])
    wire = await ask(inside(Starlette(routes=[Mount("/sub", sub)]), RULES), "/sub/safe")
    assert (wire.status, ran) == ((500, []) if caught else (200, ["safe"]))
    assert not caught or wire.problem == "misconfigured"


async def test_what_is_mounted_later_is_guarded_at_once(engine, ran):
    app = inside(Starlette(routes=routes(ran)), RULES)
    assert (await ask(app)).status == 200
    app.mount("/sub", Starlette(routes=routes(ran), middleware=[Middleware(Rewrite)]))
    wire = await ask(app, "/sub/safe")
    assert (wire.status, ran) == (500, ["safe"])


async def test_a_guarded_application_below_an_unguarded_one_is_governed_by_what_runs(engine, ran):
    """Of its own middlewares, too."""
    sub = Starlette(routes=routes(ran), middleware=[Middleware(Rewrite)])
    app = Starlette(routes=[Mount("/sub", inside(sub, RULES))])
    for _ in range(2):
        wire = await ask(app, "/sub/safe")
        assert (wire.status, ran) == (403, [])
    assert [action["action_type"] for action in engine.submitted] == ["danger"] * 2


async def test_a_guarded_application_within_a_guarded_one_asks_twice(engine, ran):
    engine.answers = [answer()]
    sub = inside(Starlette(routes=routes(ran)), [RULES[1]])
    app = inside(Starlette(routes=[Mount("/sub", sub)]), RULES)
    for _ in range(2):
        assert (await ask(app, "/sub/danger")).status == 200
    assert (len(engine.submitted), ran) == (4, ["danger"] * 2)


async def test_what_is_exempt_is_looked_at_where_its_request_is_not_ordinary(engine, ran):
    app = inside(Starlette(routes=[Route("/files/{name:path}", endpoint(ran, "file"))]), [EXEMPT])
    for path, status in (("/files/a", 200), ("/files/a//b", 400), ("/files/a;b", 400), ("/files/b", 200)):
        assert (await ask(app, path)).status == status
    assert (await ask(app, "/files/a", headers=[("x-original-url", "/danger")])).status == 400
    assert ran == ["file"] * 2


async def test_a_handshake_that_is_exempt_passes(engine, ran):
    async def talk(websocket):
        await websocket.accept()
        ran.append("talk")
        await websocket.close()

    app = inside(Starlette(routes=[WebSocketRoute("/talk", talk)]), [{"match": "WEBSOCKET /talk", "exempt": True}])
    for _ in range(2):
        assert (await shake(app, path="/talk")).sent[0]["type"] == "websocket.accept"
    assert ran == ["talk"] * 2


async def test_one_wire_watches_however_often_the_router_is_another(engine, ran):
    app = Starlette(middleware=[Middleware(Rewrite), Middleware(AscendMiddleware, **options(RULES))])
    for _ in range(3):
        app.router = Router(routes=routes(ran))
        assert (await ask(app, "/danger")).status == 403
    found, kinds = app.middleware_stack, []
    while found is not None:
        kinds.append(type(found).__name__)
        found = getattr(found, "app", None)
    assert kinds.count("Tripwire") == 1


@pytest.mark.parametrize("strict", [False, True])
async def test_a_middleware_that_answers_itself_trips_the_wire(engine, caplog, strict):
    app = Starlette(middleware=[Middleware(AscendMiddleware, **options(RULES, strict=strict)), Middleware(Answers)])
    if strict:
        wire = Wire()
        with pytest.raises(AscendError, match="no decision"):
            await app(http_scope("GET", "/x"), wire.receive, wire.send)
        assert wire.status == 500
    else:
        assert (await ask(app, "/x")).status == 200
    assert "without a decision" in caplog.text


async def test_the_wire_is_quiet_otherwise(engine, ran, caplog):
    app = inside(Starlette(routes=routes(ran)), RULES, strict=True)
    engine.answers = [answer()]
    assert [(await ask(app, path)).status for path in ("/safe", "/danger", "/nothing")] == [200, 200, 404]
    assert "without a decision" not in caplog.text


@pytest.mark.parametrize("first", ["/files/open/x", "/files/shut/x", "/files/read/x", "/files/x"])
async def test_of_rules_for_parts_of_one_route_each_path_has_its_own_whatever_came_first(engine, ran, first):
    rules = [
        {"match": "GET /files/open/**", "exempt": True},
        {"match": "GET /files/shut/**", "block": "no"},
        {"match": "GET /files/read/**", "action_type": "read"},
    ]
    app = inside(Starlette(routes=[Route("/files/{rest:path}", endpoint(ran, "files"))]), rules)
    expected = {
        "/files/open/x": (200, 0),
        "/files/shut/x": (403, 0),
        "/files/read/x": (403, 1),
        "/files/x": (403, 0),
    }
    for path in (first, *expected, *reversed(expected)):
        asked = len(engine.requests)
        assert ((await get(app, path)).status, len(engine.requests) - asked) == expected[path]


async def test_the_handler_finds_the_decision(engine):
    engine.answers = [answer()]
    app, found = inside(FastAPI(), RULES), []

    @app.get("/danger")
    async def danger(request: Request):
        found.append(request.state.ascend)

    assert (await ask(app, "/danger")).status == 200
    assert (found[0].action_id, found[0].outcome, found[0].action.action_type) == ("7", "allowed", "danger")


async def test_called_by_keyword(engine):
    wire = Wire()
    await guard(Handler(), RULES)(scope=http_scope("GET", "/danger"), receive=wire.receive, send=wire.send)
    assert wire.status == 403


async def test_a_server_without_lifespan_and_one_with_it(engine):
    events = []

    async def application(scope, receive, send):
        if scope["type"] != "lifespan":
            await Handler()(scope, receive, send)
            return
        for kind in ("startup", "shutdown"):
            events.append((await receive())["type"])
            await send({"type": f"lifespan.{kind}.complete"})

    app = guard(application, RULES)
    assert (await ask(app)).status == 200
    assert (await ask(app, "/danger")).status == 403
    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, wire.receive, wire.send)
    assert events == ["lifespan.startup", "lifespan.shutdown"]
    assert [message["type"] for message in wire.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (engine.opened, engine.closed) == (1, 1)
    # A request that comes late still gets its decision.
    assert (await ask(app, "/danger")).status == 403


async def test_an_application_that_knows_no_lifespan_says_so(engine):
    async def application(scope, receive, send):
        assert scope["type"] == "http"

    with pytest.raises(AssertionError):
        await guard(application, RULES)({"type": "lifespan"}, None, None)


def test_two_event_loops_in_two_threads(engine, ran):
    engine.answers = [answer()]
    app = inside(Starlette(routes=routes(ran)), RULES)
    statuses = []
    barrier = threading.Barrier(2)

    async def many():
        barrier.wait(5)
        for _ in range(30):
            statuses.extend(wire.status for wire in await asyncio.gather(*(ask(app, "/danger") for _ in range(5))))

    together(*[lambda: asyncio.run(many())] * 2)
    assert (statuses, len(ran), len(engine.submitted)) == ([200] * 300, 300, 300)
    assert engine.opened == 1  # which keeps connections for each loop


def test_one_event_loop_after_another(engine):
    """As in tests and scripts: each loop has connections of its own, and what one left behind harms no other."""
    engine.answers = [answer()]
    app = guard(Starlette(routes=[Route("/danger", endpoint([], "danger"))]), RULES)
    for _ in range(3):
        assert asyncio.run(ask(app, "/danger")).status == 200
    assert (engine.opened, len(engine.submitted)) == (1, 3)


async def test_a_path_forges_no_line_of_the_log(engine, ran, caplog):
    caplog.set_level(logging.INFO)
    app = inside(Starlette(routes=routes(ran)), RULES)
    plain = guard(Handler(), RULES)
    for target in (app, plain):
        for path in ("/x\nERROR forged", "/x\r\x1b[2Jforged", "/x forged"):
            await ask(target, path)
    assert "forged" in caplog.text
    assert all(message.isprintable() for message in (record.getMessage() for record in caplog.records))


class Lead:
    """A middleware of a mounted application that leads its router elsewhere while the path stays."""

    def __init__(self, app, *, root="", host=None):
        self.app = app
        self.root = root
        self.host = host

    async def __call__(self, scope, receive, send):
        headers = [(b"host", self.host)] if self.host else scope["headers"]
        await self.app({**scope, "root_path": scope["root_path"] + self.root, "headers": headers}, receive, send)


def with_a_router_that_rewrites(ran):
    sub = Starlette()
    sub.router = Router(routes=routes(ran), middleware=[Middleware(Rewrite)])
    return sub, "/sub/safe"


def with_a_router_wrapped_by_hand(ran):
    sub = Starlette(routes=routes(ran))
    sub.router.middleware_stack = Rewrite(sub.router.middleware_stack)
    return sub, "/sub/safe"


def with_another_root_path(ran):
    inner = [Route("/safe/danger", endpoint(ran, "safe")), Route("/danger", endpoint(ran, "danger"))]
    return Starlette(routes=inner, middleware=[Middleware(Lead, root="/safe")]), "/sub/safe/danger"


def with_another_host(ran):
    there = Host("admin", app=Router([Route("/safe", endpoint(ran, "danger"))]))
    inner = [there, Route("/safe", endpoint(ran, "safe"))]
    return Starlette(routes=inner, middleware=[Middleware(Lead, host=b"admin")]), "/sub/safe"


@pytest.mark.parametrize(
    "build",
    [with_a_router_that_rewrites, with_a_router_wrapped_by_hand, with_another_root_path, with_another_host],
)
@pytest.mark.parametrize("frame", [Starlette, FastAPI])
async def test_a_mounted_application_leads_nobody_elsewhere(engine, ran, build, frame):
    sub, path = build(ran)
    rules = [*RULES, {"match": "GET /sub/safe/danger", "exempt": True}]
    app = frame(routes=[Mount("/sub", sub)], middleware=[Middleware(AscendMiddleware, **options(rules))])
    for _ in range(2):
        wire = await ask(app, path, headers=[("host", "site")])
        assert (wire.status, ran) == (500, [])


@pytest.mark.parametrize("frame", [Starlette, FastAPI])
@pytest.mark.parametrize("mounted", [Starlette, FastAPI])
async def test_nested_mounts_with_middleware_run_as_they_should(engine, ran, frame, mounted):
    engine.answers = [answer()]
    innermost = mounted(routes=routes(ran), middleware=[Middleware(Lead)])
    sub = mounted(routes=[Mount("/{tenant}", innermost)], middleware=[Middleware(Lead)])
    rule = {"match": "GET /sub/{tenant}/danger", "action_type": "danger", "resource_id": "{path.tenant}"}
    app = frame(
        routes=[Mount("/sub", sub), Mount("/again", sub)],
        middleware=[Middleware(AscendMiddleware, **options([rule, {**rule, "match": "GET /again/{tenant}/danger"}]))],
    )
    for path in ("/sub/a/danger", "/again/b/danger"):
        assert (await ask(app, path, root_path="/base")).status in (200, 403, 404)
        assert (await ask(app, path)).status == 200
    assert {action["resource_id"] for action in engine.submitted} == {"a", "b"}


@pytest.mark.parametrize("build", [added_first, added_last, wrapped, lambda ran: guard(Handler(), RULES)])
async def test_a_scope_of_a_type_that_no_rule_can_govern_is_refused(engine, ran, build):
    wire = Wire()
    with pytest.raises(AscendError, match="webtransport"):
        await wire.through(build(ran), {"type": "webtransport", "path": "/safe", "headers": []})
    assert (wire.sent, ran) == ([], [])


@pytest.mark.parametrize("build", [added_first, wrapped, lambda ran: guard(Handler(), RULES)])
async def test_a_scope_may_have_no_headers(engine, ran, build):
    scope = http_scope("GET", "/danger")
    del scope["headers"]
    wire = await Wire(part()).through(build(ran), scope)
    assert (wire.status, wire.problem, ran) == (403, "denied", [])
