"""Supply chain, analytics, webhooks, audit log, classifications."""

import pytest

COMPONENTS = "/api/v1/supply-chain/components"
HOOKS = "/api/webhooks"


def component(desk, name="numpy", key="admin", **fields):
    body = {"component_id": name, "component_name": "NumPy", "component_type": "library", "risk_level": "low"}
    return desk.post(COMPONENTS, {**body, **fields}, key=key)


def test_a_component_is_registered_with_all_it_says(desk):
    said = {
        "provider": "NumFOCUS",
        "version": "1.26",
        "latest_version": "2.0",
        "license_type": "BSD",
        "source_url": "https://numpy.org",
        "provenance_verified": True,
        "compliance_notes": "fine",
        "package_name": "numpy",
        "package_ecosystem": "pypi",
    }
    status, answer = component(desk, **said)
    assert status == 201 and answer["success"] is True and answer["message"]
    assert {name: answer["component"][name] for name in said} == said
    status, answer = component(desk, risk_level="high")
    assert (status, answer["component"]["risk_level"], answer["message"]) == (200, "high", "component updated")
    assert desk.get(COMPONENTS)[1]["total"] == 1


def test_components_are_written_by_admins_and_of_known_kinds(desk):
    assert desk.code(component(desk, key="user")) == (403, "ADMIN_REQUIRED")
    status, answer = component(desk, component_type="gadget")
    assert (status, answer["error"]["details"]["field"]) == (422, "component_type")
    assert component(desk, risk_level="severe")[0] == 422
    assert desk.code(desk.post(COMPONENTS, {"component_id": "x"}, key="admin")) == (400, "INVALID_REQUEST")
    assert desk.get(COMPONENTS)[1]["components"] == []


def test_components_are_listed_and_counted(desk):
    component(desk, "a", version="1", latest_version="2")
    component(desk, "b", component_type="model", risk_level="high", provenance_verified=True)
    component(desk, "c", key="stranger")

    def ids(query):
        return [row["component_id"] for row in desk.get(COMPONENTS, query=query)[1]["components"]]

    assert ids("") == ids("active_only=true") == ["a", "b"]
    assert ids("component_type=model") == ids("risk_level=high") == ids("limit=1&offset=1") == ["b"]
    assert ids("has_vulnerabilities=true") == []
    assert desk.get(COMPONENTS, query="component_type=gadget")[0] == 422
    stats = desk.get("/api/v1/supply-chain/stats")[1]
    assert (stats["total"], stats["by_type"], stats["outdated"]) == (2, {"library": 1, "model": 1}, 1)
    assert stats["by_risk_level"] == {"low": 1, "high": 1} and stats["provenance_verified"] == 1


def test_analytics_count_what_happened_and_when(desk):
    desk.submit("read", agent_id="a")
    desk.submit("transaction", amount=5000, agent_id="b")
    desk.time += 86_400
    desk.submit("database_schema", agent_id="a")
    desk.submit("read", agent_id="a")
    desk.submit("read", key="stranger")

    metrics = desk.get("/api/analytics/realtime/metrics")[1]
    assert (metrics["actions_last_minute"], metrics["actions_last_hour"], metrics["active_agents"]) == (2, 2, 1)
    assert metrics["pending_actions"] == 1 and metrics["last_24_hours"]["total"] == 4

    board = desk.get("/api/analytics/executive/dashboard")[1]
    assert board["summary"]["by_status"] == {"approved": 2, "pending": 1, "denied": 1}
    assert (board["summary"]["approval_rate"], board["summary"]["denial_rate"]) == (0.6667, 0.3333)
    assert board["top_agents"][0] == {"agent_id": "a", "actions": 3}
    assert board["highest_risk_score"] == 75

    trends = desk.get("/api/analytics/trends", query="days=3")[1]["trends"]
    assert [(day["date"], day["total"], day["denied"]) for day in trends] == [
        ("2023-11-13", 0, 0),
        ("2023-11-14", 2, 0),
        ("2023-11-15", 2, 1),
    ]
    assert trends[0]["average_risk_score"] is None and trends[1]["average_risk_score"] == 42.5
    for query in ("days=0", "days=91", "days=x", "month=1"):
        assert desk.get("/api/analytics/trends", query=query)[0] == 422


def test_webhooks_in_both_forms_are_one_store(desk):
    status, first = desk.post(HOOKS, {"target_url": "https://hooks.example.com/a", "event_types": ["action.approved"]})
    assert status == 201 and first["success"] is True and len(first["secret"]) >= 32
    body = {"url": "https://hooks.example.com/b", "events": ["action.denied"], "agent_id": "a", "secret": "s" * 16}
    status, second = desk.post(f"{HOOKS}/configure", body)
    assert status == 201 and second["secret"] == "s" * 16
    rows = desk.get(HOOKS)[1]["webhooks"]
    assert [(row["url"], row["events"]) for row in rows] == [
        ("https://hooks.example.com/a", ["action.approved"]),
        ("https://hooks.example.com/b", ["action.denied"]),
    ]
    # A secret is shown once, in the answer that made it.
    assert all(row["secret"] is None and row["active"] for row in rows)
    place = f"{HOOKS}/{second['webhook_id']}"
    assert desk.call("PUT", place, {"events": ["action.failed"], "active": False})[1]["events"] == ["action.failed"]
    assert desk.get(place)[1]["active"] is False
    for method in ("GET", "PUT", "DELETE"):
        assert desk.call(method, place, {}, key="peer")[0] == 404
    assert desk.get(HOOKS, key="peer")[1]["total"] == 0 and desk.get(HOOKS, key="admin")[1]["total"] == 2
    assert desk.get(place, key="stranger")[0] == 404
    assert desk.call("DELETE", place, key="admin")[1]["success"] is True
    assert desk.get(place)[0] == 404
    # The path of a webhook's URL is often its only secret.
    assert "s" * 16 not in str(desk.audit()) and "hooks.example.com/b" not in str(desk.audit())


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://",
        "https://localhost/",
        "https://intranet/",
        "https://127.0.0.1/",
        "https://10.0.0.8/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://service.internal/",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com:port/",
        " https://hooks.example.com/",
        "https://hooks.example.com/\n",
        "javascript:alert(1)",
    ],
)
def test_a_webhook_goes_to_https_on_the_public_internet(desk, url):
    assert desk.code(desk.post(HOOKS, {"target_url": url, "event_types": ["action.denied"]})) == (
        422,
        "VALIDATION_ERROR",
    )
    made = desk.post(HOOKS, {"target_url": "https://hooks.example.com/", "event_types": ["action.denied"]})[1]
    assert desk.call("PUT", f"{HOOKS}/{made['id']}", {"url": url})[0] == 422


def test_in_development_a_webhook_may_stay_at_home(desk_of):
    desk = desk_of(development=True)
    body = {"target_url": "http://127.0.0.1:9/x", "event_types": ["action.denied"]}
    assert desk.post(HOOKS, body)[0] == 201
    assert desk.post(HOOKS, {**body, "target_url": "ftp://127.0.0.1/"})[0] == 422


def test_events_and_the_test_of_a_webhook(desk):
    url = "https://hooks.example.com/"
    assert desk.post(HOOKS, {"target_url": url, "event_types": ["action.exploded"]})[0] == 422
    assert desk.post(HOOKS, {"target_url": url, "event_types": []})[0] == 422
    assert desk.post(HOOKS, {"target_url": url})[0] == 400
    number = desk.post(HOOKS, {"target_url": url, "event_types": ["action.denied"]})[1]["id"]
    answer = desk.post(f"{HOOKS}/{number}/test")[1]
    assert answer["success"] is False and "delivers no webhooks" in answer["error"]
    sent = []
    desk.authority.send_webhook = lambda record, tenant: sent.append((record["url"], tenant)) or {"success": True}
    assert desk.post(f"{HOOKS}/{number}/test")[1] == {"success": True}
    assert sent == [(url, "default")]


def test_the_audit_log_is_paged_newest_first_and_per_organisation(desk):
    for _ in range(3):
        desk.submit()
    desk.submit("database_schema")
    desk.submit(key="stranger")
    page = desk.get("/audit/logs", query="limit=2&offset=0")[1]
    assert page["total"] == 7 and page["page"] == 1 and page["page_size"] == 2 and page["has_more"] is True
    assert page["events"] == page["logs"] == page["items"]
    newest = page["events"][0]
    assert (newest["event_type"], newest["actor"], newest["outcome"], newest["resource"], newest["action"]) == (
        "ACTION_SUBMITTED",
        "u",
        "denied",
        "r",
        "4",
    )
    assert newest["event_id"].isdigit() and newest["details"]["policy_matched"] == "no schema"
    assert desk.get("/audit/logs", query="limit=2&offset=6")[1]["page"] == 4
    assert {row["actor"] for row in desk.get("/audit/logs", key="stranger")[1]["events"]} == {"s", "command line"}


def test_resource_classifications_come_from_the_policy_file(desk):
    path = "/api/v1/resource-classifications"
    rows = desk.get(path, query="resource_type=database")[1]["classifications"]
    assert rows[0]["sensitivity_level"] == "high" and rows[0]["compliance_tags"] == ["GDPR"]
    assert desk.get(path, query="resource_type=none")[1]["classifications"] == []


def test_approval_status_in_the_words_of_the_development_kit(desk):
    number = desk.submit("transaction", amount=5000)[1]["approval_request_id"]
    path = f"/api/sdk/approval/{number}"
    assert desk.get(path)[1]["status"] == "pending"
    desk.post(f"/api/v1/actions/{number}/reject", {"reason": "too much"}, key="admin")
    answer = desk.get(path)[1]
    assert (answer["status"], answer["rejected_by"], answer["approved_by"]) == ("denied", "boss", None)
    assert "too much" in answer["rejection_reason"] and answer["decided_at"]
    other = desk.submit("transaction", amount=5000)[1]["approval_request_id"]
    desk.post(f"/api/governance/workflows/{other}/approve", key="admin")
    answer = desk.get(f"/api/sdk/approval/{other}")[1]
    assert (answer["status"], answer["approved_by"], answer["rejection_reason"]) == ("approved", "boss", None)
    assert desk.get(path, key="stranger")[0] == 404
