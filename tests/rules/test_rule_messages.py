"""What is said of a rule that is wrong, word for word: the place, what is wrong, and what to write."""

import pytest

from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.rules import RuleTable

REASON = 'expected the reason as a text, block = "internal", got '
WORD = "an action type is one fixed word, got "
BYTES = "body_limit: expected bytes, a whole number from 0 to 1073741824, got "
SECONDS = "body_timeout: expected seconds, more than 0 and at most a day, got "
DEPTH = "orchestration_depth: expected a whole number from 0 to 5, got "
SOURCE = 'details.a: expected a source such as "body.amount", a number, a flag or { const = … }, got '
CHANGING = '(write match = "GET /…"; other methods have a rule of their own)'
NO_BODY = "a WebSocket handshake has no body to read (remove the body's sources)"


def problems(rule):
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_mapping({"rule": [rule]})
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"action_type": "t"}, 'rule 1: neither match nor endpoint (write match = "POST /path")'),
        ({"match": "GET /a"}, "rule 1 (GET /a): action_type: the rule does not say what it does "
                              '(write action_type = "…", exempt = true, or block = "reason")'),
        ({"match": [], "action_type": "t"}, "rule 1: match: expected a text or a list of texts, got []"),
        ({"match": 1, "action_type": "t"}, "rule 1: match: expected a text or a list of texts, got 1"),
        ({"match": ["GET /b", 1], "action_type": "t"},
         'rule 1 (GET /b, 1): match[1]: expected a text such as "POST /path", got 1'),
        ({"match": ["GET /a", "GET /a/"], "action_type": "t"},
         "rule 1 (GET /a, GET /a/): match[1]: the rule has this match already (remove one)"),
        ({"match": "GET /a", "exempt": True, "block": "no"},
         "rule 1 (GET /a): block: a rule cannot both exempt and block (keep one of the two)"),
        ({"match": "GET /a", "exempt": True, "on_failure": "open"},
         "rule 1 (GET /a): on_failure: the rule exempts, so that on_failure says nothing (remove one)"),
        ({"match": "GET /a", "block": "no", "details": {"x": 1}},
         "rule 1 (GET /a): details: the rule blocks, so that details says nothing (remove one)"),
        ({"match": "GET /a", "block": " "}, f"rule 1 (GET /a): block: {REASON}' '"),
        ({"match": "GET /a", "block": 7}, f"rule 1 (GET /a): block: {REASON}7"),
        ({"match": "POST /a", "action_type": "t", "cache": "30s"},
         f"rule 1 (POST /a): cache: cache is for GET and HEAD only, and the rule covers POST {CHANGING}"),
        ({"match": "GET,PUT,POST /a", "action_type": "t", "cache": "30s"},
         f"rule 1 (GET,PUT,POST /a): cache: cache is for GET and HEAD only, and the rule covers POST, PUT {CHANGING}"),
        ({"match": "* /a", "action_type": "t", "coalesce": True},
         f"rule 1 (* /a): coalesce: coalesce is for GET and HEAD only, and the rule covers every method {CHANGING}"),
        ({"match": "GET /a", "action_type": "t", "resource": "{path.y}"},
         "rule 1 (GET /a): resource: path.y is not in /a (the template has no parameters)"),
        ({"match": "GET /", "action_type": "t", "resource": "{path.y?}"},
         "rule 1 (GET /): resource: path.y? is not in / (the template has no parameters)"),
        ({"match": "GET /a/{z}/{x}", "action_type": "t", "resource": "{path.y}"},
         "rule 1 (GET /a/{z}/{x}): resource: path.y is not in /a/{z}/{x} (known: x, z)"),
        ({"match": "WEBSOCKET /a", "action_type": "t", "details": {"a": "body.y"}}, f"rule 1 (WEBSOCKET /a): {NO_BODY}"),
        ({"match": ["GET /b", "WEBSOCKET /a"], "action_type": "t", "details": {"a": "form.y"}},
         f"rule 1 (GET /b, WEBSOCKET /a): {NO_BODY}"),
    ],
)  # fmt: skip
def test_a_rule_that_is_wrong(rule, said):
    assert problems(rule) == [f"rules: {said}"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"exempt": True}, "action_type: the rule exempts, so that action_type says nothing (remove one)"),
        ({"block": "no"}, "action_type: the rule blocks, so that action_type says nothing (remove one)"),
        *(({"action_type": word}, f"action_type: {WORD}{word!r}") for word in ("{x", "x}", " t", "t ")),
        ({"action_type": ""}, "action_type: expected a text that is not empty, got ''"),
        ({"action_type": 7}, "action_type: expected a text, got 7"),
        *(({"body_limit": value}, f"{BYTES}{value!r}") for value in (-1, 2**30 + 1, True, 1.5, "1")),
        *(({"body_timeout": value}, f"{SECONDS}{value!r}") for value in (0, -1, "x", True, 86_400.1, float("inf"))),
        *(({"model_id": value}, f"model_id: expected a text, got {value!r}") for value in (True, 1.5)),
        ({"model_id": ""}, "model_id: expected a text that is not empty, got ''"),
        *(({"orchestration_depth": value}, f"{DEPTH}{value!r}") for value in (-1, 6, True, 1.5)),
        ({"orchestration_depth": ""}, "orchestration_depth: expected a text that is not empty, got ''"),
        *(({"details": {"a": value}}, f"{SOURCE}{value!r}") for value in ({"c": 1}, {"const": 1, "more": 2}, [], None)),
        *(({"details": {"a": value}}, "details.a: JSON has no such number")
          for value in (float("nan"), float("inf"), {"const": float("-inf")})),
        ({"details": {"a": "body."}}, "details.a: 'body.' names no value; write body.name, with [] and ? at the end only"),
        ({"resource": "path.x"}, "resource: 'path.x' is a fixed text here; the value itself is written \"{path.x}\""),
        ({"tool_name": "query.a.b[]?"},
         "tool_name: 'query.a.b[]?' is a fixed text here; the value itself is written \"{query.a.b[]?}\""),
        ({"resource": "{path.xx}"}, "resource: path.xx is not in /a/{x} (did you mean x?)"),
        ({"details": {"a": "body.y", "b": "form.y"}},
         "a body is JSON or a form; the rule reads body.* and form.* (split it)"),
        ({"on_failure": "opne"}, "on_failure: expected closed or open, got 'opne'"),
        ({"permit": ["encoded-slash"]}, "permit: there is no finding 'encoded-slash'; did you mean encoded-separator?"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong(fields, said):
    assert problems({"match": "GET /a/{x}", "action_type": "t", **fields}) == [f"rules: rule 1 (GET /a/{{x}}): {said}"]


@pytest.mark.parametrize(
    "rule",
    [
        {"body_limit": 0},
        {"body_limit": 2**30},
        {"body_timeout": 86_400},
        {"orchestration_depth": 0},
        {"orchestration_depth": 5},
        {"orchestration_depth": "{query.depth}"},
        {"model_id": 7},
        {"model_id": "seven"},
        {"match": "WEBSOCKET /a", "details": {"a": "query.y"}},
        {"match": "WEBSOCKET,POST /a", "details": {"a": "body.y"}},
        {"match": "GET,HEAD /a", "cache": "30s"},
        {"match": "POST /a", "coalesce": False},
        {"match": ["GET /a/{x}", "GET /b/{y}"], "resource": "{path.x?}{path.y?}"},
    ],
)
def test_what_is_right_up_to_its_bounds(rule):
    assert len(RuleTable.from_mapping({"rule": [{"match": "GET /a/{x}", "action_type": "t", **rule}]}).rules) >= 1


# --- rules that quarrel, or of which nothing is left

FEWER = "as well, with another outcome (give one of them a more specific template or fewer methods)"
BLOCKED = "and all else it matches is blocked by"


def rule(text):
    """A rule in short: `GET /a one` has an action type, `!GET /a why` blocks, `name:` stands before."""
    name, _, text = text.rpartition(": ")
    methods, template, word = text.removeprefix("!").split(" ")
    made = {"match": f"{methods} {template}", "block" if text.startswith("!") else "action_type": word}
    return {**made, "name": name} if name else made


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["GET /a/{x} one", "GET /a/{y} two"],
         [f"rule 2 (GET /a/{{y}}): GET /a/1 matches rule 1 (GET /a/{{x}}) {FEWER}"]),
        (["* /a one", "* /a two"], [f"rule 2 (* /a): GET /a matches rule 1 (* /a) {FEWER}"]),
        (["PUT /a one", "PUT /a two"], [f"rule 2 (PUT /a): PUT /a matches rule 1 (PUT /a) {FEWER}"]),
        (["first: GET /a one", "second: GET /a two"], [f"second: GET /a matches first (rule 1) {FEWER}"]),
        (["GET /a one", "GET /a one"], ["rule 2 (GET /a): says the same as rule 1 (GET /a) (remove one)"]),
        (["first: GET /a one", "GET /a one"], ["rule 2 (GET /a): says the same as first (rule 1) (remove one)"]),
        (["!GET /a one", "!GET /a two"], [f"rule 2 (GET /a): GET /a matches rule 1 (GET /a) {FEWER}"]),
        (["GET /a one", "POST /a two", "GET,POST /a three"],
         ["rule 3 (GET,POST /a): can never match: every method of it belongs to rule 1 (GET /a), rule 2 (POST /a) "
          "(remove it)"]),
        (["!GET,POST /a one", "!GET,PUT /a two", "!POST,PUT /a three"],
         ["rule 3 (POST,PUT /a): can never match: every method of it belongs to rule 1 (GET,POST /a), "
          "rule 2 (GET,PUT /a) (remove it)"]),
        (["GET /a/b one", "!GET /a/** no"],
         [f"rule 1 (GET /a/b): can never match: GET /a/b {BLOCKED} rule 2 (GET /a/**) (remove one of the two)"]),
        (["HEAD /a/b one", "closed: !GET /a/{x} no"],
         [f"rule 1 (HEAD /a/b): can never match: HEAD /a/b {BLOCKED} closed (rule 2) (remove one of the two)"]),
        (["GET,POST /a/b one", "!GET /a/** no", "!* /a/b no"],
         [f"rule 1 (GET,POST /a/b): can never match: GET /a/b {BLOCKED} rule 3 (* /a/b) (remove one of the two)"]),
        (["GET,POST /a/b one", "!GET /a/** no", "!POST /** no"],
         [f"rule 1 (GET,POST /a/b): can never match: GET /a/b {BLOCKED} rule 2 (GET /a/**) (remove one of the two)"]),
        (["GET /a/{x:uuid}/c one", "!* /a/{x}/{y} no"],
         ["rule 1 (GET /a/{x:uuid}/c): can never match: GET /a/00000000-0000-4000-8000-000000000001/c "
          f"{BLOCKED} rule 2 (* /a/{{x}}/{{y}}) (remove one of the two)"]),
        (["GET /a/{x} one", "* /a/{y} two", "GET,POST /a/{z} three"], []),
        (["GET,POST /a one", "GET,PUT /a one"], []),
        (["!GET,POST /a one", "!GET,PUT /a two"], []),
        (["GET,POST /a/b one", "!GET /a/** no"], []),
        (["* /a/b one", "!GET,POST /a/** no"], []),
        (["GET /a/{x} one", "!GET /a/{x:int} no"], []),
        (["GET /a/** one", "!GET /a/{x} no"], []),
        (["GET /a/{x}/c one", "!GET /a/b/** no"], []),
    ],
)  # fmt: skip
def test_rules_that_quarrel(rules, said):
    rules = [rule(text) for text in rules]
    if said:
        with pytest.raises(ConfigurationError) as caught:
            RuleTable.from_mapping({"rule": rules})
        assert [str(problem) for problem in caught.value.problems] == [f"rules: {one}" for one in said]
    else:
        assert len(RuleTable.from_mapping({"rule": rules}).rules) == len(rules)
