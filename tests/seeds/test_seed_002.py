"""The reference of the reference client, snippet by snippet, against the embedded authority on a socket."""

import builtins

import pytest
from kit.scripted import APPROVED, HANG, PENDING, Scripted, http
from seed_kit import RISK, environment, run

from ascend_middleware import AgentAction, AuthorizedAgent, OWKAIClient, exceptions

NOWHERE = "http://127.0.0.1:9"
KEY = "owkai_live_0123456789abcdef"


@pytest.fixture
def client(town):
    with OWKAIClient(town.url, town.key, max_retries=0) as client:
        yield client


@pytest.fixture
def action():
    return AgentAction(agent_id="agent-001", agent_name="My Agent", action_type="data_access", resource="database")


def test_2_1_imports():
    ran = run("2-1", NOWHERE, key=KEY)
    assert all(isinstance(ran.names[name], type) for name in ("OWKAIClient", "AuthorizedAgent", "AgentAction"))


def test_2_2_action_types():
    ran = run("2-2", NOWHERE, key=KEY)
    assert ran.action_type == "data_access" and len(ran.ActionType) == 6


def test_2_3_decision_statuses(town, client, action):
    made = []
    decision = client.submit_action(action)["decision"]
    ran = run("2-3", town, decision=decision, execute_action=lambda: made.append(1))
    assert made == ([1] if town.verdict == "approved" else [])
    assert [status.value for status in ran.DecisionStatus] == [
        "pending", "approved", "denied", "requires_modification", "timeout",
    ]  # fmt: skip


def test_2_4_to_dict():
    assert run("2-4", NOWHERE, key=KEY, AgentAction=AgentAction).data == {
        "agent_id": "agent-001", "agent_name": "My Agent", "action_type": "data_access", "resource": "database",
    }  # fmt: skip


def test_2_5_construction(approving):
    settings = run("2-5", approving, OWKAIClient=OWKAIClient).client.settings
    assert (settings.api_url, settings.api_key) == (approving.url, approving.key)
    assert (settings.timeout, settings.debug) == (60, True)
    with environment({"OWKAI_API_KEY": approving.key, "OWKAI_API_URL": approving.url}):
        assert OWKAIClient().settings.timeout == 30


def test_2_6_connection(fresh):
    with OWKAIClient(fresh.url, fresh.key) as client:
        ran = run("2-6", fresh, client=client)
        assert ran.printed.startswith("Connected! Version: ") and ran.status["server_time"]
    with OWKAIClient(fresh.url, "owkai_live_of_nobody_00000") as client:
        ran = run("2-6", fresh, client=client)
        assert ran.printed.startswith("Failed: ") and ran.status["status"] == "error"


def test_2_7_submit(town, client):
    ran = run("2-7", town, client=client, AgentAction=AgentAction)
    assert ran.printed == f"Action ID: {ran.response['action_id']}\nDecision: {town.verdict}\n"


def test_2_8_status_by_either_spelling(town, client, action):
    submitted = client.submit_action(action)
    for spelling in (submitted["action_id"], int(submitted["action_id"]), f"act_{submitted['action_id']}"):
        assert client.get_action_status(spelling).get("decision") == town.verdict


def test_2_8_the_snippet_itself_names_an_action_that_is_not_there(town, client):
    ran = run("2-8", town, client=client, raises=True)
    assert isinstance(ran.raised, exceptions.NotFoundError) and "API Error" in str(ran.raised)


def test_2_8_the_snippet_itself_where_it_is_there():
    with Scripted(http(200, {"action_id": "act_xyz789", "status": "approved", "decision": "approved"})) as server:
        with OWKAIClient(server.url, KEY) as client:
            assert run("2-8", server.url, key=KEY, client=client).printed == "Status: approved\n"
        assert server.requests[0].target == "/api/v1/actions/act_xyz789/status"


def test_2_9_wait(town, client, action):
    with town.deciding("approve"):
        ran = run("2-9", town, client=client, action=action)
    assert ran.printed == ("Approved!\n" if town.verdict == "pending" else "")


def test_2_9_nobody_decides(holding, action):
    with OWKAIClient(holding.url, holding.key) as client:
        held = client.submit_action(action)
        final = client.wait_for_decision(action_id=held["action_id"], timeout=0.2, poll_interval=0.1)
        assert final.get("decision") == "timeout"


def test_2_10_list(town, client, action):
    client.submit_action(action)
    ran = run("2-10", town, client=client)
    assert ran.printed.splitlines()[0].endswith(f": {town.verdict}")
    assert all(row["status"] == "approved" for row in ran.approved.actions)
    assert not {row["action_id"] for row in ran.page1.actions} & {row["action_id"] for row in ran.page2.actions}


def test_2_11_details(town, client, action):
    submitted = client.submit_action(action)
    details = client.get_action_details(f"act_{submitted['action_id']}")
    assert (details["agent_id"], details["resource"]) == ("agent-001", "database")
    assert details["risk_score"] == RISK[town.verdict] and details["created_at"].endswith("Z")
    assert isinstance(run("2-11", town, client=client, raises=True).raised, exceptions.NotFoundError)


def test_2_11_the_snippet_itself_where_it_is_there():
    row = {"action_id": "act_xyz789", "agent_id": "a", "resource": "r", "risk_score": 1, "created_at": "t"}
    with Scripted(http(200, row)) as server, OWKAIClient(server.url, KEY) as client:
        printed = run("2-11", server.url, key=KEY, client=client).printed
    assert printed == "Agent: a\nResource: r\nRisk Score: 1\nCreated: t\n"


def test_2_12_both_forms_of_an_agent(approving):
    ran = run("2-12", approving, OWKAIClient=OWKAIClient, AuthorizedAgent=AuthorizedAgent)
    assert ran.agent.client is not ran.client and ran.agent.client.settings.api_url == approving.url


def test_2_13_request_authorization(town):
    made = []
    names = {"AuthorizedAgent": AuthorizedAgent, "execute_action": lambda: made.append(1)}
    with town.deciding("approve"):
        ran = run("2-13", town, **names)
    runs = town.verdict != "denied"
    assert made == ([1] if runs else []) and ran.decision.get("decision") == ("approved" if runs else "denied")
    record = town.call("GET", f"/api/v1/actions/{ran.decision['action_id']}")[1]
    assert (record["agent_id"], record["action_details"]) == ("my-agent", {"operation": "read"})
    assert record["risk_indicators"] == {"pii_involved": True}


@pytest.mark.parametrize("person", ["approve", "deny"])
def test_2_14_execute_if_authorized(town, person):
    made = []

    def fetch_from_database():
        made.append(1)
        return "rows"

    with town.deciding(person):
        ran = run("2-14", town, AuthorizedAgent=AuthorizedAgent, fetch_from_database=fetch_from_database)
    runs = town.verdict == "approved" or (town.verdict == "pending" and person == "approve")
    assert made == ([1] if runs else [])
    assert ran.printed == "Result: rows\n" if runs else ran.printed.startswith("Denied: Action denied: ")


def test_2_14_nobody_decides(holding):
    made = []
    with OWKAIClient(holding.url, holding.key) as client, pytest.raises(builtins.TimeoutError):
        AuthorizedAgent("my-agent", "My Agent", client).execute_if_authorized(
            "data_access", "customer_database", lambda: made.append(1), timeout=0.2
        )
    assert made == []


def test_2_15_each_documented_key_is_in_the_answers(town, client, action):
    kinds = {
        "action_id": str, "status": str, "decision": str, "risk_score": int, "reason": str, "created_at": str,
        "updated_at": str, "agent_id": str, "agent_name": str, "action_type": str, "resource": str,
    }  # fmt: skip
    full = {**action.to_dict(), "resource_id": "C", "action_details": {"n": 1}, "context": {"c": 1}}
    body = town.call("POST", "/api/v1/actions/submit", {**full, "risk_indicators": {"i": True}}, key=town.user)[1]
    path = f"/api/v1/actions/{body['action_id']}"
    answers = {
        "action_id status decision risk_score reason created_at": body,
        "action_id decision status updated_at risk_score": town.call("GET", f"{path}/status")[1],
        "action_id agent_id agent_name action_type resource status decision risk_score created_at updated_at": (
            town.call("GET", path)[1]
        ),
        "action_id agent_id action_type resource status created_at": town.call("GET", "/api/v1/actions")[1]["actions"][
            0
        ],
    }
    for keys, answer in answers.items():
        for key in keys.split():
            assert isinstance(answer[key], kinds[key]), key
    details = town.call("GET", path)[1]
    assert (details["resource_id"], details["action_details"]) == ("C", {"n": 1})
    assert (details["context"], details["risk_indicators"]) == ({"c": 1}, {"i": True})
    page = town.call("GET", "/api/v1/actions?limit=1")[1]
    assert all(isinstance(page[key], int) for key in ("total", "limit", "offset"))


def test_2_16_a_missing_key_is_a_value_error():
    with environment({"OWKAI_API_KEY": None, "ASCEND_API_KEY": None}):
        with pytest.raises(ValueError, match=r"^API key is required\..*OWKAI_API_KEY"):
            OWKAIClient()


def test_2_17_errors_are_the_builtins(action):
    with Scripted(HANG, http(400, {"detail": "resource is odd"})) as server:
        with OWKAIClient(server.url, KEY, timeout=1) as client:
            with pytest.raises(builtins.TimeoutError):
                client.submit_action(action)
            with pytest.raises(Exception, match=r"^API Error: resource is odd"):
                client.submit_action(action)
    with OWKAIClient(NOWHERE, KEY, max_retries=0) as client, pytest.raises(builtins.ConnectionError):
        client.submit_action(action)


@pytest.mark.parametrize("person", ["approve", "deny"])
def test_2_18_complete_example(town, person):
    with town.deciding(person):
        lines = run("2-18", town).printed.splitlines()
    assert lines[0] == "Connected: connected"
    runs = town.verdict == "approved" or (town.verdict == "pending" and person == "approve")
    outcome = "Success: {'status': 'completed', 'amount': 50000}" if runs else "Denied: Action denied: "
    assert lines[1].startswith(outcome)
    assert 1 <= len(lines[2:]) <= 10 and all(": " in line for line in lines[2:])


def test_2_19_the_six_endpoints(action):
    page = http(200, {"actions": [], "total": 0})
    record = http(200, {"action_id": 7, "status": "approved"})
    with Scripted(
        http(200, {"status": "healthy"}), http(200, {"version": "1"}), APPROVED, PENDING, page, record
    ) as server:
        with OWKAIClient(server.url, KEY) as client:
            client.test_connection()
            client.submit_action(action)
            client.get_action_status("7")
            client.list_actions(status="approved")
            client.get_action_details("7")
        assert [f"{request.method} {request.target}" for request in server.requests] == [
            "GET /health",
            "GET /api/deployment-info",
            "POST /api/v1/actions/submit",
            "GET /api/v1/actions/7/status",
            "GET /api/v1/actions?limit=50&offset=0&status=approved",
            "GET /api/v1/actions/7",
        ]
