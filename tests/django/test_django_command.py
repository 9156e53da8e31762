"""`manage.py ascend`: the project's routes, one request explained, and a check of rules against routes."""

import json
from pathlib import Path

import django_site
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.test import override_settings
from django.urls import path
from kit.processes import python

from ascend_middleware.cli import main

RULES = [
    {"match": "GET /customers/{customer_id}", "action_type": "data_access"},
    {
        "endpoint": "shop:orders:refund",
        "match": "POST /**",
        "action_type": "refund",
        "details": {"card": "body.card_number", "amount": "body.amount"},
    },
    {"endpoint": "custmer", "action_type": "x"},
]
CONFIG = {
    "rules": {"rule": RULES},
    "agent_id": "bot",
    "api_url": "http://127.0.0.1:1",
    "api_key": "owkai_test_0123456789abcdef",
}


class Health:
    """A URL configuration."""

    urlpatterns = [path("health", django_site.search)]


@pytest.fixture(autouse=True)
def setting():
    with override_settings(ASCEND=CONFIG):
        yield


def run(capsys, *arguments, **options):
    with pytest.raises(SystemExit) as ended:
        call_command("ascend", *arguments, **options)
    return ended.value.code, *capsys.readouterr()


def test_routes(capsys):
    code, out, err = run(capsys, "routes", "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert (listed["framework"], listed["guarded"]) == ("Django", True)
    found = {(row["method"], row["route"]): row for row in listed["routes"]}
    assert found["POST", "/shop/orders/{number:int}/refund"]["standing"] == "governed"
    assert ("*", "/de/about") in found
    assert {row["endpoint"] for row in listed["routes"]} >= {"customer", "things-list", "django_site.decorated"}


def test_routes_as_text_and_for_ci(capsys):
    code, out, _ = run(capsys, "routes", "--fail-unmapped")
    assert code == 1
    assert "UNMAPPED" in out
    assert "/customers/{customer_id:int}" in out
    assert "did you mean customer?" in out
    # A function runs for any method, and a rule that names some leaves the others out.
    covered = [{"match": "GET /health", "exempt": True}]
    with override_settings(ASCEND={**CONFIG, "rules": {"rule": covered}}, ROOT_URLCONF=Health):
        code, out, _ = run(capsys, "routes", "--fail-unmapped")
        assert (code, "others" in out) == (0, True)
    code, out, _ = run(capsys, "routes", "--suggest")
    assert (code, "[[rule]]" in out) == (0, True)


def test_routes_of_another_host(capsys):
    code, out, _ = run(capsys, "routes", "--json", urlconf="django_site_other")
    assert code == 0
    assert [row["endpoint"] for row in json.loads(out)["routes"]][0] == "django_site_other:health"


def test_explain(capsys):
    body = json.dumps({"amount": 5, "card_number": "4111111111111111"})
    code, out, _ = run(capsys, "explain", "POST /shop/orders/7/refund", "--body", body, "--json")
    found = json.loads(out)
    assert (code, found["outcome"], found["endpoint"]) == (0, "ask", "shop:orders:refund")
    assert found["payload"]["action_details"]["amount"] == 5
    assert "4111" not in out
    code, out, _ = run(capsys, "explain", "GET /customers/%2e%2e/x")
    assert (code, "refused with 400" in out) == (0, True)
    code, out, _ = run(capsys, "explain", "GET /nothing-here")
    assert "the framework answers it itself" in out


def test_check(capsys):
    code, out, err = run(capsys, "check")
    assert (code, out.startswith("ok: 3 rules")) == (0, True)
    assert "note: rule 3 (endpoint custmer) can never match" in err
    with override_settings(ASCEND={**CONFIG, "deadlin": 3}):
        code, _, err = run(capsys, "check")
        assert (code, "deadlin" in err) == (1, True)
    wrong = [{"endpoint": "customer", "action_type": "x", "resource_id": "{path.nothing}"}]
    with override_settings(ASCEND={**CONFIG, "rules": {"rule": wrong}}):
        code, _, err = run(capsys, "check")
        assert (code, "path.nothing is not in the route's template" in err) == (1, True)
    with override_settings(MIDDLEWARE=[]):
        code, _, err = run(capsys, "check")
        assert (code, "ascend.E" in err) == (1, True)


def make():
    return WSGIHandler()


def test_an_application_is_found_by_its_name_too(capsys):
    assert main(["routes", "test_django_command:make()", "--json", "--app-dir", str(Path(__file__).parent)]) == 0
    assert json.loads(capsys.readouterr().out)["framework"] == "Django"


MANAGE = """
import sys
sys.path[:0] = [{folder!r}]
import pathlib, tempfile, django_project
from django.conf import settings
settings.configure(
    **django_project.options(pathlib.Path(tempfile.mkdtemp())), ASCEND={{"rules": {{}}, "agent_id": "bot", "api_key": {key!r}}}
)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["check"], 1, "ascend.E003"),
        (["check", "--tag", "ascend"], 1, "ascend.E003"),
        (["ascend", "routes", "--pythonpath", "."], 0, "UNMAPPED"),
        (["ascend", "routes", "--help"], 0, "--fail-unmapped"),
        (["ascend", "nothing"], 2, "invalid choice"),
        (["ascend", "check"], 1, "ascend.E003"),
    ],
)
def test_on_the_command_line(arguments, code, text):
    program = MANAGE.format(folder=str(Path(__file__).parent), key="short")
    done = python("-c", program, *arguments)
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
