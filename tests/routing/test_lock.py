"""The lock file says what becomes of every route, and what a change made looser is told."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.flask import Ascend
from ascend_middleware.routing.lock import Lock, compare
from ascend_middleware.testing import assert_governed

APPS = Path(__file__).parents[1] / "apps"
KEY = "owkai_live_0123456789abcdef"
READ = {"match": "GET /orders/{id}", "action_type": "data_access"}
PAY = {
    "match": "POST /orders/{id}/payments",
    "action_type": "transaction",
    "resource_id": "{path.id}",
    "details": {"amount": "body.amount"},
}
RULES = [READ, PAY, {"match": "GET /health", "exempt": True}, {"match": "* /internal", "block": "closed"}]


def page(request):
    return PlainTextResponse("page")


def site(rules=RULES, *, more=(), guard=True, **settings):
    routes = [
        Route("/orders/{id}", page, methods=["GET"]),
        Route("/orders/{id}/payments", page, methods=["POST"]),
        Route("/health", page, methods=["GET"]),
        Route("/internal", page, methods=["DELETE"]),
        *more,
    ]
    app = Starlette(routes=routes)
    if guard:
        options = {"agent_id": "a", "api_key": KEY, "kill_switch": "off"}
        app.add_middleware(AscendMiddleware, rules={"rule": rules}, **options | settings)
    return app


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command on an application of this module's; returns its code and what it printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.py").write_text("app = None")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("sites", None)

    def command(name, app, *options):
        import sites

        sites.app = app
        code = main([name, "sites:app", *options])
        return code, capsys.readouterr()

    yield command
    sys.modules.pop("sites", None)


@pytest.fixture
def changes(command):
    """What `diff` tells of a second application, after the first one was locked: by direction, in order."""

    def changes(before, now):
        assert command("lock", before)[0] == 0
        code, told = command("diff", now, "--json")
        found = json.loads(told.out)
        assert code == (0 if found["ok"] else 1)
        assert command("diff", now)[0] == code
        return [(one["direction"], f"{one['route']} {one['text']}".strip()) for one in found["changes"]]

    return changes


def test_each_route_is_a_line_in_a_stable_order(command):
    command("lock", site())
    written = Path("ascend.lock").read_text()
    assert [line for line in written.splitlines() if line.startswith('"')] == [
        '"GET /health" = { is = "exempt", rule = "GET /health" }',
        '"DELETE /internal" = { is = "blocked", rule = "* /internal" }',
        '"GET /orders/{id}" = { is = "governed", action_type = "data_access", on_failure = "closed", '
        'pending = "refuse", mode = "enforce", rule = "GET /orders/{id}" }',
        '"POST /orders/{id}/payments" = { is = "governed", action_type = "transaction", on_failure = "closed", '
        'pending = "refuse", mode = "enforce", tells = ["details.amount = body.amount", "resource_id = {path.id}"], '
        'rule = "POST /orders/{id}/payments" }',
    ]
    assert tomllib.loads(written)["guarded"] is True
    command("lock", site(list(reversed(RULES))))
    assert Path("ascend.lock").read_text() == written


def test_what_has_not_changed_is_nothing(command, changes):
    assert changes(site(), site()) == []
    code, told = command("diff", site())
    assert (code, told.out) == (0, "nothing has changed\n")


def rule(changed, **fields):
    return [{**one, **fields} if one is changed else one for one in RULES]


def without(changed, *gone):
    return [{key: value for key, value in one.items() if key not in gone} if one is changed else one for one in RULES]


NEW = Route("/new", page, methods=["PUT"])
NEW_READ = Route("/new", page, methods=["GET"])


@pytest.mark.parametrize(
    ("now", "looser"),
    [
        (site([*RULES[:1], {"match": PAY["match"], "exempt": True}, *RULES[2:]]), "was governed and is exempt"),
        (site([READ, *RULES[2:]]), "was governed and is without a rule"),
        (site([READ, *RULES[2:]], unmapped="by-method"), "was governed and is by-method"),
        (site(rule(PAY, on_failure="open")), 'on_failure was "closed" and is "open"'),
        (site(on_failure="open"), 'on_failure was "closed" and is "open"'),
        (site(rule(PAY, mode="observe")), 'mode was "enforce" and is "observe"'),
        (site(mode="observe"), 'mode was "enforce" and is "observe"'),
        (site(rule(PAY, permit=["encoded-separator"])), "permits encoded-separator"),
        (site(without(PAY, "details")), "no longer tells the authority details.amount = body.amount"),
        (site(rule(PAY, match="POST /orders/{id}/**")), "which is wider"),
        (site(rule(PAY, match="* /orders/{id}/payments")), "which is wider"),
        (site(rule(READ, cache="30s")), 'cache was not set and is "30s"'),
        (site(rule(READ, coalesce=True)), "coalesce was not set and is true"),
        (site(guard=False), "guarded was true and is false"),
        (site(enabled=False), "enabled was true and is false"),
        (site(more=[NEW]), "PUT /new is new, and without a rule"),
        (site([*RULES, {"match": "PUT /new", "exempt": True}], more=[NEW]), "PUT /new is new, and exempt"),
        (
            site([*RULES, {"match": "PUT /new", "action_type": "a", "on_failure": "open"}], more=[NEW]),
            'PUT /new is new, with on_failure = "open"',
        ),
        (
            site([*RULES, {"match": "PUT /new", "action_type": "a", "mode": "observe"}], more=[NEW]),
            'PUT /new is new, with mode = "observe"',
        ),
        (
            site([*RULES, {"match": "GET /new", "action_type": "a", "cache": "1m"}], more=[NEW_READ]),
            'GET /new is new, with cache = "60s"',
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_lets_more_pass_is_looser_and_what_undoes_it_is_not(changes, now, looser):
    found = changes(site(), now)
    assert found[0][0] == "looser"
    assert any(direction == "looser" and looser in text for direction, text in found), found
    assert all(direction != "looser" for direction, _ in changes(now, site()))


@pytest.mark.parametrize(
    ("looser", "tighter"),
    [
        (site(rule(PAY, permit=["encoded-separator"])), "no longer permits encoded-separator"),
        (site(without(PAY, "details")), "tells the authority details.amount = body.amount"),
    ],
    ids=["permits", "tells"],
)
def test_what_undoes_it_is_tighter(changes, looser, tighter):
    assert changes(looser, site()) == [("tighter", f"POST /orders/{{id}}/payments {tighter}")]


def test_what_stands_at_a_route_has_one_order(changes):
    payments = PAY["match"]
    ladder = [
        site([READ, {"match": payments, "exempt": True}, *RULES[2:]]),
        site([READ, *RULES[2:]]),
        site([READ, *RULES[2:]], unmapped="by-method"),
        site(),
        site([READ, {"match": payments, "block": "no"}, *RULES[2:]]),
    ]
    for looser, tighter in itertools.pairwise(ladder):
        for before, now, direction in ((tighter, looser, "looser"), (looser, tighter, "tighter")):
            assert direction in {one for one, text in changes(before, now) if payments in text}


def test_a_decision_that_is_kept_for_longer_is_looser(changes):
    short, long = (site(rule(READ, cache=seconds)) for seconds in ("30s", "2m"))
    assert changes(short, long) == [("looser", 'GET /orders/{id} cache was "30s" and is "120s"')]
    assert changes(long, short) == [("tighter", 'GET /orders/{id} cache was "120s" and is "30s"')]


def test_a_new_route_that_is_closed_is_not_looser(changes):
    now = site([*RULES, {"match": "PUT /new", "block": "closed"}], more=[NEW])
    assert changes(site(), now) == [("other", "PUT /new is new, and blocked")]


def test_a_new_route_that_is_governed_and_one_that_is_gone_are_told(changes):
    now = site([*RULES, {"match": "PUT /new", "action_type": "a"}], more=[NEW])
    assert changes(site(), now) == [("other", "PUT /new is new, and governed")]
    assert changes(now, site([*RULES, {"match": "PUT /new", "action_type": "a"}])) == [("other", "PUT /new is gone")]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"action_type": "refund"}, 'action_type was "transaction" and is "refund"'),
        ({"pending": "wait:30s"}, 'pending was "refuse" and is "wait:30s"'),
    ],
)
def test_another_action_is_told_without_being_looser(changes, fields, text):
    assert changes(site(), site(rule(PAY, **fields))) == [("other", f"POST /orders/{{id}}/payments {text}")]


def locked(guarded=True, **entry):
    return Lock({"guarded": guarded}, {"GET /a": {"is": "governed", **entry}})


def told(before, now):
    return [(str(change.direction), change.text.rpartition(", which is ")[2]) for change in compare(before, now)]


WIDER = "wider: what is added below it comes under it unseen"


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ("GET /a/{x}", "GET /a/**", "wider"),
        ("GET /a/{x:int}", "GET /a/{x}", "wider"),
        ("GET /a", "GET,POST /a", "wider"),
        ("GET,POST /a", "* /a", "wider"),
        ("GET,POST /a/{x}", "GET /a/**", "wider"),
        ("* /a/{x}", "GET /a/**", "wider"),
        ("GET /a", "PUT /a", None),
        ("GET,POST /a", "GET,PUT /a", None),
        ("GET /a/{x}", "GET /b/{x}", None),
        ("GET /a/{x}/c", "GET /a/b/{y}", None),
        ("GET /a/{x}", "GET /a/{y}", None),
        ("GET /a", "endpoint page", None),
        ("endpoint page", "GET /a", None),
    ],
)
def test_a_rule_that_reaches_more_is_looser(before, now, change):
    before, now = locked(rule=before), locked(rule=now)
    ((direction, text),) = told(before, now)
    ((back, undone),) = told(now, before)
    if change is None:
        assert (direction, back) == ("other", "other")
    else:
        assert (direction, text, back, undone) == ("looser", WIDER, "tighter", "narrower")


def test_a_rule_that_names_an_endpoint_in_place_of_a_template_is_told(changes):
    by_endpoint = [{"endpoint": "page", "action_type": "data_access"}, *RULES[2:]]
    one = Route("/one", page, methods=["GET"])
    before = site([{"match": "GET /one", "action_type": "data_access"}, *RULES], more=[one])
    assert ("other", "GET /one its rule was 'GET /one' and is 'endpoint page'") in changes(
        before, site(by_endpoint, more=[one])
    )


@pytest.mark.parametrize(
    ("field", "looser", "tighter"),
    [
        ("cache", "30s", None),
        ("cache", "0.5s", None),
        ("cache", "0.5s", "0.1s"),
        ("coalesce", True, None),
        ("cache", "not written by us", "3600s"),
    ],
)
def test_a_decision_that_is_used_for_longer_is_looser(field, looser, tighter):
    before, now = (locked(**{} if value is None else {field: value}) for value in (tighter, looser))
    assert [direction for direction, _ in told(before, now)] == ["looser"]
    assert [direction for direction, _ in told(now, before)] == ["tighter"]


def test_what_becomes_of_a_route_that_nobody_knows_counts_as_open():
    assert [direction for direction, _ in told(locked(), Lock({"guarded": True}, {"GET /a": {"is": "odd"}}))] == [
        "looser"
    ]
    new = compare(Lock({"guarded": True}, {}), Lock({"guarded": True}, {"GET /a": {}}))
    assert [str(change) for change in new] == ["GET /a is new, and None"]
    assert new[0].direction == "looser"


def test_without_a_guard_everything_is_open_whatever_the_table_says():
    blocked, exempt = ({"GET /a": {"is": word}} for word in ("blocked", "exempt"))
    assert [one.direction for one in compare(Lock({"guarded": True}, exempt), Lock({}, blocked)) if one.route] == [
        "looser"
    ]
    assert [one.direction for one in compare(Lock({}, blocked), Lock({"guarded": True}, exempt)) if one.route] == [
        "tighter"
    ]
    assert [one.direction for one in compare(Lock({}, blocked), Lock({}, exempt)) if one.route] == ["other"]


def test_two_routes_of_one_template_and_a_head_that_goes_another_way_have_lines_of_their_own(command):
    routes = [
        Route("/same/{a}", page, methods=["GET"]),
        Route("/same/{b}", page, methods=["GET", "POST"]),
        Route("/head", page, methods=["HEAD"]),
        Route("/HEAD", page, methods=["GET"]),
        *(Mount("/same", routes=[Route("/{a}", page, methods=["GET"])], name=name) for name in ("one", "two")),
    ]
    same = [
        {"match": "* /same/**", "action_type": "a"},
        {"match": "HEAD /head", "exempt": True},
        {"match": "GET /HEAD", "exempt": True},
    ]
    command("lock", site([*RULES, *same], more=routes))
    found = tomllib.loads(Path("ascend.lock").read_text())["routes"]
    assert [name for name in found if "same" in name or "head" in name.lower()] == [
        "GET /HEAD",
        "HEAD /head",
        "GET /same/{a}",
        "GET /same/{a} #2",
        "GET /same/{a} #3",
        "GET /same/{b}",
        "POST /same/{b}",
    ]


def test_only_what_a_rule_gives_is_told(command):
    command("lock", site([{**READ, "tool_name": None, "resource": "one order", "context": {"why": "query.why?"}}]))
    entry = tomllib.loads(Path("ascend.lock").read_text())["routes"]["GET /orders/{id}"]
    assert entry["tells"] == ["context.why = query.why?", "resource = one order"]


@pytest.mark.parametrize(
    ("name", "before", "now", "direction"),
    [
        ("mode", "enforce", "observe", "looser"),
        ("mode", "observe", "enforce", "tighter"),
        ("mode", "odd", "observe", "other"),
        ("mode", "enforce", "odd", "other"),
        ("strict", True, False, "looser"),
        ("unmapped", "refuse", "by-method", "looser"),
        ("kill_switch", "sqs", "off", "looser"),
        ("kill_switch", "sqs", "poll", "other"),
        ("other", "a", "b", "other"),
    ],
)
def test_a_setting_has_an_order_or_none(name, before, now, direction):
    (change,) = compare(Lock({name: before}, {}), Lock({name: now}, {}))
    assert (change.direction, change.route) == (direction, "")
    assert str(change) == f"{name} was {json.dumps(before)} and is {json.dumps(now)}"


def test_poll_and_sqs_are_alike(changes):
    sqs = site(kill_switch="sqs", kill_queue_url="https://sqs.eu-west-1.amazonaws.com/1/q")
    assert changes(site(kill_switch="poll"), sqs) == [("other", 'kill_switch was "poll" and is "sqs"')]


def test_looser_changes_are_accepted_by_writing_the_file_anew(command):
    command("lock", site())
    now = site(rule(PAY, on_failure="open"))
    assert command("diff", now)[0] == 1
    assert command("diff", now, "--accept")[0] == 0
    assert command("diff", now)[0] == 0
    assert command("diff", site())[0] == 0


def test_annotations_name_the_line_of_the_lock_file(command):
    command("lock", site())
    lines = Path("ascend.lock").read_text().splitlines()
    code, told = command("diff", site(rule(PAY, on_failure="open", action_type="refund"), more=[NEW]), "--github")
    at = 1 + next(number for number, line in enumerate(lines) if line.startswith('"POST'))
    assert code == 1
    assert told.out.splitlines() == [
        "::error file=ascend.lock,line=1,title=looser::PUT /new is new, and without a rule",
        f'::error file=ascend.lock,line={at},title=looser::POST /orders/{{id}}/payments on_failure was "closed" and is '
        '"open"',
        f"::notice file=ascend.lock,line={at},title=other::POST /orders/{{id}}/payments action_type was "
        '"transaction" and is "refund"',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no ascend.lock; write it with: ascend-middleware lock sites:app"),
        ("[", "is no lock file"),
        ("version = 2\n[routes]", "is no lock file of version 1"),
        ("version = 1", "is no lock file of version 1"),
        ("version = 1\n[routes]\na = 1", "is no lock file of version 1"),
    ],
)
def test_a_lock_file_that_cannot_be_read_is_wrong_usage(command, text, message):
    if text is not None:
        Path("ascend.lock").write_text(text)
    code, told = command("diff", site())
    assert code == 2
    assert message in told.err


@pytest.mark.parametrize("app", ["asgi_shop:app", "wsgi_shop:app"])
def test_every_framework_has_a_lock(tmp_path, app):
    place = str(tmp_path / "ascend.lock")
    assert main(["lock", app, "--app-dir", str(APPS), "--lock", place]) == 0
    assert main(["diff", app, "--app-dir", str(APPS), "--lock", place]) == 0
    assert len(tomllib.loads(Path(place).read_text())["routes"]) >= 2


class TestInPytest:
    def test_an_application_whose_routes_all_have_rules_passes(self, command):
        assert_governed(site())
        command("lock", site())
        assert_governed(site(), lock="ascend.lock")

    def test_what_is_not_covered_is_named(self):
        with pytest.raises(AssertionError, match="no rule covers PUT /new"):
            assert_governed(site(more=[NEW]))

    def test_an_application_without_a_guard_fails(self):
        with pytest.raises(AssertionError, match="no guard"):
            assert_governed(site(guard=False))

    def test_what_became_looser_is_named(self, command):
        command("lock", site())
        with pytest.raises(AssertionError, match=r"looser than ascend.lock: GET /orders/\{id\} on_failure was"):
            assert_governed(site(rule(READ, on_failure="open")), lock="ascend.lock")

    def test_what_has_no_routes_that_can_be_listed_is_said(self):
        async def app(scope, receive, send): ...

        with pytest.raises(ConfigurationError, match="whose routes can be listed"):
            assert_governed(app)

    def test_fastapi_with_its_own_pages(self):
        app = FastAPI()
        app.add_middleware(AscendMiddleware, rules={"rule": RULES}, agent_id="a", kill_switch="off")
        with pytest.raises(AssertionError, match=r"/openapi.json"):
            assert_governed(app)

    def test_a_flask_application(self, tmp_path):
        def shop(**settings):
            app = Flask("shop", static_folder=None)
            app.add_url_rule("/orders/<id>", "read", lambda id: id)
            Ascend(app, rules={"rule": [READ]}, agent_id="a", api_key=KEY, kill_switch="off", **settings)
            return app

        place = tmp_path / "ascend.lock"
        sys.modules["shop_of_flask"] = types.SimpleNamespace(app=shop())
        assert main(["lock", "shop_of_flask:app", "--lock", str(place)]) == 0
        assert_governed(shop(), lock=place)
        with pytest.raises(AssertionError, match="GET /orders/{id} mode was"):
            assert_governed(shop(mode="observe"), lock=place)

    def test_the_test_of_the_page(self, command, monkeypatch):
        page = (Path(__file__).parents[2] / "docs" / "review.md").read_text()
        (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        command("lock", site())
        monkeypatch.setitem(sys.modules, "main", types.SimpleNamespace(app=site()))
        exec(program, names := {})
        names["test_every_route_is_governed"]()
        sys.modules["main"].app = site(on_failure="open")
        exec(program, names)
        with pytest.raises(AssertionError, match="looser"):
            names["test_every_route_is_governed"]()


ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with an application and its table; the commands that a hook or a workflow finds are ours."""
    (tmp_path / "ascend.toml").write_text('[[rule]]\nmatch = "GET /health"\naction_type = "a"\n')
    (tmp_path / "app.py").write_text(
        "from fastapi import FastAPI\n"
        "from ascend_middleware.asgi import AscendMiddleware\n"
        "app = FastAPI(openapi_url=None)\n"
        'app.add_middleware(AscendMiddleware, rules="ascend.toml", agent_id="a")\n'
        'app.add_api_route("/health", lambda: 1)\n'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}

    def run(command, **variables):
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment | variables, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_hooks_run(project, tmp_path):
    check, lock = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert re.search(check["files"], "deep/ascend.toml") and not re.search(check["files"], "my-ascend.toml.bak")
    assert project(f"{check['entry']} ascend.toml") == (0, "ok: 1 rule\n")
    assert project("ascend-middleware lock app:app")[0] == 0
    assert project(f"{lock['entry']} app:app") == (0, "nothing has changed\n")
    (tmp_path / "app.py").write_text((tmp_path / "app.py").read_text() + 'app.add_api_route("/new", lambda: 1)\n')
    code, told = project(f"{lock['entry']} app:app")
    assert (code, "GET /new is new, and without a rule" in told) == (1, True)


@pytest.mark.slow
def test_the_workflows_step_runs(project, tmp_path):
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = action["runs"]["steps"]
    names = {name: re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1] for name, value in step["env"].items()}
    assert set(names.values()) == set(action["inputs"])
    given = {"app": "app:app", "rules": "ascend.toml"}
    variables = {name: given.get(one, action["inputs"][one].get("default", "")) for name, one in names.items()}
    assert project("ascend-middleware lock app:app")[0] == 0
    assert project(step["run"], **variables) == (0, "ok: 1 rule\n")
    (tmp_path / "ascend.toml").write_text('[[rule]]\nmatch = "GET /health"\nexempt = true\n')
    code, told = project(step["run"], **variables)
    assert code == 1
    assert "::error file=ascend.lock,line=" in told
