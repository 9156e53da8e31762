"""Who decides about a pending action: so many different people, nobody about their own, and nobody too late."""

import time

import pytest
from kit.databases import behind
from kit.desk import Desk

from ascend_middleware.authority import Authority, Role, approvals, parse_policy
from ascend_middleware.authority.bodies import ApiError
from ascend_middleware.authority.keys import operator
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError

POLICY = """
[approvals]
expires_after = "1h"

[approvals.high]
count = 2

[approvals.critical]
count = 2
approvers = ["alice", "Bob", "carol"]

[[policy]]
name = "high"
action_types = ["high"]
decision = "pending"
risk_score = 75

[[policy]]
name = "critical"
action_types = ["critical"]
decision = "pending"
risk_score = 95

[[policy]]
name = "medium"
action_types = ["medium"]
decision = "pending"
risk_score = 50
"""


class People(Desk):
    KEYS = tuple(
        (
            name,
            name.strip(),
            Role.USER if name == "agent" else Role.SUPER_ADMIN if name == "dave" else Role.ADMIN,
            "default",
        )
        for name in ("agent", "alice", "bob", "carol", "dave", "alice ")
    )
    KEY = "agent"

    def submit(self, kind, key="agent"):
        return self.call("POST", "/api/v1/actions/submit", {"agent_id": "a", "action_type": kind}, key=key)[1]

    def approve(self, number, key, **body):
        status, answer = self.call("POST", f"/api/v1/actions/{number}/approve", body, key=key)
        return status, answer["error"]["code"] if status >= 400 else answer["status"]

    def deny(self, number, key):
        return self.call("POST", f"/api/v1/actions/{number}/reject", {}, key=key)[0]

    def status(self, number):
        return self.call("GET", f"/api/v1/actions/{number}/status")[1]

    def trail(self, number):
        record = self.call("GET", f"/api/v1/actions/{number}")[1]
        return [(entry["event"], entry["actor"]) for entry in record["audit_trail"]]


@pytest.fixture
def desk(desk_of):
    desk = desk_of(POLICY, kind=People)
    yield desk
    assert verify(desk.store).whole


def test_one_admin_is_enough_unless_more_are_asked_for(desk):
    answer = desk.submit("medium")
    assert answer["required_approvers"] == answer["pending_approvers"] == ["admin"]
    assert desk.approve(1, "dave", comments="fine") == (200, "approved")
    assert desk.status(1)["required_approvers"] == [] and desk.status(1)["comments"] == "fine"


def test_two_different_people(desk):
    assert desk.submit("high")["pending_approvers"] == ["admin", "admin"]
    assert desk.approve(1, "alice", comments="one") == (200, "pending")
    half = desk.status(1)
    assert (half["status"], half["execution_allowed"]) == ("pending", False)
    assert (half["approved_by"], half["pending_approvers"]) == (["alice"], ["admin"])
    assert desk.approve(1, "alice") == (409, "ALREADY_APPROVED")
    assert desk.approve(1, "alice ") == (409, "ALREADY_APPROVED")  # another key of the same person
    assert desk.call("GET", "/api/v1/actions", query="status=pending")[1]["actions"][0]["approved_by"] == ["alice"]
    assert desk.approve(1, "bob", comments="two") == (200, "approved")
    assert desk.trail(1) == [
        ("ACTION_SUBMITTED", "agent"),
        ("ACTION_APPROVAL_ADDED", "alice"),
        ("ACTION_APPROVED", "bob"),
    ]


def test_named_approvers(desk):
    assert desk.submit("critical")["required_approvers"] == ["alice", "Bob", "carol"]
    assert desk.approve(1, "dave") == (403, "NOT_AN_APPROVER")
    assert desk.deny(1, "dave") == 403
    assert desk.approve(1, "bob") == (200, "pending")
    assert desk.status(1)["pending_approvers"] == ["alice", "carol"]
    assert desk.approve(1, "carol") == (200, "approved")


def test_one_denial_denies_also_by_one_who_approved(desk):
    desk.submit("high")
    desk.approve(1, "alice")
    assert desk.deny(1, "alice") == 200 and desk.status(1)["decision"] == "denied"
    assert desk.approve(1, "bob") == (409, "NOT_PENDING")
    # Nor is anything noted that might count later, also where one more would not have been enough.
    desk.submit("high")
    assert desk.deny(2, "alice") == 200
    assert desk.approve(2, "bob") == (409, "NOT_PENDING")
    assert desk.trail(2) == [("ACTION_SUBMITTED", "agent"), ("ACTION_DENIED", "alice")]


def test_nobody_decides_about_their_own_also_not_with_another_key(desk):
    desk.submit("medium", key="alice")
    for key in ("alice", "alice "):
        assert desk.approve(1, key) == (403, "SELF_APPROVAL")
        assert desk.deny(1, key) == 403
    assert desk.approve(1, "agent") == (403, "ADMIN_REQUIRED")
    assert desk.approve(1, "bob") == (200, "approved")
    refused = [one["data"] for one in desk.store.audit_trail(1, tenant="default") if one["event"] == "DECISION_REFUSED"]
    assert [(data["code"], data["key"], data["approved"], data["via"]) for data in refused] == [
        ("SELF_APPROVAL", 2, True, "api"),
        ("SELF_APPROVAL", 2, False, "api"),
        ("SELF_APPROVAL", 6, True, "api"),
        ("SELF_APPROVAL", 6, False, "api"),
        ("ADMIN_REQUIRED", 1, True, "api"),
    ]


def test_what_nobody_decided_in_time_is_denied(desk):
    assert desk.submit("medium")["expires_at"] == "2023-11-14T23:13:20.000Z"
    desk.submit("read")
    assert desk.status(2)["expires_at"] is None
    desk.time += 3599
    assert desk.status(1)["status"] == "pending"
    desk.time += 1
    late = desk.status(1)
    assert (late["status"], late["decision"], late["execution_allowed"]) == ("denied", "denied", False)
    assert late["reason"] == "expired: nobody decided before 2023-11-14T23:13:20.000Z"
    assert "decided_by" not in late
    assert desk.approve(1, "dave") == (409, "NOT_PENDING")
    assert desk.trail(1) == [("ACTION_SUBMITTED", "agent"), ("ACTION_EXPIRED", "authority")]


def test_expiry_by_the_clock_alone_and_in_lists(desk):
    for _ in range(3):
        desk.submit("medium")
    assert desk.store.expire() == 0
    desk.time += 3600
    assert desk.call("GET", "/api/governance/pending-actions")[1]["total"] == 0
    (*rows,) = desk.call("GET", "/api/v1/actions")[1]["actions"]
    assert {(row["status"], row["reason"]) for row in rows} == {("denied", desk.status(1)["reason"])}
    now = desk.call("GET", "/api/analytics/realtime/metrics")[1]
    assert now["last_24_hours"]["by_status"] == {"approved": 0, "pending": 0, "denied": 3}
    assert (now["pending_actions"], desk.store.expire()) == (0, 2)


def test_an_approval_in_the_last_moment_or_a_moment_too_late(desk):
    desk.submit("high")
    desk.submit("high")
    for number in (1, 2):
        desk.approve(number, "alice")
    desk.time += 3599.999
    assert desk.approve(1, "bob") == (200, "approved")
    desk.time += 0.001
    assert desk.approve(2, "bob") == (409, "NOT_PENDING")


def test_the_terms_of_an_action_stay_what_they_were(desk_of, database):
    desk = desk_of(POLICY, database, People)
    desk.submit("high")
    later = Authority(desk.store, parse_policy(""), now=lambda: desk.time)
    desk.authority = later
    assert desk.approve(1, "alice") == (200, "pending")


def test_comments_are_bounded(desk):
    desk.submit("medium")
    for comments in (7, ["x"], "x" * 4097):
        assert desk.approve(1, "bob", comments=comments) == (422, "VALIDATION_ERROR")
    assert desk.approve(1, "bob", comments=None, reason="x" * 4096) == (200, "approved")


def test_comments_are_bounded_at_every_door(desk):
    desk.submit("medium")
    row = desk.store.action(1, tenant="default")
    for comments in ("x" * 4097, 7):
        with pytest.raises(ApiError) as refusal:
            approvals.decide(desk.store, row, {"comments": comments}, approved=True, by=operator(), via="page")
        assert (refusal.value.status, refusal.value.details) == (422, {"field": "comments"})
    assert desk.status(1)["status"] == "pending"


def test_all_of_those_named_may_be_needed():
    policy = parse_policy('[approvals.high]\ncount = 2\napprovers = ["alice", "bob"]')
    assert policy.approvals.levels["high"].count == 2


def test_the_command_line_is_one_person_too(desk_of, database, capsys):
    desk = desk_of(POLICY, database, People)
    desk.time = time.time()  # the command line has the real clock
    for kind in ("high", "critical"):
        desk.submit(kind)
    place = ("--db", str(database))
    assert main(["approve", "1", *place]) == 0
    assert "waits for admin" in capsys.readouterr().out
    assert main(["approve", "1", *place]) == 1 and "before" in capsys.readouterr().err
    assert main(["approve", "2", *place]) == 1 and "alice" in capsys.readouterr().err
    assert desk.approve(1, "alice") == (200, "approved")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('expires_after = "soon"', "expires_after"),
        ("expires_after = 3600", "expires_after"),
        ('expires_after = "0s"', "expires_after"),
        ("severe = { count = 2 }", "severe"),
        ("high = 2", "expected a table"),
        ("high = { count = 0 }", "count"),
        ("high = { count = true }", "count"),
        ('high = { count = 3, approvers = ["a", "b"] }', "only 2 may"),
        ('high = { approvers = ["a", "A"] }', "twice"),
        ('high = { approvers = "a" }', "list of names"),
        ('high = { who = "a" }', "who"),
    ],
)
def test_what_is_wrong_in_the_policy_file_is_named(text, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_policy(f"[approvals]\n{text}\n")


def test_an_action_that_was_changed_behind_the_logs_back_is_found(desk_of):
    desk = desk_of(POLICY, kind=People)
    for kind in ("medium", "read", "medium", "medium", "read", "read"):
        desk.submit(kind)
    desk.deny(3, "bob")
    assert verify(desk.store).whole
    behind(desk.store, "UPDATE actions SET status = 'approved' WHERE id IN (1, 3)")
    behind(desk.store, "UPDATE actions SET submission = replace(submission, 'read', 'load') WHERE id = 2")
    behind(desk.store, "DELETE FROM actions WHERE id = 5")
    behind(desk.store, "UPDATE actions SET id = 9 WHERE id = 4")
    behind(desk.store, "UPDATE actions SET submitter = 'nobody' WHERE id = 6")
    findings = [found for found in verify(desk.store).findings if found.seq or found.row == "9"]  # not of the counts
    assert {(found.kind, found.table) for found in findings} == {("row", "actions")}
    assert [(found.seq, found.message) for found in findings] == [
        (7, "actions 1, status: it is 'approved', and entry 7 says 'pending'"),
        (8, "actions 2, submission: it is not what was submitted with entry 8"),
        (13, "actions 3, status: it is 'approved', and entry 13 says 'denied'"),
        (12, "actions 6, submitter: it is 'nobody', and entry 12 says 'agent'"),
        (0, "actions 9 is not in the log"),
        (10, "actions 4 is gone, and entry 10 tells of it"),
        (11, "actions 5 is gone, and entry 11 tells of it"),
    ]


def test_however_many_are_due_none_is_approved_too_late(desk):
    for _ in range(700):
        desk.submit("medium")
    desk.time += 3600
    assert desk.approve(700, "bob") == (409, "NOT_PENDING")
    assert desk.status(699)["status"] == "denied"
    assert desk.call("GET", "/api/v1/actions", query="status=pending")[1]["total"] == 0
    assert desk.store.expire() == 698


def test_an_action_that_cannot_be_read_keeps_no_other_from_expiring(desk):
    for _ in range(3):
        desk.submit("medium")
    (kept,) = desk.store.rows("SELECT judgement FROM actions WHERE id = 1")
    with desk.store.write():
        desk.store.execute("UPDATE actions SET judgement = '{' WHERE id = 1")
    desk.time += 3600
    assert desk.store.expire() == 3
    assert [desk.status(number)["status"] for number in (2, 3)] == ["denied", "denied"]
    with desk.store.write():
        desk.store.execute("UPDATE actions SET judgement = ? WHERE id = 1", (kept["judgement"],))


def test_two_who_approve_at_once_are_counted_under_the_lock(desk):
    desk.submit("high")
    by = {name: desk.store.find_key(desk.__dict__[name]) for name in ("alice", "bob", "carol")}
    before = desk.store.action(1, tenant="default")  # both doors read it before either has decided
    approvals.decide(desk.store, before, {}, approved=True, by=by["alice"])
    assert approvals.decide(desk.store, before, {}, approved=True, by=by["bob"])["status"] == "approved"
    with pytest.raises(ApiError) as caught:
        approvals.decide(desk.store, before, {}, approved=True, by=by["carol"])
    assert (caught.value.status, caught.value.code) == (409, "NOT_PENDING")
    desk.submit("high")
    before = desk.store.action(2, tenant="default")
    approvals.decide(desk.store, before, {}, approved=True, by=by["alice"])
    with pytest.raises(ApiError) as caught:
        approvals.decide(desk.store, before, {}, approved=True, by=by["alice"])
    assert caught.value.code == "ALREADY_APPROVED"
    approvals.decide(desk.store, before, {}, approved=False, by=by["bob"])
    with pytest.raises(ApiError) as caught:
        approvals.decide(desk.store, before, {}, approved=True, by=by["carol"])
    assert caught.value.message == "action 2 is not pending, it is denied"


def test_from_a_head_on_the_actions_that_are_told_of_afterwards_are_compared(desk_of, database):
    desk = desk_of(path=database)
    for _ in range(3):
        desk.submit("transaction", amount=5000)
    noted = verify(desk.store).head
    desk.post("/api/v1/actions/2/approve", {}, key="admin")
    with desk.store.write():
        desk.store.execute("UPDATE actions SET status = 'approved' WHERE id IN (1, 2)")
        desk.store.execute("UPDATE actions SET submitter = 'x' WHERE id = 2")
    (found,) = verify(desk.store, start=noted).findings
    assert found.message == "actions 2, submitter: it is 'x', and entry 8 says 'u'"
    assert {one.row for one in verify(desk.store).findings if one.table == "actions"} == {"1", "2"}
