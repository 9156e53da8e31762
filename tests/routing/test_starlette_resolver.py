"""The resolver says what the frameworks do: random route tables are served for real, and the two answers compared."""

import asyncio
import copy
import random
import re

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, StringConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute, compile_path
from starlette.staticfiles import StaticFiles

from ascend_middleware.routing import Kind
from ascend_middleware.routing.starlette import StarletteResolver
from ascend_middleware.rules import declare


def scope(path, method="GET", *, root="", host="x", kind="http"):
    made = {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root,
        "query_string": b"",
        "headers": [(b"host", host.encode())],
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "server": ("x", 80),
        "client": ("c", 1),
        "extensions": {},
        "subprotocols": [],
        "state": {},
    }
    if kind == "http":
        made["method"] = method
    return made


def endpoint(name):
    async def run(request: Request):
        return PlainTextResponse(repr(sorted(request.path_params.items())), headers={"x-handler": name})

    run.__name__ = name
    return run


def socket(name):
    async def run(websocket):
        await websocket.accept(headers=[(b"x-handler", name.encode())])
        await websocket.close()

    run.__name__ = name
    return run


def serve(app, request):
    """Return (status, handler or None, body) of one request."""
    sent = []
    inbox = [{"type": "websocket.connect"}] if request["type"] == "websocket" else []

    async def receive():
        return inbox.pop() if inbox else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    async def go():
        await app(request, receive, send)

    asyncio.run(go())
    first = sent[0]
    handler = dict(first.get("headers") or []).get(b"x-handler")
    status = first.get("status", {"websocket.accept": 101, "websocket.close": 403}.get(first["type"]))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return status, handler.decode() if handler else None, body.decode()


def check(app, resolver, request):
    before = copy.deepcopy({key: value for key, value in request.items() if key != "app"})
    entered = dict(request)
    if getattr(app, "root_path", ""):
        entered["root_path"] = app.root_path
    resolved = resolver.resolve(entered)
    assert {key: value for key, value in request.items() if key != "app"} == before
    status, handler, body = serve(app, request)
    shown = (request["path"], request.get("method"), entered["root_path"], resolved, status, handler)
    if handler is not None:
        assert resolved.kind is Kind.ROUTE, shown
        assert resolved.leaf.endpoint.rsplit(":", 1)[-1] == handler, shown
        if status == 200:
            assert repr(sorted(resolved.params.items())) == body, shown
        return
    assert resolved.leaf is None, shown
    expected = {404: Kind.NOT_FOUND, 403: Kind.NOT_FOUND, 405: Kind.METHOD_NOT_ALLOWED, 307: Kind.REDIRECT}
    assert resolved.kind is expected[status], shown


TEMPLATES = [
    *("/", "/a", "/a/", "/a/{x}", "/a/{x:int}", "/a/b", "/{t}/b", "/{t}", "/a{x}", "/a/{p:path}", "/a/{x}/c", "/f.{e}"),
    *("/{p:path}", "/a/{x:uuid}", "/a/{x:float}", "/a/b.{fmt}", "/{x:str}/d"),
]
PATHS = [
    *("/", "/a", "/a/", "/a/1", "/a/b", "/z/b", "/z", "/ab", "/a/x/y/c", "/a/1/c", "/f.txt", "/a/b\n", "/a//", "//a"),
    *("/a/b.json", "/A", "/a/1\n", "/q/a/1", "/q/m/a", "/m", "/m/", "/m/a/1", "/q/m", "/a/1.5", "/m\n", "/q/m/\n"),
    *("/q", "/q/q/a", "/a/m/a/7", "/k/d", "/s/a/2", "/s/s/a/2"),
]


def random_app(rnd):
    names = (f"h{number}" for number in range(10_000))
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    sub, deep = APIRouter(), APIRouter()
    for template in rnd.sample(TEMPLATES, 7):
        where, name = rnd.choice([app, app, sub, deep]), next(names)
        way = rnd.randrange(5)
        if way == 0:
            where.add_api_route(template, endpoint(name), methods=["GET"])
        elif way == 1:
            where.add_api_route(template, endpoint(name), methods=["POST", "PUT"])
        elif way == 2:
            where.add_route(template, endpoint(name))
        elif way == 3:
            where.add_route(template, endpoint(name), methods=["POST"])
        else:
            getattr(where, "router", where).add_websocket_route(template, socket(name))
    if rnd.random() < 0.5:
        sub.mount("/m", Starlette(routes=[Route("/a/{x}", endpoint(next(names)))]))
    if rnd.random() < 0.4:
        child = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        child.root_path = rnd.choice(["", "/s", "/q"])  # its argument is deprecated, what it does is not
        child.add_api_route("/a/{y}", endpoint(next(names)), methods=["GET"])
        app.mount("/s", child)
    if rnd.random() < 0.3:
        app.mount("/m", Router([Route("/a/{y:int}", endpoint(next(names))), Route("/", endpoint(next(names)))]))
    if rnd.random() < 0.3:
        app.host("{sub}.x", Router([Route("/a/{z}", endpoint(next(names)))]))
    if rnd.random() < 0.2:
        app.mount("", Starlette(routes=[Route("/z", endpoint(next(names)))]))
    sub.include_router(deep, prefix=rnd.choice(["/q", "/{z}"]))
    app.include_router(sub, prefix=rnd.choice(["/q", "/a", "/{q}"]))
    return app, sub, deep, names


@pytest.mark.parametrize("seed", range(40))
def test_random_applications_run_what_was_resolved(seed):
    rnd = random.Random(seed)
    app, sub, deep, names = random_app(rnd)
    resolver = StarletteResolver(app)
    for phase in range(3):
        if phase == 1:
            late = rnd.choice([app.router, sub, deep])
            late.add_api_route("/a/late", endpoint(next(names)))
            late.routes.insert(0, late.routes.pop())
            getattr(late, "_mark_routes_changed", lambda: None)()
        if phase == 2:
            if rnd.random() < 0.5:
                app.router.routes = [Route("/a/{x}", endpoint(next(names))), *app.router.routes[::-1]]
            else:
                app.router.routes[0] = Route("/{x}", endpoint(next(names)))
        for path in rnd.sample(PATHS, 16):
            kind = "websocket" if rnd.random() < 0.2 else "http"
            root = rnd.choice(["", "", "/q", "/a"])
            method = rnd.choice(["GET", "POST", "HEAD", "OPTIONS", "get", "FOO"])
            host = rnd.choice(["x", "x", "h.x", "h.x:80"])
            check(app, resolver, scope(path, method, root=root, host=host, kind=kind))


def one(app, path, method="GET", **more):
    return StarletteResolver(app).resolve(scope(path, method, **more))


def test_an_equal_route_replaced_in_place_is_noticed():
    run = endpoint("h")
    app = Starlette(routes=[Route("/a", run, name="one")])
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/a")).leaf.endpoint == "one"
    app.router.routes[0] = Route("/a", run, name="two")
    assert app.router.routes[0] == Route("/a", run, name="one")
    assert resolver.resolve(scope("/a")).leaf.endpoint == "two"


def test_a_route_changed_in_place_is_noticed():
    route = Route("/a", endpoint("h"))
    app = Starlette(routes=[Route("/z", endpoint("z")), route])
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/b")).kind is Kind.NOT_FOUND
    route.path = "/b"
    route.path_regex, route.path_format, route.param_convertors = compile_path("/b")
    assert resolver.resolve(scope("/b")).leaf.template == "/b"
    route.methods = {"POST"}
    assert resolver.resolve(scope("/b")).kind is Kind.METHOD_NOT_ALLOWED
    assert resolver.resolve(scope("/b", "POST")).leaf.methods == {"POST"}


def taken_by_its_expression(routes, place):
    routes[place].path_regex = re.compile("^/3/(?P<x>.*)$")


def taken_by_another(routes, place):
    routes[place] = Route("/3/{x}", endpoint("other"))


def taken_by_one_more(routes, place):
    routes.insert(place, Route("/3/{x}", endpoint("more")))


def turned(routes, place):
    routes[place], routes[place + 1] = routes[place + 1], routes[place]


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("change", [taken_by_its_expression, taken_by_another, taken_by_one_more, turned])
@pytest.mark.parametrize("count", [8, 24])
def test_whatever_changes_among_the_routes_the_first_that_takes_a_path_runs(change, place, count):
    app = Starlette(routes=[Route(f"/{number}/{{x}}", endpoint(str(number))) for number in range(count)])
    resolver = StarletteResolver(app)
    for _ in range(3):
        check(app, resolver, scope("/3/a"))
        check(app, resolver, scope("/7/a"))
    change(app.router.routes, place)
    for path in ("/3/a", "/3/b", "/7/a", "/7/b", "/4/b", "/9/b"):
        check(app, resolver, scope(path))


def test_an_application_remounted_in_place_is_noticed():
    mount = Mount("/m", app=Starlette(routes=[Route("/x", endpoint("one"))]))
    app = Starlette(routes=[mount])
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/m/x")).leaf.endpoint == "one"
    mount.app = Starlette(routes=[Route("/x", endpoint("two"))])
    assert resolver.resolve(scope("/m/x")).leaf.endpoint == "two"
    mount.app.router = Router([Route("/x", endpoint("three"))])
    assert resolver.resolve(scope("/m/x")).leaf.endpoint == "three"


def test_a_leaf_stays_the_same_object_while_other_routes_come_and_go():
    app = Starlette(routes=[Route("/a", endpoint("a"))])
    resolver = StarletteResolver(app)
    leaf = resolver.resolve(scope("/a")).leaf
    app.router.routes.insert(0, Route("/b", endpoint("b")))
    assert resolver.resolve(scope("/a")).leaf is leaf
    app.router.routes.append(Route("/c", endpoint("c")))
    assert resolver.resolve(scope("/c")).leaf.endpoint == "c"
    app.router.routes.pop()
    assert resolver.resolve(scope("/c")).kind is Kind.NOT_FOUND


def test_a_case_insensitive_route_matches_by_its_own_expression():
    route = Route("/Admin", endpoint("h"))
    route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    assert one(Starlette(routes=[route]), "/aDMIN").leaf.template == "/Admin"


class Everything(BaseRoute):
    def matches(self, scope):
        scope["path"] = "/scribbled"
        return Match.FULL, {}


class Gentle(Route):
    async def handle(self, scope, receive, send):
        await self.app(scope, receive, send)


class Loose(APIRoute):
    def matches(self, scope):
        return super().matches({**scope, "path": scope["path"].lower()})


class Wrapped(Starlette):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)


async def foreign(scope, receive, send): ...


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


def test_a_route_class_of_somebody_elses_is_one_opaque_unit():
    request = scope("/any")
    resolved = StarletteResolver(Starlette(routes=[Everything()])).resolve(request)
    assert (resolved.kind, resolved.leaf.template, request["path"]) == (Kind.OPAQUE, "/**", "/any")


def test_a_match_that_adds_nothing_leaves_the_parameters_that_were_there():
    class Silent(BaseRoute):
        def matches(self, scope):
            return Match.FULL, {}

    request = {**scope("/any"), "path_params": {"tenant": "t"}}
    assert StarletteResolver(Starlette(routes=[Silent()])).resolve(request).params == {"tenant": "t"}


def test_a_route_that_handles_a_partial_match_itself_runs():
    resolver = StarletteResolver(Starlette(routes=[Gentle("/a", endpoint("h")), Gentle("/{x}", endpoint("later"))]))
    for _ in range(4):
        resolved = resolver.resolve(scope("/a", "POST"))
        assert (resolved.kind, resolved.leaf.endpoint, resolved.route.match[0]) == (Kind.ROUTE, "h", Match.PARTIAL)
    assert one(Starlette(routes=[Route("/a", endpoint("h"))]), "/a", "POST").kind is Kind.METHOD_NOT_ALLOWED


def test_a_match_that_was_put_onto_one_route_is_asked():
    route = Route("/x", endpoint("x"))
    route.matches = lambda scope: (Match.FULL, {"endpoint": route.endpoint})
    assert one(Starlette(routes=[route]), "/elsewhere").leaf.template == "/x"


def test_an_included_route_with_a_match_of_its_own_is_asked():
    router = APIRouter(route_class=Loose)
    router.add_api_route("/run", endpoint("h"), methods=["POST"])
    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/api")
    assert one(app, "/API/run", "POST").leaf.template == "/api/run"


def test_one_router_under_two_prefixes_is_two_leaves():
    shared = APIRouter()
    shared.add_api_route("/run", endpoint("run"), methods=["POST"])
    app = FastAPI(openapi_url=None)
    app.include_router(shared, prefix="/open")
    app.include_router(shared, prefix="/admin")
    resolver = StarletteResolver(app)
    leaves = [resolver.resolve(scope(path, "POST")).leaf for path in ("/open/run", "/admin/run")]
    assert [leaf.template for leaf in leaves] == ["/open/run", "/admin/run"]


def test_mounts_and_hosts(tmp_path):
    (tmp_path / "f.txt").write_text("x")
    inner = Starlette(routes=[Route("/danger/{id:int}", endpoint("danger")), Route("/", endpoint("root"))])
    app = Starlette(
        routes=[
            Host("admin.x", Router([Route("/pay/{id:int}", endpoint("pay"))]), name="adm"),
            Mount("/sub", inner, name="sub"),
            Mount("/static", StaticFiles(directory=tmp_path), name="files"),
            Mount("/legacy", foreign),
            Mount("/own", Wrapped(routes=[Route("/x", endpoint("x"))])),
            Mount("/mid", routes=[Route("/x", endpoint("x"))], middleware=[Middleware(Passing)]),
            Mount("/t/{tenant:str}", routes=[Route("/x/{p:path}", endpoint("x")), WebSocketRoute("/w", socket("w"))]),
        ]
    )
    foreigner = one(Starlette(routes=[Host("admin.x", foreign)]), "/any", host="admin.x")
    assert (foreigner.kind, foreigner.leaf.host) == (Kind.OPAQUE, "admin.x")
    danger = one(app, "/sub/danger/7")
    assert (danger.leaf.template, danger.leaf.endpoint, danger.params) == (
        "/sub/danger/{id:int}",
        "sub:danger",
        {"id": 7},
    )
    assert danger.path == "/sub/danger/7"
    assert one(app, "/sub/").leaf.template == "/sub/"
    assert one(app, "/sub").kind is Kind.REDIRECT
    pay = one(app, "/pay/3", host="admin.x:80")
    assert (pay.leaf.host, pay.leaf.template, pay.leaf.endpoint) == ("admin.x", "/pay/{id:int}", "adm:pay")
    for path, kind in (
        ("/static/f.txt", Kind.STATIC),
        ("/legacy/any", Kind.OPAQUE),
        ("/own/x", Kind.OPAQUE),
        ("/mid/x", Kind.OPAQUE),
    ):
        resolved = one(app, path, "FOO")
        assert (resolved.kind, resolved.leaf.template) == (kind, path[: path.index("/", 1)] + "/**")
    assert one(app, "/static/f.txt").leaf.endpoint == "files"
    tenant = one(app, "/t/acme/x/y/z")
    assert (tenant.leaf.template, tenant.params) == ("/t/{tenant}/x/{p:path}", {"tenant": "acme", "p": "y/z"})
    assert one(app, "/t/acme/w", kind="websocket").leaf.websocket
    assert one(app, "/t/acme/w").kind is Kind.NOT_FOUND


class Impure(StringConvertor):
    """Somebody's convertor: it may give another value each time."""


def test_only_what_may_change_a_request_is_looked_at_again(monkeypatch):
    monkeypatch.setitem(CONVERTOR_TYPES, "impure", Impure())

    def entered(app, path="/m/x"):
        return [place.owner for place in one(Starlette(routes=[Mount("/m", app)]), path).entered]

    plain, impure = [Route("/x", endpoint("x"))], [Route("/{x:impure}", endpoint("x"))]
    behind = Router(plain, middleware=[Middleware(Passing)])
    own = Starlette(routes=plain, middleware=[Middleware(Passing)])
    assert entered(Router(plain)) == entered(Starlette(routes=plain)) == []
    assert entered(behind) == [behind]
    assert entered(own) == [own]
    router = Router(impure)
    assert entered(router) == [router]
    assert entered(Router([Mount("/in", behind)]), path="/m/in/x") == [behind]
    # What no route takes, the middleware of a router may answer.
    for app, kind in ((Router(plain), Kind.NOT_FOUND), (behind, Kind.OPAQUE)):
        assert one(Starlette(routes=[Mount("/m", app)]), "/m/none").kind is kind
    inside = [Route("/x", endpoint("x"), middleware=[Middleware(Passing)]), Route("/x", endpoint("x"))]
    inside.append(Gentle("/x", endpoint("x"), middleware=[Middleware(Passing)]))  # nobody knows what it runs
    for route, owners in zip(inside, ([inside[0]], [], []), strict=True):
        assert [place.owner for place in one(Starlette(routes=[route]), "/x").entered] == owners


class Choosing(APIRouter):
    """Selects among its routes in its own way, also where it is included."""

    async def handle(self, scope, receive, send):
        await PlainTextResponse("chosen", headers={"x-handler": "chosen"})(scope, receive, send)


@pytest.mark.skipif(not hasattr(fastapi.routing, "_IncludedRouter"), reason="this FastAPI copies the included routes")
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_included_router_that_selects_in_its_own_way_is_opaque(depth):
    router = Choosing()
    router.add_api_route("/x", endpoint("x"), methods=["GET"])
    app = FastAPI(openapi_url=None)
    for number in range(depth):
        outer = app if number == depth - 1 else APIRouter()
        outer.include_router(router, prefix=f"/p{number}")
        router = outer
    app.add_api_route("/last", endpoint("last"), methods=["GET"])
    path = "/" + "/".join(f"p{number}" for number in reversed(range(depth))) + "/x"
    resolver = StarletteResolver(app)
    assert (resolver.resolve(scope(path)).kind, resolver.resolve(scope(path)).leaf.template) == (Kind.OPAQUE, "/**")
    assert resolver.resolve(scope("/last")).leaf.endpoint == "last"
    assert [leaf.kind for leaf in resolver.leaves()] == [Kind.OPAQUE, Kind.ROUTE]
    assert serve(app, scope(path))[1] == "chosen"


class Class(HTTPEndpoint):
    async def get(self, request): ...


def test_an_endpoint_class_gets_every_method():
    app = Starlette(routes=[Route("/c", Class)])
    for method in ("GET", "FOO"):
        assert one(app, "/c", method).leaf.template == "/c"


def test_an_endpoint_class_may_have_a_rule_for_each_method():
    class Parts(HTTPEndpoint):
        def get(self, request): ...

        def post(self, request): ...

    for name in ("get", "post"):
        declare(getattr(Parts, name), {"action_type": name})
    found = one(Starlette(routes=[Route("/c", Parts)]), "/c").leaf.declared
    assert {(*each.methods, each.given["action_type"]) for each in found} == {("GET", "get"), ("POST", "post")}


def test_a_default_application_is_opaque_after_the_redirect():
    app = Starlette(routes=[Route("/a/", endpoint("a"))])
    app.router.default = foreign
    assert one(app, "/a").kind is Kind.REDIRECT
    assert (one(app, "/b").kind, one(app, "/b").leaf.app) == (Kind.OPAQUE, foreign)


def test_a_frontend_comes_last_and_is_static(tmp_path):
    (tmp_path / "index.html").write_text("x")
    app = FastAPI(openapi_url=None)
    if not hasattr(app, "frontend"):
        pytest.skip("this FastAPI has no frontend()")
    router = APIRouter()
    router.frontend("/deep", directory=tmp_path)
    app.frontend("/ui", directory=tmp_path)
    app.frontend("/ui/inner", directory=tmp_path)
    app.include_router(router, prefix="/in")
    app.add_api_route("/ui/api", endpoint("api"))
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/ui/api")).leaf.endpoint == "api"
    assert resolver.resolve(scope("/ui/x/../y")).leaf.template == "/ui/**"
    assert resolver.resolve(scope("/ui/inner/y")).leaf.template == "/ui/inner/**"
    assert resolver.resolve(scope("/ui/innermost")).leaf.template == "/ui/**"
    assert resolver.resolve(scope("/in/deep/x")).leaf.template == "/in/deep/**"
    assert resolver.resolve(scope("/in/deep/x")).leaf.kind is Kind.STATIC
    assert resolver.resolve(scope("/ui/x", "POST")).kind is Kind.METHOD_NOT_ALLOWED
    assert serve(app, scope("/ui/x", "POST"))[0] in (404, 405)
    assert [leaf.template for leaf in resolver.leaves()] == ["/ui/api", "/ui/**", "/ui/inner/**", "/in/deep/**"]
    assert resolver.leaves()[1] is resolver.resolve(scope("/ui/z")).leaf


def test_leaves_lists_what_can_run():
    inner = Starlette(routes=[Route("/x", endpoint("x"))])
    app = Starlette(
        routes=[
            Route("/a", endpoint("a")),
            Mount("/in", inner, name="in"),
            Mount("/again", inner),
            Mount("/f", foreign),
        ]
    )
    resolver = StarletteResolver(app)
    listed = [(leaf.template, leaf.endpoint, leaf.kind) for leaf in resolver.leaves()]
    assert listed == [
        ("/a", "a", Kind.ROUTE),
        ("/in/x", "in:x", Kind.ROUTE),
        ("/again/x", "x", Kind.ROUTE),
        ("/f/**", None, Kind.OPAQUE),
    ]
    assert resolver.resolve(scope("/in/x")).leaf in resolver.leaves()


def test_an_application_mounted_in_itself_ends():
    app = Starlette(routes=[Route("/a", endpoint("a"))])
    app.router.routes.append(Host("loop", app))
    app.mount("/again", app)
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/again/again/a")).leaf.template == "/again/again/a"
    assert resolver.resolve(scope("/nope", host="loop")).kind is Kind.OPAQUE
    assert len(resolver.leaves()) == 3


def test_a_router_that_routes_in_its_own_way_is_opaque():
    class Own(Router):
        async def app(self, scope, receive, send): ...

    assert one(Starlette(routes=[Mount("/m", Own([Route("/x", endpoint("x"))]))]), "/m/x").leaf.template == "/m/**"
    replaced = Router([Route("/x", endpoint("x"))])
    replaced.app = replaced.middleware_stack = Router([Route("/x", endpoint("other"))]).app
    assert one(Starlette(routes=[Mount("/m", replaced)]), "/m/x").leaf.template == "/m/**"


def test_a_mounted_application_without_a_known_router_is_opaque():
    odd = Starlette()
    odd.router = foreign
    resolver = StarletteResolver(Starlette(routes=[Mount("/m", odd)]))
    for _ in range(2):
        assert resolver.resolve(scope("/m/x")).leaf.template == "/m/**"
    assert [leaf.kind for leaf in resolver.leaves()] == [Kind.OPAQUE]


def test_another_router_of_the_same_routes_is_noticed():
    app = Starlette(routes=[Route("/a", endpoint("a"))])
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/b")).kind is Kind.NOT_FOUND
    app.router = Router(app.routes, default=foreign)
    assert resolver.resolve(scope("/b")).kind is Kind.OPAQUE
    app.router = Router(app.routes)
    assert resolver.resolve(scope("/b")).kind is Kind.NOT_FOUND
    app.router.middleware_stack = foreign
    assert resolver.resolve(scope("/a")).kind is Kind.OPAQUE


class ByHeader(Route):
    def matches(self, scope):
        return super().matches(scope) if (b"x-open", b"1") in scope["headers"] else (Match.NONE, {})


def test_a_route_that_looks_at_more_than_the_path_is_asked_each_time():
    resolver = StarletteResolver(Starlette(routes=[ByHeader("/a", endpoint("a"))]))
    opened = scope("/a")
    opened["headers"].append((b"x-open", b"1"))
    assert [resolver.resolve(opened).kind for _ in range(4)] == [Kind.ROUTE] * 4
    assert resolver.resolve(scope("/a")).kind is Kind.NOT_FOUND


class Telling(Route):
    def matches(self, scope):
        scope["tenant"] = "seven"
        return super().matches(scope)


def test_what_a_match_writes_into_its_request_goes_on_to_the_handler_alone():
    asked = scope("/a")
    resolved = StarletteResolver(Starlette(routes=[Telling("/a", endpoint("a"))])).resolve(asked)
    assert resolved.route.match[1]["tenant"] == "seven"
    assert "tenant" not in asked


def with_an_included_router():
    """Return a router that an application includes at /p, the application, and what resolves its requests."""
    router = APIRouter()
    router.add_api_route("/x", endpoint("x"), methods=["GET"])
    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/p")
    resolver = StarletteResolver(app)
    assert resolver.resolve(scope("/p/x")).kind is Kind.ROUTE
    return router, app, resolver


@pytest.mark.skipif(not hasattr(fastapi.routing, "_IncludedRouter"), reason="this FastAPI copies the included routes")
def test_an_inclusion_of_somebody_elses_class_is_opaque():
    class Own(fastapi.routing._IncludedRouter):
        async def handle(self, scope, receive, send): ...

    _, app, resolver = with_an_included_router()
    (included,) = app.routes
    own = object.__new__(Own)
    vars(own).update(vars(included))
    app.router.routes[0] = own
    for method in ("GET", "POST"):
        resolved = resolver.resolve(scope("/p/x", method))
        assert (resolved.kind, resolved.leaf.template) == (Kind.OPAQUE, "/**")


@pytest.mark.parametrize(
    ("path", "kind"), [("/api", Kind.NOT_FOUND), ("/api/a", Kind.ROUTE), ("/apia", Kind.NOT_FOUND), ("/a", Kind.ROUTE)]
)
def test_a_root_path_ends_at_a_slash(path, kind):
    assert one(Starlette(routes=[Route("/a", endpoint("a"))]), path, root="/api").kind is kind


@pytest.mark.parametrize("dispatch", [True, False])
def test_an_endpoint_that_is_no_class_of_starlettes_takes_every_method(dispatch):
    class Plain:
        """Answers as an ASGI application does."""

        def __init__(self, scope, receive, send): ...

        async def get(self, request): ...

    if dispatch:
        Plain.__init__ = HTTPEndpoint.__init__
        Plain.dispatch = HTTPEndpoint.dispatch
        Plain.method_not_allowed = HTTPEndpoint.method_not_allowed
    assert one(Starlette(routes=[Route("/c", Plain)]), "/c", "FOO").leaf.methods is None


def test_a_route_called_otherwise_in_place_is_listed_so():
    route = Route("/a", endpoint("h"), name="one")
    resolver = StarletteResolver(Starlette(routes=[route]))
    assert [leaf.endpoint for leaf in resolver.leaves()] == ["one"]
    route.name = "two"
    assert [leaf.endpoint for leaf in resolver.leaves()] == ["two"]


def test_what_is_added_to_an_included_router_runs_as_it_is_resolved():
    router, app, resolver = with_an_included_router()
    router.add_api_route("/y", endpoint("y"), methods=["GET"])
    served = serve(app, scope("/p/y"))[1] == "y"
    assert (resolver.resolve(scope("/p/y")).kind is Kind.ROUTE) is served


def test_a_path_that_a_socket_has_as_well_is_known_each_time():
    resolver = StarletteResolver(Starlette(routes=[WebSocketRoute("/a", socket("s")), Route("/a", endpoint("a"))]))
    assert [resolver.resolve(scope("/a")).leaf.websocket for _ in range(4)] == [False] * 4
    assert [resolver.resolve(scope("/a", kind="websocket")).leaf.websocket for _ in range(4)] == [True] * 4


def test_a_route_whose_path_is_none_is_one_unit():
    route = Route("/a", endpoint("a"))
    route.path = "a"
    assert one(Starlette(routes=[route]), "/a").kind is Kind.OPAQUE
    route.path = ""
    assert (one(Starlette(routes=[route]), "/a").kind, one(Starlette(routes=[route]), "/a").leaf.template) == (
        Kind.ROUTE,
        "",
    )


class OwnMount(Mount):
    async def handle(self, scope, receive, send): ...


def test_a_mount_that_runs_its_application_in_its_own_way_is_opaque(tmp_path):
    for app in (Router([Route("/x", endpoint("x"))]), StaticFiles(directory=tmp_path)):
        resolved = one(Starlette(routes=[OwnMount("/m", app)]), "/m/x")
        assert (resolved.kind, resolved.leaf.template) == (Kind.OPAQUE, "/m/**")
    assert one(Starlette(routes=[Mount("/m", StaticFiles(directory=tmp_path))]), "/m/x").kind is Kind.STATIC


def test_only_fastapi_has_a_root_path_of_its_own():
    inner = Starlette(routes=[Route("/x", endpoint("x"))])
    inner.root_path = "/odd"
    assert one(Starlette(routes=[Mount("/m", inner)]), "/m/x").leaf.template == "/m/x"


class OwnRouter(Router):
    async def __call__(self, scope, receive, send): ...


class Hidden:
    """Keeps its application elsewhere than in `app`."""

    def __init__(self, app):
        self.inner = app


def test_a_mounted_router_that_cannot_be_followed_is_one_unit():
    routes = [Route("/x", endpoint("x"))]
    for app in (OwnRouter(routes), Router(routes, middleware=[Middleware(Hidden)])):
        assert one(Starlette(routes=[Mount("/m", app)]), "/m/x").leaf.template == "/m/**"


class OwnStack(Starlette):
    def build_middleware_stack(self):
        return super().build_middleware_stack()


def test_an_application_that_builds_its_middlewares_itself_is_looked_at_again():
    own = OwnStack(routes=[Route("/x", endpoint("x"))])
    own.__class__.__call__ = Starlette.__call__
    assert [place.owner for place in one(Starlette(routes=[Mount("/m", own)]), "/m/x").entered] == [own]


def test_no_path_is_redirected_to_itself():
    app = Starlette(routes=[Route("/a", endpoint("a"))])
    assert [one(app, path).kind for path in ("/a", "/a/", "/")] == [Kind.ROUTE, Kind.REDIRECT, Kind.NOT_FOUND]
    assert one(app, "/a", kind="lifespan").kind is Kind.NOT_FOUND
    assert one(app, "/a/", kind="websocket").kind is Kind.NOT_FOUND
    app.router.redirect_slashes = False
    assert one(app, "/a/").kind is Kind.NOT_FOUND


def test_what_was_found_above_stays_with_a_path_that_is_known():
    resolver = StarletteResolver(Starlette(routes=[Route("/a/{x}", endpoint("a"))]))
    plain = scope("/a/1")
    for tenant in ("t", "t", "t", "u"):
        assert resolver.resolve(plain).params == {"x": "1"}
        assert resolver.resolve({**plain, "path_params": {"tenant": tenant}}).params == {"tenant": tenant, "x": "1"}


@pytest.mark.parametrize(("depth", "kind"), [(20, Kind.ROUTE), (30, Kind.ROUTE), (31, Kind.OPAQUE), (40, Kind.OPAQUE)])
def test_what_is_mounted_deeper_than_anybody_does_is_one_unit(depth, kind):
    app = Router([Route("/x", endpoint("x"))])
    for _ in range(depth):
        app = Router([Mount("/m", app)])
    resolver = StarletteResolver(Starlette(routes=[Mount("/m", app)]))
    assert [leaf.kind for leaf in resolver.leaves()] == [kind]
    assert resolver.resolve(scope("/m" * (depth + 1) + "/x")).kind is kind
