"""docs/rules.md names everything that a table may say, and its table is one."""

import dataclasses
import re
import tomllib
from pathlib import Path

from ascend_middleware.config import Settings
from ascend_middleware.rules import SECRET_NAMES, Rule, RuleFields, RuleTable
from ascend_middleware.setting_values import FINDINGS

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
NAMED = set(re.findall(r"`([a-z_0-9-]+)`", PAGE))


def test_every_key_setting_and_finding_is_named():
    keys = {item.name for item in dataclasses.fields(Rule)}
    settings = {item.name for item in dataclasses.fields(Settings)}
    assert not (keys | settings | set(FINDINGS)) - NAMED


def test_every_name_of_a_secret_is_listed():
    listed = {name.replace("-", "") for name in re.findall(r"`([a-z0-9-]+)`", PAGE)}
    assert not SECRET_NAMES - listed


def test_governed_takes_all_but_what_the_page_says():
    assert {item.name for item in dataclasses.fields(Rule)} - {"match", "endpoint", "enabled"} == set(
        RuleFields.__annotations__
    )


def test_the_table_of_the_page_is_a_table():
    text = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
    assert len(RuleTable.from_mapping(tomllib.loads(text)).rules) == 4


def test_the_defaults_are_those_of_the_code():
    settings = PAGE.partition("## Settings")[2]
    for names, values in re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| ([^|]+?) \|", settings, re.MULTILINE):
        given = [value.strip().strip("`") for value in values.split(",")]
        fields = {item.name: item.default for item in dataclasses.fields(Settings)}
        for name, value in zip(re.findall(r"`([a-z_]+)`", names), given, strict=False):
            if name in fields and name != "api_key" and value:
                default = fields[name]
                assert str(default).lower().removesuffix(".0") == value or f"{default:g}" == value, name
