"""Requests in which nothing is out of the ordinary are decided about at one glance, and come to what all others come to."""

import asyncio
import io
import json
from types import SimpleNamespace

import flask
import pytest
from fastapi import APIRouter, FastAPI, Request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kit.asgi import Wire, http_scope, inside, part
from kit.engine import Engine, answer, options, plug
from kit.examples import examples
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import ascend_middleware.asgi.governor
import ascend_middleware.wsgi.middleware
from ascend_middleware.asgi.messages import RootPath, ScopeView
from ascend_middleware.flask import Ascend
from ascend_middleware.guard import are_ordinary_headers, is_ordinary_target
from ascend_middleware.guard.firewall import inspect
from ascend_middleware.routing.starlette_paths import KnownPaths
from ascend_middleware.wsgi.middleware import EnvironView, view_of

SEGMENTS = (
    "a",
    "items",
    "7",
    "007",
    "-1",
    "x.json",
    "a b",
    "ä",
    "",
    ".",
    "..",
    ".well-known",
    "a;b",
    "a\\b",
    "%2f",
    "\x00",
)
SEGMENTS += ("a\n", "admin", "A", "~", "a:b", "\ud800", "\ufffd", "x" * 40, "free", "shut", "below", "in")
NAMES = (
    "host",
    "accept",
    "X-Custom",
    "expect",
    "Expect",
    "ascend-approval",
    "ascend_approval",
    "x-http-method-override",
)
NAMES += (
    "X_HTTP_METHOD",
    "x-original-url",
    "X-Rewrite_Url",
    "x-method-override",
    "x-original-uri",
    "content-length",
    "a\nexpect",
)
paths = st.lists(st.sampled_from(SEGMENTS), max_size=4).map(lambda found: "/" + "/".join(found))
odd_paths = st.one_of(paths, paths.map(lambda path: path[1:]), st.text(max_size=8))
header_lists = st.lists(st.sampled_from(NAMES), max_size=4)
# What a server makes of the target: the path itself, with escapes, another one, or nothing.
raws = st.sampled_from(("same", "same", "escaped", "other", "none", "query"))


def raw_of(path, how):
    content = path.encode("utf-8", "surrogatepass")
    return {"same": content, "escaped": b"/%61", "other": content + b"#x", "none": None, "query": content + b"?a=1"}[
        how
    ]


def scope_of(path, how, names, method="GET", **more):
    given = http_scope(method, path, headers=[(name, "7") for name in names], **more) if path.isascii() else None
    given = given or {**http_scope(method, "/", headers=[(name, "7") for name in names], **more), "path": path}
    return {**given, "raw_path": raw_of(path, how)}


@given(path=odd_paths, how=raws, names=header_lists)
@example(path="/", how="same", names=[])
def test_what_is_ordinary_is_what_the_firewall_finds_nothing_in(path, how, names):
    scope = scope_of(path, how, names)
    if not (is_ordinary_target(path, scope["raw_path"]) and are_ordinary_headers(scope["headers"])):
        return
    view = ScopeView(scope, SimpleNamespace(path=path, leaf=None), RootPath(None, None))
    assert inspect(view) == []
    assert view.header_names.isdisjoint({"expect", "ascend-approval"})


@pytest.mark.parametrize("path", ["/", "/items/7", "/items/x.json/", "/a-b_c~d", "/a:b@c,d+e=f"])
@pytest.mark.parametrize("names", [["host", "accept"], ["x-custom"], ["User-Agent"]])
def test_most_requests_are_ordinary(path, names):
    assert is_ordinary_target(path, path.encode())
    assert are_ordinary_headers([(name.encode(), b"x") for name in names])


RULES = [
    {"match": ["GET /free/{a}", "GET /free", "* /below/in/free/{a}", "GET /m/free/{a}"], "exempt": True},
    {"match": "GET /items/{a:int}", "action_type": "read", "resource_id": "{path.a}", "details": {"q": "query.q?"}},
    {"match": "POST /items/{a}", "action_type": "write", "details": {"x": "header.x-custom?"}},
    {"match": "GET /free/admin", "action_type": "admin"},
    {"match": "GET /plain/{a}", "action_type": "look", "resource_id": "{path.a}"},
    {"match": "* /shut/**", "block": "shut"},
]


def application(ran):
    app = FastAPI(openapi_url=None)

    def handler(name):
        async def run(request: Request):
            verdict = request.state.ascend
            if verdict.action is not None:
                verdict.action.resource = "what the application writes"  # concerns no other request
            ran.append((name, request.method, dict(request.path_params), verdict.outcome, await request.body()))
            route = request.scope.get("route")  # older Starlettes tell it of FastAPI's routes only
            ran.append((getattr(route, "path", None), request.scope["router"] is app.router))
            return JSONResponse({"name": name, "params": request.path_params})

        return run

    router, below = APIRouter(), APIRouter()
    below.add_api_route("/free/{a}", handler("below"), methods=["GET", "PUT"])
    router.include_router(below, prefix="/in")
    app.add_api_route("/free/admin", handler("admin"), methods=["GET"])
    app.add_api_route("/free/{a}", handler("free"), methods=["GET", "HEAD"])
    app.add_api_route("/free", handler("none"), methods=["GET"])
    app.add_api_route("/items/{a:int}", handler("items"), methods=["GET"])
    app.add_api_route("/items/{a}", handler("texts"), methods=["GET", "POST"])
    app.add_api_route("/plain/{a}", handler("plain"), methods=["GET"])
    app.add_api_route("/shut/{a}", handler("shut"), methods=["GET"])
    app.include_router(router, prefix="/below")
    app.router.routes.append(Mount("/m", Starlette(routes=[Route("/free/{a}", handler("mounted"))])))
    return app


def come(app, ran, engine, scope):
    """Send one request; return all that can be seen of it."""
    ran.clear()
    before = len(engine.requests)
    wire = Wire(part(b"{}"))
    asyncio.run(wire.through(app, scope))
    asked = [
        (request.method, request.url, request.content, sorted(name for name, _ in request.headers), request.agent)
        for request in engine.requests[before:]
    ]
    return (
        [(message.get("status"), sorted(message.get("headers", ())), message.get("body")) for message in wire.sent],
        [*ran],
        asked,
    )


@pytest.fixture
def app(monkeypatch):
    def reply(request):
        return answer("denied" if b'"resource_id":"7"' in request.content else "approved")

    engine = plug(monkeypatch, Engine(reply))
    ran = []
    return inside(application(ran), RULES, journal="off"), ran, engine


routed = st.lists(st.sampled_from(("a", "7", "007", "-1", "admin", "x.json", "ä", "a;b", "..", "")), max_size=1)
starts = st.sampled_from(
    ("/free", "/items", "/plain", "/shut", "/below/in/free", "/m/free", "/else", "//free", "/free/..")
)


@settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))
@given(
    path=st.tuples(starts, routed).map(lambda both: "/".join((both[0], *both[1]))),
    how=raws,
    names=header_lists,
    method=st.sampled_from(("GET", "GET", "HEAD", "POST", "PUT", "get", "TRACE", "OPTIONS")),
    root=st.sampled_from(("", "", "/root")),
)
def test_a_glance_changes_nothing(app, path, how, names, method, root):
    app, ran, engine = app

    def once():
        return come(app, ran, engine, scope_of(root + path, how, names, method, query=b"q=1", root_path=root))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KnownPaths, "come_again", lambda *_: False)
        patch.setattr(KnownPaths, "get", lambda *_: None)
        patch.setattr(ascend_middleware.asgi.governor, "are_ordinary_headers", lambda *_: False)
        thorough = once()
    # The third time, what the router finds for a path may be known, and then what is asked about it.
    assert [once() for _ in range(5)] == [thorough] * 5


def environ_of(path, how, names, method="GET", root="", query=""):
    decoded = path.encode("utf-8", "surrogatepass").decode("latin-1")
    raw = {
        "same": root + path,
        "escaped": "/%61",
        "other": f"{root}{path}#x",
        "none": None,
        "query": f"{root}{path}?a=1",
    }
    found = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root,
        "PATH_INFO": decoded,
        "QUERY_STRING": query,
        "SERVER_NAME": "site",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(b"{}"),
        "CONTENT_LENGTH": "2",
        **{f"HTTP_{name.upper().replace('-', '_')}": "7" for name in names},
    }
    return found if raw[how] is None else {**found, "RAW_URI": raw[how]}


# No server of WSGI lets a line break into a name.
@given(path=odd_paths, how=raws, names=header_lists.map(lambda names: [name for name in names if "\n" not in name]))
@example(path="x/", how="same", names=[])
@pytest.mark.parametrize("root", ["", "/root"])
def test_an_environ_is_ordinary_likewise(path, how, names, root):
    environ = environ_of(path, how, names, root=root)
    view = EnvironView(environ)
    assert view.path == view_of(environ).path
    if view.is_ordinary:
        assert inspect(view) == []
        assert view.header_names.isdisjoint({"expect", "ascend-approval"})


@pytest.fixture
def flask_app(monkeypatch):
    engine = plug(monkeypatch, Engine(lambda request: answer("approved")))
    ran, made = [], flask.Flask("ordinary", static_folder=None)

    def handler(**given):
        verdict = flask.g.ascend
        ran.append((flask.request.endpoint, flask.request.method, given, verdict.outcome, flask.request.get_data()))
        return {"params": given}

    for rule in ("/free/<a>", "/free", "/items/<int:a>", "/items/<a>", "/shut/<a>", "/free/admin"):
        made.add_url_rule(rule, rule, handler, methods=["GET", "POST", "PUT"])
    Ascend(made, **options(RULES, journal="off"))
    return made, ran, engine


@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(
    path=st.tuples(starts, routed).map(lambda both: "/".join((both[0], *both[1]))),
    how=raws,
    names=header_lists,
    method=st.sampled_from(("GET", "GET", "HEAD", "POST", "PUT", "get", "TRACE", "OPTIONS")),
    root=st.sampled_from(("", "", "/root")),
)
def test_a_glance_changes_nothing_in_flask(flask_app, path, how, names, method, root):
    made, ran, engine = flask_app

    def once():
        ran.clear()
        before, started = len(engine.requests), []
        parts = made(environ_of(path, how, names, method, root, "q=1"), lambda *given: started.append(given[:2]))
        body = b"".join(parts)
        getattr(parts, "close", lambda: None)()
        return started, body, [*ran], [(one.url, one.content, one.agent) for one in engine.requests[before:]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ascend_middleware.wsgi.middleware, "is_ordinary_environ", lambda *_: False)
        thorough = once()
    assert once() == thorough


def test_routes_that_change_count_from_the_next_request_on(app):
    app, ran, engine = app

    def names():
        return [name for name, *_ in come(app, ran, engine, http_scope(path="/free/a"))[1][::2]]

    assert [names() for _ in range(3)] == [["free"]] * 3
    route = app.router.routes[1]

    async def other(request: Request):
        ran.extend([("other",), ()])

    app.add_api_route("/free/{b}", other, methods=["GET"])
    app.router.routes.insert(0, app.router.routes.pop())
    assert [names() for _ in range(3)] == [["other"]] * 3
    app.router.routes[0].methods ^= {"GET", "POST"}
    assert [names() for _ in range(3)] == [["free"]] * 3
    app.router.routes.pop(0)
    route.app, before = app.router.routes[2].app, route.app
    assert [names() for _ in range(3)] == [["none"]] * 3
    route.app = before
    route.param_convertors = {"a": Doubling()}
    assert json.loads(come(app, ran, engine, http_scope(path="/free/a"))[0][1][2])["params"] == {"a": "aa"}


class Doubling:
    regex = "[^/]+"

    def convert(self, value):
        return value * 2
