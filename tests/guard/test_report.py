"""The command `report` tells what observe mode would have refused."""

import json
import os
import signal

import pytest
from fastapi import FastAPI
from kit import asgi
from starlette.testclient import TestClient

from ascend_middleware import Agent
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.cli import main

RULES = [
    {"match": "GET /orders/{id}", "action_type": "data_access"},
    {"match": "POST /refunds", "name": "refunds", "action_type": "transaction"},
    {"match": "GET /health", "exempt": True},
]


def page():
    return {}


@pytest.fixture
def observed(ascend_authority, tmp_path):
    """Opens a client of an application that observes."""

    def observed(rules=RULES, **settings):
        app = FastAPI(openapi_url=None)
        options = {"journal": str(tmp_path / "journal"), "mode": "observe", "kill_switch": "off", **settings}
        app.add_middleware(
            AscendMiddleware, rules={"rule": rules}, identify=lambda request: Agent(request.headers["x-bot"]), **options
        )
        for path in ("/orders/{id}", "/refunds", "/health", "/forgotten/{id}", "/openapi.json", "/payments"):
            app.add_api_route(path, page, methods=["GET", "POST"])
        return TestClient(app)

    return observed


@pytest.fixture
def report(tmp_path, capsys):
    def report(*options):
        assert main(["report", "--journal", str(tmp_path / "journal"), *options]) == 0
        return capsys.readouterr().out

    return report


def send(client, *requests):
    for method, path, bot in requests:
        assert client.request(method, path, headers={"x-bot": bot}).status_code == 200


REQUESTS = [
    ("GET", "/orders/1", "a"),
    ("GET", "/orders/2", "b"),
    ("POST", "/refunds", "a"),
    ("POST", "/refunds", "a"),
    ("POST", "/refunds", "b"),
    ("GET", "/forgotten/1", "a"),
    ("GET", "/health", "a"),
]


def test_what_would_have_been_refused_is_counted_by_route_agent_and_reason(observed, report, ascend_authority):
    ascend_authority.approve("data_access")
    ascend_authority.deny("transaction", reason="refunds are closed")
    with observed() as client:
        send(client, *REQUESTS)
    found = json.loads(report("--json"))
    assert found["requests"] == 6
    refunds, forgotten = found["refused"]
    assert refunds == {
        "method": "POST",
        "route": "/refunds",
        "rule": "refunds",
        "would": "denied",
        "reason": "refunds are closed",
        "count": 3,
        "of": 3,
        "agents": {"a": 2, "b": 1},
    }
    assert (forgotten["route"], forgotten["would"], forgotten["count"]) == ("/forgotten/{id}", "unmapped-route", 1)
    assert found["rules"] == ['[[rule]]\nmatch = "GET /forgotten/{id}"\naction_type = "data_access"']
    assert found["first"] <= found["last"]


@pytest.mark.parametrize(
    ("rules", "mode", "would"),
    [([{**RULES[1], "mode": "observe"}], "enforce", "denied"), ([], "observe", "unmapped-route")],
)
def test_a_rule_or_the_guard_observes(observed, report, ascend_authority, rules, mode, would):
    ascend_authority.deny("transaction")
    with observed(rules, mode=mode) as client:
        send(client, ("POST", "/refunds", "a"))
    (refunds,) = json.loads(report("--json"))["refused"]
    assert (refunds["route"], refunds["would"], refunds["count"]) == ("/refunds", would, 1)


def test_a_denial_without_a_reason_leaves_the_reason_of_those_before(observed, report, ascend_authority):
    with observed() as client:
        for reason in ("refunds are closed", ""):
            ascend_authority.deny("transaction", reason=reason)
            send(client, ("POST", "/refunds", "a"))
    (refunds,) = json.loads(report("--json"))["refused"]
    assert (refunds["reason"], refunds["count"]) == ("refunds are closed", 2)


def test_people_read_what_to_do(observed, report, ascend_authority):
    ascend_authority.approve("data_access")
    ascend_authority.hold("transaction")
    with observed() as client:
        send(client, *REQUESTS)
    lines = report().splitlines()
    assert lines[0].startswith("6 requests from 20")
    assert "  3 of 3  POST /refunds  (refunds)" in lines
    assert "    approval-required: pending by the test" in lines
    assert "    for a 2, b 1" in lines
    assert '    a person would have to approve it: see who may, and whether pending = "wait:30s" helps' in lines
    assert lines[-3:] == ["[[rule]]", 'match = "GET /forgotten/{id}"', 'action_type = "data_access"']


def test_the_rules_to_start_from_are_those_that_routes_suggests(observed, report):
    with observed() as client:
        send(client, ("GET", "/openapi.json", "a"), ("POST", "/payments", "a"), ("POST", "/openapi.json", "a"))
    rules = dict(one.split("\n", 2)[1:] for one in json.loads(report("--json"))["rules"])
    assert rules == {
        'match = "GET /openapi.json"': "exempt = true",
        'match = "POST /payments"': 'action_type = "transaction"',
        'match = "POST /openapi.json"': 'action_type = "data_modification"',
    }


def test_of_a_route_that_mostly_passes_the_whole_number_is_told(observed, report, ascend_authority):
    ascend_authority.approve("data_access", times=3)
    with observed() as client:
        send(client, *[("GET", "/orders/1", "a")] * 4)
    (row,) = json.loads(report("--json"))["refused"]
    assert (row["count"], row["of"], row["would"]) == (1, 4, "denied")


def test_several_processes_are_added_up_and_forgotten_when_told_to(observed, report, ascend_authority):
    for _ in range(2):
        child = os.fork()
        if not child:
            try:
                with observed() as client:
                    send(client, ("GET", "/forgotten/1", "a"))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    assert "2 of 2  GET /forgotten/{id}  (no rule)" in report("--forget")
    assert report().startswith("nothing was observed")


def test_a_killed_process_has_told_all_but_its_last_seconds(observed, report, ascend_authority, monkeypatch):
    monkeypatch.setattr("ascend_middleware.guard.observations._SECONDS", 0.0)
    child = os.fork()
    if not child:
        try:
            client = observed()
            send(client, ("GET", "/forgotten/1", "a"), ("GET", "/forgotten/2", "a"))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert json.loads(report("--json"))["requests"] == 2


def test_what_enforces_is_not_counted(observed, report, ascend_authority):
    with observed(mode="enforce") as client:
        assert client.get("/orders/1", headers={"x-bot": "a"}).status_code == 403
    assert report().startswith("nothing was observed")


def test_no_more_is_kept_than_fits(observed, report, ascend_authority, monkeypatch):
    monkeypatch.setattr("ascend_middleware.guard.observations._MOST", 2)
    with observed() as client:
        send(client, *[("GET", "/forgotten/1", "a"), *[("GET", "/orders/1", f"bot-{number}") for number in range(9)]])
    found = json.loads(report("--json"))
    assert found["requests"] == 10
    assert {row["route"]: row["count"] for row in found["refused"]} == {"/forgotten/{id}": 1, "/orders/{id}": 1, "…": 8}


def test_of_many_ended_processes_the_newest_two_hundred_are_kept(observed, report, ascend_authority, tmp_path):
    def began():
        with observed() as client:
            send(client, ("GET", "/forgotten/1", "a"))
        (mine,) = set(tmp_path.glob("**/observed-*.json")) - left
        return mine

    left = set()
    mine = began()
    for count, gone in ((3, 0), (198, 0), (199, 0), (200, 1), (201, 2), (230, 31)):
        mine.unlink()
        left = {mine.with_name(f"observed-{number}-1-a.json") for number in range(count)}
        for path in left:
            path.write_text("[]")
            number = int(path.name.split("-")[1])
            os.utime(path, (number, number + 1000))
        mine = began()
        found = {path for path in left if path.exists()}
        assert left - found == {mine.with_name(f"observed-{number}-1-a.json") for number in range(gone)}
    assert json.loads(report("--json"))["requests"] == 1


@pytest.mark.anyio
async def test_what_a_caller_makes_up_is_kept_in_part_and_by_each_guard_of_a_process(
    authority, handler, report, tmp_path
):
    options = {"mode": "observe", "journal": str(tmp_path / "journal")}
    apps = [asgi.guard(handler, [{"match": "GET /a", "exempt": True}], **options) for _ in range(2)]
    for app, path in zip(apps, ("/" + "x" * 9000, "/odd\udc80"), strict=True):
        scope = {**asgi.http_scope(), "path": path}
        assert (await asgi.Wire(asgi.part()).through(app, scope)).status == 200
        await app.aclose()
    routes = {row["route"] for row in json.loads(report("--json"))["refused"]}
    assert routes == {"/" + "x" * 199, r"'/odd\udc80'"}
