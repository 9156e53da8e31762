"""Starlette and FastAPI applications of the conformance table, each behind the middleware."""

import asyncio
import contextlib
import json
import posixpath

import a2wsgi
import flask
from fastapi import APIRouter, FastAPI, Form, Header, Request, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from ascend_middleware.asgi import AscendMiddleware

from .common import body_rules, file_action, rules, settings


def handler(action):
    async def run(request: Request):
        await request.body()
        return JSONResponse({"handler": action}, headers={"x-handler": action})

    run.__name__ = action.replace(".", "_")
    return run


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
        action = file_action("/srv/public/", posixpath.join(base, request.path_params["path"]))
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


# A table names a field as it stands on the wire: where a model has an alias, by the alias.
BODY_RULES = body_rules(
    [
        *(f"POST /{name} -> body.amount" for name in ("t", "ti", "raw", "ndjson")),
        "GET,DELETE,POST /anym -> body.amount",
        "POST /alias -> body.amt",
        "POST /f -> form.amount",
        "POST /rawform -> form.amount",
        "POST /q -> query.amount",
        "GET /hdr",
        "GET /cookie",
    ]
)


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


def guarded(app, url, table):
    app.add_middleware(AscendMiddleware, **settings(url, table))
    return app


def starlette(*inner, first=False):
    def build(url, folder):
        app = starlette_application(folder / "static")
        # What was added last stands outermost.
        for middleware in () if first else inner:
            app.add_middleware(middleware)
        guarded(app, url, STARLETTE_RULES)
        for middleware in inner if first else ():
            app.add_middleware(middleware)
        return app

    return build


def fastapi(*, root="", sub_root=""):
    return lambda url, folder: guarded(
        fastapi_application(folder / "static", folder / "front", root=root, sub_root=sub_root), url, FASTAPI_RULES
    )


APPS = {
    "starlette": starlette(),
    "starlette_inner": starlette(MethodOverride, PathRewrite),
    "starlette_inner_first": starlette(MethodOverride, PathRewrite, first=True),
    "fastapi": fastapi(),
    "fastapi_rooted": fastapi(root="/api"),
    "fastapi_sub_rooted": fastapi(sub_root="/elsewhere"),
    "starlette_below_api": starlette(),
    "fastapi_below_api": fastapi(),
    "body": lambda url, folder: guarded(body_application(lax=False), url, BODY_RULES),
    "body_lax": lambda url, folder: guarded(body_application(lax=True), url, BODY_RULES),
    "life": lambda url, folder: guarded(life_application(), url, life_rules()),
}
