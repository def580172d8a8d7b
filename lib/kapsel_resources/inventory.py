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
        self.broken = frozenset(broken)
        self.complete = complete
        self.problems: list[Problem] = []
        for resource in resources:
            if self._by_identity.setdefault(resource.identity, resource) is not resource:
                self.problems.append(_declared_twice(resource.identity))

    def all(self, kind: type[R]) -> list[R]:
        """Return the resources of a kind, in the order of their identities."""
        found = [resource for resource in self._by_identity.values() if isinstance(resource, kind)]
        return sorted(found, key=lambda resource: resource.identity)

    def find(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return the resource of that name."""
        resource = self._by_identity.get(Identity(kind.__name__, namespace, name))
        return resource if isinstance(resource, kind) else None

    def may_exist(self, identity: Identity) -> bool:
        """Whether a resource that is not here may exist all the same, so that what runs for it must be kept."""
        return identity in self.broken or (not self.complete and identity not in self._by_identity)

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
