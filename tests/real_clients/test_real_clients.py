"""Clients that others wrote, from the registries, against a served authority: their results are right.

What these clients get wrong by themselves is not chased here. Their own documentation does not run on them (no
`is_approved` and no subscripts in 2.x, an AuthorizedAgent of 2.x that raises on every approval), and:

- 2.x: a decision of `evaluate_mcp_action` never says `execution_allowed`, and holds no reason when it is pending.
- 2.x: every answer of 500 and above is "Server error", so a feature that is absent (501) is not told apart.
- 2.5.2: a refusal for an MCP server or a model raises; 2.7.1 returns a denial.
- 1.0.0: a 403 is an AuthenticationError; its AuthorizedAgent never names the tool that its own AgentAction requires,
  and raises TypeError before it asks anybody.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.socket]
HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["2.5.2", "2.7.1"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def told(version, served, python_with):
    python = python_with(f"ascend-ai-sdk=={version}")
    agent = f"agent-{version}"
    done = subprocess.run(
        [str(python), str(HERE / "flows_2.py")],
        env=served.environment(AGENT=agent),
        cwd=served.folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_connection(told):
    assert told["connect"]["status"] == "connected" and told["connect"]["api_version"]
    assert told["connect with a wrong key"]["status"] == "error"


def test_registration(told, version):
    agent = f"agent-{version}"
    answer = told["register"]
    assert (answer["agent_id"], answer["trust_level"], answer["success"]) == (agent, "standard", True)
    assert answer["agent"]["capabilities"] == ["x"] and answer["agent"]["sdk_version"] == version
    assert told["register again"]["status"] == "already_registered"
    assert told["register what is taken"]["raised"] == "HTTPError"


def test_decisions(told):
    allow, deny, hold = told["allow"], told["deny"], told["hold"]
    assert (allow["decision"], allow["execution_allowed"], allow["risk_level"]) == ("allowed", True, "low")
    assert allow["action_id"].isdigit()
    assert (deny["decision"], deny["execution_allowed"]) == ("denied", False)
    assert deny["reason"] == "schemas change by migration only" and deny["policy_violations"]
    assert (hold["decision"], hold["execution_allowed"], hold["risk_score"]) == ("pending", False, 75)
    assert hold["approval_request_id"] == hold["action_id"] and hold["required_approvers"] == ["admin"]


def test_waiting_and_looking_up(told, version):
    assert told["status"]["decision"] == "pending"
    details = told["details"]
    assert (details["agent_id"], details["resource"]) == (f"agent-{version}", "refund")
    assert [entry["event"] for entry in details["audit_trail"]] == ["ACTION_SUBMITTED"]
    page = told["list pending"]
    assert [row["action_id"] for row in page["actions"]] == [told["hold"]["action_id"]]
    assert told["approval pending"]["pending"] is True
    assert (told["wait"]["decision"], told["wait"]["execution_allowed"]) == ("allowed", True)
    assert told["approval given"]["approved"] is True and told["approval given"]["approver"] == "admin of default"
    assert (told["evaluate and wait"]["decision"], told["evaluate and wait"]["execution_allowed"]) == ("allowed", True)
    assert told["refused by a person"]["decision"] == "denied"
    assert told["approval refused"]["denied"] is True and "looked at" in told["approval refused"]["comments"]


def test_outcomes(told):
    assert told["complete"]["success"] is True and told["fail"]["success"] is True
    events = [entry["event"] for entry in told["details after"]["audit_trail"]]
    assert events == ["ACTION_SUBMITTED", "ACTION_APPROVED", "ACTION_COMPLETED"]


def test_bulk(told):
    assert (told["bulk"]["total"], told["bulk"]["succeeded"], told["bulk"]["failed"]) == (4, 4, 0)
    assert {row["decision"]["decision"] for row in told["bulk"]["results"]} == {"allowed"}


def test_orchestration(told):
    assert told["child"]["decision"] == "allowed"
    assert told["graft"]["raised"] == "AuthorizationError" and "session" in told["graft"]["text"]


def refused(answer, version, words):
    """Say whether a governance refusal came out as each version shows it."""
    if version == "2.5.2":
        return answer.get("raised") == "AuthorizationError" and words in answer["text"]
    return answer.get("decision") == "denied" and words in answer["reason"]


def test_governance_of_models_and_servers(told, version):
    assert told["approved model"]["decision"] == told["registered server"]["decision"] == "allowed"
    assert refused(told["refused model"], version, "the model is denied")
    assert refused(told["unregistered server"], version, "not registered")


def test_mcp_actions(told, version):
    assert told["mcp allow"]["decision"] == "allowed" and told["mcp allow"]["action_id"].isdigit()
    assert told["mcp deny"]["decision"] == "denied" and "migration" in told["mcp deny"]["reason"]
    assert told["mcp hold"]["decision"] == "pending"
    assert refused(told["mcp blocked tool"], version, "may not be used for this tool")
    assert refused(told["mcp unregistered"], version, "not registered")


def test_mcp_servers(told, version):
    name = f"server-agent-{version}"
    assert told["server"]["success"] is True and told["server"]["server"]["blocked_tools"] == ["rm"]
    assert {row["server_name"] for row in told["servers"]["servers"]} >= {name, "filesystem"}
    assert told["server details"]["server_name"] == name
    assert told["server off"]["server"]["is_active"] is False
    assert refused(told["server off refuses"], version, "deactivated")
    assert told["server on"]["server"]["is_active"] is True
    assert told["server gone"]["success"] is True


def test_model_link(told):
    assert told["link"]["success"] is True and told["link"]["agent"]["model_id"] == 7
    assert told["link a refused model"]["raised"] == "AuthorizationError"


def test_supply_chain(told, version):
    component = told["component"]["component"]
    assert told["component"]["success"] is True
    assert (component["component_id"], component["package_ecosystem"]) == (f"agent-{version}", "pypi")
    assert component["provenance_verified"] is True
    assert told["component by a user"]["raised"] == "AuthorizationError"
    assert f"agent-{version}" in {row["component_id"] for row in told["components"]["components"]}
    assert told["component counts"]["by_type"]["library"] >= 1


def test_policies_classifications_and_audit(told):
    policy = told["policy"]
    # A claimed risk score of 1 does not count.
    assert (policy["decision"], policy["risk_score"]) == ("pending", 60) and policy["evaluation_time_ms"] >= 0
    assert told["classification"]["sensitivity_level"] == "high"
    assert told["no classification"] is None
    assert len(told["audit"]["events"]) == 5 and told["audit"]["total"] > 5
    assert {"event_id", "event_type", "timestamp", "actor"} <= told["audit"]["events"][0].keys()


def test_heartbeat(told, version):
    assert told["heartbeat"] is None
    assert (told["health"]["agent_id"], told["health"]["status"]) == (f"agent-{version}", "online")
    assert told["health"]["metadata"]["requests_count"] == 9 and told["health"]["last_heartbeat"]


def test_webhooks(told):
    assert told["webhook"]["webhook_id"] and told["webhook"]["events"] == ["action.approved"]
    assert told["webhook"]["webhook_id"] in {row["webhook_id"] for row in told["webhooks"]}
    assert told["webhook changed"]["events"] == ["action.denied"] and told["webhook gone"] is None


def test_commands_and_kill_switch(told, version):
    (command,) = told["commands"]
    assert (command["command_type"], command["reason"], command["is_broadcast"]) == ("BLOCK", "by order", False)
    assert told["ack"] is True and told["ack twice"] is True and told["commands after"] == []
    assert told["ack by a stranger"]["raised"] == "AuthorizationError"
    assert told["blocked"]["raised"] == "AuthorizationError" and "blocked" in told["blocked"]["text"]
    assert told["unblocked"]["decision"] == "allowed"
    assert told["kill switch"] == [False, True, False]
    assert told["trigger by a user"]["raised"] == "AuthorizationError"


def test_leaving(told):
    assert told["deregister"] is None
    assert told["health after"]["raised"] == "HTTPError" and "404" in told["health after"]["text"]
    assert told["absent feature"]["raised"] == "OWKAIError"


def test_the_first_version(served, python_with, run_client):
    told = run_client(python_with("ascend-ai-sdk==1.0.0"), HERE / "flows_1.py")
    assert told["connect"]["status"] == "connected" and told["connect"]["api_version"]
    assert told["connect with a wrong key"]["status"] == "error"
    words = [(told[name]["status"], told[name]["decision"]) for name in ("allow", "deny", "hold")]
    assert words == [("approved", "approved"), ("denied", "denied"), ("pending", "pending")]
    assert told["allow"]["action_id"].isdigit() and told["allow"]["risk_level"] == "low"
    assert told["deny"]["policy_matched"] == "nobody drops a schema"
    assert told["status"]["status"] == "pending" and told["wait"]["status"] == "approved"
    details = told["details"]["metadata"]
    assert (details["resource"], details["tool_name"], details["resource_id"]) == ("customers", "sql", "7")
    assert [entry["event"] for entry in details["audit_trail"]] == ["ACTION_SUBMITTED", "ACTION_APPROVED"]
    assert told["list"]["limit"] == 2 and {row["status"] for row in told["list"]["actions"]} == {"approved"}
    assert told["refused by a person"]["status"] == "denied"
    assert told["nothing"]["raised"] == "NotFoundError"
    assert told["agent"] == {"value": "TypeError", "ran": 0}


def test_the_minimal_node_client(served, run_client, tmp_path):
    assert shutil.which("npm"), "this test needs Node.js with npm"
    npm = [shutil.which("npm"), "install", "--no-audit", "--no-fund", "--silent", "axios@1"]
    subprocess.run(npm, cwd=tmp_path, check=True, timeout=300, capture_output=True)
    shutil.copy(HERE / "minimal_client.js", tmp_path)
    told = run_client(
        shutil.which("node"), tmp_path / "minimal_client.js", OWKAI_API_URL=served.url, OWKAI_API_KEY=served.user
    )
    assert told["connect"]["status"] == "connected" and told["connect"]["apiVersion"] != "unknown"
    assert told["wrongKey"]["status"] == "error" and "401" in told["wrongKey"]["error"]
    assert [told[name]["decision"] for name in ("allow", "deny", "hold")] == ["approved", "denied", "pending"]
    assert told["status"]["decision"] == told["statusByNumber"]["decision"] == "pending"
    assert isinstance(told["allow"]["id"], int) and told["status"]["updated_at"]
    assert (told["refused"]["status"], told["refused"]["detail"]) == ("error", "Missing required field: agent_id")
    assert told["refused"]["error"]["details"] == {"field": "agent_id", "requirement": "required"}
