"""Every fenced block of the README and of the pages runs, is loaded by its reader, or is in a table with the reason."""

import json
import logging
import re
import shlex
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import Depends, FastAPI, Request
from flask import Flask
from kit.processes import python
from starlette.testclient import TestClient

from ascend_middleware import Agent
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.authority import sample_policy
from ascend_middleware.authority.delivery import sign
from ascend_middleware.authority.policy.policy_file import TABLES, load_policy
from ascend_middleware.cli import main
from ascend_middleware.testing import ScriptedAuthority
from ascend_middleware.wsgi import AscendMiddleware as AroundWSGI

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TUTORIALS = {name for name in PAGES if name.startswith("tutorial-")}
# These take their pages' blocks of a language themselves.
ELSEWHERE = {
    ("README.md", "python"): "docs/test_readme.py",
    ("README.md", "toml"): "docs/test_readme.py",
    ("README.md", "console"): "docs/test_readme.py",
    ("agents.md", "python"): "agent/test_agent_programs.py",
    ("alerts.md", "yaml"): "docs/test_alerts_page.py",
    ("authority-api.md", "console"): "docs/test_authority_api_page.py",
    ("callers.md", "python"): "docs/test_newcomers_pages.py",
    ("client.md", "python"): "docs/test_client_page.py",
    ("mcp.md", "python"): "testing/test_pytest_plugin.py",
    ("migration.md", "python"): "docs/test_newcomers_pages.py",
    ("openapi.md", "json"): "docs/test_openapi_page.py",
    ("openapi.md", "python"): "docs/test_openapi_page.py",
    ("review.md", "python"): "routing/test_lock.py",
    ("telemetry.md", "python"): "guard/test_telemetry.py",
} | {(page, language): "docs/test_tutorials.py" for page in TUTORIALS for language in ("console", "python", "toml")}
# Commands that do not run here.
NOT_RUN = {
    r"pip install": "asks a registry; `tox run -e package` installs what was built",
    r"docker run": "needs containers; tests/authority/test_authority_container.py does what the recipe says",
    r"git add": "is git's own",
    r"pytest --ascend-bypass": "a test run of its own, with a server; tests/testing/test_bypass.py makes such runs",
    r"export ": "sets a variable of a shell",
    r"ascend-middleware authority .*postgresql://": "needs a server; tests/authority has one, test_authority_copy.py too",
    r"ascend-middleware authority +#": "serves until it is stopped; the tests of real clients start it",
}
# What is no language that anything here reads.
TEXTS = {
    "architecture.md": "a picture of imports; test_architecture.py holds the list",
    "logs.md": "lines of a log; the programs of the page write such",
    "authority.md": "what goes over the wire; tests/authority/test_authority_webhooks.py looks at it",
}
RULES = '[[rule]]\nmatch = "GET /health"\nexempt = true\n'


class Block(NamedTuple):
    page: str
    number: int
    language: str
    text: str


def blocks(*languages):
    """Return the blocks of some languages that no other test takes, numbered by page."""
    found = []
    for page, path in PAGES.items():
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
        of_page = [Block(page, number, language, text) for number, (language, text) in enumerate(fenced)]
        found += [one for one in of_page if one.language in languages and (page, one.language) not in ELSEWHERE]
    return found


def name(block):
    return f"{block.page}-{block.number}"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, ascend_authority):
    """An empty folder with a rule table, and an authority that a test directs."""
    (tmp_path / "ascend.toml").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def test_every_block_has_its_reader():
    languages = {language for path in PAGES.values() for language in re.findall(r"^```(.*)\n", path.read_text(), re.M)}
    assert languages - {""} == {"console", "json", "mermaid", "python", "text", "toml", "yaml"}
    for page, path in PAGES.items():
        fences = re.findall(r"^```(.*)$", path.read_text(), re.MULTILINE)
        assert not any(fences[1::2]) and all(fences[::2]), f"{page}: a block without a language"
        assert not re.search(r"\n\n {4}\S", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)), page
    assert {block.page for block in blocks("text")} == TEXTS.keys()
    for (page, _), test in ELSEWHERE.items():
        assert page in (ROOT / "tests" / test).read_text(), f"{test} no longer takes {page}"


# Programs: what a page leaves out, by the number of the block.


def asgi_site(names):
    if isinstance(names["app"], FastAPI):
        names["app"].add_api_route("/somewhere", lambda: "ran")
    with TestClient(names["app"]) as client:
        assert client.get("/somewhere").status_code == 403


async def foreign(scope, receive, send):
    assert scope["type"] == "lifespan", "it ran"
    for message in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{message}.complete"})


def flask_site(names):
    app = names["create_app"]()
    app.add_url_rule("/somewhere", "somewhere", lambda: "ran")
    assert app.test_client().get("/somewhere").status_code == 403


def wsgi_site(names):
    started = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/somewhere", "wsgi.input": None}
    list(names["application"](environ, lambda status, headers, *_: started.append(status)))
    assert started == ["403 Forbidden"]


def rule_at_a_handler(names):
    names["app"].add_middleware(AscendMiddleware, rules="ascend.toml")
    with TestClient(names["app"]) as client:
        assert client.post("/refunds", json={"amount": 5}).status_code == 403
    (asked,) = names["authority"].asked
    assert (asked.action_type, asked.details) == ("transaction", {"amount": 5})


def hooks(names):
    staff, clerk = (Request({"type": "http", "user": User(is_staff)}) for is_staff in (True, False))
    assert names["identify"](staff).reason
    assert names["identify"](clerk) == Agent("billing-bot", "Billing bot", principal="ada")


class User:
    username = "ada"

    def __init__(self, is_staff):
        self.is_staff = is_staff


class TestCase:
    """What the program's own case needs of Django's."""

    def enterContext(self, context):
        return context.__enter__()


def case_of_django(names):
    case = names["RefundTests"]()
    case.setUp()
    assert case.authority.api_url == "test:mine"


def receiver(names):
    names["secret"], body = "x" * 32, b"{}"
    signed = {"X-Ascend-Signature": sign("x" * 32, body, at=int(time.time()))}
    assert names["receive"](body, signed) == 204
    assert names["receive"](b"{ }", signed) == 400


def app():
    return FastAPI(openapi_url=None)


def requests_that_are_logged(names):
    rules = [{"match": "GET /held", "action_type": "x"}, {"match": "GET /health", "exempt": True}]
    site = app()
    site.add_middleware(AscendMiddleware, rules={"rule": rules}, agent_id="bot")
    for path in ("/held", "/health"):
        site.add_api_route(path, lambda: "ran")
    with TestClient(site) as client:
        assert [client.get(path).status_code for path in ("/held", "/health")] == [403, 200]
    assert logging.getLogger("ascend_middleware.guard").isEnabledFor(logging.INFO)
    if "refused" in names:
        (file,) = logging.getLogger("ascend_middleware.guard").handlers
        file.close()
        (line,) = Path("refused.log").read_text().splitlines()
        assert re.search(r" bot GET /held: denied ", line)


def refusals_of_its_own(names):
    names["app"].add_api_route("/somewhere", lambda: "ran")
    with TestClient(names["app"]) as client:
        answer = client.get("/somewhere")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert answer.json()["error"]["code"] == "unmapped-route"
    assert answer.headers["cache-control"] == "no-store"


PROGRAMS = {
    "asgi.md-0": (lambda: {"FastAPI": lambda: app(), "AscendMiddleware": AscendMiddleware}, asgi_site),
    "asgi.md-1": (lambda: {"Litestar": lambda _: foreign, "AscendMiddleware": AscendMiddleware}, asgi_site),
    "authority.md": (dict, receiver),
    "logs.md": (dict, requests_that_are_logged),
    "verdicts.md": (lambda: {"app": app(), "AscendMiddleware": AscendMiddleware}, refusals_of_its_own),
    "flask-and-wsgi.md-0": (lambda: {"Flask": Flask}, flask_site),
    "flask-and-wsgi.md-1": (lambda: {"application": None, "AscendMiddleware": AroundWSGI}, wsgi_site),
    "index.md-0": (lambda: {"app": app(), "AscendMiddleware": AscendMiddleware}, asgi_site),
    "rules.md-3": (lambda: {"app": app(), "Depends": Depends}, rule_at_a_handler),
    "rules.md-4": (lambda: {"app": app(), "AscendMiddleware": AscendMiddleware}, hooks),
    "testing.md-2": (lambda: {"TestCase": TestCase, "ScriptedAuthority": ScriptedAuthority}, case_of_django),
}
# testing.md's first two are whole files of tests, which testing/test_pytest_plugin.py runs; Django's blocks are one project.
WHOLE = ("testing.md-0", "testing.md-1", "django.md-")


@pytest.mark.parametrize("block", [one for one in blocks("python") if not name(one).startswith(WHOLE)], ids=name)
def test_a_program_runs(block, ascend_authority):
    given, look = PROGRAMS.get(name(block)) or PROGRAMS[block.page]
    names = {"__name__": "page", "authority": ascend_authority, **given()}
    exec(block.text, names)
    look(names)


PROJECT = """
import sys, types
import django
from pathlib import Path
from django.conf import settings

BASE_DIR = Path.cwd()
agents = types.ModuleType("shop.agents")
agents.identify = lambda request: None
sys.modules |= {{"shop": types.ModuleType("shop"), "shop.agents": agents}}
{settings}
settings.configure(
    INSTALLED_APPS=[one for one in INSTALLED_APPS if one is not ...], MIDDLEWARE=[one for one in MIDDLEWARE if one is not ...],
    ASCEND=ASCEND | {{"api_url": "local:policy.toml", "agent_id": "shop"}}, ROOT_URLCONF="page", ALLOWED_HOSTS=["*"],
)
django.setup()
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.test import Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.viewsets import ViewSet
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.django import GovernedMixin, governed
{views}
page = sys.modules["page"] = types.ModuleType("page")
page.urlpatterns = [
    path("refunds/<int:customer_id>", refund), path("refund", Refund.as_view()), path("things/<int:pk>", Things.as_view({{"delete": "destroy"}}))
]
call_command("check")
assert Client().post("/refunds/7", {{"amount": 5}}, "application/json").json()["type"].endswith("unknown-agent")

ProtocolTypeRouter, AuthMiddlewareStack, URLRouter, websocket_urlpatterns = dict, (lambda app: app), (lambda routes: None), []
{channels}
assert isinstance(application["websocket"], AscendMiddleware)
"""


@pytest.mark.slow
def test_the_programs_of_the_django_page_are_one_project(place):
    settings, views, channels = (one.text for one in blocks("python") if one.page == "django.md")
    (place / "policy.toml").write_text(sample_policy())
    done = python("-c", PROJECT.format(settings=settings, views=views, channels=channels))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks("toml"), ids=name)
def test_a_table_is_loaded(block, place, capsys):
    given = tomllib.loads(block.text)
    if given.keys() <= set(TABLES):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        (place / "provider.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (place / "policy.toml").write_text(block.text)
        load_policy(place / "policy.toml")
    elif "case" in given:  # whether it is met, tests/authority/test_policy_commands.py says
        (place / "policy.toml").write_text(sample_policy())
        (place / "cases.toml").write_text(block.text)
        assert main(["policy", "test", "cases.toml"]) in (0, 1)
        assert "1 case" in capsys.readouterr().out
    else:
        (place / "ascend.toml").write_text(block.text if "rule" in given else block.text + RULES)
        assert main(["check", "ascend.toml"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("block", blocks("json"), ids=name)
def test_an_answer_is_the_one_that_is_given(block, ascend_authority):
    ascend_authority.hold()
    site = app()
    site.add_middleware(AscendMiddleware, rules={"rule": [{"match": "GET /x", "action_type": "x"}]})
    site.add_api_route("/x", lambda: "ran")
    with TestClient(site) as client:
        given = client.get("/x").json()
    shown = json.loads(block.text)
    assert shown["approval"].keys() <= given["approval"].keys()
    assert {name: given[name] for name in ("type", "executed")} == {name: shown[name] for name in ("type", "executed")}


@pytest.mark.parametrize("block", blocks("yaml"), ids=name)
def test_a_configuration_names_what_there_is(block):
    (entry,) = yaml.safe_load(block.text)
    there = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {hook["id"] for hook in entry.get("hooks", ())} <= {hook["id"] for hook in there}
    assert entry.get("with", {}).keys() <= yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].keys()


@pytest.mark.parametrize("block", blocks("mermaid"), ids=name)
def test_a_picture_is_one(block):
    first, *lines = block.text.splitlines()
    assert first in {"flowchart LR", "flowchart TD", "stateDiagram-v2", "sequenceDiagram"}
    for line in lines:
        assert all(line.count(left) == line.count(right) for left, right in ("[]", "{}", "()")), line
        assert line.count('"') % 2 == 0, line


# Commands: what was there before them, page by page.


def shop(place, *routes, rules):
    lines = ["from fastapi import FastAPI", "from ascend_middleware.asgi import AscendMiddleware"]
    lines += [
        "app = FastAPI(openapi_url=None)",
        'app.add_middleware(AscendMiddleware, rules="ascend.toml", agent_id="a")',
    ]
    for method, path in (route.split() for route in routes):
        lines.append(f"app.add_api_route({path!r}, lambda: 1, methods=[{method!r}])")
    (place / "app.py").write_text("\n".join(lines))
    (place / "ascend.toml").write_text("\n".join(rules))


def before_review(place, command, _):
    routes = ["POST /customers/{customer_id}/refunds", "GET /orders/{id}", *(f"GET /reports/{n}" for n in range(10))]
    rules = [f'[[rule]]\nmatch = "{route}"\naction_type = "a"' for route in routes]
    if command.startswith("diff"):
        routes.append("PUT /orders/{id}")
        rules[0] += '\non_failure = "open"'
        rules[1] += '\nresource_id = "{path.id}"'
    shop(place, *routes, rules=rules)


def before_report(place, _, authority):
    observed, governed = (one.text for one in blocks("toml") if one.page == "rollout.md")
    (place / "ascend.toml").write_text(observed + governed.split("\n", 2)[2].replace('mode = "observe"\n', ""))
    site = app()
    settings = {"agent_header": "x-bot"}
    site.add_middleware(AscendMiddleware, rules="ascend.toml", journal=str(place / "journal"), **settings)
    for path in ("/customers/{customer_id}", "/customers/{customer_id}/refunds", "/reports/{year}"):
        site.add_api_route(path, lambda: 1, methods=["GET", "POST"])
    authority.approve("data_access")
    authority.approve("transaction")
    authority.hold("transaction", times=31, reason="refunds above 1000 need a person")
    with TestClient(site) as client:
        for bot in ["billing-bot"] * 30 + ["night-job"] + ["billing-bot"] * 9:
            client.post("/customers/7/refunds", headers={"x-bot": bot})
        for _ in range(4):
            client.get("/reports/2026", headers={"x-bot": "billing-bot"})
        for _ in range(170):
            client.get("/customers/7", headers={"x-bot": "billing-bot"})


def before_authority(place, *_):
    (place / "backups").mkdir(exist_ok=True)


def before_keys(place, *_):
    if not (place / "policy.toml").exists():
        assert main(["authority", "init"]) == 0


def before_upgrade(place, *_):
    shop(place, "GET /health", rules=[RULES])


def nothing(*_): ...


BEFORE = {
    "review.md": before_review,
    "rollout.md": before_report,
    "authority.md": before_authority,
    "operating.md": before_keys,
    "upgrading.md": before_upgrade,
}
# What differs from run to run, and from reader to reader.
VARIES = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "DATE"),
    (r"\b\d+ entries", "N entries"),
    (r"\d+:[0-9a-f]{4}(…|[0-9a-f]{60})", "HEAD"),
    (r"(…|\d+) bytes", "N bytes"),
    (r"replaced-(…|\w+)", "replaced-TIME"),
]


def alike(text):
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return text.strip("\n")


@pytest.mark.parametrize("page", sorted({one.page for one in blocks("console")}))
def test_a_command_prints_what_the_page_shows(page, place, ascend_authority, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("ASCEND_JOURNAL", str(place / "journal"))
    monkeypatch.setenv("ASCEND_API_URL", "local:policy.toml")
    monkeypatch.syspath_prepend(str(place))
    head = ""
    for block in (one for one in blocks("console") if one.page == page):
        for command, _, shown in (part.partition("\n") for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]):
            if any(re.match(start, command) for start in NOT_RUN):
                continue
            words = [head if re.match(r"\d+:\w+…", word) else word for word in shlex.split(command, comments=True)]
            assert words.pop(0) == "ascend-middleware"
            BEFORE.get(page, nothing)(place, words[0], ascend_authority)
            monkeypatch.delitem(sys.modules, "app", raising=False)
            capsys.readouterr()
            status = main(words[: words.index(">")] if ">" in words else words)
            printed = capsys.readouterr().out
            assert status == (1 if shown.startswith("Looser") else 0), command
            if shown.strip():
                assert alike(printed) == alike(shown), command
            head = found[0] if (found := re.search(r"\d+:[0-9a-f]{64}", printed)) else head
