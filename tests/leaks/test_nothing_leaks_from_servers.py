"""No refusal of the guard or of the embedded authority tells a key or a password: not in a body, a log or an error."""

import json
import time

import pytest
from fastapi import FastAPI, Request
from kit.scripted import DROP, HANG, PENDING, Scripted, http
from leak_net import KEY, PASSWORD, Net
from starlette.testclient import TestClient
from test_nothing_leaks_from_clients import ECHOES  # noqa: E402

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.authority import Authority, Role, Store, parse_policy

RULES = {
    "ascend": {"agent_id": "shop"},
    "rule": [
        {
            "match": "POST /login/{user}",
            "action_type": "login",
            "resource": "login of {path.user} by {body.password}",
            "details": {"password": "body.password", "token": "query.token?", "nested": "body.nested?"},
            "body_limit": 500,
        },
        {"match": "POST /form", "action_type": "login", "details": {"password": "form.password"}},
        {"match": "* /closed/**", "block": "closed"},
    ],
}
GOOD = {"password": PASSWORD, "nested": {"api_key": KEY, "n": 1}}


def failing(request):
    raise ValueError(f"password={PASSWORD} of {KEY}")


def application(url, **options):
    app = FastAPI()
    options = {
        "rules": RULES,
        "api_url": url,
        "api_key": KEY,
        "max_retries": 0,
        "deadline": 0.5,
        "debug": True,
        **options,
    }
    app.add_middleware(AscendMiddleware, **options)

    @app.post("/login/{user}")
    async def login(user: str, request: Request):
        return {"ok": True}

    @app.post("/form")
    async def form(request: Request):
        return {"ok": True}

    return app


HEADERS = {"authorization": f"Bearer {KEY}", "x-api-key": KEY, "cookie": f"session={PASSWORD}"}
JSON = {"content-type": "application/json"}
REQUESTS = {
    "good": ("/login/u", {"json": GOOD}),
    "no json": ("/login/u", {"content": f'{{"password": "{PASSWORD}"', "headers": JSON}),
    "twice": ("/login/u", {"content": f'{{"password": 1, "password": "{PASSWORD}"}}', "headers": JSON}),
    "nan": ("/login/u", {"content": f'{{"password": "{PASSWORD}", "n": NaN}}', "headers": JSON}),
    "array": ("/login/u", {"json": [PASSWORD]}),
    "missing": ("/login/u", {"json": {"pass": PASSWORD}}),
    "object": ("/login/u", {"json": {"password": {"x": PASSWORD}}}),
    "wrong type": ("/login/u", {"content": f"password={PASSWORD}", "headers": {"content-type": "text/plain"}}),
    "charset": ("/login/u", {"content": json.dumps(GOOD).encode("utf-16"), "headers": JSON}),
    "large": ("/login/u", {"json": {**GOOD, "fill": PASSWORD * 100}}),
    "repeated query": (f"/login/u?token={KEY}&token={KEY}", {"json": GOOD}),
    "query": (f"/login/u?token={KEY}&x={PASSWORD}", {"json": GOOD}),
    "form": ("/form", {"data": {"password": PASSWORD}}),
    "form twice": ("/form", {"content": f"password={PASSWORD}&password={PASSWORD}", "headers": {"content-type": "application/x-www-form-urlencoded"}}),
    "multipart": ("/form", {"files": {"password": PASSWORD.encode()}}),
    "unmapped": (f"/nowhere?api_key={KEY}&password={PASSWORD}", {"json": GOOD}),
    "blocked": (f"/closed/x?password={PASSWORD}", {"json": GOOD}),
    "override": ("/login/u", {"json": GOOD, "headers": {"x-http-method-override": "DELETE"}}),
    "dots": (f"/login/%2e%2e/{KEY}", {"json": GOOD}),
}  # fmt: skip


def ask_all(net, app):
    with TestClient(app, raise_server_exceptions=False) as client:
        for name, (path, options) in REQUESTS.items():
            answer = client.post(path, **{**options, "headers": {**HEADERS, **options.get("headers", {})}})
            net.look(f"answer to {name}", f"{answer.status_code} {answer.headers!r} {answer.text}")


@pytest.mark.parametrize("engine", ["auto", pytest.param("httpx2", marks=pytest.mark.slow)])
def test_the_guard_and_its_adapter(engine):
    denied = {"action_id": "7", "status": "denied", "reason": f"the key {KEY} may not, password={PASSWORD}"}
    steps = [http(200, denied), PENDING, DROP, *ECHOES.values()]
    with Net() as net:
        for step in steps:
            with Scripted(step) as server:
                ask_all(net, application(server.url, engine=engine))
                body = b"".join(request.body for request in server.requests if request.method == "POST").decode()
                assert KEY not in body, "what is submitted is redacted"
        with Scripted(HANG) as server:
            app = application(server.url, engine=engine, deadline=0.05)
            with TestClient(app) as client:
                answer = client.post("/login/u", json=GOOD, headers=HEADERS)
                net.look("answer", answer.text)
        with Scripted(PENDING) as server:
            ask_all(net, application(server.url, engine=engine, identify=failing))
    assert net.records > 100
    assert net.found == []


def test_the_embedded_authority():
    store = Store.open(":memory:", now=time.time)
    user = store.issue_key(name="u", role=Role.USER, tenant="default")
    authority = Authority(store, parse_policy('[[policy]]\nname = "p"\naction_types = ["t"]\ndecision = "denied"\n'))
    action = {"agent_id": "a", "action_type": "t", "resource": "r", "action_details": {"password": PASSWORD}}
    bodies = [
        action,
        {**action, "agent_id": ""},
        {**action, "action_type": [PASSWORD]},
        {**action, "parameters": {"password": "other"}},
        {**action, "model_id": True},
        {**action, "context": PASSWORD},
        {**action, "orchestration_depth": PASSWORD},
        {**action, "parent_action_id": 99},
    ]
    contents = [json.dumps(body).encode() for body in bodies]
    contents += [b"{" + KEY.encode(), PASSWORD.encode(), json.dumps(action).encode()[:-3], b"\xff" + KEY.encode()]
    keys = [user, KEY, f"{KEY}\n", f"Basic {PASSWORD}", "eyJhbGciOiJub25lIn0.e30.LEAKKEY", ""]
    paths = [
        "/api/v1/actions/submit",
        "/api/v1/actions/9/approve",
        f"/api/v1/{KEY}",
        "/api/agent-action/1/fail",
        "/api/webhooks",
    ]
    with Net() as net:
        for path in paths:
            for key in keys:
                for content in contents:
                    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
                        headers = {**headers, "idempotency-key": "", "x-api-version": PASSWORD if key == "" else ""}
                        headers = {name: value for name, value in headers.items() if value}
                        status, _, answer = authority.handle("POST", path, f"api_key={KEY}", headers, content)
                        if status >= 400:
                            net.look(f"{status} to {path}", answer.decode())
        net.look("repr", f"{authority!r} {store!r} {store.issue_key!r}")
    assert net.found == []
    store.close()
