"""How a guard is: its health, as numbers and names of kinds, never a secret; and metrics and traces.

Those go through opentelemetry-api: what is decided, how long it takes, and how the authority is reached. Nothing is
exported here, and no provider is configured: the application's own SDK does, see docs/telemetry.md. Names
follow OpenTelemetry's semantic conventions where they have one (`error.type`, `http.route`, `server.address`,
`gen_ai.agent.id`); what is ours begins with `ascend.`.
"""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from msgspec import structs

from .._version import __version__
from ..client.core import Send
from ..exceptions import AscendError, ConfigurationError
from ..flow import Shared
from ..masking import get_logger
from ..verdict import Refusal, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider

    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..killswitch.switch import KillSwitch
    from ..state.base import State
    from .cache import Reuse
    from .log import Recorder
    from .request import RequestView
    from .runs import OpenBudget

__all__ = ["Telemetry", "check", "health_of", "open_telemetry"]

logger = get_logger("ascend_middleware.guard")

T = TypeVar("T")
# The part of a journal's limits from which it is told to be nearly full.
_NEAR = 0.8
# Seconds between two tries of a key that was refused, and for each.
_KEY_AGAIN = 5.0
_KEY_SECONDS = 1.0
SCOPE: Final = "ascend_middleware"
# Seconds, as the semantic conventions advise for HTTP.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BREAKER_STATES: Final = ("closed", "half-open", "open")
# Refusals that tell of a failure, ours or the authority's; a denial is a success of the decision.
_FAILURES: Final = frozenset({"unavailable", "misconfigured"})


class Gauges(Protocol):
    """What health and telemetry read of a guard; see `decide.Guard`."""

    settings: Settings
    core: ClientCore
    kill: KillSwitch
    state: State
    journal: Journal | None
    budget: OpenBudget
    reuse: Reuse
    recorder: Recorder
    key_tried_at: float

    @property
    def waiters(self) -> int: ...

    @property
    def worker_runs(self) -> bool: ...

    @property
    def fault(self) -> str | None: ...


def check(guard: Gauges) -> Flow[Verdict]:
    """Read what the workers share, unless that was done just now, and report: 503 while requests cannot be served."""
    # One request reads for all; who comes while it does reports what was read last.
    readable = yield from guard.kill.look(waits=False)
    clock = guard.core.clock()
    if guard.core.key_refused and clock - guard.key_tried_at >= _KEY_AGAIN:
        # While a load balancer sends no requests, nobody else would notice that the key is good again.
        guard.key_tried_at = clock
        try:
            yield from guard.core.try_key(seconds=_KEY_SECONDS)
        except AscendError as error:
            logger.debug("the key is still not known to be good: %s", error)
    found = health_of(guard, readable=readable)
    status = 503 if found["status"] == "failing" else 200
    report = Refusal(problem="health", detail="", status=status, report=found)
    return Verdict(outcome="health", passes=False, refusal=report)


def health_of(guard: Gauges, *, readable: bool | None = None) -> dict[str, Any]:
    """Return how a guard is, as JSON would hold it, without asking anybody.

    `status` is `ok`; `degraded` while the authority is not asked, or the journal fills up; `failing` while governed
    requests are refused for a reason of this service; or `disabled`. Durations are in seconds, sizes in bytes; None is
    what never happened, or nobody tried.
    """
    settings, kill, breaker = guard.settings, guard.kill, guard.core.breaker
    age, confirmed = kill.age, kill.confirmed_age
    found: dict[str, Any] = {
        "breaker": {"state": breaker.state, "failures": breaker.failures},
        "fault": guard.fault,
        "kill_state": {
            "age_seconds": round(age, 3) if age < 1e8 else None,
            "confirmed_seconds": None if confirmed is None else round(confirmed, 3),
            "stale": kill.is_stale,
            "orders": len(kill.snapshot.orders),
            "local": kill.is_thrown,
        },
        "journal": None if guard.journal is None else _journal(guard.journal),
        "open_passes": {
            "last_minute": guard.budget.spent,
            "per_minute": settings.open_per_minute,
            "total": guard.budget.total,
        },
        "cache": {"entries": guard.reuse.entries, "most": settings.cache_entries, **guard.recorder.reused},
        "waiters": {"now": guard.waiters, "most": settings.max_waiters},
        "engine": "local" if settings.is_local else settings.engine,
        "state": {"kind": guard.state.kind, "readable": readable},
        "keeper": guard.worker_runs,
        "mode": settings.mode,
    }
    return {"status": _status(settings.enabled, found), **found}


def _journal(journal: Journal) -> dict[str, Any]:
    age = journal.age
    return {
        "bytes": journal.backlog,
        "most_bytes": journal.limits.size,
        "oldest_seconds": None if age is None else round(age, 3),
        "most_seconds": journal.limits.age,
        "unjournalled": journal.unjournalled,
        "delivered": journal.delivered,
        "worker_seconds": round(journal.worker_seconds, 3),
    }


def _status(enabled: bool, found: dict[str, Any]) -> str:
    if not enabled:
        return "disabled"
    journal = found["journal"] or {"bytes": 0, "most_bytes": 1, "oldest_seconds": None, "most_seconds": 1.0}
    filled = max(journal["bytes"] / journal["most_bytes"], (journal["oldest_seconds"] or 0.0) / journal["most_seconds"])
    kill = found["kill_state"]
    if found["fault"] or found["state"]["readable"] is False or filled >= 1 or kill["stale"] or kill["local"]:
        return "failing"
    return "degraded" if found["breaker"]["state"] != "closed" or filled >= _NEAR else "ok"


def open_telemetry(guard: Gauges) -> Telemetry:
    """Return a guard's telemetry, under the providers that the application has set globally."""
    try:
        import opentelemetry.metrics
        import opentelemetry.trace  # noqa: F401 - optional dependency, asked for both halves
    except ImportError:
        raise ConfigurationError("telemetry = true needs the extra ascend-middleware[telemetry]") from None
    return Telemetry(guard)


class Telemetry:
    """The instruments of one guard, which they do not keep alive."""

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

        def gauge(name: str, unit: str, about: str, read: Callable[[Gauges], list[tuple[float | None, Any]]]) -> None:
            def callback(options: CallbackOptions) -> Iterable[Observation]:
                found = known()
                values = () if found is None else read(found)
                return [metrics.Observation(value, labels) for value, labels in values if value is not None]

            meter.create_observable_gauge(name, callbacks=[callback], unit=unit, description=about)

        gauge(
            "ascend.client.breaker.state",
            "1",
            "1 for the state in which the circuit breaker is, 0 for the others.",
            lambda guard: [
                (int(guard.core.breaker.state == state), {"ascend.breaker.state": state}) for state in BREAKER_STATES
            ],
        )
        gauge("ascend.waiters", "{request}", "Requests held for a person.", lambda guard: [(guard.waiters, None)])
        gauge("ascend.journal.size", "By", "What waits to be reported.", _size)
        gauge("ascend.journal.age", "s", "Age of the oldest line that waits.", _age)
        about = "Since the authority's last word on the kill switch."
        gauge("ascend.kill_state.age", "s", about, lambda guard: [(guard.kill.confirmed_age, None)])
        parts = urlsplit(guard.settings.api_url)
        self._server: Final[dict[str, str | int]] = {}
        if parts.scheme in ("http", "https") and parts.hostname:
            self._server["server.address"] = parts.hostname
            self._server["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)

    def watch(self, flow: Flow[Verdict], view: RequestView, label: str) -> Flow[Verdict]:
        """Run a decision inside a span, whose context goes to the authority."""
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
        if verdict.reuse is not None:
            span.set_attribute("ascend.reuse", verdict.reuse)
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
        if verdict.reuse is not None:
            attributes["ascend.reuse"] = verdict.reuse
        self._decisions.add(1, attributes)
        self._duration.record(seconds, attributes)


@dataclass(slots=True)
class _Sent:
    """What one decision sent to the authority: requests, and how many of them were repetitions."""

    requests: int = 0
    again: int = 0


def _made_carrying(make: Callable[[], Flow[Any]], headers: tuple[tuple[str, str], ...], sent: _Sent) -> Flow[Any]:
    return _carrying(make(), headers, sent)


def _carrying(flow: Flow[T], headers: tuple[tuple[str, str], ...], sent: _Sent) -> Flow[T]:
    """Hand a flow's steps on; requests carry the headers, and are counted."""
    last = None
    try:
        step = next(flow)
        while True:
            if isinstance(step, Send):
                sent.requests += 1
                # A retry is the same request, not one like it.
                sent.again += step.request is last
                last = step.request
                asked = structs.replace(step.request, own=step.request.own + headers)
                step = structs.replace(step, request=asked)
            elif isinstance(step, Shared):
                step = structs.replace(step, make=functools.partial(_made_carrying, step.make, headers, sent))
            try:
                result: Any = yield step
            except GeneratorExit:
                raise
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        result = stop.value
        return result  # type: ignore[no-any-return]
    finally:
        flow.close()


def _size(guard: Gauges) -> list[tuple[float | None, None]]:
    return [] if guard.journal is None else [(guard.journal.backlog, None)]


def _age(guard: Gauges) -> list[tuple[float | None, None]]:
    return [] if guard.journal is None else [(guard.journal.age or 0.0, None)]
