"""Requests that mean one thing to the guard and another to a handler, at every adapter."""

import asyncio
import json

import pytest
from fastapi import FastAPI
from kit.apps import EVERY, ON_ASGI, Flask, PlainASGI, PlainWSGI
from kit.asgi import JSON, get, inside
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.exceptions import ConfigurationError

PAY = {"match": "* /pay", "action_type": "pay", "details": {"amount": "body.amount"}}


def amount(value):
    return json.dumps({"amount": value}).encode()


@pytest.fixture(params=EVERY, ids=lambda party: party.__name__)
def party(request, ascend_authority):
    ascend_authority.approve()
    return request.param


def finding(problem):
    return problem and problem["type"].rpartition(":")[2], problem and problem.get("findings")


# A handshake is no method


def test_a_method_called_websocket_is_no_handshake(party, ran):
    site = party([{"match": "WEBSOCKET /pay", "exempt": True}], ran)
    status, problem = site.ask("WEBSOCKET", "/pay", headers=JSON, body=amount(1))
    assert (status, finding(problem)[0], ran) == (403, "unmapped-route", [])


def test_the_body_of_a_method_called_websocket_is_read(party, ran, ascend_authority):
    site = party([PAY], ran)
    assert site.ask("WEBSOCKET", "/pay", headers=JSON, body=amount(9999))[0] == 200
    action = ascend_authority.asked[-1].body
    # What the authority reads tells it from a handshake, too.
    assert (action["action_details"], action["resource"]) == ({"amount": 9999}, f"HTTP WEBSOCKET {site.template}")
    assert ran == [("WEBSOCKET", "/pay", amount(9999))]


def test_an_approval_binds_the_body_of_a_method_called_websocket(party, ran, ascend_authority):
    site = party([{"match": "* /pay", "action_type": "pay"}], ran)
    ascend_authority.hold()
    handle = site.ask("WEBSOCKET", "/pay", headers=JSON, body=amount(1))[1]["approval"]["handle"]
    ascend_authority.decide()
    given = (*JSON, ("ascend-approval", handle))
    status, problem = site.ask("WEBSOCKET", "/pay", headers=given, body=amount(9999))
    assert (status, finding(problem)[0], ran) == (409, "approval-mismatch", [])
    assert site.ask("WEBSOCKET", "/pay", headers=given, body=amount(1))[0] == 200


# Names of headers

SPELLINGS = [
    lambda name: name,
    lambda name: name.replace("-", "_"),
    lambda name: name.replace("-", "_", 1),
    lambda name: "_".join(name.rsplit("-", 1)),
    str.title,
    lambda name: name.upper().replace("-", "_", 1),
]


OVERRIDES = {
    "x-http-method-override": "method-override",
    "x-http-method": "method-override",
    "x-method-override": "method-override",
    "x-original-url": "path-override",
    "x-rewrite-url": "path-override",
    "x-original-uri": "path-override",
}


def test_a_header_that_asks_for_something_else_is_refused_however_it_is_spelt(party, ran):
    site = party([PAY], ran)
    for name, found in OVERRIDES.items():
        for spell in SPELLINGS:
            status, problem = site.ask("POST", "/pay", headers=(*JSON, (spell(name), "DELETE")), body=amount(1))
            assert (status, finding(problem), ran) == (400, ("bad-request", [found]), []), spell(name)


def one_spelling(site, ran, name, twin):
    """Two spellings of one name are refused, and one of them is taken."""
    for headers in (((name, "a"), (twin, "b")), ((twin, "b"), (name, "a"))):
        status, problem = site.ask("POST", "/pay", headers=(*JSON, *headers), body=amount(1))
        assert (status, finding(problem)[0], ran) == (400, "bad-request", []), headers
    assert site.ask("POST", "/pay", headers=(*JSON, (name.title(), "a")), body=amount(1))[0] == 200


@pytest.mark.parametrize("twin", ["x_agent-id", "X_AGENT_ID", "x-agent_id"])
def test_an_agent_is_named_once_in_one_spelling(party, ran, ascend_authority, twin):
    one_spelling(party([PAY], ran, agent_header="x-agent-id"), ran, "x-agent-id", twin)
    assert ascend_authority.asked[-1].body["agent_id"] == "a"


def ask_as(party, ran, name, value):
    site = party([PAY], ran, agent_header="x-agent-id")
    status, problem = site.ask("POST", "/pay", headers=(*JSON, (name, value)), body=amount(1))
    return status, finding(problem)[0], ran


@pytest.mark.parametrize("name", ["x_agent_id", "x_agent-id"])
@pytest.mark.parametrize("party", ON_ASGI)
def test_a_lone_second_spelling_names_nobody(ascend_authority, ran, party, name):
    """Where names come as they were sent; an environ has lost the difference."""
    ascend_authority.approve()
    assert ask_as(party, ran, name, "b") == (400, "bad-request", [])


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_agent_is_nobody(party, ran, value):
    assert ask_as(party, ran, "x-agent-id", value) == (400, "bad-request", [])


@pytest.mark.parametrize("twin", ["x_tenant-id", "X_Tenant_Id", "x-tenant_id"])
@pytest.mark.parametrize("party", ON_ASGI)
def test_a_field_of_a_header_has_one_spelling(ascend_authority, party, ran, twin):
    ascend_authority.approve()
    rule = {"match": "POST /pay", "action_type": "pay", "details": {"tenant": "header.x-tenant-id"}}
    one_spelling(party([rule], ran), ran, "x-tenant-id", twin)


# Queries


@pytest.mark.parametrize("query", [b"a=%E9", b"a=\xc3\xa9", b"a=\xe9", b"&".join([b"a=1"] * 1100), b"%", b"a;b=%zz"])
def test_a_query_that_nobody_reads_may_be_written_as_it_likes(party, ran, query):
    if "WSGIBelowASGI" in party.__name__ or party.__name__ == "GuardBelowASGI":
        query = query if query.isascii() else b"a=%E9"  # the adapter takes nothing else
    site = party([PAY], ran)
    assert site.ask("POST", "/pay", headers=JSON, body=amount(1), query=query)[0] == 200
    site = party([{**PAY, "details": {"amount": "query.a?"}}], ran)
    status, problem = site.ask("POST", "/pay", headers=JSON, body=amount(1), query=query)
    readable = query in (b"%", b"a;b=%zz")
    assert (status, finding(problem)[0]) == ((200, None) if readable else (400, "bad-request"))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (b"a=%E9", "the query is not UTF-8"),
        (b"a=\xe9", "the query holds other bytes than ASCII, unescaped"),
        (b"&".join([b"a=1"] * 1001), "the query has more than 1000 fields"),
    ],
)
@pytest.mark.parametrize("party", [PlainASGI, PlainWSGI, Flask])
def test_what_is_wrong_with_a_query_that_is_read_is_said_in_plain_words(ascend_authority, party, query, why):
    site = party([{**PAY, "details": {"a": "query.a?"}}], [])
    _, problem = site.ask("POST", "/pay", query=query)
    assert problem["detail"] == f"The request cannot be judged: {why}"


# Every finding, and what a rule permits of them

# What makes each finding in a target, alone: the decoded path and the raw one.
TARGETS = {
    "not-origin-form": ("/items/a", b"http://site/items/a"),
    "dot-segment": ("/items/../x", b"/items/../x"),
    "empty-segment": ("/items/a//x", b"/items/a//x"),
    "backslash": ("/items/a\\b", b"/items/a%5Cb"),
    "control-character": ("/items/a\tb", b"/items/a%09b"),
    "invalid-utf8": ("/items/a\ufffdb", b"/items/a%EF%BF%BDb"),
    "path-parameter": ("/items/a;b", b"/items/a;b"),
    "fragment": ("/items/a", b"/items/a#b"),
}
AS_IT_IS = ("backslash", "/items/a\\b", b"/items/a\\b")
ITEMS = {"match": "* /items/**", "action_type": "items"}


# A server may pass a backslash on as it is.
@pytest.mark.parametrize(("name", "path", "raw"), [*((name, *TARGETS[name]) for name in TARGETS), AS_IT_IS])
def test_each_finding_is_refused_unless_its_rule_permits_it(party, ran, name, path, raw):
    for permit in ([], [one for one in TARGETS if one != name]):
        site = party([{**ITEMS, "permit": permit}], ran)
        status, problem = site.ask("GET", path, raw_path=raw)
        assert (status, finding(problem), ran) == (400, ("bad-request", [name]), [])
    site = party([{**ITEMS, "permit": [name]}], ran)
    status, problem = site.ask("GET", path, raw_path=raw)
    # A framework may find no route for it; it is no finding of ours any more.
    assert (status in (200, 404, 308), finding(problem)) == (True, (None, None))


@pytest.mark.parametrize("one", TARGETS)
@pytest.mark.parametrize("other", ["path-parameter", "method-override"])
def test_of_two_findings_both_have_to_be_permitted(party, ran, one, other):
    if one == other:
        return
    path, raw = TARGETS[one]
    headers = (("x-http-method-override", "DELETE"),) if other == "method-override" else ()
    if other == "path-parameter":
        path, raw = path.replace("/items", "/items/;"), raw.replace(b"/items", b"/items/;")
    for permit in ([one], [other]):
        site = party([{**ITEMS, "permit": permit}], ran)
        status, problem = site.ask("GET", path, raw_path=raw, headers=headers)
        assert (status, set(problem["findings"]), ran) == (400, {one, other}, [])


def test_a_method_that_is_no_token_in_upper_case_is_found(party, ran):
    site = party([ITEMS], ran)
    for method in ("G*T", "*", "1GET", "GÉT"):
        status, problem = site.ask(method, "/items/a")
        # A framework's router may answer 405 first; either way nothing runs.
        assert (status in (400, 405), ran) == (True, [])
        if status == 400:
            assert problem["findings"] == ["bad-method"]


def test_by_method_may_permit_findings_too(party, ran):
    path, raw = "/items/a//home/x", b"/items/a//home/x"
    site = party([], ran, unmapped="by-method")
    assert (site.ask("GET", path, raw_path=raw)[0], ran) == (400, [])
    site = party([], ran, unmapped="by-method", unmapped_permit=["empty-segment"])
    assert site.ask("GET", path, raw_path=raw)[0] == 200
    assert len(ran) == 1
    status, problem = site.ask("GET", f"{path}/../y", raw_path=raw + b"/../y")
    assert (status, set(problem["findings"])) == (400, {"empty-segment", "dot-segment"})


@pytest.mark.parametrize(("permit", "status"), [((), 400), (("empty-segment",), 200)])
def test_a_rule_for_a_part_of_a_route_says_nothing_of_a_path_with_an_empty_segment(
    ascend_authority, handler, permit, status
):
    ascend_authority.approve()
    rules = [
        {"match": "GET /items/a/{x}", "action_type": "part"},
        {"match": "GET /items/**", "action_type": "whole", "permit": permit},
    ]
    app = inside(Starlette(routes=[Route("/items/{rest:path}", handler)]), rules)
    assert asyncio.run(get(app, "/items/a//x")).status == status
    assert [one.body["action_type"] for one in ascend_authority.asked] == ["whole"] * handler.ran


@pytest.mark.parametrize("target", ["x", "*", ""])
def test_a_target_without_a_slash_is_refused_also_where_only_the_host_is_looked_at(ascend_authority, handler, target):
    rules = [{"match": "GET /a/{x}", "block": "no"}, {"match": "* /**", "action_type": "any"}]
    app = inside(Starlette(routes=[Host("site", handler)]), rules)
    wire = asyncio.run(get(app, target, headers=[("host", "site")]))
    assert (wire.status, wire.json["findings"], handler.ran) == (400, ["not-origin-form"], 0)


def test_what_by_method_permits_is_checked(party):
    with pytest.raises(ConfigurationError, match="encoded-slash"):
        party([], [], unmapped="by-method", unmapped_permit=["encoded-slash"]).ask("GET", "/")


def test_several_attacks_at_once(party, ran):
    """Each alone is refused; together they are, too, whatever one of them does to the other."""
    rules = [PAY, {**ITEMS, "permit": ["empty-segment"]}]
    site = party(rules[:1] if party.template == "/**" else rules, ran, agent_header="x-agent-id")
    named = ("x-agent-id", "a")
    attacks = [
        ("WEBSOCKET", "/items//x", (named, ("X_HTTP-Method-Override", "GET")), b""),
        ("WEBSOCKET", "/items/..//pay", (named,), amount(1)),
        ("POST", "//pay", (*JSON, named, ("x_agent-id", "b")), amount(1)),
        ("POST", "/items//../pay", (*JSON, named, ("x-original-url", "/pay")), amount(1)),
        ("post", "/pay", (*JSON, named, ("X_Original_URL", "/items/x")), amount(1)),
        ("WEBSOCKET", "/pay", (*JSON, named, ("x_http_method", "POST")), amount(1)),
        ("POST", "/pay;a=1", (*JSON, ("x_agent_id", "b")), b'{"amount": 1, "amount": 2}'),
    ]
    for method, path, headers, body in attacks:
        status, _ = site.ask(method, path, headers=headers, body=body, raw_path=path.encode())
        assert (status in (400, 404, 405), ran) == (True, []), (method, path)


# Off is off


@pytest.mark.parametrize("root", ["/api", "/api/v1"])
def test_without_a_health_path_the_root_of_a_prefix_is_no_health_path(ascend_authority, root):
    for build in (FastAPI, Starlette):
        app = build()
        app.add_route("/", lambda request: PlainTextResponse("home"))
        app.add_middleware(AscendMiddleware, rules={"rule": [{"match": "* /**", "block": "closed"}]})
        # The framework's own redirect to the root, and that is blocked.
        wire = asyncio.run(get(app, root, root_path=root))
        assert (wire.status, wire.body) == (307, b"")
        wire = asyncio.run(get(app, f"{root}/", root_path=root))
        assert (wire.status, wire.problem) == (403, "blocked")
