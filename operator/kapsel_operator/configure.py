"""From resources to the rows of one Relay's database, and the Secrets in which people find generated keys.

Called by `reconcile` when the database can be used. A plan that changes nothing writes nothing.
"""

import asyncio
import logging
import secrets as random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from kapsel_operator import key_secrets
from kapsel_operator.apis import SECRET
from kapsel_operator.apply import Writer, includes
from kapsel_operator.cluster import Cluster
from kapsel_operator.databases import Databases, Trouble, trouble
from kapsel_operator.errors import ApiError
from kapsel_operator.gather import DEADLINE, Gatherer, Look, Surroundings
from kapsel_operator.memory import NOT_OURS, REFUSED, Memory
from kapsel_operator.planned import Basis, generated, planned
from kapsel_operator.scopes import Scope
from kapsel_operator.secret_reader import Absent
from kapsel_operator.store import Declared, Store, digest
from kapsel_resources.inventory import Inventory
from kapsel_resources.keys import signing_key_of
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.plan import Plan, plan
from kapsel_resources.relays import Chosen, allows
from kapsel_store import configuration, overview, partitions, processes, replays
from kapsel_store.database import Connection
from kapsel_store.rows import Configuration, KeyRow
from kapsel_store.sealing import SealingKeys

LOADING: Final = 2.0  # seconds to wait for running processes to load what is new, so that one status tells all of it
MAINTENANCE: Final = 3600.0  # seconds

logger = logging.getLogger(__name__)


class Configurer:
    """Plans and applies for all Relays."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        databases: Databases,
        gatherer: Gatherer,
        writer: Writer,
        *,
        actor: str,
        namespaces: tuple[str, ...],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._databases = databases
        self._gatherer = gatherer
        self._writer = writer
        self._actor = actor
        self._namespaces = namespaces  # that are watched; none means all

    async def configure(
        self, one: Declared, scope: Scope, around: Surroundings, look: Look, sealing: SealingKeys, memory: Memory
    ) -> Trouble | None:
        """Bring the rows and the Secrets of generated keys to what the resources say."""
        url, known = around.url or "", memory.planned
        fresh = (
            known is not None
            and around.now < known.until
            and known.basis.holds(scope, around.secrets, url, look.generation)
        )
        if fresh and not memory.is_key_due(asyncio.get_running_loop().time()):
            return None
        existing = await self._gatherer.existing(one.uid, url, sealing)
        if isinstance(existing, Trouble):
            return existing
        planned_on = existing.generation
        existing = await self._with_kept_keys(existing, scope, around.now)
        unseen = unwatched(existing, one.identity, scope, self._namespaces)
        made = await asyncio.to_thread(_plan, one.identity, scope, around, existing, unseen)
        try:
            async with asyncio.timeout(DEADLINE), self._databases.connection(one.uid, url) as connection:
                generation = await self._apply(connection, sealing, made, planned_on)
                generations = await overview.generations(connection)
        except Exception as error:
            if (found := trouble(error, url)) is None:
                raise
            return found
        # A crash here leaves rows that running processes load by themselves; the next reconcile finds them as they are.
        basis = Basis(scope=scope, secrets=around.secrets, url=url, generation=generation)
        memory.planned = await asyncio.to_thread(planned, made, basis, generations, around.now)
        await self.publish(generated(made.configuration), scope, memory)
        return None

    async def maintain(self, one: Declared, url: str, memory: Memory, now: datetime) -> Trouble | None:
        """Make, empty and drop partitions, once an hour; what is left over goes on with the next reconcile."""
        moment = asyncio.get_running_loop().time()
        if memory.maintained_at is not None and moment - memory.maintained_at < MAINTENANCE:
            return None
        try:
            async with asyncio.timeout(DEADLINE), self._databases.connection(one.uid, url) as connection:
                done = await partitions.maintain(connection, now)
                emptied = await partitions.empty(connection, now)
        except Exception as error:
            if (found := trouble(error, url)) is None:
                raise
            return found
        if emptied.finished:
            memory.maintained_at = moment
        if done.made or done.dropped:
            logger.info("partitions made: %s; dropped: %s", ", ".join(done.made), ", ".join(done.dropped))
        return None

    async def _apply(self, connection: Connection, sealing: SealingKeys, made: Plan, planned_on: int) -> int:
        # An operator that lost its Lease while it could not run must not undo what its successor has written since.
        generation = await configuration.apply(
            connection, sealing, made.configuration, actor=self._actor, expected=planned_on
        )
        # A crash here leaves Replays undeclared: they are no part of the configuration and come with the next round.
        rows, kept = made.replays.rows, made.replays.kept
        await replays.apply(connection, rows, kept=kept, complete=made.replays.complete, actor=self._actor)
        if generation != planned_on:
            logger.info("generation %d was applied", generation)
            await _until_loaded(connection, generation)
        return generation

    async def _with_kept_keys(self, existing: Configuration, scope: Scope, now: datetime) -> Configuration:
        """Return the configuration with the generated keys that a Secret still holds and the database has lost."""
        known = {(row.namespace, row.name) for row in existing.keys}
        lacking = {
            identity: name for identity, name in _generated_names(scope) if (identity.namespace, name) not in known
        }
        found = await self._gatherer.key_secrets(list(lacking))
        algorithms = {one.identity: one.spec.algorithm for one in scope.resources if isinstance(one, SigningKey)}
        kept: list[KeyRow] = []
        for identity, secret in found.items():
            algorithm = algorithms.get(identity, "HMAC-SHA256")
            kept += key_secrets.rows(secret, lacking[identity], algorithm, now, random.token_bytes)
        if kept:
            logger.warning("%d versions of keys were read back from Secrets: the database did not have them", len(kept))
        return replace(existing, keys=(*existing.keys, *kept))

    async def publish(self, keys: Mapping[Identity, list[KeyRow]], scope: Scope, memory: Memory) -> None:
        """Write the Secrets of generated keys that are not what they should be."""
        now = asyncio.get_running_loop().time()
        owners = {
            identity: owner
            for identity in keys
            if identity in scope.speaks_for and (owner := self._store.find(identity)) is not None
        }
        memory.forget_keys_but(owners)
        writes = []
        for identity, owner in owners.items():
            manifest = key_secrets.manifest(owner, keys[identity])
            wanted = digest(manifest)
            if memory.is_key_to_check(identity, wanted, now):
                memory.key_secrets[identity] = (wanted, float("-inf"))  # due until it was looked at
                writes.append(partial(self._publish_one, identity, manifest, wanted, memory))
        await self._writer.together(writes)

    async def _publish_one(self, identity: Identity, manifest: dict[str, Any], wanted: bytes, memory: Memory) -> None:
        memory.refusals.pop(identity, None)
        try:
            found = await self._publish_into(identity, manifest, wanted)
        except ApiError as error:
            if error.is_transient:
                raise
            # A quota of one namespace, or its end, is nothing to the others of the Relay.
            found, memory.refusals[identity] = REFUSED, str(error)
        memory.key_secrets[identity] = (found, asyncio.get_running_loop().time())

    async def _publish_into(self, identity: Identity, manifest: dict[str, Any], wanted: bytes) -> bytes:
        """Bring a Secret to what it should be, and return what to remember of it."""
        current = await self._cluster.get(SECRET, identity.namespace, manifest["metadata"]["name"])
        if current is not None and not key_secrets.is_of(current, identity):
            return NOT_OURS
        if (
            current is None
            or not includes(current, manifest)
            or current.get("data", {}).keys() != manifest["data"].keys()
        ):
            await self._writer.apply(manifest)
        return wanted


def unwatched(
    existing: Configuration, relay: Identity, scope: Scope, namespaces: Collection[str]
) -> frozenset[Identity]:
    """Return what has rows and lies in namespaces that are not watched, as far as the Relay still lets them in.

    Nobody knows that it is gone. `namespaces` are those that are watched; none means all.
    """
    if not namespaces:
        return frozenset()
    endpoints = {Identity("WebhookEndpoint", row.namespace, row.name) for row in existing.endpoints}
    keys = {Identity("SigningKey", row.namespace, signing_key_of(row.name) or "") for row in existing.keys}
    hidden = frozenset(one for one in endpoints | keys if one.namespace not in namespaces and one.name)
    inventory = Inventory(scope.resources, (), complete=True)
    return frozenset(
        one
        for one in hidden
        for known in inventory.all(Relay)
        if known.identity == relay and allows(Chosen(relay, known.spec), inventory, one.namespace)
    )


def _plan(
    relay: Identity, scope: Scope, around: Surroundings, existing: Configuration, unseen: Iterable[Identity]
) -> Plan:
    found = [secret for secret in around.secrets.values() if isinstance(secret, Secret)]
    unreadable = [Identity("Secret", *name) for name, secret in around.secrets.items() if secret is Absent.UNREADABLE]
    return plan(
        (*scope.resources, *found),
        existing=existing,
        now=around.now,
        entropy=random.token_bytes,
        relay=(relay.namespace, relay.name),
        broken=(*scope.broken, *unreadable, *unseen),
    )


def _generated_names(scope: Scope) -> Iterable[tuple[Identity, str]]:
    """Yield the resources for which kapsel makes a key that is the Relay's to know, with its name in the rows."""
    homes = {one.namespace for one in scope.speaks_for if one.kind in ("Relay", "WebhookEndpoint")}
    for one in scope.resources:
        if isinstance(one, SigningKey) and one.spec.source == "Generate":
            if one.metadata.namespace not in homes and one.identity not in scope.speaks_for:
                continue
            yield one.identity, f"generated/{one.metadata.name}"
        elif isinstance(one, WebhookEndpoint) and one.identity in scope.speaks_for and _signs_with_own_key(one):
            yield one.identity, f"endpoint/{one.metadata.name}"


def _signs_with_own_key(endpoint: WebhookEndpoint) -> bool:
    return any(destination.signing_key_ref is None for destination in endpoint.spec.destinations)


async def _until_loaded(connection: Connection, generation: int) -> None:
    """Wait a moment for the processes that run to load a generation; they are told at once."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOADING
    while loop.time() < deadline:
        running = [row for row in await processes.list_live(connection) if row.generation > 0]
        if all(row.generation >= generation for row in running):
            return
        await asyncio.sleep(0.1)
