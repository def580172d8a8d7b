"""All resources of one plan, found by kind, namespace and name, and those that exist but could not be read."""

from collections.abc import Iterable
from typing import TypeVar

from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import Resource
from kapsel_resources.problems import Problem

R = TypeVar("R", bound=Resource)


class Inventory:
    """Where the plan looks references up."""

    def __init__(self, resources: Iterable[Resource], broken: Iterable[Identity], complete: bool) -> None:
        self._by_identity: dict[Identity, Resource] = {}
        self._by_kind: dict[str, list[Resource]] = {}
        self.broken = frozenset(broken)
        self.complete = complete
        self.problems: list[Problem] = []
        for resource in resources:
            if resource.identity in self._by_identity:
                self.problems.append(_declared_twice(resource.identity))
            else:
                self._by_identity[resource.identity] = resource
        for identity, resource in sorted(self._by_identity.items(), key=lambda item: item[0]):
            self._by_kind.setdefault(identity.kind, []).append(resource)

    def all(self, kind: type[R]) -> list[R]:
        """Return the resources of a kind, in the order of their identities."""
        return [resource for resource in self._by_kind.get(kind.__name__, ()) if isinstance(resource, kind)]

    def find(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return the resource of that name."""
        resource = self._by_identity.get(Identity(kind.__name__, namespace, name))
        return resource if isinstance(resource, kind) else None

    def may_exist(self, identity: Identity) -> bool:
        """Whether a resource that is not here may exist all the same, so that what runs for it must be kept."""
        return identity in self.broken or (not self.complete and identity not in self._by_identity)

    def unreadable(self, kind: type[Resource]) -> list[Identity]:
        """Return the resources of a kind whose manifest has a problem."""
        return [identity for identity in self.broken if identity.kind == kind.__name__]

    def names(self, kind: type[R], namespace: str) -> list[str]:
        """Return the names of a kind in a namespace, for messages."""
        return [one.identity.name for one in self.all(kind) if one.identity.namespace == namespace]


def _declared_twice(resource: Identity) -> Problem:
    return Problem(
        resource=resource,
        path=("metadata", "name"),
        reason="DeclaredTwice",
        wrong="this resource is declared twice, and the first declaration is used",
        allowed="each kind, namespace and name once",
    )
