"""What a governed FastAPI application does, over the embedded authority in process."""

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request

from ascend_middleware.asgi import AscendMiddleware, require_decision
from ascend_middleware.guard import Agent, NotAnAgent

POLICY = """
[thresholds]
pending = 60
denied = 90

[[policy]]
name = "reads"
action_types = ["data_access"]
decision = "approved"

[[policy]]
name = "no deletes"
action_types = ["customer_delete"]
decision = "denied"
reason = "people delete customers"

[[policy]]
name = "small"
action_types = ["transaction"]
when = "action.action_details.amount <= 1000"
decision = "approved"

[[policy]]
name = "large"
action_types = ["transaction"]
when = "action.action_details.amount > 1000"
decision = "pending"
reason = "refund above 1000"
"""

RULES = {
    "ascend": {"agent_id": "billing"},
    "rule": [
        {"match": "GET /customers/{customer_id}", "action_type": "data_access"},
        {"match": "DELETE /customers/{customer_id}", "action_type": "customer_delete"},
        {
            "match": "POST /customers/{customer_id}/refunds",
            "action_type": "transaction",
            "details": {"amount": "body.amount"},
        },
        {"match": "GET /health", "exempt": True},
        {"match": "* /internal/**", "block": "closed to agents"},
    ],
}


def make(tmp_path, *, rules=RULES, **settings):
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    app = FastAPI()
    ran = []
    given = {"api_url": f"local:{policy}", **settings}

    @app.get("/health")
    async def health():
        return {"ok": True}

    @app.get("/internal/keys")
    async def keys():
        ran.append("keys")

    @app.get("/unlisted")
    async def unlisted():
        ran.append("unlisted")

    @app.get("/customers/{customer_id}")
    async def read(customer_id: int, request: Request):
        ran.append("read")
        return {"id": customer_id, "action": request.state.ascend.action_id}

    @app.delete("/customers/{customer_id}")
    async def delete(customer_id: int):
        ran.append("delete")

    @app.post("/customers/{customer_id}/refunds")
    async def refund(customer_id: int, request: Request):
        ran.append("refund")
        return await request.json()

    app.add_middleware(AscendMiddleware, rules=rules, **given)
    return app, ran


async def ask(app, method, path, **kwargs):
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
        return await client.request(method, path, **kwargs)


@pytest.mark.anyio
async def test_an_approved_read_runs_and_sees_its_decision(tmp_path):
    app, ran = make(tmp_path)
    answer = await ask(app, "GET", "/customers/7")
    assert answer.status_code == 200
    assert answer.json()["action"].isdigit()
    assert ran == ["read"]


@pytest.mark.anyio
async def test_a_denial_is_a_problem_document(tmp_path):
    app, ran = make(tmp_path)
    answer = await ask(app, "DELETE", "/customers/7")
    assert (answer.status_code, ran) == (403, [])
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["ascend-decision"] == "denied"
    assert answer.headers["ascend-action-id"] == body["action_id"]
    assert body["type"].endswith(":denied")
    assert body["reason"] == "people delete customers"


@pytest.mark.anyio
async def test_the_handler_gets_the_body_that_was_judged(tmp_path):
    app, ran = make(tmp_path)
    answer = await ask(app, "POST", "/customers/7/refunds", json={"amount": 5, "note": "x"})
    assert (answer.status_code, answer.json()) == (200, {"amount": 5, "note": "x"})


@pytest.mark.anyio
async def test_a_held_action_is_refused_with_its_id(tmp_path):
    app, ran = make(tmp_path)
    answer = await ask(app, "POST", "/customers/7/refunds", json={"amount": 5000})
    assert (answer.status_code, ran) == (403, [])
    assert answer.json()["type"].endswith(":approval-required")
    assert answer.json()["action_id"].isdigit()
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/unlisted", 403, "unmapped-route"),
        ("GET", "/internal/keys", 403, "blocked"),
        ("GET", "/docs", 403, "unmapped-route"),
        ("GET", "/customers/7/", 307, None),
        ("GET", "/nothing", 404, None),
        ("PUT", "/customers/7", 405, None),
        ("GET", "http://site//customers/7", 400, "bad-request"),
        ("GET", "/customers/7%0a", 400, "bad-request"),
        ("GET", "/customers/%2e%2e", 400, "bad-request"),
        ("GET", "/health", 200, None),
    ],
)
async def test_what_needs_no_authority(tmp_path, method, path, status, problem):
    app, ran = make(tmp_path)
    answer = await ask(app, method, path)
    assert answer.status_code == status
    if problem:
        assert answer.json()["type"].endswith(f":{problem}")
    assert ran == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content", [b'{"amount": 5, "amount": 9000}', b'{"other": 5}', b'{"amount": 5, "pad": "' + b"x" * 70_000 + b'"}']
)
async def test_a_body_that_cannot_be_judged_is_refused(tmp_path, content):
    app, ran = make(tmp_path)
    given = {"content-type": "application/json"}
    answer = await ask(app, "POST", "/customers/7/refunds", content=content, headers=given)
    assert answer.status_code in (400, 413)
    assert ran == []


@pytest.mark.anyio
async def test_no_authority_no_handler_unless_the_rule_is_open(tmp_path, unused_tcp_port):
    connection = {
        "api_url": f"http://127.0.0.1:{unused_tcp_port}",
        "api_key": "owkai_test_0123456789abcdef",
        "max_retries": 0,
    }
    app, ran = make(tmp_path, **connection)
    answer = await ask(app, "GET", "/customers/7")
    assert (answer.status_code, ran) == (503, [])
    assert "retry-after" in answer.headers
    app, ran = make(tmp_path, **connection, on_failure="open", open_per_minute=1)
    assert (await ask(app, "GET", "/customers/7")).status_code == 200
    assert (await ask(app, "GET", "/customers/7")).status_code == 503
    assert ran == ["read"]


@pytest.mark.anyio
async def test_identify_decides_who_asks(tmp_path):
    async def identify(connection):
        name = connection.headers.get("authorization")
        return {"bot": Agent("bot-7"), "person": NotAnAgent("signed in")}.get(name)

    app, ran = make(tmp_path, identify=identify)
    assert (await ask(app, "GET", "/customers/7", headers={"authorization": "bot"})).status_code == 200
    assert (await ask(app, "DELETE", "/customers/7", headers={"authorization": "person"})).status_code == 200
    assert (await ask(app, "GET", "/customers/7")).status_code == 403
    assert ran == ["read", "delete"]


@pytest.mark.anyio
async def test_an_agent_header_counts_once_only(tmp_path):
    app, ran = make(tmp_path, agent_header="X-Agent-Id")
    assert (await ask(app, "GET", "/customers/7", headers=[("x-agent-id", "a")])).status_code == 200
    for headers in ([], [("x-agent-id", "a"), ("x-agent-id", "b")], [("x-agent-id", "a"), ("x_agent_id", "b")]):
        assert (await ask(app, "GET", "/customers/7", headers=headers)).status_code == 400
    assert ran == ["read"]


@pytest.mark.anyio
async def test_require_decision_refuses_where_the_middleware_is_missing():
    app = FastAPI()

    @app.get("/")
    async def root(verdict=Depends(require_decision)):
        return {}

    assert (await ask(app, "GET", "/")).status_code == 500


@pytest.fixture
def unused_tcp_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.anyio
async def test_what_was_decided_about_runs_whatever_becomes_of_the_routes_meanwhile(tmp_path):
    async def other(customer_id: str):
        ran.append("other")
        return {"id": "other"}

    async def identify(request):
        # As a decision takes its time, another route comes to stand before the one that it is about.
        app.router.add_api_route("/customers/{customer_id}", other)
        app.router.routes.insert(0, app.router.routes.pop())
        return Agent("billing")

    app, ran = make(tmp_path, identify=identify)
    assert (await ask(app, "GET", "/customers/7")).json()["id"] == 7
    assert ran == ["read"]


@pytest.mark.anyio
async def test_a_handler_finds_its_router_as_ever(tmp_path):
    rules = {**RULES, "rule": [*RULES["rule"], {"match": "GET /health/{name}", "exempt": True}]}
    app, _ = make(tmp_path, rules=rules)
    seen = []

    @app.get("/health/{name}")
    async def named(name: str, request: Request):
        seen.append(request.scope["router"] is app.router)
        return str(request.url_for("read", customer_id=3))

    answer = await ask(app, "GET", "/health/a")
    assert answer.json() == "http://site/customers/3"
    assert (await ask(app, "PUT", "/health/a")).status_code == 405
    assert seen == [True]
