"""The metrics of the operator."""

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Standings = Callable[[], Mapping[tuple[str, str], int]]  # kind and status of Ready: how many resources


class Metrics:
    """What the operator counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.leader = Gauge("operator_leader", "1 while this operator holds the Lease, else 0", registry=registry)
        self.queue_depth = Gauge("operator_queue_depth", "Keys that wait for a worker", registry=registry)
        self.queue_age = Gauge(
            "operator_queue_age_seconds", "How long the key that waits longest has been due", registry=registry
        )
        self.reconciles = Counter(
            "operator_reconciles_total",
            "Reconciles by kind of key and result: ok, waiting (for something under way), away (something could not be "
            "reached), failed (a bug)",
            ("kind", "result"),
            registry=registry,
        )
        self.duration = Histogram(
            "operator_reconcile_duration_seconds",
            "How long a reconcile takes",
            ("kind",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.writes = Counter(
            "operator_writes_total", "Writes to the API server by verb and kind", ("verb", "kind"), registry=registry
        )
        self.events = Counter("operator_watch_events_total", "Events of watches by kind", ("kind",), registry=registry)
        self.watch_failures = Counter(
            "operator_watch_failures_total", "How often all watches had to be started anew", registry=registry
        )

    def write(self, verb: str, kind: str) -> None:
        """Count a write to the API server."""
        self.writes.labels(verb, kind).inc()

    def show(self, standings: Standings) -> None:
        """Export how many resources of each kind are Ready, asked anew at each scrape so that it cannot go stale."""
        self.registry.register(_Resources(standings))


class _Resources(Collector):
    def __init__(self, standings: Standings) -> None:
        self._standings = standings

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauge."""
        family = GaugeMetricFamily(
            "operator_resources", "Resources by kind and status of their condition Ready", labels=("kind", "ready")
        )
        for (kind, ready), count in sorted(self._standings().items()):
            family.add_metric((kind, ready), count)
        return [family]
