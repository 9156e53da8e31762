"""What is wrong is said once, when the server starts, and the server does not start."""

import asyncio
import contextlib
import os

import httpx2
import pytest
from fastapi import FastAPI
from kit.processes import python

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.asgi.middleware import find_added
from ascend_middleware.exceptions import AscendError, ConfigurationError, MissingAPIKeyError
from ascend_middleware.testing import ScriptedAuthority

APPLICATION = """
from fastapi import FastAPI
from ascend_middleware.asgi import AscendMiddleware
app = FastAPI()
app.add_middleware(AscendMiddleware, rules={rules!r}, **{settings!r})
"""
RULES = {"ascend": {"agent_id": "x"}, "rule": [{"match": "GET /", "action_type": "a"}]}


@pytest.mark.socket
@pytest.mark.parametrize(
    ("rules", "settings", "says"),
    [
        (RULES, {}, "ASCEND_API_KEY"),
        (RULES, {"api_url": "local:missing.toml"}, "missing.toml"),
        (RULES, {"api_url": "http://example.org", "api_key": "owkai_test_0123456789"}, "TLS required"),
        ("missing-table.toml", {}, "missing-table.toml"),
        ({**RULES, "rule": [{"match": "GET /", "action_tipe": "a"}]}, {}, "action_tipe"),
    ],
)
def test_a_server_does_not_start_on_a_bad_configuration(tmp_path, rules, settings, says):
    (tmp_path / "application.py").write_text(APPLICATION.format(rules=rules, settings=settings))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND_", "OWKAI_"))}
    done = python("-m", "uvicorn", "application:app", "--port", "0", cwd=tmp_path, env=environment, timeout=30)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_construction_around_an_application_raises(monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    with pytest.raises(MissingAPIKeyError):
        AscendMiddleware(lambda scope, receive, send: None, rules=RULES)
    with pytest.raises(ConfigurationError) as caught:
        AscendMiddleware(lambda scope, receive, send: None, rules=RULES, timeout=-1, nonsense=1)
    assert len(caught.value.problems) == 2


class Below:
    """What Starlette puts below a middleware has what comes next at `app`."""

    app = None

    async def __call__(self, scope, receive, send):
        await send({"type": f"{scope['type']}.seen"})


def hear(app, scope):
    """Return what a server hears of an application, and how often the application listened."""
    sent, received = [], []

    async def receive():
        received.append(scope)
        return {"type": f"{scope['type']}.startup"}

    async def send(message):
        sent.append(message)

    async def run():
        with contextlib.suppress(MissingAPIKeyError):
            await app(scope, receive, send)

    asyncio.run(run())
    return sent, len(received)


def test_within_an_application_the_start_itself_fails(monkeypatch):
    for name in ("ASCEND_API_KEY", "ASCEND_API_URL"):
        monkeypatch.delenv(name, raising=False)
    app = AscendMiddleware(Below(), rules=RULES)
    (message,), listened = hear(app, {"type": "lifespan"})
    assert (message["type"], listened) == ("lifespan.startup.failed", 1)
    assert message["message"].startswith("ascend-middleware: ")
    assert "API key is required" in message["message"]
    assert hear(app, {"type": "http"}) == ([], 0)
    # What was wrong at the start stays so, whatever is set later.
    monkeypatch.setenv("ASCEND_API_KEY", "owkai_test_0123456789abcdef")
    assert hear(app, {"type": "http"}) == ([], 0)
    # Only an authority that stands in for a test is told everything anew.
    with ScriptedAuthority("stand-in").standing_in():
        assert [message["type"] for message in hear(app, {"type": "lifespan"})[0]] == ["lifespan.seen"]
        assert app.health()["status"] == "ok"


def test_what_no_rule_can_govern_passes_only_where_the_guard_is_switched_off():
    given = {"rules": RULES, "api_url": "https://a.example", "api_key": "owkai_test_0123456789abcdef"}
    assert hear(AscendMiddleware(Below(), **given, enabled=False), {"type": "mqtt"})[0] == [{"type": "mqtt.seen"}]
    with pytest.raises(AscendError, match="no rule can govern a scope of the type 'mqtt'"):
        hear(AscendMiddleware(Below(), **given), {"type": "mqtt"})


def test_the_guards_among_the_middlewares_are_found_with_what_they_are_given():
    def factory(app, **given):
        return app

    class Derived(AscendMiddleware):
        """A guard, too."""

    app = FastAPI()
    app.add_middleware(factory, rules="a function's own")
    app.add_middleware(Below, rules="another's")
    app.add_middleware(Derived, rules="second.toml", strict=True, render=print)
    app.add_middleware(AscendMiddleware, rules="first.toml")
    assert list(find_added(app)) == [("first.toml", {}, {}), ("second.toml", {"strict": True}, {"render": print})]
    assert list(find_added(Below())) == []


# What is not governed is said once, when the server starts


def unlisted_application(**settings):
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    @app.get("/unlisted")
    async def root():
        return {}

    rules = {
        "ascend": {"agent_id": "x"},
        "rule": [{"match": "GET /", "exempt": True}, {"match": "GET /gone", "exempt": True}],
    }
    app.add_middleware(
        AscendMiddleware, rules=rules, api_url="https://a.example", api_key="owkai_test_0123456789", **settings
    )
    return app


async def start(app):
    inbox, sent = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], []

    async def receive():
        return inbox.pop(0)

    async def send(message):
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return sent


def said(caplog):
    return [record.getMessage() for record in caplog.records if "no rule covers these" in record.getMessage()]


@pytest.mark.anyio
async def test_the_start_says_which_routes_nothing_covers(caplog):
    caplog.set_level("INFO", "ascend_middleware")
    app = unlisted_application()
    assert await start(app) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert said(caplog) == ["no rule covers these routes, so requests for them are refused: GET /unlisted"]
    assert "rule 2 (GET /gone) can never match: no route has this template" in caplog.text
    await ask_for_root(app)
    assert len(said(caplog)) == 1


@pytest.mark.anyio
@pytest.mark.parametrize(("fails", "told"), [(False, 1), (True, 0)])
async def test_it_is_said_when_the_application_has_started(caplog, fails, told):
    app = unlisted_application()
    counts = {}

    @contextlib.asynccontextmanager
    async def lifespan(app):
        if fails:
            raise OSError("the disk is gone")
        yield

    app.router.lifespan_context = lifespan

    async def receive():
        counts["received"] = len(said(caplog))
        return {"type": "lifespan.shutdown" if "lifespan.startup.complete" in counts else "lifespan.startup"}

    async def send(message):
        counts[message["type"]] = len(said(caplog))

    with contextlib.suppress(OSError):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert counts["received"] == len(said(caplog)) == told
    assert ("lifespan.startup.failed" in counts) is fails


@pytest.mark.anyio
async def test_a_server_without_lifespan_learns_it_at_the_first_request(caplog):
    app = unlisted_application()
    for _ in range(2):
        assert await ask_for_root(app) == 200
    assert len(said(caplog)) == 1


@pytest.mark.anyio
async def test_where_nothing_is_refused_nothing_is_said(caplog):
    for settings in ({"enabled": False}, {"unmapped": "by-method"}):
        await start(unlisted_application(**settings))
    assert said(caplog) == []


async def ask_for_root(app):
    import httpx2

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://site") as client:
        return (await client.get("/")).status_code


@pytest.mark.anyio
async def test_a_server_hears_of_the_end_when_all_is_delivered(tmp_path):
    # uvicorn ends its process right after that, by the signal that it was told to stop with.
    (tmp_path / "policy.toml").write_text("[thresholds]\npending = 100\ndenied = 100\n")
    app = FastAPI()
    app.add_middleware(
        AscendMiddleware,
        rules={"ascend": {"agent_id": "x"}, "rule": [{"match": "GET /governed", "action_type": "a"}]},
        api_url=f"local:{tmp_path / 'policy.toml'}",
        state=str(tmp_path / "state.db"),
        journal=str(tmp_path / "journal"),
        kill_switch="off",
    )

    @app.get("/governed")
    async def governed():
        return {}

    def journals():
        return sorted(path.name for path in (tmp_path / "journal").rglob("*.*"))

    kept = {}

    async def receive():
        if not kept:
            kept["at the start"] = []
            return {"type": "lifespan.startup"}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://site") as client:
            assert (await client.get("/governed")).status_code == 200
        kept["while it serves"] = journals()
        return {"type": "lifespan.shutdown"}

    async def send(message):
        kept[message["type"]] = journals()

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert kept["while it serves"]
    assert kept["lifespan.shutdown.complete"] == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"api_key": "owkai_test_0123456789", "max_retrys": 3}, "max_retrys"), ({}, "ASCEND_API_KEY")],
)
def test_what_is_wrong_with_table_and_settings_is_said_at_once(monkeypatch, settings, says):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    rules = {**RULES, "rule": [{"match": "GET /", "action_tipe": "a"}]}
    with pytest.raises(ConfigurationError) as caught:
        AscendMiddleware(lambda scope, receive, send: None, rules=rules, **settings)
    assert "action_tipe" in str(caught.value) and says in str(caught.value)
