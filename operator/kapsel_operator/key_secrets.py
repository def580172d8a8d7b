"""The Secrets in which people find the keys that kapsel has made, and from which a lost database has them back.

Pure. The rows in Postgres lead; a Secret follows them. Entries: v<N> as whsec_<base64> or whsk_<base64>, and for
Ed25519 v<N>.pub as whpk_<base64>; an annotation says from when and until when each version is live.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kapsel_operator.store import Declared
from kapsel_resources import key_values
from kapsel_resources.key_values import KeyValueError
from kapsel_resources.keys import Entropy, new_id
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import GROUP_VERSION, Identity
from kapsel_resources.rotation import BACKDATE
from kapsel_store.rows import Algorithm, KeyRow

VERSIONS: Final = "kapsel.dev/versions"
_LONGEST: Final = 253
_VERSION: Final = re.compile(r"v([1-9][0-9]{0,8})")  # as many as the database can count
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)  # times that can be reckoned with
_LABELS: Final = {
    "app.kubernetes.io/name": "kapsel",
    "app.kubernetes.io/component": "signing-key",
    "app.kubernetes.io/part-of": "kapsel",
    "app.kubernetes.io/managed-by": "kapsel",
}


def secret_name(kind: str, name: str) -> str:
    """Return the name of the Secret for a SigningKey, or for a WebhookEndpoint whose destinations name no key."""
    suffix = "-key" if kind == "SigningKey" else "-signing"
    return name[: _LONGEST - len(suffix)].rstrip("-.") + suffix


def manifest(owner: Declared, versions: Iterable[KeyRow]) -> dict[str, Any]:
    """Return the Secret with the versions of a key; it goes when the resource goes that the key belongs to."""
    rows = sorted(versions, key=lambda row: row.version)
    identity = owner.identity
    data: dict[str, str] = {}
    times: dict[str, list[str | None]] = {}
    for row in rows:
        times[f"v{row.version}"] = [row.not_before.isoformat(), row.not_after.isoformat() if row.not_after else None]
        data.update({entry: base64.b64encode(text.encode()).decode() for entry, text in _entries(row)})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(identity.kind, identity.name),
            "namespace": identity.namespace,
            "labels": dict(_LABELS),
            "annotations": {VERSIONS: json.dumps(times, separators=(",", ":"))},
            "ownerReferences": [
                {
                    "apiVersion": GROUP_VERSION,
                    "kind": identity.kind,
                    "name": identity.name,
                    "uid": owner.uid,
                    "controller": True,
                }
            ],
        },
        "type": "Opaque",
        "data": data,
    }


def is_of(found: Mapping[str, Any], identity: Identity) -> bool:
    """Return whether a Secret is the one of a resource, and not one that somebody else calls so.

    The sealing key of the Relay `main` has the name that the Secret of a SigningKey `main-sealing` would have.
    """
    metadata = found["metadata"]
    owners = [(one["kind"], one["name"]) for one in metadata.get("ownerReferences", ())]
    if owners:  # by name, for whoever was deleted and declared again has another uid
        return (identity.kind, identity.name) in owners
    return bool((metadata.get("labels") or {}).items() >= _LABELS.items())


def rows(secret: Secret, key_name: str, algorithm: Algorithm, now: datetime, entropy: Entropy) -> tuple[KeyRow, ...]:
    """Return the versions that a Secret holds; what cannot be read as one is left out."""
    times = _times(secret.metadata.annotations.get(VERSIONS, ""))
    found = []
    for entry, text in secret.entries.items():
        named = _VERSION.fullmatch(entry)
        if named is None:
            continue
        read = key_values.ed25519 if algorithm == "Ed25519" else key_values.standard
        try:
            value = read(text)
        except KeyValueError:
            continue
        not_before, not_after = times.get(entry, (now - BACKDATE, None))
        found.append(
            KeyRow(
                id=new_id(entropy),
                namespace=secret.metadata.namespace,
                name=key_name,
                version=int(named[1]),
                algorithm=algorithm,
                secret=value.secret,
                public=value.public,
                not_before=not_before,
                not_after=not_after,
            )
        )
    return tuple(found)


def _entries(row: KeyRow) -> Iterable[tuple[str, str]]:
    entry = f"v{row.version}"
    if row.algorithm != "Ed25519":
        yield entry, key_values.shared_text(row.secret)
        return
    yield entry, f"whsk_{base64.b64encode(row.secret).decode()}"
    if row.public is not None:
        yield f"{entry}.pub", key_values.public_text(row.public)


def _times(text: str) -> Mapping[str, tuple[datetime, datetime | None]]:
    """Read the annotation; one that somebody changed counts for nothing, and stops nothing."""
    try:
        read = json.loads(text)
        times = {
            entry: (datetime.fromisoformat(begin), datetime.fromisoformat(end) if end else None)
            for entry, (begin, end) in read.items()
        }
        usable = all(_FIRST < begin < (end or _LAST) <= _LAST for begin, end in times.values())
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return times if usable else {}
