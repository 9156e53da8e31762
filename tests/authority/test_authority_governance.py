"""MCP servers and models: registered, deactivated, and what actions may name."""

from ascend_middleware.api.decode import decode_decision, decode_governance_refusal

SERVERS = "/api/registry/mcp-servers"
SUBMIT = "/api/v1/mcp/actions/submit"


def register(desk, name="shell", key="admin", **fields):
    return desk.post(SERVERS, {"server_name": name, "transport_type": "stdio", **fields}, key=key)


def mcp(desk, server="shell", key="user", **fields):
    body = {"agent_id": "a", "mcp_server": server, "namespace": "fs", "verb": "read", "resource": "/x"}
    return desk.post(SUBMIT, {**body, **fields}, key=key)


def refusal(desk, answer):
    """Return the code of a governance refusal, which existing clients must recognise as one."""
    status, body = answer
    decision = decode_governance_refusal(status, desk.content)
    assert decision is not None and decision.is_denied()
    assert "governance violation" in body["detail"]["error"]
    assert body["detail"]["correlation_id"] == desk.headers["x-correlation-id"]
    assert body["error"]["code"] == body["detail"]["code"]
    return body["detail"]["code"]


def test_actions_may_name_only_servers_that_are_registered_and_active(desk):
    assert refusal(desk, mcp(desk)) == "MCP_SERVER_UNREGISTERED_DENY"
    assert refusal(desk, desk.submit(mcp_server_name="shell")) == "MCP_SERVER_UNREGISTERED_DENY"
    register(desk)
    governance = mcp(desk)[1]["mcp_governance"]
    assert (governance["server_registered"], governance["enforcement"]) == (True, "Layer 13")
    assert desk.submit(mcp_server_name="shell")[1]["mcp_governance"]["mcp_server_name"] == "shell"
    assert desk.post(f"{SERVERS}/shell/deactivate", key="admin")[1]["server"]["is_active"] is False
    assert refusal(desk, mcp(desk)) == "MCP_SERVER_DEACTIVATED_DENY"
    assert desk.post(f"{SERVERS}/shell/activate", key="admin")[1]["success"] is True
    assert mcp(desk)[0] == 200
    assert desk.call("DELETE", f"{SERVERS}/shell", key="admin")[0] == 200
    assert refusal(desk, mcp(desk)) == "MCP_SERVER_UNREGISTERED_DENY"
    assert desk.events().count("MCP_GOVERNANCE_DENY") == 4


def test_another_organisations_server_counts_for_nothing(desk):
    register(desk, key="stranger")
    assert refusal(desk, mcp(desk)) == "MCP_SERVER_UNREGISTERED_DENY"
    assert desk.get(f"{SERVERS}/shell")[0] == 404
    assert register(desk)[0] == 201


def test_blocked_tools_are_blocked_by_whatever_name_they_come(desk):
    register(desk, blocked_tools=["rm", "fs.delete", "Admin.*"])
    for fields in (
        {"tool_name": "rm"},
        {"tool_name": "RM"},
        {"parameters": {"tool_name": " rm"}},
        {"tool_name": "admin.reset"},
        {"verb": "rm"},
        {"verb": "delete"},
        {"parameters": {"tool_name": "rm"}},
        {"tool_name": "harmless", "verb": "rm"},
    ):
        assert refusal(desk, mcp(desk, **fields)) == "MCP_TOOL_BLOCKED_DENY", fields
    assert refusal(desk, desk.submit(mcp_server_name="files", tool_name="rm")) == "MCP_TOOL_BLOCKED_DENY"
    assert mcp(desk, tool_name="ls")[0] == 200
    assert desk.code(register(desk, "more", blocked_tools=["*_file"])) == (422, "VALIDATION_ERROR")
    assert desk.code(register(desk, "more", tool_risk_overrides={"w?": 3})) == (422, "VALIDATION_ERROR")


def test_the_risk_set_for_a_tool_is_the_least_of_its_actions(desk):
    register(desk, tool_risk_overrides={"deploy": 95})
    answer = mcp(desk, verb="deploy")[1]
    assert (answer["risk_score"], answer["status"]) == (95, "denied")
    assert {"signal": "tool deploy", "points": 30, "source": "mcp_server"} in answer["metadata"]["explanation"][
        "signals"
    ]
    assert desk.submit("file_write", mcp_server_name="files", tool_name="write")[1]["risk_score"] == 70


def test_answers_in_the_words_that_existing_clients_read(desk):
    register(desk)
    allowed = mcp(desk)[1]
    assert (allowed["status"], allowed["success"], allowed["requires_approval"]) == ("approved", True, False)
    pending = mcp(desk, action_type="transaction", parameters={"amount": 5000})[1]
    assert (pending["status"], pending["success"], pending["requires_approval"]) == ("pending", True, True)
    assert decode_decision(desk.content).is_pending()
    denied = mcp(desk, action_type="database_schema")[1]
    assert (denied["status"], denied["success"], denied["requires_approval"]) == ("denied", False, False)
    assert decode_decision(desk.content).is_denied()
    record = desk.get(f"/api/v1/actions/{allowed['action_id']}")[1]
    assert (record["action_type"], record["mcp_server_name"], record["tool_name"]) == ("fs.read", "shell", "read")
    assert record["context"] == {"mcp_server": "shell", "namespace": "fs", "verb": "read"}


def test_the_agent_of_an_mcp_action_is_the_one_that_the_key_registered(desk):
    register(desk)
    number = mcp(desk, agent_id=None)[1]["action_id"]
    assert desk.get(f"/api/v1/actions/{number}")[1]["agent_id"] == "key-1"
    desk.post("/api/registry/agents", {"agent_id": "own"})
    number = mcp(desk, agent_id=None)[1]["action_id"]
    assert desk.get(f"/api/v1/actions/{number}")[1]["agent_id"] == "own"
    desk.post("/api/registry/agents", {"agent_id": "second"})
    number = mcp(desk, agent_id=None)[1]["action_id"]
    assert desk.get(f"/api/v1/actions/{number}")[1]["agent_id"] == "key-1"
    # Which of the two it is nobody can tell, so a block of either counts.
    body = {"command_type": "BLOCK", "reason": "r"}
    desk.post("/api/registry/agents/second/commands", body, key="admin")
    assert desk.code(mcp(desk, agent_id=None)) == (403, "AGENT_BLOCKED")
    assert mcp(desk, agent_id="own")[0] == 200


def test_what_a_user_registers_waits_for_an_admin(desk):
    status, answer = register(desk, key="user")
    assert status == 201 and answer["server"]["active"] is False and "admin" in answer["message"]
    assert refusal(desk, mcp(desk)) == "MCP_SERVER_DEACTIVATED_DENY"
    assert desk.code(desk.post(f"{SERVERS}/shell/activate")) == (403, "ADMIN_REQUIRED")
    desk.post(f"{SERVERS}/shell/activate", key="admin")
    assert mcp(desk)[0] == 200


def test_servers_are_listed_with_those_of_the_policy_file(desk):
    register(desk, connection_config={"env": {"TOKEN": "t"}}, display_name="Shell")
    assert register(desk)[0] == 409
    page = desk.get(SERVERS)[1]
    assert [(row["name"], row["source"]) for row in page["servers"]] == [
        ("shell", "registry"),
        ("files", "policy file"),
    ]
    assert page["total"] == 2
    assert desk.get(f"{SERVERS}/files")[1]["blocked_tools"] == ["rm"]
    # How a server is reached may hold its secrets.
    assert "connection_config" not in desk.get(f"{SERVERS}/shell")[1]
    assert desk.get(f"{SERVERS}/shell", key="admin")[1]["connection_config"] == {"env": {"TOKEN": "t"}}
    assert desk.call("DELETE", f"{SERVERS}/files", key="admin")[0] == 404


def test_the_stricter_of_file_and_database_counts(desk):
    register(desk, "files", blocked_tools=["mv"])
    for tool in ("rm", "mv"):
        assert refusal(desk, mcp(desk, "files", tool_name=tool)) == "MCP_TOOL_BLOCKED_DENY"
    desk.post(f"{SERVERS}/files/deactivate", {"reason": "odd"}, key="admin")
    assert refusal(desk, mcp(desk, "files")) == "MCP_SERVER_DEACTIVATED_DENY"


def test_models_by_number_and_by_name(desk):
    for model in (7, "7", "good"):
        governance = desk.submit(model_id=model)[1]["model_governance"]
        assert governance == {
            "registry_checked": True,
            "compliance_status": "approved",
            "enforcement": "SR-11-7/EU-AI-ACT-ART9",
            "model_id": 7,
        }
    for model, code in ((8, "MODEL_NOT_APPROVED_DENY"), ("bad", "MODEL_NOT_APPROVED_DENY")):
        assert refusal(desk, desk.submit(model_id=model)) == code
    for model in (9, "other", "007", " good"):
        status, answer = desk.submit(model_id=model)
        assert status in (403, 422), model
    assert refusal(desk, desk.submit(model_id=9)) == "MODEL_UNREGISTERED_DENY"
    status, answer = desk.submit(model_id=9)
    assert answer["detail"]["model_id"] == 9
    assert "MODEL_GOVERNANCE_DENY" in desk.events()


def test_retired_and_absent_features_say_which_they_are(desk):
    assert desk.code(desk.post("/api/mcp-governance/evaluate-action")) == (410, "GONE")
    for method, path in (
        ("POST", "/api/authorization/mcp-discovery/scan-network"),
        ("GET", "/api/v1/orchestration/sessions/1/risk"),
        ("POST", "/api/v1/output-filter/scan"),
        ("GET", "/api/v1/supply-chain/impact/1"),
        ("GET", "/api/alerts"),
    ):
        status, answer = desk.call(method, path)
        assert (status, answer["status"], answer["error"]["code"]) == (501, "error", "NOT_IMPLEMENTED")
    assert desk.code(desk.get("/api/nothing")) == (404, "NOT_FOUND")
    assert desk.code(desk.call("PATCH", SERVERS)) == (405, "METHOD_NOT_ALLOWED")
    assert desk.headers["allow"] == "GET, POST"
    assert desk.code(desk.get("/api/webhooks/configure")) == (405, "METHOD_NOT_ALLOWED")


def test_orchestration_claims_are_checked(desk):
    root = desk.submit(orchestration_session_id="s1", orchestration_depth=0)[1]["action_id"]
    child = desk.submit(orchestration_session_id="s1", parent_action_id=int(root), orchestration_depth=1)
    assert child[0] == 200
    assert desk.audit()[-1][1]["parent_action_id"] == int(root)
    foreign = desk.submit(key="stranger")[1]["action_id"]
    for parent in (foreign, 999_999, "nonsense!", "act_x"):
        answer = desk.submit(orchestration_session_id="s1", parent_action_id=parent)
        assert desk.code(answer) == (403, "ORCHESTRATION_FIELD_REJECTED")
    answer = desk.submit(orchestration_session_id="s2", parent_action_id=root)
    assert desk.code(answer) == (403, "ORCHESTRATION_GRAFT_ATTEMPT")
    assert desk.audit()[-1][1]["severity"] == "CRITICAL"
    alone = desk.submit()[1]["action_id"]
    answer = desk.submit(orchestration_session_id="s3", parent_action_id=alone)
    assert desk.code(answer) == (403, "ORCHESTRATION_GRAFT_ATTEMPT")
    # Without a session of its own it is in its parent's.
    number = desk.submit(parent_action_id=root)[1]["action_id"]
    assert desk.get(f"/api/v1/actions/{number}")[1]["orchestration_session_id"] == "s1"
    for depth in (6, -1, "1", True, 1.5):
        assert desk.submit(orchestration_depth=depth)[0] == 422


def test_claims_that_cannot_be_checked_are_refused(desk, monkeypatch):
    from ascend_middleware.exceptions import StorageError

    root = desk.submit()[1]["action_id"]

    def fail(*args, **kwargs):
        raise StorageError("disk I/O error")

    monkeypatch.setattr(desk.store, "action", fail)
    assert desk.code(desk.submit(parent_action_id=root)) == (403, "ORCHESTRATION_FIELD_REJECTED")


def test_a_model_of_the_file_may_belong_to_one_organisation(desk_of):
    desk = desk_of('[[model]]\nid = 1\ntenant = "other"\n[[model]]\nid = 2\nname = "1"')
    assert desk.submit(model_id=1, key="stranger")[0] == 200
    # The number of one and the name of another: nobody can tell which is meant.
    assert refusal(desk, desk.submit(model_id="1", key="stranger")) == "MODEL_AMBIGUOUS_DENY"
    assert desk.submit(model_id=2)[0] == 200
    desk.authority.close()
    desk = desk_of('[[model]]\nid = 1\ntenant = "other"')
    assert desk.submit(model_id=1, key="stranger")[0] == 200
    assert refusal(desk, desk.submit(model_id=1)) == "MODEL_UNREGISTERED_DENY"


def test_a_strict_authority_wants_description_and_tool(desk_of):
    desk = desk_of("[submissions]\nstrict = true")
    body = {"agent_id": "a", "action_type": "read", "description": "d", "tool_name": "t"}
    assert desk.post("/api/v1/actions/submit", body)[0] == 200
    for name in body:
        status, answer = desk.post("/api/v1/actions/submit", {**body, name: ""})
        assert (status, answer["error"]["details"]) == (400, {"field": name, "requirement": "required"})


def test_a_strict_depth_is_one_below_the_parents(desk_of):
    desk = desk_of("[submissions]\nstrict_depth = true")
    root = desk.submit(orchestration_session_id="s")[1]["action_id"]
    child = {"orchestration_session_id": "s", "parent_action_id": root}
    assert desk.submit(**child, orchestration_depth=1)[0] == 200
    for depth in (0, 2, 5):
        assert desk.code(desk.submit(**child, orchestration_depth=depth)) == (403, "ORCHESTRATION_FIELD_REJECTED")
    assert desk.submit(**child)[0] == 403
    assert desk.submit(orchestration_depth=1)[0] == 403
    assert desk.events().count("ORCHESTRATION_FIELD_REJECTED") == 5
