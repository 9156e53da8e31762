"""The programs of pages that have no test elsewhere run, and what a page claims is tested."""

import re
import tomllib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ascend_middleware.rules import RuleTable

DOCS = Path(__file__).parents[2] / "docs"
TESTS = DOCS.parent / "tests"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["rollout.md", "migration.md", "index.md"])
def test_the_tables_of_rules_are_right(page):
    for table in blocks(page, "toml"):
        RuleTable.from_mapping(tomllib.loads(table))


def test_who_has_signed_in_is_known_where_authentication_comes_first(ascend_authority, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ascend.toml").write_text('[[rule]]\nmatch = "POST /refunds"\naction_type = "transaction"')
    names = {}
    for program in blocks("callers.md", "python"):
        exec(program, names)
    ascend_authority.deny()
    with TestClient(names["app"]) as client:

        def refund(token):
            return client.post("/refunds", headers={"Authorization": f"Bearer {token}"})

        assert refund("nobody's").json()["type"] == "urn:ascend:problem:unknown-agent"
        assert refund("s3cret-of-ada").json() == {"refunded_by": "ada"}
        assert refund("s3cret-of-a-bot").status_code == 403
        ascend_authority.approve()
        assert refund("s3cret-of-a-bot").json() == {"refunded_by": "refund-bot"}
    assert [asked.agent_id for asked in ascend_authority.asked] == ["refund-bot"] * 2


def test_a_program_moves_over_by_the_name_of_its_module(ascend_authority, capsys):
    ascend_authority.approve()
    first, handler = blocks("migration.md", "python")
    names = {}
    exec(first, names)
    assert capsys.readouterr().out == "approved\n"
    exec(handler, names)
    assert names["refund"](7, 5) == {"refunded": 5}
    ascend_authority.deny(reason="no")
    with pytest.raises(PermissionError, match="no"):
        names["refund"](7, 5)
    names["client"].close()


def test_each_claim_of_the_threat_model_names_a_test_that_is_there():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "threat-model.md").read_text()))
    there = {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 20
    assert named - there == set()
    rows = (DOCS / "threat-model.md").read_text().partition("## What holds")[2].partition("##")[0].splitlines()
    assert [row for row in rows if row.startswith("| ") and "`test_" not in row] == ["| claim | shown by |"]
