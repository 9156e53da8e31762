"""Metrics and traces, as OpenTelemetry's own SDK receives them."""

import asyncio
import gc
import re
import sys
import time
import weakref
from pathlib import Path

import pytest
from kit.asgi import Handler, ask, guard, unattended
from kit.engine import KEY, Engine, answer, failed, plug
from kit.processes import python
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ascend_middleware.client.http import ConnectFailed
from ascend_middleware.guard.telemetry import Telemetry
from ascend_middleware.state.base import StateError

RULES = [
    {"match": "POST /pay", "action_type": "transaction", "details": {"card": "body.card?"}},
    {"match": "POST /open", "action_type": "t", "on_failure": "open"},
    {"match": "GET /free", "exempt": True},
]
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Watched:
    """A guard with telemetry under providers of its own, which export into memory."""

    def __init__(self, monkeypatch, *answers, rules=RULES, **settings):
        self.engine = plug(monkeypatch, Engine(*answers))
        self.app = unattended(guard(Handler(), rules, **settings))
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        inner = self.app.guard
        inner.recorder.telemetry = Telemetry(inner, tracer_provider=self.tracers, meter_provider=self.meters)

    def run(self, *requests):
        async def main():
            for method, path in requests:
                await ask(self.app, path, method)

        asyncio.run(main())

    def metrics(self):
        """Return every data point: name and attributes to value, or (count, sum)."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "ascend_middleware"
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = point.value if hasattr(point, "value") else (point.count, point.sum)
                        found[metric.name, tuple(sorted(point.attributes.items()))] = value
        return found

    def close(self):
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def watched(monkeypatch):
    made = []

    def make(*answers, **settings):
        made.append(Watched(monkeypatch, *answers, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def attributes(**named):
    return tuple(sorted({name.replace("__", "."): value for name, value in named.items()}.items()))


def test_one_span_for_each_decision_and_none_for_what_nobody_is_asked_about(watched):
    one = watched(answer("approved"), answer("denied"))
    one.run(("POST", "/pay"), ("POST", "/pay"), ("GET", "/free"), ("GET", "/nowhere"))
    allowed, denied = one.spans.get_finished_spans()
    assert allowed.name == "ascend.decide"
    assert allowed.kind is SpanKind.CLIENT
    label = one.app.guard.table.rules[0].label
    assert dict(allowed.attributes) == {
        "http.request.method": "POST",
        "ascend.rule": label,
        "server.address": "authority.example",
        "server.port": 443,
        "ascend.outcome": "allowed",
        "gen_ai.agent.id": "bot",
        "ascend.action.type": "transaction",
        "ascend.action.id": "7",
        "ascend.client.requests": 1,
    }
    assert denied.attributes["ascend.outcome"] == "denied"
    assert denied.status.status_code is StatusCode.UNSET  # a denial is no error


def test_the_authority_gets_the_context_of_the_decisions_span(watched):
    one = watched(answer())
    tracer = one.tracers.get_tracer("application")
    with tracer.start_as_current_span("request") as parent:
        one.run(("POST", "/pay"))
    (request,) = one.engine.requests
    (sent,) = [value for name, value in request.headers if name.lower() == "traceparent"]
    decision = next(span for span in one.spans.get_finished_spans() if span.name == "ascend.decide")
    trace_id, span_id = TRACEPARENT.fullmatch(sent).groups()
    assert int(trace_id, 16) == decision.context.trace_id == parent.get_span_context().trace_id
    assert int(span_id, 16) == decision.context.span_id
    assert decision.parent.span_id == parent.get_span_context().span_id


def test_the_applications_span_is_the_current_one_again_in_the_handler(watched):
    one = watched(answer())
    handler, seen = one.app.app, []

    async def looks(scope, receive, send):
        seen.append(trace.get_current_span().get_span_context().is_valid)
        await handler(scope, receive, send)

    one.app.app = looks
    one.run(("POST", "/pay"))
    assert seen == [False]


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (ConnectFailed("away"), "connect-error"),
        (failed(500), "server-error"),
        (failed(200, b"<html>"), "unreadable"),
    ],
)
def test_a_failed_decision_is_an_error_of_its_cause(watched, failure, cause):
    one = watched(failure, deadline=0.3, journal="memory:")
    one.run(("POST", "/pay"))
    (span,) = one.spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes["error.type"], span.attributes["ascend.outcome"]) == (cause, "unavailable")
    assert not span.events  # no exception text: an authority may repeat what it was sent


@pytest.mark.parametrize(("mode", "outcome"), [("enforce", "unavailable"), ("observe", "observed")])
def test_a_decision_that_fails_in_this_process_is_an_error_of_its_outcome(watched, mode, outcome):
    one = watched(answer(), mode=mode)

    def away(**given):
        raise StateError("away")

    one.app.guard.state.snapshot = away
    one.run(("POST", "/pay"))
    (span,) = one.spans.get_finished_spans()
    assert (span.attributes["error.type"], span.attributes["ascend.outcome"]) == ("unavailable", outcome)


def test_decisions_are_counted_by_outcome_and_rule_with_their_latency(watched):
    one = watched(answer("approved"), answer("approved"), answer("denied"))
    one.run(*[("POST", "/pay")] * 3, ("GET", "/free"), ("GET", "/nowhere"))
    pay, _, free = (rule.label for rule in one.app.guard.table.rules)
    found = one.metrics()
    counts = {key[1]: value for key, value in found.items() if key[0] == "ascend.decisions"}
    assert counts == {
        attributes(ascend__outcome="allowed", ascend__rule=pay): 2,
        attributes(ascend__outcome="denied", ascend__rule=pay): 1,
        attributes(ascend__outcome="exempt", ascend__rule=free): 1,
        attributes(ascend__outcome="unmapped-route", ascend__rule="none"): 1,
    }
    count, total = found["ascend.decision.duration", attributes(ascend__outcome="allowed", ascend__rule=pay)]
    assert count == 2
    assert 0 < total < 60


def test_retries_and_the_breaker_are_seen(watched, monkeypatch):
    one = watched(ConnectFailed("away"), circuit_breaker_threshold=2, max_retries=1, journal="memory:")
    one.app.guard.core._random = lambda: 0.0
    open_rule = one.app.guard.table.rules[1].label
    one.run(*[("POST", "/open")] * 3)
    found = one.metrics()
    assert found["ascend.client.retries", attributes(ascend__rule=open_rule)] == 2
    states = {dict(key[1])["ascend.breaker.state"]: value for key, value in found.items() if "breaker" in key[0]}
    assert states == {"closed": 0, "half-open": 0, "open": 1}
    passed = {dict(key[1])["error.type"]: value for key, value in found.items() if key[0] == "ascend.decisions"}
    assert passed == {"connect-error": 2, "breaker-open": 1}
    spans = one.spans.get_finished_spans()
    assert [span.attributes.get("http.request.resend_count") for span in spans] == [1, 1, None]
    assert [span.attributes["error.type"] for span in spans] == ["connect-error", "connect-error", "breaker-open"]
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    assert found["ascend.journal.size", ()] > 0
    assert found["ascend.waiters", ()] == 0


def test_what_waits_in_the_journal_is_seen_with_its_age(watched):
    one = watched(answer(), journal="memory:", report_outcomes=True)
    seen = ["ascend.journal.age", "ascend.journal.size"]
    found = {name: value for (name, _), value in one.metrics().items() if "journal" in name}
    assert found == dict.fromkeys(seen, 0)
    one.run(("POST", "/pay"))
    one.app.guard.journal.waiting_since = time.time() - 100  # as its delivery says
    found = {name: value for (name, _), value in one.metrics().items() if "journal" in name}
    assert sorted(found) == seen and 100 <= found[seen[0]] < 200 and 0 < found[seen[1]] < 10_000


def test_a_defect_of_this_process_is_an_error_of_its_class_and_goes_on(watched):
    one = watched(answer())

    def broken(**given):
        raise LookupError("secret")

    one.app.guard.state.snapshot = broken
    with pytest.raises(LookupError):
        one.run(("POST", "/pay"))
    (span,) = one.spans.get_finished_spans()
    assert (span.attributes["error.type"], span.status.status_code) == ("LookupError", StatusCode.ERROR)
    assert "secret" not in span.to_json()


def test_a_cancelled_decision_ends_its_span(watched):
    async def hang(request):
        await asyncio.sleep(60)

    one = watched(hang)

    async def main():
        task = asyncio.ensure_future(ask(one.app, "/pay"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    (span,) = one.spans.get_finished_spans()
    assert span.attributes["ascend.outcome"] == "cancelled"


def test_nothing_secret_and_nothing_a_caller_sent_is_in_it(watched):
    one = watched(ConnectFailed(f"with {KEY}"), answer("pending"))

    async def main():
        for _ in range(2):
            wire = await ask(one.app, "/pay", body=b'{"card": "4111222233334444"}')
        return wire.json["approval"]["handle"]

    handle = asyncio.run(main())
    text = "".join(span.to_json() for span in one.spans.get_finished_spans()) + repr(one.metrics())
    for secret in (KEY, handle, "4111222233334444"):
        assert secret not in text


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://authority.example", ("authority.example", 443)),
        ("http://localhost", ("localhost", 80)),
        ("http://localhost:8100/base", ("localhost", 8100)),
        ("test://authority.example", (None, None)),
    ],
)
def test_a_span_names_the_server_that_is_asked(watched, url, server):
    one = watched(answer("approved"), api_url=url)
    one.run(("POST", "/pay"))
    (span,) = one.spans.get_finished_spans()
    assert (span.attributes.get("server.address"), span.attributes.get("server.port")) == server


def test_its_gauges_keep_no_guard_alive(monkeypatch):
    one = Watched(monkeypatch, answer())
    known = weakref.ref(one.app.guard)
    one.app = None
    gc.collect()
    assert known() is None
    assert not [key for key in one.metrics() if "breaker" in key[0]]
    one.close()


def test_nothing_of_it_is_imported_unless_it_is_asked_for():
    code = (
        "import sys; from ascend_middleware.asgi import AscendMiddleware;"
        f"AscendMiddleware(lambda *a: None, agent_id='bot', api_url='http://127.0.0.1:9', api_key={KEY!r});"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_who_asks_for_it_has_it():
    assert isinstance(guard(Handler(), RULES, telemetry=True).guard.recorder.telemetry, Telemetry)
    assert guard(Handler(), RULES).guard.recorder.telemetry is None


def test_asking_for_it_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(Exception, match=r"ascend-middleware\[telemetry\]"):
        guard(Handler(), RULES, telemetry=True)


def test_the_documents_program_shows_it_to_prometheus(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    asking = """
import urllib.request
from starlette.testclient import TestClient

with TestClient(app) as client:
    assert client.get("/nowhere").status_code == 404  # what the framework answers is judged, too
    print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode())
server.shutdown()
thread.join()
"""
    (tmp_path / "ascend.toml").write_text('[ascend]\nagent_id = "bot"\n[[rule]]\nmatch = "GET /x"\nexempt = true\n')
    environment = {"ASCEND_API_KEY": KEY, "ASCEND_API_URL": "http://127.0.0.1:9", "ASCEND_STATE": "memory:"}
    environment |= {"ASCEND_KILL_SWITCH": "off", "PATH": ""}
    done = python("-c", program.replace("9464", "0") + asking, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r'ascend_decisions_total\{.*ascend_outcome="framework".*\} 1\.0', done.stdout)
    assert re.search(r'ascend_client_breaker_state.*\{.*ascend_breaker_state="closed".*\} 1\.0', done.stdout)
    # Every metric that the page lists is there or begins with its first value.
    for name in re.findall(r"^\| `(ascend\.[a-z_.]+)` \|", page, re.MULTILINE):
        source = (Path(__file__).parents[2] / "ascend_middleware" / "guard" / "telemetry.py").read_text()
        assert f'"{name}"' in source


def test_what_is_used_again_is_told_apart(watched):
    rule = {"match": "GET /read", "action_type": "read", "cache": "30s", "coalesce": True}
    one = watched(answer("approved", policy_state="p"), rules=[rule], report_outcomes=True, journal="memory:")
    one.run(("GET", "/read"), ("GET", "/read"))
    asked, reused = one.spans.get_finished_spans()
    assert "ascend.reuse" not in asked.attributes and asked.attributes["ascend.client.requests"] == 1
    assert (reused.attributes["ascend.reuse"], reused.attributes["ascend.client.requests"]) == ("cached", 0)
    assert TRACEPARENT.fullmatch(dict(one.engine.requests[0].headers)["traceparent"])
    label = one.app.guard.table.rules[0].label
    counted = one.metrics()
    assert counted["ascend.decisions", attributes(ascend__outcome="allowed", ascend__rule=label)] == 1
    again = attributes(ascend__outcome="allowed", ascend__rule=label, ascend__reuse="cached")
    assert counted["ascend.decisions", again] == 1
