"""What the operator has seen of the cluster: slim copies, fed by the watches, read by every reconcile.

Nothing here is the truth, and all of it can be lost: the API server has it. Secrets are not here: they are read by
name.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from kapsel_operator.apis import DECLARED_BY_KIND
from kapsel_operator.manifests.build import Key, key_of
from kapsel_operator.manifests.names import MANAGER
from kapsel_resources import manifests
from kapsel_resources.kinds.core import Namespace
from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import Resource
from kapsel_resources.problems import Problem
from kapsel_resources.reasons import AttestorCondition

RECONCILE: Final = "kapsel.dev/reconcile"  # annotation; "disabled" leaves everything as it is
DEFAULT: Final = "kapsel.dev/default"  # annotation of an AttestationLog that the operator made for a Relay without one
# What others write into a status: the attestor's part of an AttestationLog.
FOREIGN_FIELDS: Final[Mapping[str, frozenset[str]]] = {"AttestationLog": frozenset({"fence", "head", "keys"})}
FOREIGN_CONDITIONS: Final = frozenset(get_args(AttestorCondition))

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """One condition as it stands in a status."""

    status: str
    reason: str
    since: str  # lastTransitionTime


@dataclass(frozen=True, slots=True)
class Told:
    """What the operator's part of a status says: enough to know whether it must be written, and what has changed."""

    digest: bytes = b""
    observed: int = 0  # generation
    conditions: Mapping[str, Said] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One resource of ours."""

    identity: Identity
    uid: str
    version: str  # resourceVersion
    generation: int
    resource: Resource | None  # None if the API server took what the models refuse
    problems: tuple[Problem, ...] = ()
    paused: bool = False
    is_default: bool = False
    told: Told = Told()
    status: Mapping[str, Any] = field(default_factory=dict)  # of a Relay alone: there are few of them


@dataclass(frozen=True, slots=True)
class Change:
    """What an event was about."""

    declared: bool = False  # what people declare is another one
    told: bool = False  # the status is not what the operator last saw of it


NONE: Final = Change()


def declared(body: Object) -> Declared:
    """Return the slim copy of a resource."""
    metadata, kind = body["metadata"], body["kind"]
    # Labels and annotations are not what is declared: tools change them at will, and copies of manifests are large.
    named = {"name": metadata["name"], "namespace": metadata["namespace"]}
    parsed = manifests.parse({**body, "metadata": named})
    problems = tuple(parsed) if isinstance(parsed, list) else ()
    annotations = metadata.get("annotations") or {}
    status = body.get("status") or {}
    return Declared(
        identity=Identity(kind, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        resource=None if isinstance(parsed, list) else parsed,
        problems=problems,
        paused=annotations.get(RECONCILE) == "disabled",
        is_default=annotations.get(DEFAULT) == "true",
        told=told(kind, status),
        status=status if kind == "Relay" else {},
    )


def told(kind: str, status: Mapping[str, Any]) -> Told:
    """Return what the operator's part of a status says."""
    mine = own_part(kind, status)
    return Told(
        digest=digest(mine) if mine else b"",
        observed=mine.get("observedGeneration", 0),
        conditions={
            one["type"]: Said(one["status"], one["reason"], one["lastTransitionTime"])
            for one in mine.get("conditions", ())
        },
    )


def own_part(kind: str, status: Mapping[str, Any]) -> Object:
    """Return a status without what others write into it."""
    mine = {name: value for name, value in status.items() if name not in FOREIGN_FIELDS.get(kind, ())}
    if kind in FOREIGN_FIELDS and "conditions" in mine:
        mine["conditions"] = [one for one in mine["conditions"] if one["type"] not in FOREIGN_CONDITIONS]
        if not mine["conditions"]:
            del mine["conditions"]
    return mine


def digest(value: object) -> bytes:
    """Return what tells two values apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()[:16]


class Store:
    """All slim copies."""

    def __init__(self) -> None:
        self.revision = 0  # counts changes of what is declared
        self.told = 0  # counts changes of what statuses say
        self._declared: dict[Identity, Declared] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._namespace_uids: dict[str, str] = {}
        self._ending: set[str] = set()  # namespaces that are being deleted, with all that is in them
        self._owned: dict[Key, Object] = {}

    def find(self, identity: Identity) -> Declared | None:
        """Return a resource."""
        return self._declared.get(identity)

    def all(self, kind: str | None = None) -> Iterator[Declared]:
        """Yield all resources, or those of a kind, as they are now: metrics are collected in another thread."""
        yield from (one for one in tuple(self._declared.values()) if kind in (None, one.identity.kind))

    def count(self, kind: str, namespace: str | None) -> int:
        """Return how many resources of a kind there are, in a namespace or in all of them."""
        return sum(one.kind == kind and namespace in (None, one.namespace) for one in self._declared)

    def namespaces(self) -> Iterator[Namespace]:
        """Yield the namespaces with their labels."""
        yield from self._namespaces.values()

    def is_ending(self, namespace: str) -> bool:
        """Return whether a namespace is being deleted: what goes from it now was not taken back by anybody."""
        return namespace in self._ending

    def namespace_uids(self) -> set[str]:
        """Return the uids of the namespaces."""
        return set(self._namespace_uids.values())

    def owned(self, key: Key) -> Object | None:
        """Return an object that the operator made."""
        return self._owned.get(key)

    def all_owned(self) -> list[tuple[Key, Object]]:
        """Return all objects that the operator made."""
        return list(self._owned.items())

    def owned_by(self, uid: str) -> dict[Key, Object]:
        """Return the objects that a Relay owns."""
        return {key: one for key, one in self._owned.items() if uid in owners(one)}

    def put(self, body: Object) -> Change:
        """Take over an object as a watch or an answer shows it; an older copy of it is passed over."""
        if body["kind"] in DECLARED_BY_KIND:
            return self._put_declared(body)
        if body["kind"] == "Namespace":
            return self._put_namespace(body)
        key, metadata = key_of(body), body["metadata"]
        before = self._owned.get(key)
        if before is not None and not _is_newer(metadata, before["metadata"]["resourceVersion"]):
            return NONE
        slim = {name: value for name, value in metadata.items() if name != "managedFields"}
        if body["kind"] == "Deployment":
            # Whether the number of replicas is the operator's own decides whether it may be left out.
            slim["managedFields"] = [one for one in metadata.get("managedFields", ()) if one["manager"] == MANAGER]
        self._owned[key] = {**body, "metadata": slim}
        return Change(declared=True)

    def answered(self, body: Object) -> None:
        """Take over what a status says after it was written.

        An answer that shows more than that is left alone: the watch is about to say so, which has it reconciled.
        """
        metadata = body["metadata"]
        before = self._declared.get(Identity(body["kind"], metadata["namespace"], metadata["name"]))
        if before is not None and "deletionTimestamp" not in metadata and essence(before) == essence(declared(body)):
            self._put_declared(body)

    def remove(self, body: Object) -> Change:
        """Forget an object that is gone."""
        metadata = body["metadata"]
        if body["kind"] in DECLARED_BY_KIND:
            found = self._declared.get(Identity(body["kind"], metadata["namespace"], metadata["name"]))
            return self.forget(found.identity) if found and found.uid == metadata["uid"] else NONE
        if body["kind"] == "Namespace":
            if self._namespace_uids.get(metadata["name"], metadata["uid"]) != metadata["uid"]:
                return NONE  # it was made anew meanwhile
            self.revision += 1
            self._ending.discard(metadata["name"])
            self._namespace_uids.pop(metadata["name"], None)
            return Change(declared=self._namespaces.pop(metadata["name"], None) is not None)
        known = self._owned.get(key_of(body))
        if known is None or known["metadata"].get("uid") != metadata.get("uid"):
            return NONE
        del self._owned[key_of(body)]
        return Change(declared=True)

    def forget(self, identity: Identity) -> Change:
        """Forget a resource."""
        if self._declared.pop(identity, None) is None:
            return NONE
        self.revision += 1
        return Change(declared=True)

    def _put_declared(self, body: Object) -> Change:
        if body["metadata"].get("deletionTimestamp"):
            # Somebody else's finalizer holds it; to kapsel it is gone.
            return self.remove(body)
        identity = Identity(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
        before = self._declared.get(identity)
        if before is not None and not _is_newer(body["metadata"], before.version):
            return NONE
        new = declared(body)
        if before is not None and before.resource == new.resource:
            new = replace(new, resource=before.resource)  # one copy is enough
        self._declared[identity] = new
        changed = before is None or essence(before) != essence(new)
        retold = before is None or before.told != new.told
        self.revision += changed
        self.told += retold
        return Change(declared=changed, told=retold)

    def _put_namespace(self, body: Object) -> Change:
        ending = body["metadata"].get("deletionTimestamp") is not None
        (self._ending.add if ending else self._ending.discard)(body["metadata"]["name"])
        parsed = manifests.parse(body)
        self._namespace_uids[body["metadata"]["name"]] = body["metadata"]["uid"]
        if not isinstance(parsed, Namespace) or self._namespaces.get(parsed.metadata.name) == parsed:
            return NONE
        self._namespaces[parsed.metadata.name] = parsed
        self.revision += 1
        return Change(declared=True)


def owners(body: Object) -> list[str]:
    """Return the uids of an object's owners."""
    return [one["uid"] for one in body["metadata"].get("ownerReferences", ())]


def essence(one: Declared) -> tuple[object, ...]:
    """Return what is declared: a change of anything else is no reason to reconcile."""
    return (one.uid, one.generation, one.resource, one.problems, one.paused, one.is_default)


def _is_newer(metadata: Mapping[str, Any], known: str) -> bool:
    """Whether a copy is newer than the known version. Versions count up; one that is no number is taken for newer."""
    version = metadata["resourceVersion"]
    if version.isdigit() and known.isdigit():
        return int(version) > int(known)
    return bool(version != known)
