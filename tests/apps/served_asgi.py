"""A governed FastAPI application for servers with several processes: `app` has the guard inside, `wrapped` around it.

`wrapped` is made when the module is imported, which a server with a preload does before it forks.
"""

import os
from pathlib import Path

from fastapi import FastAPI, Request

from ascend_middleware.asgi import AscendMiddleware

FOLDER = Path(os.environ["SERVED_FOLDER"])
RULES = {
    "ascend": {"agent_id": "served", "api_url": f"local:{FOLDER / 'policy.toml'}", "kill_switch": "off"},
    "rule": [
        {"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}},
        {"match": "POST /forbidden", "action_type": "forbidden"},
        {"match": "GET /pid", "exempt": True},
    ],
}


def make():
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/pid")
    async def pid():
        return os.getpid()

    @app.post("/pay")
    async def pay(request: Request):
        amount = (await request.json())["amount"]
        with (FOLDER / "ran").open("a") as ran:
            ran.write(f"{request.state.ascend.action_id} {amount}\n")
        return os.getpid()

    @app.post("/forbidden")
    async def forbidden():
        (FOLDER / "forbidden").touch()

    return app


app = make()
app.add_middleware(AscendMiddleware, rules=RULES)
wrapped = AscendMiddleware(make(), rules=RULES)
