"""The contradictions between the documented APIs, C1 to C27, and how they are reconciled here.

The reference generation's halves (C6, C8) are in test_client_reference.py, the commands of C27 in
test_client_killswitch.py. The authority has no strict option for the required fields (C10).
"""

import builtins
import importlib.metadata
import io
import json
import logging

import anyio
import pytest
from kit.clients import ACTION, CLASSES, KEY, KINDS, House, run
from kit.clocked import World, answer
from kit.engine import Awaited
from kit.scripted import APPROVED, DROP, HANG, PENDING, Scripted, http

import ascend_middleware as package
from ascend_middleware import exceptions as errors
from ascend_middleware.api.answers import action_page
from ascend_middleware.api.decode import decode_decision
from ascend_middleware.api.models import AgentAction, Decision, DecisionStatus
from ascend_middleware.client import AscendClient, AsyncAscendClient, AsyncOWKAIClient, OWKAIClient


@pytest.fixture
def house():
    house = House()
    yield house
    house.authority.close()


def judged(**body):
    return decode_decision(json.dumps({"action_id": "7", **body}).encode())


def test_c1_one_word_per_decision():
    assert Decision.ALLOWED == "approved" == DecisionStatus.APPROVED.value
    assert Decision.ALLOWED is Decision.APPROVED
    assert hash(Decision.ALLOWED) == hash("approved")
    assert f"{Decision.ALLOWED} {Decision.PENDING}" == "approved pending"
    for word in ("allowed", "auto_approved", "executed"):
        assert Decision(word) is Decision.ALLOWED is judged(status=word).decision
    for word in ("pending_approval", "escalated"):
        assert Decision(word) is Decision.PENDING is judged(decision=word).decision


@pytest.mark.parametrize("word", ["sure", "APPROVED", "approved ", "", True, 1, ["approved"], {}])
def test_c1_an_unknown_word_is_unreadable(word):
    for field in ("decision", "status", "enforcement_decision"):
        with pytest.raises(errors.ProtocolError):
            judged(**{"decision": "approved", "status": "approved", field: word})


@KINDS
def test_c2_c24_connection_has_both_accesses(kind, house):
    status = run(kind, house, lambda client: client.test_connection())
    assert status["status"] == status.status == "connected"
    assert status.connected is True
    assert status["api_version"] == status.api_version == package.__version__
    assert status["server_time"] == status.server_time
    assert isinstance(status.latency_ms, float)
    assert status.get("error") is status.error is None
    assert "error" not in status
    status = run(kind, house, lambda client: client.test_connection(), api_key=KEY)
    assert (status["status"], status.connected) == ("error", False)
    assert status["error"] == status.error


@KINDS
def test_c2_c24_connection_of_the_reference_client(kind, house):
    def ask(key):
        if kind == "sync":
            return OWKAIClient("http://localhost", key, engine=house).test_connection()
        return anyio.run(AsyncOWKAIClient("http://localhost", key, engine=Awaited(house)).test_connection)

    status = ask(house.user)
    assert (status["status"], status["api_version"]) == ("connected", package.__version__)
    assert status["server_time"] and status.get("error") is None
    status = ask(KEY)
    assert status["status"] == "error" and isinstance(status["error"], str)


@KINDS
def test_c3_result_serves_object_mapping_and_enum(kind, house):
    result = run(kind, house, lambda client: client.submit_action(**ACTION))
    assert (result.is_approved(), result.is_denied(), result.is_pending()) == (True, False, False)
    assert result["decision"] == result.decision == Decision.ALLOWED == "approved"
    assert result["action_id"] == result.get("action_id") == result.action_id == "1"
    assert "risk_score" in result and set(result) >= {"reason", "created_at", "execution_allowed"}
    assert json.loads(json.dumps(result.to_dict()))["status"] == "approved"
    with pytest.raises(TypeError):
        bool(result)


@KINDS
def test_c4_pages_have_both_accesses(kind, house):
    for _ in range(3):
        run(kind, house, lambda client: client.submit_action(**ACTION))
    page = run(kind, house, lambda client: client.list_actions(limit=2))
    assert page.has_more is page["has_more"] is True
    assert (page.total, page.limit, page.offset, len(page.get("actions", []))) == (3, 2, 0, 2)
    row = page.actions[0]
    assert row.action_id == row["action_id"] and row.status == row["status"] == "approved"


def test_c4_every_documented_list_is_read_and_served(house):
    run("sync", house, lambda client: client.submit_action(**ACTION))
    _, fields = house.call("GET", "/api/v1/actions")
    assert house.call("GET", "/api/agent-activity")[1] == fields
    assert fields["actions"] == fields["data"] and fields["pagination"]["total"] == fields["total"] == 1
    enveloped = house.call("GET", "/api/v2/actions")[1]
    for shape in (fields, enveloped, {"actions": fields["actions"]}, {"data": fields["data"], "pagination": {}}):
        page = action_page(json.dumps(shape).encode(), limit=50, offset=0)
        assert [row.action_id for row in page.actions] == ["1"]
        assert (page.total, page.has_more) == (1, False)


@KINDS
@pytest.mark.parametrize("unit", [{"timeout_ms": 100}, {"timeout": 0.1}, {"timeout_seconds": 0.1}])
def test_c5_c6_waits_have_one_unit_and_expire_with_an_error(kind, unit):
    with Scripted(PENDING) as server:
        with pytest.raises(builtins.TimeoutError) as caught:
            run(kind, server.url, lambda client: client.wait_for_decision("7", poll_interval=0.05, **unit))
        assert isinstance(caught.value, errors.TimeoutError)
        assert "0.1 s" in str(caught.value)
        asked = len(server.requests)
        other = {"timeout": 1} if "timeout" not in unit else {"timeout_ms": 1}
        with pytest.raises(errors.ValidationError):
            run(kind, server.url, lambda client: client.wait_for_decision("7", **unit, **other))
        assert len(server.requests) == asked


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient, OWKAIClient, AsyncOWKAIClient])
@pytest.mark.parametrize("caught", [errors.AuthenticationError, ValueError, errors.MissingAPIKeyError])
def test_c7_missing_key_is_both_errors_and_names_the_variable_of_the_generation(cls, caught, monkeypatch):
    for name in ("ASCEND_API_KEY", "OWKAI_API_KEY"):
        monkeypatch.setenv(name, " ")
    variable = "OWKAI_API_KEY" if "OWKAI" in cls.__name__ else "ASCEND_API_KEY"
    with pytest.raises(caught, match=rf"^API key is required\..*{variable}"):
        cls(api_url="http://localhost:1")


def test_c8_errors_are_the_builtins_of_their_names():
    assert issubclass(errors.TimeoutError, builtins.TimeoutError)
    assert issubclass(errors.NetworkError, builtins.ConnectionError)
    assert issubclass(errors.AuthorizationDeniedError, builtins.PermissionError)
    assert issubclass(errors.ValidationError, ValueError)
    for name in errors.__all__:
        assert name in ("Problem", "toml_problem") or issubclass(getattr(errors, name), errors.AscendError)


@KINDS
def test_c8_caught_by_their_bare_names(kind):
    with Scripted(http(403, {"detail": "no"}), DROP, HANG) as server:
        for bare in (PermissionError, ConnectionError, TimeoutError):
            with pytest.raises(bare):
                seconds = 0.3 if bare is TimeoutError else 10
                run(kind, server.url, lambda client: client.submit_action(ACTION), timeout=seconds)


def test_c9_tool_name_is_optional_and_comes_after_the_first_eight():
    action = AgentAction("a", "A", "t", "r", "id", {"n": 1}, {"c": 1}, {"i": 1})
    assert (action.resource_id, action.action_details, action.context) == ("id", {"n": 1}, {"c": 1})
    assert action.tool_name is None
    assert AgentAction(agent_id="a", agent_name="A", action_type="t", resource="r", tool_name="x").tool_name == "x"
    assert AgentAction("a", "A", "t", "r").to_dict() == {
        "agent_id": "a", "agent_name": "A", "action_type": "t", "resource": "r",
    }  # fmt: skip


@KINDS
@pytest.mark.parametrize(
    "fields",
    [
        {"agent_id": "a", "action_type": "data_access", "description": "d", "tool_name": "t"},
        ACTION | {"agent_name": "A"},
        {"agent_id": "a", "action_type": "data_access", "parameters": {"n": 1}},
        ACTION | {"description": "another text"},
    ],
)
def test_c10_every_documented_set_of_fields_is_decided(kind, house, fields):
    assert run(kind, house, lambda client: client.submit_action(**fields)).is_approved()


def test_c10_resource_and_description_are_both_kept(house):
    run("sync", house, lambda client: client.submit_action(ACTION | {"description": "another text"}))
    record = run("sync", house, lambda client: client.get_action(1))
    assert (record["resource"], record["description"]) == ("r", "another text")


def test_c10_the_two_required_fields_are_required(house):
    for missing in ("agent_id", "action_type"):
        body = {name: value for name, value in ACTION.items() if name != missing}
        status, fields = house.call("POST", "/api/v1/actions/submit", body)
        assert (status, fields["error"]["code"]) == (400, "INVALID_REQUEST")
    with pytest.raises(errors.ValidationError) as caught:
        run("sync", house, lambda client: client.submit_action(resource="r"))
    assert caught.value.field == "action_type"


def test_c11_parameters_and_action_details_are_one_thing(house):
    same = {"parameters": {"n": 1}, "action_details": {"n": 1}}
    other = {"parameters": {"n": 1}, "action_details": {"n": 2}}
    assert run("sync", house, lambda client: client.submit_action(ACTION | same)).is_approved()
    sent = json.loads(house.asked[-1].content)
    assert sent["action_details"] == {"n": 1} and "parameters" not in sent
    with pytest.raises(errors.ValidationError):
        run("sync", house, lambda client: client.submit_action(ACTION | other))
    assert len(house.asked) == 1
    assert house.call("POST", "/api/v1/actions/submit", ACTION | same)[0] == 200
    assert house.call("POST", "/api/v1/actions/submit", ACTION | other)[0] == 422


@KINDS
@pytest.mark.parametrize("fail_mode", ["closed", "open"])
def test_c12_evaluate_returns_what_is_still_pending(kind, house, fail_mode):
    result = run(
        kind, house, lambda client: client.evaluate_action("transaction", "r", timeout=0.5), fail_mode=fail_mode
    )
    assert result.decision == Decision.PENDING and not result.execution_allowed
    assert result.approval_request_id
    assert [request.method for request in house.asked] == ["POST", "GET"]


@CLASSES
def test_c13_thirty_seconds_for_the_whole_call(cls):
    assert cls(KEY, api_url="http://localhost:1").settings.timeout == 30
    world = World(answer(503), cost=4.0)
    with pytest.raises(errors.ServerError):
        world.run(world.core.submit(AgentAction("a", "a", "t", "r")))
    assert world.sent[0].timeout == 30
    assert all(step.timeout <= 30 - 4 * number for number, step in enumerate(world.sent))


@KINDS
def test_c14_flat_and_enveloped_decisions(kind, house):
    assert house.call("POST", "/api/v1/actions/submit", ACTION)[1]["status"] == "approved"
    held = ACTION | {"action_type": "transaction"}
    _, dated = house.call("POST", "/api/v1/actions/submit", held, x_api_version="2025-12-01")
    _, second = house.call("POST", "/api/v2/actions/submit", held)
    for body in (dated, second):
        assert (body["status"], body["data"]["decision"]) == ("success", "pending_approval")
        assert set(body["meta"]) == {"request_id", "timestamp"}
        with Scripted(http(200, body)) as server:
            result = run(kind, server.url, lambda client: client.submit_action(ACTION))
            assert result.is_pending() and result.action_id == body["data"]["action_id"]


@KINDS
def test_c15_errors_in_both_forms(kind, house):
    status, body = house.call("GET", "/api/v1/actions/99")
    assert status == 404
    assert body["status"] == "error" and body["detail"]
    assert set(body["error"]) == {"code", "message", "details"} and set(body["meta"]) == {"request_id", "timestamp"}
    fields = {"code": "INVALID_REQUEST", "message": "agent_id is required", "details": {"field": "agent_id"}}
    for shape in (
        {"status": "error", "error": fields, "meta": {"request_id": "q"}},
        {"detail": "agent_id is required"},
        {"detail": [{"loc": ["body", "agent_id"], "msg": "agent_id is required"}]},
    ):
        with Scripted(http(400, shape)) as server, pytest.raises(errors.ValidationError) as caught:
            run(kind, server.url, lambda client: client.submit_action(ACTION))
        assert "agent_id is required" in str(caught.value)
        assert caught.value.code == ("INVALID_REQUEST" if "error" in shape else None)
        assert caught.value.field == (None if shape.get("detail") == "agent_id is required" else "agent_id")
        assert "error" not in shape or caught.value.details == fields["details"]


@pytest.mark.parametrize(
    ("body", "headers", "found"),
    [
        ({"meta": {"request_id": "m"}, "correlation_id": "b"}, {"x_correlation_id": "h"}, "m"),
        ({"meta": {}, "correlation_id": "b"}, {"x_correlation_id": "h"}, "b"),
        ({"meta": "m", "correlation_id": ""}, {"x_correlation_id": "h"}, "h"),
        ({}, {"x_correlation_id": "h"}, "h"),
        ({"correlation_id": 7}, {"x_correlation_id": "h"}, None),
        ({}, {}, None),
    ],
)
def test_c15_an_error_says_by_which_id_the_authority_knows_it(body, headers, found):
    world = World(answer(404, {"detail": "no", **body}, **headers))
    with pytest.raises(errors.NotFoundError) as caught:
        world.run(world.core.submit(AgentAction(agent_name="A", **ACTION)))
    assert caught.value.correlation_id == (found or world.headers("X-Correlation-ID")[0])


@KINDS
def test_c16_the_key_goes_in_both_headers_and_is_known_in_either(kind, house):
    run(kind, house, lambda client: client.submit_action(ACTION))
    sent = dict(house.asked[-1].headers)
    assert (sent["Authorization"], sent["X-API-Key"]) == (f"Bearer {house.user}", house.user)

    def asks(**headers):
        return house.call("GET", "/api/deployment-info", **{"x_api_key": None, **headers})[0]

    assert asks(authorization=f"Bearer {house.user}") == asks(x_api_key=house.user) == 200
    assert asks(x_api_key=house.user, authorization="Bearer owkai_****") == 200
    assert asks(x_api_key=KEY, authorization=f"Bearer {house.user}") == 401
    assert asks(authorization=f"Basic {house.user}") == asks() == 401


@pytest.mark.parametrize("key", ["owkai_super_admin_x", "owkai_user_0123456", "owkai_live_01234", "ask_0123456789ab"])
def test_c17_every_documented_form_of_key(key):
    assert AscendClient(key, api_url="http://localhost:1").settings.api_key == key


@pytest.mark.parametrize(
    "key", ["owkai_xxx", "owkai_...", "ask_012345678", "OWKAI_live_0123456789", "sk_0123456789abcdef"]
)
def test_c17_placeholders_and_other_forms_are_refused(key):
    with pytest.raises(errors.AuthenticationError) as caught:
        AscendClient(key, api_url="http://localhost:1")
    assert key not in str(caught.value)


def test_c17_a_role_in_the_key_is_no_role(house):
    status = run("sync", house, lambda client: client.test_connection(), api_key="owkai_super_admin_0123456789")
    assert not status.connected


@KINDS
def test_c18_action_ids(kind, house):
    decision = run(kind, house, lambda client: client.submit_action(ACTION))
    assert int(decision.action_id) == 1
    for spelling in (1, "1", "act_1"):
        assert run(kind, house, lambda client: client.get_action_status(spelling)).action_id == "1"
        assert run(kind, house, lambda client: client.get_action(spelling))["action_id"] == "1"
    for name in ("action_id", "id"):
        for spelling in (7, "7", "act_7"):
            body = json.dumps({name: spelling, "status": "approved"}).encode()
            assert decode_decision(body).action_id == "7"
        assert judged(**{"action_id": None, "status": "approved", name: 0}).action_id == "0"
        for nobody in (-1, True, 7.0, "act 7", [7], {"id": 7}):
            with pytest.raises(errors.ProtocolError, match="not an action id"):
                judged(**{"action_id": None, "status": "approved", name: nobody})
    for names in ({"action_id": "7", "id": 7}, {"action_id": "", "id": "act_7"}):
        assert judged(status="approved", **names).action_id == "7"
    with pytest.raises(errors.ProtocolError, match="two different actions"):
        judged(status="approved", action_id=7, id=8)


@KINDS
@pytest.mark.parametrize("fields", [{"mcp_server_name": "unheard"}, {"model_id": 99}])
def test_c19_unregistered_is_a_denial(kind, house, fields):
    result = run(kind, house, lambda client: client.evaluate_action("data_access", "r", **fields), fail_mode="open")
    assert result.is_denied() and result.reason
    assert result.metadata["governance_violation"]["code"]
    with pytest.raises(errors.AuthorizationDeniedError):
        run(kind, house, lambda client: client.evaluate_action("data_access", "r", raise_on_denied=True, **fields))
    known = {"mcp_server_name": "files"} if "mcp_server_name" in fields else {"model_id": 7}
    result = run(kind, house, lambda client: client.evaluate_action("data_access", "r", **known))
    assert result.is_approved()
    assert (result.mcp_governance or result.model_governance)["enforcement"]


def test_c20_python_of_this_package():
    assert importlib.metadata.metadata("ascend-middleware")["Requires-Python"] == ">=3.11"


@KINDS
def test_c21_product_token_of_our_own(kind, house):
    run(kind, house, lambda client: client.submit_action(ACTION))
    assert dict(house.asked[-1].headers)["User-Agent"].startswith("ascend-middleware/")
    for agent in (None, "ascend-sdk/2.5.2 Python", "OWKAIClient/2.0 Python"):
        assert house.call("POST", "/api/v1/actions/submit", ACTION, user_agent=agent)[0] == 200


def test_c22_scores_are_numbers(house):
    assert type(run("sync", house, lambda client: client.submit_action(ACTION)).risk_score) is int
    assert judged(status="approved", risk_score=12.5).risk_score == 12.5
    for odd in ("12", True, None):
        assert judged(status="approved", risk_score=odd).risk_score is None


@KINDS
@pytest.mark.parametrize(
    "subscribe",
    [
        lambda client: client.create_webhook("https://x.example/h", ["action.denied"]),
        lambda client: client.configure_webhook("https://x.example/h", ["action.denied"], "secret"),
    ],
)
def test_c23_both_forms_of_a_subscription_are_one(kind, subscribe):
    for shape in (
        {"id": 1, "target_url": "u", "event_types": ["e"]},
        {"webhook_id": "1", "url": "u", "events": ["e"]},
    ):
        with Scripted(http(201, shape)) as server:
            hook = run(kind, server.url, subscribe)
        assert (hook["webhook_id"], hook["url"], hook["events"]) == ("1", "u", ["e"])


def test_c25_debugging_masks_and_configures_nothing_else():
    root, own = logging.getLogger(), logging.getLogger("ascend_middleware")
    before = root.level, list(root.handlers), own.level
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    try:
        with Scripted(http(503, {"detail": KEY})) as server, pytest.raises(errors.ServerError):
            run("sync", server.url, lambda client: client.submit_action(ACTION), debug=True)
        assert (root.level, root.handlers, own.level) == (*before[:2], logging.DEBUG)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        for kind in ("sync", "async"):
            with Scripted(http(401, {"detail": KEY}, f"X-Echo: {KEY}")) as server:
                run(kind, server.url, lambda client: client.test_connection())
        for name in ("ascend_middleware.client", "httpcore2.http11"):
            logging.getLogger(name).warning("header %s", KEY)
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        own.setLevel(before[2])
    assert "owkai_****" in stream.getvalue()
    assert KEY not in stream.getvalue()


@KINDS
def test_c27_a_blocked_agent_is_an_error_in_every_mode(kind):
    for code in ("AGENT_BLOCKED", "AGENT_SUSPENDED", "AGENT_QUARANTINED", "KILL_SWITCH_ACTIVE"):
        with Scripted(http(403, {"detail": {"error": "governance violation", "code": code}})) as server:
            with pytest.raises(errors.KillSwitchError):
                run(kind, server.url, lambda client: client.submit_action(ACTION), fail_mode="open")


@KINDS
def test_evaluate_repeats_tool_and_description_in_the_details(kind):
    with Scripted(APPROVED) as server:
        said = {"tool_name": "psql", "description": "d"}
        run(kind, server.url, lambda client: client.evaluate_action("t", "r", {"n": 1, "description": "own"}, **said))
        run(kind, server.url, lambda client: client.evaluate_action("t", "r", tool_name="psql"))
        run(kind, server.url, lambda client: client.evaluate_action("t", "r"))
        run(kind, server.url, lambda client: client.submit_action({**ACTION, **said}))
        sent = [request.json() for request in server.requests]
    assert sent[0]["action_details"] == {"n": 1, "tool_name": "psql", "description": "own"}
    assert (sent[0]["tool_name"], sent[0]["description"]) == ("psql", "d")
    assert sent[1]["action_details"] == {"tool_name": "psql"}
    assert "action_details" not in sent[2]
    assert "action_details" not in sent[3]
