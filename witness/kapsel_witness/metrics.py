"""What a witness measures."""

from prometheus_client import CollectorRegistry, Counter, Gauge

RESULTS = ("cosigned", "malformed", "unknown_log", "untrusted", "stale", "inconsistent", "forked", "failed")


class Metrics:
    """The metrics of one witness."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "witness_requests_total",
            "Heads that were put before this witness, by result: " + ", ".join(RESULTS),
            ["result"],
            registry=registry,
        )
        for result in RESULTS:
            self.requests.labels(result=result)
        self.tree_size = Gauge(
            "witness_tree_size", "Leaves of the newest head that was cosigned", ["origin"], registry=registry
        )
        self.cosigned_at = Gauge(
            "witness_cosigned_timestamp_seconds", "Time of the newest cosignature", ["origin"], registry=registry
        )
        self.forks = Counter(
            "witness_forks_total",
            "Heads signed by their log that contradict one that was cosigned: each is a proof that the log cheats",
            ["origin"],
            registry=registry,
        )
