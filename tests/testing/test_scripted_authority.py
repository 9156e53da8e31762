"""The scripted authority: each line of a script, through both clients and through the middleware's adapter."""

import inspect

import anyio
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ascend_middleware import exceptions as errors
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.client import AscendClient, AsyncAscendClient
from ascend_middleware.testing import ScriptedAuthority

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
KEY = "owkai_live_0123456789abcdef"


@pytest.fixture
def authority():
    with ScriptedAuthority() as scripted:
        yield scripted


def ask(authority, kind, work=None, **options):
    """Call `work(client)`, which submits an action unless told."""
    work = work or (lambda client: client.evaluate_action("transaction", "refund", {"amount": 5}))
    if kind == "sync":
        with authority.client(**options) as client:
            return work(client)

    async def main():
        async with authority.async_client(**options) as client:
            result = work(client)
            return await result if inspect.isawaitable(result) else result

    return anyio.run(main)


@KINDS
def test_what_nobody_scripted_is_denied_and_says_so(authority, kind):
    decision = ask(authority, kind)
    assert decision.is_denied() and "scripted no answer" in decision.reason


@KINDS
def test_approve_and_what_was_asked(authority, kind):
    authority.approve(risk_score=7)
    decision = ask(authority, kind)
    assert decision.is_approved() and decision.risk_score == 7
    (asked,) = authority.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/actions/submit")
    assert (asked.action_type, asked.resource, asked.agent_id) == ("transaction", "refund", "test-agent")
    assert asked.details == {"amount": 5}
    assert not {"authorization", "x-api-key"} & set(asked.headers) and asked.headers["idempotency-key"]


@KINDS
def test_lines_by_type_the_last_one_first_each_as_often_as_it_says(authority, kind):
    authority.approve()
    authority.deny("transaction", reason="no money", times=2)
    for expected in (True, True, False):
        assert ask(authority, kind).is_denied() is expected
    assert ask(authority, kind, lambda client: client.evaluate_action("data_access", "r")).is_approved()


@KINDS
def test_hold_then_a_person_decides_and_no_time_passes(authority, kind):
    authority.hold(then="approve", polls=30)
    decision = ask(authority, kind)
    assert decision.is_approved() and decision["decided_by"] == "a person"
    assert authority.time == pytest.approx(58)
    authority.hold(then="deny")
    assert ask(authority, kind).is_denied()
    authority.hold()
    assert ask(authority, kind).is_pending()
    authority.decide(approved=False, by="ada")
    status = ask(authority, kind, lambda client: client.get_action_status(3))
    assert status.is_denied() and status.reason == "denied by ada"
    with pytest.raises(LookupError):
        authority.decide(3)
    with pytest.raises(LookupError):
        authority.decide()


FAULTS = {
    "time out": (lambda it: it.time_out(), errors.TimeoutError),
    "refused": (lambda it: it.refuse_connections(), errors.NetworkError),
    "500": (lambda it: it.fail(), errors.ServerError),
    "401": (lambda it: it.fail(401), errors.AuthenticationError),
    "429": (lambda it: it.fail(429, headers={"Retry-After": "0"}), errors.RateLimitError),
    "html": (lambda it: it.garbage(), errors.ProtocolError),
    "kill": (lambda it: it.kill("stop"), errors.KillSwitchError),
}


@KINDS
@pytest.mark.parametrize("name", FAULTS)
def test_faults(authority, kind, name):
    script, expected = FAULTS[name]
    script(authority)
    with pytest.raises(expected):
        ask(authority, kind)


@KINDS
def test_faults_pass_and_a_killed_agent_is_revived(authority, kind):
    authority.approve()
    authority.fail(times=2)
    assert ask(authority, kind).is_approved()
    assert len(authority.asked) == 3, "two attempts failed"
    authority.kill()
    with pytest.raises(errors.KillSwitchError):
        ask(authority, kind)
    authority.revive()
    assert ask(authority, kind).is_approved()


@KINDS
def test_faults_of_polls_and_reports(authority, kind):
    authority.hold(then="approve")
    authority.garbage(on="status", times=1)
    with pytest.raises(errors.ProtocolError):
        ask(authority, kind)
    authority.approve()
    authority.fail(503, on="outcome", times=4)
    with pytest.raises(errors.ServerError):
        ask(authority, kind, lambda client: client.log_action_completed(1), max_retries=3)
    authority.fail(on="any", times=1)
    with pytest.raises(errors.ServerError):
        ask(authority, kind, lambda client: client.get_action_status(1), max_retries=0)


@KINDS
def test_outcomes_are_those_of_approved_actions(authority, kind):
    authority.approve()
    authority.deny("data_access")
    ask(authority, kind)
    ask(authority, kind, lambda client: client.evaluate_action("data_access", "r"))
    ask(authority, kind, lambda client: client.log_action_completed("1"))
    assert authority.outcomes == {"1": "completed"}
    with pytest.raises(errors.ConflictError):
        ask(authority, kind, lambda client: client.log_action_failed("2", "e"))
    with pytest.raises(errors.NotFoundError):
        ask(authority, kind, lambda client: client.log_action_failed("9", "e"))


@KINDS
def test_the_other_questions_of_a_client(authority, kind):
    authority.approve()
    assert ask(authority, kind, lambda client: client.test_connection()).connected
    ask(authority, kind)
    assert ask(authority, kind, lambda client: client.get_action(1)).resource == "refund"
    page = ask(authority, kind, lambda client: client.list_actions())
    assert [row.action_id for row in page.actions] == ["1"]
    with pytest.raises(errors.NotFoundError):
        ask(authority, kind, lambda client: client.get_action(2))


def test_engine_objects_serve_clients_that_are_made_elsewhere(authority):
    authority.approve()
    with AscendClient(KEY, api_url="http://localhost:1", agent_id="a", engine=authority.engine) as client:
        assert client.submit_action(action_type="t", resource="r").is_approved()

    async def main():
        client = AsyncAscendClient(KEY, api_url="http://localhost:1", agent_id="a", engine=authority.async_engine)
        async with client:
            return await client.submit_action(action_type="t", resource="r")

    assert anyio.run(main).is_approved()
    assert [asked.path for asked in authority.requests] == ["/api/v1/actions/submit"] * 2


RULES = {"ascend": {"agent_id": "shop"}, "rule": [{"match": "POST /refunds", "action_type": "transaction"}]}


def shop(api_url):
    app = FastAPI()
    app.add_middleware(AscendMiddleware, rules=RULES, api_url=api_url, max_retries=0)

    @app.post("/refunds")
    def refund():
        return {"refunded": True}

    return app


def test_the_middleware_finds_it_by_its_url(authority):
    with TestClient(shop(authority.api_url)) as http:
        authority.approve()
        assert http.post("/refunds").json() == {"refunded": True}
        authority.deny(reason="no")
        assert http.post("/refunds").status_code == 403
        for script in (authority.time_out, authority.refuse_connections, authority.fail, authority.garbage):
            script()
            assert http.post("/refunds").status_code == 503
        authority.hold()
        assert http.post("/refunds").json()["type"] == "urn:ascend:problem:approval-required"
    assert authority.asked[0].agent_id == "shop"
    assert authority.outcomes == {"1": "completed"}
    with TestClient(shop(authority.api_url)) as http:
        authority.kill()
        assert http.post("/refunds").json()["type"] == "urn:ascend:problem:kill-switch"


def test_a_name_is_found_only_while_its_authority_is_open():
    with ScriptedAuthority("mine") as authority:
        assert authority.api_url == "test:mine"
        AscendClient(api_url="test:mine", agent_id="a").close()
        with pytest.raises(errors.ConfigurationError), ScriptedAuthority("mine"):
            pass
    with AscendClient(api_url="test:mine", agent_id="a") as client:
        with pytest.raises(errors.ConfigurationError, match="no scripted authority"):
            client.evaluate_action("transaction", "refund")
        with ScriptedAuthority("mine") as another:
            assert client.evaluate_action("transaction", "refund").is_denied()
        assert len(another.asked) == 1 and authority.asked == []
    authority.client().close()  # its own clients need no name
    with pytest.raises(errors.ConfigurationError):
        authority.client(api_url="http://localhost")


@pytest.mark.parametrize(
    "call", [lambda it: it.hold(then="maybe"), lambda it: it.fail(on="weekends"), lambda it: it.time_out(on="")]
)
def test_a_script_that_makes_no_sense_is_told(call):
    with pytest.raises(ValueError):
        call(ScriptedAuthority())
