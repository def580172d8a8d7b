"""Which Relay is planned, and which resources are carried by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kapsel_resources.inventory import Inventory
from kapsel_resources.kinds.core import Namespace
from kapsel_resources.kinds.model import Identity, RelayReference
from kapsel_resources.kinds.relay import AllowedNamespaces, Relay, RelaySpec
from kapsel_resources.problems import Problem
from kapsel_resources.reasons import Reason
from kapsel_store.rows import RelayRow

# Without a Relay manifest everything that is declared is carried by this one.
IMPLICIT: Final = RelayRow()
IMPLICIT_SPEC: Final = RelaySpec.model_validate({"allowedNamespaces": {"from": "All"}})


@dataclass(frozen=True, slots=True)
class Chosen:
    """The Relay of this plan."""

    identity: Identity
    spec: RelaySpec
    is_implicit: bool = False  # there is no manifest of it, and it carries whatever is declared

    def row(self) -> RelayRow:
        """Return the row."""
        proxy = self.spec.egress.proxy
        return RelayRow(
            namespace=self.identity.namespace,
            name=self.identity.name,
            allowed_cidrs=self.spec.egress.allowed_cidrs,
            allow_http=self.spec.egress.allow_http,
            hash_retention=self.spec.hash_retention,
            proxy=None if proxy is None else proxy.row(),
        )


def choose(inventory: Inventory, wanted: tuple[str, str] | None, running: RelayRow) -> Chosen | Problem | None:
    """Return the Relay to plan, a problem if it cannot be told which, or None if its manifest cannot be read."""
    relays = {relay.identity: relay.spec for relay in inventory.all(Relay)}
    unreadable = inventory.unreadable(Relay)
    if wanted is not None:
        identity = Identity("Relay", *wanted)
    elif not relays and not unreadable:
        if not inventory.complete and running != IMPLICIT:
            return None
        return Chosen(Identity("Relay", IMPLICIT.namespace, IMPLICIT.name), IMPLICIT_SPEC, is_implicit=True)
    elif len(relays) + len(unreadable) == 1:
        identity = next(iter({*relays, *unreadable}))
    else:
        return _problem(
            Identity("Relay", "", ""), "RelayAmbiguous", "there are several Relays", sorted({*relays, *unreadable})
        )
    if identity in relays:
        return Chosen(identity, relays[identity])
    if inventory.may_exist(identity):
        return None
    return _problem(identity, "RelayNotFound", f"there is no {identity}", sorted(relays))


def _problem(resource: Identity, reason: Reason, wrong: str, choices: list[Identity]) -> Problem:
    names = ", ".join(f"{one.namespace}/{one.name}" for one in choices) or "a manifest of it"
    return Problem(
        resource=resource, path=("metadata", "name"), reason=reason, wrong=wrong, allowed=f"name one: {names}"
    )


def carries(
    chosen: Chosen, inventory: Inventory, resource: Identity, reference: RelayReference | None
) -> bool | Problem:
    """Whether a resource is carried by the Relay of this plan, or what keeps it from being carried by any."""
    namespace = resource.namespace
    relays = {relay.identity: relay.spec for relay in inventory.all(Relay)} | {chosen.identity: chosen.spec}
    known = {*relays, *inventory.unreadable(Relay)}
    if reference is not None:
        target = Identity("Relay", reference.namespace or namespace, reference.name)
        if target not in known:
            # Relays that do not let this namespace in are nothing that its people need to know of.
            open_ones = {one for one, spec in relays.items() if allows(Chosen(one, spec), inventory, namespace)}
            usable = open_ones | {one for one in known if one.namespace == namespace}
            wanted = _names(usable) or "a Relay of this namespace, or one whose allowedNamespaces includes it"
            return _lost(resource, "RelayNotFound", f"there is no {target}", wanted)
        if target == chosen.identity and not allows(chosen, inventory, namespace):
            return _not_allowed(resource, target)
        return target == chosen.identity
    own = [identity for identity in known if identity.namespace == namespace]
    candidates = own or [one for one, spec in relays.items() if allows(Chosen(one, spec), inventory, namespace)]
    if len(candidates) > 1:
        return _lost(
            resource, "RelayAmbiguous", "several Relays could carry this", f"relayRef to one of: {_names(candidates)}"
        )
    if not candidates:
        return _not_allowed(resource, chosen.identity)
    return candidates[0] == chosen.identity


def allows(chosen: Chosen, inventory: Inventory, namespace: str) -> bool:
    """Whether a Relay lets a namespace in; its own always."""
    if namespace == chosen.identity.namespace:
        return True
    rule: AllowedNamespaces = chosen.spec.allowed_namespaces
    if rule.selector is None:
        return rule.from_ == "All"
    labels = _labels(inventory, namespace)
    return all(labels.get(name) == value for name, value in rule.selector.match_labels.items())


def _labels(inventory: Inventory, namespace: str) -> Mapping[str, str]:
    declared = inventory.find(Namespace, "", namespace)
    return {**(declared.metadata.labels if declared else {}), "kubernetes.io/metadata.name": namespace}


def _not_allowed(resource: Identity, relay: Identity) -> Problem:
    wrong = f"{relay} does not allow the namespace {resource.namespace}"
    allowed = "a Relay of this namespace, or one whose allowedNamespaces includes it"
    return _lost(resource, "NotAllowed", wrong, allowed)


def _lost(resource: Identity, reason: Reason, wrong: str, allowed: str) -> Problem:
    return Problem(resource=resource, path=("spec", "relayRef"), reason=reason, wrong=wrong, allowed=allowed)


def _names(relays: "set[Identity] | list[Identity]") -> str:
    return ", ".join(f"{one.namespace}/{one.name}" for one in sorted(relays))
