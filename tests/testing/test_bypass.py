"""The bypass pack finds the hole of a broken guard, and finds none where the guard is whole."""

import json
import sys
from pathlib import Path

import pytest

from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.testing.bypass.attacks import corpus, wire_form
from ascend_middleware.testing.bypass.trial import Trial

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.socket

APPS = Path(__file__).parents[1] / "apps"
DJANGO = Path(__file__).parents[2] / "examples" / "django_project"


def tried(app, *only, directory=APPS, **options):
    """Attack the routes, or `only` some of them; return what was found by route."""
    trial = Trial(app, directory=str(directory), **options)
    try:
        trial.start()
        routes = [one for one in trial.routes if not one["exempt"] and (not only or one["route"] in only)]
        found = {one["route"]: trial.attack(one) for one in routes}
        assert trial.afterwards() == []
        return found
    finally:
        trial.stop()


def holes(found):
    return {route: {one["attack"] for one in row["ran"]} for route, row in found.items() if row["ran"]}


GUNICORN = "gunicorn --workers 2 -b 127.0.0.1:{port} {app}"
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("app", "options"),
    [
        pytest.param("bypass_asgi:star", {}, id="starlette", marks=slow),
        pytest.param("bypass_wsgi:flask", {}, id="flask", marks=slow),
        pytest.param("bypass_asgi:governed", {}, id="fastapi", marks=slow),
        pytest.param("bypass_asgi:star", {"server": "hypercorn -b 127.0.0.1:{port} {app}"}, id="hypercorn", marks=slow),
        pytest.param("bypass_asgi:unit", {}, id="asgi", marks=slow),
        pytest.param("bypass_wsgi:wsgi", {"handlers": ["bypass_wsgi:pay"]}, id="wsgi", marks=slow),
        pytest.param("bypass_wsgi:flask", {"server": GUNICORN}, id="gunicorn", marks=slow),
        pytest.param("shop.wsgi:application", {"directory": DJANGO}, id="django", marks=slow),
        pytest.param("shop.asgi:application", {"directory": DJANGO}, id="django-asgi", marks=slow),
    ],
)
def test_nothing_slips_past_a_guard_that_is_whole(app, options):
    found = tried(app, **options)
    assert found
    assert holes(found) == {}
    assert {route: (row["met"], row["watched"]) for route, row in found.items()} == dict.fromkeys(found, (True, True))
    assert all(row["answers"].keys() == {one.name for one in corpus()} for row in found.values())


def test_a_guard_asked_by_the_paths_spelling_has_holes():
    found = holes(tried("bypass_asgi:holed"))
    assert found["GET /admin/export"] == {"newline"}
    assert {"dot segment", "trailing slash"} <= found["GET /files/**"]
    assert found["WEBSOCKET /trades"] == {"newline", "WebSocket with a newline"}


@slow
def test_a_hole_is_found_though_the_framework_would_refuse_the_body():
    found = tried("bypass_asgi:holed_before_validation")["POST /payments/{id}"]
    assert "newline" in {one["attack"] for one in found["ran"]}
    assert found["answers"]["newline"] == "422"


@slow
def test_functions_behind_a_guard_that_knows_paths_only_can_be_named():
    found = tried("bypass_wsgi:holed", "POST /pay", handlers=["bypass_wsgi:pay"])
    assert {"trailing slash", "upper case"} <= holes(found)["POST /pay"]
    assert {one["handler"] for one in found["POST /pay"]["ran"]} >= {"bypass_wsgi:pay"}


@slow
def test_what_cannot_be_tried_is_said():
    with pytest.raises(ConfigurationError, match="has no guard"):
        tried("bypass_asgi:ungoverned")
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        tried("bypass_asgi_missing:app")
    with pytest.raises(ConfigurationError, match="does not serve the application:\nno such thing"):
        tried("bypass_asgi:governed", server=f"{sys.executable} -c \"print('no such thing')\"")


def test_a_run_of_pytest_reports_for_auditors(pytester):
    (pytester.path / "test_own.py").write_text("raise SystemExit('not collected')")
    # Other plugins that happen to be here cost a run more time than its tests.
    others = [f"-pno:{name}" for name in ("cacheprovider", "faker", "schemathesis", "django", "flask", "xdist", "cov")]
    options = ("--ascend-bypass", "bypass_asgi:holed_before_validation", "--ascend-bypass-dir", str(APPS))
    done = pytester.runpytest_subprocess(*others, *options, "--ascend-bypass-report", "audit")
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["newline (a newline at the end*) ran POST /payments/{id}, answered 422: *"])
    report = json.loads((pytester.path / "audit.json").read_text())
    (route,) = report["routes"]
    assert (report["result"], report["exempt"]) == ("not proven", ["GET /open"])
    assert route["answers"]["plain"] == "403"
    assert (
        f"| `POST /payments/{{id}}` | governed | `/payments/7` | {len(corpus())} | "
        in (pytester.path / "audit.md").read_text()
    )


@pytest.mark.parametrize("attack", corpus(), ids=lambda one: one.name)
def test_every_attack_is_about_the_route(attack):
    sent = wire_form(attack, method="POST", path="/admin/users/7", exempt="/open", headers=("X-Key: 1",))
    assert b"X-Key: 1" in sent or attack.name == "without a version"
    assert b"{" not in sent.partition(b"\r\n\r\n")[0] and len(sent) < 1000
