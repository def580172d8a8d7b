"""The loop of a deliverer: claim what is due, try it, hand the result to the recorder, and claim again meanwhile.

One claim is under way at a time and brings work for all destinations that have room; tries run as tasks of one group;
results are recorded in batches. So claims, tries and commits overlap, and none waits for another's round trip. Who may
have how much is decided in `lanes`, what becomes of a delivery in `retry`, when a destination is left alone in
`circuit`.
"""

import asyncio
import hmac
import logging
import random
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from kapsel_deliverer import batches, proxy
from kapsel_deliverer.breakers import Breakers
from kapsel_deliverer.checkpoints import Checkpoints
from kapsel_deliverer.clock import DatabaseClock, DueTimes
from kapsel_deliverer.lane import Leased
from kapsel_deliverer.lanes import Lanes
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.outcome import Delivered, Outcome, Refused, Unsent, UnsentReason
from kapsel_deliverer.recorder import Recorder
from kapsel_deliverer.retry import Decision, decide
from kapsel_deliverer.sender import Packed, Part, Sender, Try
from kapsel_deliverer.settings import DelivererSettings
from kapsel_deliverer.shapes import Misshapen
from kapsel_deliverer.shaping import Shaper
from kapsel_deliverer.targets import Target, Targets
from kapsel_egress.verdicts import Denied
from kapsel_runtime import logs
from kapsel_runtime.backoff import reconnecting
from kapsel_runtime.waiting import until
from kapsel_store import database, deliveries, hints, ids, limits, reasons, rows, turns
from kapsel_store.limits import Allotted, Demand
from kapsel_store.rows import AttemptRow, Batch, Claimed, Configuration, Policy, Result
from kapsel_store.states import State

RENEWALS: Final = 3  # tries at renewing at once, because one that meets a row on the move is rolled back whole
SIEVING: Final = 0.1  # seconds that slow filters have at once: nothing else goes on meanwhile
SLOTS_VALID: Final = 0.8  # of a lease: by then this clock says that slots are over
PARTING: Final = 1.0  # seconds for giving back what a deliverer has of the limits when it leaves
DRAIN_RESERVE: Final = 3.0  # seconds of the drain kept for recording and leaving when tries take too long

logger = logging.getLogger(__name__)


class Worker:
    """Claims and tries, and owns the tasks of both."""

    def __init__(
        self,
        settings: DelivererSettings,
        *,
        pool: database.Pool,
        durable: database.Pool,
        sender: Sender,
        checkpoints: Checkpoints,
        metrics: DelivererMetrics,
        hint: asyncio.Event,
    ) -> None:
        """Claim over `pool`, whose commits need not be durable, and record over `durable`."""
        self._settings = settings
        self._pool = pool
        self._sender = sender
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._hint = hint
        self._clock = DatabaseClock()
        self._lanes = Lanes(settings.deliverer_concurrency)
        self._breakers = Breakers(pool, self._lanes, self._clock, metrics, self._give_back)
        self._recorder = Recorder(durable, metrics, self._recorded)
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._targets = Targets(metrics, settings.deliverer_ca_file)
        self._shaper = Shaper(metrics)
        self._shaping = asyncio.Lock()  # one slow transform at a time
        self._lease = settings.deliverer_lease
        self._asking = asyncio.Lock()  # one question about slots at a time, so that the answers come in its order
        self._tell = False  # others can do at once what is given back
        self._unused: dict[UUID, UUID] = {}  # deliveries to give back untried, with their leases
        self._unwanted: dict[UUID, tuple[UUID, Claimed]] = {}  # those that a filter ends, with their leases
        self._tries: set[asyncio.Task[None]] = set()
        self._trying: dict[UUID, UUID] = {}  # deliveries under way, with their leases
        self._held: dict[UUID, UUID] = {}  # what was held when leases were last looked at
        self._good_until = 0.0  # monotonic: until then what was held may be started
        self._ended: set[turns.Line] = set()  # order keys whose first delivery has ended
        self._ended_some = asyncio.Event()
        self._wake = asyncio.Event()
        self._poll_at = 0.0
        self._due = DueTimes()
        self._ask_due = False
        self._hinted = False
        self._named: set[UUID] = set()  # destinations that have something due, as somebody said
        metrics.pool_size.set(settings.deliverer_concurrency)
        metrics.pool_busy.set_function(lambda: self._lanes.held)

    def configure(self, configuration: Configuration) -> None:
        """Work by this configuration from now on; what is under way ends by the one it started with."""
        self._targets.use(configuration)
        self._sender.use(
            configuration.relay,
            self._targets.directories(),
            proxy=proxy.declared(configuration),
            clients=self._targets.clients(),
        )
        labels = self._targets.labels()
        self._shaper.keep(labels)
        self._breakers.configure(self._targets.breakers(), labels)
        self._metrics.generation.set(configuration.generation)
        self._give_back(self._lanes.configure(configuration.destinations, time.monotonic()))
        self._ask_due = True
        self._wake.set()

    def hinted(self, said: str) -> None:
        """Claim for whom a hint names, if anything may be claimed there; the listener itself calls this."""
        try:
            named = hints.named(said)
        except ValueError:  # of another version, that says more than this one knows
            self._hint.set()
            return
        self._look_for(named)

    def _look_for(self, destination_ids: Iterable[UUID]) -> None:
        """These have something due: claim it, by a claim that begins after this, for one under way may not see it."""
        if found := set(filter(self._lanes.may_claim, destination_ids)):
            self._named |= found
            self._wake.set()

    def waiting(self) -> list[UUID]:
        """Return the destinations that have deliveries due, and no place for them here."""
        return self._lanes.waiting(time.monotonic())

    def _give_back(self, leased: Sequence[Leased]) -> None:
        """Have deliveries released that were claimed and will not be tried."""
        if leased:
            self._unused.update((each.delivery.id, each.lease_id) for each in leased)
            self._wake.set()

    def _recorded(self, results: Sequence[Result], held: Set[UUID]) -> None:
        """Results are durable: remember when they are due again, and count what was given up by who still held it."""
        now = time.monotonic()
        first = self._due.first
        for result in results:
            if result.state is State.EXHAUSTED and result.attempt.id in held:
                self._metrics.gave_up(result.label, result.attempt.reason)
            if result.retry_in is not None:
                self._due.add(now + result.retry_in.total_seconds())
            elif result.order_key is not None:
                self._ended.add((result.attempt.destination_id, result.order_key))
                self._ended_some.set()
        if self._due.first < first or self._lanes.may_have_more:
            self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until `stopping`, then end what is under way, record it and give back the rest."""
        async with asyncio.TaskGroup() as group:
            recording = group.create_task(self._recorder.run())
            group.create_task(self._breakers.run())
            helping = [group.create_task(self._wake_on(event)) for event in (self._hint, stopping)]
            helping += [group.create_task(work) for work in (self._renew(), self._keep_slots())]
            passing = group.create_task(self._pass_turns())
            await self._deliver(stopping)
            for task in helping:
                task.cancel()
            await self._let_go_of_slots()
            # Only now is nobody left who makes results.
            self._recorder.close()
            await recording
            passing.cancel()  # what it leaves behind is found by the sweep of another deliverer
            self._breakers.close()

    async def _wake_on(self, event: asyncio.Event) -> None:
        """Wake the claims whenever `event` is set, so that they wait for one thing alone."""
        await event.wait()
        while event is self._hint:
            event.clear()
            self._hinted = True
            self._wake.set()
            await event.wait()
        self._wake.set()

    async def _deliver(self, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as self._group:
            await self._claim_until(stopping)
            for destination_id in self._lanes.destinations():
                self._give_back(self._lanes.empty(destination_id))
            await self._release_rest()
            if self._tries:
                logger.info("draining: %d tries are under way", len(self._tries))
                await asyncio.wait(self._tries, timeout=max(1.0, self._settings.drain_timeout - DRAIN_RESERVE))
            for task in self._tries:
                # What the destination made of these is not known: their leases end, and they are tried again.
                task.cancel()

    async def _claim_until(self, stopping: asyncio.Event) -> None:
        waits = reconnecting()
        while not stopping.is_set():
            try:
                if await self._step():
                    waits = reconnecting()
            except Exception as error:  # noqa: BLE001 - the worker loop goes on whatever happens
                self._failed(error)
                self._lanes.look_everywhere()
                await until(stopping, timeout=next(waits))

    def _failed(self, error: Exception) -> None:
        if database.is_away(error):
            self._metrics.database_up.set(0)
        else:
            self._metrics.errors.labels("claim").inc()
            logger.error("claiming failed", exc_info=error)

    async def _step(self) -> bool:
        """Claim if there may be something and there is room, else wait; return whether the database was asked."""
        self._wake.clear()  # before anything is looked at, so that what happens meanwhile is seen
        now = time.monotonic()
        if self._hinted or now >= min(self._poll_at, self._due.first):
            await self._look(now)
        self._lanes.may_have_due(self._named)
        self._named.clear()
        await self._share()
        if self._unused or self._unwanted:
            await self._release()
        too_many = self._recorder.backlog > 2 * self._settings.deliverer_concurrency
        wanted = {} if too_many else self._lanes.wanted(now)
        if wanted:
            await self._claim(wanted)
        else:
            await self._idle(now)
        return bool(wanted)

    async def _look(self, now: float) -> None:
        """Something may be due anywhere; where there are too many places, ask which."""
        self._hinted = False
        if now >= self._poll_at:
            # Retries of this process are known; those of others, and of its past, are asked for now and then.
            self._ask_due = True
            self._poll_at = now + self._settings.deliverer_poll_interval.total_seconds()
        self._due.drop_until(now)
        if not self._lanes.are_many:
            self._lanes.look_everywhere()
            return
        async with self._pool.acquire(timeout=5) as connection:
            waiting = await deliveries.waiting(connection)
        self._lanes.look_at(waiting)

    async def _claim(self, wanted: Mapping[UUID, int]) -> None:
        start_by = time.monotonic() + self._settings.deliverer_lease.total_seconds() / 2
        async with self._pool.acquire(timeout=5) as connection:
            lease_id, claimed = await deliveries.claim(connection, wanted, self._lease, self._metrics.gave_up)
        # A crash here loses nothing: the leases end, and the deliveries are tried by others.
        self._metrics.database_up.set(1)
        self._metrics.claims.observe(len(claimed))
        kept, done = self._sieve(claimed, lease_id)
        self._give_back(self._lanes.arrived(wanted, kept, lease_id, start_by, done))
        # Those whose tries end soon go first: the others may be many, and are in no hurry.
        for destination_id in sorted({delivery.destination_id for delivery in kept}, key=self._lanes.is_paced):
            self._lanes.gather(destination_id, time.monotonic())
            self._start(destination_id)
        await self._share()

    async def _share(self) -> None:
        """Get slots and tokens for what waits without one, from those that all deliverers share."""
        now = time.monotonic()
        async with self._asking:
            if demands := self._lanes.demands(now):
                await self._ask(demands)
        if draws := self._lanes.draws(now):
            async with self._pool.acquire(timeout=5) as connection:
                drawn = await limits.take(connection, self._settings.instance, draws, self._lease)
            for destination_id, tokens in drawn.items():
                self._give_back(self._lanes.drawn(destination_id, tokens, time.monotonic()))
                self._start(destination_id)

    async def _ask(self, demands: Mapping[UUID, Demand]) -> None:
        asked = time.monotonic()
        async with self._pool.acquire(timeout=5) as connection:
            answers = await limits.ask(connection, self._settings.instance, demands, self._lease)
        # By this clock the slots are over before the database's clock says so.
        until = asked + self._lease.total_seconds() * SLOTS_VALID
        for destination_id in demands:
            allotted = answers.get(destination_id, Allotted(slots=0, short=True))
            if surplus := self._lanes.allotted(destination_id, allotted, asked, until):
                self._give_back(surplus)
                self._tell = True
            self._start(destination_id)

    async def _keep_slots(self) -> None:
        """Renew, three times a lease, the slots in use; others learn by it what this deliverer could use."""
        lease = self._lease.total_seconds()
        while True:
            await asyncio.sleep(min(1.0, lease / 6))
            # Not when it is asked for: metrics are written by another thread, and lanes are this one's alone.
            self._metrics.pool_waiting.set(len(self.waiting()))
            async with self._asking:
                try:
                    if renewals := self._lanes.renewals(time.monotonic(), lease):
                        await self._ask(renewals)
                except Exception as error:  # noqa: BLE001 - no try starts without slots, and they are asked for again
                    self._failed(error)

    async def _let_go_of_slots(self) -> None:
        partings = self._lanes.partings()
        try:
            if partings:
                async with asyncio.timeout(PARTING), self._pool.acquire() as connection:
                    await limits.ask(connection, self._settings.instance, partings, self._lease)
        except Exception as error:  # noqa: BLE001 - they end with their lease
            self._failed(error)

    def _sieve(self, claimed: Sequence[Claimed], lease_id: UUID) -> tuple[list[Claimed], Counter[UUID]]:
        """Return what is to be sent, and count by destination what is done without.

        A filter that fails is a try that was not sent: recorded, and made again as the policy says. Filters that were
        quick are asked first; when the time of all is up, the rest is given back, and claimed anew.
        """
        kept, done = list[Claimed](), Counter[UUID]()
        late, end = set[UUID](), time.monotonic() + SIEVING
        for delivery in sorted(claimed, key=lambda one: self._shaper.took(one.destination_id, "filter")):
            target = self._targets.get(delivery.destination_id)
            if target is not None and target.shape.filter is not None and time.monotonic() >= end:
                self._unused[delivery.id] = lease_id
                done[delivery.destination_id] += 1
                late.add(delivery.destination_id)
                continue
            wanted = True if target is None else self._shaper.wants(target, delivery)
            if target is None or wanted is True:
                kept.append(delivery)
                continue
            done[delivery.destination_id] += 1
            if isinstance(wanted, Misshapen):
                self._record(delivery, lease_id, target, _misshapen(wanted, "filter_error", datetime.now(UTC)))
            else:
                self._unwanted[delivery.id] = lease_id, delivery
        self._look_for(late)
        return kept, done

    def _start(self, destination_id: UUID) -> None:
        """Start what its lane lets start."""
        target = self._targets.get(destination_id)
        batch = None if target is None else target.destination.batch
        gathered: list[Leased] = []
        while leased := self._lanes.start(destination_id, time.monotonic()):
            if target is None or time.monotonic() > max(leased.start_by, self._good_until):
                self._lanes.finished(leased, None, time.monotonic())
                self._give_back([leased])
                continue
            self._trying[leased.delivery.id] = leased.lease_id
            if batch is None:
                self._begin(self._try(leased, target))
            else:
                gathered.append(leased)
        if target is not None and batch is not None:
            for group in batches.together(gathered, batch, target.destination.policy):
                self._begin(self._try_together(group, target, batch))

    def _begin(self, trying: Coroutine[None, None, None]) -> None:
        task = self._group.create_task(trying)
        self._tries.add(task)
        task.add_done_callback(self._tries.discard)

    async def _renew(self) -> None:
        """Renew, three times a lease, what has been held since the last time: what is quick never needs it.

        So a lease can be short: after a crash others have the deliveries in seconds, and a slow try keeps its own.
        """
        interval = self._lease.total_seconds() / 3
        while True:
            await asyncio.sleep(interval)
            held = self._lanes.queued() | self._trying
            old = {delivery_id: lease_id for delivery_id, lease_id in held.items() if delivery_id in self._held}
            self._held = held
            if not old:
                continue
            for _ in range(RENEWALS):
                asked = time.monotonic()
                try:
                    async with self._pool.acquire(timeout=interval / RENEWALS) as connection:
                        await deliveries.renew(connection, old, self._lease)
                except Exception as error:  # noqa: BLE001 - renewing goes on whatever happens
                    self._failed(error)
                else:
                    self._good_until = asked + self._lease.total_seconds() / 2
                    break

    async def _pass_turns(self) -> None:
        """Have the next of each order key claimed; beside the claims, since a key may be locked for a commit."""
        while True:
            await self._ended_some.wait()
            self._ended_some.clear()
            lines, self._ended = self._ended, set()
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    passed = await turns.pass_on(connection, lines)
            except Exception as error:  # noqa: BLE001 - the sweep passes what was not passed here
                self._failed(error)
                continue
            # A crash here loses nothing: they are due, and whoever looks next claims them.
            if passed:
                self._look_for(destination_id for destination_id, _ in lines)

    async def _idle(self, now: float) -> None:
        """Wait until something may be due or there may be room."""
        if self._ask_due and not self._lanes.may_have_more:
            await self._ask_when_due()
        timeout = min(self._poll_at, self._due.first, now + self._lanes.wait(now), now + self._lanes.until_lacking(now))
        timeout -= time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, timeout)):
                await self._wake.wait()

    async def _ask_when_due(self) -> None:
        self._ask_due = False
        async with self._pool.acquire(timeout=5) as connection:
            wait = await deliveries.next_due(connection, self._lanes.quiet())
        if wait is not None:
            self._due.add(time.monotonic() + max(wait.total_seconds(), 0.0))

    async def _try(self, leased: Leased, target: Target) -> None:
        delivery = leased.delivery
        with _said_of(delivery):
            now = datetime.now(UTC)
            try:
                tried = await self._send(target, delivery, now)
            except Exception:  # noqa: BLE001 - it is logged, counted and recorded
                tried = self._failed_try(now)
            self._finish(leased, target, tried)
        self._ended_trying([leased])

    async def _try_together(self, group: Sequence[Leased], target: Target, batch: Batch) -> None:
        """Make one try of each, in as few requests as hold them; each request ends by itself."""
        now = datetime.now(UTC)
        try:
            unsent, requests = await self._packed(target, batch, group)
        except Exception:  # noqa: BLE001 - it is logged, counted and recorded
            tried = self._failed_try(now)
            unsent, requests = [(leased, tried) for leased in group], []
        if unsent:
            self._finish_together(target, unsent)
        async with asyncio.TaskGroup() as trying:
            for packed, sent in requests:
                trying.create_task(self._try_packed(target, packed, sent))

    async def _try_packed(self, target: Target, packed: Packed, sent: Sequence[tuple[Leased, bytes]]) -> None:
        """Make one try of all that are in a request; of each it is known what hash the body that is sent has."""
        try:
            tries = await self._sender.send_packed(target, packed, self._checkpoints.header)
        except Exception:  # noqa: BLE001 - it is logged, counted and recorded
            tries = [self._failed_try(packed.signed_at)] * len(sent)
        if not isinstance(tries[0].outcome, Denied | Unsent):
            self._metrics.batch_size.observe(len(tries))
        pairs = zip(sent, tries, strict=True)
        self._finish_together(target, [(one, _transformed(tried, made, one.delivery)) for (one, made), tried in pairs])

    def _failed_try(self, now: datetime) -> Try:
        """Log the exception that is being handled; return what came of the try."""
        self._metrics.errors.labels("try").inc()
        logger.exception("a try failed by a fault of our own")
        return Try(outcome=Unsent(reason="internal"), started_at=now, duration=datetime.now(UTC) - now)

    def _ended_trying(self, group: Sequence[Leased]) -> None:
        """These are recorded, or will be: go on with what waited for them."""
        for leased in group:
            if self._trying.get(leased.delivery.id) == leased.lease_id:  # else it was lost, and is being tried anew
                del self._trying[leased.delivery.id]
        destination_id = group[0].delivery.destination_id
        self._start(destination_id)
        if self._lanes.may_have_more or self._lanes.lacks(destination_id, time.monotonic()):
            self._wake.set()

    async def _send(self, target: Target, delivery: Claimed, now: datetime) -> Try:
        """Make one try, of what the transform makes of the event if there is one."""
        if target.shape.transforms is False:
            return await self._sender.send(target, delivery, now, self._checkpoints.header)
        part = await self._shaped(target, delivery)
        now = datetime.now(UTC)
        if isinstance(part, Misshapen):
            return _misshapen(part, "transform_error", now)
        tried = await self._sender.send(target, part.delivery, now, self._checkpoints.header, part.made)
        return _transformed(tried, part.delivery.body_hash, delivery)

    async def _packed(
        self, target: Target, batch: Batch, group: Sequence[Leased]
    ) -> tuple[list[tuple[Leased, Try]], list[tuple[Packed, list[tuple[Leased, bytes]]]]]:
        """Return what cannot be sent, and requests with the others and the hashes of what the transform makes of them.

        Bodies are in the requests then, and nowhere else besides those that came.
        """
        unsent: list[tuple[Leased, Try]] = []
        shaped: list[tuple[Leased, Part]] = []
        for leased in group:
            part = await self._shaped(target, leased.delivery) if target.shape.transforms else Part(leased.delivery, {})
            if isinstance(part, Misshapen):
                unsent.append((leased, _misshapen(part, "transform_error", datetime.now(UTC))))
            else:
                shaped.append((leased, part))
        if not shaped:
            return unsent, []
        now = datetime.now(UTC)
        packed = await self._sender.pack(target, batch, [part for _, part in shaped], now)
        if not isinstance(packed, list):
            tried = Try(outcome=packed, started_at=now, duration=timedelta(0))
            return [*unsent, *((leased, tried) for leased, _ in shaped)], []
        # The requests have them in their order, each once.
        rest = iter([(leased, part.delivery.body_hash) for leased, part in shaped])
        return unsent, [(request, [next(rest) for _ in request.items]) for request in packed]

    async def _shaped(self, target: Target, delivery: Claimed) -> Part | Misshapen:
        """Return what the transform makes of an event; one slow transform at a time."""
        if self._shaper.took(target.destination.id, "transform"):
            async with self._shaping:
                shaped = self._shaper.transformed(target, delivery)
                await asyncio.sleep(0)  # those that begin together would leave no time for anything else
        else:
            shaped = self._shaper.transformed(target, delivery)
        return shaped if isinstance(shaped, Misshapen) else Part(*shaped)

    def _finish(self, leased: Leased, target: Target, tried: Try) -> None:
        """Record, and tell everybody whom it concerns that was waiting for this try."""
        destination, outcome = target.destination, tried.outcome
        decision = self._record(leased.delivery, leased.lease_id, target, tried)
        self._breakers.observe(destination.id, outcome, probe=leased.probe, gone=decision.disable)
        pause = _pause(destination.policy, outcome)
        self._lanes.finished(leased, tried.duration.total_seconds(), time.monotonic(), pause)
        if pause:
            self._give_back(self._lanes.empty(destination.id))

    def _finish_together(self, target: Target, request: Sequence[tuple[Leased, Try]]) -> None:
        """Record each delivery of a request; to the circuit it is one try, except that each probe is waited for."""
        destination_id, gone, pause = target.destination.id, False, 0.0
        for leased, tried in request:
            with _said_of(leased.delivery):
                decision = self._record(leased.delivery, leased.lease_id, target, tried)
            gone = gone or decision.disable
            pause = _pause(target.destination.policy, tried.outcome)
            self._lanes.finished(leased, tried.duration.total_seconds(), time.monotonic(), pause)
        outcomes = [tried.outcome for _, tried in request]
        # Who took some of them is there.
        best = next((one for one in outcomes if isinstance(one, Delivered)), outcomes[0])
        probes = sum(leased.probe for leased, _ in request)
        for _ in range(probes):
            self._breakers.observe(destination_id, best, probe=True, gone=gone)
        if probes < len(request):
            self._breakers.observe(destination_id, best, probe=False, gone=gone)
        if pause:
            self._give_back(self._lanes.empty(destination_id))
        self._ended_trying([leased for leased, _ in request])

    def _record(self, delivery: Claimed, lease_id: UUID, target: Target, tried: Try) -> Decision:
        """Decide by the outcome, have it recorded, count it and say it."""
        destination, outcome = target.destination, tried.outcome
        policy = destination.policy
        decision = decide(
            policy,
            delivery.number,
            min(delivery.expires_at, delivery.created_at + policy.max_age),
            outcome,
            now=self._clock.now(),
            rng=self._rng,
            together=tried.together > 1,
        )
        self._recorder.put(
            Result(
                attempt=_attempt_row(delivery, destination.url, tried),
                lease_id=lease_id,
                state=decision.state,
                retry_in=decision.retry_in,
                order_key=delivery.order_key,
                correlation_id=delivery.correlation_id,
                label=target.label,
            )
        )
        target.meters.tried(outcome, tried.duration)
        if tried.judged is not None:
            target.meters.looked(tried.judged.result)
            if tried.judged.result in ("invalid", "no_key"):  # what is missing explains itself
                logger.info("not acknowledged: %s", tried.judged.detail, extra={"destination": target.label})
        if isinstance(outcome, Delivered):
            self._metrics.age.observe((tried.started_at + tried.duration - delivery.received_at).total_seconds())
        else:
            level = logging.WARNING if decision.state is State.EXHAUSTED else logging.INFO
            logger.log(
                level,
                "not delivered: %s",
                outcome.reason,
                extra={
                    "outcome": outcome.name,
                    "fault": reasons.fault_of(outcome.reason),
                    "destination": target.label,
                    "state": decision.state,
                    "retry_in": None if decision.retry_in is None else round(decision.retry_in.total_seconds(), 3),
                },
            )
        return decision

    async def _release(self) -> None:
        unused, unwanted = dict(self._unused), dict(self._unwanted)
        async with self._pool.acquire(timeout=5) as connection:
            if unused:
                await deliveries.release(connection, unused)
            if unwanted:
                await deliveries.skip(connection, {key: lease_id for key, (lease_id, _) in unwanted.items()})
            if self._tell:
                # Others have the slots for these, and may have looked for them in vain.
                await hints.hint(connection, database.DELIVERIES_CHANNEL)
        # A crash before this is durable loses nothing: the leases end, and the filters are asked again.
        self._tell = False
        for delivery_id in unused:
            del self._unused[delivery_id]
        for delivery_id, (_, delivery) in unwanted.items():
            del self._unwanted[delivery_id]
            if delivery.order_key is not None:
                self._ended.add((delivery.destination_id, delivery.order_key))
                self._ended_some.set()
        self._metrics.released.inc(len(unused))

    async def _release_rest(self) -> None:
        """Release what is left; if the database stays away, the leases end by themselves."""
        waits = reconnecting()
        deadline = time.monotonic() + DRAIN_RESERVE
        while (self._unused or self._unwanted) and time.monotonic() < deadline:
            try:
                await self._release()
            except Exception as error:
                if not database.is_away(error):
                    raise
                await asyncio.sleep(next(waits))


def _said_of(delivery: Claimed) -> logs.bind:
    """Have all that is logged say which delivery it is about."""
    return logs.bind(
        event_id=delivery.event_id,
        delivery_id=delivery.id,
        attempt=delivery.number,
        correlation_id=delivery.correlation_id,
    )


def _pause(policy: Policy, outcome: Outcome) -> float:
    """Return the seconds for which the destination wants to be left alone."""
    if not isinstance(outcome, Refused) or outcome.retry_after is None or not policy.honour_retry_after:
        return 0.0
    return min(outcome.retry_after, policy.retry_after_max).total_seconds()


def _transformed(tried: Try, sent_hash: bytes, delivery: Claimed) -> Try:
    """Return a try of a delivery with the hash of what was sent of it, if a transform made that."""
    if isinstance(tried.outcome, Denied | Unsent) or sent_hash == delivery.body_hash:
        return tried
    return tried._replace(sent_hash=sent_hash)


def _misshapen(wrong: Misshapen, reason: UnsentReason, now: datetime) -> Try:
    """Return the try that an expression has kept from being sent."""
    detail = wrong.said[: rows.LONGEST_DETAIL]
    return Try(outcome=Unsent(reason=reason), started_at=now, duration=timedelta(0), detail=detail)


def _attempt_row(delivery: Claimed, url: str, tried: Try) -> AttemptRow:
    response, judged = tried.response, tried.judged
    return AttemptRow(
        id=ids.new(),
        delivery_id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        destination_id=delivery.destination_id,
        number=delivery.number,
        started_at=tried.started_at,
        duration=tried.duration,
        outcome=tried.outcome.name,
        reason=tried.outcome.reason,
        detail=tried.detail,
        url=url,
        payload_hash=delivery.body_hash,
        payload_commitment=None if delivery.salt is None else hmac.digest(delivery.salt, delivery.body, "sha256"),
        signature_digest=tried.signature_digest,
        sent_hash=tried.sent_hash,
        response_status=None if response is None else response.status,
        response_headers=None if response is None else response.headers,
        response_body=None if response is None else response.body,
        response_size=None if response is None else response.size,
        response_digest=None if response is None else response.digest,
        acknowledgement=None if judged is None else judged.result,
        acknowledgement_base=None if judged is None else judged.base,
        acknowledgement_key=None if judged is None else judged.key,
        acknowledgement_signature=None if judged is None else judged.signature,
    )
