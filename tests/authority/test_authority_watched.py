"""What whoever is on call sees and does: readiness, numbers, limits at the door, a changed policy file, traces."""

import os
import signal
import time

import anyio
import httpx2
import pytest
from authority_process import Process
from kit.desk import POLICY, Desk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from ascend_middleware.authority import Role, sample_policy
from ascend_middleware.authority.reload import Reloader
from ascend_middleware.authority.server import create_app
from ascend_middleware.authority.service import Service
from ascend_middleware.exceptions import StorageError

SUBMIT = {"agent_id": "a", "action_type": "data_access", "resource": "r"}
LARGE = {"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000}}
pytestmark = pytest.mark.anyio


class House(Desk):
    def serve(self, client="192.0.2.1", **options):
        self.service = Service(self.authority)
        transport = httpx2.ASGITransport(
            create_app(self.authority, service=self.service, **options), client=(client, 1)
        )
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://authority")
        return self

    async def numbers(self, key):
        answer = await self.http.get("/metrics", headers={"x-api-key": key})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        return {
            (one.name.removeprefix("ascend_authority_"), *sorted(one.labels.items())): one.value
            for family in text_string_to_metric_families(answer.text)
            for one in family.samples
        }


@pytest.fixture
def house(desk_of):
    return lambda policy=POLICY, **options: desk_of(policy, kind=House).serve(**options)


async def test_ready_says_why_not(house, monkeypatch):
    desk = house()
    status, told = desk.get("/ready", key=None)
    assert (status, told["status"], told["reasons"]) == (200, "ready", [])
    assert told["policy_version"] == desk.authority.policy.version and told["policy_problem"] is None

    def fails():
        raise StorageError("no")

    monkeypatch.setattr(desk.store, "probe", fails)
    desk.time += 2
    status, told = desk.get("/ready", key=None)
    assert (status, told["reasons"]) == (503, ["the database cannot be read or written"])
    monkeypatch.undo()
    desk.time += 2
    await desk.service.release()
    assert desk.get("/ready", key=None)[1]["reasons"] == ["the authority is stopping"]


async def test_what_is_open_to_all_tells_of_no_organisation_agent_or_policy(house):
    desk = house()
    desk.submit("secret_action", agent_id="secret_agent")
    async with desk.http:
        ready, health = [await desk.http.get(path) for path in ("/ready", "/health")]
    assert ready.json().keys() == {
        "status",
        "reasons",
        "server_time",
        "policy_version",
        "policy_problem",
        "replicas",
        "differing_policy_versions",
    }
    for answer in (ready, health):
        assert answer.status_code == 200
        assert not [word for word in ("secret", "large", "default", "other", "boss") if word in answer.text]


@pytest.mark.sqlite_file
async def test_a_disk_that_fills_up_is_told_before_it_is_full(desk_of, tmp_path, monkeypatch):
    desk = desk_of(POLICY, tmp_path / "a.db")
    left = os.statvfs(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20 * 1024**2}))
    assert left and desk.get("/health", key=None)[0] == 200
    assert desk.get("/ready", key=None)[1]["reasons"] == ["the disk has 20 MiB left, and 64 are the margin"]


async def test_the_numbers_of_an_authority(house):
    desk = house()
    async with desk.http:
        for body in (SUBMIT, LARGE, LARGE):
            assert (
                await desk.http.post("/api/v1/actions/submit", json=body, headers={"x-api-key": desk.user})
            ).status_code == 200
        desk.post("/api/v1/actions/2/approve", {}, key="admin")
        await desk.http.get("/api/deployment-info", headers={"x-api-key": "owkai_user_guess"})
        for path in ("/health", "/ready", "/nothing"):
            await desk.http.get(path, headers={"x-api-key": desk.user})
        desk.time += 30
        found = await desk.numbers(desk.admin)
    mine = ("tenant", "default")
    assert found["decisions_total", ("decision", "approved"), mine] == 1
    assert found["decisions_total", ("decision", "pending"), mine] == 2
    assert found["settled_total", ("outcome", "approved"), mine] == 1
    assert (found["pending", mine], found["pending_oldest_seconds", mine]) == (1, 30)
    assert found["request_seconds_count", ("kind", "submit"), ("status", "200")] == 3
    assert found["request_seconds_count", ("kind", "open"), ("status", "200")] == 2
    assert found["request_seconds_count", ("kind", "unknown"), ("status", "404")] == 1
    assert found["audit_entries_total", ("event", "SIGN_IN_FAILED")] == 1
    assert found["ready",] == found["database_ok",] == 1


async def test_who_may_read_the_numbers_and_of_whom(house):
    desk = house()
    viewer = desk.store.issue_key(name="v", role=Role.VIEWER, tenant="default")
    async with desk.http:
        desk.submit(key="stranger")
        theirs = ("decisions_total", ("decision", "approved"), ("tenant", "other"))
        assert (await desk.numbers(viewer))[theirs] == 1
        desk.submit()
        assert {dict(name[1:]).get("tenant", "other") for name in await desk.numbers(desk.stranger)} == {"other"}
        assert (await desk.http.get("/metrics")).status_code == 401
        assert (await desk.http.get("/metrics", headers={"x-api-key": desk.user})).status_code == 403
    opened = house(open_metrics=True)
    async with opened.http:
        assert (await opened.http.get("/metrics")).status_code == 200


async def test_an_address_has_a_limit_and_other_addresses_do_not_care(house):
    desk = house(POLICY + "\n[limits]\naddress = 3\n")
    for path in ("/health", "/sign-in", "/page/page.css"):
        assert (await desk.http.get(path)).status_code == 200, path
    answer = await desk.http.get("/health")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "ADDRESS_LIMITED")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (await desk.http.get("/sign-in")).status_code == 429
    desk.later(61)
    found = await desk.numbers(desk.admin)
    assert found["limited_total", ("limit", "address")] == 2


async def test_a_proxy_on_this_machine_speaks_for_everybody(house):
    desk = house(POLICY + "\n[limits]\naddress = 1\n", client="127.0.0.1")
    assert {(await desk.http.get("/health")).status_code for _ in range(3)} == {200}


@pytest.mark.parametrize(
    ("limit", "asked"),
    [("key", ["user"] * 2), ("sign-in", ["guess"] * 2)],
)
async def test_each_limit_is_counted_by_its_name(house, limit, asked):
    desk = house(POLICY + "\n[limits]\nread = 1\nfailed_sign_ins = 1\n")
    for name in asked:
        await desk.http.get("/api/deployment-info", headers={"x-api-key": getattr(desk, name, "owkai_x")})
    assert (await desk.numbers(desk.admin))["limited_total", ("limit", limit)] == 1


async def test_a_changed_policy_file_is_loaded_if_it_is_whole_and_else_the_one_before_goes_on(house, tmp_path, caplog):
    desk, path = house(), tmp_path / "policy.toml"
    before = desk.authority.policy.version
    reloader = Reloader(desk.service, path)
    path.write_text("[[policy]]\nname = 'none'\ndecision = 'no'\n")
    await reloader.load()
    assert desk.authority.policy.version == before
    assert "was not taken" in caplog.text and "decision" in caplog.text
    assert desk.get("/ready", key=None)[1]["policy_problem"] == "policy.toml on disk is not whole"
    path.write_text("[[policy]]\nname = 'none'\ndecision = 'denied'\n")
    await reloader.load()
    assert desk.submit()[1]["status"] == "denied"
    event, data = next(one for one in desk.audit() if one[0] == "POLICY_LOADED")
    assert data == {"version": desk.authority.policy.version, "before": before}
    assert desk.get("/ready", key=None)[1] == {
        **desk.get("/ready", key=None)[1],
        "policy_version": data["version"],
        "policy_problem": None,
    }
    await reloader.load()
    assert desk.events().count("POLICY_LOADED") == 1  # the same file


async def test_the_file_in_place_of_the_old_one_is_noticed(house, tmp_path):
    desk, path = house(), tmp_path / "policy.toml"
    path.write_text(POLICY)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Reloader(desk.service, path).run)
            while desk.authority.policy.policies:
                (tmp_path / "new").write_text("[thresholds]\npending = 50\n")
                os.replace(tmp_path / "new", path)
                await anyio.sleep(0.3)
            tasks.cancel_scope.cancel()
    assert desk.authority.policy.pending == 50


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.socket
def test_sighup_loads_the_file_again(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(sample_policy())
    with Process(policy, log=tmp_path / "log") as authority:
        assert authority.call("/ready", None)[1]["status"] == "ready"
        authority.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while "policy file loaded" not in (tmp_path / "log").read_text() and time.monotonic() < until:
            time.sleep(0.05)
        assert authority.end() == 0
    assert "policy file loaded" in (tmp_path / "log").read_text()


async def test_requests_are_traced_where_telemetry_is_on(house, monkeypatch):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    desk = house(telemetry=True)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-api-key": desk.user, "traceparent": parent}
    await desk.http.get("/api/v1/actions/7/status?wait=SECRET", headers=headers)
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /api/v1/actions/{id}/status"
    assert format(span.parent.span_id, "x") == "b7ad6b7169203331"
    assert span.attributes["http.response.status_code"] in (404, 422)
    assert "SECRET" not in span.to_json() and desk.user not in span.to_json()
