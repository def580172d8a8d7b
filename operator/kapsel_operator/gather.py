"""Everything that one reconcile of a Relay reads, in one place: Secrets, the APIs of the cluster, its database.

What comes of it is decided elsewhere, and nothing is written here. Resources come from the caches.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

from kapsel_operator.apis import CNPG_CLUSTER, GATEWAY, INGRESS_CLASS, OPTIONAL
from kapsel_operator.cluster import Cluster
from kapsel_operator.databases import INVALID_URL, Databases, Trouble, is_url, port, trouble
from kapsel_operator.errors import ApiError
from kapsel_operator.key_secrets import secret_name
from kapsel_operator.manifests import generated_secrets, names
from kapsel_operator.manifests.build import Key
from kapsel_operator.manifests.facts import Capability, DirectUrl
from kapsel_operator.manifests.facts import Database as DatabaseFacts
from kapsel_operator.scopes import Scope
from kapsel_operator.secret_reader import Absent, Found, Name, SecretReader
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import DatabaseEntry, Relay
from kapsel_resources.kinds.replay import Replay
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_store import configuration, healings, migrate, overview, processes, replays
from kapsel_store.database import Connection
from kapsel_store.healings import Healing
from kapsel_store.overview import Doing, Generations
from kapsel_store.processes import ProcessRow
from kapsel_store.replays import ReplayProgress
from kapsel_store.rows import Configuration
from kapsel_store.sealing import SealingKeys

DEADLINE: Final = 25.0  # seconds for all that is asked of one database
CAPABILITIES_FOR: Final = 60.0  # seconds that an answer about the APIs of the cluster is used


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What there is around one Relay, its database apart."""

    now: datetime
    secrets: Mapping[Name, Found]  # those that resources name
    sealing_key: Found
    console_token: Found
    embedded: Found | None  # the Secret of an embedded Postgres
    url: str | None  # of the database
    url_trouble: Trouble | None
    database: DatabaseFacts | None
    capabilities: frozenset[Capability]
    ingress_classes: Mapping[str, bool] | None
    gateway: dict[str, Any] | None
    gateway_exists: bool | None
    optional: Mapping[Key, dict[str, Any]]  # objects of APIs that a cluster may lack


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a first look at the database shows."""

    schema: Literal["Current", "Outdated"]
    schema_version: str | None
    roles: bool = False
    has_keys: bool = False  # whether there is anything that only the sealing key can open
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What the data plane says, and how its deliveries are doing."""

    processes: tuple[ProcessRow, ...] = ()
    doing: Mapping[UUID, Doing] = field(default_factory=dict)
    replays: Mapping[Identity, ReplayProgress] = field(default_factory=dict)
    healings: Mapping[UUID, Healing] = field(default_factory=dict)  # by endpoint


class Gatherer:
    """Reads for all Relays."""

    def __init__(self, cluster: Cluster, databases: Databases, secrets: SecretReader) -> None:
        self._cluster = cluster
        self._databases = databases
        self._secrets = secrets
        self._served: dict[Capability, tuple[bool, float]] = {}

    async def surroundings(self, relay: Relay, scope: Scope) -> Surroundings:
        """Read everything around a Relay but its database."""
        namespace = relay.metadata.namespace
        sealing, token = (
            (namespace, names.object_name(relay.metadata.name, suffix)) for suffix in ("sealing-key", "console-token")
        )
        capabilities = await self._capabilities()
        named = _named(scope)
        secrets = await self._secrets.read([*named, sealing, token])
        url, url_trouble, database = await self._database_url(relay, capabilities)
        gateway, gateway_exists = await self._gateway(relay, capabilities)
        embedded = (namespace, generated_secrets.postgres_name(relay))
        is_embedded = relay.spec.database is not None and relay.spec.database.embedded is not None
        return Surroundings(
            now=datetime.now(UTC),
            secrets={name: secrets[name] for name in named},
            sealing_key=secrets[sealing],
            console_token=secrets[token],
            embedded=(await self._secrets.read([embedded]))[embedded] if is_embedded else None,
            url=url,
            url_trouble=url_trouble,
            database=database,
            capabilities=capabilities,
            ingress_classes=await self._ingress_classes(relay),
            gateway=gateway,
            gateway_exists=gateway_exists,
            optional=await self._optional(relay, capabilities),
        )

    async def reread(self, name: Name) -> None:
        """Read a Secret anew that the operator has just written."""
        await self._secrets.fresh(name)

    async def look(self, uid: str, url: str) -> Look | Trouble:
        """Have a first look at a database: whether it can be reached, and which schema it has."""
        try:
            async with asyncio.timeout(DEADLINE), self._databases.connection(uid, url) as connection:
                return await _look(connection)
        except Exception as error:
            if (found := trouble(error, url)) is None:
                raise
            return found

    async def existing(self, uid: str, url: str, sealing: SealingKeys) -> Configuration | Trouble:
        """Read the configuration that runs."""
        try:
            async with asyncio.timeout(DEADLINE), self._databases.connection(uid, url) as connection:
                return await configuration.load(connection, sealing)
        except Exception as error:
            if (found := trouble(error, url)) is None:
                raise
            return found

    async def generations(self, uid: str, url: str) -> Generations | Trouble:
        """Read since when the rows of the configuration are what they are."""
        try:
            async with asyncio.timeout(DEADLINE), self._databases.connection(uid, url) as connection:
                return await overview.generations(connection)
        except Exception as error:
            if (found := trouble(error, url)) is None:
                raise
            return found

    async def running(
        self, uid: str, url: str, scope: Scope, doing: Mapping[UUID, Doing] | None, now: datetime
    ) -> Running | Trouble:
        """Read what the data plane reports; how deliveries are doing only if it is not known well enough yet."""
        try:
            async with asyncio.timeout(DEADLINE), self._databases.connection(uid, url) as connection:
                has_replays = any(isinstance(one, Replay) for one in scope.resources)
                rows = await replays.progress(connection) if has_replays else []
                heals = any(isinstance(one, WebhookEndpoint) and one.spec.verification.heals for one in scope.resources)
                return Running(
                    processes=tuple(await processes.list_live(connection)),
                    doing=await overview.doing(connection, now) if doing is None else doing,
                    replays={Identity("Replay", row.namespace, row.name): row for row in rows},
                    healings=await healings.all_of(connection) if heals else {},
                )
        except Exception as error:
            if (found := trouble(error, url)) is None:
                raise
            return found

    async def key_secrets(self, identities: list[Identity]) -> Mapping[Identity, Secret]:
        """Read the Secrets of generated keys, those that exist."""
        where = {one: (one.namespace, secret_name(one.kind, one.name)) for one in identities}
        found = await self._secrets.read(where.values())
        return {one: secret for one, name in where.items() if isinstance(secret := found[name], Secret)}

    async def _database_url(
        self, relay: Relay, capabilities: frozenset[Capability]
    ) -> tuple[str | None, Trouble | None, DatabaseFacts | None]:
        """Return the URL by which the operator itself gets to the database, and what pods need to get there."""
        database, namespace = relay.spec.database, relay.metadata.namespace
        if database is None:
            missing = "the Relay names no database; allowed: one member of spec.database"
            return None, Trouble(reason="DatabaseMissing", message=missing, stalled=True), None
        if database.secret_ref is not None:
            name, key = database.secret_ref.name, database.secret_ref.key
        elif database.cnpg_cluster_ref is not None:
            name, key = f"{database.cnpg_cluster_ref.name}-app", "uri"
        else:
            name, key = generated_secrets.postgres_name(relay), generated_secrets.URL_ENTRY
        found = (await self._secrets.read([(namespace, name)]))[namespace, name]
        cnpg = await self._cnpg(relay, capabilities)
        if cnpg is not None and isinstance(found, Absent):
            return None, cnpg, None
        url = _entry(found, key)
        if url is None:
            return None, _no_url(found, namespace, name, key, embedded=database.embedded is not None), None
        if not is_url(url):
            return None, INVALID_URL, None
        facts = DatabaseFacts(secret=name, key=key, digest=secret_digest(url, relay.identity), port=port(url))
        direct = None if database.secret_ref is None else database.secret_ref.direct_ref
        if direct is None:
            return url, cnpg, facts
        return await self._besides_a_pooler(relay, url, facts, direct)

    async def _besides_a_pooler(
        self, relay: Relay, pooled: str, facts: DatabaseFacts, direct: DatabaseEntry
    ) -> tuple[str | None, Trouble | None, DatabaseFacts | None]:
        namespace = relay.metadata.namespace
        found = (await self._secrets.read([(namespace, direct.name)]))[namespace, direct.name]
        url = _entry(found, direct.key)
        if url is None:
            return None, _no_url(found, namespace, direct.name, direct.key, embedded=False), None
        if not is_url(url):
            return None, INVALID_URL, None
        both = secret_digest(f"{pooled}\n{url}", relay.identity)
        besides = DirectUrl(secret=direct.name, key=direct.key, port=port(url))
        return url, None, replace(facts, digest=both, direct=besides)

    async def _cnpg(self, relay: Relay, capabilities: frozenset[Capability]) -> Trouble | None:
        """Return what is wrong with the CloudNativePG Cluster of a Relay."""
        reference = relay.spec.database.cnpg_cluster_ref if relay.spec.database else None
        if reference is None:
            return None
        if Capability.CNPG not in capabilities:
            wrong = "this cluster does not know the kind Cluster of CloudNativePG"
            return Trouble(reason="CnpgNotInstalled", message=wrong, stalled=True)
        found = await self._cluster.get(CNPG_CLUSTER, relay.metadata.namespace, reference.name)
        what = f"Cluster {relay.metadata.namespace}/{reference.name}"
        if found is None:
            return Trouble(reason="CnpgClusterNotFound", message=f"there is no {what}", stalled=True)
        status = found.get("status") or {}
        ready: Mapping[str, Any] = next(
            (one for one in status.get("conditions") or () if one.get("type") == "Ready"), {}
        )
        if ready.get("status") == "True":
            return None
        phase = status.get("phase") or ready.get("message") or "it has no condition Ready yet"
        return Trouble(reason="CnpgClusterNotReady", message=f"{what} is not ready: {phase}")

    async def _capabilities(self) -> frozenset[Capability]:
        return frozenset([one for one in Capability if await self._serves(one)])

    async def _serves(self, capability: Capability) -> bool:
        now = asyncio.get_running_loop().time()
        known = self._served.get(capability)
        if known is None or now - known[1] > CAPABILITIES_FOR:
            known = self._served[capability] = (await self._cluster.serves(capability.value), now)
        return known[0]

    async def _ingress_classes(self, relay: Relay) -> Mapping[str, bool] | None:
        if relay.spec.exposure.type != "Ingress":
            return None
        try:
            found = await self._cluster.list_all(INGRESS_CLASS)
        except ApiError as error:
            if error.status == 403:
                return None
            raise
        default = "ingressclass.kubernetes.io/is-default-class"
        return {
            one["metadata"]["name"]: (one["metadata"].get("annotations") or {}).get(default) == "true" for one in found
        }

    async def _gateway(
        self, relay: Relay, capabilities: frozenset[Capability]
    ) -> tuple[dict[str, Any] | None, bool | None]:
        reference = relay.spec.exposure.gateway_ref
        if reference is None or Capability.GATEWAY not in capabilities:
            return None, None
        try:
            found = await self._cluster.get(GATEWAY, reference.namespace or relay.metadata.namespace, reference.name)
        except ApiError as error:
            if error.status == 403:
                return None, None
            raise
        return found, found is not None

    async def _optional(self, relay: Relay, capabilities: frozenset[Capability]) -> Mapping[Key, dict[str, Any]]:
        """Return the objects of the Relay that are not watched, those that exist."""
        served = {one.value for one in capabilities}
        found: dict[Key, dict[str, Any]] = {}
        for api in OPTIONAL:
            if api.group not in served:
                continue
            for component in ("receiver", "deliverer", "console"):  # whose names they have
                name = names.object_name(relay.metadata.name, component)
                one = await self._cluster.get(api, relay.metadata.namespace, name)
                if one is not None:
                    found[Key(api.api_version, api.kind, relay.metadata.namespace, name)] = one
        return found


async def _look(connection: Connection) -> Look:
    lacking = await migrate.missing(connection)
    known = migrate.known()
    done = len(known) - len(lacking)
    version = f"{known[done - 1].number:04}" if done else None
    if lacking:
        return Look(schema="Outdated", schema_version=version)
    return Look(
        schema="Current",
        schema_version=version,
        roles=await migrate.has_roles(connection),
        has_keys=await overview.has_keys(connection),
        generation=await configuration.generation(connection),
    )


def _named(scope: Scope) -> list[Name]:
    """Return the Secrets that the resources of a Relay name."""
    found: set[Name] = set()
    for one in scope.resources:
        if isinstance(one, SigningKey) or (isinstance(one, Relay) and one.identity in scope.speaks_for):
            found.update((one.metadata.namespace, name) for name in one.spec.secret_names())
        elif isinstance(one, WebhookEndpoint) and one.identity in scope.speaks_for:
            found.update((one.metadata.namespace, name) for name in one.spec.secret_names())
            found.update((one.metadata.namespace, reference.name) for reference in one.spec.verification.secrets)
    return sorted(found)


def _entry(found: Found, key: str) -> str | None:
    if isinstance(found, Absent):
        return None
    try:
        return found.entries[key].decode().strip()
    except (KeyError, UnicodeDecodeError):
        return None


def _no_url(found: Found, namespace: str, name: str, key: str, *, embedded: bool) -> Trouble:
    what = f"Secret {namespace}/{name}"
    if isinstance(found, Absent):
        if embedded and found is Absent.MISSING:
            return Trouble(reason="DatabaseUnreachable", message="the embedded Postgres is being set up")
        wrong = f"{what} {'is missing' if found is Absent.MISSING else 'cannot be read'}"
        return Trouble(reason="DatabaseSecretNotFound", message=wrong, stalled=True)
    known = ", ".join(found.entries) or "none"
    wrong = f"{what} has no entry {key} with text in it; its entries: {known}"
    return Trouble(reason="DatabaseSecretEntryNotFound", message=wrong, stalled=True)


@lru_cache(maxsize=1024)
def secret_digest(secret: str, relay: Identity) -> str:
    """Return what tells two secrets of a Relay apart and may stand in a pod's annotation.

    Whoever reads annotations can try passwords against it, so each try costs what a try at a stored password costs.
    """
    return hashlib.scrypt(secret.encode(), salt=str(relay).encode(), n=2**14, r=8, p=1, dklen=8).hex()
