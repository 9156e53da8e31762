"""Which rule a request gets, and which tables are refused."""

import itertools

import pytest

from ascend_middleware.config import Pending, Settings
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.rules import WEBSOCKET, FieldError, RequestFields, Rule, RuleTable, by_method_rule, declaration


def table(*matches, **extra):
    """Each text is a match; `-` exempts, `!` blocks, else the text itself is the action type."""
    rules = []
    for text in matches:
        if text[0] == "-":
            rules.append({"match": text[1:], "exempt": True})
        elif text[0] == "!":
            rules.append({"match": text[1:], "block": f"no {text[1:]}"})
        else:
            rules.append({"match": text, "action_type": text.replace("{", "<").replace("}", ">")})
    return RuleTable.from_mapping({"rule": rules, **extra})


def found(rule):
    return rule and ("-" if rule.exempt else "!" if rule.block else "") + rule.match


def problems(*rules, **tables):
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_mapping({"rule": list(rules), **tables}, name="ascend.toml")
    return caught.value.problems


def codes(*rules, **tables):
    return sorted(problem.code.removeprefix("rules.") for problem in problems(*rules, **tables))


# --- precedence


def test_the_most_specific_template_wins_in_any_order():
    matches = ["GET /a/b", "GET /a/{x:int}", "GET /a/{x}", "GET /a/**", "GET /{x}/b", "GET /**"]
    expected = {
        "/a/b": "GET /a/b",
        "/a/b/": "GET /a/b",
        "/a/7": "GET /a/{x:int}",
        "/a/c": "GET /a/{x}",
        "/a/c/d": "GET /a/**",
        "/a": "GET /a/**",
        "/c/b": "GET /{x}/b",
        "/": "GET /**",
        "/c/d": "GET /**",
    }
    for order in itertools.islice(itertools.permutations(matches), 0, None, 37):
        made = table(*order)
        assert {path: found(made.lookup("GET", path)) for path in expected} == expected


def test_a_lookup_goes_back_when_a_literal_leads_nowhere():
    made = table("GET /a/b/c", "GET /{x}/b/d")
    assert found(made.lookup("GET", "/a/b/d")) == "GET /{x}/b/d"


@pytest.mark.parametrize("path", ["/a//b", "//a/b", "/a/"])
def test_nothing_is_no_name(path):
    assert table("GET /a/{x}", "GET /a/{x}/b", "GET /{x}/a/b").lookup("GET", path) is None


def test_then_the_narrower_method_set_wins():
    made = table("* /a", "GET,POST /a", "GET /a")
    assert [found(made.lookup(method, "/a")) for method in ("GET", "POST", "PUT")] == ["GET /a", "GET,POST /a", "* /a"]


def test_block_beats_everything_that_it_covers():
    made = table("GET,POST /internal/pay", "-GET /internal/health", "!POST /internal/**")
    assert found(made.lookup("POST", "/internal/pay")) == "!POST /internal/**"
    assert found(made.lookup("GET", "/internal/pay")) == "GET,POST /internal/pay"
    assert found(made.lookup("POST", "/internal/health")) == "!POST /internal/**"
    assert found(made.lookup("DELETE", "/internal/pay")) is None


def test_the_most_specific_block_gives_the_reason():
    made = table("!* /a/**", "!GET /a/b")
    assert found(made.lookup("GET", "/a/b")) == "!GET /a/b"
    assert found(made.lookup("POST", "/a/b")) == "!* /a/**"


def test_an_unlisted_method_is_unmapped_though_a_wider_rule_covers_it():
    made = table("GET /pay/{id}", "-* /pay/**", "POST /other/**")
    assert found(made.lookup("POST", "/pay/1")) is None
    assert found(made.for_route("/pay/{id}").select("POST", "/pay/1")) is None
    assert found(made.lookup("POST", "/pay")) == "-* /pay/**"


def test_the_parts_of_a_route_are_the_rules_that_share_a_path_with_it():
    made = table("GET /a/b", "GET /a/7", "GET /a/8/c", "GET /a/{x:uuid}", "GET /a/**", "GET /b")
    for route, parts in (
        ("/a/{x:int}", ["/a/7", "/a/{x:uuid}", "/a/**"]),
        ("/a/{x}/c", ["/a/8/c", "/a/**"]),
        ("/a/b", ["/a/b"]),
        ("/a/c", ["/a/**"]),
        ("/b/{p:path}", ["/b", ""]),
    ):
        found_parts = list(made.for_route(route).parts("GET"))
        assert [str(part.template) for part in found_parts] == parts
        assert [part.covers for part in found_parts] == [False] * (len(parts) - 1) + [True]


@pytest.mark.parametrize(
    ("fields", "label", "reuse"),
    [
        ({"match": "GET /**"}, "rule 1 (GET /**)", {}),
        ({"endpoint": "e", "match": "GET /a"}, "rule 1 (GET /a)", {}),
        ({"endpoint": "e"}, "rule 1 (endpoint e)", {}),
        ({"match": "GET /a", "name": "mine", "cache": "30s"}, "mine", {"cache": "30s"}),
        ({"match": "GET /a", "coalesce": True}, "rule 1 (GET /a)", {"coalesce": True}),
        ({"match": "GET /a", "cache": "1m", "coalesce": True}, "rule 1 (GET /a)", {"cache": "60s", "coalesce": True}),
    ],
)
def test_what_a_rule_is_called_and_says_of_reuse(fields, label, reuse):
    (rule,) = RuleTable.from_mapping({"rule": [{"action_type": "t", **fields}]}).rules
    assert (rule.label, rule.reuse) == (label, reuse)


def test_a_table_whose_rule_says_something_else_is_another_version():
    def version(**fields):
        return RuleTable.from_mapping({"rule": [{"match": "GET /a", "action_type": "t", **fields}]}).version

    assert version() == version(enabled=True) == version(coalesce=False)
    assert len({version(), version(action_type="other"), version(cache="1s"), version(resource="{query.q}")}) == 4


def test_what_a_rule_of_an_endpoint_leaves_of_its_route_has_the_rules_of_templates():
    given = [
        {"endpoint": "e", "match": "POST /files/a/**", "action_type": "one"},
        {"match": "* /files/**", "action_type": "two"},
    ]
    rules = RuleTable.from_mapping({"rule": given}).for_route("/files/{p:path}", endpoint="e")
    assert [rules.select("POST", path).action_type for path in ("/files/a/x", "/files/b")] == ["one", "two"]


def test_get_covers_head_and_nothing_else():
    made = table("GET /a", "HEAD,POST /b", "GET /b", "* /b")
    assert found(made.lookup("HEAD", "/a")) == "GET /a"
    assert found(made.lookup("HEAD", "/b")) == "HEAD,POST /b"
    assert found(made.lookup("OPTIONS", "/a")) is None
    assert found(made.lookup(WEBSOCKET, "/a")) is None
    assert found(table("POST /c").lookup("HEAD", "/c")) is None
    assert found(table("POST /c", "PUT /c").lookup("HEAD", "/c")) is None


def test_a_uuid_comes_before_a_number_and_both_before_a_name():
    digits, dashed = "12345678123456781234567812345678", "12345678-1234-5678-1234-567812345678"
    made = table("GET /a/{x:uuid}", "GET /a/{x:int}", "GET /a/{x}")
    assert [found(made.lookup("GET", f"/a/{one}")) for one in (digits, dashed, "7", "b")] == [
        "GET /a/{x:uuid}",
        "GET /a/{x:uuid}",
        "GET /a/{x:int}",
        "GET /a/{x}",
    ]
    for text in ("{uuid}", "{int}", "{}", "{"):
        assert found(made.lookup("GET", f"/a/{text}")) == "GET /a/{x}"
        assert table("GET /a/{x:uuid}", "GET /a/{x:int}").lookup("GET", f"/a/{text}") is None


def test_the_rules_that_a_route_may_get_are_those_that_share_a_path_with_it():
    made = table("GET /a", "GET /a/b", "GET /a/b/c", "GET /a/{x:int}", "GET /{x}/b", "GET /**", "POST /b/**")

    def of(route, **more):
        return [rule.match for rule in made.for_route(route).candidates(**more)]

    assert of("/a/b") == ["GET /a/b"]
    assert of("/a/{x}") == ["GET /a/b", "GET /a/{x:int}", "GET /{x}/b", "GET /**"]
    assert of("/a/{rest:path}") == ["GET /a/b/c", "GET /a/b", "GET /a/{x:int}", "GET /a", "GET /{x}/b", "GET /**"]
    assert of("/c") == ["GET /**"]
    assert of("/a/{rest:path}", whole=True) == ["GET /**"]


def test_a_handshake_needs_websocket_or_a_star():
    made = table("WEBSOCKET /ws", "* /all")
    assert found(made.lookup(WEBSOCKET, "/ws")) == "WEBSOCKET /ws"
    assert found(made.lookup("GET", "/ws")) is None
    assert found(made.lookup("WEBSOCKET", "/ws")) is None  # a method that somebody sent
    assert found(made.lookup(WEBSOCKET, "/all")) == "* /all"
    assert found(made.lookup("FROBNICATE", "/all")) == "* /all"


def test_a_blocked_get_is_a_blocked_head():
    assert found(table("!GET /a").lookup("HEAD", "/a")) == "!GET /a"


def test_a_path_that_is_none_has_no_rule():
    assert [table("* /**").lookup("GET", path) for path in ("", "*", "a", "http://x/a")] == [None] * 4


def test_an_empty_table_has_no_rule():
    made = RuleTable.from_mapping({})
    assert made.lookup("GET", "/") is None
    assert made.for_route("/a").select("GET", "/a") is None


def test_a_disabled_rule_is_as_if_absent_but_checked():
    off = {"match": "GET /a", "action_type": "x", "enabled": False}
    made = RuleTable.from_mapping({"rule": [off, {"match": "GET /a", "exempt": True}]})
    assert made.lookup("GET", "/a").exempt
    assert len(made.rules) == 1
    assert made.rules[0].number == 2
    assert codes({**off, "acton": 1}) == ["unknown-key"]


# --- routes


def test_a_rule_with_the_routes_template_governs_however_the_path_is_spelt():
    made = table("GET /users/{user_id}", "-GET /users/me", "GET /users/{id:int}")
    chosen = made.for_route("/users/{id}")
    for path in ("/users/7", "/users/me", "/users/", "/USERS/x/y"):
        assert found(chosen.select("GET", path)) == "GET /users/{user_id}"


@pytest.mark.parametrize("template", ["/files/{path:path}", "/files/**"])
def test_a_rule_for_a_whole_tree_of_files_hides_no_narrower_one(template):
    made = table("-GET /files/**", "GET /files/private/**", "!GET /files/private/keys/**")
    rules = made.for_route(template, files=True)
    assert found(rules.select("GET", "/files/logo.png")) == "-GET /files/**"
    assert found(rules.select("GET", "/files/private/x")) == "GET /files/private/**"
    assert found(rules.select("GET", "/files/private/keys/x")) == "!GET /files/private/keys/**"
    assert rules.select("POST", "/files/private/x") is None
    # A handler of the same template is one: what is narrower may belong to another route, which it stands before.
    assert found(made.for_route(template).select("GET", "/files/private/x")) == "-GET /files/**"


def test_else_the_most_specific_rule_that_covers_the_route():
    made = table("GET /a/**", "GET /**", "GET /a/{x}/**")
    assert found(made.for_route("/a/{x:float}").select("GET", "?")) == "GET /a/{x}/**"
    assert found(made.for_route("/a").select("GET", "?")) == "GET /a/**"
    assert found(made.for_route("/b/{p:path}/c").select("GET", "?")) == "GET /**"


def test_where_rules_cover_a_part_the_path_decides():
    made = table("GET /files/public/**", "GET /files/{x:int}", "-GET /**")
    chosen = made.for_route("/files/{p:path}")
    assert found(chosen.select("GET", "/files/public/a")) == "GET /files/public/**"
    assert found(chosen.select("GET", "/files/7/")) == "GET /files/{x:int}"
    assert found(chosen.select("GET", "/files/private")) == "-GET /**"
    assert found(chosen.select("POST", "/files/private")) is None
    assert {found(rule) for rule in chosen.candidates()} == {"GET /files/public/**", "GET /files/{x:int}", "-GET /**"}
    assert found(table("GET /files/a").for_route("/files/{p:path}").select("GET", "/files/b")) is None


def test_a_mixed_or_unknown_segment_is_decided_by_rule_or_path():
    assert found(table("GET /{x}").for_route("/f.{e}").select("GET", "?")) == "GET /{x}"
    chosen = table("GET /{x}").for_route("/{x:unheard}")
    assert found(chosen.select("GET", "/abc")) == "GET /{x}"
    assert found(chosen.select("GET", "/a/b")) is None


def test_a_block_holds_for_routes():
    made = table("GET /a/{x}", "!* /a/secret", "!GET /b/**", "* /b/c")
    assert found(made.for_route("/a/{y}").select("GET", "/a/secret")) == "!* /a/secret"
    assert found(made.for_route("/a/{y}").select("GET", "/a/other")) == "GET /a/{x}"
    assert found(made.for_route("/b/c").select("HEAD", "/elsewhere")) == "!GET /b/**"
    assert found(made.for_route("/b/c").select("POST", "/b/c")) == "* /b/c"


def test_an_endpoint_rule_beats_templates_but_not_blocks():
    made = RuleTable.from_rules(
        [
            Rule(endpoint="billing.refund", action_type="refund"),
            Rule(match="* /refund/{id}", exempt=True),
            Rule(match="* /admin/**", block="no"),
            Rule(endpoint="billing.gone", block="gone"),
            Rule(endpoint="both", match="GET /x/**", action_type="both"),
            Rule(match="* /y", action_type="y"),
        ]
    )
    assert made.for_route("/refund/{id}", endpoint="billing.refund").select("POST", "/x").action_type == "refund"
    assert made.for_route("/refund/{id}", endpoint="other").select("POST", "/x").exempt
    assert made.for_route("/refund/{id}").select("POST", "/x").exempt
    assert made.for_route("/admin/{id}", endpoint="billing.refund").select("POST", "/x").block == "no"
    assert made.for_route("/refund/{id}", endpoint="billing.gone").select("POST", "/x").block == "gone"
    assert made.for_route("/x/{a}", endpoint="both").select("GET", "/x/1").action_type == "both"
    assert made.for_route("/x/{a}", endpoint="both").select("POST", "/x/1") is None
    assert made.for_route("/y", endpoint="both").select("POST", "/y").action_type == "y"
    assert made.lookup("POST", "/somewhere") is None
    assert made.rules[0].label == "rule 1 (endpoint billing.refund)"


# --- what a rule is


def test_a_rule_has_defaults_from_the_ascend_table():
    made = RuleTable.from_mapping(
        {
            "ascend": {
                "on_failure": "open",
                "pending": "wait:5s",
                "mode": "observe",
                "body_limit": 9,
                "api_key": "k3y",
            },
            "rule": [
                {"match": ["GET /a", "POST /a"], "action_type": "x"},
                {
                    "match": "GET /b",
                    "name": "b",
                    "action_type": "x",
                    "on_failure": "closed",
                    "pending": "refuse",
                    "mode": "enforce",
                    "body_limit": 0,
                    "body_timeout": 3,
                    "permit": ["dot-segment"],
                },
            ],
        }
    )
    one, again, two = made.rules
    assert (one.on_failure, one.pending, one.mode, one.body_limit) == ("open", Pending(5.0), "observe", 9)
    assert (one.number, again.number, one.label, again.label) == (1, 1, "rule 1 (GET /a)", "rule 1 (POST /a)")
    assert (two.on_failure, two.pending, two.mode, two.body_limit) == ("closed", Pending(), "enforce", 0)
    assert (two.body_timeout, two.permit, two.label) == (3.0, ("dot-segment",), "b")
    assert "k3y" not in repr(made) + repr(one)
    loaded = made.with_settings(Settings(mode="enforce"))
    assert loaded.lookup("GET", "/a").mode == "enforce"
    assert loaded.lookup("GET", "/b").body_limit == 0


def test_the_version_depends_on_the_content_only():
    assert table("GET /a", "GET /b").version == table("GET /b", "GET /a").version
    assert table("GET /a").version != table("GET /b").version
    assert table("GET /a").version != table("GET /a", ascend={"mode": "observe"}).version
    assert table("GET /a").version == table("GET /a", ascend={"api_key": "x"}).version
    assert len(table().version) == 16


def test_by_method():
    made = RuleTable.from_mapping({"ascend": {"on_failure": "open"}})
    types = {m: made.by_method_rule(m).action_type for m in ("GET", "HEAD", "OPTIONS", "POST", "FOO", WEBSOCKET)}
    assert types == dict.fromkeys(("GET", "HEAD", "OPTIONS"), "data_access") | dict.fromkeys(
        ("POST", "FOO", WEBSOCKET), "data_modification"
    )
    assert made.by_method_rule("GET").on_failure == "open"
    assert not by_method_rule("GET").exempt


def test_a_file_is_read(tmp_path):
    file = tmp_path / "ascend.toml"
    file.write_text(
        """
        [ascend]
        agent_id = "billing-api"
        [[rule]]
        match = "POST /customers/{customer_id}/refunds"
        action_type = "transaction"
        resource = "refund for customer {path.customer_id}"
        details = { amount = "body.amount", dry_run = "query.dry_run?", channel = { const = "web" } }
        risk_indicators = { financial_data = true }
        [[rule]]
        match = ["GET /health", "GET /docs/**"]
        exempt = true
        [[rule]]
        match = "* /internal/**"
        block = "internal routes are closed to agents"
        """
    )
    made = RuleTable.from_toml(file)
    assert made.settings["agent_id"] == "billing-api"
    assert made.lookup("GET", "/docs/a").exempt
    assert made.lookup("POST", "/customers/1/refunds").path_params("/customers/1/refunds") == {"customer_id": "1"}
    file.write_text("[[rule]\n")
    with pytest.raises(ConfigurationError, match="ascend.toml"):
        RuleTable.from_toml(file)
    with pytest.raises(ConfigurationError, match="No such file"):
        RuleTable.from_toml(tmp_path / "none.toml")


# --- refused


def test_all_problems_are_reported_at_once_with_their_places():
    found = problems(
        {"match": "POST /refunds", "action_type": "t", "details": {"amount": "bdy.amount"}, "acton_type": "t"},
        {"match": "POST /x", "name": "mine", "action_type": "t", "pending": "wait:99s", "resource": "{path.id}"},
        {"match": ["GET /ok", "GET ok"], "exempt": True},
        {"match": "GET /a/{x}", "action_type": "one"},
        {"match": "GET /a/{y}", "action_type": "two"},
        "nonsense",
        ascend={"agnt_id": "x"},
        rules=[],
    )
    assert sorted(f"{problem.code} {problem.where}" for problem in found) == [
        "rules.bad-match ascend.toml: rule 3 (GET /ok, GET ok): match[1]",
        "rules.bad-value ascend.toml: mine: pending",
        "rules.bad-value ascend.toml: rule 6",
        "rules.conflict ascend.toml: rule 5 (GET /a/{y})",
        "rules.unknown-key ascend.toml: rule 1 (POST /refunds): acton_type",
        "rules.unknown-key ascend.toml: rules",
        "rules.unknown-parameter ascend.toml: mine: resource",
        "rules.unknown-source ascend.toml: rule 1 (POST /refunds): details.amount",
        "settings.unknown-key ascend.toml: [ascend] agnt_id",
    ]
    text = "\n".join(map(str, found))
    for part in ("GET /a/1", "did you mean action_type?", "did you mean body.amount?", "did you mean rule?"):
        assert part in text


def test_problems_of_a_file_tell_the_line_of_their_rule(tmp_path):
    file = tmp_path / "ascend.toml"
    file.write_text(
        """[ascend]
# [[rule]] begins each
[[rule]]
match = "GET /a/{x}"
action_type = "one"

  [[ 'rule' ]]
name = "mine"
match = "GET /b"
acton_type = "two"

[[rule]]
match = "GET /a/{y}"
action_type = "three"
"""
    )
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_toml(file)
    found = {one.code: one for one in caught.value.problems}
    quarrel = found["rules.conflict"]
    assert found["rules.unknown-key"].where == f"{file}: mine at line 7: acton_type"
    assert quarrel.where == f"{file}: rule 3 (GET /a/{{y}}) at line 12"
    assert "rule 1 (GET /a/{x}) at line 3" in quarrel.message


def test_the_line_is_told_in_listings_and_not_in_logs(tmp_path):
    file = tmp_path / "ascend.toml"
    file.write_text('\n[[rule]]\nmatch = "GET /a"\nexempt = true\n')
    (rule,) = RuleTable.from_toml(file).with_settings(Settings(body_limit=1)).rules
    assert (rule.short_label, rule.label) == ("rule 1 (line 2)", "rule 1 (GET /a)")
    file.write_text('rule = [{ match = "GET /a", exempt = true, name = """\n[[rule]]\n[[rule]]""" }]')
    assert RuleTable.from_toml(file).rules[0].line == 0  # lines that cannot be known are not guessed


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["GET /a/{x}:one", "GET /a/{y}:two"], ["conflict"]),
        (["GET,POST /a:one", "GET,PUT /a:two"], ["conflict"]),
        (["GET,POST /a:one", "GET,PUT /a:one"], []),
        (["GET,POST /a:one", "GET,PUT /a:two", "GET /a:three"], []),
        (["GET /a:one", "GET /a/:one"], ["duplicate"]),
        (["GET /a:one", "GET /a:(one"], ["duplicate"]),
        (["* /a:one", "* /a:two"], ["conflict"]),
        (["GET,POST /a:one", "GET /a:two", "POST /a:three"], ["dead"]),
        (["GET /a/{x:int}:one", "GET /a/{x:uuid}:two"], []),
        (["GET /a/{x}:one", "GET /{x}/b:two"], []),
        (["GET /a/b:one", "* /a/**:!"], ["dead"]),
        (["GET,POST /a/b:one", "GET /a/**:!"], []),
        (["GET,POST /a/b:one", "GET /a/**:!", "POST /a/b:!"], ["dead"]),
        (["HEAD /a:one", "GET /**:!"], ["dead"]),
        (["* /a:one", "GET,POST /**:!"], []),
        (["GET /a/{x:int}:one", "GET /a/{x}:!"], ["dead"]),
        (["GET /a/{x}:one", "GET /a/{x:int}:!"], []),
        (["GET /a/7:one", "GET /a/{x:int}:!"], ["dead"]),
        (["GET /a:one", "GET /a:!"], ["dead"]),
        (["GET /a/b:!", "GET /a/**:!"], []),
        (["GET,POST /a:!", "GET,PUT /a:?"], []),
        (["GET,PUT /a:!", "GET /a:?"], []),
        (["GET /a:!", "GET /a:?"], ["conflict"]),
        (["* /a:!", "* /a:?"], ["conflict"]),
    ],
)
def test_rules_that_quarrel_or_can_never_match(rules, expected):
    def build(order):
        blocks = {"!": {"block": "no"}, "?": {"block": "shut"}}
        return [
            {
                "match": text.rpartition(":")[0],
                **blocks.get(text[-1], {"action_type": text[-3:]}),
                **({"exempt": False, "name": "other"} if ":(" in text else {}),  # what it would be without
            }
            for text in order
        ]

    for order in itertools.permutations(rules):
        if expected:
            assert codes(*build(order)) == expected
        else:
            RuleTable.from_mapping({"rule": build(order)})


def test_a_rule_is_called_by_its_name_or_by_what_it_is_for():
    made = RuleTable.from_mapping(
        {
            "rule": [
                {"endpoint": "e", "match": "POST /a", "action_type": "t"},
                {"endpoint": "e", "action_type": "t"},
                {"match": ["POST /b", "GET,PUT /c"], "action_type": "t"},
                {"match": "GET /d", "name": "mine", "action_type": "t"},
            ]
        }
    )
    assert [rule.label for rule in made.rules] == [
        "rule 1 (POST /a)",
        "rule 2 (endpoint e)",
        "rule 3 (POST /b)",
        "rule 3 (GET,PUT /c)",
        "mine",
    ]
    assert [rule.short_label for rule in made.rules] == ["rule 1", "rule 2", "rule 3", "rule 3", "mine"]
    unnamed, named = (declaration("shop.pay", {"action_type": "t", **more}) for more in ({}, {"name": "paying"}))
    assert (unnamed.label, named.label) == ("governed at shop.pay", "paying")
    rules = [made.for_route("/x", declared=[one]).select("GET", "/x") for one in (unnamed, named)]
    assert [(rule.label, rule.short_label) for rule in rules] == [
        ("governed at shop.pay", "at pay"),
        ("paying", "paying"),
    ]


def test_a_rule_names_the_parameters_that_it_cannot_do_without():
    rule = {"match": "GET /{b}/{a}/{c}", "action_type": "t", "resource": "{path.b}{path.a}{path.c?}{query.d}"}
    assert RuleTable.from_mapping({"rule": [rule]}).rules[0].path_names == ("a", "b")


def test_everything_that_a_rule_says_is_kept_as_it_was_written():
    said = {
        "name": "refund",
        "endpoint": "shop.refund",
        "action_type": "transaction",
        "resource": "refund {path.id}",
        "resource_id": "{path.id}",
        "tool_name": "refunds",
        "description": "by {header.x-who}",
        "details": {"amount": "body.amount"},
        "context": {"channel": {"const": "web"}},
        "risk_indicators": {"pii": True},
        "mcp_server_name": "shop",
        "model_id": 7,
        "orchestration_session_id": "{header.x-session?}",
        "parent_action_id": "{header.x-parent?}",
        "orchestration_depth": 2,
        "on_failure": "open",
        "mode": "observe",
        "body_limit": 9,
        "body_timeout": 3.0,
        "permit": ["dot-segment"],
    }
    (rule,) = RuleTable.from_mapping({"rule": [{"match": "POST /refunds/{id}", **said}]}).rules
    assert {name: rule.given[name] for name in said} == {**said, "permit": ("dot-segment",)}
    (silent,) = RuleTable.from_mapping({"rule": [{"match": "POST /x", "action_type": "t"}]}).rules
    limits = {"body_limit": 65_536, "body_timeout": 10.0, "permit": ()}
    assert {name: getattr(silent, name) for name in limits} == limits


def test_a_conflict_in_a_file_names_both_lines(tmp_path):
    file = tmp_path / "ascend.toml"
    rule = '[[rule]]\nmatch = "GET /a/{{{}}}"\nname = "{}"\n{}\n'
    file.write_text(rule.format("x", "first", 'action_type = "t"') + rule.format("y", "second", "exempt = true"))
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_toml(file)
    (problem,) = caught.value.problems
    assert problem.where == f"{file}: second at line 5"
    assert "matches first at line 1 as well" in problem.message
    assert "(rule 1)" not in problem.message


def test_a_conflict_shows_a_request_and_both_rules():
    [problem] = problems(
        {"match": "GET /a/{x}", "action_type": "one", "name": "first"}, {"match": "GET /a/{y}", "exempt": True}
    )
    assert "GET /a/1" in problem.message
    assert "first (rule 1)" in problem.message
    assert problem.where == "ascend.toml: rule 2 (GET /a/{y})"


OK = {"match": "POST /a/{x}", "action_type": "t"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"action_type": "t"}, ["missing"]),
        ({"match": "GET /a"}, ["missing"]),
        ({"match": "GET /a", "exempt": False}, ["missing"]),
        ({"match": [], "action_type": "t"}, ["bad-value"]),
        ({"match": 1, "action_type": "t"}, ["bad-value"]),
        ({"match": [1], "action_type": "t"}, ["bad-match"]),
        ({"match": ["GET /a", "GET /a/"], "action_type": "t"}, ["duplicate"]),
        (OK | {"exempt": True}, ["contradiction"]),
        (OK | {"block": "no"}, ["contradiction"]),
        ({"match": "GET /a", "exempt": True, "block": "no"}, ["contradiction"]),
        ({"match": "GET /a", "exempt": True, "on_failure": "open"}, ["contradiction"]),
        ({"match": "GET /a", "block": True}, ["bad-value"]),
        ({"match": "GET /a", "block": ""}, ["bad-value"]),
        ({"match": "GET /a", "exempt": "yes"}, ["bad-value"]),
        (OK | {"action_type": "{path.x}"}, ["bad-value"]),
        (OK | {"on_failure": "opne"}, ["bad-value"]),
        (OK | {"mode": "watch"}, ["bad-value"]),
        (OK | {"body_limit": -1}, ["bad-value"]),
        (OK | {"body_limit": True}, ["bad-value"]),
        (OK | {"body_timeout": 0}, ["bad-value"]),
        (OK | {"permit": "dots"}, ["bad-value"]),
        (OK | {"details": "body.x"}, ["bad-value"]),
        (OK | {"details": {"a": {"cnst": 1}}}, ["bad-source"]),
        (OK | {"details": {"a": float("nan")}}, ["bad-source"]),
        (OK | {"details": {"a": {"const": object()}}}, ["bad-source"]),
        (OK | {"details": {"a": "web"}}, ["bad-source"]),
        (OK | {"resource": "{bdy.x}"}, ["unknown-source"]),
        (OK | {"resource_id": "{path.y}"}, ["unknown-parameter"]),
        (OK | {"details": {"a": "path.y?"}}, ["unknown-parameter"]),
        (OK | {"details": {"a": "body.y", "b": "form.y"}}, ["contradiction"]),
        ({"match": "WEBSOCKET /a", "action_type": "t", "details": {"a": "body.y"}}, ["contradiction"]),
        ({"match": ["GET /a/{x}", "GET /b"], "action_type": "t", "resource": "{path.x}"}, ["unknown-parameter"]),
        ({"match": "GET /a/**", "action_type": "t", "resource": "{path.x}"}, ["unknown-parameter"]),
        ({"match": ["GET /a/**", "GET /b/**"], "action_type": "t", "details": {"x": "path.x"}}, ["unknown-parameter"]),
    ],
)
def test_a_wrong_rule_is_refused(rule, expected):
    assert codes(rule) == expected


@pytest.mark.parametrize(
    "rule",
    [
        {"match": ["GET /a/{x}", "GET /b"], "action_type": "t", "resource": "{path.x?}"},
        {"match": "GET /a/**", "action_type": "t", "resource": "{path.x?}"},
        {"match": "GET /**", "action_type": "t", "resource": "{path.x}"},
        {"endpoint": "e", "action_type": "t", "resource": "{path.x}"},
        {"match": "GET /a", "exempt": True, "permit": ["dot-segment"]},
        {"match": "GET /a", "block": "no", "mode": "observe"},
        {"match": "GET /a", "action_type": "t", "name": None},
    ],
)
def test_a_right_rule_is_accepted(rule):
    assert len(RuleTable.from_mapping({"rule": [rule]}).rules) >= 1


@pytest.mark.parametrize("rules", [OK, "GET /a", 1, None, {"mine": OK}])
def test_what_is_no_list_of_rules_is_refused_and_not_taken_for_none(rules):
    with pytest.raises(ConfigurationError, match="rule: expected a list of rules"):
        RuleTable.from_mapping({"rule": rules})


def test_rule_objects_and_tables_mean_the_same():
    rule = {"match": ("GET /a", "POST /a"), "action_type": "t", "details": {"a": "query.a"}, "body_limit": 0}
    assert RuleTable.from_rules([Rule(**rule)]).version == RuleTable.from_mapping({"rule": [rule]}).version


def test_a_rule_does_not_change_with_the_mapping_it_came_from():
    rule = {"match": "GET /a", "action_type": "t"}
    made = RuleTable.from_mapping({"rule": [rule]})
    rule["exempt"] = True
    assert not made.lookup("GET", "/a").exempt


def test_problems_of_a_large_table_are_found_without_comparing_every_pair():
    rules = [{"match": f"GET /r{i % 5000}/{{id}}", "action_type": f"t{i}"} for i in range(10_000)]
    assert len(problems(*rules)) == 5000
    rules = [{"match": "GET /same", "action_type": f"t{i}"} for i in range(3000)]
    assert len(problems(*rules)) == 2999


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"permit": ["encoded-slash"]}, "did you mean encoded-separator?"),
        ({"permit": ["nothing-such"]}, "known: "),
        ({"resource_id": "path.id"}, '"{path.id}"'),
        ({"resource": "body.customer.name?"}, '"{body.customer.name?}"'),
        ({"match": "GET /a/[0-9]+"}, "regular expression"),
        ({"match": "GET /a/^x"}, "regular expression"),
        ({"pending": "wait:5m"}, "at most 55"),
    ],
)
def test_values_that_say_something_else_than_was_meant_are_refused(rule, words):
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_mapping({"rule": [{"match": "GET /a/{id}", "action_type": "t", **rule}]})
    assert words in str(caught.value)


@pytest.mark.parametrize(("line", "hint"), [("on_failure = open", "quotes"), ("exempt = True", "write true")])
def test_a_file_that_is_no_toml_is_told_with_the_line_and_what_is_usual(tmp_path, line, hint):
    path = tmp_path / "ascend.toml"
    path.write_text(f'[[rule]]\nmatch = "GET /a"\n{line}\n')
    with pytest.raises(ConfigurationError) as caught:
        RuleTable.from_toml(path)
    assert "line 3" in str(caught.value) and line in str(caught.value) and hint in str(caught.value)


def test_a_file_that_is_no_utf_8_is_told(tmp_path):
    file = tmp_path / "ascend.toml"
    file.write_bytes(b'[[rule]]\nmatch = "GET /caf\xe9"\naction_type = "a"\n')
    with pytest.raises(ConfigurationError, match="ascend.toml: .*utf-8.* 0xe9") as caught:
        RuleTable.from_toml(file)
    assert [problem.code for problem in caught.value.problems] == ["rules.not-toml"]


def test_a_resource_that_comes_out_blank_is_the_requests_fault():
    table = RuleTable.from_mapping({"rule": [{"match": "GET /a", "action_type": "t", "resource": "{query.x?}"}]})
    fields = RequestFields(method="GET", template="/a", query=[("x", " ")])
    with pytest.raises(FieldError, match="resource comes out blank"):
        table.rules[0].action(fields, agent_id="a", agent_name="a")
