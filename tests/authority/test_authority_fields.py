"""Every field of every answer says what the audit log says, after each kind of event; and what is told stays told."""

import json

import pytest

from ascend_middleware.authority import Role
from ascend_middleware.authority.webhooks import Outbox

POLICY = """
[approvals]
expires_after = "1h"

[approvals.high]
count = 2
approvers = ["boss", "chief", "third"]

[[policy]]
name = "people first"
action_types = ["transfer"]
decision = "pending"
risk_score = 75

[[policy]]
name = "small is fine"
action_types = ["transfer", "drop"]
decision = "approved"

[[policy]]
name = "only a score"
action_types = ["drop"]
risk_score = 20

[[policy]]
name = "one person"
action_types = ["note"]
decision = "pending"
risk_score = 40

[[policy]]
name = "never"
action_types = ["drop"]
decision = "denied"

[[policy]]
name = "broken"
action_types = ["odd"]
when = "action.action_details.none > 1"
decision = "approved"

[[mcp_server]]
name = "files"

[[model]]
id = 7
"""
EVENTS = [
    *("action.submitted", "action.pending", "action.approved", "action.denied", "action.completed", "action.failed"),
    "policy.violation",
]


@pytest.fixture
def desk(desk_of, database):
    desk = desk_of(POLICY, database, development=True)
    for name in ("chief", "third"):
        setattr(desk, name, desk.store.issue_key(name=name, role=Role.ADMIN, tenant="default"))
    hook = {"url": "https://h.example", "events": EVENTS, "secret": "s" * 32}
    assert desk.post("/api/webhooks/configure", hook, key="admin")[0] == 201
    clock = desk.authority.now

    def ticking():
        desk.time += 0.011
        return clock()

    # Whoever looks at the clock twice for one event is seen.
    desk.authority.now = desk.store.now = ticking
    yield desk
    assert desk.store.verify_audit() is None


def told_by(trail):
    """Return the fields of a decision as the audit log tells them."""
    first = trail[0]
    data = first["data"]
    status, decision, approvals, outcome, updated = data["decision"], None, [], None, first["at"]
    for entry in trail[1:]:
        if entry["event"] == "ACTION_APPROVAL_ADDED":
            approvals.append(entry["data"]["by"])
        elif entry["event"] in ("ACTION_APPROVED", "ACTION_DENIED", "ACTION_EXPIRED"):
            decision = entry
            status = "approved" if entry["event"] == "ACTION_APPROVED" else "denied"
        elif entry["event"] in ("ACTION_COMPLETED", "ACTION_FAILED"):
            outcome = entry["event"].removeprefix("ACTION_").lower()
        else:
            continue
        updated = entry["at"]
    expired = decision is not None and decision["event"] == "ACTION_EXPIRED"
    by_person = decision is not None and not expired
    terms = data.get("approval") or {}
    names = terms.get("names") or ["admin"] * terms.get("count", 0)
    pending = status == "pending"
    reason = data["reason"]
    if expired:
        reason = f"expired: nobody decided before {terms['expires_at']}"
    elif by_person:
        comments = decision["data"]["comments"]
        reason = f"{status} by {decision['actor']}" + (f": {comments}" if comments else "")
    denying = {"never": ["drop"], "broken": ["odd"]}
    fields = {
        "id": first["action_id"],
        "action_id": str(first["action_id"]),
        "status": status,
        "decision": status,
        "risk_score": data["risk_score"],
        "risk_level": next(
            w for n, w in ((85, "critical"), (60, "high"), (30, "medium"), (0, "low")) if data["risk_score"] >= n
        ),
        "reason": reason,
        "policy_matched": data["policy_matched"] or None,
        "timestamp": updated,
        "created_at": first["at"],
        "updated_at": updated,
        "summary": f"{data['action_type']} on r: {status}",
        "approval_request_id": str(first["action_id"]) if terms else None,
        "required_approvers": names if pending else [],
        "pending_approvers": [name for name in names if name not in approvals] if pending else [],
        "approved_by": [*approvals, decision["actor"]] if status == "approved" and by_person else approvals,
        "expires_at": terms.get("expires_at"),
        "policy_violations": [name for name, kinds in denying.items() if data["action_type"] in kinds],
        "conditions": [],
        "execution_allowed": status == "approved",
        "correlation_id": data["correlation_id"],
    }
    if by_person:
        fields |= {
            "decided_by": decision["actor"],
            "decided_at": decision["at"],
            "comments": decision["data"]["comments"],
        }
    else:
        words = {"approved": "auto_approved", "pending": "pending_approval", "denied": "denied"}
        fields["enforcement_decision"] = words[status]
    for name in ("mcp_governance", "model_governance"):
        if name in data:
            fields[name] = data[name]
    return fields, {"risk_factors": data["factors"], "matched_policies": data["matched"]}, outcome


def check(desk, number, answer=None):
    """Compare every form in which an action is told with the log; return its trail."""
    record = desk.get(f"/api/v1/actions/{number}", key="admin")[1]
    trail = record.pop("audit_trail")
    fields, metadata, outcome = told_by(trail)
    submission = {name: record[name] for name in record if name not in fields and name not in ("metadata", "outcome")}
    assert submission["resource"] == "r" and submission["action_type"] == trail[0]["data"]["action_type"]
    assert (record.get("outcome") or {}).get("status") == outcome
    answers = [record, desk.get(f"/api/v1/actions/{number}/status")[1]]
    answers += [row for row in desk.get("/api/v1/actions")[1]["actions"] if row["id"] == number]
    pending = [row for row in desk.get("/api/governance/pending-actions")[1]["actions"] if row["id"] == number]
    assert len(pending) == (fields["status"] == "pending")
    answers += pending + ([answer] if answer else [])
    beside = {"metadata", "outcome", "success", "requires_approval", "policy_state"}
    for one in answers:
        kept = {name: one[name] for name in one if name not in submission and name not in beside}
        assert kept == fields
        assert {name: one["metadata"][name] for name in metadata} == metadata
    approval = desk.get(f"/api/sdk/approval/{number}")[1]
    denied = fields["status"] == "denied"
    decider = next(
        (e["data"]["by"] for e in trail if e["event"] in ("ACTION_APPROVED", "ACTION_DENIED", "ACTION_EXPIRED")), None
    )
    assert approval == {
        **fields,
        "metadata": record["metadata"],
        "approval_request_id": str(number),
        "approved_by": decider if fields["status"] == "approved" else None,
        "rejected_by": decider if denied else None,
        "decided_at": next(
            (
                e["at"]
                for e in trail
                if e["data"].get("by") == decider and decider and e["event"] != "ACTION_APPROVAL_ADDED"
            ),
            None,
        ),
        "rejection_reason": fields["reason"] if denied else None,
    }
    word = "pending_approval" if fields["status"] == "pending" else fields["status"]
    enveloped = desk.get(f"/api/v2/actions/{number}/status")[1]["data"]
    assert {name: enveloped[name] for name in fields} == {**fields, "status": word, "decision": word}
    logs = desk.get("/audit/logs", query="limit=1000", key="admin")[1]["events"]
    told = {entry["event_id"]: entry for entry in logs}
    for entry in trail:
        event = told[str(entry["seq"])]
        assert (event["event_type"], event["timestamp"], event["actor"]) == (
            entry["event"],
            entry["at"],
            entry["actor"],
        )
        assert (event["resource"], event["action"], event["hash"]) == ("r", str(number), entry["hash"])
        assert event["details"] == entry["data"]
        expected = entry["data"].get("decision") or ("failed" if entry["event"] == "ACTION_FAILED" else "success")
        assert event["outcome"] == ("refused" if "REFUSED" in entry["event"] else expected)
    return trail


def outcome_of(desk, number, word, **body):
    assert desk.post(f"/api/agent-action/{number}/{word}", body)[0] == 200
    return check(desk, number)


def test_every_field_after_every_event(desk):
    kinds = {}
    for kind in ("data_access", "transfer", "note", "drop", "odd", "extraction"):
        more = {"risk_indicators": {"credentials": True}} if kind == "extraction" else {}
        answer = desk.submit(kind, **more)[1]
        kinds[kind] = answer["id"]
        check(desk, answer["id"], answer)
    mcp = {"agent_id": "a", "mcp_server": "files", "namespace": "fs", "verb": "read", "resource": "r", "model_id": 7}
    answer = desk.post("/api/v1/mcp/actions/submit", mcp)[1]
    check(desk, answer["id"], answer)
    statuses = [desk.get(f"/api/v1/actions/{number}/status")[1]["status"] for number in kinds.values()]
    assert statuses == ["approved", "pending", "pending", "denied", "denied", "denied"]
    first = kinds["transfer"]
    check(desk, first, desk.post(f"/api/v1/actions/{first}/approve", {"comments": "one"}, key="admin")[1])
    assert desk.post(f"/api/v1/actions/{first}/approve", key="admin")[0] == 409
    assert desk.post(f"/api/v1/actions/{first}/approve", key="user")[0] == 403
    check(desk, first)
    done = desk.post(f"/api/v1/actions/{first}/approve", {"comments": "two"}, key="chief")[1]
    assert done["approved_by"] == ["boss", "chief"]
    check(desk, first, done)
    outcome_of(desk, first, "complete", result={"n": 1}, duration_ms=3)
    check(desk, kinds["note"], desk.post(f"/api/v1/actions/{kinds['note']}/reject", {"reason": "no"}, key="third")[1])
    outcome_of(desk, kinds["data_access"], "fail", error="x")
    half = desk.submit("transfer")[1]["id"]
    desk.post(f"/api/v1/actions/{half}/approve", key="third")
    check(desk, half, desk.post(f"/api/governance/workflows/{half}/approve", {"approved": False}, key="chief")[1])
    late = desk.submit("transfer")[1]["id"]
    desk.post(f"/api/v1/actions/{late}/approve", key="third")
    desk.time += 3601
    check(desk, late)


def test_webhooks_tell_what_was_when_it_happened(desk):
    number = desk.submit("transfer")[1]["id"]
    desk.post(f"/api/v1/actions/{number}/approve", {"comments": "one"}, key="admin")
    desk.post(f"/api/v1/actions/{number}/approve", {"comments": "two"}, key="chief")
    outcome_of(desk, number, "complete", result="HIDDEN")
    late = desk.submit("note")[1]["id"]
    desk.time += 3601
    desk.store.expire()
    # Only now is the log read: everything has happened.
    while Outbox(desk.authority).fill():
        pass
    bodies = [json.loads(row["body"]) for row in desk.store.rows("SELECT body FROM deliveries ORDER BY id")]
    assert [(body["data"]["id"], body["event"]) for body in bodies] == [
        (number, "action.submitted"),
        (number, "action.pending"),
        (number, "action.approved"),
        (number, "action.completed"),
        (late, "action.submitted"),
        (late, "action.pending"),
        (late, "action.denied"),
    ]
    trails = {one: desk.get(f"/api/v1/actions/{one}", key="admin")[1]["audit_trail"] for one in (number, late)}
    for body in bodies:
        data = body["data"]
        seq = int(body["id"].split("_")[1])
        trail = [entry for entry in trails[data["id"]] if entry["seq"] <= seq]
        fields, metadata, outcome = told_by(trail)
        assert {name: data[name] for name in fields} == fields
        assert data["outcome"] == outcome and body["created_at"] == trail[-1]["at"]
        assert {name: data["metadata"][name] for name in metadata} == metadata
        assert (data["audit_event"], data["actor"]) == (trail[-1]["event"], trail[-1]["actor"])
        assert set(data) - set(fields) == {
            *("audit_event", "actor", "agent_id", "agent_name", "action_type", "resource", "metadata", "outcome"),
        }
    assert [body["data"]["status"] for body in bodies] == [
        *("pending", "pending", "approved", "approved"),
        *("pending", "pending", "denied"),
    ]
    assert "HIDDEN" not in json.dumps(bodies)


def test_a_denial_names_the_policies_that_deny(desk):
    assert desk.submit("drop")[1]["policy_violations"] == ["never"]
    assert desk.submit("odd")[1]["policy_violations"] == ["broken"]
    assert desk.submit("extraction", risk_indicators={"credentials": True})[1]["policy_violations"] == []


def test_the_name_of_an_agent_is_the_registered_one(desk):
    assert desk.submit(agent_id="bot")[1] and desk.get("/api/v1/actions/1")[1]["agent_name"] == "bot"
    answer = desk.post("/api/registry/agents", {"agent_id": "bot", "agent_name": "Billing bot"})[1]["agent"]
    assert (answer["agent_name"], answer["display_name"]) == ("Billing bot", "Billing bot")
    desk.submit(agent_id="bot")
    assert desk.get("/api/v1/actions/2")[1]["agent_name"] == "Billing bot"
    desk.submit(agent_id="bot", agent_name="itself")
    assert desk.get("/api/v1/actions/3")[1]["agent_name"] == "itself"
    changed = desk.call("PUT", "/api/registry/agents/bot", {"agent_name": "Payer"}, key="admin")[1]["agent"]
    assert (changed["agent_name"], changed["display_name"]) == ("Payer", "Billing bot")
    desk.submit(agent_id="bot")
    assert desk.get("/api/v1/actions/4")[1]["agent_name"] == "Payer"
    other = desk.post("/api/registry/agents", {"agent_id": "b2", "display_name": "Two"})[1]["agent"]
    assert (other["agent_name"], other["display_name"]) == ("Two", "Two")
    both = {"agent_id": "b3", "display_name": "Shown", "agent_name": "Name"}
    other = desk.post("/api/registry/agents", both)[1]["agent"]
    assert (other["agent_name"], other["display_name"]) == ("Name", "Shown")
    assert desk.get("/api/registry/agents/b3")[1]["agent_name"] == "Name"


@pytest.mark.parametrize(
    ("fields", "score"),
    [
        ({"risk_indicators": {"risk_score": 95}}, 95),
        ({"risk_indicators": {"riskScore": 94.2}}, 95),
        ({"risk_indicators": {"risk_level": "CRITICAL "}}, 85),
        ({"risk_indicators": {"found": [{"riskLevel": "high"}]}}, 60),
        ({"risk_score": 70, "risk_level": "medium"}, 70),
        ({"risk_indicators": {"risk_score": 1000}}, 100),
        ({"risk_score": 3}, 10),
        ({"risk_indicators": {"risk_score": 0, "risk_level": "low"}}, 10),
        ({"risk_score": -5, "risk_level": "unheard of"}, 10),
        ({"risk_score": True}, 10),
        ({"risk_score": None, "risk_level": 85}, 85),
        ({"action_details": {"risk_score": 99}, "context": {"risk_level": "high"}}, 10),
    ],
)
def test_a_caller_may_raise_the_risk_and_never_lower_it(desk, fields, score):
    answer = desk.submit("data_access", **fields)[1]
    points = {signal["signal"]: signal for signal in answer["metadata"]["explanation"]["signals"]}
    claims = [points[name] for name in points if name.startswith("claimed")]
    assert answer["risk_score"] == score + (5 if "found" in fields.get("risk_indicators", {}) and score < 60 else 0)
    assert bool(claims) == (score > 10) and all(claim["source"] == "submission" for claim in claims)
    assert answer["status"] == ("denied" if score >= 90 else "pending" if score >= 60 else "approved")
    tried = desk.post("/api/governance/policies/evaluate-realtime", {"action_type": "data_access", **fields})[1]
    assert tried.get("risk_score", fields.get("risk_score")) == (True if fields.get("risk_score") is True else score)
    # What is judged and shown does not hold the claim: only the score does.
    assert "risk_score" not in json.dumps(desk.get("/api/v1/actions/1")[1]["risk_indicators"])
