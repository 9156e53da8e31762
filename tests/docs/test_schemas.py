"""The JSON Schemas of `ascend.toml` and `policy.toml` say what their readers say."""

import ast
import datetime
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from kit.examples import examples

import ascend_middleware
from ascend_middleware.authority import parse_policy, sample_policy
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.rules import RuleTable

ROOT = Path(__file__).parents[2]
FOLDER = Path(ascend_middleware.__file__).parent / "schemas"
SCHEMAS = {name: json.loads((FOLDER / f"{name}.schema.json").read_text()) for name in ("ascend", "policy")}
VALIDATORS = {name: Draft7Validator(schema) for name, schema in SCHEMAS.items()}


def toml(value):
    """Return a value as TOML has it, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)


def problems(name, content):
    """Return what the reader has against a file; nothing where it takes it."""
    try:
        if name == "ascend":
            RuleTable.from_mapping(content)
        else:
            parse_policy("".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in content.items()))
    except ConfigurationError as error:
        return error.problems
    return ()


def taken(name, content):
    return VALIDATORS[name].is_valid(content)


# --- the files


def test_they_are_what_the_tool_makes_of_the_readers():
    spec = importlib.util.spec_from_file_location("write_schemas", ROOT / "tools" / "write_schemas.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert found == tool.texts(), "run: python tools/write_schemas.py"


@pytest.mark.parametrize("name", SCHEMAS)
def test_they_are_schemas_and_the_command_prints_them(name, capsys):
    Draft7Validator.check_schema(SCHEMAS[name])
    assert main(["schema", name]) == 0
    assert capsys.readouterr().out == (FOLDER / f"{name}.schema.json").read_text()


def test_each_key_of_settings_and_rules_tells_what_it_means():
    properties = SCHEMAS["ascend"]["properties"]
    for keys in (properties["ascend"]["properties"], properties["rule"]["items"]["properties"]):
        assert [key for key, told in keys.items() if "description" not in told] == []
    assert properties["ascend"]["properties"]["deadline"]["default"] == 5


# --- files that are there


def written():
    """Yield every text of the repository that is TOML with a table of one of the two kinds, and where it stands."""
    for path in [*ROOT.glob("examples/**/*.toml"), *ROOT.glob("ascend_middleware/**/*.toml")]:
        yield path.read_text(), path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        yield from ((text, path) for text in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL))
    for path in (ROOT / "tests").rglob("*.py"):
        source = path.read_text()
        if "[[" in source or "[ascend]" in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "[" in node.value:
                    yield node.value, path


def test_each_file_that_a_reader_takes_is_one_for_its_schema():
    count = {"ascend": [0, 0], "policy": [0, 0]}
    for text, path in written():
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        for name, schema in SCHEMAS.items():
            if content and content.keys() <= schema["properties"].keys():
                faults = [error.message for error in VALIDATORS[name].iter_errors(content)]
                found = problems(name, content) if faults else ()
                assert found or not faults, f"{path}: {faults}"
                count[name][bool(faults)] += 1
    assert min(count["ascend"]) > 5 and min(count["policy"]) > 5, count


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_name_their_schema(path):
    if path.name == "policy_cases.toml":
        return  # of cases
    place = re.match(r"#:schema (\S+)\n", path.read_text())[1]
    name = "ascend" if path.name == "ascend.toml" else "policy"
    assert (path.parent / place).resolve() == (ROOT / "ascend_middleware" / "schemas" / f"{name}.schema.json")


def test_what_we_write_names_a_schema_beside_it(tmp_path, capsys):
    assert main(["authority", "init", str(tmp_path / "policy.toml")]) == 0
    assert (tmp_path / "policy.toml").read_text().startswith("#:schema ./policy.schema.json\n")
    assert json.loads((tmp_path / "policy.schema.json").read_text()) == SCHEMAS["policy"]
    capsys.readouterr()
    assert main(["routes", "fastapi_app:app", "--app-dir", str(ROOT / "examples"), "--suggest"]) == 0
    assert capsys.readouterr().out.startswith("#:schema ./ascend.schema.json\n")


# --- keys


def places(schema, place=()):
    """Yield each table of a schema, and the way to it: keys, and 0 into an array."""
    if "properties" in schema and not schema.get("required") == ["const"]:
        yield place, schema
        for key, inner in schema["properties"].items():
            yield from places(inner, (*place, key))
    if schema.get("type") == "array":
        yield from places(schema["items"], (*place, 0))


def at(place, content):
    for step in reversed(place):
        content = [content] if step == 0 else {step: content}
    return content


TABLES = [(name, *row) for name, schema in SCHEMAS.items() for row in places(schema)]


@pytest.mark.parametrize(("name", "place", "schema"), TABLES, ids=lambda value: str(value)[:40])
def test_a_key_known_to_one_is_known_to_the_other(name, place, schema):
    (unknown,) = [one for one in problems(name, at(place, {"0": 1})) if one.code.endswith(".unknown-key")]
    if hint := re.fullmatch(r"known: (.*)", unknown.hint):
        assert set(hint[1].split(", ")) == set(schema["properties"])
    for key in schema["properties"]:
        codes = (
            {one.code.partition(".")[2] for one in problems(name, at(place, {key: object}))} if name == "ascend" else ()
        )
        assert "unknown-key" not in codes
    assert not taken(name, at(place, {"0": 1}))


# --- values

WORDS = st.sampled_from(
    [
        "",
        " ",
        "closed",
        "open",
        "refuse",
        "wait:30s",
        "wait:99s",
        "true",
        "Yes",
        " 5 ",
        "1e3",
        "nan",
        "x",
        "GET /a",
        "/a",
    ]
    + ["body.a", "path.", "{path.a}", "24h", "7", "x-a", "a b", "dot-segment", "approved", "deny", "a{", ".", "auto"]
)
VALUES = st.recursive(
    st.one_of(
        WORDS,
        st.text(max_size=5),
        st.booleans(),
        st.integers(-2, 2**40),
        st.sampled_from([0, 1, 5, 30, 100]),
        st.floats(),
        st.just(datetime.date(2026, 1, 1)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "const", "count", ""]), inner),
    max_leaves=4,
)
LEAVES = [
    (name, place, key, schema.get("required", []))
    for name, place, schema in TABLES
    for key, inner in schema["properties"].items()
    if not inner.get("items", inner).get("properties")
]
# What each kind of row needs besides, to be one.
COMPLETE = {
    "rule": {"match": "GET /a", "action_type": "a"},
    "policy": {"name": "a", "decision": "denied"},
    "smart_rule": {"name": "a", "condition": "true", "action": "deny"},
    "mcp_server": {"name": "a"},
    "model": {"id": 1},
    "key_limit": {"key": "a"},
    "resource_classification": {"resource_type": "a", "sensitivity_level": "b"},
}


@settings(max_examples=examples(1200))
@given(st.sampled_from(LEAVES), VALUES)
def test_a_value_that_a_schema_refuses_is_refused_by_the_reader(leaf, value):
    name, place, key, _ = leaf
    for row in ({key: value}, {**COMPLETE.get(place[0], {}), key: value}):
        content = at(place, row)
        assert taken(name, content) or problems(name, content), content


@settings(max_examples=examples(600))
@given(
    st.sampled_from([leaf for leaf in LEAVES if leaf[1] == ("ascend",)]),
    st.integers(-2, 2**41) | st.booleans() | st.sampled_from(["closed", "open", "enforce", "auto", "json"]),
)
def test_a_setting_that_the_schema_takes_is_taken_by_the_reader(leaf, value):
    content = at(leaf[1], {leaf[2]: value})
    if isinstance(value, str) and "enum" not in SCHEMAS["ascend"]["properties"]["ascend"]["properties"][leaf[2]]:
        return  # a text of many forms, of which a schema knows the shape only
    assert taken("ascend", content) == (not problems("ascend", content))


RULE = {
    "match": "POST /a/{x}",
    "endpoint": "a.b",
    "action_type": "a",
    "resource": "a",
    "details": {"a": "body.a", "b": {"const": "x"}, "c": 5, "d": True},
    "model_id": 5,
    "orchestration_depth": 1,
    "exempt": True,
    "block": "no",
    "enabled": False,
    "on_failure": "open",
    "pending": "wait:5s",
    "mode": "observe",
    "permit": ["dot-segment"],
}
ROW = {
    "policy": {
        "name": "a",
        "action_types": ["a"],
        "agents": ["b*"],
        "when": "true",
        "decision": "denied",
        "risk_score": 7,
    },
    "smart_rule": {"name": "a", "condition": "true", "action": "deny", "risk_score": 7},
    "mcp_server": {"name": "a", "active": True, "blocked_tools": ["x*"], "tool_risks": {"a": 5}},
    "model": {"id": 1, "name": "a", "compliance_status": "denied", "tenant": "t"},
    "key_limit": {"key": 5, "submit": 1, "admin": 0},
    "resource_classification": {"resource_type": "a", "sensitivity_level": "b", "compliance_tags": ["c"]},
}


def some(row):
    return st.lists(st.sampled_from(list(row)), unique=True).map(lambda keys: {key: row[key] for key in keys})


@settings(max_examples=examples(300))
@given(some(RULE), st.sampled_from([None, False]))
def test_which_keys_a_rule_may_have_together_is_one_question(rule, exempt):
    if exempt is False and "exempt" in rule:
        rule = {**rule, "exempt": False}
    content = {"rule": [rule]}
    assert taken("ascend", content) == (not problems("ascend", content))


@settings(max_examples=examples(600))
@given(st.sampled_from(list(ROW)).flatmap(lambda kind: st.tuples(st.just(kind), some(ROW[kind]))))
def test_which_keys_a_row_of_a_policy_file_must_have_is_one_question(row):
    content = {row[0]: [row[1]]}
    assert taken("policy", content) == (not problems("policy", content))


def test_the_sample_with_all_that_is_commented_out_is_one():
    bare = re.sub(r"^# (?=[\[\w]+.*(?:\]|=))", "", sample_policy(), flags=re.MULTILINE)
    content = tomllib.loads(bare)
    assert content.keys() | {"submissions"} == SCHEMAS["policy"]["properties"].keys()
    VALIDATORS["policy"].validate(content)
