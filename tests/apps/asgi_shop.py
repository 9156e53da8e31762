"""A FastAPI application with every kind of route that a listing has to see; behind the middleware.

`app` is governed by RULES; `bare()` makes one without a guard, `wrapped()` one with the guard around it.
"""

import tempfile

from a2wsgi import WSGIMiddleware
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.staticfiles import StaticFiles

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.asgi import governed as governed_endpoint
from ascend_middleware.fastapi import governed

RULES = {
    "ascend": {"agent_id": "shop", "pending": "wait:20s"},
    "rule": [
        {"match": "GET /customers/{customer_id}", "action_type": "data_access"},
        {
            "name": "refunds",
            "match": "POST /customers/{customer_id}/refunds",
            "action_type": "transaction",
            "resource_id": "{path.customer_id}",
            "details": {"amount": "body.amount", "card": "body.card?", "token": "header.x-token?"},
            "on_failure": "open",
        },
        {"match": "* /internal/**", "block": "internal routes are closed to agents"},
        {"match": "GET /files/public/**", "exempt": True},
        {"match": "POST /legacy/**", "action_type": "legacy", "mode": "observe"},
        {"match": "GET /legacy/report", "action_type": "report"},
        {"match": "WEBSOCKET /live", "action_type": "live_feed"},
        {"match": "GET /old/customers", "action_type": "data_access"},
        {"match": "PUT /customers/{customer_id}", "action_type": "data_modification"},
        {"endpoint": "reed", "action_type": "data_access"},
        {"match": "GET /health", "exempt": True},
    ],
}


def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"legacy"]


@governed_endpoint(action_type="of-a-class")
class Thing(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("thing")


async def page(request):
    return PlainTextResponse("page")


def bare():
    app = FastAPI(title="Shop", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health():
        return {}

    @app.get("/customers/{customer_id}")
    async def read(customer_id: int):
        return {}

    @app.patch("/customers/{customer_id}")
    async def change(customer_id: int):
        return {}

    @app.post("/customers/{customer_id}/refunds")
    async def refund(customer_id: int):
        return {}

    @app.get("/internal/keys")
    async def keys():
        return {}

    @app.websocket("/live")
    async def live(websocket: WebSocket):
        await websocket.accept()

    router = APIRouter(prefix="/reports", dependencies=[Depends(governed(action_type="reporting"))])

    @router.get("/{year:int}/a-report-with-a-rather-long-name/{month}/of/{department}/as/{form}")
    async def report(year: int, month: int, department: str, form: str):
        return {}

    outer = APIRouter()
    outer.include_router(router, prefix="/v1")
    app.include_router(outer, prefix="/api")
    app.router.routes.append(Route("/things/{name}", Thing))
    app.mount("/files", StaticFiles(directory=tempfile.gettempdir()))
    app.mount("/legacy", WSGIMiddleware(wsgi))
    app.mount("/sub", Starlette(routes=[Mount("/deep", routes=[Route("/page", page, methods=["GET", "POST"])])]))
    app.router.routes.append(Host("admin.example", app=Starlette(routes=[Route("/panel", page)])))
    return app


def wrapped():
    return AscendMiddleware(bare(), rules=RULES, api_url="https://authority.example", api_key="owkai_test_0123456789ab")


app = bare()
app.add_middleware(AscendMiddleware, rules=RULES)
