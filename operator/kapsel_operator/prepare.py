"""What a Relay needs before anything else: the console's token, an embedded database's password, the key that seals
what is secret in the database, its log. Each is made once, when it is missing, and never written again.
"""

import secrets as random
from typing import Any

from kapsel_operator.apis import DECLARED_BY_KIND, SECRET
from kapsel_operator.apply import Refusal
from kapsel_operator.cluster import Cluster
from kapsel_operator.databases import Trouble
from kapsel_operator.errors import ApiError
from kapsel_operator.gather import Look, Surroundings
from kapsel_operator.manifests import generated_secrets
from kapsel_operator.manifests.facts import Facts
from kapsel_operator.manifests.names import MANAGED_BY, MANAGED_BY_LABEL
from kapsel_operator.secret_reader import Absent, Found
from kapsel_operator.store import DEFAULT
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_resources.kinds.relay import Relay
from kapsel_store.errors import SealingError
from kapsel_store.sealing import SealingKeys

_LOST = (
    "the database holds secrets that a sealing key has sealed, and there is no Secret with that key; allowed: restore "
    "it from a backup, or a database of this Relay's own"
)


def early(relay: Relay, around: Surroundings, facts: Facts) -> list[dict[str, Any]]:
    """Return the Secrets to make before the database is asked."""
    made = []
    if around.console_token is Absent.MISSING:
        made.append(generated_secrets.console_token(relay, facts, random.token_urlsafe(32)))
    embedded = relay.spec.database is not None and relay.spec.database.embedded is not None
    if embedded and around.embedded is Absent.MISSING:
        made.append(generated_secrets.postgres(relay, facts, random.token_urlsafe(32)))
    return made


def sealing_key(relay: Relay, around: Surroundings, facts: Facts, look: Look) -> dict[str, Any] | Trouble | None:
    """Return the Secret with the sealing key if it is to be made; it is not if something is sealed with a lost one."""
    if around.sealing_key is not Absent.MISSING:
        return None
    if look.has_keys:
        return Trouble(reason="SealingKeyNotFound", message=_LOST, stalled=True)
    return generated_secrets.sealing_key(relay, facts, random.token_bytes(32))


def untied(relay: Relay, around: Surroundings, facts: Facts) -> list[str]:
    """Return the names of the Secrets whose fate is not the one that the Relay's deletionPolicy says."""
    made = (one for one in (around.sealing_key, around.embedded) if isinstance(one, Secret))
    return [
        one.metadata.name
        for one in made
        if one.metadata.labels.get(MANAGED_BY_LABEL) == MANAGED_BY  # others make their own, and keep them
        and one.metadata.annotations.get(generated_secrets.GOES_WITH, "") != generated_secrets.goes_with(relay, facts)
    ]


async def tie(cluster: Cluster, relay: Relay, facts: Facts, name: str) -> None:
    """Make a Secret go with the Relay, or outlive it; one that is gone meanwhile stays gone."""
    found = await cluster.get(SECRET, relay.metadata.namespace, name)
    if found is not None:
        await cluster.apply(generated_secrets.tie(relay, facts, name, found["metadata"]["uid"]))


def read_sealing_key(found: Found) -> SealingKeys | Trouble:
    """Return the keys in the Secret."""
    if not isinstance(found, Secret):
        wrong = "the Secret with the sealing key cannot be read"
        return Trouble(reason="SealingKeyNotFound", message=wrong, stalled=True)
    try:
        lines = found.entries.get(generated_secrets.SEALING_KEY_ENTRY, b"").decode("ascii").split()
        return SealingKeys([bytes.fromhex(line) for line in lines])
    except (ValueError, SealingError):
        wrong = "the Secret with the sealing key does not hold one; allowed: 64 hexadecimal digits a line"
        return Trouble(reason="SealingKeyWrong", message=wrong, stalled=True)


async def make(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Make a Secret; one that somebody has made meanwhile is left alone."""
    try:
        await cluster.create(SECRET, manifest["metadata"]["namespace"], manifest)
    except ApiError as error:
        if error.status != 409:
            raise


async def make_log(cluster: Cluster, relay: Relay) -> Refusal | None:
    """Make the AttestationLog of a Relay that has none; return what stands in the way.

    Nothing owns it: its fence must outlive the Relay. One of that name that is another Relay's is never taken: its
    fence is that of another log.
    """
    api, reference = DECLARED_BY_KIND["AttestationLog"], {"name": relay.metadata.name}
    named = {"name": relay.metadata.name, "namespace": relay.metadata.namespace}
    manifest = {
        "apiVersion": GROUP_VERSION,
        "kind": api.kind,
        "metadata": {**named, "annotations": {DEFAULT: "true"}},
        "spec": {"relayRef": reference},
    }
    try:
        await cluster.create(api, relay.metadata.namespace, manifest)
    except ApiError as error:
        if error.status != 409:
            raise
    else:
        return None
    found = await cluster.get(api, relay.metadata.namespace, relay.metadata.name)
    if found is None:
        return None
    is_meant = (found["spec"].get("relayRef") or {}).get("name") == relay.metadata.name
    if is_meant and "deletionTimestamp" not in found["metadata"]:
        return None  # the watch has not shown it yet
    what = f"AttestationLog {relay.metadata.namespace}/{relay.metadata.name}"
    wrong = f"{what}, as the one of this Relay would be called, is being deleted or does not name this Relay"
    return Refusal("NameTaken", f"{wrong}; allowed: an AttestationLog whose spec.relayRef names this Relay")
