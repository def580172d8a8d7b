"""The one log of a Relay: from its AttestationLog, or, if there is none, with all defaults."""

from dataclasses import replace
from typing import Final

from kapsel_resources.inventory import Inventory
from kapsel_resources.keys import Keys, form
from kapsel_resources.kinds.attestation_log import Anchoring, AttestationLog, AttestationLogSpec
from kapsel_resources.kinds.model import Identity, RelayReference
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.problems import Path, Problem, choices
from kapsel_resources.reasons import Reason
from kapsel_resources.relays import Chosen, carries
from kapsel_resources.witnesses import heads_apart, plan_witnessing, unusable
from kapsel_store import rows
from kapsel_store.rows import LogRow

_DEFAULT: Final = AttestationLogSpec()
_NEVER_EARLY: Final = 2**31 - 1  # leaves: a budget of heads has no room for early ones
_KEY_PATH: Final[Path] = ("spec", "signingKeyRef")


def plan_log(
    chosen: Chosen, inventory: Inventory, keys: Keys, previous: LogRow | None
) -> tuple[LogRow | None, list[Problem]]:
    """Return the log to run, the last good one if its manifest has a problem, and the problems."""
    mine: list[AttestationLog] = []
    problems: list[Problem] = []
    for log in inventory.all(AttestationLog):
        verdict = belongs(chosen, inventory, log)
        if isinstance(verdict, Problem):
            problems.append(verdict)
        elif verdict:
            mine.append(log)
    if len(mine) > 1:
        return previous, [*problems, *(_one_of_several(log, mine) for log in mine)]
    if mine:
        planned = _declared(mine[0], inventory, keys)
        return (previous, [*problems, planned]) if isinstance(planned, Problem) else (planned, problems)
    relay = chosen.identity
    unread = [*inventory.unreadable(AttestationLog), *(problem.resource for problem in problems)]
    if not inventory.complete or any(chosen.is_implicit or one.namespace == relay.namespace for one in unread):
        # Opening a log with defaults because a manifest has an error would give the world another origin and key.
        return previous, problems
    return _row(relay.namespace, relay.name, _origin(relay.namespace, relay.name), None, _DEFAULT), problems


def belongs(chosen: Chosen, inventory: Inventory, log: AttestationLog) -> bool | Problem:
    """Whether a log is that of the Relay. Who runs the Relay runs its log: other namespaces that use it have no say."""
    identity, reference = log.identity, log.spec.relay_ref
    if chosen.is_implicit or identity.namespace == chosen.identity.namespace:
        return carries(chosen, inventory, identity, RelayReference(name=reference.name) if reference else None)
    if inventory.names(Relay, identity.namespace) or any(
        one.namespace == identity.namespace for one in inventory.unreadable(Relay)
    ):
        return False
    return Problem(
        resource=identity,
        path=("metadata", "namespace"),
        reason="NotAllowed",
        wrong=f"there is no Relay in the namespace {identity.namespace}",
        allowed="the namespace of the Relay: who runs it runs its log",
    )


def _declared(log: AttestationLog, inventory: Inventory, keys: Keys) -> LogRow | Problem:
    namespace, name, spec = log.metadata.namespace, log.metadata.name, log.spec
    key_name = None
    if spec.signing_key_ref is not None:
        found = _key(log.identity, spec.signing_key_ref.name, inventory, keys)
        if isinstance(found, Problem):
            return found
        key_name = found
    retiring = None
    if spec.retiring_signing_key is not None:
        found = _retiring(log, inventory, keys)
        if isinstance(found, Problem):
            return found
        retiring = found
    row = _row(namespace, name, spec.origin or _origin(namespace, name), key_name, spec)
    if retiring != row.key_name:
        row = replace(row, retiring_key_name=retiring)
    if spec.witnessing is not None:
        own = {key.public for key_name in row.key_names for key in keys.rows(namespace, key_name)}
        if (problem := unusable(log.identity, spec.witnessing, own)) is not None:
            return problem
    return row


def _retiring(log: AttestationLog, inventory: Inventory, keys: Keys) -> str | Problem:
    named = log.spec.retiring_signing_key
    if named is None or named.name is None:
        return f"log/{log.spec.origin or _origin(log.metadata.namespace, log.metadata.name)}"
    found = _key(log.identity, named.name, inventory, keys)
    if isinstance(found, Problem):
        return replace(found, path=("spec", "retiringSigningKey", "name"))
    return found


def _key(resource: Identity, name: str, inventory: Inventory, keys: Keys) -> str | Problem:
    namespace = resource.namespace
    key = inventory.find(SigningKey, namespace, name)
    if key is None:
        known = choices(name, inventory.names(SigningKey, namespace)) or "a SigningKey of that name"
        return _refused(resource, "SigningKeyNotFound", f"there is no readable SigningKey {namespace}/{name}", known)
    if key.spec.algorithm != "Ed25519":
        return _refused(
            resource, "WrongAlgorithm", f"SigningKey {name} is of algorithm {key.spec.algorithm}", "Ed25519"
        )
    versions = keys.rows(namespace, form(key, standard=False))
    if not versions:
        return _refused(
            resource, "SigningKeyNotReady", f"SigningKey {name} has no version yet", "a SigningKey without problems"
        )
    if any(not version.secret and version.backend is None for version in versions):
        wrong = f"SigningKey {name} has a version of which only the public half is here"
        return _refused(resource, "SigningKeyUnfit", wrong, "versions with their seed")
    return form(key, standard=False)


def _row(namespace: str, name: str, origin: str, key_name: str | None, spec: AttestationLogSpec) -> LogRow:
    return LogRow(
        namespace=namespace,
        name=name,
        origin=origin,
        key_name=key_name or f"log/{origin}",  # a key signs for one origin, for good: another origin has another key
        integrate_interval=spec.integration.interval,
        integrate_batch=spec.integration.batch,
        publish_interval=max(spec.publication.interval, heads_apart(spec.witnessing)),
        publish_pending=spec.publication.pending if not heads_apart(spec.witnessing) else _NEVER_EARLY,
        idle_interval=max(spec.publication.idle_interval, heads_apart(spec.witnessing)),
        anchoring=None if spec.anchoring is None else _anchoring(spec.anchoring),
        witnessing=None if spec.witnessing is None else plan_witnessing(spec.witnessing),
    )


def _anchoring(spec: Anchoring) -> rows.Anchoring:
    return rows.Anchoring(
        calendars=spec.calendars,
        minimum=spec.minimum or min(2, len(spec.calendars)),  # one alone could lose what it has promised
        interval=spec.interval,
        timeout=spec.timeout,
    )


def _origin(namespace: str, name: str) -> str:
    return f"kapsel.local/{namespace}/{name}"


def _one_of_several(log: AttestationLog, all_of_them: list[AttestationLog]) -> Problem:
    names = ", ".join(f"{one.metadata.namespace}/{one.metadata.name}" for one in all_of_them)
    return Problem(
        resource=log.identity,
        path=("metadata", "name"),
        reason="LogAmbiguous",
        wrong=f"several AttestationLogs belong to one Relay: {names}",
        allowed="one AttestationLog for each Relay",
    )


def _refused(resource: Identity, reason: Reason, wrong: str, allowed: str) -> Problem:
    return Problem(resource=resource, path=_KEY_PATH, reason=reason, wrong=wrong, allowed=allowed)
