"""The installation page of the SDK generation, snippet by snippet, against the embedded authority on a socket."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from seed_kit import RISK, run

import ascend_middleware
from ascend_middleware import AscendClient, exceptions
from ascend_middleware.client import base


def test_0_2_connection_of_the_verification(approving):
    ran = run("0-2", approving)
    assert ran.printed.startswith("Connected to ASCEND (v") and ran.status["api_version"]


@pytest.mark.parametrize("how", ["wrong key", "dead port"])
def test_0_2_connection_that_fails_is_printed(fresh, how):
    where, key = (fresh, "owkai_live_of_nobody_00000") if how == "wrong key" else ("http://127.0.0.1:9", None)
    ran = run("0-2", where, key=key or fresh.key)
    assert ran.status["status"] == "error" and isinstance(ran.status.get("error"), str)
    assert ran.printed.startswith("Connection error: ") and ran.status["error"] in ran.printed


def test_0_3_the_environment_is_enough_and_arguments_win(approving):
    settings = run("0-3", approving).client.settings
    assert (settings.api_key, settings.api_url, settings.agent_name) == (approving.key, approving.url, "My Agent")
    environ = {"ASCEND_AGENT_NAME": "Another", "ASCEND_AGENT_ID": "from-the-environment"}
    settings = run("0-3", approving, environ=environ).client.settings
    assert (settings.agent_id, settings.agent_name) == ("from-the-environment", "My Agent")


def test_0_4_quick_start(town, monkeypatch):
    # A reader waits a minute for a person; the test does not.
    monkeypatch.setattr(base, "_DEFAULT_WAIT", 0.2)
    ran = run("0-4", town)
    assert ran.decision.risk_score == RISK[town.verdict]
    expected = {
        "approved": f"Approved! Risk score: {RISK['approved']}\n",
        "denied": "Denied: as the test wants it\n",
        "pending": f"Pending approval: {ran.decision.approval_request_id}\n",
    }
    assert ran.printed == expected[town.verdict]
    assert (ran.decision.approval_request_id is None) == (town.verdict != "pending")
    agents = {agent["agent_id"]: agent for agent in town.call("GET", "/api/registry/agents")[1]["agents"]}
    agent = agents["customer-service-agent"]
    assert (agent["agent_type"], len(agent["capabilities"]), len(agent["allowed_resources"])) == ("automation", 3, 2)
    record = town.call("GET", f"/api/v1/actions/{ran.decision.action_id}")[1]
    assert record["action_details"] == {"query": "SELECT COUNT(*) FROM users"}


def test_0_4_quick_start_ends_in_the_decision_of_a_person(holding):
    for how, printed in (("approve", "Approved! Risk score: 75\n"), ("deny", "Denied: denied by boss: no\n")):
        with holding.deciding(how):
            assert run("0-4", holding).printed == printed


def test_0_6_debug_logs_mask_every_secret(approving, caplog):
    other = logging.getLogger("of.somebody.else")
    before = other.level, logging.getLogger().level
    with caplog.at_level(logging.DEBUG, logger="ascend_middleware"):
        ran = run("0-6", approving)
        assert (other.level, logging.getLogger().level) == before
        client = AscendClient(approving.key, api_url=approving.url, agent_id="my-agent", debug=True)
        with client:
            client.test_connection()
            details = {"password": "hunter2-marked", "token": approving.token()}
            client.evaluate_action("t", f"r with Bearer {approving.key}", details, wait_for_decision=False)
    assert ran.client.settings.debug
    assert caplog.records
    for record in caplog.records:
        for secret in (approving.key, "hunter2-marked", approving.token()):
            assert secret not in record.getMessage()


def test_0_7_a_missing_key_says_what_to_do(monkeypatch):
    for name in ("ASCEND_API_KEY", "OWKAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(exceptions.AuthenticationError, match=r"^API key is required\..*ASCEND_API_KEY") as caught:
        AscendClient(agent_id="a")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "url",
    ["http://ascend.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://10.0.0.1"],
)
def test_0_8_tls_is_required_for_everything_remote(approving, url):
    with pytest.raises(exceptions.ConfigurationError, match="TLS required for non-localhost URLs"):
        AscendClient(approving.key, api_url=url)


@pytest.mark.parametrize("url", ["http://localhost@evil.example", " http://evil.example", "ftp://localhost", "http://"])
def test_0_8_what_only_looks_like_localhost_is_refused(approving, url):
    with pytest.raises(exceptions.ConfigurationError):
        AscendClient(approving.key, api_url=url)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000", "http://127.0.0.1:8000", "http://127.0.0.2", "http://[::1]:1"]
)
def test_0_8_loopback_needs_no_tls(approving, url):
    assert AscendClient(approving.key, api_url=url).settings.api_url == url


def test_0_9_a_timeout_is_kept(approving):
    assert run("0-9", approving, AscendClient=AscendClient).client.settings.timeout == 60


@pytest.mark.slow
def test_0_1_the_package_installs_into_an_environment_of_its_own(tmp_path):
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (python,) = (path for name in ("bin/python", "Scripts/python.exe") if (path := tmp_path / "venv" / name).exists())
    subprocess.run([python, "-m", "pip", "install", "--quiet", root], check=True, timeout=600)
    code = "import ascend_middleware as a; a.AscendClient; a.OWKAIClient; print(a.__version__)"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascend_middleware.__version__
