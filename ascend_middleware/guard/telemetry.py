"""Metrics and traces through opentelemetry-api: what is decided, how long it takes, and how the authority is reached.

Nothing is exported here, and no provider is configured: the application's own SDK does, see docs/telemetry.md. Names
follow OpenTelemetry's semantic conventions where they have one (`error.type`, `http.route`, `server.address`,
`gen_ai.agent.id`); what is ours begins with `ascend.`.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from msgspec import structs

from .._version import __version__
from ..client.core import Send
from ..exceptions import ConfigurationError
from ..verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider

    from ..flow import Flow
    from .health import Gauges
    from .request import RequestView

__all__ = ["Telemetry", "open_telemetry"]

SCOPE: Final = "ascend_middleware"
# Seconds, as the semantic conventions advise for HTTP.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BREAKER_STATES: Final = ("closed", "half-open", "open")
# Refusals that tell of a failure, ours or the authority's; a denial is a success of the decision.
_FAILURES: Final = frozenset({"unavailable", "misconfigured"})


def open_telemetry(guard: Gauges) -> Telemetry:
    """Return the telemetry of a guard, under the providers that the application has set globally.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """
    try:
        import opentelemetry.metrics
        import opentelemetry.trace  # noqa: F401 - optional dependency, asked for both halves
    except ImportError:
        raise ConfigurationError("telemetry = true needs the extra ascend-middleware[telemetry]") from None
    return Telemetry(guard)


class Telemetry:
    """The instruments of one guard.

    Args:
        guard: what is measured; it is not kept alive.
        tracer_provider: the global one when None.
        meter_provider: likewise.
    """

    def __init__(
        self,
        guard: Gauges,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        from opentelemetry import metrics, propagate, trace

        self._trace = trace
        self._inject: Final = propagate.inject
        self._tracer: Final = trace.get_tracer(SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(SCOPE, __version__, meter_provider)
        self._decisions: Final = meter.create_counter(
            "ascend.decisions", unit="{decision}", description="Judged requests, by outcome and rule."
        )
        self._duration: Final = meter.create_histogram(
            "ascend.decision.duration",
            unit="s",
            description="From the request to its verdict.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._retries: Final = meter.create_counter(
            "ascend.client.retries", unit="{retry}", description="Requests to the authority that were sent again."
        )
        known = weakref.ref(guard)
        observe = metrics.Observation

        def gauge(name: str, unit: str, about: str, read: Callable[[Gauges], Iterable[Observation]]) -> None:
            def callback(options: CallbackOptions) -> Iterable[Observation]:
                found = known()
                return () if found is None else read(found)

            meter.create_observable_gauge(name, callbacks=[callback], unit=unit, description=about)

        gauge(
            "ascend.client.breaker.state",
            "1",
            "1 for the state in which the circuit breaker is, 0 for the others.",
            lambda guard: [
                observe(int(guard.core.breaker.state == state), {"ascend.breaker.state": state})
                for state in BREAKER_STATES
            ],
        )
        gauge("ascend.waiters", "{request}", "Requests held for a person.", lambda guard: [observe(guard.waiters)])
        gauge("ascend.journal.size", "By", "What waits to be reported.", lambda guard: _size(guard, observe))
        gauge("ascend.journal.age", "s", "Age of the oldest line that waits.", lambda guard: _age(guard, observe))
        gauge(
            "ascend.kill_state.age",
            "s",
            "Since the authority's last word on the kill switch.",
            lambda guard: _confirmed(guard, observe),
        )
        parts = urlsplit(guard.settings.api_url)
        self._server: Final[dict[str, str | int]] = {}
        if parts.scheme in ("http", "https") and parts.hostname:
            self._server["server.address"] = parts.hostname
            self._server["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)

    def watch(self, flow: Flow[Verdict], view: RequestView, label: str) -> Flow[Verdict]:
        """Run a decision inside a span of its own, whose context goes to the authority with every request."""
        attributes = {"http.request.method": view.verb, "ascend.rule": label, **self._server}
        if view.resolved is not None and view.resolved.leaf is not None:
            attributes["http.route"] = view.resolved.leaf.template
        span = self._tracer.start_span(
            "ascend.decide", kind=self._trace.SpanKind.CLIENT, attributes=attributes, record_exception=False
        )
        carried: dict[str, str] = {}
        self._inject(carried, context=self._trace.set_span_in_context(span))
        sent = _Sent()
        try:
            verdict = yield from _carrying(flow, tuple(carried.items()), sent)
            self._end(span, verdict, sent)
            return verdict
        except GeneratorExit:
            span.set_attribute("ascend.outcome", "cancelled")
            raise
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._trace.StatusCode.ERROR)
            raise
        finally:
            span.end()
            if sent.again:
                self._retries.add(sent.again, {"ascend.rule": label})

    def _end(self, span: Span, verdict: Verdict, sent: _Sent) -> None:
        span.set_attribute("ascend.outcome", verdict.outcome)
        if verdict.action is not None:
            span.set_attribute("gen_ai.agent.id", verdict.action.agent_id)
            span.set_attribute("ascend.action.type", verdict.action.action_type)
        if verdict.action_id is not None:
            span.set_attribute("ascend.action.id", verdict.action_id)
        span.set_attribute("ascend.client.requests", sent.requests)
        if sent.again:
            span.set_attribute("http.request.resend_count", sent.again)
        failed = verdict.outcome in _FAILURES or verdict.would in _FAILURES
        if verdict.cause is not None or failed:
            span.set_attribute("error.type", verdict.cause or verdict.would or verdict.outcome)
            span.set_status(self._trace.StatusCode.ERROR)

    def record(self, verdict: Verdict, *, seconds: float) -> None:
        """Count one judged request."""
        attributes = {
            "ascend.outcome": verdict.outcome,
            "ascend.rule": verdict.rule.label if verdict.rule is not None else "none",
        }
        if verdict.cause is not None:
            attributes["error.type"] = verdict.cause
        self._decisions.add(1, attributes)
        self._duration.record(seconds, attributes)


@dataclass(slots=True)
class _Sent:
    """What one decision sent to the authority: requests, and how many of them were repetitions."""

    requests: int = 0
    again: int = 0


def _carrying(flow: Flow[Verdict], headers: tuple[tuple[str, str], ...], sent: _Sent) -> Flow[Verdict]:
    """Hand a flow's steps on; every request to the authority carries the headers, and is counted."""
    last = None
    try:
        step = next(flow)
        while True:
            if isinstance(step, Send):
                sent.requests += 1
                # A retry is the same request, not one like it.
                sent.again += step.request is last
                last = step.request
                asked = structs.replace(step.request, headers=step.request.headers + headers)
                step = structs.replace(step, request=asked)
            try:
                result: Any = yield step
            except GeneratorExit:
                raise
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        verdict: Verdict = stop.value
        return verdict
    finally:
        flow.close()


def _size(guard: Gauges, observe: Callable[..., Observation]) -> list[Observation]:
    journal = guard.journal
    return [] if journal is None else [observe(journal.backlog)]


def _age(guard: Gauges, observe: Callable[..., Observation]) -> list[Observation]:
    journal = guard.journal
    if journal is None:
        return []
    since = journal.waiting_since
    return [observe(max(0.0, guard.now() - since) if since is not None and journal.backlog else 0.0)]


def _confirmed(guard: Gauges, observe: Callable[..., Observation]) -> list[Observation]:
    at = guard.kill.snapshot.confirmed_at
    return [observe(max(0.0, guard.now() - at))] if at else []
