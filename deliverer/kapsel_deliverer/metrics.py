"""The metrics of a deliverer, in a registry that is passed in; the names are those of this field's dashboards."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kapsel_store.reasons import fault_of

CIRCUIT_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
DISABLED: Final = 3

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
_AGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200, 259200)


class DelivererMetrics:
    """What a deliverer counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "webhook_delivery_attempts_total",
            "Tries by outcome",
            ("endpoint", "destination", "outcome"),
            registry=registry,
        )
        self.failures = Counter(
            "webhook_delivery_failures_total",
            "Tries that did not deliver, by whose fault it is and the reason code",
            ("fault", "reason"),
            registry=registry,
        )
        self.exhausted = Counter(
            "webhook_deliveries_exhausted_total",
            "Deliveries that were given up, for whatever reason, by destination and whose fault that is",
            ("destination", "fault"),
            registry=registry,
        )
        self.acknowledgements = Counter(
            "webhook_acknowledgements_total",
            "Successful tries at destinations that declare acknowledgements, by what came of looking for one: "
            "acknowledged, missing, invalid, no_key",
            ("destination", "result"),
            registry=registry,
        )
        self.filtered = Counter(
            "webhook_deliveries_filtered_total",
            "Deliveries that the filter of their destination did not want",
            ("destination",),
            registry=registry,
        )
        self.expression_errors = Counter(
            "expression_errors_total",
            "Expressions that failed at an event, by their place in the manifest and by what is wrong: missing, type, "
            "arithmetic, too_large, failed",
            ("destination", "place", "reason"),
            registry=registry,
        )
        self.expression_seconds = Histogram(
            "expression_evaluation_seconds",
            "How long the expressions of one place take at one event, the event made ready for them included",
            ("place",),
            buckets=(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5),
            registry=registry,
        )
        self.duration = Histogram(
            "webhook_delivery_duration_seconds",
            "How long a try takes",
            ("destination",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.age = Histogram(
            "webhook_event_age_at_delivery_seconds",
            "Age of an event when it was delivered",
            buckets=_AGES,
            registry=registry,
        )
        self.circuit_state = Gauge(
            "circuit_breaker_state",
            "0 closed, 1 half-open, 2 open, 3 disabled",
            ("destination",),
            registry=registry,
        )
        self.disable_warning = Gauge(
            "destination_disable_warning",
            "1 for a destination that only fails and will be disabled if it goes on like this",
            ("destination",),
            registry=registry,
        )
        self.pool_size = Gauge("worker_pool_size", "Deliveries that may be under way at once", registry=registry)
        self.pool_busy = Gauge("worker_pool_busy", "Deliveries that are leased by this process", registry=registry)
        self.pool_waiting = Gauge(
            "worker_pool_waiting",
            "Destinations that have deliveries due, and no place for them here: they have their part of the places",
            registry=registry,
        )
        self.lookups = Gauge(
            "dns_lookups",
            "Names that are being looked up (running), and that wait for a thread to be (waiting)",
            ("state",),
            registry=registry,
        )
        self.lookup_seconds = Histogram(
            "dns_lookup_duration_seconds",
            "How long the system took to look a name up, whoever waited for it, by what came of it: found, failed",
            ("result",),
            buckets=(0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self.stale_answers = Counter(
            "dns_stale_answers_total",
            "Connections to addresses that were found before, because looking their name up again took long or failed",
            registry=registry,
        )
        self.batch_size = Histogram(
            "delivery_batch_size",
            "Deliveries that one request had, to destinations where they go together",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200),
            registry=registry,
        )
        self.claims = Histogram(
            "delivery_claim_size",
            "Deliveries that one claim brought",
            buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self.records = Histogram(
            "delivery_record_size",
            "Results that one commit recorded",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self.unrecorded = Gauge("delivery_unrecorded", "Results that wait to be recorded", registry=registry)
        self.lost_leases = Counter(
            "delivery_lease_lost_total", "Tries whose lease had ended when they were recorded", registry=registry
        )
        self.released = Counter("delivery_released_total", "Deliveries given back untried", registry=registry)
        self.depth = Gauge("delivery_queue_depth", "Deliveries that are not final", ("state",), registry=registry)
        self.oldest_pending = Gauge(
            "delivery_oldest_pending_age_seconds", "Age of the oldest delivery that waits", registry=registry
        )
        self.oldest_due = Gauge(
            "delivery_oldest_due_age_seconds",
            "How long the oldest delivery waits that could be tried now: what more deliverers would mend",
            registry=registry,
        )
        self.undelivered = Gauge(
            "delivery_undelivered_oldest_age_seconds",
            "Age of the oldest delivery to a destination that was not delivered, by whose fault that is; of each fault "
            "the 100 destinations that are worst off",
            ("destination", "fault"),
            registry=registry,
        )
        self.dead_tuples = Gauge("delivery_queue_dead_tuples", "Dead rows in the queue's table", registry=registry)
        self.strays = Gauge(
            "partition_stray_rows", "Rows outside the partitions of days, which nobody made in time", registry=registry
        )
        self.rescued = Counter("delivery_rescued_total", "Leases that ran out", registry=registry)
        self.expired = Counter("delivery_expired_total", "Deliveries that ended by their age", registry=registry)
        self.blocked_keys = Gauge(
            "delivery_order_keys_blocked",
            "Order keys that wait for a person, because a delivery of theirs was given up",
            registry=registry,
        )
        self.replayed = Counter(
            "replay_deliveries_enqueued_total", "New deliveries that Replays made", registry=registry
        )
        self.replays_running = Gauge("replays_running", "Replays that have anything to do", registry=registry)
        self.gap_looks = Counter(
            "github_gap_looks_total",
            "Looks at hooks of GitHub's, by what they came to",
            ("endpoint", "result"),
            registry=registry,
        )
        self.gap_missing = Gauge(
            "github_gap_missing_events",
            "Events that GitHub could not deliver and that are not here, as of this process's last look",
            ("endpoint",),
            registry=registry,
        )
        self.gap_requested = Counter(
            "github_gap_redeliveries_total",
            "Deliveries that GitHub was asked to send again",
            ("endpoint",),
            registry=registry,
        )
        self.errors = Counter(
            "deliverer_errors_total", "Failures of our own, by where they were caught", ("where",), registry=registry
        )
        self.generation = Gauge("configuration_generation", "The configuration that is loaded", registry=registry)
        self.database_up = Gauge("database_up", "Whether the last statement could be run", registry=registry)

    def gave_up(self, destination: str, reason: str) -> None:
        """Count a delivery that was given up."""
        self.exhausted.labels(destination, fault_of(reason)).inc()
