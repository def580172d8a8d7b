"""The pure plan: all resources in, the whole configuration of one Relay out, with every problem by its name.

`kapsel up` and the operator call this on every change. A resource with a problem keeps the rows that it had, so that a
typo never stops webhooks that flowed before it; everything else goes on. What may not be kept is a permission: an
endpoint whose namespace the Relay allows no longer is left out.

The same resources, time and entropy give the same plan, and planning again on its result changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from kapsel_resources.endpoints import EndpointRows, Surroundings, plan_endpoint
from kapsel_resources.inventory import Inventory
from kapsel_resources.keys import Entropy, Keys, form
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.logs import plan_log
from kapsel_resources.manifests import Resource
from kapsel_resources.problems import Problem
from kapsel_resources.relays import Chosen, allows, carries, choose
from kapsel_resources.replays import Replays, plan_replays
from kapsel_resources.statuses import Status, concerned, statuses
from kapsel_store.rows import Configuration, DestinationRow, LogRow

_REVOKED: Final = "NotAllowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The configuration to apply, and what to tell the authors of the resources."""

    configuration: Configuration
    problems: tuple[Problem, ...]
    statuses: tuple[Status, ...]
    replays: Replays = field(default_factory=Replays)


def plan(
    resources: Iterable[Resource],
    *,
    existing: Configuration,
    now: datetime,
    entropy: Entropy,
    relay: tuple[str, str] | None = None,
    broken: Iterable[Identity] = (),
    complete: bool = True,
) -> Plan:
    """Return the configuration of one Relay.

    `existing` is the configuration that runs: ids, key versions and last good rows come from it. `relay` names the
    Relay if there are several. `broken` are resources whose manifest has a problem, which keep their rows. `complete`
    is false if there may be more resources than could be read, as with a file that is no YAML: then nothing is removed.
    """
    inventory = Inventory(resources, broken, complete)
    chosen = choose(inventory, relay, existing.relay)
    if not isinstance(chosen, Chosen):
        problems = [*inventory.problems, *([chosen] if isinstance(chosen, Problem) else [])]
        kept = replace(existing, generation=0)
        return Plan(configuration=kept, problems=tuple(problems), statuses=statuses(kept, inventory, problems, ()))
    keys = Keys(inventory, existing.keys, now, entropy)
    log, problems = plan_log(chosen, inventory, keys, existing.log)
    endpoints, more = _plan_endpoints(chosen, inventory, keys, existing, log, entropy)
    problems += more
    wanted = _wanted_keys(chosen, inventory, keys, endpoints, log)
    problems += [*_key_problems(chosen, inventory, keys), *_proxy_problems(chosen, keys)]
    replays, more = plan_replays(chosen, inventory, endpoints)
    problems += more
    configuration = Configuration(
        relay=chosen.row(),
        endpoints=tuple(rows.endpoint for rows in endpoints),
        destinations=tuple(destination for rows in endpoints for destination in rows.destinations),
        keys=keys.select(wanted),
        log=log,
    )
    problems = [*inventory.problems, *problems]
    fine = [*concerned(chosen, inventory), *(Identity("Replay", row.namespace, row.name) for row in replays.rows)]
    told = statuses(configuration, inventory, problems, fine)
    return Plan(configuration=configuration, problems=tuple(problems), statuses=told, replays=replays)


def _plan_endpoints(
    chosen: Chosen, inventory: Inventory, keys: Keys, existing: Configuration, log: LogRow | None, entropy: Entropy
) -> tuple[list[EndpointRows], list[Problem]]:
    around = Surroundings(
        inventory=inventory,
        keys=keys,
        relay=chosen.spec,
        egress=chosen.row(),
        log_keys=frozenset((log.namespace, name) for name in log.key_names) if log else frozenset(),
        entropy=entropy,
    )
    previous = _previous(existing)
    planned: dict[Identity, EndpointRows] = {}
    problems: list[Problem] = []
    for resource in inventory.all(WebhookEndpoint):
        carried = carries(chosen, inventory, resource.identity, resource.spec.relay_ref)
        if carried is False:
            continue
        last_good = previous.get(resource.identity)
        rows = [carried] if isinstance(carried, Problem) else plan_endpoint(around, resource, last_good)
        if isinstance(rows, EndpointRows):
            planned[resource.identity] = rows
            continue
        problems += rows
        if last_good is not None and not any(problem.reason == _REVOKED for problem in rows):
            planned[resource.identity] = last_good
    unread = {identity: rows for identity, rows in previous.items() if inventory.may_exist(identity)}
    return [rows for _, rows in sorted({**unread, **planned}.items())], problems


def _previous(existing: Configuration) -> dict[Identity, EndpointRows]:
    destinations: dict[UUID, list[DestinationRow]] = {}
    for row in sorted(existing.destinations, key=lambda row: row.name):
        destinations.setdefault(row.endpoint_id, []).append(row)
    return {
        Identity("WebhookEndpoint", row.namespace, row.name): EndpointRows(row, tuple(destinations.get(row.id, ())))
        for row in existing.endpoints
    }


def _wanted_keys(
    chosen: Chosen, inventory: Inventory, keys: Keys, endpoints: list[EndpointRows], log: LogRow | None
) -> set[tuple[str, str]]:
    """Return namespace and name of every key that the configuration must hold."""
    wanted = {where for rows in endpoints for where in rows.key_names()}
    if log is not None:
        wanted.update((log.namespace, name) for name in log.key_names)
    proxy = chosen.row().proxy
    if proxy is not None:
        wanted.update((chosen.identity.namespace, name) for name in proxy.key_names)
    living = {(rows.endpoint.namespace, f"endpoint/{rows.endpoint.name}") for rows in endpoints}
    wanted.update(where for where in keys.known() if _is_kept(inventory, *where, living))
    for key in inventory.all(SigningKey):
        if key.spec.source == "Generate" and allows(chosen, inventory, key.metadata.namespace):
            wanted.add((key.metadata.namespace, form(key, standard=False)))
    return wanted


def _is_kept(inventory: Inventory, namespace: str, name: str, living: set[tuple[str, str]]) -> bool:
    """Whether a key that was made once stays although nothing names it now: losing it could not be undone."""
    kind, _, bare = name.partition("/")
    match kind:
        case "log":
            return True  # its origin may come back, and must then have its key
        case "endpoint":
            return (namespace, name) in living
        case "generated":
            return inventory.may_exist(Identity("SigningKey", namespace, bare))
    return False


def _key_problems(chosen: Chosen, inventory: Inventory, keys: Keys) -> list[Problem]:
    problems: dict[Problem, None] = {}
    for key in inventory.all(SigningKey):
        namespace = key.metadata.namespace
        if not allows(chosen, inventory, namespace):
            continue
        plain, standard = (form(key, standard=one) for one in (False, True))
        lacking = [
            keys.lacking(namespace, plain),
            keys.lacking(namespace, standard) if keys.asked(namespace, standard) else None,
        ]
        for found in filter(None, lacking):
            problem = Problem(
                resource=key.identity,
                path=("spec", "secretRef") if key.spec.secret_ref else ("spec",),
                reason=found.reason,
                wrong=found.wrong,
                allowed=found.allowed,
            )
            problems[problem] = None
    return list(problems)


def _proxy_problems(chosen: Chosen, keys: Keys) -> list[Problem]:
    """Return what is wrong with the Secrets of the proxy; deliveries go through it all the same, or not at all."""
    proxy = chosen.row().proxy
    if proxy is None:
        return []
    fields = (("credentialsSecretRef", proxy.credentials_name), ("caSecretRef", proxy.ca_name))
    found = [(field, keys.lacking(chosen.identity.namespace, name)) for field, name in fields if name is not None]
    return [
        Problem(
            resource=chosen.identity,
            path=("spec", "egress", "proxy", field),
            reason=lacking.reason,
            wrong=lacking.wrong,
            allowed=lacking.allowed,
        )
        for field, lacking in found
        if lacking is not None
    ]
