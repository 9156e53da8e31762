"""The example client goes through the loop that an agent runs."""

import importlib.util
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ascend_middleware.asgi import AscendMiddleware

PATH = Path(__file__).parents[2] / "examples" / "approval_loop.py"
URL = "http://testserver/refunds"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("approval_loop", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(ascend_authority):
    app = FastAPI()
    rule = {"match": "POST /refunds", "action_type": "transaction", "details": {"amount": "body.amount"}}
    app.add_middleware(AscendMiddleware, rules={"rule": [rule]}, report_outcomes=False, poll_interval=0.001)

    @app.post("/refunds")
    def refund(body: dict):
        return {"refunded": body["amount"]}

    with TestClient(app, headers={"Authorization": "Bearer alice"}) as http:
        yield http


def act(example, client, **more):
    return example.act(client, URL, {"amount": 5}, sleep=lambda _: None, **more)


def test_an_allowed_action_is_one_request(example, client, ascend_authority):
    ascend_authority.approve()
    assert act(example, client).json() == {"refunded": 5}


@pytest.mark.parametrize("approved", [True, False])
def test_a_held_one_waits_for_a_person(example, client, ascend_authority, approved):
    ascend_authority.hold()
    waited = []

    def decide(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            ascend_authority.decide(approved=approved)

    if approved:
        assert example.act(client, URL, {"amount": 5}, sleep=decide).json() == {"refunded": 5}
    else:
        with pytest.raises(example.Refused, match="denied"):
            example.act(client, URL, {"amount": 5}, sleep=decide)
    assert waited == [1.0, 1.0, 1.0]


def test_it_gives_up_and_finds_its_approval_later(example, client, ascend_authority):
    ascend_authority.hold()
    with pytest.raises(example.Refused, match="nobody decided"):
        act(example, client, patience=0.05)
    ascend_authority.decide()
    assert act(example, client).json() == {"refunded": 5}
    assert len(ascend_authority.asked) == 1


def test_a_denial_and_a_real_httpx_client_say_why(example, client, ascend_authority):
    ascend_authority.deny(reason="too much")
    with pytest.raises(example.Refused, match="too much"):
        act(example, client)
    with httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, text="done"))) as other:
        assert example.act(other, URL, {}).text == "done"
