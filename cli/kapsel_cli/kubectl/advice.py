"""What to do about a condition that is not as it should be: one sentence, for somebody who was just woken up.

Called for the page of `status`. What the author of a manifest can mend is said in kapsel_resources.reasons; here is
what else can be wrong in a cluster.
"""

from collections.abc import Mapping
from typing import Final

from kapsel_cli.kubectl.view import Condition, View
from kapsel_resources.reasons import REASONS

OPERATOR: Final = "kubectl get pods -A -l app.kubernetes.io/name=kapsel,app.kubernetes.io/component=operator"
NO_OPERATOR: Final = f"See whether it runs: {OPERATOR}"
_ATTESTOR: Final = "Read what the attestor says: kubectl logs -n {namespace} -l {deliverers} -c attestor --tail=20"

# By the reason of a condition, where that says more than its type; and what no reason of a manifest covers.
BY_REASON: Final[Mapping[str, str]] = {
    "MigrationFailed": "The old version keeps running. The migration is tried anew ten minutes after it has failed",
    "SchemaOutdated": "The migration brings it up to date. If it does not end: kubectl get jobs,pods -n {namespace} "
    "-l {migration}",
    "Loading": "It may be a matter of seconds. If it stays, see which process hangs: kubectl kapsel processes "
    "-n {namespace}",
    "DeliveriesFailed": "See which: kubectl kapsel deliveries -n {namespace} --endpoint {endpoint} --state exhausted",
    "NameTaken": "Rename or delete the Secret that is in the way, if it is nobody's",
    "Superseded": "Leave it: its status keeps the old log from being forged. It is not in the way",
    "DatabaseUnreachable": "Callers get 503 and send again later. Bring the database back, or correct its URL",
    "Failing": "Every recent try failed. See how: {attempts}",
    "CircuitOpen": "It fails, and is tried a little until it works again. See how it fails: {attempts}",
    "DisableWarning": "It has only failed for long, and is disabled soon. See how it fails: {attempts}",
    "Disabled": "It answered 410 Gone or failed for too long, and is not tried again by itself. When it is back: "
    "kubectl kapsel resume -n {namespace} {name}/DESTINATION",
    "Suspended": "Its manifest says suspend: true. Deliveries wait, and end when they are too old",
}
BY_TYPE: Final[Mapping[str, str]] = {
    "Ready": "It may be a matter of seconds. If it stays, see the operator: {operator}",
    "ReceiverAvailable": "Webhooks are not taken, and their callers send again later. {pods}",
    "DelivererAvailable": "Webhooks are taken and wait; none is lost. {pods}",
    "ConsoleAvailable": "Webhooks are not affected; commands that ask the console are. {pods}",
    "DatabaseReachable": "Callers get 503 and send again later. Bring the database back, or correct its URL",
    "SchemaCurrent": "The old version keeps running. See the migration: kubectl get jobs,pods -n {namespace} "
    "-l {migration}",
    "Exposed": "Webhooks from outside may not arrive. See what leads to the receivers: kubectl describe "
    "service,ingress -n {namespace} -l {receivers}",
    "Delivering": "See what comes of the tries: {attempts}",
    "LogConsistent": "Deliveries go on, and nothing is signed until a person has decided. Delete neither the "
    "AttestationLog nor its status; see `Nothing is signed` in the documentation of operations. " + _ATTESTOR,
    "Anchored": "Deliveries, heads and proofs go on; nobody but the log says how old they are. See that pods may reach "
    "the calendars of the AttestationLog, or name others",
    "Witnessed": "Deliveries go on. See that pods may reach the witnesses of the AttestationLog, and ask those who run "
    "them what is wrong; with `required`, heads and with them proofs wait",
    "LeavesComplete": "All other attempts get their leaves, and these are tried again. See `Attempts wait for their "
    "leaf` in the documentation of operations. " + _ATTESTOR,
    "CheckpointFresh": "Deliveries go on, and proofs of new attempts wait. " + _ATTESTOR,
}


def advice(resource: View, condition: Condition) -> str | None:
    """Return what to do, None if there is nothing to say beyond the message."""
    known = REASONS.get(condition.reason)  # type: ignore[call-overload]
    found = BY_REASON.get(condition.reason) or (known and known.partition(": ")[2]) or BY_TYPE.get(condition.type)
    return found and _filled(found.rstrip("."), resource, condition)


def _filled(text: str, resource: View, condition: Condition) -> str:
    relay, component = relay_of(resource), condition.type.removesuffix("Available").lower()
    return text.format(
        namespace=resource.namespace,
        name=resource.name,
        endpoint=(resource.spec.get("endpointRef") or {}).get("name"),
        pods=f"See its pods: kubectl describe pods -n {resource.namespace} -l {_pods(relay, component)}",
        receivers=_pods(relay, "receiver"),
        deliverers=_pods(relay, "deliverer"),
        migration=_pods(relay, "migrate"),
        attempts=f"kubectl kapsel attempts -n {resource.namespace} --endpoint {resource.name}",
        operator=OPERATOR,
    )


def relay_of(resource: View) -> str:
    """Return the name of the Relay that a resource belongs to, as far as it says so."""
    if resource.kind == "Relay":
        return resource.name
    return str((resource.spec.get("relayRef") or {}).get("name") or "")


def _pods(relay: str, component: str) -> str:
    instance = f"app.kubernetes.io/instance={relay}," if relay else ""
    return f"{instance}app.kubernetes.io/component={component}"
