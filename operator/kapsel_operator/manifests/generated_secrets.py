"""The Secrets that the operator makes once, with values that are given here: drawing them is left to the caller.

They are made if they are missing, and their values are never written again; nothing here is part of `build`. Those that
open the data belong to the Relay only as long as its deletionPolicy is Delete, which people change late: `tie` follows.
"""

import urllib.parse
from collections.abc import Mapping
from typing import Final

from kapsel_operator.manifests import names
from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_operator.manifests.metadata import metadata, owner
from kapsel_resources.kinds.relay import Relay

SEALING_KEY_ENTRY: Final = "sealing.key"
CONSOLE_TOKEN_ENTRY: Final = "token"  # noqa: S105 - the name of an entry
PASSWORD_ENTRY: Final = "password"  # noqa: S105 - the name of an entry
URL_ENTRY: Final = "uri"
GOES_WITH: Final = "kapsel.dev/goes-with"  # annotation: uid of the Relay that takes the Secret with it
POSTGRES_USER: Final = "postgres"
POSTGRES_DATABASE: Final = "kapsel"
POSTGRES_PORT: Final = 5432


def sealing_key(relay: Relay, facts: Facts, key: bytes) -> Manifest:
    """Return the Secret with the key that seals secrets in the database, which outlives the Relay as the database does.

    Without it, nothing that is sealed in the database can ever be read again.
    """
    return _secret(relay, facts, "sealing-key", {SEALING_KEY_ENTRY: key.hex() + "\n"}, owned=False)


def console_token(relay: Relay, facts: Facts, token: str) -> Manifest:
    """Return the Secret with the token of the console; it goes with the Relay, for nothing else knows it."""
    return _secret(relay, facts, "console-token", {CONSOLE_TOKEN_ENTRY: token + "\n"}, owned=True)


def postgres(relay: Relay, facts: Facts, password: str) -> Manifest:
    """Return the Secret of the embedded Postgres, which stays as long as its volume does."""
    entries = {PASSWORD_ENTRY: password, URL_ENTRY: postgres_url(relay, facts, password)}
    return _secret(relay, facts, "postgres", entries, owned=False)


def postgres_url(relay: Relay, facts: Facts, password: str) -> str:
    """Return where the embedded Postgres is."""
    host = f"{postgres_name(relay)}.{relay.metadata.namespace}.svc.{facts.cluster_domain}"
    quoted = urllib.parse.quote(password, safe="")
    return f"postgresql://{POSTGRES_USER}:{quoted}@{host}:{POSTGRES_PORT}/{POSTGRES_DATABASE}"


def postgres_name(relay: Relay) -> str:
    """Return what the objects of the embedded Postgres are called.

    Shorter than others may be: a StatefulSet's name goes into a label together with a digest.
    """
    return names.object_name(relay.metadata.name, "postgres", longest=52)


def goes_with(relay: Relay, facts: Facts) -> str:
    """Return what GOES_WITH of a Secret that opens the data should say: nothing if it is to outlive the Relay."""
    return facts.owner_uid if relay.spec.deletion_policy == "Delete" else ""


def tie(relay: Relay, facts: Facts, name: str, uid: str) -> Manifest:
    """Return what makes such a Secret belong to the Relay, or no more: applied, it takes back what it said before.

    With the uid of the Secret, so that it can never make an empty one.
    """
    described: Manifest = {"name": name, "namespace": relay.metadata.namespace, "uid": uid}
    if owner_uid := goes_with(relay, facts):
        described |= {"annotations": {GOES_WITH: owner_uid}, "ownerReferences": [owner(relay, facts)]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": described}


def _secret(relay: Relay, facts: Facts, suffix: str, entries: Mapping[str, str], *, owned: bool) -> Manifest:
    name = postgres_name(relay) if suffix == "postgres" else names.object_name(relay.metadata.name, suffix)
    described = metadata(relay, facts, suffix, name=name)
    if not owned:
        del described["ownerReferences"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": described,
        "type": "Opaque",
        "stringData": dict(entries),
    }
