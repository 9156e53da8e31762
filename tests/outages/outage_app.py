"""The guarded application of the outage tests, a uvicorn process of its own; its own faults are switched over HTTP.

Each handler run is appended to a file, not kept: its memory is what the tests measure.
"""

import asyncio
import gc
import json
import os
import socket
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from ascend_middleware.adapters.runner import AsyncRunner
from ascend_middleware.asgi import AscendMiddleware

RULES = {
    "rule": [
        {"match": "POST /closed/{name}", "action_type": "t", "resource": "{path.name}"},
        {"match": "POST /open/{name}", "action_type": "t", "resource": "{path.name}", "on_failure": "open"},
        {"match": "* /own/**", "exempt": True},
    ]
}


class Clock:
    """The wall clock of this guard, which may jump."""

    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


clock = Clock()
gone = {"dns": False}
ran = os.open(os.environ["RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_resolve = socket.getaddrinfo


def resolve(host, *arguments, **named):
    """Know authority.test, unless the name service is away."""
    if host in ("authority.test", b"authority.test"):
        if gone["dns"]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        host = "127.0.0.1"
    return _resolve(host, *arguments, **named)


socket.getaddrinfo = resolve


async def run(request):
    verdict = request.state.ascend
    line = [request.path_params["name"], verdict.outcome, verdict.cause, verdict.action_id]
    os.write(ran, json.dumps(line).encode() + b"\n")
    await asyncio.sleep(0)
    return PlainTextResponse(verdict.outcome)


async def block(request):
    time.sleep(float(request.path_params["seconds"]))  # what an application should not do
    return PlainTextResponse("done")


async def jump(request):
    clock.ahead = float(request.path_params["seconds"])
    return PlainTextResponse("done")


async def dns(request):
    gone["dns"] = request.path_params["word"] == "gone"
    return PlainTextResponse("done")


async def vitals(request):
    gc.collect()
    # Not the peak: what is resident now, in KiB, as the kernel counts it.
    with open("/proc/self/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    handles = len(os.listdir("/proc/self/fd"))
    return JSONResponse(
        {
            "resident": resident,
            "handles": handles,
            "tasks": len(asyncio.all_tasks()),
            "health": request.app.state.guarded[0].health(),
        }
    )


def make(settings):
    app = Starlette(
        routes=[
            Route("/closed/{name}", run, methods=["POST"]),
            Route("/open/{name}", run, methods=["POST"]),
            Route("/own/block/{seconds}", block, methods=["POST"]),
            Route("/own/jump/{seconds}", jump, methods=["POST"]),
            Route("/own/dns/{word}", dns, methods=["POST"]),
            Route("/own/vitals", vitals),
        ]
    )
    app.state.guarded = []
    middleware = AscendMiddleware(app, rules=RULES, **settings)
    app.state.guarded.append(middleware)
    runner = AsyncRunner(RULES, settings, now=clock)
    middleware._runner.guard.state.close()
    middleware._governor.runner = runner
    return middleware


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    # uvloop asks the name service by itself, where this module cannot interfere.
    loop = "asyncio" if "authority.test" in settings["api_url"] else "uvloop"
    uvicorn.run(make(settings), port=int(sys.argv[1]), log_level="warning", http="httptools", loop=loop)
