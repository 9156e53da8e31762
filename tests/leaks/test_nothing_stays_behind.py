"""Guards, applications and event loops that were made and dropped leave no file, no thread and no object of ours."""

import asyncio
import collections
import gc
import os
import threading
import time

import flask
import pytest
from fastapi import FastAPI
from kit.asgi import Wire, http_scope, part
from kit.scripted import APPROVED, Scripted
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware.asgi import AscendMiddleware, install
from ascend_middleware.flask import Ascend

RULES = {"rule": [{"match": "* /**", "action_type": "act"}]}


class Outer:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


def done(request):
    return PlainTextResponse("done")


# As a module holds it, and each application mounts it.
shared = FastAPI(routes=[Route("/x", done)])
shared.add_middleware(Outer)


def made(settings):
    app = FastAPI(routes=[Mount("/sub", shared)])
    app.add_middleware(AscendMiddleware, rules=RULES, **settings)
    return app


async def ask(app):
    wire = Wire(part())
    await app(http_scope("GET", "/sub/x"), wire.receive, wire.send)
    assert wire.status == 200


async def served(settings):
    """From the server's start to its end."""
    app, inbox, outbox = made(settings), asyncio.Queue(), asyncio.Queue()
    lifespan = asyncio.ensure_future(app({"type": "lifespan", "asgi": {}, "state": {}}, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    await ask(app)
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await lifespan


def closed(settings):
    asyncio.run(served(settings))


def dropped(settings):
    asyncio.run(ask(made(settings)))


def flask_dropped(settings):
    app = flask.Flask("site")
    app.add_url_rule("/x", view_func=lambda: "done", endpoint="x")
    Ascend(app, rules=RULES, **settings)
    with app.test_client().get("/x") as answer:
        assert answer.status_code == 200


def standing():
    """Files, threads, and how many there are of each class of ours and of the event loops."""
    gc.collect()
    kinds = collections.Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    ours = {kind: count for kind, count in kinds.items() if kind.startswith(("ascend_middleware.", "asyncio."))}
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "entered": len(install._installed),
        **ours,
    }


def settled(wanted=None):
    """What stands once nothing changes any more, or what is wanted does: threads take a moment to end."""
    until, last, since = time.monotonic() + 60, None, time.monotonic()
    while time.monotonic() < until:
        found = standing()
        if found == wanted:
            return found
        if found != last:
            last, since = found, time.monotonic()
        elif time.monotonic() - since > (0.5 if wanted is None else 10):
            return found
        time.sleep(0.02)
    return last


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files as Linux shows them")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what was dropped and not closed
@pytest.mark.parametrize("many", [10, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shares", ["memory", "files"])
@pytest.mark.parametrize("use", [closed, dropped, flask_dropped], ids=lambda use: use.__name__)
def test_nothing_stays_of_many(use, shares, many, tmp_path):
    settings = {"api_key": "owkai_live_0123456789abcdef", "agent_id": "a"}
    if shares == "files":
        settings |= {"state": str(tmp_path / "state.db"), "journal": str(tmp_path / "journal"), "kill_switch": "poll"}
    with Scripted(APPROVED) as server:
        settings["api_url"] = server.url
        use(settings)  # what is made once for all
        before = settled()
        for _ in range(many):
            use(settings)
        after = settled(before)
        grown = {name: count - before.get(name, 0) for name, count in after.items()}
        # What an earlier test of this process left running may open a file meanwhile; a leak grows with how many.
        assert {name: count for name, count in grown.items() if count > max(1, many // 100)} == {}
