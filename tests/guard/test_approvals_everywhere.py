"""The loop of an approval behind every adapter, over its framework's own client."""

import flask
import pytest
from fastapi import FastAPI
from kit.asgi import ask
from starlette.testclient import TestClient
from werkzeug.test import Client as WerkzeugClient

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware as WSGIMiddleware

RULES = {
    "ascend": {"report_outcomes": False},
    "rule": [
        {"match": "POST /refunds/{id}", "action_type": "transaction", "details": {"amount": "body.amount"}},
        {"match": "PUT /files/{name}", "action_type": "data_modification"},
    ],
}


class FastAPIParty:
    def __init__(self, ran):
        app = FastAPI()
        app.add_middleware(AscendMiddleware, rules=RULES)

        @app.post("/refunds/{id}")
        def refund(id: int, body: dict):
            ran.append(body)

        @app.put("/files/{name}")
        def upload(name: str):
            ran.append(name)

        self.client = TestClient(app)

    def ask(self, method, path, **given):
        answer = self.client.request(method, path, **given)
        return answer.status_code, answer.json(), answer.headers


class FlaskParty:
    def __init__(self, ran, **options):
        app = flask.Flask("approvals")
        Ascend(app, rules=RULES, **options)
        app.post("/refunds/<int:id>", endpoint="refund")(lambda id: ran.append(flask.request.get_json()) or {})
        app.put("/files/<name>", endpoint="upload")(lambda name: ran.append(flask.request.get_data()) or {})
        self.client = app.test_client()

    def ask(self, method, path, *, content=None, **given):
        answer = self.client.open(path, method=method, data=content, **given)
        return answer.status_code, answer.json, answer.headers


class WSGIParty(FlaskParty):
    def __init__(self, ran, **options):
        def app(environ, start_response):
            ran.append(environ["wsgi.input"].read())
            start_response("200 OK", [("content-type", "application/json")])
            return [b"{}"]

        self.client = WerkzeugClient(WSGIMiddleware(app, rules=RULES, **options))


every_party = pytest.mark.parametrize("kind", [FastAPIParty, FlaskParty, WSGIParty])


@every_party
def test_held_resumed_once_and_told(ascend_authority, ran, kind):
    party = kind(ran)
    ascend_authority.hold()
    body = {"amount": 5}
    status, held, headers = party.ask("POST", "/refunds/7", json=body)
    assert (status, held["type"]) == (403, "urn:ascend:problem:approval-required")
    handle, url = held["approval"]["handle"], held["approval"]["status_url"]
    assert (headers["ascend-approval"], headers["location"]) == (handle, url)
    assert party.ask("GET", url)[:2] == (200, {"state": "pending"})
    given = {"headers": {"Ascend-Approval": handle}}
    assert party.ask("POST", "/refunds/7", json=body, **given)[0] == 403
    ascend_authority.decide()
    for path, other in (("/refunds/8", body), ("/refunds/7", {"amount": 6})):
        status, problem, _ = party.ask("POST", path, json=other, **given)
        assert (status, problem["type"]) == (409, "urn:ascend:problem:approval-mismatch")
    assert ran == []
    assert party.ask("POST", "/refunds/7", json=body, **given)[0] == 200
    assert len(ran) == 1
    status, problem, _ = party.ask("POST", "/refunds/7", json=body, **given)
    assert (status, problem["outcome"], len(ran)) == (409, "completed", 1)
    assert party.ask("GET", url)[:2] == (200, {"state": "used"})
    assert party.ask("GET", "/.ascend/approvals/guessed")[0] == 404


@every_party
def test_a_body_that_no_rule_reads_is_bound_and_reaches_the_handler(ascend_authority, ran, kind):
    party = kind(ran)
    ascend_authority.hold()
    handle = party.ask("PUT", "/files/a", content=b"one")[1]["approval"]["handle"]
    given = {"headers": {"Ascend-Approval": handle}}
    ascend_authority.decide()
    assert party.ask("PUT", "/files/a", content=b"two", **given)[0] == 409
    assert party.ask("PUT", "/files/a", content=b"one", **given)[0] == 200
    assert ran == (["a"] if kind is FastAPIParty else [b"one"])


@pytest.mark.parametrize("kind", [FlaskParty, WSGIParty])
def test_a_block(ascend_authority, monkeypatch, ran, kind):
    party = kind(ran)
    ascend_authority.approve()
    monkeypatch.setenv("ASCEND_KILL", "test-agent")
    status, problem, _ = party.ask("PUT", "/files/a", content=b"one")
    assert (status, problem["type"], ran) == (503, "urn:ascend:problem:kill-switch", [])


@every_party
def test_the_status_url_under_a_prefix_beyond_ascii(ascend_authority, kind):
    party = kind([])
    ascend_authority.hold()
    if kind is FastAPIParty:
        answer = TestClient(party.client.app, root_path="/東京").post("/東京/refunds/7", json={"amount": 5})
        held = answer.json()
    else:
        answer = party.client.open("/refunds/7", method="POST", json={"amount": 5}, base_url="http://localhost/東京/")
        held = answer.json
    handle = held["approval"]["handle"]
    assert answer.status_code == 403
    assert answer.headers["location"] == f"/%E6%9D%B1%E4%BA%AC/.ascend/approvals/{handle}"


def in_a_style_of_its_own(status, headers, body):
    return status, [*headers, ("x-place", "東京")], body


@pytest.mark.anyio
async def test_headers_beyond_ascii_of_render_go_out_over_asgi(ascend_authority, handler):
    app = AscendMiddleware(handler, rules=RULES, render=in_a_style_of_its_own)
    ascend_authority.deny("no")
    wire = await ask(app, "/files/a", "PUT", headers=())
    assert (wire.status, dict(wire.sent[0]["headers"])[b"x-place"], handler.ran) == (403, "東京".encode(), 0)


@pytest.mark.parametrize("kind", [FlaskParty, WSGIParty])
def test_headers_beyond_ascii_of_render_go_out_over_wsgi(ascend_authority, kind):
    ascend_authority.deny("no")
    status, _, headers = kind([], render=in_a_style_of_its_own).ask("POST", "/refunds/7", json={"amount": 5})
    assert (status, headers["x-place"].encode("latin-1")) == (403, "東京".encode())
