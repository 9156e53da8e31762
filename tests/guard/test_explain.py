"""What `explain` says is what the guard does; it asks nobody, and shows no secret."""

import json
from pathlib import Path

import httpx2
import pytest
from kit.engine import Engine, options, plug
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.cli import main

APPS = Path(__file__).parents[1] / "apps"
APPLICATION = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from ascend_middleware.asgi import AscendMiddleware

async def run(request):
    return PlainTextResponse("")

async def foreign(scope, receive, send):
    await PlainTextResponse("")(scope, receive, send)

routes = [
    Route("/orders/{{id}}", run, methods=["GET", "POST", "PUT"], name="order"),
    Route("/named", run, name="named"),
    Mount("/legacy", foreign),
]
app = Starlette(routes=routes)
app.add_middleware(AscendMiddleware, rules={rules!r}, **{settings!r})
wrapped = AscendMiddleware(foreign, rules={rules!r}, agent_id="a", api_url="https://a.example",
    api_key="owkai_test_0123456789", state="memory:", journal="off", on_failure="closed")
"""
RULES = {
    "ascend": {"agent_id": "bot", "on_failure": "open"},
    "rule": [
        {
            "match": "POST /orders/{id}",
            "action_type": "order",
            "resource_id": "{path.id}",
            "details": {
                "amount": "body.amount",
                "password": "body.password?",
                "dry": "query.dry?",
                "who": "header.x-who?",
            },
            "permit": ["path-parameter"],
        },
        {"match": "GET,POST /orders/{id}", "action_type": "wider"},
        {"match": "* /orders/**", "action_type": "widest"},
        {"match": "* /orders/closed", "block": "closed"},
        {"match": "* /named", "action_type": "by-template"},
        {"endpoint": "named", "exempt": True},
        {"match": "GET /legacy/report", "action_type": "report"},
        {"match": "* /legacy/**", "action_type": "legacy"},
    ],
}


@pytest.fixture
def application(tmp_path, monkeypatch):
    (tmp_path / "explained.py").write_text(APPLICATION.format(rules=RULES, settings={}))
    monkeypatch.delitem(__import__("sys").modules, "explained", raising=False)
    return tmp_path


@pytest.fixture
def explained(application, capsys):
    def explain(request, *args, app="explained:app"):
        assert main(["explain", app, request, "--app-dir", str(application), "--json", *args]) == 0
        return json.loads(capsys.readouterr().out)

    return explain


def lost(found):
    return {one["rule"]: one["why"] for one in found["lost"]}


def test_the_winner_the_losers_and_why(explained):
    found = explained("POST /orders/7", "--body", '{"amount": 5}')
    assert (found["outcome"], found["rule"], found["endpoint"]) == ("ask", "rule 1 (POST /orders/{id})", "order")
    assert (found["on_failure"], found["pending"], found["params"]) == ("open", "refuse", {"id": "7"})
    assert lost(found) == {
        "rule 2 (GET,POST /orders/{id})": "rule 1 lists fewer methods",
        "rule 3 (* /orders/**)": "/orders/{id} is more specific",
    }


@pytest.mark.parametrize(
    ("request_line", "outcome", "status", "rule"),
    [
        ("GET /orders/closed", "blocked", 403, "rule 4 (* /orders/closed)"),
        ("PUT /orders/7", "unmapped-route", 403, None),
        ("GET /named", "exempt", None, "rule 6 (endpoint named)"),
        ("GET /legacy/report", "ask", None, "rule 8 (* /legacy/**)"),
        ("GET /nothing", "framework", None, None),
        ("DELETE /orders/7", "framework", None, None),
        ("POST /orders/7", "bad-request", 400, "rule 1 (POST /orders/{id})"),
        ("GET /.ascend/approvals/x", "approval-status", 404, None),
    ],
)
def test_every_outcome(explained, request_line, outcome, status, rule):
    found = explained(request_line)
    assert (found["outcome"], found["status"], found["rule"]) == (outcome, status, rule)
    assert (found["payload"] is not None) is (outcome == "ask")


def test_why_the_others_lost(explained):
    assert lost(explained("PUT /orders/7")) == {
        "rule 1 (POST /orders/{id})": "it does not list PUT",
        "rule 2 (GET,POST /orders/{id})": "it does not list PUT",
        "rule 3 (* /orders/**)": "/orders/{id} is more specific, and an unlisted method is unmapped",
    }
    assert lost(explained("GET /named")) == {"rule 5 (* /named)": "rule 6 names the endpoint"}
    assert lost(explained("GET /legacy/report")) == {
        "rule 7 (GET /legacy/report)": "/legacy/** is one unit, and this covers a part of it"
    }
    for nothing in ("DELETE /orders/7", "GET /orders/7/no"):
        assert set(lost(explained(nothing)).values()) == {"no handler runs, so rules are not looked at"}
    assert "a block beats everything" in lost(explained("GET /orders/closed"))["rule 3 (* /orders/**)"]


@pytest.fixture
def of(tmp_path, monkeypatch, capsys):
    """Explain a request of the same application under other rules."""

    def of(rules, request, *args, app="other:app", **settings):
        (tmp_path / "other.py").write_text(APPLICATION.format(rules={"rule": rules}, settings=settings))
        monkeypatch.delitem(__import__("sys").modules, "other", raising=False)
        given = {"agent_id": "a", "api_key": "owkai_test_0123456789"}
        for name, value in given.items():
            monkeypatch.setenv(f"ASCEND_{name.upper()}", value)
        assert main(["explain", app, request, "--app-dir", str(tmp_path), "--json", *args]) == 0
        return json.loads(capsys.readouterr().out)

    return of


ACT = {"action_type": "act"}


def test_what_no_rule_covers_goes_by_its_method(of):
    found = of([{"match": "GET /other", **ACT}], "PUT /orders/7", unmapped="by-method")
    assert (found["outcome"], found["rule"], found["payload"]["action_type"]) == (
        "ask",
        "by-method PUT",
        "data_modification",
    )
    assert found["permitted"] is False


@pytest.mark.parametrize(("limit", "outcome", "status"), [(13, "ask", None), (12, "body-too-large", 413)])
def test_a_body_is_as_long_as_its_rule_allows(of, limit, outcome, status):
    rules = [{"match": "POST /orders/{id}", "details": {"amount": "body.amount"}, "body_limit": limit, **ACT}]
    found = of(rules, "POST /orders/7", "--body", '{"amount": 5}')
    assert (found["outcome"], found["status"], found["payload"] is None) == (outcome, status, status is not None)


def test_a_head_is_listed_where_get_is(of):
    rules = [
        {"match": "GET,POST /orders/{id}", **ACT},
        {"match": "POST /orders/**", **ACT},
        {"match": "GET /orders/**", **ACT},
        {"match": "HEAD /**", **ACT},
    ]
    assert lost(of(rules, "HEAD /orders/7")) == {
        "rule 2 (POST /orders/**)": "it does not list HEAD",
        "rule 3 (GET /orders/**)": "/orders/{id} is more specific",
        "rule 4 (HEAD /**)": "/orders/{id} is more specific",
    }


def test_of_rules_that_name_the_endpoint_the_match_decides(of):
    rules = [
        {"endpoint": "order", "match": "GET /**", **ACT},
        {"endpoint": "order", "match": "GET /orders/{id}", "action_type": "narrow"},
        {"endpoint": "named", **ACT},
        {"match": "* /orders/{id}", **ACT},
    ]
    found = of(rules, "GET /orders/7")
    assert found["payload"]["action_type"] == "narrow"
    assert lost(found) == {
        "rule 1 (endpoint order)": "/orders/{id} is more specific",
        "rule 4 (* /orders/{id})": "rule 2 names the endpoint",
    }


def test_what_covers_the_whole_of_a_foreign_application_is_weighed(of):
    rules = [{"match": "POST /legacy/**", **ACT}, {"match": "* /**", **ACT}, {"match": "POST /legacy/a", **ACT}]
    assert lost(of(rules, "POST /legacy/a")) == {
        "rule 2 (* /**)": "/legacy/** is more specific",
        "rule 3 (POST /legacy/a)": "/legacy/** is one unit, and this covers a part of it",
    }


def test_where_nothing_governs_the_most_specific_template_decided(of):
    rules = [
        {"match": "GET /orders/{id}", **ACT},
        {"match": "* /orders/**", **ACT},
        {"endpoint": "order", "match": "GET /**", **ACT},
        {"match": "GET /orders/closed", "block": "closed"},
    ]
    found = of(rules, "PUT /orders/7")
    assert (found["outcome"], found["rule"]) == ("unmapped-route", None)
    assert lost(found)["rule 2 (* /orders/**)"] == "/orders/{id} is more specific, and an unlisted method is unmapped"


def test_what_the_firewall_finds(explained):
    found = explained("GET /orders/7;x")
    assert (found["status"], found["findings"]) == (400, {"path-parameter": "the path has a ; parameter"})
    assert not found["permitted"]
    permitted = explained("POST /orders/7;x", "--body", '{"amount": 1}')
    assert (permitted["outcome"], permitted["permitted"]) == ("ask", True)
    for line, finding in {
        "GET //orders/7": "empty-segment",
        "GET /orders/../x": "dot-segment",
        "GET /orders/%2e%2e": "dot-segment",
        "GET /orders/7%0a": "control-character",
        "GET x:/orders/7": "not-origin-form",
    }.items():
        assert finding in explained(line)["findings"], line
    assert "method-override" in explained("GET /orders/7", "--header", "X-HTTP-Method-Override: DELETE")["findings"]


def test_a_foreign_application_goes_by_the_path(explained):
    found = explained("GET /legacy/report", app="explained:wrapped")
    assert (found["kind"], found["rule"]) == (None, "rule 7 (GET /legacy/report)")
    assert lost(found) == {"rule 8 (* /legacy/**)": "/legacy/report is more specific"}


@pytest.mark.anyio
async def test_what_is_shown_is_what_is_sent(application, explained, monkeypatch):
    body = '{"amount": 5, "password": "hunter2"}'
    found = explained("POST /orders/7?dry=1", "--header", "x-who: me", "--body", body)
    assert found["payload"]["action_details"] == {"amount": 5, "password": "[redacted]", "dry": "1", "who": "me"}
    assert "hunter2" not in json.dumps(found)
    engine = plug(monkeypatch, Engine())

    async def run(request):
        return PlainTextResponse("")

    app = Starlette(routes=[Mount("/", routes=[Route("/orders/{id}", run, methods=["POST"])])])
    app.add_middleware(AscendMiddleware, **options(RULES["rule"]))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        given = {"content-type": "application/json", "x-who": "me"}
        assert (await client.post("/orders/7?dry=1", content=body, headers=given)).status_code == 200
    (sent,) = engine.submitted
    assert sent == found["payload"]


def test_as_text(capsys, tmp_path):
    (tmp_path / "body.json").write_text('{"amount": 5, "card": "4111 1111"}')
    command = ["explain", "asgi_shop:app", "POST /customers/7/refunds", "--app-dir", str(APPS)]
    assert main([*command, "--body", f"@{tmp_path / 'body.json'}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        """\
request   POST /customers/7/refunds
route     /customers/{customer_id}/refunds (refund)
          customer_id = '7'
rule      refunds
          transaction, on_failure open, pending wait:20s, mode enforce
outcome   the authority is asked, and its decision counts
sends     {
            "agent_id": "shop",
"""
    )
    assert '"card": "[redacted]"' in out
    assert "4111" not in out
    assert main(["explain", "asgi_shop:app", "PATCH /customers/7", "--app-dir", str(APPS)]) == 0
    assert "outcome   refused with 403: unmapped-route\n" in capsys.readouterr().out


def test_nothing_on_disk_and_nobody_asked(explained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    explained("POST /orders/7", "--body", '{"amount": 5}')
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["GET"], "a request is a method and a target"),
        (["GET /", "--header", "nonsense"], "a header is"),
        (["POST /", "--body", "@missing.json"], "missing.json cannot be read"),
    ],
)
def test_wrong_usage(capsys, args, says):
    assert main(["explain", "asgi_shop:app", "--app-dir", str(APPS), *args]) == 2
    assert says in capsys.readouterr().err


def test_what_a_rule_says_of_using_decisions_again_is_told(application, capsys):
    rules = [{"match": "GET /named", "action_type": "read", "cache": "5m", "coalesce": True}]
    text = APPLICATION.format(rules={"rule": rules}, settings={}).replace('journal="off"', 'journal="memory:"')
    (application / "reusing.py").write_text(text)
    place = ["--app-dir", str(application)]
    assert main(["explain", "reusing:app", "GET /named", *place]) == 0
    assert "read, on_failure closed, pending refuse, mode enforce, cache 300s, coalesce\n" in capsys.readouterr().out
    assert main(["explain", "reusing:app", "GET /named", "--json", *place]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["outcome"], found["cache"], found["coalesce"]) == ("ask", "300s", True)
    assert main(["routes", "reusing:app", "--json", *place]) in (0, 1)
    (row,) = [one for one in json.loads(capsys.readouterr().out)["routes"] if one["rule"] and one["method"] == "GET"]
    assert (row["cache"], row["coalesce"]) == ("300s", True)
    assert main(["routes", "reusing:app", *place]) in (0, 1)
    assert "read (cached 300s, coalesced)" in capsys.readouterr().out
