"""What a serving authority counts, in the text form of Prometheus; and its traces, where telemetry is on."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, Protocol

import prometheus_client as prometheus
from prometheus_client import gc_collector, platform_collector, process_collector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ascend_middleware._version import __version__

from .policy.approvers import OBSERVED
from .service import Service
from .store.database import Reader, StorageError

__all__ = ["Metrics", "Traces", "untraced"]

CONTENT_TYPE: Final = prometheus.CONTENT_TYPE_LATEST
_SCOPE: Final = "ascend_middleware.authority"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
# What became of an action that waited, by the audit entry that tells it.
_SETTLED: Final = {"ACTION_APPROVED": "approved", "ACTION_DENIED": "denied", "ACTION_EXPIRED": "expired"}
_TENANT: Final = "tenant"


class Span(Protocol):
    """One traced request."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Say something of it."""


class _Times:
    """How long answers took: counts by bucket and beyond, and the sum; the library's own takes much longer."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.sum = 0.0


class Metrics:
    """The numbers of one served authority; those of the database are read when somebody asks for them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[tuple[Any, tuple[object, ...]], Any] = {}
        self._registry = registry = prometheus.CollectorRegistry()
        process_collector.ProcessCollector(registry=registry)
        platform_collector.PlatformCollector(registry=registry)
        gc_collector.GCCollector(registry=registry)
        self._seconds: dict[tuple[str, int], _Times] = {}
        registry.register(_AtScrape(self._answers))
        self._decisions = _counter(
            registry, "decisions", "Submitted actions, by what was decided about them.", _TENANT, "decision"
        )
        self._settled = _counter(
            registry, "settled", "Actions that waited for a person, by what became of them.", _TENANT, "outcome"
        )
        self._entries = _counter(registry, "audit_entries", "Entries added to the audit log.", "event")
        self._limited = _counter(registry, "limited", "Requests and connections refused by a limit.", "limit")
        self._webhooks = _counter(registry, "webhook_attempts", "Attempts to deliver a webhook.", "result")
        registry.register(_AtScrape(self._read))
        service.authority.limited = lambda name: self._limited.labels(name).inc()
        service.authority.store.on_entry = self._entry
        service.courier.on_attempt = lambda delivered: self._webhooks.labels(
            "delivered" if delivered else "failed"
        ).inc()

    def answered(self, kind: str, status: int, seconds: float) -> None:
        """Count an answer."""
        times = self._seconds.get((kind, status))
        if times is None:
            times = self._seconds[kind, status] = _Times()
        times.counts[bisect.bisect_left(_BUCKETS, seconds)] += 1
        times.sum += seconds

    def text(self, *, tenant: str | None = None) -> bytes:
        """Return everything; of organisations only one's own, or with None every one's."""
        return prometheus.generate_latest(_Seen(self._registry, tenant))

    def _of(self, family: prometheus.Counter, *labels: object) -> prometheus.Counter:
        """Return the one of a family with these labels, which the library looks for at some length."""
        found: prometheus.Counter | None = self._known.get((family, labels))
        if found is None:
            found = self._known[family, labels] = family.labels(*labels)
        return found

    def _entry(self, event: str, tenant: str, data: Mapping[str, Any], count: int) -> None:
        self._of(self._entries, event).inc(count)
        if event == "ACTION_SUBMITTED":
            observed = data["decision"] == "pending" and data.get(OBSERVED)
            self._of(self._decisions, tenant, OBSERVED if observed else data["decision"]).inc(count)
        elif event in _SETTLED:
            self._settled.labels(tenant, _SETTLED[event]).inc(count)

    def _answers(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "ascend_authority_request_seconds",
            "Time until an answer, by what was asked for and its status; held requests wait for a person.",
            labels=("kind", "status"),
        )
        for (kind, status), times in [*self._seconds.items()]:
            counts = itertools.accumulate(times.counts)
            buckets = [*zip((*map(str, _BUCKETS), "+Inf"), counts, strict=True)]
            family.add_metric((kind, str(status)), buckets, times.sum)
        yield family

    def _read(self) -> Iterator[Metric]:
        service, authority = self._service, self._service.authority
        yield _gauge(
            "info", "The running version and its policy file.", 1, version=__version__, policy=authority.policy.version
        )
        yield _gauge(
            "policy_file_ok", "Whether the policy file on disk is the one in use.", not authority.policy_problem
        )
        yield _gauge(
            "policies_agree", "Whether all replicas decide by the same policy file.", not authority.peers.differing
        )
        yield _gauge("ready", "Whether it can decide; /ready tells why not.", not authority.readiness.reasons())
        yield _gauge("held_requests", "Requests that are held until somebody decides.", service.waiters.count)
        yield _gauge("writer_queue", "Changes that wait for their commit.", service.writer.waiting)
        free = authority.readiness.free_bytes
        if free is not None:
            yield _gauge("disk_free_bytes", "What the database's disk has left.", free)
        try:
            with authority.store.snapshot() as reader:
                found = list(_stored(reader, authority.now()))
        except StorageError:
            yield _gauge("database_ok", "Whether the database can be read.", 0)
            return
        yield _gauge("database_ok", "Whether the database can be read.", 1)
        yield from found


def _stored(reader: Reader, now: float) -> Iterator[Metric]:
    """Yield what the database knows."""
    waiting = GaugeMetricFamily("ascend_authority_pending", "Actions that wait for a person.", labels=[_TENANT])
    oldest = GaugeMetricFamily(
        "ascend_authority_pending_oldest_seconds", "For how long the oldest of them has waited.", labels=[_TENANT]
    )
    for row in reader.rows(
        "SELECT tenant, count(*) AS n, min(created_at) AS first FROM actions WHERE status = 'pending' GROUP BY tenant"
    ):
        waiting.add_metric([row["tenant"]], row["n"])
        oldest.add_metric([row["tenant"]], max(0.0, now - datetime.fromisoformat(row["first"]).timestamp()))
    yield from (waiting, oldest)
    queue = reader.rows("SELECT count(*) AS n, min(since) AS first FROM deliveries")[0]
    yield _gauge("webhooks_waiting", "Webhook deliveries that wait.", queue["n"])
    late = 0.0 if queue["first"] is None else max(0.0, now - queue["first"])
    yield _gauge("webhooks_oldest_seconds", "For how long the oldest of them has waited.", late)
    head = reader.rows("SELECT seq FROM audit_head")[0][0]
    yield CounterMetricFamily("ascend_authority_audit_head", "Number of the audit log's last entry.", value=head)


def _counter(registry: prometheus.CollectorRegistry, name: str, text: str, *labels: str) -> prometheus.Counter:
    return prometheus.Counter(f"ascend_authority_{name}", text, labels, registry=registry)


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(f"ascend_authority_{name}", text, labels=list(labels))
    family.add_metric(list(labels.values()), float(value))
    return family


class _AtScrape:
    """A collector that reads when it is asked, and not when it is registered."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return self._read()

    def describe(self) -> list[Metric]:
        return []


class _Seen(prometheus.CollectorRegistry):
    """A registry as one organisation may see it."""

    def __init__(self, registry: prometheus.CollectorRegistry, tenant: str | None) -> None:
        super().__init__()
        self._all, self._tenant = registry, tenant

    def collect(self) -> Iterator[Metric]:
        for family in self._all.collect():
            if self._tenant is not None:
                family.samples = [
                    one for one in family.samples if one.labels.get(_TENANT, self._tenant) == self._tenant
                ]
            yield family


class Traces:
    """One span for each request, through opentelemetry-api, to whatever provider this process has."""

    def __init__(self) -> None:
        from opentelemetry import propagate, trace

        self._extract, self._kind = propagate.extract, trace.SpanKind.SERVER
        self._tracer = trace.get_tracer(_SCOPE, __version__)

    @contextlib.contextmanager
    def __call__(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """Trace a request as a part of what its caller traces; never its path, query, body or key."""
        name = f"{method} {route}" if route else method
        attributes = {"http.request.method": method, **({"http.route": route} if route else {})}
        context = self._extract(dict(headers))
        with self._tracer.start_as_current_span(name, context, self._kind, attributes) as span:
            yield span


class _NoSpan:
    def set_attribute(self, key: str, value: Any) -> None:
        pass


_UNTRACED: Final = contextlib.nullcontext[Span](_NoSpan())


def untraced(method: str, route: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
    """Trace nothing."""
    return _UNTRACED
