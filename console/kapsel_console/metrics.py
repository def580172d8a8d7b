"""What a console measures."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The console's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "console_requests", "Requests, by route and status.", ("method", "route", "status"), registry=registry
        )
        self.duration = Histogram(
            "console_request_duration_seconds",
            "From the first look at a request to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.database_up = Gauge("database_up", "1 while this process reaches the database.", registry=registry)
        self.generation = Gauge(
            "configuration_generation", "The generation of the configuration that is known here.", registry=registry
        )
        self.erasures_incomplete = Gauge(
            "erasures_incomplete",
            "Events to be forgotten of which something is left: a try under way, or hashes that a leaf needs.",
            registry=registry,
        )
