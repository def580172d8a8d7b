"""Keeps the shared circuits and this process's lanes together: reports results, follows changes, hands out probes.

The worker tells each outcome to `observe`; `run` writes what matters and reads what others wrote. Successes stay in
memory until there is a failure to weigh them against, so a healthy destination costs nothing. The rules are in
`circuit`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_deliverer.circuit import (
    GONE_REASON,
    Observed,
    counts_as_failure,
    disable,
    observe,
    recovered,
    take_probes,
)
from kapsel_deliverer.clock import DatabaseClock
from kapsel_deliverer.lane import Leased
from kapsel_deliverer.lanes import Lanes
from kapsel_deliverer.metrics import CIRCUIT_STATES, DISABLED, DelivererMetrics
from kapsel_deliverer.outcome import Outcome
from kapsel_runtime.backoff import reconnecting
from kapsel_store import circuits, database
from kapsel_store.circuits import CircuitRow
from kapsel_store.rows import CircuitBreaker
from kapsel_store.schedule import next_step, recovery

LOAD_INTERVAL: Final = 1.0  # seconds until another deliverer's change is seen
FLUSH_INTERVAL: Final = 0.02  # seconds between writes, however many failures come

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Tally:
    """Results that the shared row does not know yet."""

    since: float
    successes: int = 0
    failures: int = 0
    probe_successes: int = 0
    probe_failures: int = 0
    gone: bool = False
    reporting: bool = False  # some of it was sent, and is not known to be committed

    @property
    def is_urgent(self) -> bool:
        return self.gone or bool(self.failures or self.probe_successes or self.probe_failures)

    def is_forgotten(self, before: float) -> bool:
        """Whether it began before the window, and nothing in it is of use to the shared row."""
        return self.since < before and not self.is_urgent and not self.reporting

    @property
    def observed(self) -> Observed:
        return Observed(
            successes=self.successes,
            failures=self.failures,
            probe_successes=self.probe_successes,
            probe_failures=self.probe_failures,
        )

    def count(self, *, failed: bool, probe: bool) -> None:
        if probe:
            self.probe_failures += failed
            self.probe_successes += not failed
        else:
            self.failures += failed
            self.successes += not failed

    def take_back(self, reported: Observed, *, gone: bool) -> None:
        """Take out what the shared row knows now; what came in since stays."""
        self.successes -= reported.successes
        self.failures -= reported.failures
        self.probe_successes -= reported.probe_successes
        self.probe_failures -= reported.probe_failures
        self.gone = self.gone and not gone


class _Report(NamedTuple):
    """What of a tally is reported to the shared row."""

    tally: _Tally
    observed: Observed
    gone: bool


class _Change(NamedTuple):
    """One change of the shared row that is not known to be committed, and the transaction that makes it."""

    transaction_id: str
    before: CircuitRow
    after: CircuitRow
    report: _Report | None  # None if it takes probes, or a step of a recovery


class Breakers:
    """The circuits of all destinations as this deliverer sees them."""

    def __init__(
        self,
        pool: database.Pool,
        lanes: Lanes,
        clock: DatabaseClock,
        metrics: DelivererMetrics,
        released: Callable[[Sequence[Leased]], None],
    ) -> None:
        self._pool = pool
        self._lanes = lanes
        self._clock = clock
        self._metrics = metrics
        self._release = released
        self._policies: dict[UUID, CircuitBreaker | None] = {}
        self._labels: dict[UUID, str] = {}
        self._rows: dict[UUID, CircuitRow] = {}
        self._tallies: dict[UUID, _Tally] = {}
        self._unanswered: list[_Change] = []
        self._due = asyncio.Event()
        self._load_at = 0.0
        self._closing = False

    def configure(self, policies: Mapping[UUID, CircuitBreaker | None], labels: Mapping[UUID, str]) -> None:
        """Follow these destinations; what a new configuration has enabled again is looked up at once."""
        for destination_id in self._labels.keys() - labels.keys():
            self._metrics.circuit_state.remove(self._labels[destination_id])
            self._metrics.disable_warning.remove(self._labels[destination_id])
        for destination_id in labels.keys() - self._labels.keys():
            self._metrics.circuit_state.labels(labels[destination_id]).set(CIRCUIT_STATES["closed"])
            self._metrics.disable_warning.labels(labels[destination_id]).set(0)
        self._policies, self._labels = dict(policies), dict(labels)
        self._load_at = 0.0
        self._due.set()

    def observe(self, destination_id: UUID, outcome: Outcome, *, probe: bool, gone: bool) -> None:
        """Count the outcome of one try."""
        failed = counts_as_failure(outcome)
        breaker = self._policies.get(destination_id)
        if failed is None or (breaker is None and not gone):
            return
        now = time.monotonic()
        tally = self._tallies.get(destination_id)
        if tally is None or (breaker and tally.is_forgotten(now - breaker.window.total_seconds())):
            tally = self._tallies[destination_id] = _Tally(since=now)
        tally.gone = tally.gone or gone
        tally.count(failed=failed, probe=probe)
        if tally.is_urgent:
            self._due.set()

    async def run(self) -> None:
        """Write and read until closed, and write once more what is left then."""
        waits = reconnecting()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), self._until_due())
            self._due.clear()
            last = self._closing
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    await self._settle(connection)
                    await self._flush(connection)
                    await self._load(connection)
                    await self._take_probes(connection)
                waits = reconnecting()
            except Exception as error:
                if not database.is_away(error):
                    raise
                await asyncio.sleep(next(waits))
            if last:
                return
            await asyncio.sleep(FLUSH_INTERVAL)

    def close(self) -> None:
        """Let `run` end; nothing is observed after this."""
        self._closing = True
        self._due.set()

    def _until_due(self) -> float:
        opening = [row.open_until for row in self._rows.values() if row.open_until is not None and not row.disabled_at]
        now = self._clock.now()
        for destination_id, row in self._rows.items():
            breaker = self._policies.get(destination_id)
            if breaker is not None and (step := next_step(row, breaker, now)) is not None:
                opening.append(step)
        first = min(opening, default=None)
        until_probes = LOAD_INTERVAL if first is None else (first - self._clock.now()).total_seconds()
        return max(0.0, min(until_probes, LOAD_INTERVAL, self._load_at - time.monotonic()))

    async def _flush(self, connection: database.Connection) -> None:
        for destination_id, tally in list(self._tallies.items()):
            row = self._rows.get(destination_id)
            failed = row is not None and (row.failures > 0 or row.failing_since is not None)
            troubled = row is not None and row.state == "closed" and failed
            if tally.reporting:  # it is still being committed
                continue
            if not (tally.is_urgent or (troubled and time.monotonic() >= self._load_at)):
                continue
            observed, gone = tally.observed, tally.gone

            # Taken out only after the commit. If that is not answered, `_settle` finds out what became of it.
            report = partial(self._report, destination_id, observed, gone)
            await self._change(connection, destination_id, report, _Report(tally, observed, gone))
            # Another one may have taken its place meanwhile.
            if tally.observed == Observed() and self._tallies.get(destination_id) is tally:
                del self._tallies[destination_id]

    async def _settle(self, connection: database.Connection) -> None:
        """Find out what became of changes that were not answered: made, they are told, and not made again."""
        for change in list(self._unanswered):
            made = await circuits.is_committed(connection, change.transaction_id, change.before, change.after)
            if made is None:
                continue
            self._unanswered.remove(change)
            self._settled(change, made=made)
            if made:
                self._load_at = 0.0  # others may have changed the circuit since

    def _report(
        self, destination_id: UUID, observed: Observed, gone: bool, row: CircuitRow, now: datetime
    ) -> CircuitRow:
        breaker = self._policies.get(destination_id)
        row = row if breaker is None else observe(row, breaker, observed, now)
        return disable(row, now, GONE_REASON) if gone else row

    async def _load(self, connection: database.Connection) -> None:
        """See what other deliverers, and new configurations, have changed."""
        if time.monotonic() < self._load_at:
            return
        followed = self._lanes.destinations()
        found = await circuits.load(connection, followed)
        self._clock.sample(await database.now(connection))
        for destination_id in self._rows.keys() - found.keys():
            self._release(self._lanes.set_circuit(destination_id, None))
            self._lanes.set_recovery(destination_id, None, time.monotonic())
        self._rows = {}
        for row in found.values():
            self._follow(row)
        self._load_at = time.monotonic() + LOAD_INTERVAL

    async def _take_probes(self, connection: database.Connection) -> None:
        now = self._clock.now()
        for destination_id, row in list(self._rows.items()):
            breaker = self._policies.get(destination_id)
            if breaker is not None and row.recovering_since is not None:
                await self._recover(connection, row, breaker)
            if breaker is None or row.open_until is None or row.disabled_at:
                continue
            if now >= row.open_until or (row.probes_left and not self._lanes.probes(destination_id)):
                taken = 0

                def take(row: CircuitRow, now: datetime, breaker: CircuitBreaker = breaker) -> CircuitRow:
                    nonlocal taken
                    row, taken = take_probes(row, breaker, now)
                    return row

                await self._change(connection, destination_id, take)
                if taken:
                    self._release(self._lanes.set_circuit(destination_id, taken))

    async def _recover(self, connection: database.Connection, row: CircuitRow, breaker: CircuitBreaker) -> None:
        """Take the next step of a recovery, or see that it is over."""
        destination_id = row.destination_id
        drained = row.recovering_since is not None and self._lanes.is_drained(destination_id, row.recovering_since)
        if recovered(row, breaker, self._clock.now(), drained=drained) == row:
            self._follow(row)
            return

        def end(row: CircuitRow, now: datetime) -> CircuitRow:
            return recovered(row, breaker, now, drained=drained)

        await self._change(connection, destination_id, end)

    async def _change(
        self,
        connection: database.Connection,
        destination_id: UUID,
        decide: Callable[[CircuitRow, datetime], CircuitRow],
        report: _Report | None = None,
    ) -> None:
        def begun(transaction_id: str, before: CircuitRow, after: CircuitRow) -> None:
            self._unanswered.append(_Change(transaction_id, before, after, report))
            if report is not None:
                report.tally.reporting = True

        _, after = await circuits.change(connection, destination_id, decide, begun)
        self._follow(after)
        self._settled(self._unanswered.pop(), made=True)

    def _settled(self, change: _Change, *, made: bool) -> None:
        """Go on from a change that was committed, or never will be."""
        if change.report is not None:
            tally, observed, gone = change.report
            tally.reporting = False
            if made:
                tally.take_back(observed, gone=gone)
        if made:
            self._tell(change.before, change.after)

    def _tell(self, before: CircuitRow, after: CircuitRow) -> None:
        """Log what a change means, once it is committed."""
        label = self._labels.get(after.destination_id, after.destination_id)
        if after.warned_at is not None and before.warned_at is None:
            since = after.failing_since
            logger.warning("%s has only failed since %s, and is disabled if it goes on like this", label, since)
        if (before.state, before.disabled_at) != (after.state, after.disabled_at):
            logger.warning("circuit of %s: %s", label, "disabled" if after.disabled_at else after.state)

    def _follow(self, row: CircuitRow) -> None:
        destination_id = row.destination_id
        label = self._labels.get(destination_id)
        if label is None:
            return
        self._rows[destination_id] = row
        breaker = self._policies[destination_id]
        probes: int | None = 0
        if not row.disabled_at and (breaker is None or row.state == "closed"):
            probes = None
        elif row.state == "half_open" and not row.disabled_at:
            probes = self._lanes.probes(destination_id) or 0
        now = self._clock.now()
        rate = None if breaker is None else recovery(row, breaker, now)
        self._lanes.set_recovery(destination_id, rate, time.monotonic())
        self._release(self._lanes.set_circuit(destination_id, probes))
        self._metrics.disable_warning.labels(label).set(row.warned_at is not None and row.disabled_at is None)
        gauge = self._metrics.circuit_state.labels(label)
        gauge.set(DISABLED if row.disabled_at else CIRCUIT_STATES[row.state if breaker else "closed"])
