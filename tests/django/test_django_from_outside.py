"""A Django project as a foreign application: behind the ASGI or the WSGI middleware, or mounted, decided by its paths."""

import asyncio

import httpx2
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from fastapi import FastAPI

from ascend_middleware import asgi, wsgi

RULES = {
    "rule": [
        {"match": "GET /customers/{customer_id}", "action_type": "data_access"},
        {
            "match": "POST /customers/{customer_id}/refunds",
            "action_type": "transaction",
            "details": {"amount": "body.amount", "customer": "path.customer_id"},
        },
        {"match": "GET /health", "exempt": True},
    ]
}


@pytest.fixture(autouse=True)
def unguarded():
    with override_settings(MIDDLEWARE=["django.middleware.common.CommonMiddleware"]):
        yield


# The views read `request.ascend`, so those that do not are asked.
def story(authority, ran, ask, prefix=""):
    authority.approve()
    assert ask("GET", f"{prefix}/health").json() == {"ran": "health"}
    answer = ask("POST", f"{prefix}/customers/7/refunds", json={"amount": 5})
    assert answer.json()["amount"] == "5"
    (asked,) = authority.asked
    assert dict(asked.details) == {"amount": 5, "customer": "7"}
    authority.deny()
    assert ask("POST", f"{prefix}/customers/7/refunds", json={"amount": 5}).status_code == 403
    for method, path in (
        ("GET", "/search"),
        ("FOO", "/customers/7"),
        ("GET", "/x/AnyWhere"),
        ("GET", "/customers%2f7"),
        ("GET", "/health/../search"),
        ("GET", "/health%0a"),
    ):
        assert ask(method, prefix + path).status_code in (400, 403), path
    assert [name for name, _ in ran] == ["health", "refund"]


class Asking:
    """Sends what it is told, dots and all, in process."""

    def __init__(self, app, root_path=""):
        self.app, self.root_path = app, root_path

    def __call__(self, method, path, **given):
        async def ask():
            transport = httpx2.ASGITransport(app=self.app, root_path=self.root_path, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
                return await client.send(raw(client, method, path, given))

        return asyncio.run(ask())


def raw(client, method, path, given):
    request = client.build_request(method, "/", **given)
    request.url = request.url.copy_with(raw_path=path.encode())
    return request


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_behind_the_asgi_middleware(ascend_authority, ran, prefix):
    app = asgi.AscendMiddleware(ASGIHandler(), rules=RULES)
    story(ascend_authority, ran, Asking(app, root_path=prefix), prefix)
    asyncio.run(app.aclose())


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_behind_the_wsgi_middleware(ascend_authority, ran, prefix):
    app = wsgi.AscendMiddleware(WSGIHandler(), rules=RULES)

    def ask(method, path, **given):
        transport = httpx2.WSGITransport(app=app, script_name=prefix, raise_app_exceptions=False)
        with httpx2.Client(transport=transport, base_url="http://site") as client:
            return client.send(raw(client, method, path.removeprefix(prefix), given))

    story(ascend_authority, ran, ask, prefix)
    app.close()


def test_mounted_in_fastapi_it_is_one_unit(ascend_authority, ran):
    ascend_authority.approve()
    for match, status in (("GET /legacy/health", 403), ("* /legacy/**", 200)):
        app = FastAPI()
        app.mount("/legacy", ASGIHandler())
        guarded = asgi.AscendMiddleware(app, rules={"rule": [{"match": match, "action_type": "legacy"}]})
        assert Asking(guarded)("GET", "/legacy/health").status_code == status
        asyncio.run(guarded.aclose())
    assert [asked.action_type for asked in ascend_authority.asked] == ["legacy"]


def test_mounted_in_fastapi_with_a_guard_of_its_own(ascend, ascend_authority, ran):
    ascend_authority.approve()
    with override_settings(MIDDLEWARE=["ascend_middleware.django.AscendMiddleware"]):
        app = FastAPI()
        app.mount("/legacy", ASGIHandler())
        ask = Asking(app)
        assert ask("GET", "/legacy/customers/7").json()["outcome"] == "allowed"
        assert ask("GET", "/legacy/unlisted").status_code == 403
    assert [asked.resource for asked in ascend_authority.asked] == ["GET /customers/{customer_id:int}"]
