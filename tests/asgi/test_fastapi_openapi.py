"""What FastAPI's OpenAPI documents tell of the guard, and that it is true."""

import asyncio
import gc
import json
import re
import weakref

import jsonschema
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from kit.asgi import ask, get, guard, inside
from kit.engine import answer, failed
from openapi_spec_validator import validate
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.fastapi import governed, openapi
from ascend_middleware.verdict import REFUSALS

GOVERNED = {202, 400, 403, 408, 409, 413, 422, 429, 500, 503}
DOCUMENTS = {"match": ["GET /openapi.json", "GET /sub/openapi.json", "GET /sub/deep/openapi.json"], "exempt": True}


class Refund(BaseModel):
    amount: int


def served(app, path="/openapi.json", **more):
    """The document as a client gets it, which is valid."""
    wire = asyncio.run(get(app, path, **more))
    assert wire.status == 200, wire.body
    document = json.loads(wire.body)
    validate(document)
    return document


def operation(document, method, path):
    return document["paths"][path][method.lower()]


def statuses(found):
    return {int(status) for status, told in found["responses"].items() if "Ascend" in str(told)}


def told(document):
    """Every operation with its action type and what was added."""
    return {
        f"{method.upper()} {path}": (found.get("x-ascend-action"), statuses(found))
        for path, item in document["paths"].items()
        for method, found in item.items()
    }


def run():
    return "ran"


def handler(path):
    """A handler with the parameters of a path."""
    names = re.findall(r"\{(\w+)", path)
    return eval(f"lambda {', '.join(names)}: 'ran'")


def site(*routes, app=None, **given):
    app = app or FastAPI(**given)
    for route in routes:
        method, path = route.split()
        app.add_api_route(path, handler(path), methods=[method])
    return app


@pytest.fixture(autouse=True)
def _engine(engine):
    return engine


def test_each_standing_is_told():
    app = site("GET /read", "POST /pay", "GET /open", "GET /shut", "GET /forgotten", "PUT /seen")
    rules = [
        DOCUMENTS,
        {"match": "GET /read", "action_type": "data_access"},
        {"match": "POST /pay", "action_type": "transaction", "details": {"amount": "body.amount"}},
        {"match": "GET /open", "exempt": True},
        {"match": "GET /shut", "block": "closed"},
        {"match": "PUT /seen", "action_type": "seen", "mode": "observe"},
    ]
    bare = site("GET /read", "POST /pay", "GET /open", "GET /shut", "GET /forgotten", "PUT /seen").openapi()
    document = served(inside(app, rules))
    assert told(document) == {
        "GET /read": ("data_access", GOVERNED - {408}),
        "POST /pay": ("transaction", GOVERNED),
        "GET /open": (None, set()),
        "GET /shut": (None, {400, 403}),
        "GET /forgotten": (None, {400, 403}),
        "PUT /seen": ("seen", GOVERNED),  # that it is only observed is not told
    }
    assert operation(document, "GET", "/open") == operation(bare, "GET", "/open")
    schema = document["components"]["schemas"]["AscendProblem"]
    assert {one.rpartition(":")[2] for one in schema["properties"]["type"]["enum"]} == set(REFUSALS)


def test_a_table_by_method_governs_everything():
    app = site("GET /a/{x}", "DELETE /a/{x}")
    app.add_middleware(
        AscendMiddleware, agent_id="bot", api_url="https://authority.example", api_key="owkai_test_0123456789"
    )
    assert {name: kind for name, (kind, _) in told(served(app)).items()} == {
        "GET /a/{x}": "data_access",
        "DELETE /a/{x}": "data_modification",
    }


def test_two_rules_for_one_method_contradict_each_other():
    app = FastAPI()
    one, other = Depends(governed(action_type="one")), Depends(governed(action_type="other"))
    app.add_api_route("/x", run, dependencies=[one, other])
    assert told(served(inside(app, [DOCUMENTS]))) == {"GET /x": (None, {500})}


def test_rules_for_parts_of_a_route_make_a_list():
    app = site("GET /files/{name:path}")
    rules = [
        {"match": "GET /openapi.json", "exempt": True},
        {"match": "GET /files/secret/**", "action_type": "secret"},
        {"match": "GET /files/public/**", "exempt": True},
        {"match": "GET /files/own/{name}", "action_type": "file"},
    ]
    ((name, (kinds, added)),) = told(served(inside(app, rules))).items()
    assert (name, sorted(kinds), added) == ("GET /files/{name}", ["file", "secret"], GOVERNED - {408, 422})


def test_routers_with_prefixes_dependencies_and_endpoints():
    inner = APIRouter(prefix="/inner", dependencies=[Depends(governed(action_type="at_the_router"))])
    inner.add_api_route("/{number:int}", handler("{number}"), methods=["POST"], name="change")
    outer = APIRouter(prefix="/outer")
    outer.include_router(inner)
    outer.add_api_route("/plain", run, name="plain")
    app = FastAPI()
    app.include_router(outer, prefix="/v1")
    inside(app, [DOCUMENTS, {"endpoint": "plain", "action_type": "by_name"}])
    document = served(app, "/api/openapi.json", root_path="/api")
    assert document["servers"] == [{"url": "/api"}]
    assert told(document) == {
        "POST /v1/outer/inner/{number}": ("at_the_router", GOVERNED - {422}),  # FastAPI tells that one itself
        "GET /v1/outer/plain": ("by_name", GOVERNED - {408}),
    }


def shop(**given):
    """An application with a mounted one that has one, too."""
    app, sub, deep = FastAPI(**given), FastAPI(), FastAPI()
    site("GET /top", app=app), site("GET /mid/{n}", app=sub), site("GET /low/{n}", app=deep)
    app.mount("/sub", sub)
    sub.mount("/deep", deep)
    return app


SHOP = [
    DOCUMENTS,
    {"match": "GET /top", "action_type": "top"},
    {"match": "GET /sub/mid/{n}", "action_type": "mid"},
    {"match": "GET /sub/deep/low/{n}", "action_type": "low"},
]


def test_mounted_applications_tell_it_in_their_own_documents():
    app = inside(shop(), SHOP)
    kinds = [
        {name: kind for name, (kind, _) in told(served(app, path)).items()}
        for path in ("/sub/deep/openapi.json", "/openapi.json", "/sub/openapi.json")
    ]
    assert kinds == [{"GET /low/{n}": "low"}, {"GET /top": "top"}, {"GET /mid/{n}": "mid"}]


@pytest.mark.parametrize("outer", [Starlette, FastAPI])
def test_a_sub_application_below_middleware_and_plain_mounts(outer):
    sub = site("GET /x")
    middleware = [Middleware(lambda app: app)]
    routes = [Mount("/a", routes=[Mount("/b", app=sub, middleware=middleware), Route("/c", lambda request: None)])]
    rules = [{"match": "GET /a/b/openapi.json", "exempt": True}, {"match": "GET /a/b/x", "action_type": "x"}]
    app = inside(outer(routes=routes), rules)
    assert told(served(app, "/a/b/openapi.json"))["GET /x"][0] == "x"


def test_what_is_mounted_and_added_later_is_told():
    names = {"first": "/first", "second": "/second", "late": "/late/x"}
    rules = [{"match": f"GET {path}", "action_type": name} for name, path in names.items()]
    rules.append({"match": ["GET /openapi.json", "GET /late/openapi.json"], "exempt": True})
    app = inside(site("GET /first"), rules)
    assert told(served(app))["GET /first"][0] == "first"
    app.mount("/late", site("GET /x"))
    site("GET /second", app=app)
    app.openapi_schema = None  # older versions of FastAPI keep the document whatever becomes of the routes
    assert told(served(app))["GET /second"][0] == "second"
    assert told(served(app, "/late/openapi.json"))["GET /x"][0] == "late"


def test_a_sub_application_of_several_tells_all_that_governs_it():
    sub = site("GET /x", "GET /y")
    one, other, bare = FastAPI(), FastAPI(), FastAPI()
    for app in (one, other, bare):
        app.mount("/sub", sub)
    inside(one, [DOCUMENTS, {"match": "GET /sub/x", "action_type": "one"}, {"match": "GET /sub/y", "exempt": True}])
    inside(other, [DOCUMENTS, {"match": "GET /sub/x", "action_type": "other"}, {"match": "GET /sub/y", "exempt": True}])
    for app in (one, other):
        served(app, "/sub/openapi.json")
    assert told(served(bare, "/sub/openapi.json")) == {
        "GET /x": (["one", "other"], GOVERNED - {408}),
        "GET /y": (None, set()),
    }


def test_a_guard_around_an_application_is_told_until_it_is_gone():
    app = site("GET /x")
    plain = app.openapi()
    around = guard(app, [{"match": "GET /x", "action_type": "x"}])
    assert told(app.openapi())["GET /x"][0] == "x"
    assert app.openapi() is app.openapi_schema
    seen = weakref.ref(around.guard)
    del around
    gc.collect()
    assert seen() is None
    assert app.openapi() == plain == app.openapi_schema


# What the application says itself.


def test_what_the_application_documents_stays_as_it_is():
    mine = {"description": "mine", "content": {"application/json": {"schema": {"type": "string"}}}}
    app = FastAPI(responses={503: mine})
    app.add_api_route("/a", run, responses={403: mine, "default": mine}, openapi_extra={"x-ascend-action": "mine"})
    app.add_api_route("/b", run, responses={"4XX": mine}, response_model=Refund, status_code=202)
    app.add_api_route("/c/{n}", lambda n: n, deprecated=True)
    before = json.loads(json.dumps(app.openapi()))
    app.openapi_schema = None
    document = served(inside(app, [DOCUMENTS, {"match": "GET /**", "action_type": "x"}]))
    for path in ("/a", "/b", "/c/{n}"):
        own, now = operation(before, "GET", path), operation(document, "GET", path)
        assert now["responses"].items() >= own["responses"].items()
        assert {**now, "responses": None, "x-ascend-action": None} == {
            **own,
            "responses": None,
            "x-ascend-action": None,
        }
    assert operation(document, "GET", "/a")["x-ascend-action"] == "mine"
    assert statuses(operation(document, "GET", "/a")) == GOVERNED - {403, 408, 503}
    assert statuses(operation(document, "GET", "/b")) == {500}
    assert statuses(operation(document, "GET", "/c/{n}")) == GOVERNED - {408, 422, 503}


def test_a_model_of_the_same_name_keeps_it():
    class AscendProblem(BaseModel):
        mine: int

    app = FastAPI()
    app.add_api_route("/x", run, response_model=AscendProblem)
    document = served(inside(app, [DOCUMENTS, {"match": "GET /x", "action_type": "x"}]))
    assert document["components"]["schemas"]["AscendProblem"]["properties"].keys() == {"mine"}
    content = document["components"]["responses"]["Ascend403"]["content"]["application/problem+json"]
    assert content["schema"]["$ref"].endswith("/AscendProblem_")


def test_hidden_routes_webhooks_and_handshakes_are_not_told():
    app = site("GET /shown")
    app.add_api_route("/hidden", run, include_in_schema=False)
    app.add_api_websocket_route("/socket", lambda websocket: None)
    app.webhooks.add_api_route("new-order", run, methods=["POST"])
    rules = [
        {"match": f"{route}", "action_type": "secret"}
        for route in ("GET /hidden", "WEBSOCKET /socket", "POST /new-order")
    ]
    rules += [
        DOCUMENTS,
        {
            "name": "the-rule",
            "match": "GET /shown",
            "action_type": "x",
            "resource": "of-the-rule",
            "on_failure": "open",
            "details": {"why": "query.of-the-rule?"},
        },
    ]
    document = served(inside(app, rules, journal="memory:"))
    text = json.dumps(document)
    assert told(document).keys() == {"GET /shown"} and "x-ascend" not in json.dumps(document["webhooks"])
    assert not [word for word in ("secret", "the-rule", "on_failure", "hidden", "socket") if word in text]


# The application's own function, and FastAPI's cache.


def own_document(app, title="mine"):
    def made():
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title=title, version="7", routes=app.routes)
            app.openapi_schema["info"]["x-logo"] = "logo"
        return app.openapi_schema

    return made


RULE = [DOCUMENTS, {"match": "GET /x", "action_type": "x"}]


@pytest.mark.parametrize("when", ["before", "after", "around", "at start"])
def test_a_function_of_its_own_keeps_working_whenever_it_was_given(when):
    app = site("GET /x")
    serves = app
    if when == "before":
        app.openapi = own_document(app)
        inside(app, RULE)
    elif when == "around":
        serves = guard(app, RULE)
        app.openapi = own_document(app)
    elif when == "after":
        inside(app, RULE)
        app.openapi = own_document(app)
    else:
        inside(app, RULE)
        app.openapi()
        app.openapi_schema = None
        app.openapi = own_document(app)
    for _ in range(2):
        document = served(serves)
        assert document["info"] == {"title": "mine", "version": "7", "x-logo": "logo"}
        assert told(document)["GET /x"][0] == "x"


def test_a_function_that_builds_on_the_one_before_it():
    app = inside(site("GET /x"), RULE)
    served(app)
    before = app.openapi

    def mine():
        document = before()
        document["x-mine"] = True
        return document

    app.openapi = mine
    assert all(served(app)["x-mine"] and told(served(app))["GET /x"][0] == "x" for _ in range(2))


def test_a_method_of_its_own_class_counts():
    class Own(FastAPI):
        def openapi(self):
            return {**super().openapi(), "x-mine": True}

    document = served(inside(site("GET /x", app=Own()), RULE))
    assert document["x-mine"] and told(document)["GET /x"][0] == "x"


def test_what_was_kept_before_the_guard_came_is_told_and_may_be_dropped():
    app = site("GET /x")
    kept = app.openapi()
    inside(app, RULE)
    assert told(served(app))["GET /x"][0] == "x" and "x-ascend-action" not in json.dumps(kept)
    assert app.openapi() is app.openapi() is app.openapi_schema
    app.openapi()["info"]["title"] = "changed in place"
    assert served(app)["info"]["title"] == "changed in place"
    app.openapi_schema = None
    assert served(app)["info"]["title"] == "FastAPI"


def test_before_it_serves_a_script_gets_what_will_be_served(monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    app = site("GET /x")
    app.add_middleware(AscendMiddleware, rules={"rule": RULE}, agent_id="bot", render=lambda *answer: answer)
    written = openapi(app)
    validate(written)
    assert told(written)["GET /x"][0] == "x"
    assert "content" not in written["components"]["responses"]["Ascend403"]
    assert "x-ascend-action" not in json.dumps(app.openapi())  # nobody governs it yet
    other = inside(site("GET /x"), RULE)
    assert openapi(other) == served(other) == openapi(other)


def test_a_renderer_leaves_responses_without_a_schema():
    app = inside(site("GET /x"), RULE, render=lambda *answer: answer)
    document = served(app)
    assert document["components"]["responses"]["Ascend403"].keys() == {"description"}
    assert "schemas" not in document["components"]


@pytest.mark.parametrize("setting", ["openapi", "enabled"])
def test_it_can_be_switched_off(setting):
    assert told(served(inside(site("GET /x"), RULE, **{setting: False}))) == {"GET /x": (None, set())}


def test_an_application_without_a_document_has_none():
    app = inside(site("GET /x", openapi_url=None), RULE)
    assert asyncio.run(get(app, "/openapi.json")).status == 404
    plain = inside(Starlette(routes=[Route("/x", lambda request: PlainTextResponse("ran"))]), RULE)
    assert asyncio.run(get(plain, "/x")).status == 200
    assert not hasattr(plain, "openapi")


# The refusals are the ones that are told.


def pay(app, *, body=b'{"amount": 5}', headers=()):
    return ask(app, "/pay", body=body, headers=(("content-type", "application/json"), *headers))


SLOW = [{"type": "http.request", "body": b"{", "more_body": True}]
REAL = {
    (403, "denied"): (answer("denied", reason="no"), {}),
    (403, "modification-required"): (answer("requires_modification", conditions=["less"]), {}),
    (403, "approval-required"): (answer("pending"), {}),
    (202, "approval-required"): (answer("pending"), {"headers": (("prefer", "respond-async"),)}),
    (400, "bad-request"): (answer(), {"body": b'{"amount": 5, "amount": 6}'}),
    (408, "body-timeout"): (answer(), {"body": SLOW}),
    (409, "approval-mismatch"): (answer(), {"headers": (("ascend-approval", "x" * 43),)}),
    (413, "body-too-large"): (answer(), {"body": b'{"amount": 5' + b" " * 200 + b"}"}),
    (422, "bad-request"): (failed(422, b'{"detail": "no"}'), {}),
    (500, "misconfigured"): (failed(401), {}),
    (503, "unavailable"): (failed(500), {}),
    (503, "kill-switch"): (failed(403, b'{"detail": {"code": "AGENT_BLOCKED"}}'), {}),
}


@pytest.mark.parametrize("refusal", REAL, ids=lambda one: f"{one[0]}-{one[1]}")
def test_each_refusal_is_told_and_looks_as_told(refusal, engine):
    status, problem = refusal
    scripted, given = REAL[refusal]
    engine.answers = [scripted]
    app = FastAPI()
    site("POST /pay", app=app)
    rule = {"match": "POST /pay", "action_type": "pay", "details": {"amount": "body.amount"}, "body_limit": 100}
    inside(app, [DOCUMENTS, {**rule, "body_timeout": 0.05}])
    document = served(app)
    wire = asyncio.run(pay(app, **given))
    assert (wire.status, wire.problem) == refusal
    found = operation(document, "POST", "/pay")["responses"][str(status)]
    response = document["components"]["responses"][found["$ref"].rpartition("/")[2]]
    assert problem in response["description"]
    (kind,) = response["content"]
    assert wire.headers["content-type"] == kind
    jsonschema.validate(wire.json, document["components"]["schemas"]["AscendProblem"])
    optional = {name.lower() for name in response.get("headers", ())}
    assert {name for name in wire.headers if name in ("retry-after", "ascend-approval", "ascend-action-id")} <= optional


@pytest.mark.slow
def test_generated_requests_get_what_the_document_tells(engine):
    # The lowest versions of all else do not go together with it; the main run has it.
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import CHECKS  # noqa: F401
    from schemathesis.specs.openapi import checks as known

    class Kind(BaseModel):
        amount: int
        note: str = ""

    app = FastAPI()

    @app.post("/refunds/{n}")
    def refund(n: int, body: Kind) -> Kind:
        return body

    site("GET /read/{name}", app=app)
    app.add_api_route("/shut", run)
    rules = [
        DOCUMENTS,
        {
            "match": "POST /refunds/{n}",
            "action_type": "refund",
            "details": {"amount": "body.amount"},
            "body_limit": 300,
        },
        {"match": "GET /read/{name}", "action_type": "read", "resource_id": "{path.name}"},
        {"match": "GET /shut", "block": "closed"},
    ]
    words = [answer(), answer("denied"), answer("pending"), failed(429, retry_after="3"), failed(500), failed(401)]
    engine.answers = [lambda request: words[len(engine.requests) % len(words)]]
    schema = schemathesis.openapi.from_asgi("/openapi.json", inside(app, rules, enable_circuit_breaker=False))
    seen = set()
    for found in schema.get_all_operations():
        checks = [known.status_code_conformance, known.content_type_conformance, known.response_schema_conformance]

        @settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=found.ok().as_strategy())
        def generated(case):
            response = case.call()
            case.validate_response(response, checks=checks)
            seen.add((case.path, response.status_code))

        generated()
    assert {status for path, status in seen if path == "/refunds/{n}"} >= {200, 403, 500, 503}
    assert {status for path, status in seen if path == "/shut"} == {403}
