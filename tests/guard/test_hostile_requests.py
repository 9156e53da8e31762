"""Requests that mean one thing to the guard and another to a handler, at every adapter."""

import json

import pytest
from adapters_kit import EVERY, ON_ASGI

JSON = (("content-type", "application/json"),)
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


def test_a_method_called_websocket_is_no_handshake(party):
    ran = []
    site = party([{"match": "WEBSOCKET /pay", "exempt": True}], ran)
    status, problem = site.ask("WEBSOCKET", "/pay", headers=JSON, body=amount(1))
    assert (status, finding(problem)[0], ran) == (403, "unmapped-route", [])


def test_the_body_of_a_method_called_websocket_is_read(party, ascend_authority):
    ran = []
    site = party([PAY], ran)
    assert site.ask("WEBSOCKET", "/pay", headers=JSON, body=amount(9999))[0] == 200
    action = ascend_authority.asked[-1].body
    # What the authority reads tells it from a handshake, too.
    assert (action["action_details"], action["resource"]) == ({"amount": 9999}, f"HTTP WEBSOCKET {site.template}")
    assert ran == [("WEBSOCKET", "/pay", amount(9999))]


def test_an_approval_binds_the_body_of_a_method_called_websocket(party, ascend_authority):
    ran = []
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


def test_a_header_that_asks_for_something_else_is_refused_however_it_is_spelt(party):
    ran = []
    site = party([PAY], ran)
    for name, found in OVERRIDES.items():
        for spell in SPELLINGS:
            status, problem = site.ask("POST", "/pay", headers=(*JSON, (spell(name), "DELETE")), body=amount(1))
            assert (status, finding(problem), ran) == (400, ("bad-request", [found]), []), spell(name)


@pytest.mark.parametrize("twin", ["x_agent-id", "X_AGENT_ID", "x-agent_id"])
def test_an_agent_is_named_once_in_one_spelling(party, ascend_authority, twin):
    ran = []
    site = party([PAY], ran, agent_header="x-agent-id")
    for headers in ((("x-agent-id", "a"), (twin, "b")), ((twin, "b"), ("x-agent-id", "a"))):
        status, problem = site.ask("POST", "/pay", headers=(*JSON, *headers), body=amount(1))
        assert (status, finding(problem)[0], ran) == (400, "bad-request", [])
    assert site.ask("POST", "/pay", headers=(*JSON, ("X-Agent-Id", "a")), body=amount(1))[0] == 200
    assert ascend_authority.asked[-1].body["agent_id"] == "a"


@pytest.mark.parametrize("name", ["x_agent_id", "x_agent-id"])
@pytest.mark.parametrize("party", ON_ASGI)
def test_a_lone_second_spelling_names_nobody(ascend_authority, party, name):
    """Where names come as they were sent; an environ has lost the difference."""
    ran = []
    ascend_authority.approve()
    site = party([PAY], ran, agent_header="x-agent-id")
    status, problem = site.ask("POST", "/pay", headers=(*JSON, (name, "b")), body=amount(1))
    assert (status, finding(problem)[0], ran) == (400, "bad-request", [])


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_agent_is_nobody(party, value):
    ran = []
    site = party([PAY], ran, agent_header="x-agent-id")
    status, problem = site.ask("POST", "/pay", headers=(*JSON, ("x-agent-id", value)), body=amount(1))
    assert (status, finding(problem)[0], ran) == (400, "bad-request", [])


@pytest.mark.parametrize("twin", ["x_tenant-id", "X_Tenant_Id", "x-tenant_id"])
@pytest.mark.parametrize("party", ON_ASGI)
def test_a_field_of_a_header_has_one_spelling(ascend_authority, party, twin):
    ran = []
    ascend_authority.approve()
    site = party([{"match": "POST /pay", "action_type": "pay", "details": {"tenant": "header.x-tenant-id"}}], ran)
    for headers in ((("x-tenant-id", "a"), (twin, "b")), ((twin, "b"), ("x-tenant-id", "a"))):
        status, problem = site.ask("POST", "/pay", headers=(*JSON, *headers), body=amount(1))
        assert (status, ran) == (400, []), headers
    assert site.ask("POST", "/pay", headers=(*JSON, ("X-TENANT-ID", "a")), body=amount(1))[0] == 200


# Queries


@pytest.mark.parametrize("query", [b"a=%E9", b"a=\xc3\xa9", b"a=\xe9", b"&".join([b"a=1"] * 1100), b"%", b"a;b=%zz"])
def test_a_query_that_nobody_reads_may_be_written_as_it_likes(party, query):
    if "WSGIBelowASGI" in party.__name__ or party.__name__ == "GuardBelowASGI":
        query = query if query.isascii() else b"a=%E9"  # the adapter takes nothing else
    ran = []
    site = party([PAY], ran)
    assert site.ask("POST", "/pay", headers=JSON, body=amount(1), query=query)[0] == 200
    site = party([{**PAY, "details": {"amount": "query.a?"}}], ran)
    status, problem = site.ask("POST", "/pay", headers=JSON, body=amount(1), query=query)
    readable = query in (b"%", b"a;b=%zz")
    assert (status, finding(problem)[0]) == ((200, None) if readable else (400, "bad-request"))
