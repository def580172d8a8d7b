"""What the attestor measures of itself and of the log."""

import asyncio
import time
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge

from kapsel_runtime.waiting import until
from kapsel_store import anchors, database, ids, tlog
from kapsel_store.configuration import Source
from kapsel_store.database import Connection, Pool, is_away

INTERVAL = 1.0


class Metrics:
    """The metrics of one attestor; the gauges of the log are read from the database, whoever writes to it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leaf_lag = Gauge("attestation_leaf_lag", "Attempts that wait for a leaf", registry=registry)
        self.leaf_lag_seconds = Gauge(
            "attestation_leaf_lag_seconds", "Age of the oldest attempt that waits for a leaf", registry=registry
        )
        self.parked = Gauge(
            "attestation_parked",
            "Attempts that cannot be put into the log and are tried again later",
            registry=registry,
        )
        self.merge_delay = Gauge(
            "attestation_merge_delay_seconds",
            "Age of the oldest attempt that no published head covers, parked ones aside",
            registry=registry,
        )
        self.tree_size = Gauge("attestation_tree_size", "Leaves in the log", registry=registry)
        self.head_age = Gauge("attestation_head_age_seconds", "Age of the newest published head", registry=registry)
        self.batches = Counter(
            "attestation_batches_total",
            "Batches of leaves, by result: integrated, stale (another sequencer was faster), failed",
            ["result"],
            registry=registry,
        )
        self.frozen = Gauge(
            "attestation_frozen", "1 while nothing is signed until a person acts, else 0", registry=registry
        )
        self.late_heads = Counter(
            "attestation_late_heads_total",
            "Tries to publish a head that failed, by what it waits for: fence, signer, key, witnesses",
            ["waits_for"],
            registry=registry,
        )
        self.side_failures = Counter(
            "attestation_side_failures_total",
            "Failures of what runs beside the log, by task; each is started anew",
            ["task"],
            registry=registry,
        )
        self.anchors_pending = Gauge(
            "attestation_anchors_pending", "Anchored heads that are in no block of Bitcoin yet", registry=registry
        )
        self.anchor_oldest_pending = Gauge(
            "attestation_anchor_oldest_pending_seconds",
            "How long the oldest head that is to be dated waits for a block, 0 if none does",
            registry=registry,
        )
        self.anchor_age = Gauge(
            "attestation_anchor_age_seconds", "Age of the newest head that a block dates", registry=registry
        )
        self.anchors_confirmed = Counter(
            "attestation_anchors_confirmed_total",
            "Heads that calendars have led to a block while this attestor asked them",
            registry=registry,
        )
        self.calendar_failures = Counter(
            "attestation_calendar_failures_total",
            "Questions that a calendar did not answer as it must; it is then left alone for a while",
            ["calendar"],
            registry=registry,
        )
        self.cosignatures = Counter(
            "attestation_cosignatures_total",
            "Heads put before a witness, by result: cosigned, unreachable, timeout, refused, conflict, ahead, invalid; "
            "left_out (it failed too often to be asked now), budget (it was asked too often)",
            ["witness", "result"],
            registry=registry,
        )
        self.cosignature_age = Gauge(
            "attestation_cosignature_age_seconds",
            "Age of a witness's newest cosignature",
            ["witness"],
            registry=registry,
        )
        self.witnessed = Gauge(
            "attestation_witnessed",
            "1 if the newest head was cosigned by a quorum of the log's witnesses, else 0",
            ["origin"],
            registry=registry,
        )
        self._fence_up = Gauge(
            "attestation_fence_up", "1 if the fence could be reached last time, else 0: heads wait", registry=registry
        )
        self.set_fence_up(True)
        self.generation = Gauge("configuration_generation", "Generation of the configuration in use", registry=registry)
        self.database_up = Gauge("database_up", "1 if the database answered last time, else 0", registry=registry)

    def set_fence_up(self, up: bool) -> None:
        """Say whether the fence could be reached."""
        self.fence_is_up = up
        self._fence_up.set(up)


async def follow(metrics: Metrics, pool: Pool, source: Source, stopping: asyncio.Event) -> None:
    """Keep the gauges of the log true, also while this attestor stands by or the log is frozen."""
    while not stopping.is_set():
        metrics.generation.set(source.current.generation)
        try:
            async with pool.acquire(timeout=5) as connection:
                await _measure(metrics, connection, source)
            metrics.database_up.set(1)
        except Exception as error:
            if not is_away(error):
                raise
            metrics.database_up.set(0)
        await until(stopping, timeout=INTERVAL)


async def _measure(metrics: Metrics, connection: Connection, source: Source) -> None:
    now = await database.now(connection)
    count, age = await tlog.pending_count(connection, now)
    metrics.leaf_lag.set(count)
    metrics.leaf_lag_seconds.set(max(age.total_seconds(), 0))
    metrics.parked.set(await tlog.parked_count(connection))
    row = source.current.log
    log = None if row is None else await tlog.state(connection, row.origin)
    if row is None or log is None:
        return
    metrics.tree_size.set(log.tree_size)
    head = await tlog.latest_head(connection, log.id)
    if head is not None:
        metrics.head_age.set(max(time.time() - head.timestamp_ms / 1000, 0))
    oldest = await tlog.oldest_unpublished(connection, log.id, 0 if head is None else head.tree_size)
    uncovered = timedelta() if oldest is None else now - ids.timestamp(oldest)
    metrics.merge_delay.set(max(age, uncovered, timedelta()).total_seconds())
    await _measure_anchors(metrics, connection, log.id, asked=row.anchoring is not None)


async def _measure_anchors(metrics: Metrics, connection: Connection, log_id: int, *, asked: bool) -> None:
    """Tell of the anchors; without calendars, nothing that was begun waits for a block any more."""
    waiting = await anchors.pending(connection, log_id) if asked else None
    metrics.anchors_pending.set(0 if waiting is None else waiting.count)
    oldest = None if waiting is None else waiting.oldest
    metrics.anchor_oldest_pending.set(0 if oldest is None else oldest.total_seconds())
    dated = await anchors.newest_confirmed(connection, log_id)
    if dated is not None:
        metrics.anchor_age.set(max(time.time() - dated.timestamp_ms / 1000, 0))
