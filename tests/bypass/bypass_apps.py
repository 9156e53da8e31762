"""The applications that the bypass cases run against, each behind the middleware, and the server process for them.

    python bypass_apps.py PARSER AUTHORITY_URL FOLDER

serves every application on a port of its own and prints the ports as one line of JSON.
"""

import asyncio
import contextlib
import json
import posixpath
import sys
from pathlib import Path

import a2wsgi
import flask
import uvicorn
from fastapi import APIRouter, FastAPI, Form, Header, Request, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from ascend_middleware.asgi import AscendMiddleware

NAMES = (
    *("starlette", "starlette_inner", "starlette_inner_first", "fastapi", "fastapi_rooted", "fastapi_sub_rooted"),
    *("starlette_below_api", "fastapi_below_api", "body", "body_lax", "life"),
)


def handler(action):
    async def run(request: Request):
        await request.body()
        return JSONResponse({"handler": action}, headers={"x-handler": action})

    run.__name__ = action.replace(".", "_")
    return run


def rules(lines, **more):
    """Build a table: each line is `METHODS /template -> action`, or `-> exempt`."""
    table = []
    for line in lines:
        match, _, action = line.partition(" -> ")
        table.append(
            {"match": match, "exempt": True} if action == "exempt" else {"match": match, "action_type": action}
        )
    return table


class Guarded:
    """What every application gets."""

    def __init__(self, url):
        self.url = url

    def add(self, app, table, **settings):
        app.add_middleware(
            AscendMiddleware,
            rules={"rule": table},
            api_url=self.url,
            api_key="ask_bypass_0123456789abcdef",
            agent_id="bypass",
            agent_name="Bypass",
            report_outcomes=False,
            **settings,
        )
        return app


# Starlette


def legacy_application():
    legacy = flask.Flask("legacy", static_folder=None)
    legacy.url_map.strict_slashes = False

    def answer(action):
        response = flask.jsonify(handler=action)
        response.headers["x-handler"] = action
        return response

    legacy.add_url_rule("/pay", "pay", lambda: answer("legacy.pay"), methods=["POST"])
    legacy.add_url_rule("/admin/export", "export", lambda: answer("legacy.export"))
    return legacy


def file_handler(base):
    async def run(request):
        opened = posixpath.normpath(posixpath.join(base, request.path_params["path"]))
        action = "files.public" if opened.startswith("/srv/public/") else "files.secret"
        return JSONResponse({"handler": action}, headers={"x-handler": action})

    return run


class TwoMethods(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("g", headers={"x-handler": "cls.get"})

    async def post(self, request):
        return PlainTextResponse("p", headers={"x-handler": "cls.post"})


class AnyMethod:
    async def __call__(self, scope, receive, send):
        await PlainTextResponse("x", headers={"x-handler": "raw.run"})(scope, receive, send)


async def trade(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_json({"handler": "ws.trade"})
    await websocket.close()


class MethodOverride:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"x-http-method-override":
                    scope = {**scope, "method": value.decode().upper()}
        await self.app(scope, receive, send)


class PathRewrite:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/v0/"):
            scope = {**scope, "path": scope["path"][3:], "raw_path": scope["path"][3:].encode()}
        await self.app(scope, receive, send)


STARLETTE_RULES = rules(
    [
        "POST /payments -> payments.create",
        "GET /payments/{id} -> payments.read",
        "POST /payments/{id:int}/refund -> payments.refund",
        "GET /admin/export -> admin.export",
        "DELETE /admin/users/{id} -> admin.delete",
        "GET /files/public/{path:path} -> files.public",
        "GET /files/{path:path} -> files.secret",
        "GET /cls -> cls.get",
        "POST /cls -> cls.post",
        "POST /raw-asgi -> raw.run",
        "POST /sub/danger -> sub.danger",
        "GET /sub/ -> sub.root",
        "POST /t/{tenant}/danger -> tenant.danger",
        "GET /static/public/** -> static.public",
        "GET /static/private/** -> static.secret",
        "* /legacy/** -> legacy",
        "* /legacy2/** -> legacy",
        "WEBSOCKET /ws/trade -> ws.trade",
        "GET /pub -> exempt",
        "GET /opt -> opt.run",
        "GET,OPTIONS /opt2 -> opt.run",
        "POST /late -> late.run",
    ]
) + [{"endpoint": "admin:host_payments", "action_type": "host.payments"}]


def starlette_application(static):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.router.routes.insert(0, Route("/late", handler("late.run"), methods=["POST"]))
        yield

    sub = Starlette(routes=[Route("/danger", handler("sub.danger"), methods=["POST"]), Route("/", handler("sub.root"))])
    host = Router([Route("/payments", handler("host.payments"), methods=["POST"]), Route("/pub", handler("host.pub"))])
    tenant = [Route("/danger", handler("tenant.danger"), methods=["POST"])]
    return Starlette(
        lifespan=lifespan,
        routes=[
            Host("admin.local", host, name="admin"),
            Route("/payments", handler("payments.create"), methods=["POST"]),
            Route("/payments/{id}", handler("payments.read")),
            Route("/payments/{id:int}/refund", handler("payments.refund"), methods=["POST"]),
            Route("/admin/export", handler("admin.export")),
            Route("/admin/users/{id}", handler("admin.delete"), methods=["DELETE"]),
            Route("/files/public/{path:path}", file_handler("/srv/public")),
            Route("/files/{path:path}", file_handler("/srv")),
            Route("/cls", TwoMethods),
            Route("/raw-asgi", AnyMethod()),
            Mount("/sub", app=sub),
            Mount("/t/{tenant}", routes=tenant),
            Mount("/static", app=StaticFiles(directory=static)),
            Mount("/legacy", app=a2wsgi.WSGIMiddleware(legacy_application())),
            Mount("/legacy2", app=a2wsgi.WSGIMiddleware(legacy_application())),
            WebSocketRoute("/ws/trade", trade),
            Route("/pub", handler("public")),
            Route("/opt", handler("opt.run"), methods=["OPTIONS", "GET"]),
            Route("/opt2", handler("opt.run"), methods=["OPTIONS", "GET"]),
        ],
    )


# FastAPI

FASTAPI_RULES = rules(
    [
        "POST /v1/pay -> pay.create",
        "GET /v1/pay/{id} -> pay.read",
        "POST /v1/pay/deep/wipe -> admin.wipe",
        "POST /open/run -> open",
        "POST /admin/run -> shared.admin",
        "GET,OPTIONS /opt -> opt.run",
        "GET /files/{p:path} -> files.secret",
        "GET /pub -> exempt",
        "POST /orders/ -> orders.create",
        "GET /plain -> plain.run",
        "WEBSOCKET /ws/trade -> ws.trade",
        "POST /sub/danger -> sub.danger",
        "GET /static/public/** -> static.public",
        "GET /static/private/** -> static.secret",
        "* /legacy/** -> legacy",
        "GET /ui/private/** -> front.secret",
        "POST /install -> exempt",
        "POST /late -> late.run",
    ]
)


def fastapi_application(static, front, *, root="", sub_root=""):
    app = FastAPI()
    app.root_path = root
    pay = APIRouter(prefix="/pay")
    pay.add_api_route("", handler("pay.create"), methods=["POST"])
    pay.add_api_route("/{id}", handler("pay.read"), methods=["GET"])
    inner = APIRouter()
    inner.add_api_route("/wipe", handler("admin.wipe"), methods=["POST"])
    shared = APIRouter()

    @shared.post("/run")
    async def run(request: Request):
        below = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        action = "shared.admin" if below.startswith("/admin") else "open"
        return JSONResponse({"handler": action}, headers={"x-handler": action})

    if hasattr(app, "frontend"):  # since then an inclusion is live
        app.include_router(pay, prefix="/v1")
        pay.include_router(inner, prefix="/deep")
    else:
        pay.include_router(inner, prefix="/deep")
        app.include_router(pay, prefix="/v1")
    app.include_router(shared, prefix="/open")
    app.include_router(shared, prefix="/admin")
    app.add_api_route("/opt", handler("opt.run"), methods=["GET", "OPTIONS"])
    app.add_api_route("/files/{p:path}", handler("files.secret"), methods=["GET"])
    app.add_api_route("/pub", handler("public"), methods=["GET"])
    app.add_api_route("/orders/", handler("orders.create"), methods=["POST"])
    app.add_route("/plain", handler("plain.run"), methods=["GET"])
    app.add_api_websocket_route("/ws/trade", trade)
    sub = FastAPI()
    sub.root_path = sub_root
    sub.add_api_route("/danger", handler("sub.danger"), methods=["POST"])
    app.mount("/sub", sub)
    app.mount("/static", StaticFiles(directory=static))
    app.mount("/legacy", a2wsgi.WSGIMiddleware(legacy_application()))
    if hasattr(app, "frontend"):
        app.frontend("/ui", directory=front)

    @app.post("/install")
    async def install():
        if not any(getattr(route, "path", None) == "/late" for route in app.routes):
            app.add_api_route("/late", handler("late.run"), methods=["POST"])
        return {}

    return app


# Bodies


def body_rules():
    def rule(match, source=None):
        return {"match": match, "action_type": "transfer", **({"details": {"amount": source}} if source else {})}

    return [
        *(rule(f"POST /{name}", "body.amount") for name in ("t", "ti", "raw", "ndjson")),
        rule("GET,DELETE,POST /anym", "body.amount"),
        # A table names a field as it stands on the wire: where a model has an alias, by the alias.
        rule("POST /alias", "body.amt"),
        rule("POST /f", "form.amount"),
        rule("POST /rawform", "form.amount"),
        rule("POST /q", "query.amount"),
        rule("GET /hdr"),
        rule("GET /cookie"),
    ]


class Transfer(BaseModel):
    amount: float
    to: str = ""


class WholeTransfer(BaseModel):
    amount: int


class AliasedTransfer(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    amount: float = Field(alias="amt")


def used(amount):
    return JSONResponse({"amount": repr(amount)}, headers={"x-handler": "transfer"})


def body_application(*, lax):
    app = FastAPI(strict_content_type=False) if lax else FastAPI()

    @app.post("/t")
    async def t(b: Transfer):
        return used(b.amount)

    @app.post("/ti")
    async def ti(b: WholeTransfer):
        return used(b.amount)

    @app.post("/alias")
    async def alias(b: AliasedTransfer):
        return used(b.amount)

    @app.api_route("/anym", methods=["GET", "DELETE", "POST"])
    async def anym(b: Transfer):
        return used(b.amount)

    @app.post("/f")
    async def f(amount: float = Form()):
        return used(amount)

    @app.post("/q")
    async def q(amount: float):
        return used(amount)

    @app.post("/raw")
    async def raw(request: Request):
        return used((await request.json())["amount"])

    @app.post("/rawform")
    async def rawform(request: Request):
        return used((await request.form())["amount"])

    @app.post("/ndjson")
    async def ndjson(request: Request):
        lines = (await request.body()).splitlines()
        return used(max(json.loads(line)["amount"] for line in lines if line.strip()))

    @app.get("/hdr")
    async def hdr(x_agent_id: str = Header()):
        return used(None)

    @app.get("/cookie")
    async def cookie(request: Request):
        return used(None)

    return app


# Bodies that come late, in part or not at all


def life_rules():
    fields = {"details": {"amount": "body.amount"}, "body_timeout": 0.4}
    return [
        *({"match": f"POST /{name}", "action_type": name, **fields} for name in ("pay", "stream", "sse")),
        {"match": "GET,POST /admin/export", "action_type": "admin.export"},
        {"match": ["GET /ping", "GET /ran", "GET /state"], "exempt": True},
    ]


def life_application():
    ran = []

    async def pay(request):
        body = await request.body()
        ran.append(f"{request.url.path} {len(body)}")
        return JSONResponse({"len": len(body)}, headers={"x-handler": "pay"})

    async def stream(request):
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        ran.append(f"/stream {size}")
        return JSONResponse({"len": size}, headers={"x-handler": "stream"})

    async def sse(request):
        async def ticks():
            for tick in range(3):
                if await request.is_disconnected():
                    yield b"gone\n"
                    return
                yield f"tick{tick}\n".encode()
                await asyncio.sleep(0.02)

        return StreamingResponse(ticks(), headers={"x-handler": "sse"})

    async def ping(request):
        return PlainTextResponse("pong", headers={"x-handler": "public"})

    async def history(request):
        return JSONResponse(ran)

    async def state(request):
        return JSONResponse({"started": getattr(request.app.state, "started", False)})

    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.started = True
        yield

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/pay", pay, methods=["POST"]),
            Route("/stream", stream, methods=["POST"]),
            Route("/sse", sse, methods=["POST"]),
            Route("/admin/export", pay, methods=["GET", "POST"]),
            Route("/ping", ping),
            Route("/ran", history),
            Route("/state", state),
        ],
    )


def build(name, url, folder):
    """Return an application of `NAMES`, guarded."""
    static, front = folder / "static", folder / "front"
    guarded = Guarded(url)
    if name.startswith("starlette"):
        app = starlette_application(static)
        # What was added last stands outermost.
        inner = (MethodOverride, PathRewrite) if "inner" in name else ()
        if name != "starlette_inner_first":
            for middleware in inner:
                app.add_middleware(middleware)
        guarded.add(app, STARLETTE_RULES)
        if name == "starlette_inner_first":
            for middleware in inner:
                app.add_middleware(middleware)
        return app
    if name.startswith("fastapi"):
        root = "/api" if name == "fastapi_rooted" else ""
        sub_root = "/elsewhere" if name == "fastapi_sub_rooted" else ""
        return guarded.add(fastapi_application(static, front, root=root, sub_root=sub_root), FASTAPI_RULES)
    if name == "life":
        return guarded.add(life_application(), life_rules())
    return guarded.add(body_application(lax=name == "body_lax"), body_rules())


def write_files(folder):
    for path, text in (
        ("static/public/logo.txt", "static.public"),
        ("static/private/secret.txt", "static.secret"),
        ("front/public/a.txt", "front.public"),
        ("front/private/secret.txt", "front.secret"),
    ):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"HANDLER:{text}\n")


async def serve_all(parser, url, folder):
    write_files(folder)
    ports, servers = {}, []
    for name in NAMES:
        root = "/api" if name.endswith("_below_api") else ""
        config = uvicorn.Config(
            build(name, url, folder), port=0, http=parser, root_path=root, log_level="warning", loop="asyncio"
        )
        listener = config.bind_socket()
        ports[name] = listener.getsockname()[1]
        servers.append(uvicorn.Server(config).serve(sockets=[listener]))
    print(json.dumps(ports), flush=True)
    await asyncio.gather(*servers)


if __name__ == "__main__":
    asyncio.run(serve_all(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
