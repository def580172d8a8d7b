"""Writes what was decided, and nothing that is so already.

An object carries the digest of the manifest that it was made from: the digest tells that a field was taken out of the
manifest, and a comparison of what the manifest says with what is there tells that somebody else has changed it. So
nothing is written at rest, and nothing after a restart.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from kapsel_operator.apis import BY_KIND, DECLARED_BY_KIND
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError
from kapsel_operator.events import Recorder
from kapsel_operator.manifests.build import Key, key_of
from kapsel_operator.manifests.names import MANAGED_BY
from kapsel_operator.store import Declared, Store, digest, own_part, owners

APPLIED: Final = "kapsel.dev/applied"  # annotation: digest of the manifest
AT_ONCE: Final = 8  # writes under way
BATCH: Final = 100
_OF_READINESS: Final = frozenset({"Ready", "Stalled", "Paused"})
_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

Object = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An object that the API server did not take, which only a person can help."""

    reason: str
    message: str


class Writer:
    """Writes for all Relays."""

    def __init__(self, cluster: Cluster, store: Store, recorder: Recorder) -> None:
        self._cluster = cluster
        self._store = store
        self._recorder = recorder
        # Applies that changed nothing: the server writes some values in another way than manifests do.
        self._equal: dict[Key, tuple[str, str]] = {}

    async def objects(
        self, uid: str, manifests: Iterable[Object], held: frozenset[Key], optional: Mapping[Key, Object]
    ) -> list[Refusal]:
        """Make the objects of a Relay what they should be, in order, and delete those that should not be."""
        refused: list[Refusal] = []
        wanted: set[Key] = set()
        for manifest in manifests:
            wanted.add(key_of(manifest))
            refusal = await self._object(uid, manifest, optional)
            if refusal is not None:
                refused.append(refusal)
        # A crash between two of these leaves some old and some new objects, as does any moment of a rollout.
        for key, body in {**optional, **self._store.owned_by(uid)}.items():
            if key not in wanted and key not in held and uid in owners(body):
                api = BY_KIND[key.api_version, key.kind]
                await self._cluster.delete(api, key.namespace, key.name, body["metadata"]["uid"])
        return refused

    async def apply(self, manifest: Object) -> Object:
        """Apply a manifest as it is."""
        return await self._cluster.apply(manifest)

    async def statuses(self, wanted: Iterable[tuple[Declared, Object]]) -> None:
        """Write the statuses that say something else than they should, and an Event for each transition."""
        await self._each(wanted, _is_told, self._status)

    async def conditions(self, wanted: Iterable[tuple[Declared, Object]]) -> None:
        """Write the conditions alone that are not what they should be, and leave the rest of each status as it is."""
        await self._each(wanted, _says, self._conditions)

    async def _each(
        self,
        wanted: Iterable[tuple[Declared, Object]],
        is_so: Callable[[Declared, Object], bool],
        write: Callable[[Declared, Object], Awaitable[None]],
    ) -> None:
        refused: ApiError | None = None
        for some in _batches(wanted):
            try:
                await self.together(partial(write, one, status) for one, status in some if not is_so(one, status))
            except ApiError as error:
                if error.is_transient:
                    raise
                refused = refused or error
            await asyncio.sleep(0)  # to let others work, too
        if refused is not None:
            raise refused

    async def together(self, writes: Iterable[Callable[[], Awaitable[None]]]) -> None:
        """Do several writes, a few at once. An error that may pass ends those that follow; a refusal is of one object
        alone, and is raised after them."""
        left = iter(writes)
        refusals: list[ApiError] = []

        async def work() -> None:
            for write in left:
                try:
                    await write()
                except ApiError as error:
                    if error.is_transient:
                        raise
                    refusals.append(error)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(work())
        except ExceptionGroup as errors:
            refused, others = errors.split(ApiError)
            if refused is None or others is not None:
                raise
            # Not in `except*`: until 3.11.4 Python puts what is raised there into a group of its own.
            raise _first(refused) from errors
        if refusals:
            raise refusals[0]

    async def _status(self, one: Declared, status: Object) -> None:
        identity = one.identity
        written = await self._cluster.apply_status(
            DECLARED_BY_KIND[identity.kind], identity.namespace, identity.name, status
        )
        # A crash here loses an Event and nothing else.
        if written is not None:
            self._store.answered(written)
            await self._recorder.transitions(one, status)

    async def _conditions(self, one: Declared, status: Object) -> None:
        identity = one.identity
        found = await self._cluster.get(DECLARED_BY_KIND[identity.kind], identity.namespace, identity.name)
        if found is not None:
            known = own_part(identity.kind, found.get("status") or {})
            kept = [said for said in known.get("conditions", ()) if said["type"] not in _OF_READINESS]
            conditions = sorted([*kept, *status["conditions"]], key=lambda said: said["type"])
            await self._status(one, {**known, **status, "conditions": conditions})

    async def _object(self, uid: str, manifest: Object, optional: Mapping[Key, Object]) -> Refusal | None:
        key = key_of(manifest)
        signed = with_digest(manifest)
        current = self._store.owned(key) or optional.get(key)
        if current is None:
            current = await self._cluster.get(BY_KIND[key.api_version, key.kind], key.namespace, key.name)
        if current is not None:
            if not _is_ours(current, {uid, *owners(manifest)}):
                wrong = f"{key.kind} {key.namespace}/{key.name} exists, and is not of this Relay; allowed: another name"
                return Refusal("NameTaken", wrong)
            version = current["metadata"]["resourceVersion"]
            if includes(current, signed) or self._equal.get(key) == (
                version,
                signed["metadata"]["annotations"][APPLIED],
            ):
                return None
        try:
            written = await self._cluster.apply(signed)
        except ApiError as error:
            if error.is_transient:
                raise
            reason = "PodTemplateInvalid" if key.kind == "Deployment" else "ObjectRefused"
            return Refusal(reason, f"{key.kind} {key.name} is refused: {error.message}")
        if current is not None and written["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"]:
            self._equal[key] = (current["metadata"]["resourceVersion"], signed["metadata"]["annotations"][APPLIED])
        if key not in optional:
            self._store.put(written)
        return None


def with_digest(manifest: Object) -> Object:
    """Return a manifest with its own digest among its annotations."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED: digest(manifest).hex()}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def includes(current: object, wanted: object) -> bool:
    """Return whether an object has everything that a manifest says; what it has besides is somebody else's."""
    if isinstance(wanted, dict):
        return isinstance(current, dict) and all(
            name in current and includes(current[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(current, list)
            and len(current) == len(wanted)
            and all(includes(mine, its) for mine, its in zip(current, wanted, strict=True))
        )
    return current == wanted


def _batches(wanted: Iterable[tuple[Declared, Object]]) -> Iterator[list[tuple[Declared, Object]]]:
    """Make thousands of statuses a few at a time: the loop renews a Lease, too."""
    left = iter(wanted)
    while some := list(islice(left, BATCH)):
        yield some


def _is_told(one: Declared, status: Object) -> bool:
    return digest(own_part(one.identity.kind, status)) == one.told.digest


def _says(one: Declared, status: Object) -> bool:
    """Return whether the conditions of a resource are these, their words aside."""
    wanted = {said["type"]: (said["status"], said["reason"]) for said in status["conditions"]}
    known = one.told.conditions.items()
    told = {kind: (said.status, said.reason) for kind, said in known if kind in _OF_READINESS}
    return one.told.observed == one.generation and wanted == told


def _is_ours(current: Object, owned_by: set[str]) -> bool:
    """Return whether an object may be applied: its owner is the right one, or nobody owns it and the operator made it.

    An attestor's Role belongs to the Relay, or, in another namespace, to the log.
    """
    if mine := owners(current):
        return not owned_by.isdisjoint(mine)
    labels: Callable[[str], str | None] = (current["metadata"].get("labels") or {}).get
    return labels(_MANAGED_BY) == MANAGED_BY


def _first(errors: BaseExceptionGroup[ApiError]) -> ApiError:
    for error in errors.exceptions:
        return error if isinstance(error, ApiError) else _first(error)
    raise AssertionError("a group of errors without one")
