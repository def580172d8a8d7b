"""One reconcile: read, decide, write, and say when to come back.

The queue calls `Reconciler.work` with one key at a time. A Relay's key brings everything that the Relay speaks for to
where it should be; the key of orphans tells the resources that no Relay speaks for. Nothing is remembered that could
not be lost: what a crash leaves undone is found undone by the next reconcile.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from kapsel_operator import prepare, readiness, relay_facts, relay_status, statuses
from kapsel_operator.apis import DECLARED_BY_KIND
from kapsel_operator.apply import Writer
from kapsel_operator.cluster import Cluster
from kapsel_operator.conditions import Verdict
from kapsel_operator.configure import Configurer
from kapsel_operator.databases import Databases, Trouble
from kapsel_operator.errors import ApiError
from kapsel_operator.gather import Gatherer, Running, Surroundings
from kapsel_operator.manifests import build
from kapsel_operator.manifests.facts import Facts
from kapsel_operator.memory import Memory
from kapsel_operator.metrics import Metrics
from kapsel_operator.readiness import GRACE, Plane
from kapsel_operator.replay_status import replay_is_over
from kapsel_operator.scopes import Scope, Scopes, divide
from kapsel_operator.settings import OperatorSettings
from kapsel_operator.statuses import View
from kapsel_operator.store import Declared, Store
from kapsel_operator.telling import Teller
from kapsel_operator.workqueue import Again, Key
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.replay import Replay
from kapsel_runtime import logs
from kapsel_store.errors import StaleConfigurationError

ORPHANS: Final = Key("orphans")
LONGEST_BACKOFF: Final = 300.0  # seconds
_DONE: Final = {"status": "True"}

logger = logging.getLogger(__name__)


class Reconciler:
    """Reconciles every key."""

    def __init__(
        self,
        settings: OperatorSettings,
        metrics: Metrics,
        *,
        cluster: Cluster,
        store: Store,
        databases: Databases,
        gatherer: Gatherer,
        writer: Writer,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._cluster = cluster
        self._store = store
        self._databases = databases
        self._gatherer = gatherer
        self._writer = writer
        self._teller = Teller(store, writer)
        self._configurer = Configurer(
            cluster,
            store,
            databases,
            gatherer,
            writer,
            actor=f"operator/{settings.instance}",
            namespaces=settings.watch_namespaces,
        )
        self._memories: dict[Identity, Memory] = {}
        self._scopes: tuple[int, Scopes] | None = None
        self._dividing = asyncio.Lock()
        self._interval = settings.operator_status_interval.total_seconds()

    async def work(self, key: Key) -> Again | None:
        """Reconcile a key; what goes wrong is told, counted, and tried again with backoff."""
        with logs.bind(key=str(key)), self._metrics.duration.labels(key.kind).time():
            try:
                again = await (
                    self._orphans() if key == ORPHANS else self._relay(Identity(key.kind, key.namespace, key.name))
                )
                result = "waiting" if again is not None and again.patient else "ok"
            except ApiError as error:
                logger.warning("the API server refused something: %s", error)
                if not error.is_transient:
                    await self._tell_refusal(Identity(key.kind, key.namespace, key.name), error)
                again, result = Again(after=LONGEST_BACKOFF, patient=True), "away" if error.is_transient else "failed"
            except StaleConfigurationError as error:
                logger.warning("another writer was faster: %s", error)
                again, result = Again(after=LONGEST_BACKOFF, patient=True), "away"
            except Exception:
                logger.exception("a reconcile failed, which is a bug")
                again, result = Again(after=LONGEST_BACKOFF, patient=True), "failed"
        self._metrics.reconciles.labels(key.kind, result).inc()
        return again

    async def _tell_refusal(self, identity: Identity, error: ApiError) -> None:
        """Have a Relay say what keeps it from being reconciled: a quota, a webhook, a right that the operator lacks."""
        one = self._store.find(identity)
        if one is None:
            return
        try:
            await self._writer.statuses([(one, relay_status.refused(one, str(error), datetime.now(UTC)))])
        except ApiError as another:
            logger.warning("nor could the Relay be told so: %s", another)

    async def scopes(self) -> Scopes:
        """Return who speaks for what, as the caches have it now."""
        async with self._dividing:
            revision = self._store.revision
            if self._scopes is None or self._scopes[0] != revision:
                declared, namespaces = list(self._store.all()), list(self._store.namespaces())
                # In a thread, as all that takes long with thousands of resources: the loop renews the Lease meanwhile.
                self._scopes = (revision, await asyncio.to_thread(divide, declared, namespaces))
            return self._scopes[1]

    async def _orphans(self) -> Again:
        now = datetime.now(UTC)
        told = [
            (one, statuses.orphan(one, orphan.reason, orphan.message, now))
            for orphan in (await self.scopes()).orphans
            if (one := self._store.find(orphan.identity)) is not None
        ]
        await self._writer.statuses(told)
        return Again(after=self._settings.operator_resync_interval.total_seconds())

    async def _relay(self, identity: Identity) -> Again | None:
        scope = (await self.scopes()).relays.get(identity)
        one = self._store.find(identity)
        if one is None:
            await self._forget(identity)
            return None
        if scope is not None and not scope.is_about(one):
            return Again(after=1.0)  # it has changed since, and is due already
        if not isinstance(one.resource, Relay) or scope is None:
            return None  # its manifest has a problem, which the key of orphans tells
        if self._store.is_ending(identity.namespace):
            return None  # its endpoints go before it does, and the database is to stay as it is
        if one.paused:
            await self._writer.statuses(
                [(one, relay_status.paused(one, datetime.now(UTC))), *self._waiting(identity, scope)]
            )
            return None
        memory = self._memories.get(identity)
        if memory is None or memory.uid != one.uid:
            await self._forget(identity)  # one of that name that was deleted and declared again
            memory = self._memories[identity] = Memory(uid=one.uid)
        return await self._reconcile(one, one.resource, scope, memory)

    def _waiting(self, relay: Identity, scope: Scope) -> Iterator[tuple[Declared, dict[str, Any]]]:
        """Yield what came while its Relay was paused: what has no status at all would pass for Ready."""
        for identity in sorted(scope.speaks_for - {relay}):
            one = self._store.find(identity)
            if one is not None and one.told.observed == 0:
                yield one, statuses.waiting(one, datetime.now(UTC))

    async def _reconcile(self, one: Declared, relay: Relay, scope: Scope, memory: Memory) -> Again:
        around = await self._gatherer.surroundings(relay, scope)
        if early := prepare.early(relay, around, self._facts(one, relay, around, scope, memory)):
            for manifest in early:
                await prepare.make(self._cluster, manifest)
            # A crash here leaves Secrets that the next reconcile finds and uses.
            around = await self._gatherer.surroundings(relay, scope)
        tied = self._facts(one, relay, around, scope, memory)
        for name in prepare.untied(relay, around, tied):
            await prepare.tie(self._cluster, relay, tied, name)
            await self._gatherer.reread((relay.metadata.namespace, name))
        no_log = await prepare.make_log(self._cluster, relay) if scope.needs_log else None
        if scope.needs_log and no_log is None:
            return Again(after=2.0, patient=True)  # or as soon as the watch has seen it
        memory.about(around.url)
        trouble, around = await self._configure(one, relay, scope, around, memory)
        running = await self._running(one, scope, around, memory, trouble)
        if isinstance(running, Trouble):
            trouble, running = running, Running()
        memory.away_since = _since(memory.away_since, trouble is not None and not trouble.stalled)
        facts = self._facts(one, relay, around, scope, memory, trouble)
        manifests, held = build.build(relay, facts), build.held(relay, facts)
        refused = await self._writer.objects(one.uid, manifests, held, around.optional)
        if no_log is not None:
            refused.append(no_log)
        plane = _plane(running, memory, trouble)
        view = View(
            now=around.now,
            planned=memory.planned,
            plane=plane,
            doing=memory.doing,
            url=relay_facts.url(relay, facts, around, self._store),
            nameless=memory.nameless(),
            refusals=dict(memory.refusals),
            healings=running.healings,
        )
        told = await self._teller.tell(scope, view, running, memory)
        seen = relay_facts.relay_view(
            relay,
            facts,
            around,
            self._store,
            view=view,
            look=memory.look,
            trouble=trouble,
            keep=plane.keep,
            refused=refused,
            endpoints=told.endpoints,
            unhealthy=told.unhealthy,
        )
        status = relay_status.status(one, seen)
        await self._writer.statuses([(one, status)])
        await self._end_replays(scope, running, view.now)
        planned_until = None if memory.planned is None else memory.planned.until
        return again(status, settled=told.settled, until=planned_until, now=datetime.now(UTC), interval=self._interval)

    def _facts(
        self,
        one: Declared,
        relay: Relay,
        around: Surroundings,
        scope: Scope,
        memory: Memory,
        trouble: Trouble | None = None,
    ) -> Facts:
        log = relay_facts.log_of(scope, memory.planned, self._store)
        return relay_facts.facts(
            one,
            relay,
            around,
            self._settings,
            look=memory.look,
            trouble=trouble,
            log=log,
            store=self._store,
        )

    async def _configure(
        self, one: Declared, relay: Relay, scope: Scope, around: Surroundings, memory: Memory
    ) -> tuple[Trouble | None, Surroundings]:
        """Bring the database to what the resources say, as far as it lets itself; return what stands in the way."""
        if around.url is None:
            return around.url_trouble, around
        look = await self._gatherer.look(one.uid, around.url)
        if isinstance(look, Trouble):
            # A Cluster that is not ready says more than a connection that is refused.
            return (look if look.stalled else around.url_trouble or look), around
        memory.look = look
        if look.schema == "Outdated":
            return None, around
        key = prepare.sealing_key(relay, around, self._facts(one, relay, around, scope, memory), look)
        if isinstance(key, Trouble):
            return key, around
        if key is not None:
            await prepare.make(self._cluster, key)
            # A crash here leaves a key with which nothing was sealed yet; the next reconcile uses it.
            around = await self._gatherer.surroundings(relay, scope)
        sealing = prepare.read_sealing_key(around.sealing_key)
        if isinstance(sealing, Trouble):
            return sealing, around
        trouble = await self._configurer.configure(one, scope, around, look, sealing, memory)
        if trouble is None:
            trouble = await self._configurer.maintain(one, around.url or "", memory, around.now)
        return trouble, around

    async def _running(
        self, one: Declared, scope: Scope, around: Surroundings, memory: Memory, trouble: Trouble | None
    ) -> Running | Trouble:
        if trouble is not None or around.url is None or memory.look is None or memory.look.schema != "Current":
            return Running()
        now = asyncio.get_running_loop().time()
        is_fresh = memory.doing_at is not None and now - memory.doing_at < self._interval
        known = memory.doing if is_fresh else None
        running = await self._gatherer.running(one.uid, around.url, scope, known, around.now)
        if isinstance(running, Running) and not is_fresh:
            memory.doing, memory.doing_at = running.doing, now
        return running

    async def _end_replays(self, scope: Scope, running: Running, now: datetime) -> None:
        for identity, progress in running.replays.items():
            one = self._store.find(identity)
            if one is None or identity not in scope.speaks_for or not isinstance(one.resource, Replay):
                continue
            if replay_is_over(one.resource, progress, now):
                api = DECLARED_BY_KIND["Replay"]
                await self._cluster.delete(api, identity.namespace, identity.name, one.uid)

    async def _forget(self, identity: Identity) -> None:
        memory = self._memories.pop(identity, None)
        if memory is not None:
            await self._databases.forget(memory.uid)


def again(status: dict[str, Any], *, settled: bool, until: datetime | None, now: datetime, interval: float) -> Again:
    """Return when a Relay is due again; `until` is when its plan has to be made anew."""
    ready = next(one for one in status["conditions"] if one["type"] == "Ready")
    stalled = any(one["type"] == "Stalled" for one in status["conditions"])
    if not stalled and (ready["status"] != "True" or not settled):
        return Again(after=interval, patient=True)
    if until is None or until <= now:  # a plan that is overdue could not be made: the database is away
        return Again(after=interval)
    return Again(after=min(max((until - now).total_seconds(), 0.1), interval))


def _plane(running: Running, memory: Memory, trouble: Trouble | None) -> Plane:
    """Return what the processes say, and whether it is too early to believe that they are gone."""
    away = None
    if trouble is not None:
        away = Verdict("Ready", "False", trouble.reason, trouble.message)
    elif memory.look is not None and memory.look.schema == "Outdated":
        message = "the database waits for a migration; see the condition SchemaCurrent of the Relay"
        away = Verdict("Ready", "False", "SchemaOutdated", message)
    found = readiness.plane(running.processes, away=away)
    lacking = trouble is None and found.lacking() is not None
    memory.lacking_since = _since(memory.lacking_since, lacking)
    began = memory.away_since if trouble is not None else memory.lacking_since
    keep = began is not None and asyncio.get_running_loop().time() - began < GRACE.total_seconds()
    return replace(found, keep=keep)


def _since(began: float | None, holds: bool) -> float | None:
    """Return since when something holds."""
    if not holds:
        return None
    return asyncio.get_running_loop().time() if began is None else began
