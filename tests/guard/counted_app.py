"""Print what one governed request costs: `counted_app.py FRAMEWORK WAY`, in a process of its own.

One line for each call of a Python function of the package (or resumption of a generator) in the thread that serves the
request. The journal is on, and the authority is asked over HTTP. `counted_app.py bytes WAY` prints how many bytes are
allocated at once during such a request, with an engine that answers at once and a handler that does next to nothing.
"""

import asyncio
import gc
import io
import json
import os
import sys
import tempfile
import tracemalloc
from pathlib import Path

import uvicorn
from authority_stub import AuthorityStub

ROOT = str(Path(__file__).parents[2] / "ascend_middleware") + os.sep
RULES = [
    {"match": "GET /customers/{customer_id}", "action_type": "data_access", "resource_id": "{path.customer_id}"},
    {"match": "GET /exempt/{customer_id}", "exempt": True},
    {"match": "GET /cached/{customer_id}", "action_type": "cached", "cache": "1h"},
    *({"match": f"GET /{way}/{{customer_id}}", "action_type": way} for way in ("denied", "held")),
]
WORDS = {"denied": "denied", "held": "pending"}
STATUSES = {"denied": 403, "held": 403}
WAY = "allowed"
PATH = "/customers/7"


def count(ask):
    """Serve a few requests, and return the calls of the shortest: now and then one reads the kill state for the others."""
    for _ in range(5):
        ask()
    found = []
    for _ in range(5):
        calls = []

        def note(frame, event, _, calls=calls):
            if event == "call" and frame.f_code.co_filename.startswith(ROOT):
                calls.append(f"{frame.f_code.co_filename.removeprefix(ROOT)}:{frame.f_code.co_qualname}")

        sys.setprofile(note)
        try:
            ask()
        finally:
            sys.setprofile(None)
        found.append(calls)
    return min(found, key=len)


def count_asgi(app):
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))

    async def ask():
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: site\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 %d" % STATUSES.get(WAY, 200))
        writer.close()

    async def start():
        nonlocal serving
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.001)

    async def stop():
        server.should_exit = True
        await serving

    serving = None
    with asyncio.Runner() as loop:
        loop.run(start())
        found = count(lambda: loop.run(ask()))
        loop.run(stop())
    return found


def count_wsgi(app):
    def ask():
        statuses = []
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": PATH,
            "RAW_URI": PATH,
            "QUERY_STRING": "",
            "SERVER_NAME": "site",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "site",
            "HTTP_ACCEPT": "*/*",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        parts = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
        b"".join(parts)
        if hasattr(parts, "close"):
            parts.close()
        assert statuses == ["200 OK"], statuses

    return count(ask)


def fastapi(given):
    from fastapi import FastAPI

    from ascend_middleware.fastapi import AscendMiddleware

    app = FastAPI(openapi_url=None)

    @app.get("/{way}/{customer_id}".replace("{way}", PATH.split("/")[1]))
    async def read(customer_id: int):
        return {"id": customer_id}

    app.add_middleware(AscendMiddleware, **given)
    return count_asgi(app)


def flask(given):
    import flask

    from ascend_middleware.flask import Ascend

    app = flask.Flask("site", static_folder=None)

    @app.get("/customers/<int:customer_id>")
    def read(customer_id):
        return {"id": customer_id}

    Ascend(app, **given)
    return count_wsgi(app)


def django(given):
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path

    sys.modules["counted_urls"] = urls = type(sys)("counted_urls")
    urls.urlpatterns = [path("customers/<int:customer_id>", lambda request, customer_id: JsonResponse({"id": 7}))]
    settings.configure(
        ALLOWED_HOSTS=["site"],
        ROOT_URLCONF="counted_urls",
        SECRET_KEY="-",
        INSTALLED_APPS=["ascend_middleware.django"],
        STATIC_URL=None,
        MIDDLEWARE=["ascend_middleware.django.AscendMiddleware"],
        ASCEND=given,
    )
    django.setup()
    return count_wsgi(get_wsgi_application())


def wsgi(given):
    from ascend_middleware.wsgi import AscendMiddleware

    def app(environ, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"done"]

    return count_wsgi(AscendMiddleware(app, **given))


class Instant:
    """An authority that answers at once."""

    def begin(self, request, timeout):
        return None

    async def send(self, request, timeout):
        from ascend_middleware.client.http import Response

        word = WORDS.get(WAY, "approved")
        body = {"action_id": 7, "status": word, "decision": word, "policy_state": "1", "reason": "x" * 200}
        return Response(200, {"content-type": "application/json"}, json.dumps(body).encode())

    async def aclose(self):
        pass


def allocated(given):
    """Return the bytes that are allocated at once, at the least, during a request."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    import ascend_middleware.adapters.runner
    from ascend_middleware.asgi import AscendMiddleware

    class Handler:
        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

    ascend_middleware.adapters.runner.open_async_engine = lambda settings, **_: Instant()
    ascend_middleware.adapters.runner.build_worker = lambda *_, **__: None  # what it does meanwhile is no part of it
    app = Starlette(routes=[Route(f"/{PATH.split('/')[1]}/{{customer_id}}", Handler(), methods=["GET"])])
    app.add_middleware(AscendMiddleware, **given)
    headers = [(b"host", b"site"), (b"user-agent", b"x"), (b"accept", b"*/*")]

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            assert message["status"] == STATUSES.get(WAY, 200), message

    async def ask():
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
        scope |= {"path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "headers": headers}
        await app({**scope, "server": ("site", 80), "client": ("client", 1), "state": {}}, receive, send)

    async def measure():
        found = []
        for _ in range(80):
            gc.collect()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await ask()
            found.append(tracemalloc.get_traced_memory()[1] - before)
        return min(found[10:])

    gc.disable()
    tracemalloc.start()
    return [str(asyncio.run(measure()))]


if __name__ == "__main__":
    WAY = sys.argv[2]
    PATH = PATH if WAY == "allowed" else f"/{WAY}/7"
    with tempfile.TemporaryDirectory() as journal:
        stub = AuthorityStub()
        stub.words, stub.more = WORDS, {"policy_state": "1"}
        given = {
            "rules": {"rule": RULES},
            "agent_id": "bot",
            "api_url": stub.url,
            "api_key": "owkai_test_0123456789abcdef",
            "state": "memory:",
            "kill_switch": "off",
            "journal": journal,
        }
        print("\n".join((allocated if sys.argv[1] == "bytes" else globals()[sys.argv[1]])(given)))
