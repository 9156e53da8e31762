"""How the guard is, and what it reports, in a Django project with and without an event loop."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ascend_middleware import django as ascend_django
from ascend_middleware.django import configuration
from ascend_middleware.guard.telemetry import Telemetry


def test_the_health_route_answers_without_a_decision(site, ascend, ran):
    ascend(health_path="/.ascend/health")
    answer = site.ask("GET", "/.ascend/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert set(answer.json()) == set(ascend_django.health())
    assert (ran, site.authority.requests) == ([], [])


def test_without_the_setting_there_is_no_such_route(site):
    assert site.ask("GET", "/.ascend/health").status_code == 404


def test_the_project_may_ask_before_the_first_request(ascend):
    assert ascend_django.health()["status"] == "ok"
    assert ascend_django.AscendMiddleware(lambda request: None).health()["mode"] == "enforce"


def test_it_is_that_of_the_guard_that_serves_until_it_is_forgotten(site, ascend):
    ascend(on_failure="open", max_retries=0, state="memory:")
    site.authority.refuse_connections()
    assert site.ask("GET", "/customers/7").json()["outcome"] == "open"
    assert ascend_django.health()["open_passes"]["total"] == 1
    configuration.forget()
    assert ascend_django.health()["open_passes"]["total"] == 0


def test_a_decision_is_a_span(site):
    spans, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    guard = site.runner.guard
    guard.recorder.telemetry = Telemetry(guard, tracer_provider=tracers)
    assert site.ask("GET", "/customers/7").status_code == 200
    (span,) = spans.get_finished_spans()
    assert span.attributes["ascend.outcome"] == "allowed"
    assert span.attributes["http.route"] == "/customers/{customer_id:int}"
    tracers.shutdown()
