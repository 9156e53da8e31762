"""The installation page of the minimal clients: the document's own class with requests, and ours in its place."""

import logging

from seed_kit import RISK, run

from ascend_middleware import OWKAIClient

SUBMIT = {"agent_id": "minimal", "action_type": "data_access", "description": "read a row", "tool_name": "psql"}


def test_3_2_the_minimal_client_of_the_document(town):
    Minimal = run("3-2", town).OWKAIClient
    client = Minimal(api_url=town.url, api_key=town.key)
    answer = client.submit_action(**SUBMIT)
    assert answer["status"] == answer["decision"] == town.verdict and answer["risk_score"] == RISK[town.verdict]
    assert client.get_action_status(int(answer["action_id"]))["status"] == town.verdict
    status = client.test_connection()
    assert status["status"] == "connected" and status["api_version"]


def test_3_2_the_minimal_client_with_a_wrong_key(fresh):
    client = run("3-2", fresh).OWKAIClient(api_url=fresh.url, api_key="owkai_live_of_nobody_00000")
    assert client.test_connection()["status"] == "error"


def test_3_2_ours_in_its_place(town):
    with OWKAIClient(api_url=town.url, api_key=town.key) as client:
        answer = client.submit_action(**SUBMIT)
        assert answer["decision"] == town.verdict
        assert client.get_action_status(int(answer["action_id"]))["status"] == town.verdict
        record = client.get_action_details(answer["action_id"])
        assert (record["description"], record["tool_name"]) == ("read a row", "psql")


def test_3_4_the_environment(approving, monkeypatch):
    for name, value in {"OWKAI_API_KEY": approving.key, "OWKAI_API_URL": approving.url, "OWKAI_TIMEOUT": "30"}.items():
        monkeypatch.setenv(name, value)
    settings = OWKAIClient().settings
    assert (settings.api_key, settings.api_url, settings.timeout) == (approving.key, approving.url, 30)


def test_3_5_dotenv(approving, tmp_path, monkeypatch):
    (tmp_path / ".env").write_text(f"OWKAI_API_KEY={approving.key}\nOWKAI_API_URL={approving.url}\n")
    monkeypatch.chdir(tmp_path)
    # The document's file lies beside the program; the harness compiles programs from elsewhere.
    monkeypatch.setattr("dotenv.main.find_dotenv", lambda *_, **__: str(tmp_path / ".env"))
    ran = run("3-5", approving, OWKAIClient=OWKAIClient, environ={"OWKAI_API_KEY": None, "OWKAI_API_URL": None})
    assert ran.client.settings.api_key == approving.key


def test_3_5_nothing_in_the_environment_is_nothing_given(approving):
    with OWKAIClient(api_key=approving.key, api_url=None) as client:
        assert client.settings.api_url == "https://pilot.owkai.app"


def test_3_6_verify(fresh):
    assert run("3-6", fresh).printed.startswith("✅ Connected to ASCEND (version: ")
    failed = run("3-6", fresh, key="owkai_live_of_nobody_00000")
    assert failed.printed.startswith("❌ Connection failed: ")


def test_3_7_verbose_logging_masks(approving, caplog):
    with caplog.at_level(logging.DEBUG):
        ran = run("3-7", approving, OWKAIClient=OWKAIClient)
    assert ran.status["status"] == "connected"
    assert caplog.records and not any(approving.key in record.getMessage() for record in caplog.records)


def test_3_8_roles_are_the_authoritys(fresh):
    body = {"component_id": "c", "component_name": "c", "component_type": "tool"}
    path = "/api/v1/supply-chain/components"
    assert fresh.call("POST", path, body, key=fresh.user)[0] == 403
    assert fresh.call("POST", path, body, key=fresh.admin)[0] == 201
    assert fresh.call("GET", "/api/v1/actions", key="owkai_super_admin_of_nobody_00")[0] == 401
