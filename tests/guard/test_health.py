"""How a guard says it is: the same numbers behind every adapter, and over HTTP where a setting asks for it."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kit.asgi import Handler, get, guard
from kit.asgi import ask as ask_in
from kit.engine import KEY, answer, failed, options
from kit.processes import wait_until

from ascend_middleware.api.orders import Order
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.client.http import ConnectFailed, Response, Unsendable
from ascend_middleware.journal.journal import Limits

RULES = [{"match": "POST /run", "action_type": "t"}, {"match": "POST /open", "action_type": "t", "on_failure": "open"}]
PARTS = set("status fault breaker kill_state journal open_passes waiters engine state keeper mode cache".split())
HEALTH = "/.ascend/health"

pytestmark = pytest.mark.anyio


@pytest.fixture
def made(engine, handler):
    """Make a guard around `handler` that asks an authority with these answers."""

    def make(*answers, **settings):
        engine.answers = list(answers) or [answer()]
        app = guard(handler, RULES, **{"report_outcomes": True, "health_path": HEALTH, **settings})
        app._runner.worker and setattr(app._runner.worker, "start", lambda: None)
        return app

    return make


async def ask(app, method, path):
    return await ask_in(app, path, method, body=b"", headers=())


def test_a_new_guard_is_well_and_says_what_it_stands_on(made):
    app = made()
    found = app.health()
    assert set(found) == PARTS
    assert found["status"] == "ok"
    assert found["breaker"] == {"state": "closed", "failures": 0}
    assert found["kill_state"]["age_seconds"] is None
    assert found["journal"]["bytes"] == 0
    assert found["journal"]["oldest_seconds"] is None
    assert found["state"] == {"kind": "memory", "readable": None}
    assert found["engine"] == "auto"
    assert found["keeper"] is False
    json.dumps(found)


@pytest.mark.parametrize(("method", "settings"), [("GET", {"health_path": None}), ("POST", {})])
async def test_the_route_is_off_until_a_setting_names_it_and_of_no_other_method(made, handler, method, settings):
    assert (await ask(made(**settings), method, HEALTH)).problem == "unmapped-route"
    assert handler.ran == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_route_needs_no_decision_and_runs_nothing(made, engine, handler, method):
    app = made()
    wire = await ask(app, method, HEALTH)
    assert wire.status == 200
    assert (b"cache-control", b"no-store") in wire.sent[0]["headers"]
    assert (handler.ran, engine.requests) == (0, [])
    if method == "GET":
        found = wire.json
        assert set(found) == PARTS
        assert found["state"]["readable"] is True
        assert found["kill_state"]["age_seconds"] < 60


async def test_an_outage_and_its_open_passes_are_told(made, handler):
    app = made(ConnectFailed("away"), circuit_breaker_threshold=2, open_per_minute=5)

    now = [1000.0]
    app.guard.budget._clock = lambda: now[0]
    assert (await get(app, HEALTH)).json["open_passes"] == {"last_minute": 0, "per_minute": 5, "total": 0}
    for _ in range(3):
        await ask(app, "POST", "/open")
    wire = await get(app, HEALTH)
    found = wire.json
    assert handler.ran == 3
    assert wire.status == 200  # restarting this service mends nothing
    assert found["status"] == "degraded"
    assert found["breaker"] == {"state": "open", "failures": 2}
    assert found["open_passes"] == {"last_minute": 3, "per_minute": 5, "total": 3}
    assert found["journal"]["bytes"] > 0
    for later, spent in ((59.9, 3), (0.1, 0)):
        now[0] += later
        assert (await get(app, HEALTH)).json["open_passes"]["last_minute"] == spent


async def test_a_journal_that_is_nearly_full_is_told_before_it_is(made):
    app = made()
    await ask(app, "POST", "/run")
    log = app.guard.journal.log
    object.__setattr__(app.guard.journal, "limits", Limits(size=round((log.appended - log.taken) / 0.85)))
    wire = await get(app, HEALTH)
    assert (wire.status, wire.json["status"]) == (200, "degraded")


async def test_durations_are_told_to_the_millisecond(made):
    app = made()
    await ask(app, "POST", "/run")
    inner = app.guard
    inner.kill._clock = lambda: inner.kill._read_at + 1.2345678
    inner.journal.waiting_since, inner.journal._now = 1000.0, lambda: 1002.3456789
    inner.journal.worker_seconds = 3.4567891
    found = app.health()
    assert found["kill_state"]["age_seconds"] == 1.235
    assert (found["journal"]["oldest_seconds"], found["journal"]["worker_seconds"]) == (2.346, 3.457)


@pytest.mark.parametrize(("more", "status"), [(0, "failing"), (1, "degraded")])
async def test_a_journal_is_full_at_its_limit(made, more, status):
    app = made()
    await ask(app, "POST", "/run")
    log = app.guard.journal.log
    object.__setattr__(app.guard.journal, "limits", Limits(size=log.appended - log.taken + more))
    assert app.health()["status"] == status


async def test_a_full_journal_fails_the_check(made):
    app = made()
    (await ask(app, "POST", "/run"))
    object.__setattr__(app.guard.journal, "limits", Limits(size=1))
    wire = await get(app, HEALTH)
    assert wire.status == 503
    assert wire.json["status"] == "failing"


async def test_a_thrown_local_switch_fails_the_check_and_the_check_survives_it(made, tmp_path):
    kill = tmp_path / "kill"
    kill.touch()
    app = made(kill_file=str(kill))
    wire = await get(app, HEALTH)
    assert wire.status == 503
    assert wire.json["kill_state"]["local"] is True


async def test_orders_of_the_kill_switch_are_counted_not_named(made):
    app = made()
    app.guard.state.apply(
        [Order(target="a-secret-agent", slot="block", kind="BLOCK", issued_at=1.0, reason="a-secret-reason")],
        command_id="1",
        now=1.0,
    )
    wire = await get(app, HEALTH)
    assert wire.json["kill_state"]["orders"] == 1
    assert b"secret" not in wire.body


async def test_nothing_secret_is_in_it(made, tmp_path):
    app = made(answer("pending"), state=str(tmp_path / "state.db"), organization_id="a-tenant")
    handle = json.loads((await ask(app, "POST", "/run")).body)["approval"]["handle"]
    text = (await get(app, HEALTH)).body.decode() + repr(app.health())
    for secret in (KEY, handle, str(tmp_path), "authority.example", "a-tenant", "bot"):
        assert secret not in text
    assert app.health()["state"]["kind"] == "file"
    app.guard.state.close()


async def test_a_state_that_cannot_be_read_fails_the_check(made, tmp_path):
    app = made(state=str(tmp_path / "state.db"))
    app.guard.state.close()
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    (tmp_path / "state.db").write_bytes(b"nonsense " * 1000)
    wire = await get(app, HEALTH)
    assert wire.status == 503
    assert wire.json["state"]["readable"] is False
    app.guard.state.close()


def test_a_guard_that_is_switched_off_says_so():
    app = AscendMiddleware(Handler(), enabled=False)
    assert app.health()["status"] == "disabled"


def test_every_adapter_has_it():
    from flask import Flask

    from ascend_middleware.flask import Ascend
    from ascend_middleware.wsgi import AscendMiddleware as WSGI

    given = options(RULES, api_url="http://127.0.0.1:9", health_path=HEALTH, journal="memory:")
    application = WSGI(lambda environ, start_response: [], **given)
    assert set(application.health()) == PARTS
    site = Flask("site")
    extension = Ascend(site, **given)
    assert set(extension.health(site)) == PARTS
    with site.app_context():
        assert extension.health()["status"] == "ok"
    told = site.test_client().get(HEALTH)
    assert told.status_code == 200
    assert set(told.json) == PARTS

    seen = {}
    body = b"".join(
        application(
            {"REQUEST_METHOD": "GET", "PATH_INFO": HEALTH, "SCRIPT_NAME": "", "QUERY_STRING": ""},
            lambda status, headers: seen.update(status=status),
        )
    )
    assert seen["status"].startswith("200")
    assert set(json.loads(body)) == PARTS


@pytest.mark.parametrize("good", [True, False])
async def test_a_key_that_is_refused_is_failing_until_the_authority_knows_it_again(made, engine, handler, good):
    app = made(failed(401), kill_switch="off", journal="memory:")
    assert (await ask(app, "POST", "/run")).problem == "misconfigured"
    assert (app.health()["status"], app.health()["fault"]) == ("failing", "key-refused")
    asked = len(engine.requests)
    # No request comes to a service that is not ready, so the route itself looks whether the key is good again.
    engine.answers = [Response(200, {}, b'{"version": "1"}') if good else failed(401)]
    wires = [await get(app, HEALTH) for _ in range(3)]
    assert [wire.status for wire in wires] == [200 if good else 503] * 3
    assert len(engine.requests) == asked + 1
    assert app.health()["fault"] == (None if good else "key-refused")
    assert handler.ran == 0


@pytest.mark.parametrize("answered", [failed(401), failed(404), Unsendable("ImportError")])
async def test_a_service_that_refuses_everything_as_misconfigured_is_failing_until_it_decides(made, engine, answered):
    app = made(answered, journal="memory:")
    assert app.health()["status"] == "ok"
    assert (await ask(app, "POST", "/run")).problem == "misconfigured"
    assert app.health()["status"] == "failing"
    engine.answers = [answer()]
    assert (await ask(app, "POST", "/run")).status == 200
    assert (app.health()["status"], app.health()["fault"]) == ("ok", None)


async def test_a_misconfiguration_is_a_fault_for_half_a_minute(made, engine):
    app, now = made(failed(404), journal="memory:"), [1000.0]
    app.guard._clock = lambda: now[0]
    assert (await ask(app, "POST", "/run")).problem == "misconfigured"
    for seconds, fault in ((0, "misconfigured"), (29, "misconfigured"), (1, None), (1, None)):
        now[0] += seconds
        assert app.health()["fault"] == fault


async def test_what_a_caller_sent_is_no_fault_of_the_service(made):
    app = made(failed(422))
    assert (await ask(app, "POST", "/run")).problem == "bad-request"
    assert app.health()["status"] == "ok"


@pytest.mark.parametrize("given", [{"kill_switch": "poll"}, {"journal": "memory:"}, {"journal": "off"}])
@pytest.mark.parametrize(("code", "said"), [(401, True), (200, False), (503, False)])
async def test_a_wrong_key_is_known_and_said_at_the_start(caplog, code, said, given):
    caplog.set_level(logging.INFO)
    asked = threading.Event()

    class Authority(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            if self.path == "/api/deployment-info":
                asked.set()

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Authority)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    rules = [rule for rule in RULES if "on_failure" not in rule]
    given = {"api_url": f"http://127.0.0.1:{server.server_port}", "kill_switch": "off", **given}
    app = guard(Handler(), rules, report_outcomes=True, **given)
    try:
        app._runner.start()
        assert asked.wait(60)
        wait_until(lambda: app.guard.core.key_refused is said)
    finally:
        await app.aclose()
        server.shutdown()
        server.server_close()
    assert ("refuses this service's API key" in caplog.text) is said
    assert KEY not in caplog.text
    assert app.health()["fault"] == ("key-refused" if said else None)
