"""The guide of the SDK generation, snippet by snippet, against the embedded authority on a socket."""

import functools
import json
import logging
import os
import re
import time
from datetime import datetime

import pytest
from kit.scripted import HANG, Scripted, http
from seed_kit import RISK, curl, run

import ascend_middleware
from ascend_middleware import AgentAction, AscendClient, exceptions


def client_of(town, key=None, **options):
    where = town if isinstance(town, str) else town.url
    return AscendClient(key or town.key, api_url=where, **{"max_retries": 0, **options})


@pytest.fixture
def client(town):
    with client_of(town) as client:
        yield client


@pytest.fixture
def action():
    fields = {"agent_id": "an-agent", "agent_name": "An Agent", "action_type": "file_read", "resource": "a file"}
    return AgentAction(**fields)


def calls(*names):
    """Return functions that note that they were called, and the notes."""
    made = []
    return made, {name: (lambda *args, name=name: made.append((name, *args))) for name in names}


def test_1_2_the_version_prints():
    assert run("1-2", "http://127.0.0.1:9", key="owkai_live_0123456789").printed == (
        f"ASCEND SDK Version: {ascend_middleware.__version__}\n"
    )


def test_1_3_quick_start(town):
    ran = run("1-3", town)
    expected = {
        "approved": "Approved! Proceeding with action...\n",
        "denied": "Denied: as the test wants it\n",
        "pending": "Pending approval from: ['admin']\n",
    }
    assert ran.printed == expected[town.verdict]
    assert [ran.result.is_approved(), ran.result.is_denied(), ran.result.is_pending()].count(True) == 1
    record = town.call("GET", f"/api/v1/actions/{ran.result.action_id}")[1]
    assert (record["agent_id"], record["tool_name"]) == ("financial-advisor-prod", "postgresql")
    assert (record["resource_id"], record["action_details"]) == ("portfolio_123", {"query_type": "balance_check"})
    assert record["context"] == {"session_id": "sess_abc123"}


def test_1_4_constructor_options(approving):
    settings = run("1-4", approving, AscendClient=AscendClient).client.settings
    assert (settings.api_key, settings.api_url) == (approving.key, approving.url)
    assert (settings.timeout, settings.debug) == (30, False)
    with AscendClient(approving.key) as client:
        assert (client.settings.timeout, client.settings.debug) == (30, False)


@pytest.mark.parametrize(("word", "debug"), [("false", False), ("true", True), ("", False)])
def test_1_5_debug_from_the_environment(approving, monkeypatch, word, debug):
    logger = logging.getLogger("ascend_middleware")
    before = logger.level
    monkeypatch.setenv("ASCEND_API_KEY", approving.key)
    monkeypatch.setenv("ASCEND_API_URL", approving.url)
    monkeypatch.setenv("ASCEND_DEBUG", word)
    try:
        assert AscendClient().settings.debug is debug
        assert (logger.level == logging.DEBUG) is debug
    finally:
        logger.setLevel(before)


def test_1_6_the_minimal_action(approving):
    action = run("1-6", approving).action
    assert action.to_dict() == {
        "agent_id": "my-agent-001", "agent_name": "My AI Agent", "action_type": "database_read",
        "resource": "Description of action", "tool_name": "postgresql",
    }  # fmt: skip
    with pytest.raises(TypeError):
        AgentAction(agent_id="my-agent-001", agent_name="My AI Agent", action_type="database_read")


def test_1_7_response_fields(town, client, action):
    ran = run("1-7", town, client=client, action=action)
    printed = dict(line.split(": ", 1) for line in ran.printed.splitlines())
    assert int(printed["Action ID"]) > 0
    assert printed["Status"] == printed["Decision"] == town.verdict
    assert float(printed["Risk Score"]) == RISK[town.verdict] and printed["Risk Level"] in ("low", "high", "critical")
    assert printed["Reason"] == "as the test wants it"
    assert datetime.fromisoformat(printed["Timestamp"]).tzinfo is not None
    assert ran.result.policy_matched == "the only one"


def test_1_8_helper_methods(town, client, action):
    made, names = calls("execute_action", "log_denial", "wait_or_notify")
    run("1-8", town, result=client.submit_action(action), **names)
    expected = {
        "approved": ("execute_action",),
        "denied": ("log_denial", "as the test wants it"),
        "pending": ("wait_or_notify",),
    }
    assert made == [expected[town.verdict]]


def test_1_9_synchronous_wait(town, client, action, monkeypatch):
    made, names = calls("execute_action")
    slept, sleep = [], time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: slept.append(seconds) or sleep(seconds))
    with town.deciding("approve"):
        ran = run("1-9", town, client=client, action=action, **names)
    assert not [each for each in slept if each > 1]  # the authority holds the question: no interval is waited out
    if town.verdict == "pending":
        assert ran.final_result.is_approved() and made == [("execute_action",)]
        assert ran.printed == "Approval received!\n"
    else:
        assert made == []


def test_1_9_a_wait_ends_at_its_limit(holding, action):
    with client_of(holding) as client:
        held = client.submit_action(action)
        began = time.monotonic()
        with pytest.raises(exceptions.TimeoutError):
            client.wait_for_decision(held.action_id, timeout_ms=300, poll_interval=60.0)
        assert 0.25 < time.monotonic() - began < 30


def test_1_10_status_later(town, client, action):
    ran = run("1-10", town, client=client, result=client.submit_action(action))
    assert ran.printed == f"Current status: {town.verdict}\n"


def test_1_11_full_details(town, client, action):
    submitted = client.submit_action(action)
    ran = run("1-11", town, client=client, action_id=submitted.action_id)
    assert ran.printed.startswith(f"Action: {submitted.action_id}\nStatus: {town.verdict}\nMetadata: {{")
    assert ran.full_action["audit_trail"] and ran.full_action["agent_id"] == "an-agent"


def test_1_12_listing(holding, action):
    with client_of(holding) as client:
        for _ in range(52):
            client.submit_action(action)
        ran = run("1-12", holding, client=client)
    assert len(ran.printed.splitlines()) == 50 and all(line.endswith(": pending") for line in ran.printed.splitlines())
    assert ran.result.has_more
    first, second = ({row.action_id for row in page.actions} for page in (ran.result, ran.next_page))
    assert first and second and not first & second


def test_1_12_the_filter_counts(approving, action):
    with client_of(approving) as client:
        client.submit_action(action)
        assert run("1-12", approving, client=client).printed == ""


def test_1_13_orchestration(town, client):
    ran = run("1-13", town, client=client)
    assert ran.root.status == ran.worker.status == town.verdict
    worker = town.call("GET", f"/api/v1/actions/{ran.worker.action_id}")[1]
    assert str(worker["parent_action_id"]) == ran.root.action_id
    assert (worker["orchestration_session_id"], worker["orchestration_depth"]) == ("sess-onboard-7f3a", 1)


def test_1_13b_what_the_server_enforces(approving):
    path = "/api/v1/actions/submit"
    body = {"agent_id": "a", "action_type": "t", "resource": "r"}
    root = approving.call("POST", path, {**body, "orchestration_session_id": "s"}, key=approving.user)[1]["action_id"]

    def ask(key=None, **fields):
        return approving.call("POST", path, {**body, **fields}, key=key or approving.user)[0]

    assert ask(parent_action_id=int(root), orchestration_session_id="s", orchestration_depth=1) == 200
    assert ask(key=approving.stranger, parent_action_id=int(root), orchestration_session_id="s") == 403
    assert ask(parent_action_id=999_999, orchestration_session_id="s") == 403
    assert approving.audit()[-1][0] == "ORCHESTRATION_FIELD_REJECTED"
    assert ask(parent_action_id=int(root), orchestration_session_id="other") == 403
    event, data = approving.audit()[-1]
    assert event == "ORCHESTRATION_GRAFT_ATTEMPT" and data["severity"] == "CRITICAL"
    assert ask(orchestration_depth=6) == ask(orchestration_depth=-1) == 422


@pytest.mark.parametrize("depth", [6, -1, True, 1.9, "3"])
def test_1_13b_depth_is_refused_before_anything_is_sent(depth):
    with Scripted() as server, client_of(server.url, "owkai_live_0123456789") as client:
        with pytest.raises(exceptions.ValidationError):
            client.evaluate_action("t", "r", orchestration_depth=depth)
        assert not server.connections


def test_1_14_link_a_model(approving):
    agent = {"agent_id": "financial-advisor-prod", "display_name": "F"}
    approving.call("POST", "/api/registry/agents", agent, key=approving.admin)
    with client_of(approving, approving.admin) as client:
        ran = run("1-14", approving, client=client)
        assert ran.response["success"] is True and ran.response["message"]
        assert ran.response["agent"]["agent_id"] == "financial-advisor-prod"
        for model in (43, 4711):
            with pytest.raises(exceptions.AuthorizationDeniedError):
                client.link_model_to_agent("financial-advisor-prod", model)


def test_1_15_register_a_component(approving):
    with client_of(approving, approving.admin) as client:
        ran = run("1-15", approving, client=client)
        assert ran.response["success"] is True and ran.response["message"]
        component = ran.response["component"]
        sent = {
            "component_id": "hf-bert-base", "component_name": "bert-base-uncased", "component_type": "model",
            "provider": "HuggingFace", "version": "1.0.0", "license_type": "Apache-2.0", "provenance_verified": True,
            "source_url": "https://huggingface.co/bert-base-uncased", "risk_level": "medium",
            "package_name": "transformers", "package_ecosystem": "pypi",
        }  # fmt: skip
        assert {name: component[name] for name in sent} == sent
        with pytest.raises(exceptions.ValidationError):
            client.register_supply_chain_component("x", "x", "gadget")
    with client_of(approving) as client:  # a user's key
        with pytest.raises(exceptions.AuthorizationDeniedError):
            run("1-15", approving, client=client)


def test_1_16_commands(approving):
    for agent in ("agent-001", "agent-002"):
        approving.call("POST", "/api/registry/agents", {"agent_id": agent, "display_name": agent}, key=approving.user)

    def issue(path, kind, reason):
        body = {"command_type": kind, "reason": reason}
        assert approving.call("POST", f"/api/registry/{path}", body, key=approving.admin)[0] in (200, 201)

    issue("agents/agent-001/commands", "BLOCK", "own")
    issue("agents/agent-002/commands", "BLOCK", "of another agent")
    issue("commands", "UNBLOCK", "for all")
    with client_of(approving, agent_id="agent-001") as client:
        ran = run("1-16", approving, client=client)
        assert sorted(command["reason"] for command in ran.commands) == ["for all", "own"]
        assert {command["command_type"] for command in ran.commands} == {"BLOCK", "UNBLOCK"}
        assert all(type(command) is dict and command["command_id"] for command in ran.commands)
        assert client.ack_command(ran.cmd_id, "agent-001") is True  # the second time
        assert client.get_pending_commands() == []
    with client_of(approving, approving.stranger) as client:
        with pytest.raises(exceptions.AuthorizationDeniedError):
            client.ack_command(command_id=ran.cmd_id, agent_id="agent-001")


def test_1_17_an_mcp_action(town, client):
    ran = run("1-17", town, client=client)
    assert ran.decision.status == town.verdict
    record = town.call("GET", f"/api/v1/actions/{ran.decision.action_id}")[1]
    assert record["action_type"] == "filesystem.read_file" and record["mcp_server_name"] == "filesystem-server"
    assert (record["agent_id"], record["action_details"]) == (
        "u",  # the key's own: the document names no agent
        {"encoding": "utf-8"},
    )
    assert town.call("POST", "/api/mcp-governance/evaluate", {})[0] in (404, 410)


@pytest.mark.parametrize("body", [{}, {"status": "ok"}, {"success": True}, {"decision": "denied"}])
def test_1_17_odd_answers_are_never_allowed(body):
    with Scripted(http(200, body)) as server, client_of(server.url, "owkai_live_0123456789") as client:
        with pytest.raises(exceptions.ProtocolError):
            assert not run("1-17", server.url, key="owkai_live_0123456789", client=client).decision.is_approved()
            raise exceptions.ProtocolError


def _mcp_message(kind, second):
    return {
        "command_id": f"c{second}", "command_type": kind, "target_type": "mcp_server", "mcp_server": "filesystem-server",
        "reason": "incident", "issued_at": f"2026-01-01T00:00:{second:02}Z",
    }  # fmt: skip


def _wrapped(how, message):
    text = json.dumps(message)
    if how == "bare":
        return message
    body = text if how == "raw" else json.dumps({"Type": "Notification", "Message": text})
    return {"MessageId": "m", "ReceiptHandle": "r", "Body": body}


@pytest.mark.parametrize("how", ["bare", "raw", "sns"])
def test_1_18_a_blocked_server_stops_the_tool(how):
    names = {"key": "owkai_live_0123456789"}
    blocked = [_wrapped(how, _mcp_message("BLOCK", 1))]
    ran = run("1-18", "http://127.0.0.1:9", raises=True, sqs_messages=blocked, **names)
    assert isinstance(ran.raised, RuntimeError) and "blocked by administrator" in str(ran.raised)
    lifted = [*blocked, _wrapped(how, _mcp_message("UNBLOCK", 2))]
    assert not run("1-18", "http://127.0.0.1:9", sqs_messages=lifted, **names).consumer.is_blocked("filesystem-server")
    for malformed in (None, 7, "{", {"Body": "{"}, {"command_type": "BLOCK", "target_type": "mcp_server"}):
        ran = run("1-18", "http://127.0.0.1:9", raises=True, sqs_messages=[malformed], **names)
        assert ran.raised is None or isinstance(ran.raised, RuntimeError)


def test_1_19_a_model(town, client):
    ran = run("1-19", town, client=client)
    governance = ran.result.model_governance
    assert governance["registry_checked"] is True and governance["compliance_status"] == "approved"
    assert governance["enforcement"] == "SR-11-7/EU-AI-ACT-ART9" and str(governance) in ran.printed
    for model in ("unheard-of", "unapproved"):
        result = client.evaluate_action("model_inference", "ml_pipeline", model_id=model, wait_for_decision=False)
        assert result.is_denied() and result.metadata["governance_violation"]


def test_1_20_an_mcp_server(town, client):
    governance = run("1-20", town, client=client).result.mcp_governance
    assert governance["server_registered"] is True and governance["enforcement"] == "Layer 13"
    result = client.evaluate_action("tool_call", "crm_system", mcp_server_name="unheard-of", wait_for_decision=False)
    assert result.is_denied() and result.metadata["governance_violation"]


def test_1_21_exceptions():
    ran = run("1-21", "http://127.0.0.1:9", key="owkai_live_0123456789")
    names = [name for name, value in ran.names.items() if isinstance(value, type)]
    assert len(names) == 10 and all(issubclass(ran.names[name], ran.AscendError) for name in names)


class Log:
    def __init__(self):
        self.lines = []

    def error(self, text):
        self.lines.append(text)

    warning = error


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ([http(401, {"detail": "unknown key"})], "Invalid API key: "),
        ([http(422, {"detail": "resource is odd"})], "Invalid action data: "),
        ([http(429, {"detail": "slow down"}, "Retry-After: 0")], "Rate limited: "),
        ([HANG], "Request timeout: "),
        (None, "Network error: "),
    ],
)
def test_1_22_each_arm_is_reached(action, monkeypatch, steps, line):
    log = Log()
    if steps == [HANG]:  # a reader waits thirty seconds, the test does not
        monkeypatch.setattr(ascend_middleware, "AscendClient", functools.partial(AscendClient, timeout=0.5))
    names = {"action": action, "logger": log, "os": os, "execute_business_logic": lambda: log.lines.append("ran")}
    key = "owkai_live_0123456789abcdef"
    if steps is None:
        run("1-22", "http://127.0.0.1:9", key=key, **names)
    else:
        with Scripted(*steps) as server:
            run("1-22", server.url, key=key, **names)
    assert [text.startswith(line) for text in log.lines] == [True]


def test_1_22_and_the_business_runs_only_when_approved(town, action):
    log, ran = Log(), []
    run("1-22", town, action=action, logger=log, os=os, execute_business_logic=lambda: ran.append(1))
    assert ran == ([1] if town.verdict == "approved" else []) and log.lines == []


def test_1_23_context_manager(town, action):
    made, names = calls("execute_action")
    ran = run("1-23", town, AscendClient=AscendClient, action=action, **names)
    assert made == ([("execute_action",)] if town.verdict == "approved" else [])
    with pytest.raises(exceptions.ClientClosedError):
        ran.client.submit_action(action)


def test_1_24_connection(approving):
    with client_of(approving) as client:
        printed = run("1-24", approving, client=client).printed
    assert re.fullmatch(r"Connected to ASCEND v\S+\nLatency: \d+ms\n", printed)
    with client_of("http://127.0.0.1:9", approving.key) as client:
        assert run("1-24", approving, client=client).printed.startswith("Connection failed: ")


def test_1_25_headers(action):
    with Scripted(http(503), http(503), http(200, {"action_id": 7, "status": "approved"})) as server:
        key = "owkai_live_0123456789abcdef"
        with client_of(server.url, key, max_retries=3) as client:
            client.core._random = lambda: 0.0
            client.submit_action(action)
            client.submit_action(action)
        sent = [request.headers for request in server.requests]
    for headers in sent:
        assert (headers["authorization"], headers["x-api-key"]) == (f"Bearer {key}", key)
        assert headers["user-agent"] and headers["content-type"] == "application/json"
    ids = [headers["x-correlation-id"] for headers in sent]
    assert ids[0] == ids[1] == ids[2] != ids[3]


@pytest.mark.parametrize(
    ("status", "attempts"),
    [*((code, 4) for code in (429, 500, 502, 503, 504)), *((c, 1) for c in (400, 401, 403, 404, 422))],
)
def test_1_25b_what_is_retried(action, status, attempts):
    with Scripted(http(status, {"detail": "x"})) as server:
        with client_of(server.url, "owkai_live_0123456789", max_retries=3) as client:
            client.core._random = lambda: 0.0
            with pytest.raises(exceptions.AscendError):
                client.submit_action(action)
        assert len(server.requests) == attempts


@pytest.mark.parametrize(
    ("engine", "speaks"), [("auto", "ascend_middleware.client.connection"), ("httpx2", "httpcore2")]
)
def test_1_26_debug_mode_shows_requests_and_masks_keys(approving, action, caplog, engine, speaks):
    with caplog.at_level(logging.DEBUG):
        with client_of(approving, debug=True, engine=engine) as client:
            run("1-26", approving, AscendClient=AscendClient)
            client.submit_action(action)
        texts = [record.getMessage() for record in caplog.records]
    assert any("/api/v1/actions/submit" in text for text in texts)
    assert any(record.name.startswith(speaks) for record in caplog.records)
    assert not any(approving.key in text for text in texts)


def test_1_27_complete_example(town):
    with town.deciding("approve"):
        ran = run("1-27", town, raises=True)
    if town.verdict == "denied":
        assert isinstance(ran.raised, PermissionError) and "as the test wants it" in str(ran.raised)
        assert ran.printed == ""
    else:
        assert ran.to_the_end().printed == "Customer: {'id': 'cust_123', 'name': 'John Doe'}\n"


def test_1_27_complete_example_denied_by_a_person(holding):
    with holding.deciding("deny"):
        ran = run("1-27", holding, raises=True)
    assert isinstance(ran.raised, PermissionError) and ran.printed == ""


def test_1_27_complete_example_without_authority_or_key(approving):
    ran = run("1-27", "http://127.0.0.1:9", key=approving.key, raises=True)
    assert isinstance(ran.raised, ConnectionError) and ran.printed == ""
    ran = run("1-27", approving, raises=True, environ={"ASCEND_API_KEY": None})
    assert isinstance(ran.raised, SystemExit) and ran.raised.code == 1


@pytest.mark.parametrize("key", ["ask_0123456789ab", "owkai_0123456789"])
def test_1_28_both_prefixes(key):
    assert AscendClient(key, api_url="http://localhost:1").settings.api_key == key


@pytest.mark.parametrize("key", ["ask_0123456789a", "owkai_012345678", "sk_0123456789abcdef", "OWKAI_0123456789"])
def test_1_28_nothing_else(key):
    with pytest.raises(exceptions.AuthenticationError):
        AscendClient(key, api_url="http://localhost:1")


def test_1_29_health_by_curl(approving):
    ((status, body),) = curl("1-29", approving)
    assert status == 200 and body["status"] == "healthy"


def test_a_client_that_names_no_agent_acts_for_the_keys_own(approving):
    with AscendClient(approving.key, api_url=approving.url) as client:
        decisions = [
            client.evaluate_action("file_read", "a file", wait_for_decision=False),
            client.submit_action(action_type="file_read", resource="a file"),
            client.evaluate_mcp_action("filesystem-server", "filesystem", "read", "a file"),
        ]
    for decision in decisions:
        assert decision.is_approved()
        record = approving.call("GET", f"/api/v1/actions/{decision.action_id}")[1]
        assert (record["agent_id"], record["agent_name"]) == ("u", "u")
