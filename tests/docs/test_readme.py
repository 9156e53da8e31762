"""The README's code runs as it stands."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from kit.processes import python

from ascend_middleware.cli import main
from ascend_middleware.rules import RuleTable
from ascend_middleware.verdict import REFUSALS

README = Path(__file__).parents[2] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def quick_start(tmp_path, monkeypatch):
    table, policy = blocks("toml")
    application = blocks("python")[0]
    (tmp_path / "ascend.toml").write_text(table)
    (tmp_path / "policy.toml").write_text(policy)
    (tmp_path / "app.py").write_text(application)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASCEND_API_URL", "local:policy.toml")
    return application


@pytest.mark.anyio
async def test_the_quick_start_governs(quick_start):
    names = {}
    exec(quick_start, names)
    transport = httpx2.ASGITransport(app=names["app"])
    async with httpx2.AsyncClient(transport=transport, base_url="http://site") as client:
        assert (await client.get("/customers/7")).json() == {"id": 7}
        assert (await client.get("/openapi.json")).status_code == 403
        answers = []

        async def large_refund():
            answers.append(await client.post("/customers/7/refunds", json={"amount": 5000, "currency": "EUR"}))

        async with anyio.create_task_group() as group:
            group.start_soon(large_refund)
            # What a person does at the command line, in the same folder.
            with anyio.fail_after(25):
                while await anyio.to_thread.run_sync(main, ["approve", "2"]) != 0:
                    assert not answers
        assert answers[0].json() == {"refunded": 5000}


def test_the_lines_for_flask_and_wsgi_govern(quick_start):
    _, with_flask, around, _ = blocks("python")
    names = {"__name__": "site"}
    exec(with_flask, names)
    names["app"].add_url_rule("/customers/<int:customer_id>", "read", lambda customer_id: {"id": customer_id})
    client = names["app"].test_client()
    assert client.get("/customers/7").json == {"id": 7}
    assert client.get("/static/x").status_code == 403

    def application(environ, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"ran"]

    names = {"application": application}
    exec(around, names)
    with httpx2.Client(transport=httpx2.WSGITransport(app=names["application"]), base_url="http://site") as client:
        assert client.get("/customers/7").text == "ran"
        assert client.get("/other").status_code == 403


def test_what_is_governed_in_the_example_is_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    block = next(block for block in blocks("console") if "ascend-middleware routes" in block)
    command, _, shown = block.partition("\n")
    monkeypatch.chdir(README.parent)
    assert main(command.removeprefix("$ ascend-middleware ").split()) == 0
    assert capsys.readouterr().out == shown


DJANGO = """
import sys, django
from pathlib import Path
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

INSTALLED_APPS, MIDDLEWARE, BASE_DIR = [], [], Path.cwd()
{lines}
urlpatterns = [path(route, lambda request, **given: JsonResponse(given)) for route in ("customers/<int:id>", "other")]
settings.configure(
    INSTALLED_APPS=INSTALLED_APPS, MIDDLEWARE=MIDDLEWARE, ASCEND=ASCEND, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]
)
django.setup()
from django.core.management import call_command
from django.test import Client
call_command("check")
assert Client().get("/customers/7").json() == {{"id": 7}}
assert Client().get("/other").status_code == 403
"""


def test_the_lines_for_django_govern(quick_start):
    program = DJANGO.format(lines=blocks("python")[3])
    done = python("-c", program)
    assert done.returncode == 0, done.stdout + done.stderr


def pages_linked_from(page):
    targets = (target.partition("#") for target in re.findall(r"\]\(([^)]+)\)", page.read_text()) if ":" not in target)
    return {((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in targets}


def test_every_page_is_in_the_index_and_every_link_leads_somewhere():
    pages = set(README.parent.glob("docs/*.md"))
    assert pages - {README.parent / "docs" / "index.md"} <= {page for page, _ in pages_linked_from(README)}
    for page in {README, README.with_name("SECURITY.md"), *pages, *README.parent.glob("*/**/README.md")}:
        for target, anchor in pages_linked_from(page):
            assert target.exists(), (page.name, target)
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}


def test_every_extra_is_in_the_table():
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    supported = README.read_text().partition("## Supported")[2]
    assert not {name for name in extras if f"`{name}`" not in supported}


def test_the_table_has_four_rules():
    assert len(RuleTable.from_mapping(tomllib.loads(blocks("toml")[0])).rules) == 4


def test_every_problem_type_is_in_the_table_of_verdicts():
    text = (README.parent / "docs" / "verdicts.md").read_text()
    missing = {name for name in REFUSALS if f"`{name}`" not in text}
    assert not missing


def test_the_commands_of_the_quick_start_work(quick_start, tmp_path):
    def command(*arguments):
        return python("-m", "ascend_middleware.cli", *arguments, env=os.environ)

    assert command("check", "ascend.toml").returncode == 0
    (tmp_path / "bad.toml").write_text('[[rule]]\nmatch = "GET /x"\naction_typ = "y"\n')
    bad = command("check", "bad.toml")
    assert bad.returncode == 1
    assert "action_typ" in bad.stdout + bad.stderr
    assert command("version").returncode == 0


@pytest.mark.slow
@pytest.mark.socket
def test_the_demonstration_ends_well():
    done = python("-m", "ascend_middleware.cli", "demo", timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("as expected: ") == 7
    assert "NOT as expected" not in done.stdout


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.skipif(os.name != "posix", reason="elsewhere a signal ends a process without its leave")
def test_the_demonstration_leaves_no_server_behind(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ascend_middleware.cli", "demo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        lines = iter(demo.stdout.readline, "")
        address = next(
            found[0] for line in lines if (found := re.search(r"http://127.0.0.1:[0-9]+(?=/customers)", line))
        )
        assert httpx2.get(f"{address}/customers/7").status_code == 200
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/customers/7")
    assert not list(tmp_path.glob("ascend-demo-*"))


def test_the_explain_command_runs_as_it_stands(capsys, monkeypatch):
    monkeypatch.chdir(README.parent)
    (command,) = re.findall(r"`ascend-middleware (explain[^`]*)`", README.read_text())
    assert main(shlex.split(command)) == 0
    assert "rule 3" in capsys.readouterr().out
