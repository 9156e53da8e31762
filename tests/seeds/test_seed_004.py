"""The REST overview: every curl of it with the real curl, and its Python with a real HTTP client."""

import json
import subprocess
import threading

import httpx2
import pytest
from seed_kit import Town, curl, run

from ascend_middleware import AscendClient
from ascend_middleware.authority import Role

BODY = {"agent_id": "trading-bot-001", "action_type": "trade_execution", "description": "Execute buy order",
        "parameters": {"symbol": "AAPL", "quantity": 100}}  # fmt: skip
SUBMIT = "/api/v1/actions/submit"


@pytest.fixture
def home(tmp_path, approving):
    """A reader's home: the shorter commands leave the credentials to it."""
    (tmp_path / ".curlrc").write_text(f'header = "X-API-Key: {approving.user}"\n')
    return tmp_path


def submit(town, **fields):
    return town.call("POST", SUBMIT, {**BODY, **fields}, key=town.user)


def test_4_1_list_with_an_api_key(town):
    submit(town)
    ((status, body),) = curl("4-1", town)
    assert status == 200 and body["actions"][0]["action_type"] and body["data"] == body["actions"]


def test_4_2_list_with_a_jwt(fresh):
    ((status, body),) = curl("4-2", fresh)
    assert status == 200 and "data" in body
    for token in ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJrZXk6MSJ9.", fresh.token()[:-4] + "AAAA"):
        ((status, body),) = curl("4-2", fresh, token=token)
        assert status == 401 and body["status"] == "error"


def test_4_3_both_on_one_endpoint(approving):
    answers = curl("4-3", approving, append=f'"{approving.url}/api/v1/actions"')
    assert [status for status, _ in answers] == [200, 200]


def test_4_4_the_request_body(town):
    status, body = submit(town)
    assert (status, body["status"]) == (200, town.verdict)
    record = town.call("GET", f"/api/v1/actions/{body['action_id']}")[1]
    assert (record["description"], record["action_details"]) == ("Execute buy order", BODY["parameters"])


def test_4_5_the_envelope(town):
    status, body = town.call("POST", SUBMIT, BODY, key=town.user, headers={"X-API-Version": "2025-12-01"})
    assert (status, body["status"]) == (200, "success") and set(body["meta"]) == {"request_id", "timestamp"}
    assert body["data"]["decision"] == ("pending_approval" if town.verdict == "pending" else town.verdict)
    assert body["data"]["action_id"] and isinstance(body["data"]["risk_score"], int)


def test_4_6_the_error(approving):
    status, body = approving.call("POST", SUBMIT, {"action_type": "t"}, key=approving.user)
    assert (status, body["status"], body["error"]["code"]) == (400, "error", "INVALID_REQUEST")
    assert "agent_id" in body["error"]["message"] and body["detail"]
    assert body["error"]["details"] == {"field": "agent_id", "requirement": "required"}


def test_4_7_status_codes(tmp_path):
    town = Town("approved", tmp_path / "own.db", submit_limit=2)
    hook = {"target_url": "https://x.example/", "event_types": ["action.denied"]}
    once = {"headers": {"Idempotency-Key": "once"}, "key": town.user}
    try:
        seen = [
            town.call("POST", SUBMIT, BODY, **once)[0],
            town.call("POST", SUBMIT, {**BODY, "description": "another"}, **once)[0],
            submit(town)[0],
            submit(town)[0],
            town.call("POST", "/api/webhooks", hook)[0],
            town.call("POST", SUBMIT, {})[0],
            town.call("GET", "/api/v1/actions", key="owkai_live_of_nobody_00000")[0],
            town.call("POST", "/api/smart-rules", {}, key=town.user)[0],
            town.call("GET", "/api/v1/actions/999999")[0],
            town.call("GET", "/api/v1/actions?limit=0")[0],
        ]
        town.authority.policy = None  # a defect of the authority, whatever it is
        seen.append(town.call("GET", "/api/deployment-info")[0])
    finally:
        town.close()
    assert set(seen) == {200, 201, 400, 401, 403, 404, 409, 422, 429, 500}


def test_4_8_rate_limits_are_told_and_kept_per_key(tmp_path):
    town = Town("approved", tmp_path / "limited.db", submit_limit=3)
    try:
        other = town.store.issue_key(name="other", role=Role.USER, tenant="default")
        with httpx2.Client(base_url=town.url, headers={"X-API-Key": town.user}) as client:
            answers = [client.post(SUBMIT, json=BODY) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            first, last = answers[0].headers, answers[-1].headers
            assert (first["X-RateLimit-Limit"], first["X-RateLimit-Remaining"]) == ("3", "2")
            assert int(first["X-RateLimit-Reset"]) > 1_600_000_000 and int(last["Retry-After"]) > 0
            assert client.post(SUBMIT, json=BODY, headers={"X-API-Key": other}).status_code == 200
        wrong = {"X-API-Key": "owkai_live_of_nobody_00000"}
        with httpx2.Client(base_url=town.url, headers=wrong) as client:
            assert [client.get("/api/v1/actions").status_code for _ in range(6)] == [401] * 5 + [429]
        assert town.call("GET", "/api/v1/actions")[0] == 200  # a valid key is never locked out
    finally:
        town.close()


def test_4_9_the_documents_retry_function(tmp_path, monkeypatch):
    slept = []
    town = Town("approved", tmp_path / "limited.db", submit_limit=1)
    try:
        retry = run("4-9", town).api_call_with_retry
        monkeypatch.setattr("time.sleep", slept.append)
        with httpx2.Client(base_url=town.url, headers={"X-API-Key": town.user}) as client:
            assert retry(lambda: client.post(SUBMIT, json=BODY)).status_code == 200
            assert retry(lambda: client.post(SUBMIT, json=BODY)).status_code == 429
        assert len(slept) == 1 and isinstance(slept[0], int) and 0 < slept[0] <= 61
    finally:
        monkeypatch.undo()
        town.close()


def test_4_10_pagination(approving):
    ((status, body),) = curl("4-10", approving)
    assert status == 200 and set(body["pagination"]) == {"total", "limit", "offset", "has_more"}
    assert (body["pagination"]["limit"], body["pagination"]["offset"]) == (50, 100)


def test_4_11_filters(approving, home):
    for _ in range(3):
        submit(approving)
    pending, high, ordered, ranged = (curl("4-11", approving, home=home)[number] for number in range(4))
    assert pending[0] == high[0] == ordered[0] == ranged[0] == 200
    assert pending[1]["actions"] == high[1]["actions"] == ranged[1]["actions"] == []
    times = [row["created_at"] for row in ordered[1]["actions"]]
    assert len(times) >= 3 and times == sorted(times, reverse=True)


def test_4_11_the_end_of_a_range_is_inclusive(approving):
    today = submit(approving)[1]["created_at"][:10]
    page = approving.call("GET", f"/api/v1/actions?start_date={today}&end_date={today}")[1]
    assert page["total"] > 0


def test_4_12_and_4_13_versions(approving, home):
    ((status, body),) = curl("4-12", approving, home=home)
    assert status == 200 and body["status"] == "success"
    for version in ("1999-01-01", "soon"):
        assert approving.call("GET", "/api/v1/actions", headers={"X-API-Version": version})[0] == 400
    assert approving.call("GET", "/api/v1/actions")[0] == approving.call("GET", "/api/v2/actions")[0] == 200


def test_4_14_idempotency(town):
    ((status, first),) = curl("4-14", town)
    ((again, second),) = curl("4-14", town)
    assert status == again == 200 and first["action_id"] == second["action_id"]
    headers = {"Idempotency-Key": "unique-request-id-123"}
    assert town.call("POST", SUBMIT, BODY, key=town.user, headers=headers)[0] == 409


def test_4_14_fifty_at_once_are_one_action(approving):
    answers = []
    headers = {"Idempotency-Key": "fifty-at-once"}

    def once():
        answers.append(approving.call("POST", SUBMIT, BODY, key=approving.user, headers=headers))

    threads = [threading.Thread(target=once) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({body["action_id"] for status, body in answers if status == 200}) == 1
    assert {status for status, _ in answers} <= {200, 409}


def test_4_15_webhooks(approving):
    ((status, body),) = curl("4-15", approving)
    assert status == 201
    hooks = approving.call("GET", "/api/webhooks")[1]["webhooks"]
    assert any(hook["url"] == "https://your-app.com/webhooks" for hook in hooks)
    insecure = {"target_url": "http://your-app.com/webhooks", "event_types": ["action.submitted"]}
    assert approving.call("POST", "/api/webhooks", insecure)[0] == 422


def test_4_16_the_keyword_form(town):
    ran = run("4-16", town)
    assert ran.result.status == town.verdict
    record = town.call("GET", f"/api/v1/actions/{ran.result.action_id}")[1]
    assert (record["agent_id"], record["action_details"]) == ("trading-bot-001", {"symbol": "AAPL"})


def test_4_18_every_listed_endpoint_answers(approving):
    action_id = submit(approving)[1]["action_id"]
    listed = """
        POST /api/v1/actions/submit · GET /api/v1/actions/{id} · GET /api/governance/pending-actions
        GET /api/registry/agents · POST /api/registry/agents · GET /api/smart-rules · POST /api/smart-rules
        GET /api/governance/policies · POST /api/governance/policies · POST /api/governance/workflows/{id}/approve
        GET /api/analytics/realtime/metrics · GET /api/analytics/executive/dashboard · GET /api/analytics/trends
    """
    for line in listed.replace("·", "\n").split("\n"):
        if not line.strip():
            continue
        method, path = line.replace("{id}", action_id).split()
        status, _ = approving.call(method, path, {} if method == "POST" else None)
        assert status in (200, 201, 400, 409, 422), line


def test_the_client_and_curl_see_the_same_action(approving):
    with AscendClient(approving.user, api_url=approving.url, agent_id="a") as client:
        made = client.submit_action(action_type="t", resource="r")
    url = f"{approving.url}/api/v1/actions/{made.action_id}"
    done = subprocess.run(["curl", "-s", "-H", f"X-API-Key: {approving.user}", url], capture_output=True, check=True)
    assert json.loads(done.stdout)["action_id"] == made.action_id
