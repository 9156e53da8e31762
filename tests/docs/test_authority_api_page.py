"""The page on the authority's API says what the authority does."""

import re
from pathlib import Path

import pytest

import ascend_middleware
from ascend_middleware.api.endpoints import TABLE
from ascend_middleware.authority import parse_policy, sample_policy
from ascend_middleware.authority.policy.policy_file import TABLES
from ascend_middleware.cli import main

PAGE = (Path(ascend_middleware.__file__).parent.parent / "docs" / "authority-api.md").read_text(encoding="utf-8")


def test_every_endpoint_is_listed_with_its_role_and_limit():
    rows = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|[^|]*\| ?([\w ]*?) ?\| ?(\w*) ?\|$", PAGE, re.MULTILINE)
    listed = {(method, path): (admin.strip() == "yes", limit) for method, path, admin, limit in rows}
    assert len(listed) == len(rows)
    served = {(one.method, one.path): (one.admin, one.allowance or "admin" * one.admin) for one in TABLE}
    open_to_all = {("GET", path): (False, "") for path in ("/health", "/ready", "/metrics", "/openapi.json")}
    assert listed == served | open_to_all


def test_the_policy_file_shown_is_one_and_shows_every_table():
    _, text, _ = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)  # the first are cases, the last is of the provider
    policy = parse_policy(text)
    assert [one.name for one in policy.policies] == ["large refunds need a person", "production needs a person"]
    for table in TABLES:
        assert re.search(rf"^\[{{1,2}}{table}\b", PAGE, re.MULTILINE), table


def test_the_commented_parts_of_the_sample_are_right_too():
    text = sample_policy()
    bare = re.sub(r"^# (?=[\[\w]+.*(?:\]|=))", "", text, flags=re.MULTILINE)
    bare = re.sub(r"\[jwt\]\n(?:\w+ = .*\n)+", "", bare)
    policy = parse_policy(bare)
    assert policy.models and policy.mcp_servers and policy.classifications and policy.key_limits
    assert policy.approvals.levels["critical"].count == 2
    assert len(policy.policies) == 4


def test_the_explanation_shown_is_the_real_one(tmp_path, capsys):
    command, shown = re.search(r"```console\n\$ ascend-middleware (.*?)\n(.*?)```", PAGE, re.DOTALL).groups()
    (tmp_path / "policy.toml").write_text(sample_policy())
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]
    assert main([*words, "--policy", str(tmp_path / "policy.toml")]) == 1
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("group", re.findall(r"^\| `ascend-middleware ([\w-]+) ([^`]+)`", PAGE, re.MULTILINE))
def test_the_commands_shown_exist(group, capsys):
    command, tasks = group
    for task in tasks.split(", "):
        with pytest.raises(SystemExit) as caught:
            main([command, task, "--help"])
        assert caught.value.code == 0 and task in capsys.readouterr().out
