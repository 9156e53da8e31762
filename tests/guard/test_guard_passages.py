"""What was decided about is what runs: once, with the values that were decided, at whatever depth."""

import asyncio
import contextlib
import contextvars
import gc
import sys

import pytest
from fastapi import APIRouter, Depends, FastAPI
from kit import asgi
from kit.asgi import Wire, guard, http_scope, inside, part, shake
from kit.engine import options
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, StringConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.exceptions import AscendError
from ascend_middleware.guard import Agent

pytestmark = pytest.mark.anyio
EVERYTHING = [{"match": "* /**", "action_type": "act"}]


class Passes:
    """A middleware of the usual form."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class Twice(Passes):
    async def __call__(self, scope, receive, send):
        async def silent(message):
            pass

        await self.app(dict(scope), receive, silent)
        await self.app(scope, receive, send)


class Changes(Passes):
    kept = None  # all of the scope

    def __init__(self, app, **changes):
        super().__init__(app)
        self.changes = changes

    async def __call__(self, scope, receive, send):
        kept = {key: value for key, value in scope.items() if self.kept is None or key in self.kept}
        await self.app({**kept, **self.changes}, receive, send)


class OwnScope(Changes):
    """Makes a scope of its own, with nothing in it but what ASGI says."""

    kept = ("type", "method", "path", "root_path", "query_string", "headers", "asgi")


async def started(app):
    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await wire.through(app, {"type": "lifespan", "asgi": {"version": "3.0"}})
    assert wire.sent[0]["type"] == "lifespan.startup.complete"


async def ask(app, path="/sub/x", method="GET"):
    return await asgi.ask(app, path, method, body=b"", headers=())


def noting(ran):
    async def run(request):
        ran.append((request.method, request.url.path, request.path_params))
        return PlainTextResponse("done")

    return run


def sub(ran, kind, *middleware, path="/x"):
    app = kind(middleware=list(middleware))
    app.add_route(path, noting(ran), methods=["GET", "POST"])
    return app


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_a_decision_is_good_for_one_run_below_a_mount(engine, ran, kind):
    app = inside(Starlette(routes=[Mount("/sub", sub(ran, kind, Middleware(Twice)))]), EVERYTHING)
    for runs in (1, 2):
        wire = await ask(app)
        assert (wire.status, wire.problem, len(ran), len(engine.submitted)) == (500, "misconfigured", runs, runs)


def mounted_behind(place, ran, *middleware):
    """A router below a mount, with middleware of the mount itself or of the router."""
    routes = [Route("/x/{id}", noting(ran), methods=["GET", "POST"]), Route("/y", noting(ran), methods=["DELETE"])]
    if place == "mount":
        mount = Mount("/sub", routes=routes, middleware=list(middleware))
    else:
        mount = Mount("/sub", Router(routes, middleware=list(middleware)))
    return inside(Starlette(routes=[mount]), EVERYTHING)


@pytest.mark.parametrize("place", ["mount", "router"])
async def test_what_comes_through_the_middleware_of_a_mount_or_router_is_what_was_decided(engine, ran, place):
    assert (await ask(mounted_behind(place, ran, Middleware(Passes)), "/sub/x/1")).status == 200
    assert (len(ran), engine.submitted[-1]["resource"]) == (1, "GET /sub/x/{id}")
    ran.clear()
    wire = await ask(mounted_behind(place, ran, Middleware(Twice)), "/sub/x/1")
    assert (wire.status, wire.problem, len(ran)) == (500, "misconfigured", 1)
    ran.clear()
    for changes in ({"method": "POST"}, {"method": "DELETE", "path": "/sub/y"}, {"path": "/sub/x/2"}):
        wire = await ask(mounted_behind(place, ran, Middleware(Changes, **changes)), "/sub/x/1")
        assert (wire.status, wire.problem, ran) == (500, "misconfigured", [])


async def test_what_no_route_takes_goes_by_the_outermost_middleware_that_may_answer_it(engine, ran):
    inner = Mount("/in", routes=[Route("/x", noting(ran))], middleware=[Middleware(Passes)])
    app = inside(Starlette(routes=[Mount("/sub", routes=[inner], middleware=[Middleware(Passes)])]), EVERYTHING)
    assert (await ask(app, "/sub/in/nowhere")).status == 404
    assert [action["resource"] for action in engine.submitted] == ["GET /sub/**"]


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_what_no_route_of_a_mounted_application_takes_is_its_own_404(engine, ran, kind):
    app = inside(Starlette(routes=[Mount("/sub", sub(ran, kind, Middleware(Passes)))]), EVERYTHING)
    assert (await ask(app, "/sub/nowhere")).status == 404
    assert engine.submitted == []


@pytest.mark.parametrize("place", ["mount", "router"])
async def test_what_no_route_takes_is_asked_about_where_a_middleware_may_answer_it(engine, ran, place):
    wire = await ask(mounted_behind(place, ran, Middleware(Passes)), "/sub/nowhere")
    assert (wire.status, engine.submitted[-1]["resource"]) == (404, "GET /sub/**")
    wire = await ask(mounted_behind(place, ran, Middleware(Changes, path="/sub/x/1")), "/sub/nowhere")
    assert (wire.status, wire.problem, ran) == (500, "misconfigured", [])


async def test_a_decision_is_good_for_one_run_behind_a_routes_middleware(engine, ran):
    app = inside(Starlette(routes=[Route("/x", noting(ran), middleware=[Middleware(Twice)])]), EVERYTHING)
    assert ((await ask(app, "/x")).status, len(ran)) == (500, 1)


async def test_a_decision_is_good_for_one_run_at_every_depth(engine, ran):
    inner = sub(ran, Starlette, Middleware(Passes))
    outer = Starlette(routes=[Mount("/in", inner)], middleware=[Middleware(Passes)])
    app = inside(Starlette(routes=[Mount("/a", outer), Mount("/b", outer)]), EVERYTHING)
    for path in ("/a/in/x", "/b/in/x", "/a/in/x"):
        assert (await ask(app, path)).status == 200
    assert (len(ran), len(engine.submitted)) == (3, 3)


# Convertors


class Counting(StringConvertor):
    """Gives another value each time."""

    count = 0

    def convert(self, value):
        Counting.count += 1
        return f"{value}{Counting.count}"


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counting, "count", 0)
    monkeypatch.setitem(CONVERTOR_TYPES, "counted", Counting())
    return "/{value:counted}"


def on_the_application(ran, path, kind):
    return sub(ran, kind, path=path), ""


def on_a_mounted_router(ran, path, kind):
    return kind(routes=[Mount("/sub", routes=[Route(path, noting(ran))])]), "/sub"


def on_a_mounted_application(ran, path, kind):
    return kind(routes=[Mount("/sub", sub(ran, kind, path=path))]), "/sub"


def on_a_mount(ran, path, kind):
    return kind(routes=[Mount(f"/sub{path}", sub(ran, kind, path="/x"))]), "/sub"


def included(ran, path, kind):
    app, router, inner = FastAPI(), APIRouter(), APIRouter()

    @inner.get(path)
    async def run(value: str, request: Request):
        ran.append((request.method, request.url.path, request.path_params))

    router.include_router(inner, prefix="/sub")
    app.include_router(router)
    return app, "/sub"


def included_plain(ran, path, kind):
    app, router = FastAPI(), APIRouter()
    router.add_route(path, noting(ran))
    app.include_router(router, prefix="/sub")
    return app, "/sub"


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize(
    "build",
    [on_the_application, on_a_mounted_router, on_a_mounted_application, on_a_mount, included, included_plain],
)
async def test_the_handler_gets_the_values_that_were_decided(engine, ran, counted, build, kind):
    app, prefix = build(ran, counted, kind)
    rules = [{"match": "GET /**", "action_type": "act", "details": {"value": "path.value?"}}]
    app.add_middleware(AscendMiddleware, **options(rules))
    for _ in range(3):
        path = f"{prefix}/v/x" if build is on_a_mount else f"{prefix}/v"
        assert (await ask(app, path)).status == 200
    used = [params["value"] for _, _, params in ran]
    assert used == [action["action_details"]["value"] for action in engine.submitted]
    assert len(set(used)) == 3


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_an_included_router_that_selects_in_its_own_way_runs_as_it_would_without_a_guard(engine, ran, depth):
    class Own(APIRouter):
        async def handle(self, scope, receive, send):
            ran.append("handle")
            await super().handle(scope, receive, send)

    def depends():
        ran.append("dependency")

    router, app, path = Own(), FastAPI(), "/x"
    router.add_api_route("/x", lambda: ran.append("x"), methods=["GET"])
    for number in range(depth):
        outer = app if number == depth - 1 else APIRouter()
        outer.include_router(router, prefix=f"/p{number}", dependencies=[Depends(depends)])
        router, path = outer, f"/p{number}{path}"
    alone = await ask(app, path)
    expected = ran[:]
    ran.clear()
    app.middleware_stack = None
    app.add_middleware(AscendMiddleware, **options(EVERYTHING))
    assert ((await ask(app, path)).body, ran) == (alone.body, expected)
    assert ran[-1] == "x"


# Middleware of a route


def endpoint_class(ran):
    class Endpoint(HTTPEndpoint):
        async def post(self, request):
            ran.append("post")
            return PlainTextResponse("posted")

        async def delete(self, request):
            ran.append("delete")
            return PlainTextResponse("deleted")

    return Endpoint


@pytest.mark.parametrize(
    "changes",
    [{"method": "DELETE"}, {"path": "/items/8"}, {"query_string": b"a=1"}, {"path_params": {"id": "8"}}],
)
async def test_what_comes_to_the_endpoint_is_what_was_decided(engine, ran, changes):
    route = Route("/items/{id}", endpoint_class(ran), middleware=[Middleware(Passes), Middleware(Changes, **changes)])
    app = inside(Starlette(routes=[route, Mount("/sub", routes=[route])]), EVERYTHING)
    for path in ("/items/7", "/sub/items/7"):
        wire = await ask(app, path, "POST")
        assert (wire.status, wire.problem, ran) == (500, "misconfigured", [])


async def test_parameters_changed_in_place_are_not_those_that_were_decided(engine, ran):
    class Mutates(Passes):
        async def __call__(self, scope, receive, send):
            scope["path_params"]["id"] = "8"
            await self.app(scope, receive, send)

    routes = [Route("/items/{id}", noting(ran), methods=["POST"], middleware=[Middleware(Mutates)])]
    app = inside(
        Starlette(routes=[*routes, Mount("/of/{id}", Starlette(routes=routes, middleware=[Middleware(Mutates)]))]),
        EVERYTHING,
    )
    for path in ("/items/7", "/of/7/items/7"):
        wire = await ask(app, path, "POST")
        assert (wire.status, wire.problem, ran) == (500, "misconfigured", [])


async def test_a_route_may_have_a_middleware(engine, ran):
    routes = [
        Route("/function", noting(ran), middleware=[Middleware(Passes)]),
        Route("/class", endpoint_class(ran), middleware=[Middleware(Passes), Middleware(Changes, state={})]),
        WebSocketRoute("/ws", talk, middleware=[Middleware(Passes)]),
    ]
    app = inside(Starlette(routes=routes), EVERYTHING)
    for path, method in (("/function", "GET"), ("/class", "POST")):
        assert (await ask(app, path, method)).status == 200
    assert (await shake(app)).sent[0]["type"] == "websocket.accept"


async def talk(socket):
    await socket.accept()
    await socket.close()


async def test_a_routes_middleware_that_cannot_be_followed_is_refused(engine, ran, caplog):
    class Hides:
        def __init__(self, app):
            self._hidden = app

        async def __call__(self, scope, receive, send):
            await self._hidden({**scope, "method": "DELETE"}, receive, send)

    app = inside(Starlette(routes=[Route("/x", endpoint_class(ran), middleware=[Middleware(Hides)])]), EVERYTHING)
    assert ((await ask(app, "/x", "POST")).status, ran) == (500, [])
    assert "`app`" in caplog.text


class Elsewhere:
    """Keeps its application in another place than `app`, and leads requests to another of its routes."""

    def __init__(self, app):
        self._hidden = app

    async def __call__(self, scope, receive, send):
        await self._hidden({**scope, "path": scope["path"].replace("/open", "/closed")}, receive, send)


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize(
    "place", ["the application", "around the application", "mounted application", "mounted router"]
)
async def test_a_router_behind_a_middleware_that_cannot_be_followed_is_one_unit(engine, ran, place, kind):
    prefix = "/sub" if place.startswith("mounted") else ""

    async def asked(rules):
        routes = [Route(path, noting(ran)) for path in ("/open", "/closed")]
        router, app = Router(routes, middleware=[Middleware(Elsewhere)]), kind()
        if place == "mounted router":
            app.mount("/sub", router)
        elif place == "mounted application":
            app.mount("/sub", inner := kind())
            inner.router = router
        else:
            app.router = router
        if place == "around the application":
            app = guard(app, rules)
        else:
            app.add_middleware(AscendMiddleware, **options(rules))
        return await ask(app, f"{prefix}/open")

    assert (await asked([{"match": f"GET {prefix}/open", "exempt": True}])).problem == "unmapped-route"
    assert (ran, engine.submitted) == ([], [])
    assert (await asked([{"match": f"* {prefix}/**", "action_type": "whole"}])).status == 200
    assert [action["resource"] for action in engine.submitted] == [f"GET {prefix}/**"]
    assert [path for _, path, _ in ran] == [f"{prefix}/closed"]


async def test_a_middleware_that_a_router_gets_later_counts(engine, ran):
    app = inside(
        Starlette(routes=[Route(path, noting(ran)) for path in ("/open", "/closed")]),
        [{"match": "GET /open", "exempt": True}],
    )
    assert (await ask(app, "/open")).status == 200
    app.router.middleware_stack = Elsewhere(app.router.middleware_stack)
    await ask(app, "/open")
    assert [path for _, path, _ in ran] == ["/open"]


async def test_a_scope_of_a_middlewares_own_loses_no_decision(engine, ran):
    for changes, status in (({}, 200), ({"path": "/sub/y"}, 500)):
        mounted = sub(ran, Starlette, Middleware(OwnScope, **changes))
        mounted.add_route("/y", noting(ran))
        app = inside(Starlette(routes=[Mount("/sub", mounted)]), EVERYTHING)
        assert (await ask(app)).status == status
    assert len(ran) == 1


async def test_a_guard_around_an_application_and_scopes_of_a_middlewares_own(engine, ran):
    for changes, status in (({}, 200), ({"path": "/sub/y"}, 500)):
        mounted = sub(ran, Starlette, Middleware(OwnScope, **changes))
        mounted.add_route("/y", noting(ran))
        app = guard(Starlette(routes=[Mount("/sub", mounted)]), EVERYTHING)
        assert (await ask(app)).status == status
    assert len(ran) == 1


# What several applications share


async def test_two_guards_in_a_row_have_places_of_their_own(engine, ran):
    """Each decides, and neither one's decision is asked for where only the other's has to come through."""
    inner = inside(Starlette(routes=[Route("/x", noting(ran), middleware=[Middleware(Passes)])]), EVERYTHING)
    inner.add_middleware(Passes)
    routes = [Mount("/sub", routes=[Mount("/in", inner)], middleware=[Middleware(Passes)])]
    app = inside(Starlette(routes=routes), EVERYTHING)
    assert (await ask(app, "/sub/in/x")).status == 200
    assert len(engine.requests) == 2 and len(ran) == 1


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
async def test_a_shared_application_serves_everybody(engine, ran, kind):
    shared = sub(ran, kind, Middleware(Passes))
    route = Route("/r", noting(ran), middleware=[Middleware(Passes)])

    def factory(*middleware):
        return Starlette(routes=[Mount("/sub", shared), route], middleware=list(middleware))

    guarded = [Middleware(AscendMiddleware, **options(EVERYTHING))]
    first, second, bare = factory(*guarded), factory(*guarded), factory()
    for app in (first, second, bare, first):
        assert [(await ask(app, path)).status for path in ("/sub/x", "/r")] == [200, 200]
    assert (await ask(shared, "/x")).status == 200
    assert (len(ran), len(engine.submitted)) == (9, 6)
    # Guarded applications still see what is changed on the way.
    changing = inside(Starlette(routes=[Mount("/sub", sub(ran, kind, Middleware(Changes, method="POST")))]), EVERYTHING)
    assert (await ask(changing)).status == 500


async def test_applications_that_share_a_router_have_gates_of_their_own(engine, ran):
    first = sub(ran, Starlette, Middleware(Passes))
    second = sub(ran, Starlette, Middleware(Changes, method="POST"))
    second.router = first.router
    app = inside(Starlette(routes=[Mount("/first", first), Mount("/second", second)]), EVERYTHING)
    assert [(await ask(app, path)).status for path in ("/first/x", "/second/x", "/first/x")] == [200, 500, 200]
    assert [path for _, path, _ in ran] == ["/first/x"] * 2


async def test_what_was_changed_on_the_way_to_another_guard_is_not_asked_about(engine, ran):
    inner = inside(sub(ran, Starlette, Middleware(Changes, query_string=b"a=1")), EVERYTHING)
    assert (await ask(inner, "/x")).status == 200
    app = inside(Starlette(routes=[Mount("/sub", inner)]), EVERYTHING)
    assert (await ask(app)).status == 500
    assert (len(engine.submitted), len(ran)) == (2, 1)


async def test_who_needs_a_gate_no_longer_leaves_it_to_those_who_do(engine, ran):
    shared = sub(ran, Starlette, Middleware(Changes, method="POST"))
    before = shared.router.middleware_stack
    first, second = (inside(Starlette(routes=[Mount("/sub", shared)]), EVERYTHING) for _ in range(2))
    for app in (first, second, first):
        assert (await ask(app)).status == 500
    del first
    app = None
    gc.collect()
    assert (await ask(second)).status == 500
    assert ran == []
    del second
    gc.collect()
    assert shared.router.middleware_stack == before


@pytest.mark.parametrize("kept", [True, False])
async def test_an_application_that_is_given_another_router_is_guarded_when_it_is_built_anew(engine, ran, kept):
    app = inside(sub(ran, Starlette), EVERYTHING)
    assert (await ask(app, "/x")).status == 200
    before = app.router if kept else None
    app.router = sub(ran, Starlette).router
    app.middleware_stack = None
    gc.collect()
    assert (before is not None) is kept
    assert (await ask(app, "/x")).status == 200
    assert (len(ran), len(engine.submitted)) == (2, 2)


async def test_many_factories_leave_nothing_behind(engine, ran):
    shared = sub(ran, Starlette, Middleware(Passes))
    shared.router.routes.append(Route("/r", noting(ran), middleware=[Middleware(Passes)]))
    before = shared.router.middleware_stack
    inner = shared.router.routes[-1].app.app

    async def one():
        app = inside(Starlette(routes=[Mount("/sub", shared)]), EVERYTHING)
        assert [(await ask(app, path)).status for path in ("/sub/x", "/sub/r")] == [200, 200]

    for _ in range(3):
        await one()
        gc.collect()
        assert shared.router.middleware_stack == before
        assert shared.router.routes[-1].app.app is inner


async def test_a_guard_around_an_application_governs_what_comes_through_it(engine, ran):
    app = sub(ran, Starlette)
    before = app.router.middleware_stack
    first, second = guard(app, EVERYTHING), guard(app, EVERYTHING)
    for one in (first, second, first):
        assert (await ask(one, "/x")).status == 200
    assert (len(ran), len(engine.submitted)) == (3, 3)
    # Who has the application by itself has no guard, and one that is gone leaves nothing.
    assert (await ask(app, "/x")).status == 200
    assert len(engine.submitted) == 3
    del first, second, one
    gc.collect()
    assert app.router.middleware_stack == before


async def test_a_guard_around_an_application_is_not_lost_with_the_scope(engine, ran):
    app = sub(ran, Starlette, Middleware(OwnScope))
    assert (await ask(guard(app, EVERYTHING), "/x")).status == 200
    assert len(engine.submitted) == 1


class Elsewhen(Passes):
    """Hands requests to somebody who waits for them since before."""

    async def __call__(self, scope, receive, send):
        await asyncio.create_task(self.app(scope, receive, send), context=contextvars.Context())


async def test_a_guard_around_an_application_is_not_lost_with_the_context(engine, ran):
    app = sub(ran, Starlette, Middleware(Elsewhen))
    assert (await ask(guard(app, EVERYTHING), "/x")).status == 200
    assert len(engine.submitted) == 1


def test_an_application_may_have_a_router_where_nobody_uses_starlette(engine, monkeypatch):
    class Own:
        router = object()

        async def __call__(self, scope, receive, send): ...

    monkeypatch.delitem(sys.modules, "starlette.routing")
    assert guard(Own(), EVERYTHING).guard is not None


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, 1),
        ({"agent_id": "other"}, 2),
        ({"rules": {"rule": EVERYTHING}}, 2),
        ({"identify": lambda scope: Agent("bot")}, 2),
    ],
    ids=["alike", "settings", "rules", "identify"],
)
async def test_each_middleware_decides_unless_another_is_made_of_the_same(engine, ran, changes, asked):
    app = sub(ran, Starlette)
    given = options(EVERYTHING)
    for more in ({}, changes):
        app.add_middleware(AscendMiddleware, **{**given, **more})
    assert (await ask(app, "/x")).status == 200
    assert (len(ran), len(engine.submitted)) == (1, asked)


# Successes for which nothing was decided


async def answers_itself(request, error):
    return PlainTextResponse("made here", 200)


class Fallback(Passes):
    """Answers where nothing else did."""

    async def __call__(self, scope, receive, send):
        found = []

        async def look(message):
            if scope["type"] == "lifespan":
                await send(message)
            else:
                found.append(message)

        await self.app(scope, receive, look)
        if found and found[0].get("status") == 404:
            await PlainTextResponse("made here")(scope, receive, send)
        else:
            for message in found:
                await send(message)


def with_a_404_handler(kind, **settings):
    return inside(kind(exception_handlers={404: answers_itself}), EVERYTHING, **settings)


def with_a_405_handler(kind, **settings):
    app = kind(exception_handlers={405: answers_itself})
    app.add_route("/nothing", noting([]), methods=["POST"])
    app.add_middleware(AscendMiddleware, **options(EVERYTHING, **settings))
    return app


def with_a_fallback_inside(kind, **settings):
    return kind(middleware=[Middleware(AscendMiddleware, **options(EVERYTHING, **settings)), Middleware(Fallback)])


def with_a_handler_for_http_exceptions(kind, **settings):
    app = kind(exception_handlers={HTTPException: answers_itself})
    return guard(app, EVERYTHING, **settings)


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize(
    "build",
    [with_a_404_handler, with_a_405_handler, with_a_fallback_inside, with_a_handler_for_http_exceptions],
)
async def test_what_answers_in_the_place_of_a_404_trips_the_wire(engine, caplog, kind, build):
    assert (await ask(build(kind), "/nothing")).status == 200
    assert caplog.text.count("without a decision") == 1
    wire = Wire(part())
    with pytest.raises(AscendError, match="no decision"):
        await wire.through(build(kind, strict=True), http_scope("GET", "/nothing"))
    assert wire.sent == [] or wire.status == 500


@pytest.mark.parametrize(("status", "told"), [(200, True), (299, True), (300, False), (404, False)])
async def test_only_successes_trip_the_wire(engine, caplog, status, told):
    async def page(request, error):
        return PlainTextResponse("page", status)

    app = inside(Starlette(exception_handlers={404: page}), EVERYTHING, strict=not told)
    assert (await ask(app, "/nothing")).status == status
    assert ("without a decision" in caplog.text) is told


class AnswersItself(Passes):
    async def __call__(self, scope, receive, send):
        inner = self.app if scope["type"] == "lifespan" else PlainTextResponse("made here")
        await inner(scope, receive, send)


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize(("outside", "why"), [(Fallback, "no route"), (AnswersItself, "a middleware answered")])
async def test_a_middleware_that_was_added_after_the_guard_trips_the_wire(engine, caplog, kind, outside, why):
    for strict, status in ((False, 200), (True, 500)):
        app = inside(kind(), EVERYTHING, strict=strict)
        app.add_middleware(outside)
        await started(app)
        caplog.clear()
        wire = Wire(part())
        with pytest.raises(AscendError, match="no decision") if strict else contextlib.nullcontext():
            await wire.through(app, http_scope("GET", "/nothing"))
        assert (wire.status, caplog.text.count(f"without a decision: {why}")) == (status, 1)


async def test_the_wire_knows_what_was_decided_where_a_middleware_makes_a_scope_of_its_own(engine, ran, caplog):
    app = inside(sub(ran, Starlette), EVERYTHING, strict=True)
    app.add_middleware(OwnScope)
    await started(app)
    assert (await ask(app, "/x")).status == 200
    assert "without a decision" not in caplog.text


async def test_a_bare_router_mounted_elsewhere_stays_transparent(engine, ran, counted):
    router = Router(routes=[Route(counted, noting(ran))])
    rules = [{"match": "GET /sub/{value}", "action_type": "act"}, {"match": "GET /other/{value}", "action_type": "act"}]
    app = inside(Starlette(routes=[Mount("/sub", router), Mount("/other", router)]), rules)
    for path in ("/sub/a", "/other/a", "/sub/a"):
        assert (await ask(app, path)).status == 200
    assert len(ran) == 3


async def test_a_mounted_application_may_also_start_by_itself(engine, ran):
    """Where a guard has put a gate into it."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        ran.append("started")
        yield
        ran.append("ended")

    async def run(request):
        ran.append("ran")
        return PlainTextResponse("done")

    inner = Starlette(routes=[Route("/x", run)], middleware=[Middleware(Passes)], lifespan=lifespan)
    app = inside(Starlette(routes=[Mount("/m", inner)]), [{"match": "GET /m/x", "action_type": "act"}])
    assert (await asgi.get(app, "/m/x")).status == 200
    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await inner({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, wire.receive, wire.send)
    assert ran == ["ran", "started", "ended"]
    assert [message["type"] for message in wire.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
