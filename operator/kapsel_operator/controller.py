"""What changes of which resources mean for the work queue, and what a watch may have missed.

A watch that was broken for too long lists anew, and says nothing of what was deleted meanwhile. So the caches are
compared with the API server now and then: by number first, and by name only where the numbers differ.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kapsel_operator.apis import DECLARED, DECLARED_BY_KIND, NAMESPACE, OWNED, Api
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError
from kapsel_operator.handlers import SELECTOR
from kapsel_operator.reconcile import ORPHANS
from kapsel_operator.secret_reader import SecretReader
from kapsel_operator.store import Change, Store
from kapsel_operator.workqueue import Key, WorkQueue
from kapsel_resources.kinds.model import GROUP_VERSION, Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_runtime.waiting import until

LISTING: Final = 0.3  # seconds between two looks at whether everything has come
LISTED_AGAIN: Final = 15.0  # seconds after which what does not come may have been deleted

Object = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """What of a kind the watches have not shown yet."""

    unseen: set[str] | None = None  # uids; None: it is not known what there is
    listed_at: float = 0.0


class Controller:
    """Feeds the store and the queue with what the watches see."""

    def __init__(self, store: Store, queue: WorkQueue, cluster: Cluster, namespaces: tuple[str, ...]) -> None:
        self._store = store
        self._queue = queue
        self._cluster = cluster
        self._namespaces = namespaces
        self.is_synced = False

    def seen(self, body: Object) -> None:
        """Take over an object."""
        self._changed(body, self._store.put(body))

    def gone(self, body: Object) -> None:
        """Forget an object."""
        self._changed(body, self._store.remove(body))

    async def sync(self, is_watching: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Begin to work when everything that there is was seen: before, what is missing may only not have come yet."""
        waiting = {
            (api, where): _Waiting()
            for api in (*DECLARED, NAMESPACE, *OWNED)
            for where in (self._namespaces if api.namespaced and self._namespaces else (None,))
        }
        while waiting and not await until(stopping, timeout=LISTING):
            if is_watching():
                for (api, where), one in list(waiting.items()):
                    if await self._has_come(api, where, one):
                        del waiting[api, where]
        if not waiting:
            self.is_synced = True
            self.add_all()

    def add_all(self) -> None:
        """Have everything reconciled."""
        for one in self._store.all("Relay"):
            self._queue.add(_key(one.identity))
        self._queue.add(ORPHANS)

    async def resync(self, interval: float, secrets: SecretReader, stopping: asyncio.Event) -> None:
        """Have everything reconciled now and then, whatever was heard of it."""
        while not await until(stopping, timeout=interval):
            secrets.sweep()
            if self.is_synced:
                self.add_all()

    async def audit(self, interval: float, stopping: asyncio.Event) -> None:
        """Look for what was deleted while nobody watched."""
        while not await until(stopping, timeout=interval):
            if not self.is_synced:
                continue
            for api in (*DECLARED, *OWNED):
                for namespace in self._namespaces or (None,):
                    try:
                        await self._compare(api, namespace)
                    except ApiError as error:
                        logger.warning("the cache of %s could not be compared: %s", api.plural, error)

    def standings(self) -> Mapping[tuple[str, str], int]:
        """Return how many resources of each kind have which status of Ready."""
        counts: Counter[tuple[str, str]] = Counter()
        for one in list(self._store.all()):
            said = one.told.conditions.get("Ready")
            counts[one.identity.kind, said.status if said else "Unknown"] += 1
        return counts

    async def _compare(self, api: Api, namespace: str | None) -> None:
        if api in DECLARED and await self._cluster.count(api, namespace) == self._store.count(api.kind, namespace):
            return
        known = self._uids(api, namespace)
        listed = await self._cluster.list_metadata(api, namespace, None if api in DECLARED else SELECTOR)
        there = {one["metadata"]["uid"] for one in listed}
        for uid, body in self._bodies(api, namespace):
            # What came while the list was made is not in it, and was not known before either.
            if uid in known and uid not in there:
                logger.warning("%s %s is gone, and no watch has said so", api.kind, body["metadata"]["name"])
                self.gone(body)

    async def _has_come(self, api: Api, namespace: str | None, one: "_Waiting") -> bool:
        """Return whether all objects of a kind were seen; those that do not come are asked for again."""
        now = asyncio.get_running_loop().time()
        if one.unseen is None or now - one.listed_at > LISTED_AGAIN:
            if one.unseen:
                logger.info("%d %s are there, and no watch has shown them yet", len(one.unseen), api.plural)
            try:
                listed = await self._cluster.list_metadata(api, namespace, SELECTOR if api in OWNED else None)
            except ApiError as error:
                logger.warning("%s cannot be listed: %s", api.plural, error)
                return False
            one.unseen = {each["metadata"]["uid"] for each in listed if "deletionTimestamp" not in each["metadata"]}
            one.listed_at = now
        one.unseen -= self._uids(api, namespace)
        return not one.unseen

    def _uids(self, api: Api, namespace: str | None) -> set[str]:
        return {uid for uid, _ in self._bodies(api, namespace)}

    def _bodies(self, api: Api, namespace: str | None) -> list[tuple[str, Object]]:
        """Return uid and the least of a body of each object of a kind in the caches."""
        if api == NAMESPACE:
            return [(uid, {}) for uid in self._store.namespace_uids()]
        if api in DECLARED:
            return [
                (one.uid, _body(api, one.identity, one.uid))
                for one in self._store.all(api.kind)
                if namespace in (None, one.identity.namespace)
            ]
        return [
            (body["metadata"]["uid"], body)
            for key, body in self._store.all_owned()
            if key.kind == api.kind and namespace in (None, key.namespace)
        ]

    def _changed(self, body: Object, change: Change) -> None:
        if not self.is_synced or not (change.declared or change.told):
            return
        kind, metadata = body["kind"], body["metadata"]
        if kind in DECLARED_BY_KIND or kind == "Namespace":
            namespace = metadata["name"] if kind == "Namespace" else metadata["namespace"]
            for identity in self._concerned(kind, namespace):
                self._queue.add(_key(identity))
            self._queue.add(ORPHANS)
            if kind == "Relay":  # also one that is gone: what is kept for it is to be forgotten
                self._queue.add(Key("Relay", namespace, metadata["name"]))
            return
        for owner in metadata.get("ownerReferences", ()):
            if (owner["apiVersion"], owner["kind"]) == (GROUP_VERSION, "Relay"):
                self._queue.add(Key("Relay", metadata["namespace"], owner["name"]))

    def _concerned(self, kind: str, namespace: str) -> Iterator[Identity]:
        """Yield the Relays that a change may concern."""
        for one in self._store.all("Relay"):
            lets_others_in = isinstance(one.resource, Relay) and one.resource.spec.allowed_namespaces.from_ != "Same"
            if kind == "Relay" or one.identity.namespace == namespace or lets_others_in:
                yield one.identity


def _key(identity: Identity) -> Key:
    return Key(identity.kind, identity.namespace, identity.name)


def _body(api: Api, identity: Identity, uid: str) -> Object:
    metadata = {"namespace": identity.namespace, "name": identity.name, "uid": uid}
    return {"apiVersion": api.api_version, "kind": api.kind, "metadata": metadata}
