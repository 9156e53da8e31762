"""The applications that the servers' tests start: Flask by its extension, and plain WSGI; what ran stands in a file."""

import json
import os
import time
from pathlib import Path

import flask

from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware

FOLDER = Path(os.environ["SERVED_FOLDER"])
FIELDS = {"details": {"amount": "body.amount"}}
RULES = [
    {"match": "POST /pay", "action_type": "pay", **FIELDS},
    {"match": "POST /stream", "action_type": "stream", **FIELDS},
    {"match": "POST /up", "action_type": "up"},
    {"match": "GET /ticks", "action_type": "ticks"},
    {"match": "GET,POST /export", "action_type": "export"},
    {"match": ["GET /ping", "GET /pid"], "exempt": True},
]
GIVEN = {
    "rules": {"rule": RULES},
    "api_url": os.environ["SERVED_AUTHORITY"],
    "api_key": "owkai_test_0123456789abcdef",
    "agent_id": "served",
    "max_retries": 0,
}


def ran(line):
    # One write, at the end of the file: workers share it.
    descriptor = os.open(FOLDER / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def ticks():
    for tick in range(3):
        yield f"tick{tick}\n".encode()
        time.sleep(0.02)


def flask_application():
    app = flask.Flask("served", static_folder=None)
    request = flask.request

    def answer(name, size):
        ran(f"{name} {size}")
        return flask.jsonify(len=size), 200, {"x-handler": name}

    app.add_url_rule("/pay", "pay", lambda: answer("pay", len(request.get_data())), methods=["POST"])
    app.add_url_rule("/export", "export", lambda: answer("export", 0), methods=["GET", "POST"])
    app.add_url_rule("/ping", "ping", lambda: "pong")
    app.add_url_rule("/pid", "pid", lambda: str(os.getpid()))

    def stream():
        return answer(request.path[1:], sum(map(len, iter(lambda: request.stream.read(1000), b""))))

    app.add_url_rule("/stream", "stream", stream, methods=["POST"])
    app.add_url_rule("/up", "up", stream, methods=["POST"])
    app.add_url_rule("/ticks", "ticks", lambda: flask.Response(ticks(), headers={"x-handler": "ticks"}))
    Ascend(app, **GIVEN)
    return app


def dispatch(environ, start_response):
    path = environ["PATH_INFO"]
    if path in ("/ping", "/pid"):
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"pong" if path == "/ping" else str(os.getpid()).encode()]
    if path == "/ticks":
        start_response("200 OK", [("x-handler", "ticks")])
        return ticks()
    size = 0
    left = None if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
    while left is None or left > 0:
        part = environ["wsgi.input"].read(1000 if left is None else min(left, 1000))
        if not part:
            break
        size += len(part)
        left = None if left is None else left - len(part)
    ran(f"{path[1:]} {size}")
    body = json.dumps({"len": size}).encode()
    start_response("200 OK", [("x-handler", path[1:]), ("content-length", str(len(body)))])
    return [body]


flask_app = flask_application()
wsgi_app = AscendMiddleware(dispatch, **GIVEN)

if os.environ.get("SERVED_EARLY"):
    # Something asks already where the server forks later: an engine that was opened here must not be used there.
    for early in (flask_app, wsgi_app):
        from werkzeug.test import Client

        assert Client(early).get("/ticks").status_code == 200
