"""What a receiver measures; the label `result` is accepted, accepted_without_key, duplicate, handshake or a code."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

UNKNOWN: Final = "unknown"  # one label for all requests that reach no endpoint; an endpoint's label has a slash in it

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The receiver's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ingestion = Counter(
            "webhook_ingestion",
            "Requests to ingest URLs, by what became of them.",
            ("endpoint", "result"),
            registry=registry,
        )
        self._results: dict[tuple[str, str], Counter] = {}
        self.duration = Histogram(
            "webhook_ingestion_duration_seconds",
            "From the first look at an accepted request to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "webhook_ingestion_batch_size", "Events that shared one commit.", buckets=_EVENTS, registry=registry
        )
        self.queue_depth = Gauge(
            "webhook_ingestion_queue_depth", "Events that wait for their commit to begin.", registry=registry
        )
        self.queue_largest = Gauge(
            "webhook_ingestion_queue_largest",
            "Events of the endpoint that has most of them waiting for their commit to begin.",
            registry=registry,
        )
        self.connections = Gauge("webhook_ingestion_connections", "Open connections.", registry=registry)
        self.commit_failures = Counter(
            "webhook_ingestion_commit_failures", "Commits that failed, by reason.", ("reason",), registry=registry
        )
        self._keyless = Counter(
            "webhook_order_key_failures",
            "Accepted webhooks for which the key of an ordered destination could not be computed, by why.",
            ("destination", "reason"),
            registry=registry,
        )
        self.keys_awaited = Gauge(
            "webhook_order_keys_awaited",
            "Webhooks that wait because order keys take long to compute.",
            registry=registry,
        )
        self.database_up = Gauge("database_up", "1 while this process can write to the database.", registry=registry)
        self.generation = Gauge(
            "configuration_generation", "The generation of the configuration that is served.", registry=registry
        )

    def count_keyless(self, destination: str, reason: str) -> None:
        """Count an event that goes in order with all others that have no key."""
        self._keyless.labels(destination, reason).inc()

    def count(self, endpoint: str, result: str) -> None:
        """Count one request."""
        counter = self._results.get((endpoint, result))
        if counter is None:
            counter = self._results[endpoint, result] = self._ingestion.labels(endpoint, result)
        counter.inc()
