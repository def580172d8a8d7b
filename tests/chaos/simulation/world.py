"""One run: builds the world of a scenario, lets the faults loose, waits until all has ended, and asks the oracle.

While nothing is due for long, the clock is moved on to shortly before the next thing is: what polls in between would
find nothing, and a day of retries would otherwise be a million polls.
"""

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import asyncpg
import prometheus_client
from pydantic import SecretStr

import kapsel_attestor.__main__ as attestor
import kapsel_deliverer.__main__ as deliverer
import kapsel_receiver.__main__ as receiver
from kapsel_attestor import anchors, leader, succession
from kapsel_attestor import attestor as attestor_loop
from kapsel_attestor import metrics as attestor_metrics
from kapsel_attestor.settings import AttestorSettings
from kapsel_attestor.signers import gate
from kapsel_deliverer import checkpoints, errands, replayer
from kapsel_deliverer.settings import DelivererSettings
from kapsel_deliverer.worker import Worker
from kapsel_receiver.settings import ReceiverSettings
from kapsel_runtime import entropy, waiting
from kapsel_store import configuration, database, deliveries, ids, processes
from kapsel_store.sealing import SealingKeys
from simulation import clock as clocks
from simulation.asking import People
from simulation.backends import Backends
from simulation.clock import LIFE, Clock
from simulation.loop import Life, Loop, Thread, refuse_threads
from simulation.network import Network
from simulation.people import TOGETHER, Destination, Sender, TokenServer
from simulation.proxy import Fault, Proxy, Session, Unit, learn_names
from simulation.scenario import Blow, Rest, Scenario, Window
from simulation.wire import Control

AHEAD = 0.5  # seconds before the next thing is due that skipping stops
DRAIN = 60.0
RARELY, OFTEN = 10.0, 1.0  # seconds
LOOK = 0.4  # seconds between two looks at whether all has ended
SLACK = 60.0  # seconds in which something becomes of what is due, has lost its lease or is past its age, and of the log

_TRUSTED = deliverer.trusted(None)  # reading all authorities takes longer than many a run, and nobody here speaks TLS
deliverer.trusted = lambda _: _TRUSTED  # type: ignore[assignment]

MAINS: dict[str, Any] = {"receiver": receiver.serve, "deliverer": deliverer.serve, "attestor": attestor.main}


@dataclass(kw_only=True)
class Move:
    """One delivery's state as the worker of a life learned of it."""

    at: float
    life: Life
    delivery: UUID
    lease: UUID
    what: str  # claimed recorded


@dataclass(kw_only=True)
class Send:
    """One try as the worker of a life makes it: what a destination sees names the event, and not the delivery."""

    life: Life
    delivery: UUID
    event: UUID
    destination: UUID
    number: int
    begin: float
    probe: bool = False  # known of those alone that go together
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A configuration as the worker of a life took it over."""

    at: float
    life: Life
    suspended: frozenset[UUID]


@dataclass(kw_only=True)
class CircuitSeen:
    """A circuit as it stood at a moment."""

    at: float
    destination: UUID
    state: str
    failures: int
    open_until: float
    disabled: bool


@dataclass(kw_only=True)
class Run:
    """All that is known of a run when it has ended."""

    scenario: Scenario
    clock: Clock
    proxy: Proxy
    sender: Sender
    destinations: dict[UUID, Destination]
    people: People
    lives: list[Life] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    loads: list[Loaded] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)  # as they were committed
    replayed: dict[UUID, tuple[UUID, UUID]] = field(default_factory=dict)  # made -> by which replay, and of what
    circuits: list[CircuitSeen] = field(default_factory=list)
    logs: list[tuple[float, Life | None, logging.LogRecord]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    counted: dict[str, Any] = field(default_factory=dict)  # metrics of lives at their end
    learned: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by lives, of the store
    recorders: dict[UUID, Life] = field(default_factory=dict)  # who made and recorded an attempt
    depths: dict[str, tuple[int, int]] = field(default_factory=dict)  # pending and sending, as a life saw them last
    skips: list[tuple[float, float]] = field(default_factory=list)

    def digest(self) -> str:
        """Return what two runs of one seed must have in common."""
        return hashlib.sha256("\n".join(self.proxy.trace).encode()).hexdigest()[:16]


class World:
    """A scenario at work."""

    def __init__(self, scenario: Scenario, directory: Path, name: str, fence: Path) -> None:
        self.scenario = scenario
        self._database = name
        self._directory = directory
        self._fence = fence
        self.chance = Random(f"world {scenario.seed}")
        self.clock = Clock(Random(f"entropy {scenario.seed}"))
        self.loop = Loop(self.clock)
        self.network = Network(self.loop)
        self.control = Control(directory, name)
        backends = Backends(directory, directory / "asked")
        self.proxy = Proxy(self.loop, backends, self.clock, Random(f"proxy {scenario.seed}"))
        self.proxy.hint_loss = scenario.hint_loss
        rows = scenario.configuration.destinations
        people = {
            row.id: Destination(self.network, self.clock, row, scenario.conducts[row.id], f"conduct {scenario.seed}")
            for row in rows
        }
        for row in rows:
            if (login := scenario.logins.get(row.id)) is not None:
                people[row.id].tokens = TokenServer(self.network, self.clock, row, login, f"conduct {scenario.seed}")
        sender = Sender(
            self.network,
            self.clock,
            scenario.configuration.endpoints,
            scenario.secret,
            Random(f"sender {scenario.seed}"),
        )
        self.run = Run(
            scenario=scenario,
            clock=self.clock,
            proxy=self.proxy,
            sender=sender,
            destinations=people,
            people=People(self.connection, self.clock),
        )
        self.slots: dict[tuple[str, int], Life | None] = {}
        self.calm = False  # the faults are over
        self._sealing_file = fence.parent / "sealing.key"
        self._sealing_file.write_text(hashlib.sha256(b"sealing").hexdigest() + "\n")
        self._errors = list(scenario.clock_errors)
        self._resting = set[UUID]()

    def go(self) -> Run:
        """Run it to its end."""
        clocks.begin(self.clock)
        entropy.take.__self__.__init__()  # type: ignore[attr-defined]  # what this process had in hand is not of the seed
        ids.new.__self__.__init__()  # type: ignore[attr-defined]
        learn_names()
        asyncio.set_event_loop(self.loop)
        self._watch()
        self.loop.run_until_complete(self._all())
        return self.run

    async def connection(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            f"postgresql:///{self._database}?host=/chaos&user=postgres",
            server_settings=database.settings(schema="kapsel", role=None, component="chaos"),
        )

    # Looking on.

    def _watch(self) -> None:
        root = logging.getLogger()
        root.handlers = [_Log(self.run)]
        root.setLevel(logging.INFO)
        for module in (receiver, deliverer, attestor):
            module.CollectorRegistry = self._registry  # type: ignore[attr-defined]
        gate.Thread = Thread  # type: ignore[misc, assignment]
        refuse_threads()
        _rest()
        if self.scenario.asks:
            replayer.POLL = OFTEN  # type: ignore[misc]
        self._watch_leases()
        self._watch_sweeps()
        self._watch_sends()
        self._watch_loads()

    def _registry(self) -> prometheus_client.CollectorRegistry:
        life = LIFE.get()
        life.registry = prometheus_client.CollectorRegistry()
        return life.registry

    def _watch_leases(self) -> None:
        """Note who has claimed what, and whose record moved it, as the callers learn it."""
        claim, record = deliveries.claim, deliveries.record

        async def claimed(*arguments: Any, **options: Any) -> Any:
            lease_id, found = answer = await claim(*arguments, **options)
            self.run.learned[LIFE.get().name].update(claims=1, claimed=len(found))
            for each in found:
                self._move(each.id, lease_id, "claimed")
            return answer

        async def recorded(connection: Any, results: Any, *arguments: Any, **options: Any) -> Any:
            self.run.recorders.update((result.attempt.id, LIFE.get()) for result in results)
            held = await record(connection, results, *arguments, **options)
            told = self.run.learned[LIFE.get().name]
            told.update(records=1, recorded=len(results), lost=len(results) - len(held))
            for result in results:
                if result.attempt.id in held:
                    self._move(result.attempt.delivery_id, result.lease_id, "recorded")
            return held

        deliveries.claim, deliveries.record = claimed, recorded

    def _watch_sweeps(self) -> None:
        """Note what the store tells each life of leases that ran out, of age, and of the queue."""

        def noted(name: str) -> None:
            ask = getattr(deliveries, name)

            async def asked(*arguments: Any) -> Any:
                count = await ask(*arguments)
                self.run.learned[LIFE.get().name][name] += count
                return count

            setattr(deliveries, name, asked)

        noted("rescue")
        noted("expire")
        depth = deliveries.depth

        async def measured(connection: Any) -> Any:
            found = await depth(connection)
            self.run.depths[LIFE.get().name] = found.pending, found.sending
            return found

        deliveries.depth = measured

    def _watch_sends(self) -> None:
        """Note which delivery each try is of."""
        send, request = Worker._send, Worker._try_packed

        async def sent(worker: Worker, target: Any, delivery: Any, *more: Any) -> Any:
            one = self._begun(delivery)
            tried = await send(worker, target, delivery, *more)
            one.end = self.clock.elapsed
            return tried

        async def sent_together(worker: Worker, target: Any, packed: Any, items: Any) -> None:
            made = [self._begun(leased.delivery, probe=leased.probe) for leased, _ in items]
            TOGETHER.set([one.probe for one in made])
            await request(worker, target, packed, items)
            for one in made:
                one.end = self.clock.elapsed

        Worker._send, Worker._try_packed = sent, sent_together  # type: ignore[method-assign]

    def _begun(self, delivery: Any, *, probe: bool = False) -> Send:
        one = Send(
            life=LIFE.get(),
            delivery=delivery.id,
            event=delivery.event_id,
            destination=delivery.destination_id,
            number=delivery.number,
            begin=self.clock.elapsed,
            probe=probe,
        )
        self.run.sends.append(one)
        return one

    def _watch_loads(self) -> None:
        """Note what each worker knows to be suspended, from when on."""
        configure = Worker.configure

        def configured(worker: Worker, configuration: Any) -> None:
            suspended = frozenset(row.id for row in configuration.destinations if row.suspend)
            self.run.loads.append(Loaded(at=self.clock.elapsed, life=LIFE.get(), suspended=suspended))
            configure(worker, configuration)

        Worker.configure = configured  # type: ignore[method-assign]

    def _move(self, delivery: UUID, lease: UUID, what: str) -> None:
        life = LIFE.get()
        self.run.moves.append(Move(at=self.clock.elapsed, life=life, delivery=delivery, lease=lease, what=what))

    # Lives.

    def start(self, component: str, number: int) -> Life:
        name = f"{component}-{number}-{sum(1 for life in self.run.lives if life.component == component)}"
        error = self._errors[(number + len(component)) % len(self._errors)]
        life = Life(self.loop, name, component, error)
        self.slots[component, number] = life
        self.run.lives.append(life)
        context = contextvars.Context()
        context.run(LIFE.set, life)
        life.task = context.run(
            lambda: self.loop.create_task(MAINS[component](self._settings(component, name), life.stopping))
        )
        life.task.add_done_callback(lambda task: self._ended(life, task))
        return life

    def _ended(self, life: Life, task: asyncio.Task[Any]) -> None:
        if not life.alive:
            return
        if life.registry is not None:
            self.run.counted[life.name] = _samples(life.registry)
        life.end()
        if task.cancelled() or task.exception() is not None:
            error = None if task.cancelled() else task.exception()
            self.run.problems.append(f"{life} died by itself: {_causes(error)}")
        elif not life.stopping.is_set():
            self.run.problems.append(f"{life} ended unasked")

    def _settings(self, component: str, name: str) -> Any:
        common: dict[str, Any] = {
            "database_url": SecretStr(f"postgresql:///{self._database}?host=/chaos&user=postgres"),
            "database_role": f"kapsel_{component}",
            "database_schema": "kapsel",
            "sealing_key_file": self._sealing_file,
            "instance": name,
        }
        if component == "receiver":
            return ReceiverSettings(**common, receiver_port=0)
        if component == "attestor":
            return AttestorSettings(**common, attestor_fence_file=self._fence)
        return DelivererSettings(
            **common,
            deliverer_lease=timedelta(seconds=self.scenario.lease),
            deliverer_poll_interval=timedelta(seconds=self.scenario.poll),
            deliverer_rescue_interval=timedelta(seconds=3),
        )

    # What happens.

    async def _all(self) -> None:
        await self._configure()
        scenario = self.scenario
        self.proxy.decide, self.proxy.refuses = self._decide, self._refuses
        for component in ("receiver", "deliverer", "attestor"):
            for number in range(getattr(scenario, f"{component}s")):
                self.start(component, number)
        tasks = [asyncio.ensure_future(self.run.sender.send(*each)) for each in enumerate(scenario.arrivals)]
        tasks += [asyncio.ensure_future(self._strike(blow)) for blow in scenario.blows]
        tasks += [asyncio.ensure_future(self._jump(*jump)) for jump in scenario.database_jumps]
        tasks += [asyncio.ensure_future(self._jump_machines(*jump)) for jump in scenario.machine_jumps]
        tasks += [asyncio.ensure_future(self._open(window)) for window in scenario.windows]
        tasks += [asyncio.ensure_future(self._rest(rest)) for rest in scenario.rests]
        tasks += [asyncio.ensure_future(self.run.people.ask(ask)) for ask in scenario.asks if ask.at is not None]
        await asyncio.gather(*tasks)
        await asyncio.sleep(max(0.0, scenario.trouble_ends - self.clock.elapsed))
        self.calm = True
        await self._until_ended()
        if last := [ask for ask in scenario.asks if ask.at is None]:
            for ask in last:
                await self.run.people.ask(ask)
            await self._until_ended()
        await self.run.people.go()
        await self._stop()
        self._look_at_circuits()  # to which everybody has told now what there was to tell

    async def _configure(self) -> None:
        """Apply the configuration, with those destinations suspended that rest just now."""
        connection = await self.connection()
        sealing = SealingKeys.from_file(self._sealing_file)
        declared = self.scenario.configuration
        rows = tuple(dataclasses.replace(row, suspend=row.id in self._resting) for row in declared.destinations)
        await configuration.apply(connection, sealing, dataclasses.replace(declared, destinations=rows), actor="chaos")
        await connection.close()

    async def _rest(self, rest: Rest) -> None:
        await asyncio.sleep(rest.begin)
        self._resting.add(rest.destination)
        await self._configure()
        begun = self.clock.elapsed
        await asyncio.sleep(rest.end - rest.begin)
        self.run.rests.append(Rest(destination=rest.destination, begin=begun, end=self.clock.elapsed))
        self._resting.remove(rest.destination)
        await self._configure()

    async def _strike(self, blow: Blow) -> None:
        await asyncio.sleep(blow.at)
        life = self.slots.get((blow.component, blow.number))
        if life is None or not life.alive or life.stopping.is_set() or life.dies_at is not None:
            return
        if blow.steps:
            life.dies_at = life.steps + blow.steps
            while life.alive:
                await asyncio.sleep(0.05)
        else:
            life.stop()
            await self._gone(life)
        await asyncio.sleep(blow.back)
        self.start(blow.component, blow.number)

    async def _gone(self, life: Life) -> None:
        end = self.clock.elapsed + DRAIN
        while life.alive and self.clock.elapsed < end:
            await asyncio.sleep(0.05)
        if life.alive:
            self.run.problems.append(f"{life} did not end within {DRAIN:.0f} s")
            life.kill()

    async def _jump(self, at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        self.clock.database_error += seconds

    async def _jump_machines(self, at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        for life in self.run.lives:
            life.clock_error += seconds

    async def _open(self, window: Window) -> None:
        await asyncio.sleep(window.begin)
        if "refused" in window.kinds:
            self.proxy.faults.append((self.clock.elapsed, "all sessions end"))
            self.proxy.cut_all(window.chance)

    def _windows(self) -> list[Window]:
        now = self.clock.elapsed
        return [] if self.calm else [each for each in self.scenario.windows if each.begin <= now < each.end]

    def _refuses(self, life: Life | None) -> bool:
        refused = any("refused" in window.kinds for window in self._windows())
        if refused:
            self.proxy.faults.append((self.clock.elapsed, f"{life} connection refused"))
        return refused

    def _decide(self, session: Session, unit: Unit) -> Fault | None:
        if unit.ends not in (b"S", b"Q") or session.life is None:
            return None
        for window in self._windows():
            if window.component not in (None, session.life.component) or window.only not in unit.sql:
                continue
            kinds = [kind for kind in window.kinds if kind != "refused"]
            if not kinds or self.chance.random() >= window.chance:
                continue
            kind = self.chance.choice(kinds)
            if kind == "error" and (not unit.sql or "ROLLBACK" in unit.sql):
                continue
            if kind == "error" and window.sqlstate in ("53100", "25006") and not unit.writes:
                continue
            return Fault(kind=kind, sqlstate=window.sqlstate, seconds=window.seconds)
        return None

    # The end.

    async def _until_ended(self) -> None:
        query = self.control.query
        ages = [row.policy.max_age.total_seconds() for row in self.scenario.configuration.destinations]
        # What a replay makes begins its age when it is made.
        deadline = self.clock.elapsed + max(ages) + (3 * SLACK if self.scenario.asks else SLACK)
        quiet, overdue, begun = 0, 0.0, 0
        while self.clock.elapsed < deadline and overdue < SLACK:
            await asyncio.sleep(LOOK)
            self._look_at_circuits()
            now = self.clock.database_microseconds() / 1e6
            makes = self._note_replays()
            live = [(*row[:7], self._paused_until(row[7]), row[8]) for row in query(_WAITING)]
            if not live and self._all_is_done():
                return
            tries = any(destination.under_way for destination in self.run.destinations.values())
            under_way = tries or any(row[0] == "sending" and not _is_late(row, now) for row in live)
            waits = not under_way and (makes or not live or any(_is_late(row, now) for row in live))
            # Where tries are short, and one begins every now and then, nobody may be seen at one.
            overdue = overdue + LOOK if waits and begun == len(self.run.sends) else 0.0
            begun = len(self.run.sends)
            if waits or under_way:
                quiet = 0
                continue
            following = min(_next(row) for row in live) - now
            quiet += 1
            if following > 2 * AHEAD and quiet > 1:
                self.run.skips.append((self.clock.elapsed, following - AHEAD))
                self.loop.skip = following - AHEAD
                quiet = 0
        rows = query("SELECT id, state, attempts, last_reason, due_at, expires_at FROM deliveries_live")
        for row in rows:
            self.run.problems.append(f"a delivery never ended: {row}")
        if not self._all_is_done():
            self.run.problems.append("the log was never completed, a turn never passed, or a replay never ended")

    def _note_replays(self) -> bool:
        """Note what replays have made, which the store forgets; return whether one has still to make anything."""
        if not self.scenario.asks:
            return False
        for made, replay, old in self.control.query("SELECT made, replay_id, delivery_id FROM replayed"):
            self.run.replayed[UUID(str(made))] = UUID(str(replay)), UUID(str(old))
        return bool(self.control.query(_MAKING))

    def _paused_until(self, destination_id: Any) -> float:
        """When whoever heard a destination's Retry-After goes to it again, by the database's clock."""
        destination = self.run.destinations[UUID(str(destination_id))]
        policy, asked = destination.row.policy, destination.conduct.retry_after
        heard = [seen.end or self.clock.elapsed for seen in destination.seen if seen.status == 429]
        if not heard or not policy.honour_retry_after:
            return 0.0
        pause = max(heard) + min(asked, policy.retry_after_max.total_seconds())
        return clocks.EPOCH.timestamp() + self.clock.database_error + pause

    def _all_is_done(self) -> bool:
        """Whether a head covers the whole log, nobody has a turn to pass, and no replay goes on."""
        (row,) = self.control.query(
            "SELECT (SELECT count(*) FROM unsequenced), (SELECT max(tree_size) FROM logs), "
            "(SELECT coalesce(max(tree_size), 0) FROM heads), (SELECT count(*) FROM ended_turns), "
            "(SELECT count(*) FROM replays WHERE completed_at IS NULL AND removed_at IS NULL)"
        )
        return row[0] == "0" and row[1] == row[2] and row[3] == row[4] == "0"

    def _look_at_circuits(self) -> None:
        epoch = clocks.EPOCH.timestamp() + self.clock.database_error
        for row in self.control.query(
            "SELECT destination_id, state, failures, coalesce(extract(epoch FROM open_until), 0), "
            "disabled_at IS NOT NULL FROM circuits"
        ):
            self.run.circuits.append(
                CircuitSeen(
                    at=self.clock.elapsed,
                    destination=UUID(str(row[0])),
                    state=str(row[1]),
                    failures=int(str(row[2])),
                    open_until=float(str(row[3])) - epoch,
                    disabled=row[4] == "t",
                )
            )

    async def _stop(self) -> None:
        alive = [life for life in self.run.lives if life.alive]
        for component in ("receiver", "deliverer", "attestor"):  # as the parts of a deployment end
            for life in alive:
                if life.component == component:
                    life.stop()
            for life in alive:
                if life.component == component:
                    await self._gone(life)


def _rest() -> None:
    """Let everybody look more rarely at what does not change in a run: most of its statements would be such looks."""
    for module, name in _LOOKS:
        setattr(module, name, RARELY)
    leader.LOOK = attestor_loop.STANDBY = 1.0
    # Hours pass in a moment, and asyncpg would prepare all statements anew after each of them.
    opened = database._open
    database._open = functools.partial(opened, max_cached_statement_lifetime=0)  # type: ignore[assignment]
    processes.INTERVAL = 6.0  # who was not heard of for ten seconds is gone

    async def seldom(*events: asyncio.Event, timeout: float) -> bool:
        return await waiting.until(*events, timeout=4 * timeout)

    configuration.until = seldom  # type: ignore[attr-defined]


_LOOKS: Final = (
    (replayer, "POLL"),
    (errands, "POLL"),
    (checkpoints, "INTERVAL"),
    (anchors, "LOOK"),
    (succession, "LOOK"),
    (attestor_metrics, "INTERVAL"),
)

_WAITING = (
    "SELECT d.state, extract(epoch FROM d.due_at), extract(epoch FROM d.expires_at), "
    "coalesce(extract(epoch FROM c.open_until), 0), coalesce(c.state <> 'closed', false), "
    "coalesce(c.disabled_at IS NOT NULL, false), extract(epoch FROM d.lease_expires_at), d.destination_id, "
    "d.held AND EXISTS (SELECT FROM ended_turns e WHERE (e.destination_id, e.key) = (d.destination_id, d.order_key)) "
    "FROM deliveries_live d LEFT JOIN circuits c USING (destination_id)"
)


_MAKING = (
    "SELECT FROM replays WHERE enqueued_at IS NULL AND completed_at IS NULL AND removed_at IS NULL AND NOT suspend"
)


def _next(row: Any) -> float:
    """When something can happen to a pending delivery."""
    _, due, expires, open_until, is_open, disabled, _, paused_until, has_turn = row
    if has_turn == "t":  # somebody only has to pass it
        return 0.0
    at = max(float(due), paused_until)
    if is_open == "t":
        at = max(at, float(open_until))
    return float(expires) if disabled == "t" else min(at, float(expires))


def _is_late(row: Any, now: float) -> bool:
    """Whether somebody should have done something about a delivery."""
    return float(row[6]) < now if row[0] == "sending" else _next(row) < now


def _samples(registry: prometheus_client.CollectorRegistry) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def _causes(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_causes(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


class _Log(logging.Handler):
    """Keeps what is logged, with whose it is."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(LookupError):
            self._run.logs.append((self._run.clock.elapsed, LIFE.get(None), record))
