"""Uses of a decision: who may report them, of what, and what is kept; and the word by which a guard knows the policies."""

import json

import pytest

from ascend_middleware.authority import Role, parse_policy
from ascend_middleware.authority.store.verification import verify

OUTCOMES = "/api/agent-action/outcomes"


def report(desk, action, *, key="user", **more):
    use = {"action_id": action, "status": "used", "how": "cached", "outcome": "completed", "use": "journal-1", **more}
    status, answer = desk.post(OUTCOMES, {"outcomes": [{k: v for k, v in use.items() if v is not None}]}, key=key)
    assert status == 200
    return answer["outcomes"][0]


def uses(desk):
    return [data for event, data in desk.audit() if event == "ACTION_USED"]


def test_a_use_is_an_entry_of_its_own_and_changes_no_outcome(desk):
    action = desk.submit()[1]["action_id"]
    assert desk.post(f"/api/agent-action/{action}/complete", {})[0] == 200
    found = report(desk, action, outcome="failed", error="it raised", duration_ms=4, used_at="2027-01-15T08:00:00.000Z")
    assert found == {"action_id": action, "outcome": "used", "success": True, "status": 200}
    (use,) = uses(desk)
    assert {name: use[name] for name in ("use", "how", "outcome", "error", "duration_ms", "used_at")} == {
        "use": "journal-1",
        "how": "cached",
        "outcome": "failed",
        "error": "it raised",
        "duration_ms": 4,
        "used_at": "2027-01-15T08:00:00.000Z",
    }
    details = desk.get(f"/api/v1/actions/{action}")[1]
    assert details["outcome"]["status"] == "completed" and details["uses"] == 1
    events = desk.get("/audit/logs", key="admin")[1]["events"]
    told = next(one for one in events if one["event_type"] == "ACTION_USED")
    assert (told["action"], told["outcome"]) == (action, "failed")
    assert desk.store.verify_audit() is None


def test_a_repeated_report_counts_once_and_another_one_under_its_key_is_refused(desk):
    action = desk.submit()[1]["action_id"]
    assert [report(desk, action)["status"] for _ in range(2)] == [200, 200]
    assert report(desk, action, outcome="failed")["status"] == 409
    assert report(desk, action, use="journal-2")["status"] == 200
    assert [report(desk, action, use="x", idempotency_key="k")["status"] for _ in range(2)] == [200, 200]
    assert [use["use"] for use in uses(desk)] == ["journal-1", "journal-2", "x"]


@pytest.mark.parametrize("lacking", ["how", "outcome", "use"])
def test_a_report_that_lacks_something_is_refused(desk, lacking):
    action = desk.submit()[1]["action_id"]
    found = report(desk, action, **{lacking: None})
    assert found["status"] == 400 and lacking in found["error"]["message"] and uses(desk) == []


@pytest.mark.parametrize("wrong", [{"how": "by chance"}, {"outcome": "denied"}, {"use": ""}, {"use": "x" * 256}])
def test_a_report_of_other_words_is_refused(desk, wrong):
    assert report(desk, desk.submit()[1]["action_id"], **wrong)["status"] == 422


def test_only_what_was_approved_without_a_person_can_be_used(desk):
    pending, denied = desk.submit("transaction", amount=5000)[1], desk.submit("database_schema")[1]
    for action in (pending["action_id"], denied["action_id"]):
        found = report(desk, action)
        assert (found["status"], found["error"]["code"]) == (409, "NOT_REUSABLE")
    assert desk.post(f"/api/v1/actions/{pending['action_id']}/approve", {}, key="admin")[0] == 200
    found = report(desk, pending["action_id"])
    assert found["status"] == 409 and "by a person, for one run" in found["error"]["message"]
    assert uses(desk) == [] and desk.events().count("OUTCOME_REFUSED") == 3


@pytest.mark.parametrize("kind", ["transaction", "database_schema"])
def test_a_log_that_tells_of_a_use_which_could_not_be_is_not_whole(desk_of, kind):
    desk = desk_of()  # not the fixture's, whose log stays whole
    action = desk.submit(kind, amount=5000)[1]["id"]
    assert verify(desk.store).whole
    data = {"use": "made up", "how": "cached", "outcome": "completed"}
    desk.store.audit("ACTION_USED", tenant="default", actor="u", action_id=action, data=data)
    (finding,) = verify(desk.store).findings
    assert f"actions {action}, use: entry {finding.seq} uses again what was not approved" in finding.message


def test_what_belongs_to_others_cannot_be_used(desk):
    action = desk.submit()[1]["action_id"]
    assert report(desk, action, key="stranger")["status"] == 404
    assert report(desk, "999")["status"] == 404
    bound = desk.store.issue_key(name="bound", role=Role.USER, tenant="default", agents=["b-*"])
    assert report(desk, action, key=bound)["error"]["code"] == "AGENT_NOT_ALLOWED"
    assert uses(desk) == []


def test_an_action_shows_its_last_uses_and_how_many_there_were(desk):
    action = desk.submit()[1]["action_id"]
    rows = [
        {"action_id": action, "status": "used", "how": "cached", "outcome": "completed", "use": f"u{number}"}
        for number in range(150)
    ]
    assert desk.post(OUTCOMES, {"outcomes": rows})[1]["success"] is True
    assert desk.post(f"/api/agent-action/{action}/complete", {})[0] == 200
    details = desk.get(f"/api/v1/actions/{action}")[1]
    trail = [(one["event"], one["data"].get("use")) for one in details["audit_trail"]]
    assert details["uses"] == 150
    assert trail[0][0] == "ACTION_SUBMITTED" and trail[-1][0] == "ACTION_COMPLETED"
    assert [use for event, use in trail if event == "ACTION_USED"] == [f"u{number}" for number in range(50, 150)]


def test_a_text_that_looks_like_a_use_is_none(desk):
    action = desk.submit(resource='"event":"ACTION_USED"')[1]["action_id"]
    details = desk.get(f"/api/v1/actions/{action}")[1]
    assert details["uses"] == 0 and details["audit_trail"][0]["event"] == "ACTION_SUBMITTED"


# --- the word for the policies


def word(desk):
    told = desk.submit()[1]["policy_state"]
    asked = [
        desk.get("/api/deployment-info")[1]["policy_state"],
        desk.get("/api/sdk/kill-switch/status")[1]["policy_state"],
        desk.post(OUTCOMES, {"outcomes": [{"action_id": "1", "status": "completed"}]})[1]["policy_state"],
    ]
    assert asked == [told] * 3
    return told


def test_it_stays_while_nothing_changes(desk):
    first = word(desk)
    desk.submit("transaction", amount=5000)
    desk.post("/api/agents/health/heartbeat", {"agent_id": "a"})
    assert word(desk) == first


CHANGES = {
    "a policy": ("/api/governance/policies", {"name": "p", "action_types": ["x"], "decision": "denied"}),
    "a smart rule": ("/api/smart-rules", {"name": "s", "condition": "action.action_type == 'x'", "action": "deny"}),
    "an agent": ("/api/registry/agents", {"agent_id": "new", "agent_name": "new"}),
    "an MCP server": ("/api/registry/mcp-servers", {"server_name": "new"}),
    "a command": ("/api/registry/agents/other/commands", {"command_type": "BLOCK", "reason": "misbehaves today"}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_changes_with_whatever_a_decision_depends_on(desk, what):
    first = word(desk)
    path, body = CHANGES[what]
    status, answer = desk.post(path, body, key="admin")
    assert status in (200, 201), json.dumps(answer)
    assert word(desk) != first


def test_it_changes_with_the_policy_file(desk):
    first = word(desk)
    desk.authority.use(parse_policy("[thresholds]\npending = 50\n"))
    assert word(desk) != first
