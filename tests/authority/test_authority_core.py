import contextlib
import re
import sqlite3
import subprocess
import sys
import threading
from functools import partial

import pytest
from kit.databases import behind, contents, refusing
from kit.desk import Desk
from kit.processes import together

from ascend_middleware.api.answers import action_page
from ascend_middleware.api.decode import decode_decision, error_from_answer
from ascend_middleware.authority import Store
from ascend_middleware.exceptions import StorageError

POLICY = """
[[policy]]
name = "large refunds need a person"
action_types = ["transaction"]
when = "action.action_details.amount > 1000"
decision = "pending"
risk_score = 75
reason = "refund above 1000"

[[policy]]
name = "transactions are fine"
action_types = ["transaction"]
decision = "approved"

[[policy]]
name = "no schema"
action_types = ["database_schema"]
decision = "denied"

[[mcp_server]]
name = "files"
blocked_tools = ["rm"]

[[model]]
id = 7
name = "good"

[[model]]
id = 8
compliance_status = "denied"
"""


class Refunds(Desk):
    def __init__(self, policy=POLICY, path=":memory:", **options):
        super().__init__(policy, path, **options)

    def submit(self, amount=10, key="user", **fields):
        details = {"agent_name": "A", "action_details": {"amount": amount}}
        return super().submit(**{"action_type": "transaction", "key": key, **details, **fields})


@pytest.fixture
def desk(desk_of):
    desk = desk_of(POLICY, kind=Refunds)
    yield desk
    assert desk.store.verify_audit() is None


@pytest.mark.sqlite_file
def test_health_really_reads_and_writes_the_database(desk_of, tmp_path):
    desk = desk_of(POLICY, kind=Refunds, path=tmp_path / "a.db")
    assert desk.call("GET", "/health", key=None)[0] == 200
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")  # nobody else can write
    desk.store.engine.connection.execute("PRAGMA busy_timeout=0")
    desk.time += 0.9
    assert (
        desk.call("GET", "/health", key=None)[0] == 200
    )  # one look holds for a second: anybody may ask, and it costs a write
    desk.time += 0.2
    status, answer = desk.call("GET", "/health", key=None)
    assert (status, answer["status"]) == (503, "unhealthy") and "database" in answer["problem"]
    other.execute("ROLLBACK")
    desk.time += 0.9
    assert desk.call("GET", "/health", key=None)[0] == 503  # a bad look holds as long: it may have waited for a lock
    desk.time += 0.2
    assert desk.call("GET", "/health", key=None)[0] == 200
    desk.time += 2
    other.execute("DROP TABLE audit_head")
    assert desk.call("GET", "/health", key=None)[0] == 503
    other.close()
    desk.time += 2
    desk.authority.close()
    assert desk.call("GET", "/health", key=None)[1]["status"] == "unhealthy"


@pytest.mark.sqlite_file
@pytest.mark.parametrize("asked", ["/health", "/ready", "/api/v1/actions/1/status"])
def test_nothing_is_decided_once_somebody_wrote_over_the_database(desk_of, tmp_path, caplog, asked):
    path = tmp_path / "a.db"
    desk = desk_of(POLICY, kind=Refunds, path=path)
    assert desk.submit()[0] == desk.call("GET", "/api/v1/actions/1/status")[0] == 200
    assert desk.call("GET", "/health", key=None)[0] == 200
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what the log holds would not be lost
    # Another process does it: to close the file here would drop this process's locks on it.
    over = (
        "import os, sys; size = os.path.getsize(sys.argv[1]); open(sys.argv[1], 'r+b').write(b'garbage!' * (size // 8))"
    )
    subprocess.run([sys.executable, "-c", over, path], check=True)
    desk.time += 2
    assert desk.call("GET", asked, key="user" if "api" in asked else None)[0] == 503
    # The connection that writes could: it still knows the pages that it needs.
    status, answer = desk.submit()
    assert (status, answer["error"]["code"]) == (503, "STORAGE_UNAVAILABLE") and "decision" not in answer
    assert desk.call("GET", "/health", key=None)[1]["status"] == "unhealthy"
    assert f"the database {path} is damaged" in caplog.text and "Put a backup in its place" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.sqlite_file
def test_nothing_is_decided_or_read_once_the_database_lost_its_name(desk_of, tmp_path):
    desk = desk_of(POLICY, kind=Refunds, path=tmp_path / "a.db")
    assert desk.submit()[0] == 200
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    desk.time += 2
    for answer in (desk.submit(), desk.call("GET", "/api/v1/actions/1/status")):
        assert (answer[0], answer[1]["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert "decision" not in answer[1]
    assert desk.call("GET", "/health", key=None)[1]["status"] == "unhealthy"
    (tmp_path / "b.db").rename(tmp_path / "a.db")
    desk.time += 2
    assert desk.submit()[0] == 200
    assert desk.call("GET", "/health", key=None)[1]["status"] == "healthy"


def test_health_needs_no_key_and_the_rest_does(desk):
    assert desk.call("GET", "/health", key=None)[1]["status"] == "healthy"
    for path in ("/api/deployment-info", "/api/v1/actions", "/nowhere"):
        assert desk.call("GET", path, key=None)[0] == 401
    assert desk.call("GET", "/api/deployment-info", key="owkai_wrong_wrong_wrong")[0] == 401
    assert desk.call("GET", "/api/deployment-info")[1].keys() >= {"version", "environment", "server_time"}


def test_who_reads_does_not_wait_for_who_writes(desk_of, database):
    desk, seen = desk_of(POLICY, database), []
    with desk.store.write():
        reader = threading.Thread(target=lambda: seen.append(desk.get("/api/v1/actions")[0]))
        reader.start()
        reader.join(10)
        answered = list(seen)
    reader.join()
    assert answered == [200]


def test_credentials_in_their_documented_places(desk):
    def asks(**headers):
        return desk.call("GET", "/api/deployment-info", key=None, **headers)[0]

    assert asks(authorization=f"Bearer {desk.user}") == 200
    assert asks(authorization="Bearer owkai_***masked", x_api_key=desk.user) == 200
    assert asks(authorization=f"Bearer {desk.user}", x_api_key="owkai_another_wrong_key") == 401
    assert asks(authorization=f"Basic {desk.user}") == 401
    assert asks(authorization="Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln") == 401


def test_only_hashes_of_keys_are_stored(desk):
    dump = contents(desk.store)
    assert re.fullmatch("owkai_user_[0-9a-f]{64}", desk.user)  # 32 random bytes
    assert desk.user not in dump
    assert desk.admin not in dump


def test_a_revoked_key_is_refused(desk):
    desk.store.revoke_key(1)
    assert desk.call("GET", "/api/deployment-info")[0] == 401


def test_decisions_are_readable_by_the_client(desk):
    status, fields = desk.submit(10)
    assert status == 200
    assert decode_decision(desk.content).is_approved()
    assert fields["action_id"] == "1" and fields["id"] == 1 and fields["enforcement_decision"] == "auto_approved"
    desk.submit(5000)
    pending = decode_decision(desk.content)
    assert pending.is_pending() and pending.reason == "refund above 1000" and pending.risk_score == 75
    assert pending.approval_request_id == pending.action_id == "2"
    desk.submit(action_type="database_schema")
    denied = decode_decision(desk.content)
    assert denied.is_denied() and not denied.execution_allowed and denied.policy_matched == "no schema"


def test_a_condition_that_cannot_be_evaluated_denies(desk, caplog):
    for details in ({}, {"amount": "much"}, {"amount": None}):
        _, fields = desk.submit(action_details=details)
        assert fields["decision"] == "denied"
        assert fields["reason"] == "policy 'large refunds need a person' could not be evaluated for this action"


def test_how_a_policy_is_made_is_for_admins(desk, caplog):
    inside = "values of kinds that do not go together"
    number = desk.submit(action_details={"amount": "much"})[1]["id"]
    assert [record.levelname for record in caplog.records if inside in record.getMessage()] == ["WARNING"]
    tried = "/api/governance/policies/evaluate-realtime"
    trial = {"action_type": "transaction", "action_details": {"amount": "much"}}
    places = [
        ("GET", f"/api/v1/actions/{number}"),
        ("GET", f"/api/v1/actions/{number}/status"),
        ("GET", "/api/v1/actions"),
    ]
    for method, path, *body in (*places, ("GET", "/audit/logs"), ("POST", tried, trial)):
        desk.call(method, path, *body, key=desk.user)
        answer = desk.content.decode()
        assert "No such overload" not in answer and inside not in answer and "amount >" not in answer, path
    for method, path, *body in (places[0], ("GET", "/audit/logs"), ("POST", tried, trial)):
        desk.call(method, path, *body, key=desk.admin)
        assert inside in desk.content.decode(), path


def test_the_callers_own_risk_scores_count_for_nothing(desk):
    plain = desk.submit(5, action_type="file_delete")[1]
    claimed = desk.submit(
        5, action_type="file_delete", risk_score=0, risk_level="low", risk_indicators={"risk_score": 1}
    )[1]
    assert plain["risk_score"] == claimed["risk_score"] == 65
    assert claimed["decision"] == "pending"
    assert claimed["metadata"]["risk_factors"] == ["delete: 65"]


def test_missing_fields_and_wrong_values_are_told_apart(desk):
    def submit(**body):
        status, answer = desk.call("POST", "/api/v1/actions/submit", body)
        return status, answer["error"]["code"], answer["error"]["details"].get("field"), answer["status"]

    assert submit(action_type="x") == (400, "INVALID_REQUEST", "agent_id", "error")
    assert submit(agent_id="x") == (400, "INVALID_REQUEST", "action_type", "error")
    both = {"agent_id": "a", "action_type": "t"}
    assert submit(**both, parameters={"a": 1}, action_details={"a": 2})[0] == 422
    assert submit(**both, parameters={"a": 1}, action_details={"a": True})[0] == 422
    assert submit(**both, context=[])[2] == "context"
    assert submit(**both, resource=7)[2] == "resource"
    assert submit(**both, orchestration_depth=6)[2] == "orchestration_depth"
    assert submit(**both, orchestration_depth=True)[2] == "orchestration_depth"
    assert submit(agent_id="a", action_type="transaction ")[2] == "action_type"
    assert submit(agent_id="a\n", action_type="t")[2] == "agent_id"
    assert submit(agent_id=7, action_type="t")[0] == 422
    assert desk.call("GET", "/api/v1/actions")[1]["total"] == 0


@pytest.mark.parametrize(
    "raw",
    [
        b'{"agent_id":"a","agent_id":"b","action_type":"t"}',
        b'{"agent_id":"a","action_type":"t","context":{"x":1,"x":2}}',
        b'{"agent_id":"a","action_type":"t","context":{"x":NaN}}',
        b'{"agent_id":"a","action_type":"t","context":{"x":1e999}}',
        b'{"agent_id":"a","action_type":"t","context":{"x":"\\ud800"}}',
        b'{"agent_id":"a","action_type":"t","context":{"x":99999999999999999999999}}',
        b'{"agent_id":"a","action_type":"t","context":' + b'{"a":' * 60 + b"1" + b"}" * 61,
        b'{"agent_id":"a","action_type":"t","context":' + b"[" * 50_000,
        b"[]",
        b"null",
        b"\xff",
        b'{"agent_id":"a"',
        b'{"agent_id":"a","action_type":"t","context":{"x":[' + b"1," * 20_000 + b"1]}}",
    ],
)
def test_ambiguous_or_oversized_bodies_are_refused(desk, raw):
    status, answer = desk.call("POST", "/api/v1/actions/submit", raw=raw)
    assert status in (400, 422)
    assert error_from_answer(status, desk.content, {}).message
    assert answer["detail"]
    assert desk.call("POST", "/api/v1/actions/submit", raw=b" " * 200_000)[0] == 413


def test_the_three_generations_of_bodies(desk):
    body = {"agent_id": "a", "action_type": "t", "parameters": {"x": 1}, "description": "d"}
    number = desk.call("POST", "/api/v1/actions/submit", body)[1]["action_id"]
    record = desk.call("GET", f"/api/v1/actions/{number}")[1]
    assert (record["resource"], record["description"], record["action_details"]) == ("d", "d", {"x": 1})
    number = desk.call("POST", "/api/v1/actions/submit", {**body, "resource": "r"})[1]["action_id"]
    record = desk.call("GET", f"/api/v1/actions/act_{number}")[1]
    assert (record["resource"], record["description"]) == ("r", "d")
    assert [entry["event"] for entry in record["audit_trail"]] == ["ACTION_SUBMITTED"]


def test_envelope_on_request(desk):
    _, answer = desk.call(
        "POST",
        "/api/v1/actions/submit",
        {"agent_id": "a", "action_type": "transaction", "parameters": {"amount": 5000}},
        x_api_version="2025-12-01",
    )
    assert answer["status"] == "success" and answer["data"]["status"] == "pending_approval"
    assert decode_decision(desk.content).is_pending()
    _, answer = desk.call("GET", "/api/v2/actions", query="limit=1")
    assert answer.keys() == {"status", "data", "pagination", "meta"}
    for path, status in (("/api/v2/actions/1/status", 200), ("/api/v2/actions/9/status", 404)):
        found, answer = desk.call("GET", path, x_correlation_id="c-1")
        assert (found, answer["meta"]) == (status, {"request_id": "c-1", "timestamp": "2023-11-14T22:13:20.000Z"})
    assert desk.call("GET", "/api/v2/actions/1/status")[1]["data"]["decision"] == "pending_approval"


def test_a_long_list_is_spelled_like_a_short_one(desk):
    for amount in range(5000, 5030):
        desk.submit(amount)
    _, short = desk.call("GET", "/api/v1/actions", query="limit=3")
    _, long = desk.call("GET", "/api/v1/actions", query="limit=30")
    assert short.keys() - {"next"} == long.keys() and long["actions"] == long["data"] and len(long["data"]) == 30
    assert long["data"][:3] == short["data"] and {row["status"] for row in long["data"]} == {"pending"}
    _, envelope = desk.call("GET", "/api/v2/actions", query="limit=30")
    assert envelope.keys() == {"status", "data", "pagination", "meta"} and envelope["pagination"] == long["pagination"]
    assert envelope["data"] == [
        {**row, **dict.fromkeys(("status", "decision"), "pending_approval")} for row in long["data"]
    ]
    _, events = desk.call("GET", "/audit/logs", key="admin")
    assert len(events["events"]) >= 30 and events["events"] == events["logs"] == events["items"] == events["data"]
    _, envelope = desk.call("GET", "/audit/logs", key="admin", x_api_version="2025-12-01")
    assert envelope["data"] == events


def test_lists_filter_sort_and_page(desk):
    for amount in (1, 5000, 2, 6000):
        desk.submit(amount, agent_id=f"agent-{amount}")
        desk.time += 86_400

    def ids(query, path="/api/v1/actions"):
        desk.call("GET", path, query=query)
        page = action_page(desk.content, limit=50, offset=0)
        return [row["action_id"] for row in page.actions]

    assert ids("") == ["4", "3", "2", "1"]
    assert ids("status=pending_approval&order=asc") == ids("order=asc", "/api/governance/pending-actions") == ["2", "4"]
    assert ids("agent_id=agent-2") == ["3"]
    assert ids("sort=risk_score&order=desc&risk_level=high") == ["4", "2"]
    assert ids("limit=1&offset=1") == ["3"]
    assert ids("start_date=2023-11-15&end_date=2023-11-16") == ["3", "2"]
    assert desk.call("GET", "/api/v1/actions", query="limit=3")[1]["has_more"] is True
    for bad in (
        "sort=reason",
        "offset=-1",
        "limit=0",
        "limit=1001",
        "order=up",
        "status=odd",
        "x=1",
        "limit=1&limit=2",
    ):
        assert desk.call("GET", "/api/v1/actions", query=bad)[0] == 422, bad


def test_an_admin_decides_once_and_never_about_an_action_of_the_same_key(desk):
    number = desk.submit(5000)[1]["action_id"]
    path = f"/api/governance/workflows/{number}/approve"
    assert desk.call("POST", path)[0] == 403
    assert desk.call("POST", path, key="stranger")[0] == 404
    assert desk.call("POST", path, {"approved": "false"}, key="admin")[0] == 422
    status, answer = desk.call("POST", path, {"approved": True, "comments": "fine"}, key="admin")
    assert status == 200 and decode_decision(desk.content).is_approved() and answer["comments"] == "fine"
    assert desk.call("GET", f"/api/v1/actions/{number}/status")[1]["decided_by"] == "boss"
    assert desk.call("POST", f"/api/v1/actions/{number}/reject", key="admin")[0] == 409

    own = desk.submit(5000, key="admin")[1]["action_id"]
    status, answer = desk.call("POST", f"/api/v1/actions/{own}/approve", key="admin")
    assert (status, answer["error"]["code"]) == (403, "SELF_APPROVAL")
    assert desk.call("GET", f"/api/v1/actions/{own}/status")[1]["status"] == "pending"
    assert desk.events().count("DECISION_REFUSED") == 2


def test_denials_by_each_path(desk):
    for path, body in (
        ("/api/governance/workflows/{}/approve", {"approved": False}),
        ("/api/v1/actions/{}/reject", {"reason": "no"}),
        ("/api/v1/actions/{}/approve", {"approved": False}),
    ):
        number = desk.submit(5000)[1]["action_id"]
        assert desk.call("POST", path.format(number), body, key="admin")[1]["decision"] == "denied"
        assert decode_decision(desk.content).is_denied()


def test_outcomes_are_for_approved_actions_and_said_once(desk):
    number = desk.submit()[1]["action_id"]
    path = f"/api/agent-action/{number}"
    for odd in (-1, True, "5"):
        status, answer = desk.call("POST", f"{path}/complete", {"duration_ms": odd})
        assert (status, answer["error"]["details"]["field"]) == (422, "duration_ms")
    assert desk.call("POST", f"{path}/complete", {"result": {"n": 1}, "duration_ms": 5})[0] == 200
    assert desk.call("POST", f"{path}/complete", {"duration_ms": 5})[0] == 200
    assert desk.call("POST", f"{path}/fail", {"error": "x"})[0] == 409
    record = desk.call("GET", f"/api/v1/actions/{number}")[1]
    assert record["outcome"]["status"] == "completed" and record["status"] == "approved"
    pending = desk.submit(5000)[1]["action_id"]
    assert desk.call("POST", f"/api/agent-action/{pending}/fail", {})[0] == 409
    assert desk.events()[-1] == "OUTCOME_REFUSED"
    assert desk.call("POST", f"{path}/complete", key="stranger")[0] == 404


def test_an_approval_that_was_given_back_is_in_the_audit_log_and_the_outcome_comes_later(desk):
    number = desk.submit()[1]["action_id"]
    path = f"/api/agent-action/{number}"
    for count in (1, 2):
        body = {"error": "the handler did not run", "duration_ms": 1, "given_back": count}
        assert desk.call("POST", f"{path}/fail", body)[0] == 200
    record = desk.call("GET", f"/api/v1/actions/{number}")[1]
    assert "outcome" not in record and record["status"] == "approved"
    given = [entry for entry in record["audit_trail"] if entry["event"] == "APPROVAL_GIVEN_BACK"]
    assert [entry["data"]["given_back"] for entry in given] == [1, 2]
    assert {entry["data"]["error"] for entry in given} == {"the handler did not run"}
    assert desk.call("POST", f"{path}/complete", {"duration_ms": 5, "given_back": 3})[0] == 200  # it did happen
    assert desk.call("GET", f"/api/v1/actions/{number}")[1]["outcome"]["status"] == "completed"
    for bad in (0, "1", True, 1.5):
        assert desk.call("POST", f"{path}/fail", {"given_back": bad})[0] == 422
    pending = desk.submit(5000)[1]["action_id"]
    assert desk.call("POST", f"/api/agent-action/{pending}/fail", {"given_back": 1})[0] == 409


def test_many_outcomes_are_reported_at_once_and_a_bad_one_stops_no_other(desk):
    first, second, pending = (desk.submit(amount)[1]["action_id"] for amount in (1, 2, 5000))
    told = [
        {"action_id": first, "status": "completed", "result": {"n": 1}, "duration_ms": 5},
        {"action_id": pending, "status": "failed", "error": "x"},
        {"action_id": "999", "status": "completed"},
        {"action_id": first, "status": "failed"},
        {"action_id": second, "status": "finished"},
        {"status": "completed"},
        {"action_id": f"act_{second}", "status": "failed", "error": "it raised"},
        {"action_id": first, "status": "completed"},
    ]
    status, answer = desk.call("POST", "/api/agent-action/outcomes", {"outcomes": told})
    assert (status, answer["success"]) == (200, False)
    assert [one["status"] for one in answer["outcomes"]] == [200, 409, 404, 409, 422, 400, 200, 200]
    assert answer["outcomes"][1]["error"]["code"] == "NOT_APPROVED"
    assert desk.events()[-3:] == ["ACTION_COMPLETED", "OUTCOME_REFUSED", "ACTION_FAILED"]
    assert desk.call("GET", f"/api/v1/actions/{second}")[1]["outcome"]["error"] == "it raised"
    stranger = desk.call("POST", "/api/agent-action/outcomes", {"outcomes": told[:1]}, key="stranger")[1]
    assert [one["status"] for one in stranger["outcomes"]] == [404]


def test_a_batch_of_outcomes_is_bounded_and_its_size_announced(desk):
    most = desk.call("GET", "/api/deployment-info")[1]["max_outcomes"]
    one = {"action_id": desk.submit()[1]["action_id"], "status": "completed"}
    for count, expected in ((0, 422), (most, 200), (most + 1, 422)):
        assert desk.call("POST", "/api/agent-action/outcomes", {"outcomes": [one] * count})[0] == expected
    assert desk.events().count("ACTION_COMPLETED") == 1


@pytest.mark.parametrize("doors", ["batch, batch", "batch, single", "single, batch"])
def test_an_approval_is_given_back_once_under_one_key_by_whatever_door(desk, doors):
    number = desk.submit()[1]["action_id"]
    body = {"action_id": number, "status": "failed", "given_back": 1}
    for door in doors.split(", "):
        if door == "batch":
            told = {"outcomes": [{**body, "idempotency_key": "journal-1"}]}
            answer = desk.call("POST", "/api/agent-action/outcomes", told)[1]
            assert answer["success"]
        else:
            path = f"/api/agent-action/{number}/fail"
            assert desk.call("POST", path, body, idempotency_key="journal-1")[0] == 200
    assert desk.events().count("APPROVAL_GIVEN_BACK") == 1
    other = {"outcomes": [{**body, "given_back": 2, "idempotency_key": "journal-1"}]}
    answer = desk.call("POST", "/api/agent-action/outcomes", other)[1]
    assert answer["outcomes"][0]["error"]["code"] == "IDEMPOTENCY_CONFLICT"


def test_other_tenants_see_nothing(desk):
    desk.submit()
    assert desk.call("GET", "/api/v1/actions/1", key="stranger")[0] == 404
    assert desk.call("GET", "/api/v1/actions", key="stranger")[1]["total"] == 0
    for odd in ("0", "99", "x", "-1", "99999999999999999999", "act_", "१"):
        assert desk.call("GET", f"/api/v1/actions/{odd}")[0] == 404


def test_unknown_paths_and_methods(desk):
    assert desk.call("GET", "/api/v1/actions/1/x")[0] == 404
    assert desk.call("DELETE", "/api/v1/actions/1")[0] == 405
    assert desk.headers["allow"] == "GET"


def test_the_same_idempotency_key_repeats_the_answer(desk):
    first = desk.call("POST", "/api/v1/actions/submit", {"agent_id": "a", "action_type": "t"}, idempotency_key="k")[1]
    content = desk.content
    desk.time += 3600
    desk.call("POST", "/api/v1/actions/submit", {"action_type": "t", "agent_id": "a"}, idempotency_key="k")
    assert desk.content == content and desk.headers["idempotency-replayed"] == "true"
    other = {"agent_id": "b", "action_type": "t"}
    assert desk.call("POST", "/api/v1/actions/submit", other, idempotency_key="k")[0] == 409
    second = desk.call("POST", "/api/v1/actions/submit", other, idempotency_key="k", key="admin")[1]
    assert second["id"] == first["id"] + 1
    assert desk.call("POST", "/api/v1/actions/submit", other, idempotency_key="")[0] == 422
    desk.time += 49 * 3600
    assert desk.call("POST", "/api/v1/actions/submit", other, idempotency_key="k")[1]["id"] == first["id"] + 2


def test_simultaneous_repetitions_make_one_action(desk_of, database):
    desks = [
        desk_of(POLICY, kind=Refunds, path=database) for _ in range(3)
    ]  # three connections, as three processes have
    answers = []

    def submit(desk):
        body = b'{"agent_id":"a","action_type":"t"}'
        headers = {"x-api-key": desks[0].user, "idempotency-key": "k"}
        answers.append(desk.authority.handle("POST", "/api/v1/actions/submit", "", headers, body)[2])

    together(*(partial(submit, desk) for desk in desks * 4))
    assert len(answers) == 12 and len(set(answers)) == 1
    assert desks[0].call("GET", "/api/v1/actions")[1]["total"] == 1
    assert desks[0].store.verify_audit() is None
    for desk in desks:
        desk.authority.close()


def test_parents_and_sessions(desk):
    root = desk.submit(orchestration_session_id="s1")[1]["action_id"]
    child = desk.submit(parent_action_id=int(root), orchestration_depth=1)[1]["action_id"]
    assert desk.call("GET", f"/api/v1/actions/{child}")[1]["orchestration_session_id"] == "s1"
    assert desk.submit(parent_action_id=f"act_{root}", orchestration_session_id="s1")[0] == 200
    assert desk.submit(parent_action_id=999)[0] == 403
    assert desk.submit(parent_action_id=root, orchestration_session_id="s2")[0] == 403
    foreign = desk.submit(key="stranger")[1]["action_id"]
    assert desk.submit(parent_action_id=foreign)[0] == 403
    alone = desk.submit()[1]["action_id"]
    assert desk.submit(parent_action_id=alone, orchestration_session_id="s1")[0] == 403
    assert desk.events().count("ORCHESTRATION_FIELD_REJECTED") == 2
    assert desk.events().count("ORCHESTRATION_GRAFT_ATTEMPT") == 2


def test_mcp_servers_and_models_must_be_declared(desk):
    assert desk.submit(mcp_server_name="files")[1]["mcp_governance"]["server_registered"] is True
    status, answer = desk.submit(mcp_server_name="files", tool_name="rm")
    assert (status, answer["detail"]["code"]) == (403, "MCP_TOOL_BLOCKED_DENY")
    assert desk.submit(mcp_server_name="files", action_details={"amount": 1, "tool_name": "rm"})[0] == 403
    status, answer = desk.submit(mcp_server_name="shell")
    assert (status, answer["detail"]["code"]) == (403, "MCP_SERVER_UNREGISTERED_DENY")
    assert "governance" in answer["detail"]["error"]
    assert desk.submit(model_id=7)[1]["model_governance"]["compliance_status"] == "approved"
    assert desk.submit(model_id="good")[0] == 200
    assert desk.submit(model_id=8)[0] == desk.submit(model_id=9)[0] == 403


def test_the_audit_log_is_append_only_and_chained(desk_of):
    desk = desk_of(POLICY, kind=Refunds)
    desk.submit()
    desk.submit(5000)
    for statement in ("DELETE FROM audit", "UPDATE audit SET entry = '{}'"):
        with pytest.raises(Exception, match="audit log"):
            behind(desk.store, statement)
    assert desk.store.verify_audit() is None
    changed = "UPDATE audit SET entry = replace(entry, 'approved', 'denied') WHERE seq = 5"
    behind(desk.store, changed, guarded=False)
    assert desk.store.verify_audit() == 5


def test_a_decision_and_its_audit_entry_stand_or_fall_together(desk):
    with refusing(desk.store, "audit"):
        status, answer = desk.submit()
    assert (status, answer["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert desk.call("GET", "/api/v1/actions")[1]["total"] == 0


def test_an_unreadable_parent_refuses(desk, caplog):
    class Broken(Store):
        def action(self, action_id, *, tenant):
            raise StorageError("disk I/O error")

    desk.store.__class__ = Broken
    assert desk.submit(parent_action_id=1)[0] == 403
    desk.store.__class__ = Store


def test_correlation_ids_are_echoed_when_sane(desk):
    desk.call("GET", "/health", x_correlation_id="abc-1")
    assert desk.headers["x-correlation-id"] == "abc-1"
    desk.call("GET", "/health", x_correlation_id="a b\n")
    assert desk.headers["x-correlation-id"] not in ("", "a b\n")


def test_a_key_of_another_organisation_than_the_client_names_is_refused(desk):
    assert desk.call("GET", "/api/v1/actions", **{"x-organization-slug": "default"})[0] == 200
    answer = desk.call("GET", "/api/v1/actions", **{"x-organization-slug": "other"})
    assert desk.code(answer) == (403, "OTHER_ORGANIZATION")
