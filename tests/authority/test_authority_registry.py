"""Agents, their commands, and the kill switch."""

import pytest

from ascend_middleware.api.decode import KILL_CODES

AGENTS = "/api/registry/agents"


def register(desk, agent_id="a", key="user", **fields):
    return desk.post(AGENTS, {"agent_id": agent_id, "display_name": "A", **fields}, key=key)


def command(desk, kind, agent_id="a", key="admin", **parameters):
    body = {"command_type": kind, "reason": "because", "parameters": parameters}
    return desk.post(f"{AGENTS}/{agent_id}/commands", body, key=key)


def broadcast(desk, kind, **fields):
    return desk.post("/api/registry/commands", {"command_type": kind, "reason": "all", **fields}, key="admin")


def pending(desk, agent_id="a"):
    return [row["command_type"] for row in desk.get(f"{AGENTS}/{agent_id}/commands")[1]["commands"]]


def test_an_agent_registers_once_and_is_greeted_the_second_time(desk):
    fields = {"agent_type": "automation", "capabilities": ["x", "y"], "allowed_resources": ["r"], "metadata": {"m": 1}}
    status, answer = register(desk, **fields)
    assert status == 201 and answer["success"] is True
    assert (answer["agent_id"], answer["status"], answer["trust_level"]) == ("a", "active", "standard")
    assert answer["agent"]["capabilities"] == ["x", "y"] and answer["agent"]["metadata"] == {"m": 1}
    status, answer = register(desk, key="peer", agent_type="other")
    assert (status, answer["status"], answer["agent"]["agent_type"]) == (200, "already_registered", "automation")
    assert desk.get(AGENTS)[1]["total"] == 1
    assert desk.get(f"{AGENTS}/a")[1]["agent_id"] == "a"


def test_an_agent_of_another_organisation_is_never_a_success(desk):
    register(desk)
    status, answer = register(desk, key="stranger")
    assert (status, answer["error"]["code"]) == (409, "AGENT_ID_TAKEN")
    # One client takes a refusal with these words for a success.
    assert "already exists" not in answer["detail"]
    assert desk.get(f"{AGENTS}/a", key="stranger")[0] == 404
    assert desk.get(AGENTS, key="stranger")[1]["agents"] == []
    assert desk.events()[-1] == "AGENT_REGISTRATION_REFUSED"


def test_missing_and_wrong_fields_of_a_registration_are_told_apart(desk):
    assert desk.code(desk.post(AGENTS, {})) == (400, "INVALID_REQUEST")
    assert desk.code(desk.post(AGENTS, {"agent_id": ""})) == (400, "INVALID_REQUEST")
    for wrong in (7, " a", "a\n", "a\x00", "a\u202eb", "a" * 256, []):
        status, answer = desk.post(AGENTS, {"agent_id": wrong})
        assert (status, answer["error"]["details"]["field"]) == (422, "agent_id"), wrong
    status, answer = desk.post(AGENTS, {"agent_id": "a", "capabilities": [1]})
    assert (status, answer["error"]["details"]["field"]) == (422, "capabilities[0]")


def test_only_approved_models_of_the_organisation_are_linked(desk):
    register(desk)
    path = f"{AGENTS}/a"
    assert desk.code(desk.call("PUT", path, {"model_id": 7})) == (403, "ADMIN_REQUIRED")
    status, answer = desk.call("PUT", path, {"model_id": 7}, key="admin")
    assert status == 200 and answer["success"] is True
    assert answer["agent"]["model_id"] == 7 and "7" in answer["message"]
    assert desk.call("PUT", path, {"model_id": "good"}, key="admin")[1]["agent"]["model_id"] == 7
    for model in (8, "bad", 9, "other"):
        status, answer = desk.call("PUT", path, {"model_id": model}, key="admin")
        # A detail in the governance form would be taken for a success by one client.
        assert status == 403 and isinstance(answer["detail"], str)
    for model in (True, 0, -1, 1.5, []):
        assert desk.call("PUT", path, {"model_id": model}, key="admin")[0] == 422
    assert desk.events().count("AGENT_MODEL_LINKED") == 2
    assert desk.events().count("AGENT_MODEL_LINK_REFUSED") == 4
    assert desk.call("PUT", f"{AGENTS}/b", {"model_id": 7}, key="admin")[0] == 404


def test_a_linked_model_counts_where_the_action_names_none(desk):
    register(desk)
    desk.call("PUT", f"{AGENTS}/a", {"model_id": 7}, key="admin")
    assert desk.submit()[1]["model_governance"]["compliance_status"] == "approved"
    assert "model_governance" not in desk.submit(agent_id="other")[1]


def test_agents_are_removed_by_who_registered_them_or_an_admin(desk):
    register(desk)
    assert desk.code(desk.call("DELETE", f"{AGENTS}/a", key="peer")) == (403, "ADMIN_REQUIRED")
    assert desk.call("DELETE", f"{AGENTS}/a", key="stranger")[0] == 404
    command(desk, "BLOCK")
    status, answer = desk.call("DELETE", f"{AGENTS}/a")
    assert status == 200 and answer["success"] is True
    assert desk.get(f"{AGENTS}/a")[0] == 404
    register(desk)
    assert desk.code(desk.submit()) == (403, "AGENT_BLOCKED")


def test_heartbeats_and_health(desk):
    beat = {"agent_id": "a", "sdk_version": "2.7.1", "timestamp": "t", "response_time_ms": 3, "error_rate": 0.1}
    assert desk.get("/api/agents/health/a")[0] == 404
    register(desk)
    assert desk.get("/api/agents/health/a")[1]["status"] == "offline"
    assert desk.post("/api/agents/health/heartbeat", beat)[1]["success"] is True
    desk.time += 60
    desk.post("/api/agents/health/heartbeat", beat)
    health = desk.get("/api/agents/health/a")[1]
    assert (health["status"], health["uptime_seconds"]) == ("online", 60)
    assert health["last_heartbeat"] == "2023-11-14T22:14:20.000Z" and health["metadata"]["error_rate"] == 0.1
    desk.time += 600
    assert desk.get("/api/agents/health/a")[1]["status"] == "offline"
    assert desk.post("/api/agents/health/heartbeat", {**beat, "error_rate": 2})[0] == 422
    assert desk.get("/api/agents/health/a", key="stranger")[0] == 404


@pytest.mark.parametrize(
    ("kind", "code", "word"),
    [
        ("BLOCK", "AGENT_BLOCKED", "blocked"),
        ("SUSPEND", "AGENT_SUSPENDED", "suspended"),
        ("QUARANTINE", "AGENT_QUARANTINED", "quarantined"),
    ],
)
def test_a_blocked_agent_is_refused_until_it_is_unblocked(desk, kind, code, word):
    status, answer = command(desk, kind)
    assert status == 201 and answer["command"]["command_type"] == kind
    assert desk.code(desk.submit()) == (403, code) and code in KILL_CODES
    event, data = desk.audit()[-1]
    assert event == "BLOCKED_AGENT_REFUSED" and data["command_id"] == answer["command_id"]
    assert desk.submit(agent_id="b")[0] == 200
    state = desk.get("/api/sdk/kill-switch/status", query="agent_id=a")[1]
    assert (state["blocked"], state["active"], state["is_active"]) == (True, True, True)
    assert (state["reason"], state["activated_by"], state["standing"]) == ("because", "boss", word)
    assert state["activated_at"].endswith("Z")
    assert desk.get("/api/sdk/kill-switch/status")[1]["blocked"] is False
    command(desk, "UNBLOCK")
    assert desk.submit()[0] == 200
    assert desk.get("/api/sdk/kill-switch/status", query="agent_id=a")[1]["reason"] is None


def test_a_blocked_agent_submits_nothing_by_mcp_either_and_its_outcomes_are_still_heard(desk):
    number = desk.submit()[1]["action_id"]
    command(desk, "BLOCK")
    body = {"agent_id": "a", "mcp_server": "files", "namespace": "fs", "verb": "read", "resource": "/x"}
    assert desk.code(desk.post("/api/v1/mcp/actions/submit", body)) == (403, "AGENT_BLOCKED")
    assert desk.post(f"/api/agent-action/{number}/fail", {"error": "killed"})[0] == 200


def test_the_organisations_switch_holds_whatever_single_agents_are_told(desk):
    broadcast(desk, "BLOCK")
    assert desk.code(desk.submit(agent_id="b")) == (403, "KILL_SWITCH_ACTIVE")
    assert desk.submit(key="stranger")[0] == 200
    command(desk, "UNBLOCK", "b")
    assert desk.submit(agent_id="b")[0] == 403
    broadcast(desk, "UNBLOCK")
    assert desk.submit(agent_id="b")[0] == 200


def test_releasing_everybody_does_not_free_who_was_quarantined_alone(desk):
    command(desk, "QUARANTINE")
    broadcast(desk, "UNBLOCK")
    assert desk.code(desk.submit()) == (403, "AGENT_QUARANTINED")


def test_trigger_and_release_are_for_the_own_organisation_and_admins(desk):
    own = desk.get("/api/sdk/kill-switch/status")[1]["organization_id"]
    path, reason = "/api/billing/kill-switch/{}/{}", {"reason": "a long enough reason"}
    other = desk.get("/api/sdk/kill-switch/status", key="stranger")[1]["organization_id"]
    assert desk.post(path.format(other, "trigger"), reason, key="admin")[0] == 404
    assert desk.post(path.format(own, "trigger"), reason)[0] == 403
    assert desk.post(path.format(own, "trigger"), {"reason": "short"}, key="admin")[0] == 422
    assert desk.post(path.format(own, "trigger"), {}, key="admin")[0] == 400
    status, answer = desk.post(path.format(own, "trigger"), reason, key="admin")
    assert status == 200 and answer["blocked"] is True and answer["success"] is True
    assert desk.get("/api/sdk/kill-switch/status")[1]["blocked"] is True
    assert desk.submit()[0] == 403
    assert desk.submit(key="stranger")[0] == 200
    assert desk.post(path.format("default", "release"), reason, key="admin")[1]["blocked"] is False
    assert desk.submit()[0] == 200


def test_a_rate_limit_by_command_is_kept_exactly(desk):
    assert command(desk, "RATE_LIMIT")[0] == 422
    assert command(desk, "RATE_LIMIT", max_per_minute=0)[0] == 422
    command(desk, "RATE_LIMIT", max_per_minute=2)
    assert desk.get(f"{AGENTS}/a/commands")[1]["commands"][0]["parameters"] == {"max_per_minute": 2}
    assert desk.submit()[0] == 200
    desk.time += 20
    assert desk.submit()[0] == 200
    assert desk.code(desk.submit()) == (429, "AGENT_RATE_LIMITED") and desk.headers["retry-after"] == "40"
    assert desk.submit(agent_id="b")[0] == 200
    desk.time += 40
    assert desk.submit()[0] == 200
    assert desk.submit()[0] == 429
    command(desk, "UNBLOCK")
    assert desk.submit()[0] == 200


def test_commands_are_listed_until_acknowledged_by_each_agent(desk):
    first = command(desk, "BLOCK")[1]["command_id"]
    broadcast(desk, "SUSPEND")
    command(desk, "BLOCK", "b")
    assert pending(desk) == ["BLOCK", "SUSPEND"]
    row = desk.get(f"{AGENTS}/a/commands")[1]["commands"][1]
    assert row["is_broadcast"] is True and row["agent_id"] is None and row["target_type"] == "organization"
    assert row["issued_via"] == "api" and row["issued_by"] == "boss" and row["created_at"] == row["issued_at"]
    path = f"{AGENTS}/a/commands/{first}/ack"
    for _ in range(2):
        assert desk.post(path, {})[1]["success"] is True
    assert desk.post(f"{AGENTS}/a/commands/{row['command_id']}/ack")[0] == 200
    assert pending(desk) == [] and pending(desk, "b") == ["SUSPEND", "BLOCK"]
    # An acknowledgement is a receipt and lifts nothing.
    assert desk.code(desk.submit()) == (403, "AGENT_BLOCKED")
    assert desk.events().count("AGENT_COMMAND_ACKNOWLEDGED") == 3


def test_acknowledging_what_is_not_ones_own_is_refused_the_same_way_each_time(desk):
    number = command(desk, "BLOCK")[1]["command_id"]
    answers = [
        desk.post(f"{AGENTS}/a/commands/{number}/ack", key="stranger"),
        desk.post(f"{AGENTS}/b/commands/{number}/ack"),
        desk.post(f"{AGENTS}/a/commands/unknown/ack"),
    ]
    assert {(status, body["error"]["code"], body["error"]["message"], body["detail"]) for status, body in answers} == {
        (
            403,
            "COMMAND_ACK_REJECTED",
            "there is no such command for this agent",
            "there is no such command for this agent",
        )
    }
    assert desk.events().count("AGENT_COMMAND_ACK_REJECTED") == 3


def test_commands_are_for_admins_and_must_make_sense(desk):
    assert desk.code(command(desk, "BLOCK", key="user")) == (403, "ADMIN_REQUIRED")
    assert desk.events()[-1] == "ACCESS_REFUSED"
    assert command(desk, "DESTROY")[0] == 422
    assert desk.post(f"{AGENTS}/a/commands", {"command_type": "BLOCK"}, key="admin")[0] == 400
    assert desk.post(f"{AGENTS}/a/commands", {"command_type": "BLOCK", "reason": " "}, key="admin")[0] == 422
    assert broadcast(desk, "RATE_LIMIT", mcp_server="files")[0] == 422
    assert pending(desk) == []


def test_an_mcp_server_is_blocked_by_command(desk):
    body = {"agent_id": "a", "mcp_server": "files", "namespace": "fs", "verb": "read", "resource": "/x"}
    assert desk.post("/api/v1/mcp/actions/submit", body)[0] == 200
    broadcast(desk, "BLOCK", mcp_server="files")
    assert desk.code(desk.post("/api/v1/mcp/actions/submit", body)) == (403, "MCP_SERVER_BLOCKED_DENY")
    assert desk.submit()[0] == 200
    broadcast(desk, "UNBLOCK", mcp_server="files")
    assert desk.post("/api/v1/mcp/actions/submit", body)[0] == 200


def test_what_cannot_be_read_of_a_command_blocks(desk):
    command(desk, "RATE_LIMIT", max_per_minute=5)
    (kept,) = desk.store.rows("SELECT parameters FROM commands")
    with desk.store.write():
        desk.store.execute("UPDATE commands SET parameters = '{}'")
    assert desk.code(desk.submit()) == (403, "AGENT_BLOCKED")
    command(desk, "UNBLOCK")
    with desk.store.write():
        desk.store.execute("UPDATE commands SET command_type = 'VANISH' WHERE command_type = 'UNBLOCK'")
    assert desk.submit()[0] == 403
    with desk.store.write():
        desk.store.execute("UPDATE commands SET command_type = 'UNBLOCK' WHERE command_type = 'VANISH'")
        desk.store.execute(
            "UPDATE commands SET parameters = ? WHERE command_type = 'RATE_LIMIT'", (kept["parameters"],)
        )


def test_another_process_blocks_an_agent_at_once(desk_of, database):
    one = desk_of(path=database)
    other = desk_of(path=database)
    assert one.submit()[0] == 200
    command(other, "BLOCK")
    assert one.code(one.submit()) == (403, "AGENT_BLOCKED")
    command(other, "UNBLOCK")
    assert one.submit()[0] == 200
