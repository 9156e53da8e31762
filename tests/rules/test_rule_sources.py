"""What rules take from a request, and what they refuse."""

import uuid
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_middleware.exceptions import ConfigurationError, ValidationError
from ascend_middleware.rules import MISSING, FieldError, RequestFields, Rule, RuleTable, redact, secret_names
from ascend_middleware.rules.sources import parse_source, parse_text


def action(fields=None, *, settings=None, **rule):
    table = RuleTable.from_rules([Rule(endpoint="e", action_type="t", **rule)], settings=settings)
    fields = fields or RequestFields(method="POST", template="/x/{id}")
    return table.rules[0].action(fields, agent_id="a", agent_name="A")


def request(**fields):
    return RequestFields(method="POST", template="/x/{id}", **fields)


def test_without_a_resource_it_is_the_method_and_the_template():
    made = action()
    assert (made.agent_id, made.agent_name, made.action_type) == ("a", "A", "t")
    assert made.resource == "POST /x/{id}"
    assert (made.resource_id, made.action_details, made.context, made.risk_indicators) == (None, None, None, None)


def test_every_kind_of_source_is_read():
    made = action(
        request(
            path_params={"id": 7},
            query=[("q", "1")],
            headers=[("x-run", "r")],
            body={"a": {"b": [1, {"c": None}]}},
        ),
        resource="refund for {path.id} {{plain}}",
        resource_id="{path.id}",
        tool_name="stripe",
        model_id=3,
        details={"q": "query.q", "h": "header.X-Run", "b": "body.a.b", "c": "body.a.b.1.c", "n": {"const": "web"}},
        risk_indicators={"financial_data": True, "pii": False},
        context={"absent": "query.no?"},
    )
    assert (made.resource, made.resource_id, made.tool_name, made.model_id) == (
        "refund for 7 {plain}",
        "7",
        "stripe",
        3,
    )
    assert made.action_details == {"q": "1", "h": "r", "b": [1, {"c": None}], "c": None, "n": "web"}
    assert made.risk_indicators == {"financial_data": True, "pii": False}
    assert made.context is None


texts = st.lists(
    st.sampled_from(["{path.id}", "{path.b?}", "{path.password}", "refund ", " ", "{query.q?}"]), max_size=3
)
converted = st.sampled_from(["7", "", " ", "a b", 7, -1, 2**70, True, 1.5, None, uuid.UUID(int=7), ["a"], "\ud800"])


@given(
    written=st.dictionaries(
        st.sampled_from(["resource", "resource_id", "tool_name", "description"]), texts, max_size=3
    ),
    params=st.dictionaries(st.sampled_from(["id", "b", "password"]), converted),
)
def test_what_only_reads_the_path_is_made_alike_at_once(written, params):
    rule = {name: "".join(parts) for name, parts in written.items() if "".join(parts).strip()}
    made = RuleTable.from_rules([Rule(match="GET /x/{id}/{b}/{password}", action_type="t", **rule)]).rules[0]
    at_once = made.path_action_maker()
    action = at_once and at_once(params, "GET /x", "a", "A")
    if action is not None:
        fields = RequestFields(method="GET", template="/x", path_params=params)
        assert action == made.action(fields, agent_id="a", agent_name="A")


def test_most_actions_are_made_of_the_path_alone():
    rule = Rule(match="GET /x/{id}", action_type="t", resource_id="{path.id}", resource="refund {path.id}")
    make = RuleTable.from_rules([rule]).rules[0].path_action_maker()
    assert make({"id": 7}, "GET /x/{id}", "a", "A").resource == "refund 7"


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"details": {"id": "path.id"}}, {}),
        ({"context": {"fixed": 1}}, {}),
        ({"model_id": 7}, {}),
        ({"resource": "{query.q?}"}, {}),
        ({"resource": "{path.id[]}"}, {}),
        ({"resource": "{path.password}"}, {}),
        ({"resource": "{path.badge}"}, {"redact": ["badge"]}),
        ({"resource": "{path.id}", "mode": "observe"}, {}),
    ],
)
def test_what_reads_more_than_texts_of_the_path_is_not(fields, settings):
    rule = Rule(match="GET /x/{id}/{badge}/{password}", action_type="t", **fields)
    assert RuleTable.from_rules([rule], settings=settings).rules[0].path_action_maker() is None


@pytest.mark.parametrize("value", ["", " ", None, True, 1.5, 2**63, -(2**63) - 1, ["a"], uuid.UUID(int=7)])
def test_nor_is_a_value_that_has_to_be_looked_at(value):
    rule = Rule(match="GET /x/{id}", action_type="t", resource_id="{path.id}")
    make = RuleTable.from_rules([rule]).rules[0].path_action_maker()
    assert make({"id": value}, "GET /x/{id}", "a", "A") is None
    assert make({}, "GET /x/{id}", "a", "A") is None


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 0, "0"])
def test_a_number_of_64_bits_is_made_at_once(value):
    rule = Rule(match="GET /x/{id}", action_type="t", resource_id="{path.id}", tool_name="t")
    made = RuleTable.from_rules([rule]).rules[0].path_action_maker()({"id": value}, "GET /x/{id}", "a", "A")
    assert (made.resource_id, made.resource, made.tool_name) == (str(value), "GET /x/{id}", "t")


def test_a_session_of_several_agents_travels_with_the_request():
    written = {
        "orchestration_session_id": "{header.x-session?}",
        "parent_action_id": "{header.x-parent?}",
        "orchestration_depth": "{header.x-depth?}",
        "mcp_server_name": "files",
        "model_id": "{header.x-model?}",
    }
    headers = [("x-session", "s"), ("x-parent", "41"), ("x-depth", "2"), ("x-model", "m")]
    made = action(request(headers=headers), **written)
    assert (made.orchestration_session_id, made.parent_action_id, made.orchestration_depth) == ("s", "41", 2)
    assert (made.mcp_server_name, made.model_id) == ("files", "m")
    bare = action(request(), **written)
    assert (bare.orchestration_session_id, bare.parent_action_id, bare.orchestration_depth) == (None, None, None)
    assert [action(request(), orchestration_depth=depth).orchestration_depth for depth in (0, 3, 5)] == [0, 3, 5]
    for depth in "05":
        asked = request(headers=[("x-depth", depth)])
        assert action(asked, orchestration_depth="{header.x-depth}").orchestration_depth == int(depth)
    for depth in ("6", "-1", "1.0", "two", "01", " 1"):
        with pytest.raises(FieldError):
            action(request(headers=[("x-depth", depth)]), orchestration_depth="{header.x-depth}")


def test_a_form_is_read():
    assert action(request(form=[("a", "1")]), details={"a": "form.a"}).action_details == {"a": "1"}


def test_a_form_field_that_stands_in_the_query_too_is_refused():
    with pytest.raises(FieldError, match="form.a"):
        action(request(form=[("a", "1")], query=[("a", "9")]), details={"a": "form.a"})


def test_what_a_router_converted_becomes_json():
    key = uuid.UUID(int=1)
    made = action(request(path_params={"id": key}), details={"id": "path.id"}, resource_id="{path.id}")
    assert made.action_details == {"id": str(key)}
    assert made.resource_id == str(key)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([uuid.UUID(int=1), 1, None], [str(uuid.UUID(int=1)), 1, None]),
        ((1, "a"), [1, "a"]),
        ({"a": 1}, {"a": 1}),
        (None, None),
        (Decimal("1.50"), "1.50"),
        (PurePosixPath("a/b"), "a/b"),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (1.5, 1.5),
        (True, True),
        (1j, "1j"),
    ],
)
def test_whatever_a_router_converted_becomes_json(value, found):
    made = action(request(path_params={"id": value}), details={"id": "path.id"})
    assert made.action_details == {"id": found} and type(made.action_details["id"]) is type(found)


@pytest.mark.parametrize("source", ["path.x", "query.x", "header.x", "body.x", "body.a.b", "body.l.3", "form.x"])
def test_a_missing_value_is_refused_unless_it_may_be_absent(source):
    body = {"a": 1, "l": [0]}
    given = request() if source.startswith("form") else request(body=body)
    with pytest.raises(FieldError, match="missing") as caught:
        action(given, details={"v": source})
    assert caught.value.source == caught.value.field == source
    assert isinstance(caught.value, ValidationError)
    assert action(given, details={"v": f"{source}?"}).action_details is None


def test_without_a_body_a_body_source_is_missing():
    assert parse_source("body.a?").read(request()) is MISSING


@pytest.mark.parametrize(("kind", "field"), [("query", "query"), ("header", "headers"), ("form", "form")])
def test_a_repeated_value_is_refused_unless_declared(kind, field):
    given = request(**{field: [("x", "s3cr3t"), ("x", "2")]})
    with pytest.raises(FieldError, match="2 times") as caught:
        action(given, details={"v": f"{kind}.x"})
    assert "s3cr3t" not in str(caught.value)
    assert action(given, details={"v": f"{kind}.x[]"}).action_details == {"v": ["s3cr3t", "2"]}
    assert action(given, details={"v": f"{kind}.y[]?"}).action_details is None


def test_a_value_that_may_repeat_is_a_list_always():
    given = request(query=[("x", "1")], body={"one": 1, "two": [1, 2]})
    assert action(given, details={"q": "query.x[]", "b": "body.one[]", "c": "body.two[]?"}).action_details == {
        "q": ["1"],
        "b": [1],
        "c": [1, 2],
    }


def test_a_dash_and_underscore_twin_of_a_header_is_refused():
    with pytest.raises(FieldError, match="dash and underscore"):
        action(request(headers=[("x-run", "1"), ("x_run", "2")]), details={"v": "header.x-run"})
    with pytest.raises(FieldError, match="dash and underscore"):
        action(request(headers=[("x_run", "2")]), details={"v": "header.x-run?"})


def test_text_takes_any_json_value_but_not_a_required_null():
    given = request(body={"l": [1, "a"], "n": None, "t": True})
    assert action(given, resource="r {body.l} {body.t} {body.n?}").resource == 'r [1,"a"] true '
    with pytest.raises(FieldError, match="null"):
        action(given, resource="r {body.n}")


@pytest.mark.parametrize("number", [0, -1, 2**63, -(2**63) - 1, 10**40])
def test_text_takes_a_number_as_json_has_it(number):
    assert action(request(path_params={"id": number}), resource_id="n{path.id}").resource_id == f"n{number}"


def test_a_number_too_long_to_write_is_refused_in_a_text():
    with pytest.raises(FieldError, match="path.id is no value"):
        action(request(path_params={"id": 10**5000}), resource_id="n{path.id}")


def test_a_text_that_comes_out_empty_is_absent():
    assert action(resource_id="{query.id?}").resource_id is None
    assert action(resource="{query.id?}").resource == "POST /x/{id}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bdy.amount", "did you mean body.amount?"),
        ("session.x", "begins with path, query"),
        ("web", "{ const = 'web' }"),
        ("body", "no source"),
        ("body.", "names no value"),
        ("body.a..b", "empty step"),
        ("body.a[].b", "at the end only"),
        ("body.a??", "mark twice"),
        ("body.a?[]?", "mark twice"),
        ("body.a[][]", "mark twice"),
        ("body.a[]?[]", "mark twice"),
        ("body. a", "names no value"),
        ("body.a ", "names no value"),
        ("no-name.a", "no source"),
        ("header.a b", "names no header"),
    ],
)
def test_a_wrong_source_says_what_is_wrong(text, part):
    with pytest.raises(ValueError, match=".") as caught:
        parse_source(text)
    assert part in str(caught.value)


@pytest.mark.parametrize("text", ["{path.x", "path.x}", "{nothing}", "{bdy.x}"])
def test_a_wrong_text_is_refused(text):
    with pytest.raises(ValueError, match="brace|source"):
        parse_text(text)


def test_a_compiled_rule_says_what_it_reads():
    table = RuleTable.from_rules(
        [
            Rule(match="POST /a", action_type="t", details={"a": "body.a", "b": "header.B"}, resource="{header.a}"),
            Rule(match="POST /b", action_type="t", details={"a": "form.a"}),
            Rule(match="POST /c", action_type="t"),
        ]
    )
    assert [rule.body for rule in table.rules] == ["json", "form", None]
    assert [rule.reads_headers for rule in table.rules] == [("a", "b"), (), ()]


# --- secrets


def test_secrets_never_leave():
    secret = "hunter2"
    made = action(
        request(
            query=[("access_token", secret)],
            headers=[("authorization", secret)],
            body={"user": {"password": secret, "name": "n"}, "cards": [{"cardNumber": secret}], "ssn": secret},
        ),
        resource="for {query.access_token}",
        details={"user": "body.user", "cards": "body.cards", "innocent": "body.ssn", "api_key": "body.user.name"},
        context={"who": "header.authorization"},
    )
    assert secret not in repr(made)
    assert made.action_details["user"] == {"password": "[redacted]", "name": "n"}
    assert made.resource == "for [redacted]"


@pytest.mark.parametrize("source", ["body.card.number", "body.max.tokens", "body.user.password", "body.pin"])
def test_a_secret_is_known_by_its_whole_place_and_by_its_last_step(source):
    body = {
        "card": {"number": "hunter2"},
        "max": {"tokens": "hunter2"},
        "user": {"password": "hunter2"},
        "pin": "hunter2",
    }
    made = action(request(body=body), details={"innocent": source}, resource=f"for {{{source}}}")
    assert (made.action_details, made.resource) == ({"innocent": "[redacted]"}, "for [redacted]")


@pytest.mark.parametrize("body", [{}, {"password": None}])
def test_a_secret_that_is_absent_stays_absent(body):
    made = action(request(body=body), tool_name="{body.password?}")
    assert made.tool_name is None


@pytest.mark.parametrize("where", ["resource", "resource_id"])
def test_a_whole_part_inside_a_text_hides_its_secrets(where):
    body = {"user": {"name": "n", "password": "hunter2", "cards": [{"cardNumber": "hunter2"}]}}
    made = getattr(action(request(body=body), **{where: "for {body.user}, {body.user.name}"}), where)
    assert "hunter2" not in made and made.count("[redacted]") == 2
    assert made.startswith("for ") and made.endswith(", n")


@pytest.mark.parametrize(
    "name",
    """
    password passwd passphrase pwd passcode pin otp token tokens jwt secret secrets clientsecret apikey apikeys accesskey
    privatekey signingkey encryptionkey authorization proxyauthorization auth bearer cookie setcookie sessionkey csrf xsrf
    credential credentials card cardnumber creditcard pan cvv cvv2 cvc cvc2 iban accountnumber routingnumber ssn
    socialsecurity socialsecuritynumber taxid passport passportnumber
    """.split(),
)
def test_each_default_name_hides_its_value(name):
    assert redact({name: "hunter2", "beside": 1}) == {name: "[redacted]", "beside": 1}
    made = action(request(body={"user": {name: "hunter2"}}), resource="for {body.user}", details={"u": "body.user"})
    assert "hunter2" not in repr(made)


def test_more_names_are_configured():
    given = request(body={"x": {"badge_number": "1", "other": "2"}})
    made = action(given, details={"x": "body.x"}, settings={"redact": ["badgeNumber"]})
    assert made.action_details == {"x": {"badge_number": "[redacted]", "other": "2"}}
    assert redact({"badge": 1}, secret_names(["badge"])) == {"badge": "[redacted]"}


@pytest.mark.parametrize(
    "name", "password user_password userpassword Password api_key apiKey APIKey x-api-key accessToken cvv2 ssn".split()
)
def test_a_secret_name(name):
    assert redact({name: 1}) == {name: "[redacted]"}


@pytest.mark.parametrize("name", "discard max_tokens session_id pinned amount author company key spinner".split())
def test_no_secret_name(name):
    assert redact({name: 1}) == {name: 1}


@pytest.mark.parametrize(("place", "found"), [("0", "a"), ("1", "b"), ("01", "b"), ("000000001", "b")])
def test_an_element_of_a_list_is_named_by_its_place(place, found):
    assert action(request(body={"a": ["a", "b"]}), resource_id=f"{{body.a.{place}}}").resource_id == found


@pytest.mark.parametrize("place", ["2", "-1", "١", "x", "0000000001", ""])
def test_a_place_that_a_list_does_not_have_is_missing(place):
    with pytest.raises((FieldError, ConfigurationError)):
        action(request(body={"a": ["a", "b"]}), resource_id=f"{{body.a.{place}}}")


@pytest.mark.parametrize("value", [True, False, 0, 1, 1.5])
def test_a_value_that_is_no_text_is_sent_as_it_is(value):
    assert repr(action(details={"given": value, "fixed": {"const": value}}).action_details) == repr(
        {"given": value, "fixed": value}
    )


def test_who_changes_an_action_changes_no_later_one():
    details = {"tags": {"const": ["a"]}, "given": {"const": {"b": [1]}}}
    (rule,) = RuleTable.from_rules([Rule(endpoint="e", action_type="t", details=details)]).rules
    for _ in range(2):
        made = rule.action(request(), agent_id="a", agent_name="A")
        assert made.action_details == {"tags": ["a"], "given": {"b": [1]}}
        made.action_details["tags"].append("more")
        made.action_details["given"]["b"].clear()


def test_redaction_has_an_end():
    value = []
    for _ in range(10_000):
        value = [value]
    redact(value)


def test_a_flag_is_no_secret():
    assert redact({"card_present": True, "token": None, "pin": 1234}) == {
        "card_present": True,
        "token": None,
        "pin": "[redacted]",
    }


@pytest.mark.parametrize("body", [{"a": "xyz"}, {"a": None}, {"a": 7}, {"a": {"b": 1}}, {"a": []}, "xyz", []])
def test_a_number_in_a_source_is_a_place_in_a_list_and_nothing_else(body):
    assert action(request(body=body), details={"a": "body.a.0?"}).action_details is None
    assert action(request(body={"a": ["x"]}), details={"a": "body.a.0?"}).action_details == {"a": "x"}


def test_only_in_a_body_dots_lead_on():
    query = [("a..b", "1"), ("a.", "2")]
    made = action(request(query=query), details={"one": "query.a..b", "two": "query.a."})
    assert made.action_details == {"one": "1", "two": "2"}
    with pytest.raises(ConfigurationError):
        action(details={"one": "body.a..b"})
