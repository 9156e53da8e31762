"""What drf-spectacular's document of a governed project tells, and that it is true."""

import io
import json

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from django.test import Client, override_settings
from drf_spectacular.management.commands.spectacular import Command
from drf_spectacular.settings import patched_settings
from openapi_spec_validator import validate

GOVERNED = {202, 400, 403, 408, 409, 413, 422, 429, 500, 503}
HOOKS = ["drf_spectacular.hooks.postprocess_schema_enums", "ascend_middleware.django.describe_refusals"]
RULES = [
    {"match": "GET /schema", "exempt": True},
    {"match": "GET /api/health", "exempt": True},
    {"match": "GET /api/refunds", "action_type": "list"},
    {"match": "POST /api/refunds", "action_type": "refund", "details": {"amount": "body.amount"}},
    {"match": "GET /api/refunds/{pk}", "action_type": "read"},
    {"endpoint": "refunds-cancel", "match": "POST /**", "action_type": "cancel"},
    {"endpoint": "report", "action_type": "report", "match": "GET /**"},
    {"match": "GET /api/{version}/versioned", "block": "closed"},
]
TOLD = {
    "GET /api/health": (None, set()),
    "GET /api/refunds/": ("list", GOVERNED - {408}),
    "POST /api/refunds/": ("refund", GOVERNED),
    "GET /api/refunds/{id}/": ("read", GOVERNED - {408}),
    "DELETE /api/refunds/{id}/": ("at_the_view", GOVERNED),
    "POST /api/refunds/{id}/cancel/": ("cancel", GOVERNED),
    "GET /api/reports/{year}/": ("report", GOVERNED - {403, 408}),
}


def served():
    """Serve the views of REST framework, which take their schemas from the settings when they are imported."""
    rest = {**settings.REST_FRAMEWORK, "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
    return override_settings(ROOT_URLCONF="django_site_rest", REST_FRAMEWORK=rest)


@pytest.fixture
def project(ascend, ascend_authority):
    """Serve the project of REST framework with other settings of drf-spectacular; return its document."""
    ascend(RULES)

    def document(version="", **given):
        own = {"POSTPROCESSING_HOOKS": HOOKS, **given}
        with served(), patched_settings(own):
            answer = Client().get(
                "/schema", {"version": version} if version else {}, headers={"accept": "application/json"}
            )
            found = json.loads(answer.content)
        assert answer.status_code == 200, found
        validate(found)
        return found

    return document


def told(document):
    return {
        f"{method.upper()} {path}": (
            found.get("x-ascend-action"),
            {int(status) for status, response in found["responses"].items() if "Ascend" in str(response)},
        )
        for path, item in document["paths"].items()
        for method, found in item.items()
    }


def test_view_sets_views_and_functions_are_told(project):
    document = project()
    assert told(document) == TOLD
    report = document["paths"]["/api/reports/{year}/"]
    assert report["get"]["responses"]["403"] == {"description": "mine"} and report.keys() == {"get"}
    for word in ("closed", "resource", "refunds-cancel"):
        assert word not in json.dumps(document["components"])


@pytest.mark.parametrize("version", ["3.0.3", "3.1.1"])
def test_the_document_is_valid_in_both_versions_of_openapi(project, version):
    assert told(project(OAS_VERSION=version)) == TOLD


def test_a_version_in_the_path_is_followed(project):
    assert told(project(version="v2"))["GET /api/v2/versioned"] == (None, {400, 403})


def test_prefixes_that_were_cut_off_or_put_in_are_followed(project):
    cut = told(project(SCHEMA_PATH_PREFIX="/api", SCHEMA_PATH_PREFIX_TRIM=True))
    assert cut == {name.replace(" /api", " "): found for name, found in TOLD.items()}
    put = told(project(SCHEMA_PATH_PREFIX_INSERT="/shop"))
    assert put == {name.replace(" ", " /shop"): found for name, found in TOLD.items()}
    assert told(project(CAMELIZE_NAMES=True)) == TOLD


def test_it_is_told_by_the_command_too(project, monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    out = io.StringIO()
    with served(), patched_settings({"POSTPROCESSING_HOOKS": HOOKS}):
        call_command(Command(), stdout=out)
    found = yaml.safe_load(out.getvalue())
    validate(found)
    assert {**told(found), **TOLD} == told(found)


def test_it_can_be_switched_off_and_tells_nothing_where_nothing_guards(project, ascend, settings_without_guard):
    bare = {name: (None, set()) for name in TOLD}
    with settings_without_guard:
        assert told(project()) == bare
    ascend(RULES, openapi=False)
    assert told(project()) == bare
    ascend(RULES, enabled=False)
    assert told(project()) == bare
    ascend(RULES)
    assert told(project(POSTPROCESSING_HOOKS=HOOKS[:1])) == bare


@pytest.fixture
def settings_without_guard():
    return override_settings(MIDDLEWARE=[one for one in settings.MIDDLEWARE if "ascend" not in one])


def test_a_refusal_looks_as_told(project, ascend_authority):
    document = project()
    ascend_authority.hold()
    with served():
        answer = Client().post("/api/refunds/", b'{"amount": 5}', content_type="application/json")
    response = document["components"]["responses"][f"Ascend{answer.status_code}"]
    schema = response["content"][answer.headers["content-type"]]["schema"]
    assert schema == {"$ref": "#/components/schemas/AscendProblem"}
    jsonschema.validate(answer.json(), document["components"]["schemas"]["AscendProblem"])
