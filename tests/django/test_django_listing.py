"""`ascend-middleware routes` and `explain` for a Django project, and the project under the ASGI middleware."""

import json
from pathlib import Path

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import override_settings

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.cli import main
from ascend_middleware.testing import assert_governed

HERE = str(Path(__file__).parent)


def wsgi():
    return get_wsgi_application()


def run(capsys, command, *args, app="test_django_listing:wsgi()"):
    code = main([command, app, *args, "--app-dir", HERE])
    return code, capsys.readouterr()


def test_the_projects_routes_are_listed(capsys, ascend):
    code, out = run(capsys, "routes", "--json")
    found = json.loads(out.out)
    assert (code, found["framework"], found["guarded"], out.err) == (0, "Django", True, "")
    standing = {(one["method"], one["route"]): one["standing"] for one in found["routes"]}
    assert standing["others", "/customers/{customer_id:int}"] == "unmapped"
    actions = {(one["method"], one["route"]): one["action_type"] for one in found["routes"]}
    assert actions["DELETE", "/customers/{customer_id:int}"] == "customer_delete"
    assert found["problems"] == []


def test_what_is_suggested_for_it_passes_the_check(capsys, ascend, tmp_path):
    ascend(rules=[])
    code, out = run(capsys, "routes", "--suggest")
    (tmp_path / "ascend.toml").write_text(out.out)
    assert main(["check", str(tmp_path / "ascend.toml")]) == 0


def test_what_became_looser_than_its_lock_is_told(capsys, ascend, tmp_path):
    place = str(tmp_path / "ascend.lock")
    ascend()
    assert run(capsys, "lock", "--lock", place)[0] == 0
    assert_governed_but_for_methods(place)
    ascend(on_failure="open")
    code, out = run(capsys, "diff", "--lock", place)
    assert code == 1
    assert 'DELETE /customers/{customer_id:int} on_failure was "closed" and is "open"' in out.out
    with pytest.raises(AssertionError, match="looser than"):
        assert_governed(wsgi(), lock=place)


def assert_governed_but_for_methods(place):
    """What no rule covers is named; nothing is looser."""
    with pytest.raises(AssertionError) as raised:
        assert_governed(get_asgi_application(), lock=place)
    assert all(line.startswith("no rule covers") for line in str(raised.value).splitlines())


def test_a_project_without_the_middleware_is_said_to_have_none(capsys, ascend):
    with override_settings(MIDDLEWARE=[]):
        code, out = run(capsys, "routes", "--fail-unmapped")
    assert code == 1
    assert "has no guard" in out.err


def test_a_request_is_explained(capsys, ascend):
    body = json.dumps({"amount": 5})
    code, out = run(capsys, "explain", "POST /customers/7/refunds", "--body", body, "--json")
    found = json.loads(out.out)
    assert (code, found["outcome"], found["action_type"]) == (0, "ask", "transaction")
    assert found["payload"]["resource"] == "refund for customer 7"
    assert found["payload"]["action_details"] == {"amount": 5}
    assert json.loads(run(capsys, "explain", "GET /nothing", "--json")[1].out)["outcome"] == "framework"
    assert json.loads(run(capsys, "explain", "GET /internal//x", "--json")[1].out)["findings"]


# A Django project under the ASGI middleware is foreign: the path decides


async def ask(app, method, path, *, root="", body=b""):
    headers = [(b"host", b"site"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # fmt: off
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
             "path": path, "raw_path": path.encode(), "root_path": root, "query_string": b"", "headers": headers,
             "server": ("site", 80), "client": ("client", 1), "state": {}}
    # fmt: on
    inbox, sent = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive():
        if inbox:
            return inbox.pop(0)
        import asyncio

        return await asyncio.Future()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.anyio
@pytest.mark.parametrize(("root", "prefix"), [("", ""), ("/api", "/api"), ("/api", "")])
async def test_a_project_under_the_asgi_middleware(root, prefix, ascend, ascend_authority, ran):
    ascend_authority.approve()
    with override_settings(MIDDLEWARE=[]):
        inner = get_asgi_application()
    rules = [
        {
            "match": "POST /customers/{customer_id}/refunds",
            "action_type": "refund",
            "details": {"amount": "body.amount"},
        },
        {"match": "GET /health", "exempt": True},
    ]
    app = AscendMiddleware(inner, rules={"rule": rules}, api_url=ascend_authority.api_url)
    below = {"root": root}
    assert await ask(app, "POST", f"{prefix}/customers/7/refunds", body=b'{"amount": 5}', **below) == 200
    assert [name for name, _ in ran] == ["refund"]
    assert [one["action_type"] for one in ascend_authority.actions.values()] == ["refund"]
    ascend_authority.deny()
    assert await ask(app, "POST", f"{prefix}/customers/7/refunds", body=b'{"amount": 5}', **below) == 403
    assert await ask(app, "GET", f"{prefix}/plain", **below) == 403
    if root and not prefix:
        assert await ask(app, "GET", "/apiplain", **below) == 400
        assert await ask(app, "GET", "/health/api/plain", **below) == 400
    assert len(ran) == 1
    await app.aclose()
