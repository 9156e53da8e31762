"""What the listing says of an application is what its guard does."""

import json
import tomllib
from pathlib import Path

import pytest
from kit.processes import python
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from ascend_middleware.asgi import governed
from ascend_middleware.cli import main
from ascend_middleware.routing import Kind, Leaf
from ascend_middleware.routing.coverage import Standing, as_json, as_text, cover
from ascend_middleware.routing.starlette import StarletteResolver
from ascend_middleware.routing.suggestion import suggest
from ascend_middleware.rules import RuleTable

APPS = Path(__file__).parents[1] / "apps"


class Leaves:
    def __init__(self, *leaves):
        self._leaves = leaves

    def leaves(self):
        return self._leaves


def route(template, *methods, **more):
    return Leaf(kind=more.pop("kind", Kind.ROUTE), template=template, methods=frozenset(methods) or None, **more)


def covered(rules, *leaves, unmapped="refuse", **ascend):
    table = RuleTable.from_mapping({"ascend": ascend, "rule": rules})
    return cover(Leaves(*leaves), table, unmapped=unmapped)


def rows(coverage):
    return [
        (" ".join((",".join(map(str, row.methods)), row.leaf.template, row.part)).rstrip(), str(row.standing))
        for row in coverage.rows
    ]


def whys(coverage):
    return {one.rule.match if one.rule.endpoint is None else one.rule.endpoint: one.why for one in coverage.idle}


ACTION = {"action_type": "a"}


# --- rows


def test_every_method_of_a_route_has_its_standing():
    coverage = covered(
        [
            {"match": "GET /x", **ACTION},
            {"match": "PUT /x", "exempt": True},
            {"match": "DELETE /x", "block": "no"},
        ],
        route("/x", "GET", "HEAD", "PUT", "POST", "DELETE"),
    )
    assert rows(coverage) == [
        ("GET,HEAD /x", "governed"),
        ("POST /x", "unmapped"),
        ("PUT /x", "exempt"),
        ("DELETE /x", "blocked"),
    ]
    assert [leaf.template for leaf in coverage.partly] == ["/x"]
    assert coverage.idle == coverage.problems == ()


def test_handshakes_and_routes_of_any_method():
    rules = [{"match": "WEBSOCKET /ws", **ACTION}, {"match": "GET /any", **ACTION}, {"match": "* /all", **ACTION}]
    coverage = covered(rules, route("/ws", websocket=True), route("/any"), route("/all"), route("/no", websocket=True))
    assert rows(coverage) == [
        ("WEBSOCKET /ws", "governed"),
        ("GET,HEAD /any", "governed"),
        ("others /any", "unmapped"),
        ("* /all", "governed"),
        ("WEBSOCKET /no", "unmapped"),
    ]


def test_a_route_of_which_only_some_paths_are_covered():
    rules = [{"match": "GET /files/public/**", "exempt": True}, {"match": "* /files/secret/**", "block": "no"}]
    coverage = covered(rules, route("/files/{p:path}", "GET"))
    assert rows(coverage) == [
        ("GET /files/{p:path} /files/secret/**", "blocked"),
        ("GET /files/{p:path} /files/public/**", "exempt"),
        ("GET /files/{p:path} elsewhere", "unmapped"),
    ]
    assert len(coverage.partly) == 1


def test_a_foreign_application_is_one_unit():
    rules = [{"match": "GET /legacy/x", "exempt": True}, {"match": "POST /legacy/**", **ACTION}]
    coverage = covered(rules, route("/legacy/**", kind=Kind.OPAQUE))
    assert rows(coverage) == [
        ("POST /legacy/**", "governed"),
        ("others /legacy/**", "unmapped"),
    ]
    assert "one unit" in whys(coverage)["GET /legacy/x"]


def test_by_method_is_no_gap():
    coverage = covered([{"match": "PUT /x", **ACTION}], route("/x", "GET", "POST"), unmapped="by-method")
    assert [(row.standing, row.rule.action_type) for row in coverage.rows] == [
        (Standing.BY_METHOD, "data_access"),
        (Standing.BY_METHOD, "data_modification"),
    ]
    assert coverage.unmapped == ()


def test_rules_of_the_handler_are_listed_and_contradictions_are_problems():
    @governed(action_type="declared")
    async def one(request):
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/one", one, name="one"), Route("/two", one, name="two")])
    table = RuleTable.from_mapping({"rule": [{"endpoint": "two", "action_type": "other"}]})
    coverage = cover(StarletteResolver(app), table)
    assert rows(coverage) == [("GET,HEAD /one", "governed"), ("GET,HEAD /two", "conflict")]
    assert [problem.code for problem in coverage.problems] == ["rules.conflict"]
    assert coverage.rows[0].rule.label.endswith(
        "test_rules_of_the_handler_are_listed_and_contradictions_are_problems.<locals>.one"
    )


def test_what_a_rule_cannot_read_is_a_problem():
    rules = [
        {"endpoint": "e", "action_type": "a", "resource_id": "{path.customer}"},
        {"match": "* /ws", "action_type": "a", "details": {"x": "body.x"}},
        {"match": "* /rest/**", "action_type": "a", "details": {"x": "path.y?"}},
    ]
    leaves = [route("/c/{id}", "GET", endpoint="e"), route("/ws", websocket=True), route("/rest/{p:path}", "GET")]
    assert [problem.code for problem in covered(rules, *leaves).problems] == [
        "routes.unknown-parameter",
        "routes.no-body",
    ]


@pytest.mark.parametrize(
    ("template", "name", "hint"),
    [
        ("/c/{customer}", "customer", None),
        ("/c/{customer:int}", "customer", None),
        ("/c/{a}-{customer}.txt", "customer", None),
        ("/{regex:~c/(?P<customer>x)}", "customer", None),
        ("/c/{customer_id}", "customer", "known: customer_id"),
        ("/c/{z}/{a}", "customer", "known: a, z"),
        ("/c/{a}-{customer_id}.txt", "customer", "it has no parameters"),
        ("/{regex:~c/(?P<customer_id>x)}", "customer", "known: regex"),
        ("/customer", "customer", "it has no parameters"),
    ],
)
def test_a_parameter_is_the_route_s_own_by_its_whole_name(template, name, hint):
    rules = [{"endpoint": "e", "action_type": "a", "details": {"x": f"path.{name}"}}]
    found = covered(rules, route(template, "GET", endpoint="e")).problems
    assert [problem.hint for problem in found] == ([] if hint is None else [hint])


# --- rules that match nothing


def test_why_a_rule_can_never_match():
    rules = [
        {"match": "GET /custmers/{id}", **ACTION},
        {"match": "PUT /customers/{id}", **ACTION},
        {"match": "GET /customers/**", **ACTION},
        {"match": "GET /customers/{id}", **ACTION},
        {"endpoint": "reed", **ACTION},
    ]
    coverage = covered(rules, route("/customers/{id}", "GET", endpoint="read"))
    assert whys(coverage) == {
        "GET /custmers/{id}": "no route has this template; did you mean /customers/{id}?",
        "PUT /customers/{id}": "/customers/{id} takes GET only",
        "GET /customers/**": "every route that it matches has a more specific rule",
        "reed": "no route has this endpoint; did you mean read?",
    }


# --- as text, as JSON, as rules to start from


def test_a_long_template_stands_on_a_line_of_its_own():
    long = "/a" + "".join(f"/{{parameter_{number}}}" for number in range(12))
    text = as_text(
        covered([{"match": f"GET {long}", **ACTION}], route(long, "GET"), route("/b", "GET")),
        width=80,
    )
    lines = text.partition("\n\n")[0].split("\n")
    assert lines[1] == f"GET      {long}"
    assert all(len(line) <= 80 for line in lines if long not in line)


MIXED = [
    {"match": "GET /a", "name": "reading", "action_type": "read", "cache": "30s", "coalesce": True, "mode": "observe"},
    {"match": "POST /a", "action_type": "write", "on_failure": "open", "pending": "wait:30s"},
    {"match": "* /files/secret/**", "block": "no"},
    {"match": "GET /files/public/**", "exempt": True},
    {"match": "POST /legacy/**", **ACTION},
    {"match": "GET /nowhere", **ACTION},
]


def mixed(**more):
    return covered(
        MIXED,
        route("/a", "GET", "HEAD", "POST", "PURGE", "BAN"),
        route("/files/{p:path}", "GET", host="x.example"),
        route("/legacy/**", kind=Kind.OPAQUE, endpoint="old"),
        route("/" + "long/" * 9 + "{name}", "PUT", "DELETE"),
        **more,
    )


def test_the_whole_listing():
    text = as_text(mixed(), width=92)
    assert text.split("\n") == [
        "METHODS     ROUTE                     GOVERNED AS                             FAILURE  PENDING   RULE",
        "GET,HEAD    /a                        read (observed, cached 30s, coalesced)  closed   refuse    reading",
        "POST        /a                        write                                   open     wait:30s  rule 2",
        "BAN,PURGE   /a                        UNMAPPED",
        "GET         x.example/files/{p:path} at /files/secret/**",
        "                                      blocked                                                    rule 3",
        "GET         x.example/files/{p:path} at /files/public/**",
        "                                      exempt                                                     rule 4",
        "GET         x.example/files/{p:path} elsewhere",
        "                                      UNMAPPED",
        "POST        /legacy/** (one unit)     a                                       closed   refuse    rule 5",
        "others      /legacy/** (one unit)     UNMAPPED",
        "PUT,DELETE  /long/long/long/long/long/long/long/long/long/{name}",
        "                                      UNMAPPED",
        "",
        "4 routes; with their methods: 4 governed, 1 exempt, 1 blocked, 6 unmapped.",
        "",
        "No rule covers these; requests for them are refused (403). --suggest writes rules to start from:",
        "  BAN,PURGE /a",
        "  GET x.example/files/{p:path} elsewhere",
        "  others /legacy/** (one unit)",
        "  PUT,DELETE /long/long/long/long/long/long/long/long/long/{name}",
        "",
        "Only partly covered, some methods or paths have a rule and others none:",
        "  /a",
        "  x.example/files/{p:path}",
        "  /legacy/**",
        "",
        "Rules that can never match:",
        "  rule 6 (GET /nowhere): no route has this template",
        "",
    ]


def test_by_method_stands_in_the_listing():
    lines = as_text(mixed(unmapped="by-method"), width=200, unmapped="by-method").split("\n")
    assert [line.split()[-2:] for line in lines if "data_" in line] == [["by", "method"]] * 5
    assert 'unmapped = "by-method": what no rule covers is submitted by its method.' in lines
    assert not any("No rule covers" in line or "partly" in line for line in lines)


def test_one_route_is_one_route():
    assert "\n1 route; with their methods: 1 unmapped.\n" in as_text(covered([], route("/a", "GET")), width=80)
    assert "\n0 routes; with their methods: none.\n" in as_text(covered([]), width=80)


def test_the_whole_listing_as_json():
    found = as_json(mixed())
    assert [(one["method"], one["route"], one["part"], one["standing"], one["rule"]) for one in found["routes"]][
        5:9
    ] == [
        ("GET", "/files/{p:path}", "/files/secret/**", "blocked", "rule 3 (* /files/secret/**)"),
        ("GET", "/files/{p:path}", "/files/public/**", "exempt", "rule 4 (GET /files/public/**)"),
        ("GET", "/files/{p:path}", "elsewhere", "unmapped", None),
        ("POST", "/legacy/**", None, "governed", "rule 5 (POST /legacy/**)"),
    ]
    assert found["routes"][0] == {
        "method": "GET", "route": "/a", "host": None, "endpoint": None, "kind": "route", "part": None,
        "standing": "governed", "rule": "reading", "action_type": "read", "on_failure": "closed", "pending": "refuse",
        "mode": "observe", "cache": "30s", "coalesce": True, "block": None,
    }  # fmt: skip
    blocked = found["routes"][5]
    assert (blocked["host"], blocked["block"], blocked["action_type"], blocked["coalesce"]) == (
        "x.example",
        "no",
        None,
        None,
    )
    assert found["routes"][8]["endpoint"] == "old"
    assert found["partly_covered"] == ["/a", "/files/{p:path}", "/legacy/**"]
    assert found["idle_rules"] == [{"rule": "rule 6 (GET /nowhere)", "why": "no route has this template"}]
    counts = {"routes": 4, "governed": 4, "exempt": 1, "blocked": 1, "unmapped": 6, "conflict": 0, "by-method": 0}
    assert found["summary"] == counts


def test_only_what_is_covered_in_part_is_covered_partly():
    rules = [{"match": "GET /whole", **ACTION}, {"match": "GET /part", **ACTION}]
    leaves = route("/whole", "GET"), route("/part", "GET", "POST"), route("/bare", "GET")
    assert [leaf.template for leaf in covered(rules, *leaves).partly] == ["/part"]


def test_what_only_a_router_knows_is_no_problem():
    rules = [{"endpoint": "e", "action_type": "a", "resource_id": "{path.customer}"}]
    assert covered(rules, route("/mounted/**", kind=Kind.OPAQUE, endpoint="e")).problems == ()
    ((problem,),) = [covered(rules, route("/a/{b}", "GET", endpoint="e")).problems]
    assert str(problem) == (
        "rule 1 (endpoint e): route /a/{b}: path.customer is not in the route's template (known: b)"
    )


def test_what_fits_stands_on_one_line():
    text = as_text(
        covered([{"match": "GET /long-one", **ACTION}], route("/long-one", "GET"), route("/b", "GET")), width=100
    )
    assert [line.split() for line in text.splitlines()[1:3]] == [
        ["GET", "/long-one", "a", "closed", "refuse", "rule", "1"],
        ["GET", "/b", "UNMAPPED"],
    ]


def test_a_route_moves_to_a_line_of_its_own_where_the_width_ends():
    # METHODS, ROUTE, GOVERNED AS, FAILURE, PENDING, RULE: each as wide as its widest word, with two blanks between.
    others = 7 + 11 + 7 + 7 + 6 + 5 * 2
    for length, alone in ((30, False), (31, True)):
        long = "/" + "x" * (length - 1)
        coverage = covered([{"match": f"GET {long}", **ACTION}], route(long, "GET"), route("/b", "GET"))
        lines = as_text(coverage, width=others + 30).splitlines()
        assert (lines[1] == f"GET      {long}") is alone
        assert max(len(line) for line in lines[:4]) <= others + 30


def test_a_rule_goes_by_its_name_where_it_has_one():
    rule = {"match": "GET /one", "name": "reading", **ACTION}
    text = as_text(
        covered([rule, {"match": "GET /two", **ACTION}], route("/one", "GET"), route("/two", "GET")), width=100
    )
    assert [line.split()[5:] for line in text.splitlines()[1:3]] == [["reading"], ["rule", "2"]]


@pytest.mark.parametrize(("given", "label"), [({"name": "reading"}, "  reading"), ({}, "  at one")])
def test_a_rule_at_a_handler_goes_by_its_name_or_else_by_the_handler(given, label):
    @governed(action_type="read", **given)
    async def one(request):
        return PlainTextResponse("")

    text = as_text(
        cover(StarletteResolver(Starlette(routes=[Route("/one", one)])), RuleTable.from_rules([])), width=100
    )
    assert text.splitlines()[1].endswith(label)


SUGGESTED = [
    (
        "/customers/{customer_id}",
        ("GET", "HEAD"),
        'match = "GET /customers/{customer_id}"\naction_type = "data_access"\nresource_id = "{path.customer_id}"',
    ),
    ("/customers/{c}/refunds", ("POST",), 'action_type = "transaction"'),
    ("/emails", ("POST",), 'action_type = "communication"'),
    ("/admin/restart", ("POST",), 'action_type = "system_operation"'),
    ("/things", ("PUT",), 'action_type = "data_modification"'),
    ("/healthz", ("GET", "HEAD"), 'match = "GET /healthz"\nexempt = true'),
    ("/health", ("POST",), 'action_type = "data_modification"'),
]


@pytest.mark.parametrize(("template", "methods", "expected"), SUGGESTED)
def test_guesses(template, methods, expected):
    text = suggest(covered([], route(template, *methods)).unmapped, agent_id="x")
    assert expected in text


def test_a_group_of_a_pattern_that_could_not_be_read_may_have_no_value():
    one = route("/{regex:~^(?P<year>\\d*)/(?P<name>x)?$}", "GET", endpoint="e")
    text = suggest(covered([], one).unmapped, agent_id="x")
    assert 'details = { year = "path.year?", name = "path.name?" }' in text
    assert "resource_id" not in text and "regex" not in text


def test_what_is_suggested_for_routes_of_every_kind():
    rules = [
        {"match": "GET /any/{x}", "name": "reading", **ACTION},
        {"match": "GET /files/public/**", "exempt": True},
        {"match": "GET /pair/{y}", **ACTION},
    ]
    leaves = [
        route("/a/{x}/b/{y}", "GET", "HEAD", "POST", "PUT"),
        route("/a/{z}/b/{y}", "DELETE"),
        route("/pair/{y}", "GET", "DELETE", endpoint="pair"),
        route("/any/{x}", endpoint="any"),
        route("/every/{größe}", endpoint="every"),
        route("/legacy/**", kind=Kind.OPAQUE),
        route("/static/**", "GET", "HEAD", kind=Kind.STATIC),
        route("/files/{p:path}", "GET", "POST"),
        route("/ws/{room}", websocket=True),
        route("/healthz", "GET", "POST"),
    ]
    coverage = covered(rules, *leaves)
    text = suggest(coverage.unmapped, agent_id="ü", standing=coverage.rows)
    assert (
        text.partition("this program does not.\n")[2]
        == """
[ascend]
agent_id = "ü"

# '/files/{p:path}' has rules for a part of its paths only; write one for the others

[[rule]]
match = "GET /a/{x}/b/{y}"
action_type = "data_access"
resource_id = "{path.y}"
details = { x = "path.x?" }

[[rule]]
match = "POST,PUT /a/{x}/b/{y}"
action_type = "data_modification"
resource_id = "{path.y}"
details = { x = "path.x?" }

[[rule]]
match = "DELETE /a/{z}/b/{y}"
action_type = "data_modification"
resource_id = "{path.y}"
details = { z = "path.z?" }

[[rule]]
match = "DELETE /pair/{y}"
action_type = "data_modification"
resource_id = "{path.y}"

[[rule]]
match = "* /any/{x}"
action_type = "data_modification"
resource_id = "{path.x}"

[[rule]]
match = "* /every/{größe}"
action_type = "data_modification"
resource_id = "{path.größe}"

[[rule]]
match = "* /legacy/**"
# a foreign application, one unit: whatever a path runs in there
action_type = "data_modification"

[[rule]]
match = "GET /static/**"
exempt = true

[[rule]]
match = "POST /files/public/**"
action_type = "data_modification"

[[rule]]
match = "WEBSOCKET /ws/{room}"
action_type = "data_modification"
resource_id = "{path.room}"

[[rule]]
match = "GET /healthz"
exempt = true

[[rule]]
match = "POST /healthz"
action_type = "data_modification"
"""
    )


def test_a_rule_for_an_endpoint_is_suggested_where_no_template_can_be_written():
    rules = [
        {"endpoint": "pair", "match": "PUT /**", "name": "single", **ACTION},
        {"endpoint": "other", "name": "not this", **ACTION},
    ]
    leaves = [
        route("/pair/{y}/{year}", "GET", "HEAD", "PUT", endpoint="pair"),
        route("/{regex:~^p/(?P<year>\\d*)/(?P<größe>x)$}", "GET", "DELETE", endpoint="pair"),
        route("/{regex:~^q$}", "GET"),
        route("/{regex:~^s$}", endpoint="any"),
        route("/else", "GET", endpoint="other"),
    ]
    coverage = covered(rules, *leaves)
    text = suggest(coverage.unmapped, agent_id=None, standing=coverage.rows)
    assert (
        text.partition("this program does not.\n")[2]
        == """
# '/{regex:~^q$}': its template cannot be written in a rule, and it has no name

# takes the place of single at 'pair'

[[rule]]
endpoint = "pair"
match = "GET /**"
action_type = "data_access"
details = { y = "path.y?", year = "path.year?", "größe" = "path.größe?" }

[[rule]]
endpoint = "pair"
match = "DELETE /**"
action_type = "data_modification"
details = { y = "path.y?", year = "path.year?", "größe" = "path.größe?" }

[[rule]]
endpoint = "any"
action_type = "data_modification"
"""
    )


def test_what_is_suggested_passes_the_check_and_leaves_nothing_unmapped(tmp_path):
    leaves = [
        route("/a/{x}", "GET", "POST"),
        route("/a/{y:int}", "GET"),
        route("/a/{z}", "GET", "DELETE"),
        route("/float/{n:float}/x", "GET"),
        route("/mixed/{a}-{b}", "GET", endpoint='odd "name"'),
        route("/{odd:regex}/x", "GET", endpoint="regex"),
        route("/{odd:regex}/y", "GET"),
        route("/ws/{room}", websocket=True),
        route("/static/**", kind=Kind.STATIC),
        route("/legacy/**", kind=Kind.OPAQUE),
        *(route(template, *methods) for template, methods, _ in SUGGESTED),
    ]
    text = suggest(covered([], *leaves).unmapped, agent_id='my "agent"')
    file = tmp_path / "ascend.toml"
    file.write_text(text)
    assert main(["check", str(file)]) == 0
    table = RuleTable.from_toml(file)
    assert {row.leaf.template for row in cover(Leaves(*leaves), table).unmapped} == {"/{odd:regex}/y"}
    assert "'/{odd:regex}/y'" in text
    assert not cover(Leaves(*leaves), table).problems
    assert tomllib.loads(text)["ascend"]["agent_id"] == 'my "agent"'


def test_what_is_suggested_for_a_partly_covered_application_fits_its_table():
    rules = [{"match": "GET /x", **ACTION}, {"match": "GET /files/public/**", "exempt": True}]
    leaves = [route("/x", "GET", "POST"), route("/files/{p:path}", "GET", "PUT")]
    text = suggest(covered(rules, *leaves).unmapped, agent_id=None)
    both = rules + tomllib.loads(text)["rule"]
    left = [(row.methods, row.part) for row in covered(both, *leaves).unmapped]
    assert left == [(("GET", "PUT"), "elsewhere")]
    assert "write one for the others" in text


def test_what_is_suggested_for_a_part_of_the_paths_names_what_a_rule_for_the_part_may_name():
    rules = [{"match": f"POST {part}", **ACTION} for part in ("/files/public/**", "/files/secret/{p}")]
    leaf = route("/files/{p:path}", "GET", "POST")
    text = suggest(covered(rules, leaf).unmapped, agent_id=None)
    assert tomllib.loads(text)["rule"] == [
        {"match": "GET /files/public/**", "action_type": "data_access"},
        {"match": "GET /files/secret/{p}", "action_type": "data_access", "resource_id": "{path.p}"},
    ]
    assert covered(rules + tomllib.loads(text)["rule"], leaf).problems == ()


# --- the command


def listed(capsys, *args):
    code = main(["routes", *args, "--app-dir", str(APPS)])
    return code, capsys.readouterr()


def test_the_command_lists_everything_live(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out = listed(capsys, "asgi_shop:app")
    assert code == 0
    for line in (
        "GET            /health                    exempt",
        "POST           /customers/{customer_id}/refunds",
        "WEBSOCKET      /live                      live_feed          closed   wait:20s  rule 7",
        "GET            /api/v1/reports/{year:int}/a-report-with-a-rather-long-name/{month}/of/{department}/as/{form}",
        "       /things/{name}             of-a-class         closed   wait:20s  at Thing",
        "POST           /legacy/** (one unit)      legacy (observed)",
        "GET,HEAD,POST  /sub/deep/page             UNMAPPED",
        "GET,HEAD       admin.example/panel        UNMAPPED",
        "  rule 10 (endpoint reed): no route has this endpoint; did you mean read?",
    ):
        assert line in out.out
    table = out.out.partition("\n\n")[0]
    assert max(len(line) for line in table.splitlines() if "a-report-with" not in line) <= 100
    assert out.err == ""


def test_it_fails_in_ci_where_something_is_not_covered(capsys, tmp_path):
    assert listed(capsys, "asgi_shop", "--fail-unmapped")[0] == 1
    (tmp_path / "all.toml").write_text('[[rule]]\nmatch = "* /**"\naction_type = "any"\n')
    assert listed(capsys, "asgi_shop", "--fail-unmapped", "--rules", str(tmp_path / "all.toml"))[0] == 0


def test_json_has_an_entry_for_each_route_and_method(capsys):
    code, out = listed(capsys, "asgi_shop:wrapped()", "--json")
    found = json.loads(out.out)
    assert (code, found["guarded"], found["framework"]) == (0, True, "FastAPI")
    refund = next(one for one in found["routes"] if one["route"].endswith("/refunds"))
    assert refund == {
        "method": "POST",
        "route": "/customers/{customer_id}/refunds",
        "host": None,
        "endpoint": "refund",
        "kind": "route",
        "part": None,
        "standing": "governed",
        "rule": "refunds",
        "action_type": "transaction",
        "on_failure": "open",
        "pending": "wait:20s",
        "mode": "enforce",
        "cache": None,
        "coalesce": False,
        "block": None,
    }
    assert found["summary"]["unmapped"] == sum(one["standing"] == "unmapped" for one in found["routes"])


def test_an_application_without_a_guard_is_said_to_have_none(capsys, tmp_path):
    code, out = listed(capsys, "asgi_shop:bare()", "--fail-unmapped")
    assert code == 1
    assert "has no guard" in out.err
    code, out = listed(capsys, "asgi_shop:bare()", "--suggest")
    (tmp_path / "ascend.toml").write_text(out.out)
    code, out = listed(capsys, "asgi_shop:bare()", "--json", "--rules", str(tmp_path / "ascend.toml"))
    assert json.loads(out.out)["summary"]["unmapped"] == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module", "cannot be imported"),
        ("asgi_shop:nothing", "cannot be loaded"),
        ("json", "has no app"),
        ("asgi_shop:wsgi", "no application of a framework"),
    ],
)
def test_what_cannot_be_listed_is_said(capsys, name, says):
    code, out = listed(capsys, name)
    assert code == 2
    assert says in out.err


def test_the_command_runs_as_a_process(tmp_path):
    (tmp_path / "app.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    done = python("-m", "ascend_middleware.cli", "routes", "app", cwd=tmp_path)
    assert done.returncode == 0
    assert "/openapi.json" in done.stdout
    assert "has no guard" in done.stderr


# --- what the listing says is what the guard does


def test_parts_and_select_agree():
    table = RuleTable.from_mapping(
        {
            "rule": [
                {"match": "GET /f/a/**", **ACTION},
                {"match": "GET /f/a/b", "exempt": True},
                {"match": "* /f/a/c", "block": "no"},
                {"match": "POST /f/**", "action_type": "post"},
            ]
        }
    )
    rules = table.for_route("/f/a/{p:path}")
    for method in ("GET", "POST", "PUT", "HEAD"):
        parts = list(rules.parts(method))
        assert [part.covers for part in parts] == [False] * (len(parts) - 1) + [True]
        for path in ("/f/a/b", "/f/a/c", "/f/a/x/y", "/f/a"):
            expected = next(part.rule for part in parts if part.covers or _matches(part.template, path))
            assert rules.select(method, path) is expected


def _matches(template, path):
    from ascend_middleware.rules import parse_match

    return parse_match(f"GET {template}")[1].matches(path)


def test_a_rule_for_the_root_never_stands_for_a_foreign_application():
    table = RuleTable.from_mapping({"rule": [{"match": "GET /", "exempt": True}, {"match": "GET /danger", **ACTION}]})
    rules = table.for_route("/**")
    assert rules.select("GET", "/danger", whole=True) is None
    assert rules.select("GET", "/", whole=True) is None
    blocked = RuleTable.from_mapping({"rule": [{"match": "* /danger", "block": "no"}, {"match": "* /**", **ACTION}]})
    rules = blocked.for_route("/**")
    assert rules.select("GET", "/danger", whole=True).block == "no"
    assert rules.select("GET", "/x", whole=True).action_type == "a"


def test_a_mounted_router_and_sockets_are_listed_with_their_prefix():
    async def run(value):
        pass

    app = Starlette(routes=[Mount("/m", routes=[Route("/x", run), WebSocketRoute("/ws", run)])])
    assert as_json(cover(StarletteResolver(app), RuleTable.from_rules([])))["summary"]["unmapped"] == 3


def test_an_endpoint_class_runs_the_methods_that_it_has_a_function_for():
    class Plain(HTTPEndpoint):
        async def get(self, request): ...

        async def put(self, request): ...

    class Own(Plain):
        async def dispatch(self): ...

    leaves = StarletteResolver(Starlette(routes=[Route("/plain", Plain), Route("/own", Own)])).leaves()
    newer = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names
    assert [leaf.methods for leaf in leaves] == [frozenset({"GET", "HEAD", "PUT"}) if newer else None, None]


def test_a_guard_around_flask_goes_by_paths(capsys):
    code, out = listed(capsys, "wsgi_shop:application", "--json")
    found = json.loads(out.out)
    assert (code, found["framework"], found["guarded"]) == (0, "Flask", True)
    assert "has its guard around it: paths decide" in out.err
    standing = {(one["method"], one["route"]): one["standing"] for one in found["routes"]}
    assert standing["GET", "/named"] == "unmapped"
    assert standing["GET", "/items/{number:int}"] == "governed"
    assert [one["rule"] for one in found["idle_rules"]] == ["rule 2 (endpoint named)"]
    assert main(["explain", "wsgi_shop:application", "GET /named", "--app-dir", str(APPS), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "unmapped-route"
