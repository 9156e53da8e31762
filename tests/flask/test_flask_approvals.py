"""A held request is resumed by repeating it with its handle: in Flask and in plain WSGI, also below a prefix."""

import json

import flask
import pytest
from kit.engine import answer, options
from kit.wsgi import Handler
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware

RULES = [{"match": "POST /pay", "action_type": "pay"}]


def flask_application(ran, **settings):
    app = flask.Flask("site")
    app.add_url_rule("/pay", "pay", lambda: ran.append(flask.request.get_data()) or "paid", methods=["POST"])
    Ascend(app, **options(RULES, **settings))
    return app


def wsgi_application(ran, **settings):
    class Recording(Handler):
        def __call__(self, environ, start_response):
            parts = super().__call__(environ, start_response)
            ran.append(self.body)
            return parts

    return AscendMiddleware(Recording(), **options(RULES, **settings))


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("build", [flask_application, wsgi_application])
def test_an_approval_runs_the_handler_once(ran, engine, build, prefix):
    app = build(ran)
    if prefix:
        app = DispatcherMiddleware(flask.Flask("nothing"), {prefix: app})
    client = Client(app)
    engine.answers = [answer("pending")]
    held = client.post(f"{prefix}/pay", data=b"five")
    body = json.loads(held.data)
    assert (held.status_code, body["type"].rpartition(":")[2], ran) == (403, "approval-required", [])
    url = body["approval"]["status_url"]
    assert url.startswith(f"{prefix}/.ascend/approvals/")
    assert client.get(url).status_code in (200, 202)
    handle = {"Ascend-Approval": body["approval"]["handle"]}
    assert client.post(f"{prefix}/pay", data=b"five", headers=handle).status_code == 403
    engine.answers = [answer("approved")]
    assert client.post(f"{prefix}/pay", data=b"more", headers=handle).status_code == 409
    assert ran == []
    assert client.post(f"{prefix}/pay", data=b"five", headers=handle).status_code == 200
    assert client.post(f"{prefix}/pay", data=b"five", headers=handle).status_code == 409
    assert ran == [b"five"]
    assert client.get(f"{prefix}/.ascend/approvals/{'0' * 43}").status_code == 404
