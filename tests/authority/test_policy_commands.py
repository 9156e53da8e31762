"""A policy file is tried before it decides: on cases, on stored actions, against another one."""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pytest

from ascend_middleware.authority import Authority, sample_policy
from ascend_middleware.cli import main
from ascend_middleware.client import AscendClient

POLICY = """
[[policy]]
name = "large refunds need a person"
action_types = ["refund"]
when = "action.action_details.amount > 1000"
decision = "pending"
reason = "refunds above 1000 need a person"

[[policy]]
name = "no drops"
action_types = ["drop_*"]
decision = "denied"
reason = "never"
"""
CASES = """
[[case]]
name = "a large refund"
action = { action_type = "refund", action_details = { amount = 5000 } }
decision = "pending"
reason = "above 1000"
policy = "large refunds need a person"

[[case]]
action = { action_type = "refund", action_details = { amount = 5 } }
decision = "approved"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("policy.toml").write_text(POLICY)
    Path("cases.toml").write_text(CASES)


@pytest.fixture
def command(capsys):
    def command(*words):
        code = main(["policy", *words])
        told = capsys.readouterr()
        return code, (json.loads(told.out) if "--json" in words and code < 2 else told.out + told.err)

    return command


class TestCases:
    def test_cases_as_expected_and_the_policy_that_none_reaches(self, command):
        assert command("test", "cases.toml") == (
            0,
            "no case reaches the policy 'no drops'\n2 of 2 cases as expected\n",
        )
        code, found = command("test", "cases.toml", "--all", "--json")
        assert (code, found["ok"], found["policies_without_a_case"]) == (1, False, ["no drops"])

    @pytest.mark.parametrize(
        ("case", "told"),
        [
            ('decision = "denied"', "case 1: expected denied, got pending (refunds above 1000 need a person)"),
            (
                'decision = "pending"\nreason = "below"',
                "case 1: expected a reason with 'below', got refunds above 1000 need a person",
            ),
            (
                'decision = "pending"\npolicy = "no drops"',
                "case 1: expected policy 'no drops', got policy 'large refunds need a person'",
            ),
        ],
    )
    def test_what_is_not_met_is_told(self, command, case, told):
        action = 'action = { action_type = "refund", action_details = { amount = 5000 } }'
        Path("wrong.toml").write_text(f"[[case]]\n{action}\n{case}\n")
        code, printed = command("test", "wrong.toml")
        assert code == 1
        assert f"wrong.toml: {told}" in printed
        assert "0 of 1 cases as expected" in printed

    def test_a_decision_by_the_threshold_is_of_no_policy(self, command):
        action = 'action = { action_type = "refund", action_details = { amount = 5 } }'
        Path("wrong.toml").write_text(f'[[case]]\n{action}\ndecision = "approved"\npolicy = "no drops"\n')
        assert "expected policy 'no drops', got a threshold" in command("test", "wrong.toml")[1]

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_bar_tells_how_far_it_is_where_a_terminal_is(self, monkeypatch, terminal):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        sys.stderr.isatty = lambda: terminal
        main(["policy", "test", "cases.toml"])
        assert ("cases:   0%" in sys.stderr.getvalue()) is terminal
        assert "\x1b[3" not in sys.stderr.getvalue()  # no colour

    def test_the_cases_of_a_folder(self, command):
        Path("more").mkdir()
        Path("more/drops.toml").write_text('[[case]]\naction = { action_type = "drop_table" }\ndecision = "denied"\n')
        assert command("test", "cases.toml", "more", "--all") == (0, "3 of 3 cases as expected\n")

    def test_the_examples_cases_are_met_and_reach_every_policy(self, command):
        examples = Path(__file__).parents[2] / "examples"
        cases, policy = str(examples / "policy_cases.toml"), str(examples / "policy.toml")
        assert command("test", cases, "--policy", policy, "--all") == (0, "4 of 4 cases as expected\n")

    def test_the_case_of_the_page_is_met(self, command):
        page = (Path(__file__).parents[2] / "docs" / "authority-api.md").read_text()
        (case,) = re.findall(r"```toml\n(\[\[case\]\].*?)```", page, re.DOTALL)
        Path("page.toml").write_text(case)
        Path("policy.toml").write_text(POLICY.replace('"refund"', '"transaction"'))
        assert command("test", "page.toml")[1].endswith("1 of 1 cases as expected\n")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "there is no case"),
            ("[", "cannot be read"),
            ('[[case]]\nname = "x"', "x: action: is required"),
            ('[[case]]\naction = {}\ndecision = "maybe"', "case 1: decision"),
            ('[[case]]\naction = {}\ndecison = "denied"', "did you mean decision?"),
            ('[[case]]\naction = {}\ndecision = "denied"', "the action cannot be judged"),
        ],
    )
    def test_cases_that_cannot_be_read_are_wrong_usage(self, command, text, told):
        Path("odd.toml").write_text(text)
        code, printed = command("test", "odd.toml")
        assert code == 2
        assert told in printed


def submitted(*actions):
    """Have actions decided by the policy file as it stands."""
    with AscendClient(api_url="local:policy.toml", agent_id="a") as client:
        for kind, amount in actions:
            client.evaluate_action(kind, "r", {"amount": amount}, wait_for_decision=False)


class TestReplay:
    def test_what_would_be_decided_otherwise_is_told(self, command):
        submitted(("refund", 5), ("refund", 800), ("refund", 5000), ("drop_table", 1))
        Path("policy.toml").write_text(POLICY.replace("> 1000", "> 500").replace('"denied"', '"pending"'))
        code, found = command("replay", "--since", "2020-01-01", "--json")
        assert (code, found["actions"]) == (0, 4)
        assert found["counts"] == {"approved to pending": 1, "denied to pending": 1}
        assert [(one["action_type"], one["was"], one["would_be"]) for one in found["changed"]] == [
            ("refund", "approved", "pending"),
            ("drop_table", "denied", "pending"),
        ]
        code, printed = command("replay", "--since", "2020-01-01", "--exit-code", "--limit", "1")
        assert code == 1
        assert "2 would be decided otherwise" in printed.splitlines()[0]
        assert "approved → pending" in printed and printed.splitlines()[-1].startswith("and 1 more")

    def test_the_same_policy_decides_the_same(self, command):
        submitted(("refund", 5), ("refund", 5000), ("drop_table", 1), ("execute_shell", 1))
        code, found = command("replay", "--since", "2020-01-01", "--exit-code", "--json")
        assert (code, found["actions"], found["changed"]) == (0, 4, [])

    def test_only_what_was_submitted_since(self, command):
        submitted(("refund", 5))
        assert command("replay", "--since", "2999-01-01T00:00:00+02:00", "--json")[1]["actions"] == 0

    def test_nothing_is_stored(self, command):
        submitted(("refund", 800))
        with contextlib.closing(Authority.open("policy.toml")) as authority:
            before = authority.store.actions(tenant="default"), authority.store.verify_audit()
        Path("policy.toml").write_text(POLICY.replace("> 1000", "> 500"))
        command("replay", "--since", "2020-01-01")
        with contextlib.closing(Authority.open("policy.toml")) as authority:
            assert (authority.store.actions(tenant="default"), authority.store.verify_audit()) == before

    @pytest.mark.parametrize(
        ("words", "told"), [(["--since", "yesterday"], "expected a date"), (["--since", "2020-01-01"], "no database")]
    )
    def test_wrong_usage_is_told(self, command, words, told):
        code, printed = command("replay", *words)
        assert code == 2
        assert told in printed


class TestDiff:
    def test_each_difference_is_a_line(self, command):
        Path("new.toml").write_text(
            POLICY.replace("> 1000", "> 500").replace('name = "no drops"', 'name = "no deletes"')
            + "\n[thresholds]\npending = 50\n"
        )
        code, printed = command("diff", "policy.toml", "new.toml", "--exit-code")
        assert code == 1
        lines = printed.splitlines()
        assert lines[0] == (
            "policy 'large refunds need a person': when was \"action.action_details.amount > 1000\" and is "
            '"action.action_details.amount > 500"'
        )
        assert lines[1] == "policy 'no drops': is gone"
        assert lines[2].startswith("policy 'no deletes': is new: {")
        assert lines[3].startswith("threshold pending: was ")

    def test_files_that_decide_alike_do_not_differ(self, command):
        Path("new.toml").write_text("# another comment\n" + POLICY)
        assert command("diff", "policy.toml", "new.toml", "--exit-code") == (0, "nothing has changed\n")

    def test_every_table_is_compared(self, command):
        Path("old.toml").write_text("")
        Path("new.toml").write_text(sample_policy())
        _, found = command("diff", "old.toml", "new.toml", "--json")
        assert all(set(one) == {"what", "change"} for one in found["changes"])
