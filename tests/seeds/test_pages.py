"""Each page's programs from its top to its bottom, with nothing but what the page has and tells to set."""

import hashlib
import logging
from pathlib import Path

import pytest
from seed_kit import POLICY, RISK, run_page

PROGRAMS = Path(__file__).parent / "programs"
# What the pages leave to the reader: functions of theirs, and what they have at hand.
LEFT_OPEN = {
    "0": (),
    "1": ("execute_action", "log_denial", "wait_or_notify", "execute_business_logic", "sqs_messages", "logger"),
    "2": ("execute_action", "fetch_from_database", "decision"),
    "3": (),
}


def left_open(page):
    given = {name: lambda *_: "rows" for name in LEFT_OPEN[page]}
    values = {"sqs_messages": [], "logger": logging.getLogger("of.the.reader"), "decision": "approved"}
    return given | {name: value for name, value in values.items() if name in given}


@pytest.mark.parametrize("program", sorted(path.name for path in PROGRAMS.glob("*.py")))
def test_the_programs_are_the_documents_own_text(program):
    """The sums were taken of the documents, which have lost their indentation and are not ours to copy whole."""
    sums = dict(reversed(line.split("  ")) for line in (PROGRAMS.parent / "SHA256SUMS").read_text().splitlines())
    lines = (line.strip() for line in (PROGRAMS / program).read_text("utf-8").splitlines())
    text = "\n".join(line for line in lines if line)
    assert hashlib.sha256(text.encode()).hexdigest() == sums[program]


@pytest.fixture
def local(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY.format(verdict="approved", risk=RISK["approved"], submit_limit=0))
    return f"local:{tmp_path / 'policy.toml'}"


@pytest.fixture(params=["http", "local"])
def where(request, fresh, local):
    return fresh.url if request.param == "http" else local


@pytest.mark.parametrize("page", ["0", "1"])
def test_the_pages_of_the_sdk_run_from_top_to_bottom(page, where, fresh):
    # One key runs the whole page, and a part of it says that it needs an admin's.
    ran = run_page(page, where, key=fresh.admin, names=left_open(page))
    assert "Approved! " in ran.printed
    if page == "1":
        # The page closed its client two programs before.
        assert "\nConnection failed: the client was closed\n" in ran.printed
        assert ran.printed.endswith("\nCustomer: {'id': 'cust_123', 'name': 'John Doe'}\n")
        assert ran.response["success"] is True and ran.response["component"]["component_id"] == "hf-bert-base"


def test_an_agent_that_has_acted_is_linked_to_its_model(where, fresh):
    ran = run_page("1", where, key=fresh.admin, names=left_open("1"), until="1-14")
    agent = ran.response["agent"]
    assert ran.response["success"] is True and ran.response["message"]
    assert (agent["agent_id"], agent["agent_name"]) == ("financial-advisor-prod", "Financial Advisor Bot")
    assert agent["model_id"] == 42


def test_the_reference_runs_from_top_to_bottom(where, fresh):
    ran = run_page("2", where, key=fresh.admin, names=left_open("2"), but=("2-8", "2-11"))  # of an action of theirs
    assert "Success: {'status': 'completed', 'amount': 50000}\n" in ran.printed and "Denied" not in ran.printed


def test_the_minimal_clients_page_runs_from_top_to_bottom(fresh):
    ran = run_page("3", fresh.url, key=fresh.user, names={})
    assert ran.printed.startswith("✅ Connected to ASCEND (version: ") and ran.status["status"] == "connected"
