import json

import pytest

from ascend_middleware.authority import load_policy, parse_policy, sample_policy
from ascend_middleware.authority.policy.conditions import Condition, compile_condition
from ascend_middleware.authority.policy.risk_score import Score, risk_level, score_action
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.rules import RuleTable


def action(**fields):
    return {
        "agent_id": "a",
        "action_type": "t",
        "resource": "r",
        "action_details": {},
        "context": {},
        "risk_indicators": {},
        **fields,
    }


def judge(text, score=10, **fields):
    return parse_policy(text).judge(action(**fields), Score(score, ()))


def policy(name, **keys):
    lines = [f'name = "{name}"', *(f"{key} = {value}" for key, value in keys.items())]
    return "\n[[policy]]\n" + "\n".join(lines) + "\n"


def test_the_sample_is_a_policy():
    sample = parse_policy(sample_policy())
    judged = sample.judge(action(action_type="refund", action_details={"amount": 5000}), Score(50, ()))
    assert (judged.decision, judged.reason, judged.risk_score) == ("pending", "refund above 1000", 75)
    assert sample.judge(action(action_type="refund"), Score(50, ())).decision == "approved"


@pytest.mark.parametrize(("score", "decision"), [(59, "approved"), (60, "pending"), (89, "pending"), (90, "denied")])
def test_thresholds_decide_what_no_policy_does(score, decision):
    assert judge("", score).decision == decision


def test_the_strictest_match_wins_whatever_the_order():
    yes, ask, no = (policy(word, decision=f'"{word}"') for word in ("approved", "pending", "denied"))
    for text in (yes + ask + no, no + ask + yes, ask + no + yes):
        assert judge(text).decision == "denied"
    assert judge(ask + yes).policy_matched == "pending"
    assert judge(yes, score=99).decision == "approved"


def test_a_policy_may_only_score():
    assert judge(policy("p", risk_score=95)).decision == "denied"
    assert judge(policy("p", risk_score=5), score=70).decision == "pending"


def test_types_and_agents_narrow_a_policy():
    text = policy("p", decision='"denied"', action_types='["database_*", "refund"]', agents='["a"]')
    assert judge(text, action_type="database_read").decision == "denied"
    assert judge(text, action_type="Refund").decision == "denied"
    assert judge(text, action_type="refunds").decision == "approved"
    assert judge(text, action_type="refund", agent_id="b").decision == "approved"


@pytest.mark.parametrize(
    "when",
    ["action.action_details.x > 1", "action.resource > 1", "1", "action.action_details", "1/0 > 1", "''"],
)
def test_conditions_without_a_truth_value_deny(when):
    judged = judge(policy("p", decision='"approved"', when=f'"{when}"'))
    assert judged.decision == "denied"
    assert "'p' could not be evaluated" in judged.reason


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (policy("p", decision='"pending"', when='"action.a >"'), "policy 1 ('p'): when", "line 1, column"),
        (policy("p", decision='"pending"', when='"actoin.resource == 1"'), "policy 1 ('p'): when", "'actoin'"),
        (policy("p", decision='"pending"', when='"action.amount > 1"'), "policy 1 ('p'): when", "no field 'amount'"),
        (policy("p", decision='"pending"', when='"nosuch(1)"'), "policy 1 ('p'): when", "'nosuch'"),
        (policy("p", decision='"pending"', when='""'), "policy 1 ('p'): when", "not empty"),
        (policy("p", decision='"pending"', when=f'"{"x" * 5000}"'), "policy 1 ('p'): when", "longer"),
        (policy("p", decision='"denied"', when=f'"{"(" * 90}true{")" * 90}"'), "policy 1 ('p'): when", "complicated"),
        (policy("p", decision='"denied"', when=f'"1{"+1" * 101}"'), "policy 1 ('p'): when", "complicated"),
        (policy("p", decision='"allow"'), "policy 1 ('p'): decision", "allow"),
        (policy("p"), "policy 1 ('p')", "decides nothing"),
        (policy("p", decision='"denied"', action_type='"x"'), "policy 1 ('p'): action_type", "no such key"),
        (policy("p", decision='"denied"', action_types="[]"), "policy 1 ('p'): action_types", "empty"),
        (policy("p", risk_score=101), "policy 1 ('p'): risk_score", "0 to 100"),
        (policy("p", risk_score="true"), "policy 1 ('p'): risk_score", "0 to 100"),
        ('[[policy]]\ndecision = "denied"', "policy 1: name", "required"),
        (policy("p", risk_score=1) * 2, "policy 'p'", "twice"),
        ("[thresholds]\npending = 95", "thresholds", "exceed"),
        ("[threshold]\npending = 95", "threshold", "no such key"),
        ("policy = 1", "policy", "tables"),
        ("[[mcp_server]]\nactive = false", "mcp_server 1: name", "required"),
        ("[[model]]\nname = 'x'", "model 1 ('x'): id", "required"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, where, message):
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text, name="p.toml")
    assert [(p.where, message in p.message) for p in caught.value.problems] == [(f"p.toml: {where}", True)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[threshold]", "thresholds"),
        ("[thresholds]\npend = 5", "pending"),
        (policy("p", decision='"denied"', action_type='"x"'), "action_types"),
        ("[approvals.critical]\napprover = ['a']", "approvers"),
        ("[limits]\nsubmits = 5", "submit"),
    ],
)
def test_a_misspelt_key_is_told_with_what_is_meant(text, meant):
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text)
    assert [problem.hint for problem in caught.value.problems] == [f"did you mean {meant}?"]


@pytest.mark.parametrize(
    ("key", "pattern", "message", "hint"),
    [
        ("action_types", "*delete", "'*delete' can match nothing", "action.action_type.matches('(?i)^.*delete$')"),
        ("action_types", "db_*_drop", "only sign is a * at the end", "matches('(?i)^db_.*_drop$')"),
        ("action_types", "*del*", "only sign", "matches('(?i)^.*del.*$')"),
        ("action_types", "db_?", "only sign", "list the names"),
        ("action_types", "^db$", "only sign", "list the names"),
        ("action_types", "[dD]elete", "only sign", "list the names"),
        ("action_types", "delete ", "no name has blanks at its ends", "write 'delete'"),
        ("action_types", " db_*", "no name has blanks at its ends", "write 'db_*'"),
        ("action_types", "dele\u200bte", "what cannot be seen", "write 'delete'"),
        ("action_types", "delete\ufeff", "what cannot be seen", "write 'delete'"),
        ("action_types", "delete|drop", "is one word of the list", 'write each by itself: "delete", "drop"'),
        ("action_types", "delete, drop", "is one word of the list", 'write each by itself: "delete", "drop"'),
        ("action_types", "%delete%", "only sign", "action.action_type.matches('(?i)^.*delete.*$')"),
        ("action_types", "re:^del.+", "only sign", "action.action_type.matches('^del.+')"),
        ("action_types", "/delete/", "only sign", "action.action_type.matches('delete')"),
        ("action_types", "!delete", "only sign", "list the names"),
        ("action_types", "~delete", "only sign", "list the names"),
        ("action_types", "delete+", "only sign", "list the names"),
        ("action_types", "{delete}", "only sign", "list the names"),
        ("action_types", "(delete|drop)", "only sign", "list the names"),
        ("action_types", "<any>", "only sign", "list the names"),
        ("action_types", "x" * 256, "more than 255", ""),
        ("agents", "x ", "no name has blanks at its ends", "write 'x'"),
        ("agents", "*-bot", "only sign", "action.agent_id.matches('(?i)^.*-bot$')"),
        ("agents", "a; b", "is one word", 'write each by itself: "a", "b"'),
    ],
)
@pytest.mark.parametrize("kind", ["policy", "smart_rule"])
def test_patterns_that_can_match_nothing_are_refused_with_what_is_meant(kind, key, pattern, message, hint):
    decides = 'decision = "denied"' if kind == "policy" else 'condition = "true"\naction = "deny"'
    text = f'[[{kind}]]\nname = "p"\n{decides}\n{key} = ["good", {json.dumps(pattern)}]\n'
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text, name="p.toml")
    (problem,) = caught.value.problems
    assert problem.code == "policy.never-matches" and problem.where == f"p.toml: {kind} 1 ('p'): {key}"
    assert message in problem.message and hint in problem.hint


def test_what_a_refused_pattern_is_told_to_be_works():
    when = policy("p", decision='"denied"', when="\"action.action_type.matches('(?i)^db_.*_drop$')\"")
    assert [judge(when, action_type=kind).decision for kind in ("db_x_drop", "DB_y_Drop")] == ["denied", "denied"]
    assert judge(when, action_type="db_x_dropped").decision != "denied"


def test_patterns_that_match_something_are_taken():
    good = ["*", "db_*", "file system.*", "mcp:read", "a.b-c/d@e", "x" * 255, "/files/*", "c++", "a+b", "drop (hard)"]
    parse_policy(
        policy(
            "p",
            decision='"denied"',
            action_types=json.dumps(good),
            agents='["auth0|7", "a+b@c.example", "{7}", "~x", "!a", "9%"]',
        )
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "files"\nblocked_tools = ["*_file"]', "can match nothing"),
        ('name = "files"\nblocked_tools = ["rm "]', "can match nothing"),
        ("name = 'files'\ntool_risks = { 'w?' = 70 }", "can match nothing"),
        ('name = "files "\nactive = false', "no action can name 'files '"),
    ],
)
def test_servers_and_tools_that_nothing_can_name_are_refused(text, says):
    with pytest.raises(ConfigurationError, match=says):
        parse_policy(f"[[mcp_server]]\n{text}\n")


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(policy("a", when='"("', decision='"x"') + policy("b", risk_score=-1))
    assert len(caught.value.problems) == 3


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigurationError, match="authority init"):
        load_policy(tmp_path / "missing.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_policy(tmp_path)
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_policy(tmp_path / "bad.toml")
    with pytest.raises(ConfigurationError, match="not TOML"):
        parse_policy("[")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "[[policy]]\ndecision = denied # no\n",
            "line 2: Invalid value: decision = denied",
            'stands in quotes: "denied"',
        ),
        ("a = true\nb = True\n", "line 2: Invalid value: b = True", "write true"),
        ("b = FALSE", "line 1: Invalid value: b = FALSE", "write false"),
        ("b = None", "line 1", "leave the key out"),
        ('a = ["x", y]', 'line 1: Invalid value: a = ["x", y]', 'stands in quotes: "y"'),
        ("a = \n\n", "line 1: Invalid value: a =", "a value is missing"),
        ('when = "action.x == "y""', "line 1: Expected newline", "stands in single quotes"),
        ("a = 5m", "line 1: Expected newline", "a text stands in quotes"),
        ('a = 1\nb = "abc\n', "line 2", "the text has no quote at its end"),
        ("action types = 1", "line 1: Expected '='", "key = value"),
        (r'a = "\d"', "line 1: Unescaped", "single quotes"),
        ("[policy]\nx = 1\n[[policy]]\n", "line 3: Cannot overwrite a value: [[policy]]", "[[policy]], [[rule]]"),
        ("a = [1,\n2", "line 2: Unclosed array", ""),
    ],
)
def test_what_is_no_toml_is_told_with_its_line_and_what_is_meant(tmp_path, text, message, hint):
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text, name="p.toml")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("policy.not-toml", "p.toml")
    assert problem.message.startswith("it is not TOML: " + message.split(":")[0]) and message in problem.message
    assert hint in problem.hint and bool(hint) == bool(problem.hint)
    (tmp_path / "ascend.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_toml(tmp_path / "ascend.toml")
    assert caught.value.problems[0].message == problem.message and caught.value.problems[0].hint == problem.hint


def test_a_byte_order_mark_is_no_part_of_the_policy(tmp_path):
    (tmp_path / "p.toml").write_bytes(b"\xef\xbb\xbf" + policy("p", decision='"denied"').encode())
    assert load_policy(tmp_path / "p.toml").policies[0].name == "p"


@pytest.mark.parametrize(
    ("when", "column", "message", "hint"),
    [
        ("action.tool_name = 'x'", 18, "'='", "write =="),
        ("action.tool_name === 'x'", 18, "'==='", "write =="),
        ("has(action.resource) and true", 22, "'and'", "write &&"),
        ("has(action.resource) AND true", 22, "'AND'", "write &&"),
        ("true or has(action.resource)", 6, "'or'", "write ||"),
        ("not has(action.resource)", 1, "'not'", "write !"),
        ("true & true", 6, "'&'", "write &&"),
        ("true | true", 6, "'|'", "write ||"),
        ("action.tool_name <> 'x'", 18, "'<>'", "write !="),
        ("action.model_id is null", 17, "'is'", "write =="),
        ("action.model_id is not null", 17, "'is not'", "write !="),
        ("action.model_id == None", 20, "unknown name 'None'", "write null"),
        ("action.context.x == True", 21, "unknown name 'True'", "write true"),
        ("action.action_type == transfer", 23, "unknown name 'transfer'", "a text is quoted: 'transfer'"),
        ("len(action.resource) > 3", 1, "unknown function 'len'", "write size"),
        ("float(action.action_details.amount) > 3.0", 1, "unknown function 'float'", "write number"),
    ],
)
def test_what_other_languages_write_is_told_as_cel_says_it(when, column, message, hint):
    (fault,) = compile_condition(when)
    assert (fault.line, fault.column) == (1, column)
    assert message in fault.message and hint in fault.hint


def test_only_what_is_no_cel_is_taken_for_a_slip():
    for when in (
        "action.context.and == 'a = b and not c'",
        "action.context.x >= 1 && action.context.y <= 2",
        "!(1 != 2) || true",
    ):
        assert isinstance(compile_condition(when), Condition), when
    assert [(f.line, f.column) for f in compile_condition("action.context.x = 1\n and true")] == [(1, 18), (2, 2)]


MONEY = policy("p", decision='"pending"', when='"number(action.action_details.amount) > 1000"')


@pytest.mark.parametrize(
    ("amount", "decision"),
    [
        *((amount, "pending") for amount in ("5000.00", "1000.01", "5E+3", "+5000", 5000, 5000.5, "1e3000", "9" * 40)),
        *((amount, "approved") for amount in ("1000.00", "1000", 1000, -5000, "-5000.00", "0", "5.00")),
        *(
            (amount, "denied")
            for amount in (
                "",
                " 5",
                "5 ",
                "5,000.00",
                "NaN",
                "nan",
                "inf",
                "-Infinity",
                "1_000",
                "٥",
                "0x10",
                "5000.",
                ".5",
            )
        ),
        *((amount, "denied") for amount in (None, True, False, [5000], {"amount": 5000}, "5\n", "much")),
    ],
)
def test_money_as_text_is_a_number_and_nothing_else_is(amount, decision):
    expected = "denied" if amount == "1e3000" else decision  # beyond every number
    assert judge(MONEY, action_details={"amount": amount}).decision == expected


def test_number_is_a_number_for_arithmetic_and_in_macros():
    text = "number(action.action_details.amount) * 1.2 + 5.0 > 1000.0"
    assert (
        judge(policy("p", decision='"pending"', when=f'"{text}"'), action_details={"amount": 900}).decision == "pending"
    )
    text = "action.action_details.items.exists(i, number(i.price) > 3)"
    found = judge(policy("p", decision='"pending"', when=f'"{text}"'), action_details={"items": [{"price": "4.10"}]})
    assert found.decision == "pending"


def test_an_unreadable_number_denies_whatever_stands_beside_it():
    for when in (
        "number(action.resource) > 5 || true",
        "!(number(action.resource) > 5)",
        "number(action.resource) == 0.0",
    ):
        judged = judge(policy("p", decision='"approved"', when=f'"{when}"'), resource="many")
        assert judged.decision == "denied" and judged.faults == {
            "p": "number(action.resource) was given a text that is no number"
        }


SECRET = "s3cr3t-([value"


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("number(DETAILS.x) > 1", "number(action.action_details.x) was given a text that is no number"),
        ("number(DETAILS.l) > 1", "number(action.action_details.l) was given a list that is no number"),
        ("int(DETAILS.x) > 1", "int(…) cannot read what it was given"),
        ("duration(DETAILS.x) > duration('1s')", "duration(…) cannot read what it was given"),
        ("DETAILS[DETAILS.x] == 1", "no field of the name that an index gave"),
        ("DETAILS.amount == 1", "no field 'amount'"),
        ("DETAILS.x > 1", "values of kinds that do not go together"),
        ("DETAILS.x + 1 > 2", "Unsupported operation: string + int"),
        ("DETAILS.l[DETAILS.x] == 1", "Unexpected type: got 'string', want 'int|uint'"),
        ("DETAILS.n / 0 == 1", "a division by zero"),
        ("DETAILS.n % 0 == 1", "a division by zero"),
        ("DETAILS.big * DETAILS.big > 1", "a result too large for its kind of number"),
        ("DETAILS.l[DETAILS.n] == 'x'", "an index beyond the end of a list"),
    ],
)
def test_what_is_said_of_a_failed_condition_repeats_no_value_of_the_action(when, told):
    details = {"x": SECRET, "l": [SECRET], "n": 4711, "big": 4711 * 10**15}
    found = judge(
        policy("p", decision='"approved"', when=f'"{when.replace("DETAILS", "action.action_details")}"'),
        action_details=details,
    )
    fault = found.faults["p"]
    assert found.decision == "denied" and fault.startswith(told)
    assert "s3cr3t" not in fault and "4711" not in fault


def test_macros_and_strings_are_no_unknown_names():
    when = "action.action_details.items.exists(i, i.price > 3) && action.resource != 'action.nothing x.y'"
    judged = judge(
        policy("p", decision='"pending"', when=f'"{when}"'), action_details={"items": [{"price": 1}, {"price": 9.5}]}
    )
    assert judged.decision == "pending"


def test_scores_explain_themselves():
    score = score_action("database.read", {"pii": True, "mood": "high", "external": False, "x": "no"})
    assert (score.value, score.factors) == (40, ("read: 10", "mood: +15", "pii: +15"))
    unknown = score_action("frobnicate", {})
    assert (unknown.value, unknown.factors) == (40, ("unknown action type: 40",))
    assert score_action("delete", dict.fromkeys("abcdefghijklmnop", 1)).value == 100
    assert [risk_level(n) for n in (0, 29, 30, 59, 60, 84, 85, 100)] == (
        ["low", "low", "medium", "medium", "high", "high", "critical", "critical"]
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"when": "\"action.resource == 'r{n}' && size(action.description) > 0\""},
        {"when": "\"action.action_details.amount > 5 && action.agent_id == 'r{n}'\""},
        {"action_types": '["r{n}", "other{n}"]', "when": "\"action.resource != ''\""},
        {"agents": '["r{n}"]'},
    ],
)
def test_of_a_thousand_policies_only_those_about_the_action_are_evaluated(keys):
    text = "".join(
        policy(f"p{n}", decision='"denied"', **{key: value.format(n=n) for key, value in keys.items()})
        for n in range(1000)
    )
    policies = parse_policy(text + policy("last", decision='"approved"')).policies
    about = [one.name for one in policies.about(action(resource="r7", agent_id="r7", action_type="r7"))]
    assert about == ["p7", "last"]


@pytest.mark.parametrize(
    "when",
    [
        "action.resource == 'other' || true",
        "!(action.resource == 'other')",
        "action.resource == 'other' ? false : true",
        "(action.resource == 'other') == false",
        "number(action.description) > 1 && action.resource == 'other'",
        "[action.resource == 'other'].exists(x, !x)",
        "action.resource == 'oth\\\\x65r' && action.context.missing",
        "'&& action.resource == 1 &&' != '' && action.resource_id == 'x'",
    ],
)
def test_no_policy_is_left_out_whose_condition_could_hold_or_fail(when):
    compiled = compile_condition(when)
    assert isinstance(compiled, Condition) and compiled.constant is None


@pytest.mark.parametrize(
    "beside",
    ["1/0 > 1", "action.resource > 1", "action.action_details.missing > 1", "action.resource.matches('(')", "!'x'"],
)
def test_a_comparison_that_is_false_settles_a_condition_whatever_fails_beside_it(beside):
    for when in (f"{beside} && action.agent_id == 'other'", f"action.agent_id == 'other' && {beside}"):
        compiled = compile_condition(when)
        assert compiled.constant == ("agent_id", "other") and compiled.holds(action()) is False
