"""Litestar applications of the conformance table: a foreign framework, of which the guard sees the path only."""

import posixpath

from litestar import Litestar, Request, Response, WebSocket, asgi, get, post, websocket
from litestar.static_files import create_static_files_router
from litestar.types import Receive, Scope, Send
from pydantic import BaseModel

from ascend_middleware.asgi import AscendMiddleware

from .common import body_rules, file_action, rules, settings

RULES = rules(
    [
        "POST /pay -> pay.create",
        "GET /pay/{id} -> pay.read",
        "GET /admin/export -> admin.export",
        "POST /open/x -> open",
        "GET /files/public/{p:path} -> files.public",
        "GET /static/public/{p:path} -> static.public",
        "GET /static/private/{p:path} -> static.secret",
        "* /mnt/** -> mnt.run",
        "WEBSOCKET /ws/trade -> ws.trade",
        "GET /public/** -> exempt",
    ]
)


def answer(action):
    return Response({"handler": action}, headers={"x-handler": action})


@post("/pay")
async def pay() -> Response:
    return answer("pay.create")


@get("/pay/{id:int}")
async def pay_read(id: int) -> Response:
    return answer("pay.read")


@get("/admin/export")
async def export() -> Response:
    return answer("admin.export")


@post("/open/x")
async def open_x() -> Response:
    return answer("open")


@get("/files/public/{p:path}")
async def files_public(p: str) -> Response:
    return answer(file_action("/srv/public", posixpath.join("/srv/public", str(p).lstrip("/"))))


@asgi("/mnt", is_mount=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"x-handler", b"mnt.run")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@websocket("/ws/trade")
async def trade(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json({"handler": "ws.trade"})
    await socket.close()


def guarded(url, folder):
    static = create_static_files_router("/static", directories=[folder / "static"])
    app = Litestar([pay, pay_read, export, open_x, files_public, mounted, trade, static])
    return AscendMiddleware(app, **settings(url, RULES))


class Transfer(BaseModel):
    amount: float


@post("/t")
async def transfer(data: Transfer) -> Response:
    return Response({"amount": repr(data.amount)}, headers={"x-handler": "transfer"})


@post("/raw")
async def transfer_raw(request: Request) -> Response:
    return Response({"amount": repr((await request.json())["amount"])}, headers={"x-handler": "transfer"})


def guarded_body(url, folder):
    table = body_rules(["POST /t -> body.amount", "POST /raw -> body.amount"])
    return AscendMiddleware(Litestar([transfer, transfer_raw]), **settings(url, table))


APPS = {"litestar": guarded, "litestar_below_api": guarded, "litestar_body": guarded_body}
