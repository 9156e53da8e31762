"""The alert rules of docs/alerts.md are valid, and name what guards and authorities really export."""

import asyncio
import re
import time
from pathlib import Path

import httpx2
import pytest
import yaml
from kit.asgi import Handler, ask, guard, unattended
from kit.desk import POLICY, Desk
from kit.engine import Engine, answer, failed, plug
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ascend_middleware.authority.server import create_app
from ascend_middleware.authority.service import Service
from ascend_middleware.client.http import ConnectFailed, Overloaded
from ascend_middleware.guard.telemetry import Telemetry

PAGE = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
GUARDS, AUTHORITIES = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
SELECTOR = re.compile(r"\b(ascend_[a-z_]+|up)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
BY = re.compile(r"\bby \(([^)]*)\)")
FUNCTIONS = {"increase", "rate", "resets", "histogram_quantile"}
# What Prometheus adds itself.
TARGET = {"job", "instance"}


def samples(text):
    """Return the samples of an exposition: names, each with its labels and the values of these."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = found.setdefault(one.name, {})
            for name, value in one.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def rules(content):
    (group,) = content["groups"]
    return group["rules"]


@pytest.fixture(scope="module")
def of_guards():
    """Return what a guard exports after requests of every kind that rules speak of."""
    table = [
        {"match": "POST /pay", "action_type": "t"},
        {"match": "POST /open", "action_type": "t", "on_failure": "open"},
    ]
    monkeypatch = pytest.MonkeyPatch()
    script = [answer(), answer("denied"), *[ConnectFailed("no")] * 2, *[failed(503)] * 2, Overloaded("no"), failed(401)]
    plug(monkeypatch, Engine(*script))
    app = unattended(guard(Handler(), table, max_retries=1, poll_interval=0.01))
    meters = MeterProvider([PrometheusMetricReader()])
    app.guard.recorder.telemetry = Telemetry(app.guard, meter_provider=meters)

    async def main():
        for path in ("/pay", "/pay", "/open", "/nowhere", "/pay", "/pay", "/pay"):
            await ask(app, path, "POST")

    try:
        app.guard.state.confirm(now=time.time())
        asyncio.run(main())
        yield samples(generate_latest().decode())
    finally:
        meters.shutdown()
        monkeypatch.undo()


@pytest.fixture(scope="module")
def of_authorities(tmp_path_factory):
    """Return what an authority exports after all that rules speak of has happened to it."""
    desk = Desk(POLICY + "\n[limits]\naddress = 20\n", tmp_path_factory.mktemp("authority") / "authority.db")
    service = Service(desk.authority)
    transport = httpx2.ASGITransport(create_app(desk.authority, service=service), client=("192.0.2.1", 1))

    async def main():
        courier = asyncio.create_task(service.courier.run())
        async with httpx2.AsyncClient(transport=transport, base_url="http://authority") as http:

            async def ask(method, path, body=None, key=desk.admin):
                return await http.request(method, path, json=body, headers={"x-api-key": key})

            for event in ("action.pending", "action.denied"):
                hook = {"target_url": "https://receiver.invalid/", "event_types": [event]}
                assert (await ask("POST", "/api/webhooks", hook)).status_code == 201
            for kind in ("data_access", "database_schema", "transaction", "transaction"):
                body = {"agent_id": "a", "action_type": kind, "resource": "r", "action_details": {"amount": 5000}}
                assert (await ask("POST", "/api/v1/actions/submit", body, desk.user)).status_code == 200
                desk.time += 5 * 86_400  # after seven the first of those that wait has expired
            desk.store.expire()
            assert (await ask("GET", "/api/v1/orchestration/topologies")).status_code == 501
            await ask("GET", "/health", key="owkai_user_guess")
            await ask("GET", "/api/deployment-info", key="owkai_user_guess")
            while (await ask("GET", "/health")).status_code != 429:
                pass
            desk.time += 120
            while "ascend_authority_webhook_attempts_total" not in (
                found := samples((await ask("GET", "/metrics")).text)
            ):
                desk.time += 60
                await asyncio.sleep(0.01)
            courier.cancel()
            await asyncio.gather(courier, return_exceptions=True)
            return found

    try:
        return asyncio.run(main())
    finally:
        desk.authority.close()


RULES = [("guard", rule) for rule in rules(GUARDS)] + [("authority", rule) for rule in rules(AUTHORITIES)]


@pytest.fixture
def exported(kind, of_guards, of_authorities):
    return {"up": {"job": {"ascend-authority"}}, **(of_guards if kind == "guard" else of_authorities)}


@pytest.mark.parametrize(("kind", "rule"), RULES, ids=lambda value: value if isinstance(value, str) else value["alert"])
def test_a_rule_names_what_is_exported(kind, rule, exported):
    expression = re.sub(r"#.*", "", rule["expr"])
    named, metrics = set(), []
    for metric, matchers in SELECTOR.findall(BY.sub("", expression)):
        assert metric in exported, metric
        metrics.append(metric)
        named |= exported[metric].keys()
        for label, sign, value in MATCHER.findall(matchers):
            assert label in exported[metric], (metric, label)
            for word in value.split("|") if "~" in sign else [re.escape(value)]:
                assert any(map(re.compile(word).fullmatch, exported[metric][label])), (metric, label, word)
    assert metrics
    grouped = {label for group in BY.findall(expression) for label in re.split(r"[,\s]+", group.strip())}
    assert grouped <= named | TARGET
    # A label in a text is one that the expression leaves.
    told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert told <= ((grouped - {"le"}) or named | TARGET)


@pytest.mark.parametrize("content", [GUARDS, AUTHORITIES], ids=["guards", "authorities"])
def test_the_rules_are_what_prometheus_reads(content):
    assert list(content) == ["groups"]
    for rule in rules(content):
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"} and "summary" in rule["annotations"]
        assert re.fullmatch(r"Ascend\w+", rule["alert"]) and rule["labels"]["severity"] in ("page", "ticket")
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        for opening, closing in ("()", "{}", "[]"):
            assert rule["expr"].count(opening) == rule["expr"].count(closing)
        assert set(re.findall(r"\b([a-z_]+)\(", rule["expr"])) <= FUNCTIONS
    names = [rule["alert"] for _, rule in RULES]
    assert len(names) == len(set(names))
    assert content["groups"][0]["name"] in ("ascend-guards", "ascend-authorities")


def test_every_metric_of_a_guard_has_a_rule():
    """What a page lists as a metric of guards is worth an alarm, or it is not worth a metric."""
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    names = [name.replace(".", "_") for name in re.findall(r"^\| `(ascend\.[a-z_.]+)` \|", page, re.MULTILINE)]
    text = str(GUARDS)
    assert [name for name in names if name not in text] == []
