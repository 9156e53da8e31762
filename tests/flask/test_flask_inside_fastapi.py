"""A Flask application that is mounted in a guarded FastAPI, by either WSGI adapter: decided once, run once, as it was decided."""

import asyncio
import json
import warnings

import a2wsgi
import flask
import pytest
from fastapi import FastAPI

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.flask import Ascend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated, and still used
    from starlette.middleware.wsgi import WSGIMiddleware

from kit.asgi import JSON, Wire, http_scope, part

OUTSIDE = {"match": "POST,PUT /old/**", "action_type": "outside", "details": {"amount": "body.amount"}}
INSIDE = {"match": "POST,PUT /orders/{number:int}", "action_type": "inside", "details": {"amount": "body.amount"}}
BODY = b'{"amount": 5}'


def site(adapter, ran, *, outside, inside):
    old = flask.Flask("old")

    @old.route("/orders/<int:number>", methods=["POST", "PUT"])
    def order(number):
        ran.append((flask.request.method, number, flask.request.get_data()))
        return "ordered"

    if inside is not None:
        Ascend(old, rules={"rule": [inside]})
    app = FastAPI()
    app.mount("/old", adapter(old))
    app.add_middleware(AscendMiddleware, rules={"rule": [outside]})
    return app


def ask(app, *parts, method="POST", path="/old/orders/7", headers=()):
    wire = Wire(*(part(one, more=one is not parts[-1]) for one in parts))
    length = ("content-length", str(sum(map(len, parts))))
    scope = http_scope(method, path, headers=[("host", "site"), *JSON, length, *headers])
    asyncio.run(asyncio.wait_for(app(scope, wire.receive, wire.send), 30))
    return wire


@pytest.fixture(params=[a2wsgi.WSGIMiddleware, WSGIMiddleware], ids=["a2wsgi", "starlette"])
def adapter(request):
    return request.param


WAYS = {
    "outside": {"outside": OUTSIDE, "inside": None},
    "inside": {"outside": {"match": "* /old/**", "exempt": True}, "inside": INSIDE},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("parts", [[BODY], [BODY[:4], BODY[4:]]], ids=["whole", "in parts"])
def test_one_decision_and_one_run_as_it_was_decided(ran, ascend_authority, adapter, way, method, parts):
    ascend_authority.approve()
    wire = ask(site(adapter, ran, **WAYS[way]), *parts, method=method)
    assert (wire.status, wire.body, ran) == (200, b"ordered", [(method, 7, BODY)])
    (asked,) = ascend_authority.asked
    assert (asked.body["action_type"], asked.body["action_details"]) == (way, {"amount": 5})


@pytest.mark.parametrize("way", WAYS)
def test_what_is_denied_or_asks_for_another_method_does_not_run(ran, ascend_authority, adapter, way):
    app = site(adapter, ran, **WAYS[way])
    ascend_authority.approve()
    assert ask(app, BODY, headers=[("x_http-method_override", "PUT")]).status == 400
    ascend_authority.deny()
    assert ask(app, BODY).problem == "denied"
    assert ask(app, BODY, path="/old//orders/7").status in (400, 404)
    assert (ran, len(ascend_authority.asked)) == ([], 1)


def test_where_both_govern_both_have_to_allow_it(ran, ascend_authority, adapter):
    """Each has rules of its own, and may belong to somebody else."""
    app = site(adapter, ran, outside=OUTSIDE, inside=INSIDE)
    ascend_authority.approve()
    ascend_authority.deny("inside", times=1)
    assert ask(app, BODY).problem == "denied"
    assert ran == []
    assert ask(app, BODY).status == 200
    assert ran == [("POST", 7, BODY)]
    assert [one.body["action_type"] for one in ascend_authority.asked] == ["outside", "inside"] * 2
    assert {json.dumps(one.body["action_details"]) for one in ascend_authority.asked} == {'{"amount": 5}'}
