"""Applications for the bypass pack: governed ones, and some whose guard has a hole that raw requests find."""

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from ascend_middleware.asgi import AscendMiddleware

RULES = {
    "rule": [
        {"match": "GET /open", "exempt": True},
        {"match": "GET /admin/export", "action_type": "export"},
        {"match": "POST /payments/{id}", "action_type": "pay"},
        {"match": "* /files/**", "action_type": "read"},
        {"match": "WEBSOCKET /trades", "action_type": "trade"},
    ]
}


class Payment(BaseModel):
    amount: int


def paid():
    api = FastAPI(openapi_url=None)

    @api.get("/open")
    def open_():
        return "open"

    @api.post("/payments/{id}")
    async def pay(id: int, payment: Payment):
        return "paid"

    return api


governed = paid()
governed.add_middleware(AscendMiddleware, rules=RULES)
ungoverned = paid()


async def text(request):
    return PlainTextResponse("text")


async def trades(websocket):
    await websocket.accept()
    await websocket.close()


class Export(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("exported")


def starlette(**middleware):
    routes = [Route("/open", text), Route("/admin/export", Export), WebSocketRoute("/trades", trades)]
    return Starlette(routes=[*routes, Mount("/files", StaticFiles(directory="."))])


star = starlette()
star.add_middleware(AscendMiddleware, rules=RULES)


class OnlyWhere:
    """Asks the guard where the path as it came begins so: what a naive middleware does."""

    def __init__(self, guarded, bare, protected):
        self.app, self.bare, self.protected = guarded, bare, protected

    async def __call__(self, scope, receive, send):
        guards = scope["type"] == "lifespan" or scope["path"] in self.protected
        await (self.app if guards else self.bare)(scope, receive, send)


def by_path(inner, *protected):
    return OnlyWhere(AscendMiddleware(inner, rules=RULES), inner, protected)


holed = by_path(starlette(), "/open", "/admin/export", "/files/7", "/trades")
holed_before_validation = by_path(paid(), "/open", "/payments/7")


async def plain(scope, receive, send):
    """Has no router: everything is one unit."""
    await PlainTextResponse("plain")(scope, receive, send)


unit = AscendMiddleware(plain, rules=RULES)
