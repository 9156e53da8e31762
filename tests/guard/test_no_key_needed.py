"""Commands that ask no authority need no key; what serves without one ends loudly, at its start or the first request."""

import importlib
import sys
from pathlib import Path

import click
import flask
import pytest
import werkzeug.test
from click.testing import CliRunner
from flask.cli import FlaskGroup
from kit.engine import KEY
from kit.processes import python
from starlette.testclient import TestClient

from ascend_middleware.cli import main
from ascend_middleware.compose import build_guard, only_looked_at
from ascend_middleware.exceptions import ConfigurationError, MissingAPIKeyError
from ascend_middleware.flask import Ascend

SITE = """
import click, flask
from ascend_middleware.flask import Ascend

def create_app():
    app = flask.Flask("site")
    app.add_url_rule("/items/<int:id>", "items", lambda id: "x")
    Ascend(app, rules={"rule": [{"match": "GET /items/{id}", "exempt": True}]}, agent_id="bot")

    @app.cli.command("tidy")
    def tidy():
        click.echo("tidied")

    return app
"""
WRAPPED = """
from ascend_middleware.asgi import AscendMiddleware as Asgi
from ascend_middleware.fastapi import AscendMiddleware as Added
from ascend_middleware.wsgi import AscendMiddleware as Wsgi
from fastapi import FastAPI
from site_of_flask import create_app as flask_app

def _fastapi():
    app = FastAPI()
    app.get("/items/{id}")(lambda id: id)
    return app

def added():
    app = _fastapi()
    app.add_middleware(Added, agent_id="bot")
    return app

def around():
    return Asgi(_fastapi(), agent_id="bot")

def below():
    return Wsgi(flask_app().wsgi_app, agent_id="bot")
"""
MANAGE = """
import pathlib, sys
sys.path[:0] = [{tests!r}]
import django_project
from django.conf import settings
settings.configure(
    **django_project.options(pathlib.Path({folder!r})),
    ASCEND={{"rules": {{"rule": [{{"match": "* /**", "exempt": True}}]}}, "agent_id": "bot"}},
)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""
KEYED = {"api_key": KEY, "agent_id": "bot", "journal": "off"}
DJANGO_TESTS = Path(__file__).parent.parent / "django"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("ASCEND_API_KEY", "OWKAI_API_KEY", "ASCEND_API_URL", "OWKAI_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "false")  # Flask's commands set it, for all that runs later


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "site_of_flask.py").write_text(SITE)
    (tmp_path / "site_wrapped.py").write_text(WRAPPED)
    (tmp_path / "manage.py").write_text(MANAGE.format(tests=str(DJANGO_TESTS), folder=str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("site_of_flask", "site_wrapped"):
        sys.modules.pop(name, None)


# --- our own commands


@pytest.mark.parametrize("name", ["site_of_flask:create_app()", "site_wrapped:added()", "site_wrapped:around()"])
def test_routes_and_explain_with_an_application_factory(name, folder, capsys):
    assert main(["routes", name, "--app-dir", str(folder)]) == 0
    assert "/items/{id" in capsys.readouterr().out
    assert main(["explain", name, "GET /items/7", "--app-dir", str(folder)]) == 0
    assert main(["explain", "site_wrapped:below()", "GET /items/7", "--app-dir", str(folder)]) == 0


def test_what_was_made_to_be_looked_at_never_serves(folder):
    site = importlib.import_module("site_wrapped")
    with only_looked_at():
        flask_app, asgi, wsgi = site.flask_app(), site.around(), site.below()
    clients = [flask_app.test_client(), werkzeug.test.Client(wsgi), TestClient(asgi)]
    for client in [*clients, *clients]:
        with pytest.raises(MissingAPIKeyError, match="ASCEND_API_KEY"):
            client.get("/items/7")
    with pytest.raises(MissingAPIKeyError):  # as soon as it is made to serve
        site.flask_app()


# --- Flask


def make(ran):
    def create_app():
        app = flask.Flask("site")
        app.config["PROPAGATE_EXCEPTIONS"] = False
        app.add_url_rule("/items", "items", lambda: ran.append("handler") or "x")
        Ascend(app, rules={"rule": [{"match": "GET /items", "exempt": True}]}, agent_id="bot")

        @app.cli.command("serve")
        def serve():
            app.test_client().get("/items")

        @app.cli.group("nested")
        def nested():
            pass

        @nested.command("run")
        def run():
            click.echo("ran")

        return app

    return FlaskGroup(create_app=create_app)


@pytest.mark.parametrize("command", [["routes"], ["ascend", "routes"], ["ascend", "check"], ["nested", "run"]])
def test_flask_commands_run(command):
    done = CliRunner().invoke(make([]), command)
    assert (done.exit_code, done.exception) == (0, None), done.output


def test_flask_check_says_that_the_application_cannot_serve():
    assert "ASCEND_API_KEY" in CliRunner().invoke(make([]), ["ascend", "check"]).stderr


def test_flask_run_fails_at_its_start():
    done = CliRunner().invoke(make([]), ["run", "--no-reload", "--no-debugger"])
    assert (done.exit_code, done.output.startswith("Error: API key is required")) == (1, True)


def test_a_flask_command_that_serves_fails_at_the_first_request():
    ran = []
    done = CliRunner().invoke(make(ran), ["serve"])
    assert isinstance(done.exception, MissingAPIKeyError) and ran == []


def test_a_command_line_of_another_program_serves_nothing_either():
    @click.command()
    def serve():
        make([]).create_app()

    assert isinstance(CliRunner().invoke(serve).exception, MissingAPIKeyError)


def test_what_is_wrong_beside_the_key_still_fails_a_flask_command():
    def create_app():
        app = flask.Flask("site")
        Ascend(app, rules={"rule": [{"match": "GET /items", "exmpt": True}]}, agent_id="bot")
        return app

    done = CliRunner().invoke(FlaskGroup(create_app=create_app), ["routes"])
    assert (done.exit_code, "exmpt" in done.output, "Traceback" in done.output) == (1, True, False)


@pytest.mark.parametrize("place", ["redis://me:se/cret@pw@127.0.0.1:1/0", "redis://127.0.0.1:1/0?password=secret"])
def test_a_redis_that_is_away_is_one_message_without_the_password(place):
    settings = {**KEYED, "state": place}

    def create_app():
        app = flask.Flask("site")
        Ascend(app, **settings)
        return app

    for command in ("run", "routes"):
        done = CliRunner().invoke(FlaskGroup(create_app=create_app), [command])
        assert done.exit_code == 1 and done.output.startswith("Error: the setting state (ASCEND_STATE) = 'redis://")
        assert len(done.output.splitlines()) == 1 and "cret" not in done.output and "pw" not in done.output


def test_an_option_that_redis_does_not_know_is_told_as_the_settings():
    with pytest.raises(ConfigurationError, match=r"setting state \(ASCEND_STATE\).*no Redis URL") as caught:
        build_guard([], {**KEYED, "state": "redis://127.0.0.1:1/0?nothing=secret"}, environ={})
    assert "secret" not in str(caught.value)


FLASK = ("-m", "flask", "--app", "site_of_flask")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([*FLASK, "routes"], 0, "/items/<int:id>"),
        ([*FLASK, "shell"], 0, "/items/<id>"),
        ([*FLASK, "tidy"], 0, "tidied"),
        ([*FLASK, "ascend", "routes"], 0, "/items/{id:int}"),
        (["manage.py", "migrate"], 0, "Applying"),
        (["manage.py", "showmigrations"], 0, "auth"),
        (["manage.py", "check"], 0, "ascend.W004"),
        (["manage.py", "ascend", "check"], 0, "ascend.W004"),
        (["manage.py", "ascend", "routes"], 0, "exempt"),
        (["manage.py", "check", "--deploy"], 1, "ascend.E003"),
    ],
)
def test_the_commands_of_flask_and_django(arguments, code, told, folder):
    done = python(*arguments, cwd=folder, input="print(app.url_map)\n" if "shell" in arguments else "")
    assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        [*FLASK, "run", "--port", "0"],
        ["-m", "gunicorn", "site_of_flask:create_app()", "--bind", "127.0.0.1:0", "--chdir", "."],
        ["-c", "import site_of_flask; site_of_flask.create_app().run(port=0)"],
        ["manage.py", "runserver", "--noreload", "127.0.0.1:0"],
    ],
)
def test_servers_do_not_start(arguments, folder):
    done = python(*arguments, cwd=folder)
    assert done.returncode != 0 and "API key is required" in done.stderr, done.stdout + done.stderr
