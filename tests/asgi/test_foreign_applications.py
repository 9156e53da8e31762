"""Applications of other frameworks under the ASGI middleware: the canonical path decides, whatever the prefix.

Each is called as servers call it: below a root path that is put before the path (uvicorn) or kept apart (hypercorn).
"""

import json
import warnings

import a2wsgi
import litestar
import pytest
import quart
from fastapi import FastAPI
from kit.asgi import CONNECT, JSON, Answered, http_scope, part, ws_scope
from kit.engine import answer, options
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.setting_values import FINDINGS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated, and still used
    from starlette.middleware.wsgi import WSGIMiddleware

# FastAPI's own root_path is deprecated since 0.16x, and what many have.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")]
RULES = [
    {"match": "GET /admin/export", "action_type": "export"},
    {"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}},
    {"match": "GET /public/**", "exempt": True},
    {"match": "WEBSOCKET /ws", "action_type": "socket"},
]


@pytest.fixture(autouse=True)
def engine(engine):
    engine.denied = False
    engine.answers = [lambda request: answer("denied" if engine.denied else "approved")]
    return engine


def guard(app, rules=RULES, **more):
    return AscendMiddleware(app, **options(rules, **more))


async def ask(app, method, path, *, root="", prefixed=True, body=b"", offers=True, by_name=False):
    """Send one request or handshake as a server would; return the status, or the type of the first message."""
    path = root + path if prefixed else path
    headers = [("host", "site"), *JSON, ("content-length", str(len(body)))]
    more = {"headers": headers, "root_path": root, "asgi": {"version": "3.0", "spec_version": "2.3"}, "extensions": {}}
    if method == "WEBSOCKET":
        scope, wire = ws_scope(path, **more), Answered(CONNECT)
        scope["extensions"] = {"websocket.http.response": {}} if offers else {}
    else:
        scope, wire = http_scope(method, path, **more), Answered(part(body))
    if by_name:
        await app(scope=scope, receive=wire.receive, send=wire.send)
    else:
        await wire.through(app, scope)
    sent = wire.sent
    return sent[0].get("status", sent[0].get("code", sent[0]["type"])) if sent else None


# The applications, each recording what ran


def of_litestar(ran):
    @litestar.get("/admin/export")
    async def export() -> str:
        ran.append("export")
        return ""

    @litestar.post("/pay", status_code=200)
    async def pay(request: litestar.Request) -> str:
        ran.append(("pay", (await request.json())["amount"]))
        return ""

    @litestar.get("/public/{rest:path}")
    async def public() -> str:
        ran.append("public")
        return ""

    @litestar.websocket("/ws")
    async def socket(socket: litestar.WebSocket) -> None:
        await socket.accept()
        ran.append("socket")

    return litestar.Litestar([export, pay, public, socket])


def of_quart(ran):
    app = quart.Quart("foreign")

    @app.get("/admin/export")
    async def export():
        ran.append("export")
        return ""

    @app.post("/pay")
    async def pay():
        ran.append(("pay", (await quart.request.get_json())["amount"]))
        return ""

    @app.get("/public/<path:rest>")
    async def public(rest):
        ran.append("public")
        return ""

    @app.websocket("/ws")
    async def socket():
        await quart.websocket.accept()
        ran.append("socket")

    return app


def plain(ran, *, strips=True):
    async def app(scope, receive, send):
        path = scope["path"]
        if strips and path.startswith(scope["root_path"] + "/"):
            path = path[len(scope["root_path"]) :]
        if scope["type"] == "websocket":
            await receive()
            ran.append("socket")
            await send({"type": "websocket.accept"})
            return
        ran.append({"/admin/export": "export"}.get(path, path))
        if path == "/pay":
            ran[-1] = ("pay", json.loads((await receive())["body"])["amount"])
        await PlainTextResponse("")(scope, receive, send)

    return app


FOREIGN = pytest.mark.parametrize("build", [of_litestar, of_quart, plain])
BELOW = pytest.mark.parametrize(("root", "prefixed"), [("", True), ("/api", True)])


@FOREIGN
@BELOW
async def test_what_runs_is_what_was_asked_about(build, root, prefixed, engine, ran):
    app = guard(build(ran))
    below = {"root": root, "prefixed": prefixed}
    assert await ask(app, "GET", "/admin/export", **below) == 200
    assert await ask(app, "POST", "/pay", body=b'{"amount": 5}', **below) == 200
    assert await ask(app, "WEBSOCKET", "/ws", **below) == "websocket.accept"
    assert (ran, engine.kinds) == (["export", ("pay", 5), "socket"], ["export", "pay", "socket"])
    assert await ask(app, "GET", "/unlisted", **below) == 403
    assert await ask(app, "POST", "/admin/export", **below) == 403
    engine.denied = True
    assert await ask(app, "GET", "/admin/export", **below) == 403
    assert await ask(app, "GET", "/admin/export/", **below) == 403
    assert await ask(app, "WEBSOCKET", "/ws", **below) == 403
    assert await ask(app, "WEBSOCKET", "/ws", offers=False, **below) == 1008
    assert len(ran) == 3


@FOREIGN
async def test_a_path_with_the_prefix_where_none_expects_it(build, engine, ran):
    """Bypass cases litestar-030, litestar-033 and quart-017, on servers that keep the root path apart."""
    app = guard(build(ran))
    engine.denied = True
    for path in ("/public/api/admin/export", "/apiadmin/export", "/x/api/admin/export", "/public/api"):
        assert await ask(app, "GET", path, root="/api", prefixed=False) == 400, path
    assert await ask(app, "GET", "/admin/export", root="/api", prefixed=False) == 403
    assert ran == []


@pytest.mark.parametrize("path", ["/api", "/api/"])
async def test_the_root_path_by_itself_is_the_root(path, engine, ran):
    app = guard(plain(ran), [{"match": "GET /", "action_type": "root"}])
    assert await ask(app, "GET", path, root="/api", prefixed=False) == 200
    assert engine.kinds == ["root"]


async def test_litestar_and_quart_strip_the_prefix_on_any_server(engine, ran):
    for build in (of_litestar, of_quart):
        app = guard(build(ran))
        await ask(app, "GET", "/public/x", root="/api", prefixed=False)
        ran.clear()
        assert await ask(app, "GET", "/api/admin/export", root="/api", prefixed=False) == 200
        assert ran == ["export"]
    assert engine.kinds == ["export"] * 2


async def test_an_unknown_application_on_a_server_that_keeps_the_prefix_apart(engine, ran, caplog):
    app = guard(plain(ran, strips=False))
    assert await ask(app, "GET", "/public/x", root="/api", prefixed=False) == 200
    assert "strips_root_path says how" in caplog.text
    # Whether this is /public/x or /api/public/x only the application knows; no rule covers the second.
    assert await ask(app, "GET", "/api/public/x", root="/api", prefixed=False) == 400
    assert ran == ["/public/x"]
    alike = guard(plain(ran), [{"match": "GET /**", "action_type": "any"}])
    await ask(alike, "GET", "/x", root="/api", prefixed=False)
    assert await ask(alike, "GET", "/api/x", root="/api", prefixed=False) == 200
    assert engine.kinds == ["any"] * 2


ANY = {"match": "GET /any/**", "action_type": "any"}


@pytest.mark.parametrize("path", ["/any/api/x", "/api/any/x"], ids=["the prefix inside", "the prefix in front"])
async def test_a_doubtful_prefix_is_refused_unless_exactly_that_is_permitted(path, engine, ran):
    async def asked(path, *permit):
        app = guard(plain(ran), [{**ANY, "permit": permit}])
        await ask(app, "GET", "/elsewhere", root="/api", prefixed=False)  # this server keeps the prefix apart
        return await ask(app, "GET", path, root="/api", prefixed=False)

    others = [name for name in FINDINGS if name != "root-path"]
    for permit in ((), others):
        assert (await asked(path, *permit), ran) == (400, [])
    for permit in ("root-path", "path-parameter"):
        assert (await asked(f"{path};a", permit), ran) == (400, [])
    assert engine.kinds == []
    assert await asked(path, "root-path") == 200
    assert await asked(f"{path};a", "root-path", "path-parameter") == 200
    assert (len(ran), engine.kinds) == (2, ["any"] * 2)


@pytest.mark.parametrize(("strips", "status", "runs"), [(True, 200, "/public/x"), (False, 403, None)])
async def test_saying_how_an_application_reads_the_prefix_settles_it(strips, status, runs, ran):
    app = guard(plain(ran, strips=strips), strips_root_path=strips)
    await ask(app, "GET", "/public/first", root="/api", prefixed=False)
    ran.clear()
    assert await ask(app, "GET", "/api/public/x", root="/api", prefixed=False) == status
    assert ran == ([runs] if runs else [])


def test_what_it_is_said_with_is_checked():
    with pytest.raises(ConfigurationError, match="strips_root_path"):
        guard(plain([]), strips_root_path="yes")


async def test_a_server_that_passes_its_arguments_by_name_and_sends_no_lifespan(engine, ran):
    """As daphne does."""
    for app in (guard(plain(ran)), guard(Starlette(routes=[Route("/admin/export", endpoint(ran))]))):
        assert await ask(app, "GET", "/admin/export", by_name=True) == 200
    inside = Starlette(routes=[Route("/admin/export", endpoint(ran))])
    inside.add_middleware(AscendMiddleware, **options(RULES))
    assert await ask(inside, "GET", "/admin/export", by_name=True) == 200
    assert engine.kinds == ["export"] * 3
    assert ran == ["export"] * 3


def endpoint(ran):
    async def export(request):
        ran.append("export")
        return PlainTextResponse("")

    return export


# WSGI applications mounted inside ASGI: one unit


def wsgi(ran):
    def app(environ, start_response):
        ran.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        start_response("200 OK", [("content-type", "text/plain")])
        return [b""]

    return app


LEGACY = [
    {"match": "GET,POST /legacy/**", "action_type": "legacy"},
    {"match": "GET /legacy/open", "exempt": True},
    {"match": "* /legacy/closed/**", "block": "closed"},
]


@pytest.mark.parametrize("adapter", [a2wsgi.WSGIMiddleware, WSGIMiddleware])
@pytest.mark.parametrize("framework", [FastAPI, Starlette])
@BELOW
async def test_a_mounted_wsgi_application_is_one_unit(adapter, framework, root, prefixed, engine, ran):
    app = framework(routes=[Mount("/legacy", adapter(wsgi(ran)))])
    app.add_middleware(AscendMiddleware, **options(LEGACY))
    below = {"root": root, "prefixed": prefixed}
    assert await ask(app, "GET", "/legacy/open", **below) == 200
    assert await ask(app, "POST", "/legacy/any/thing", **below) == 200
    assert engine.kinds == ["legacy"] * 2
    assert [path.removeprefix(root) for _, path in ran] == ["/open", "/any/thing"]
    for method, path, status in [
        ("DELETE", "/legacy/any", 403),
        ("FOO", "/legacy/any", 403),
        ("get", "/legacy/closed/x", 403),
        ("POST", "/legacy//any", 400),
        ("WEBSOCKET", "/legacy/any", 403),
    ]:
        assert await ask(app, method, path, **below) == status, (method, path)
    assert len(ran) == 2


# Prefixes: mounts and sub-applications below a root path


def sub_applications(ran):
    sub = FastAPI(openapi_url=None)
    sub.add_api_route("/export", fastapi_endpoint(ran))
    nested = FastAPI(root_path="/proxy", openapi_url=None)
    nested.add_api_route("/admin/export", fastapi_endpoint(ran))
    nested.mount("/sub", sub)
    nested.mount("/mounted", Starlette(routes=[Route("/export", endpoint(ran))]))
    return nested


def fastapi_endpoint(ran):
    async def export():
        ran.append("export")
        return {}

    return export


@pytest.mark.parametrize(("root", "prefixed"), [("", True), ("/api", True), ("/api", False), ("/proxy", True)])
@pytest.mark.parametrize("path", ["/admin/export", "/sub/export", "/mounted/export"])
async def test_sub_applications_below_a_prefix(root, prefixed, path, engine, ran):
    app = sub_applications(ran)
    rules = [{"match": f"GET {path}", "action_type": "this"}, {"match": "* /**", "action_type": "another"}]
    app.add_middleware(AscendMiddleware, **options(rules))
    status = await ask(app, "GET", path, root=root, prefixed=prefixed)
    # Starlette's mounts need the prefix in the path; whatever is found, it was asked about.
    assert (status, engine.kinds) in [(200, ["this"]), (404, [])]
    assert ran == ["export"] * len(engine.kinds)
    assert status == 200 or not prefixed or root != "/proxy"
