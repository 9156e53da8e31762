"""Applications for real servers: each handler run is written down, with what the request was called."""

import asyncio
import os
import time

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.wsgi import AscendMiddleware as WSGIMiddleware

RULES = {
    "rule": [
        {"match": "POST /run/{name}", "action_type": "t", "resource": "{path.name}"},
        {"match": "POST /open/{name}", "action_type": "t", "resource": "{path.name}", "on_failure": "open"},
        {"match": "GET /read/{name}", "action_type": "r", "resource": "{path.name}", "cache": "1h", "coalesce": True},
        {"match": "GET /health", "exempt": True},
    ]
}


SETTINGS = {"max_retries": 0, "kill_poll_interval": 0.5}


def ran(name):
    descriptor = os.open(os.environ["RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)


async def run(request):
    ran(request.path_params["name"])
    await asyncio.sleep(0.01)
    return PlainTextResponse(f"done by {os.getpid()}")


async def health(request):
    return PlainTextResponse("well")


ROUTES = [
    Route("/run/{name}", run, methods=["POST"]),
    Route("/open/{name}", run, methods=["POST"]),
    Route("/read/{name}", run),
    Route("/health", health),
]


def asgi():
    app = Starlette(routes=ROUTES)
    app.add_middleware(AscendMiddleware, rules=RULES, **SETTINGS)
    return app


def plain(environ, start_response):
    name = environ["PATH_INFO"].rpartition("/")[2]
    if name != "health":
        ran(name)
    time.sleep(0.01)
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"done by {os.getpid()}".encode()]


def wsgi():
    return WSGIMiddleware(plain, rules=RULES, **SETTINGS)
