"""What the plan tells the author of each resource: the operator writes it into conditions, `kapsel up` prints it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kapsel_resources.inventory import Inventory
from kapsel_resources.keys import signing_key_of
from kapsel_resources.kinds.attestation_log import AttestationLog
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.retry_policy import RetryPolicy
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.logs import belongs
from kapsel_resources.problems import Problem
from kapsel_resources.relays import Chosen, allows, carries
from kapsel_store.rows import Configuration

# Kinds that run as rows of their own, and so have a last good configuration.
_RUNNING: Final = ("WebhookEndpoint", "SigningKey", "AttestationLog")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `kubectl get` would say of one resource as soon as the data plane has loaded the plan."""

    resource: Identity
    stalled: bool  # only its author can help: nothing will be tried until the manifest or what it refers to changes
    reason: str  # Accepted, or a Reason
    message: str


def concerned(chosen: Chosen, inventory: Inventory) -> Iterator[Identity]:
    """Yield the resources that this Relay speaks for, the Replays that it plans aside; others belong to another one."""
    yield from (one.identity for one in inventory.all(Relay) if one.identity == chosen.identity)
    for endpoint in inventory.all(WebhookEndpoint):
        if carries(chosen, inventory, endpoint.identity, endpoint.spec.relay_ref) is True:
            yield endpoint.identity
    yield from (log.identity for log in inventory.all(AttestationLog) if belongs(chosen, inventory, log) is True)
    others = (*inventory.all(SigningKey), *inventory.all(RetryPolicy))
    yield from (one.identity for one in others if allows(chosen, inventory, one.identity.namespace))


def statuses(
    configuration: Configuration, inventory: Inventory, problems: Sequence[Problem], fine: Iterable[Identity]
) -> tuple[Status, ...]:
    """Return a status for every resource that has a problem, is broken, or is fine."""
    running = set(_running(configuration))
    found = {one: Status(resource=one, stalled=False, reason="Accepted", message="") for one in fine}
    for one in inventory.broken:
        found[one] = _stalled(one, "InvalidManifest", "the manifest has a problem", running)
    blamed: dict[Identity, list[Problem]] = {}
    for problem in problems:
        blamed.setdefault(problem.resource, []).append(problem)
    for one, mine in blamed.items():
        found[one] = _stalled(one, mine[0].reason, "; ".join(map(str, mine)), running)
    return tuple(status for identity, status in sorted(found.items()) if identity.name)


def _running(configuration: Configuration) -> Iterator[Identity]:
    for endpoint in configuration.endpoints:
        yield Identity("WebhookEndpoint", endpoint.namespace, endpoint.name)
    for key in configuration.keys:
        name = signing_key_of(key.name)
        if name is not None:
            yield Identity("SigningKey", key.namespace, name)
    if configuration.log is not None:
        yield Identity("AttestationLog", configuration.log.namespace, configuration.log.name)


def _stalled(resource: Identity, reason: str, words: str, running: set[Identity]) -> Status:
    if resource.kind in _RUNNING:
        words += "; what was good of it stays in force" if resource in running else "; it is not in force"
    return Status(resource=resource, stalled=True, reason=reason, message=words)
