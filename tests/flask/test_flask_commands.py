"""`flask ascend …`, and what the guard says of its surroundings when an application starts."""

import importlib
import json
import logging
import os
import sys

import flask
import pytest
from kit.engine import options
from kit.processes import python
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.middleware.profiler import ProfilerMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Rule

from ascend_middleware.cli import main
from ascend_middleware.flask import Ascend, governed
from ascend_middleware.flask.install import check_application
from ascend_middleware.wsgi import AscendMiddleware

RULES = [
    {"match": "GET /items/{id}", "action_type": "read", "resource_id": "{path.id}"},
    {"match": "GET /static/**", "exempt": True},
    {"match": "GET /never", "exempt": True},
]


def make(rules=RULES, **settings):
    app = flask.Flask("site")
    app.add_url_rule("/items/<int:id>", "items", lambda id: "x")
    app.add_url_rule("/pay", "pay", governed(action_type="pay")(lambda: "x"), methods=["POST"])
    app.add_url_rule("/bare", "bare", lambda: "x", methods=["PUT"])
    Ascend(app, **options(rules, **settings))
    return app


def run(app, *arguments):
    result = app.test_cli_runner().invoke(args=["ascend", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("missing", "said"), [("flask", r"add the extra ascend-middleware\[flask\]"), ("click", "click")]
)
def test_what_is_not_installed_is_named(monkeypatch, missing, said):
    for name in [name for name in sys.modules if name.partition(".")[0] in (missing, "flask")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("ascend_middleware.flask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=said) as caught:
        importlib.import_module("ascend_middleware.flask")
    assert caught.value.name == missing


def test_routes_lists_what_governs_each(engine):
    code, output = run(make(), "routes", "--json")
    found = json.loads(output[: output.rindex("}") + 1])
    assert code == 0
    assert (found["framework"], found["guarded"]) == ("Flask", True)
    rows = {(row["method"], row["route"]): row["standing"] for row in found["routes"]}
    assert rows == {
        ("GET", "/static/{filename:path}"): "exempt",
        ("HEAD", "/static/{filename:path}"): "exempt",
        ("GET", "/items/{id:int}"): "governed",
        ("HEAD", "/items/{id:int}"): "governed",
        ("POST", "/pay"): "governed",
        ("PUT", "/bare"): "unmapped",
    }


def test_only_trees_of_static_files_are_listed_as_such(engine):
    app = make()
    for name in ("shop", "ecstatic"):
        blueprint = flask.Blueprint(name, name, static_folder="files", static_url_path=f"/{name}")
        app.register_blueprint(blueprint)
    app.add_url_rule("/x", "shop.ecstatic", lambda: "x")
    app.add_url_rule("/y", "ecstatic", lambda: "x")
    _, output = run(app, "routes", "--json")
    kinds = {row["endpoint"]: row["kind"] for row in json.loads(output[: output.rindex("}") + 1])["routes"]}
    assert kinds == {
        **dict.fromkeys(["static", "shop.static", "ecstatic.static"], "static"),
        **dict.fromkeys(["items", "pay", "bare", "shop.ecstatic", "ecstatic"], "route"),
    }


@pytest.mark.parametrize(
    ("more", "redirects", "listed"),
    [
        ({}, True, True),
        ({"build_only": True}, True, False),
        ({"redirect_to": "/items/1"}, True, False),
        ({"alias": True}, True, False),
        ({"alias": True}, False, True),
    ],
)
def test_what_never_comes_to_a_view_is_not_listed(engine, more, redirects, listed):
    app = make()
    app.url_map.redirect_defaults = redirects
    app.url_map.add(Rule("/more", endpoint="bare", **more))
    assert (" /more " in run(app, "routes")[1]) is listed


def test_routes_may_fail_for_what_is_not_covered(engine):
    assert run(make(), "routes", "--fail-unmapped")[0] == 1
    covered = [*RULES, {"match": "PUT /bare", "action_type": "bare"}]
    assert run(make(covered), "routes", "--fail-unmapped")[0] == 0


def test_explain_tells_the_rule_and_what_would_be_sent(engine):
    code, output = run(make(), "explain", "GET /items/7")
    assert code == 0
    assert "read" in output
    assert "7" in output
    code, output = run(make(), "explain", "PUT /bare")
    assert "unmapped" in output


def test_help_speaks_of_flask(engine):
    code, output = run(make(), "routes", "--help")
    assert code == 0
    assert "flask ascend routes" in output
    assert "module:name" not in output


def test_explain_asks_about_the_host_that_is_given(engine):
    app = flask.Flask("site", host_matching=True, static_host="shop.example")
    app.add_url_rule("/a", "a", lambda: "x", host="shop.example")
    Ascend(app, **options([{"match": "GET /**", "action_type": "shop"}]))
    told = run(app, "explain", "GET /a", "--header", "Accept: */*", "--header", "Host: shop.example")[1]
    assert "shop" in told
    assert "404" not in told
    assert told != run(app, "explain", "GET /a", "--header", "Accept: shop.example")[1]


def test_check_is_content_with_a_good_application(engine):
    result = make().test_cli_runner().invoke(args=["ascend", "check"])
    assert (result.exit_code, result.stdout) == (0, "ok: 3 rules, 4 rows of routes\n")
    assert "can never match" in result.stderr


def test_check_names_what_the_guard_cannot_see(engine):
    app = make()
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/bare": flask.Flask("bare")})
    result = app.test_cli_runner().invoke(args=["ascend", "check"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "flask.unguarded-mount" in result.stderr
    assert "/bare" in result.stderr


def test_the_package_s_own_command_line_knows_flask(engine, tmp_path, monkeypatch, capsys):
    (tmp_path / "some_flask_site.py").write_text(
        "import flask\nfrom ascend_middleware.flask import Ascend\n"
        "app = flask.Flask('site')\napp.add_url_rule('/a', 'a', lambda: 'x')\n"
        f"Ascend(app, **{options(RULES)!r})\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["routes", "some_flask_site:app", "--app-dir", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["framework"], found["guarded"]) == ("Flask", True)


def codes(app):
    return [problem.code for problem in check_application(app, app.extensions["ascend"].is_reached_by)]


def middleware(app):
    return lambda environ, start_response: app(environ, start_response)


class Around:
    def __init__(self, app):
        self.app = app

    __call__ = middleware(None)


def test_nothing_is_said_of_what_the_guard_sees(engine):
    app = make()
    other = make()
    app.wsgi_app = ProxyFix(app.wsgi_app)
    plain = AscendMiddleware(middleware(None), **options([]))
    app.wsgi_app = DispatcherMiddleware(
        app.wsgi_app, {"/other": other, "/plain": plain, "/p": ProxyFix(other.wsgi_app)}
    )
    app.wsgi_app = AscendMiddleware(app.wsgi_app, **options([{"match": "* /**", "exempt": True}]))
    assert codes(app) == []


@pytest.mark.parametrize(
    ("around", "named"),
    [
        (Around, [("flask.around", "Around")]),
        (middleware, [("flask.around", "middleware.<locals>.<lambda>")]),
        # What answers nothing by itself is not named.
        (ProxyFix, []),
        (LintMiddleware, []),
        (lambda app: ProfilerMiddleware(app, stream=None), []),
    ],
)
def test_a_middleware_around_is_named(engine, around, named):
    app = make()
    app.wsgi_app = around(app.wsgi_app)
    found = check_application(app, app.extensions["ascend"].is_reached_by)
    assert [(problem.code, problem.where) for problem in found] == named


CIRCLE = Around(None)
CIRCLE.app = CIRCLE


@pytest.mark.parametrize(
    "mounted", [flask.Flask("bare"), Around(flask.Flask("bare")), middleware(None), None, CIRCLE, Around(None)]
)
def test_an_unguarded_mount_is_named(engine, mounted):
    app = make()
    app.wsgi_app = ProxyFix(DispatcherMiddleware(app.wsgi_app, {"/m": mounted}))
    assert codes(app) == ["flask.unguarded-mount"]


@pytest.mark.parametrize("attribute", ["app", "wsgi_app", "application", "_app", "hidden"])
def test_a_guard_is_found_behind_middlewares_wherever_they_keep_it(engine, attribute):
    class Keeps:
        def __init__(self, app):
            setattr(self, attribute, app)

        __call__ = middleware(None)

    app = make()
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/m": Keeps(Keeps(make()))})
    assert codes(app) == (["flask.unguarded-mount"] if attribute == "hidden" else [])


def test_the_guard_of_another_application_in_the_place_of_its_own_is_named(engine):
    app, other = make(), make()
    app.wsgi_app = other.wsgi_app
    app.preprocess_request = other.preprocess_request
    assert codes(app) == ["flask.around", "flask.displaced"]


def test_something_in_the_guard_s_place_is_named(engine):
    app = make()
    inner = app.preprocess_request
    app.preprocess_request = lambda *arguments: inner(*arguments)
    assert codes(app) == ["flask.displaced"]


def test_the_first_request_says_what_is_not_covered(engine, caplog):
    app = make()
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/m": flask.Flask("bare")})
    with caplog.at_level(logging.WARNING):
        app.test_client().get("/items/7")
        app.test_client().get("/items/7")
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "PUT /bare" in line]) == 1
    assert len([line for line in told if "unguarded-mount" in line]) == 1


@pytest.mark.slow
def test_the_real_command_line(tmp_path):
    (tmp_path / "app.py").write_text(
        "import flask\nfrom ascend_middleware.flask import Ascend\napp = flask.Flask('site')\n"
        "app.add_url_rule('/a', 'a', lambda: 'x')\nAscend(app, api_url='local:policy.toml', agent_id='a')\n"
    )
    (tmp_path / "policy.toml").write_text('[[policy]]\nname = "all"\naction_types = ["*"]\ndecision = "approved"\n')
    done = python("-m", "flask", "ascend", "routes", cwd=tmp_path, env={**os.environ, "ASCEND_STATE": "memory:"})
    assert done.returncode == 0, done.stderr
    assert "/a" in done.stdout


def test_without_flask_the_extra_is_named():
    program = "import sys; sys.modules['flask'] = None; import ascend_middleware.flask"
    done = python("-c", program)
    assert "add the extra ascend-middleware[flask]" in done.stderr
