"""The versions of every key that the configuration needs, from SigningKeys, Secrets, and nothing but entropy.

A key's name in the rows is `<form>/<name>`: the form says where it comes from and how its text is read, so that one
SigningKey may be read in two ways, and a key that changes its source never passes for the old one.

    generated/K   made by kapsel for SigningKey K, rotated as it says
    literal/K     the entries of K's Secret as they stand: hmac, and every provider that shows a secret
    standard/K    the same, with whsec_<base64> decoded: Standard Webhooks, in and out
    ed25519/K     the seeds or public keys of K's Secret
    external/K    what K says of a place that kapsel does not look into, and what opens the way there
    basic/S       user:password of Secret S; basic/S/a,b if only its entries a and b are meant
    bearer/S      the tokens of Secret S, likewise: bearer, and providers that send a secret instead of a signature
    secret/S/k    entry k of Secret S as it stands, one line: the value of a header, the id or secret of a client
    ca/S/k        entry k of Secret S: authorities in PEM
    certificate/S the entries tls.key and tls.crt of Secret S
    endpoint/E    made by kapsel for the destinations of endpoint E that name no key
    log/ORIGIN    made by kapsel for the log with that origin
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from kapsel_resources import key_values, rotation
from kapsel_resources.inventory import Inventory
from kapsel_resources.key_values import KeyValue, KeyValueError
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.key_backend import ONE_LINE, OPTIONAL, SecretEntry, Source
from kapsel_resources.kinds.model import Identity, SecretReference
from kapsel_resources.kinds.signing_key import Rotation, SigningKey
from kapsel_resources.reasons import Reason
from kapsel_store.rows import Algorithm, Configuration, KeyRow

Entropy = Callable[[int], bytes]
Read = Callable[[bytes], KeyValue]

_READERS: Final[Mapping[str, Read]] = {
    "literal": key_values.literal,
    "standard": key_values.standard,
    "ed25519": key_values.ed25519,
}
_ENTRIES: Final[Mapping[str, Read]] = {"secret": key_values.line, "ca": key_values.authorities}
_KEY_AND_CERTIFICATE: Final = ("tls.key", "tls.crt")


def new_id(entropy: Entropy) -> UUID:
    """Return a version-4 UUID: not to be guessed, since ingest URLs carry one."""
    return UUID(bytes=entropy(16), version=4)


def credential_name(scheme: str, reference: SecretReference) -> str:
    """Return the name that the credentials of a Secret have in the rows."""
    return "/".join([scheme, reference.name, *([",".join(reference.keys)] if reference.keys else [])])


def form(key: SigningKey, *, standard: bool) -> str:
    """Return the name of a SigningKey in the rows, for a user that reads whsec_ as Standard Webhooks does, or not."""
    if key.spec.source == "Generate":
        return f"generated/{key.metadata.name}"
    if key.spec.held_elsewhere is not None:
        return f"external/{key.metadata.name}"
    if key.spec.algorithm == "Ed25519":
        return f"ed25519/{key.metadata.name}"
    return f"{'standard' if standard else 'literal'}/{key.metadata.name}"


def signing_key_of(name: str) -> str | None:
    """Return the SigningKey that a name in the rows stands for, None if it stands for none."""
    kind, _, bare = name.partition("/")
    return bare if kind in ("generated", "external") or kind in _READERS else None


def is_generated(name: str) -> bool:
    """Return whether kapsel itself makes the key of a name in the rows, so that no Secret holds it."""
    return name.partition("/")[0] in ("generated", "endpoint", "log")


def is_credential(name: str) -> bool:
    """Return whether a name in the rows stands for passwords or tokens, which sign nothing."""
    return name.partition("/")[0] in ("basic", "bearer", *_ENTRIES, "certificate")


def users(configuration: Configuration) -> dict[tuple[str, str], list[str]]:
    """Return who uses each key, by the namespace and name of the key."""
    found: dict[tuple[str, str], list[str]] = {}

    def uses(namespace: str, key_name: str | None, who: str) -> None:
        if key_name is not None:
            found.setdefault((namespace, key_name), []).append(who)

    endpoints = {endpoint.id: endpoint for endpoint in configuration.endpoints}
    for endpoint in configuration.endpoints:
        for name in (endpoint.verification.key_name, endpoint.verification.token_key_name):
            uses(endpoint.namespace, name, f"endpoint {endpoint.namespace}/{endpoint.name}")
    for row in configuration.destinations:
        endpoint = endpoints[row.endpoint_id]
        for name in (row.key_name, *row.credential_names):
            uses(endpoint.namespace, name, f"destination {endpoint.namespace}/{endpoint.name}/{row.name}")
    relay = configuration.relay
    if relay.proxy is not None:
        for key_name in relay.proxy.key_names:
            uses(relay.namespace, key_name, f"relay {relay.namespace}/{relay.name}")
    if configuration.log is not None:
        for key_name in configuration.log.key_names:
            uses(configuration.log.namespace, key_name, f"log {configuration.log.origin}")
    return found


def signers(configuration: Configuration) -> dict[str, list[tuple[str, KeyRow]]]:
    """Return by namespace the versions of key pairs that sign its deliveries, each with the name of its SigningKey.

    Those that nobody uses yet are among them, so that a destination knows a key before it is given to it. Those that
    only verify what comes in, or sign the heads of a log, and public keys of others, are not.
    """
    endpoints = {one.id: one.namespace for one in configuration.endpoints}
    signing = {(endpoints[one.endpoint_id], one.key_name) for one in configuration.destinations}
    others = {(one.namespace, one.verification.key_name) for one in configuration.endpoints}
    if configuration.log is not None:
        others.update((configuration.log.namespace, name) for name in configuration.log.key_names)
    found: dict[str, list[tuple[str, KeyRow]]] = {}
    for row in sorted(configuration.keys, key=lambda row: row.version):
        name, where = signing_key_of(row.name), (row.namespace, row.name)
        is_pair = row.algorithm == "Ed25519" and row.public is not None and row.secret and row.backend is None
        if name is not None and is_pair and (where in signing or where not in others):
            found.setdefault(row.namespace, []).append((name, row))
    return {namespace: sorted(rows, key=lambda one: one[0]) for namespace, rows in found.items()}


@dataclass(frozen=True, slots=True)
class Lacking:
    """Why a source gives no key."""

    reason: Reason
    wrong: str
    allowed: str


Found = tuple[tuple[KeyRow, ...], Lacking | None]  # the versions, and what is wrong; both at once if some are good


class Keys:
    """Resolves names of keys to rows, each once, and remembers what their sources lack."""

    def __init__(self, inventory: Inventory, existing: Iterable[KeyRow], now: datetime, entropy: Entropy) -> None:
        self._inventory = inventory
        self._now = now
        self._entropy = entropy
        self._existing: dict[tuple[str, str], list[KeyRow]] = {}
        for row in existing:
            self._existing.setdefault((row.namespace, row.name), []).append(row)
        self._resolved: dict[tuple[str, str], tuple[KeyRow, ...]] = {}
        self._lacking: dict[tuple[str, str], Lacking] = {}

    def known(self) -> list[tuple[str, str]]:
        """Return the namespaces and names of the keys that were there before this plan."""
        return sorted(self._existing)

    def rows(self, namespace: str, name: str) -> tuple[KeyRow, ...]:
        """Return the versions of a key: the last good ones if its source gives none, none if there never were any."""
        where = (namespace, name)
        if where not in self._resolved:
            found, lacking = self._resolve(namespace, name)
            if lacking is not None:
                self._lacking[where] = lacking
            last_good = sorted(self._existing.get(where, ()), key=lambda row: row.version)
            self._resolved[where] = found or tuple(last_good)
        return self._resolved[where]

    def lacking(self, namespace: str, name: str) -> Lacking | None:
        """Return what the source of a key lacks, if anything."""
        self.rows(namespace, name)
        return self._lacking.get((namespace, name))

    def asked(self, namespace: str, name: str) -> bool:
        """Whether anybody wanted this key."""
        return (namespace, name) in self._resolved

    def select(self, wanted: Iterable[tuple[str, str]]) -> tuple[KeyRow, ...]:
        """Return all versions of the named keys, in the order of their names."""
        return tuple(row for where in sorted(wanted) for row in self.rows(*where))

    def _resolve(self, namespace: str, name: str) -> Found:
        kind, _, bare = name.partition("/")
        if kind == "endpoint":
            return self._generated(namespace, name, "HMAC-SHA256", None), None
        if kind == "log":
            return self._generated(namespace, name, "Ed25519", None), None
        if kind in ("basic", "bearer"):
            return self._credentials(namespace, name, kind, bare)
        if kind in _ENTRIES:
            secret, _, entry = bare.partition("/")
            entries, absent = self._entries(namespace, SecretReference(name=secret, keys=(entry,)))
            found, wrong = self._read(namespace, name, "HMAC-SHA256", entries, _ENTRIES[kind])
            return found, absent or wrong
        if kind == "certificate":
            return self._certificate(namespace, name, bare)
        key = self._inventory.find(SigningKey, namespace, bare)
        if key is None or name not in (form(key, standard=True), form(key, standard=False)):
            wrong_name = f"there is no such SigningKey {namespace}/{bare}"
            return (), Lacking("SigningKeyNotFound", wrong_name, "a SigningKey of that name")
        if key.spec.held_elsewhere is not None:
            return self._elsewhere(namespace, name, key.spec.held_elsewhere)
        if key.spec.secret_ref is None:
            return self._generated(namespace, name, key.spec.algorithm, key.spec.rotation), None
        entries, absent = self._entries(namespace, key.spec.secret_ref)
        found, wrong = self._read(namespace, name, key.spec.algorithm, entries, _READERS[kind])
        return found, absent or wrong

    def _generated(
        self, namespace: str, name: str, algorithm: Algorithm, schedule: Rotation | None
    ) -> tuple[KeyRow, ...]:
        def make(version: int, not_before: datetime) -> KeyRow:
            value = key_values.generate(algorithm, self._entropy(key_values.random_size(algorithm)))
            return self._row(namespace, name, version, algorithm, value, not_before)

        before = [row for row in self._existing.get((namespace, name), ()) if row.algorithm == algorithm]
        return rotation.versions(before, schedule, self._now, make)

    def _elsewhere(self, namespace: str, name: str, source: Source) -> Found:
        """Return a version for each key that is described, known ones under their old number."""
        opens: dict[str, str] = {}
        for what, entry in source.secrets().items():
            value, lacking = self._entry(namespace, entry)
            if value is not None and what in ONE_LINE and not value.isprintable():
                wrong = f"entry {entry.key} of the Secret has a line break or another control character"
                return (), Lacking("InvalidKey", wrong, "one line of text")
            if lacking is not None and what not in OPTIONAL:
                return (), lacking
            if value is not None:
                opens[what] = value
        secret = json.dumps(opens, sort_keys=True).encode() if opens else b""
        before = {row.backend: row for row in self._existing.get((namespace, name), [])}
        newest = max((row.version for row in before.values()), default=0)
        rows: list[KeyRow] = []
        for backend in source.backends():
            row = before.get(backend)
            if row is None:
                newest += 1
                row = self._row(namespace, name, newest, "Ed25519", KeyValue(secret), self._now - rotation.BACKDATE)
            rows.append(replace(row, secret=secret, backend=backend))
        return tuple(sorted(rows, key=lambda row: row.version)), None

    def _entry(self, namespace: str, entry: SecretEntry) -> tuple[str | None, Lacking | None]:
        found, lacking = self._entries(namespace, SecretReference(name=entry.name, keys=(entry.key,)))
        if lacking is not None:
            return None, lacking
        try:
            return found[entry.key].decode().strip(), None
        except UnicodeDecodeError:
            return None, Lacking("InvalidKey", f"entry {entry.key} of the Secret is no text", "text in UTF-8")

    def _credentials(self, namespace: str, name: str, kind: str, bare: str) -> Found:
        secret, _, named = bare.partition("/")
        reference = SecretReference(name=secret, keys=tuple(named.split(",")) if named else None)
        entries, absent = self._entries(namespace, reference)
        if kind == "basic" and not named and {"username", "password"} <= entries.keys():
            user, password = (entries[part].rstrip(b"\r\n") for part in ("username", "password"))
            entries = {"password": user + b":" + password}
        read = _user_and_password if kind == "basic" else key_values.literal
        # The row has to name an algorithm; nothing asks a credential for it.
        found, wrong = self._read(namespace, name, "HMAC-SHA256", entries, read)
        return found, absent or wrong

    def _certificate(self, namespace: str, name: str, secret: str) -> Found:
        """Return key and certificate as one value: apart from each other they are worth nothing."""
        entries, absent = self._entries(namespace, SecretReference(name=secret, keys=_KEY_AND_CERTIFICATE))
        if absent is not None:
            return (), absent
        both = b"\n".join(entries[entry] for entry in _KEY_AND_CERTIFICATE)
        return self._read(namespace, name, "HMAC-SHA256", {" and ".join(entries): both}, key_values.certificate)

    def _entries(self, namespace: str, reference: SecretReference) -> tuple[dict[str, bytes], Lacking | None]:
        """Return the entries that are meant and there, and what is missing."""
        what = f"Secret {namespace}/{reference.name}"
        secret = self._inventory.find(Secret, namespace, reference.name)
        if secret is None:
            unreadable = self._inventory.may_exist(Identity("Secret", namespace, reference.name))
            wrong = f"{what} {'cannot be read' if unreadable else 'is missing'}"
            return {}, Lacking("SecretNotFound", wrong, f"a Secret {reference.name} in the namespace {namespace}")
        entries = secret.entries
        meant = reference.keys or tuple(entries)
        absent = [entry for entry in meant if entry not in entries]
        if not meant or absent:
            wrong = f"{what} has no entry {absent[0] if absent else 'at all'}"
            lacking = Lacking("SecretEntryNotFound", wrong, ", ".join(entries) or "an entry under data or stringData")
            return {entry: entries[entry] for entry in meant if entry in entries}, lacking
        return {entry: entries[entry] for entry in meant}, None

    def _read(self, namespace: str, name: str, algorithm: Algorithm, entries: Mapping[str, bytes], read: Read) -> Found:
        """Return a version for each good value, known ones under their old number, and what is wrong with a bad one.

        What is not among the entries any more is dead at once, even if something is wrong with those that are left: a
        key that is taken out of the Secret has been revoked.
        """
        before = self._existing.get((namespace, name), [])
        newest = max((row.version for row in before), default=0)
        rows: list[KeyRow] = []
        lacking: Lacking | None = None
        for entry, text in entries.items():
            try:
                value = read(text)
            except KeyValueError as error:
                wrong = f"entry {entry} of the Secret is no such key: {error.wrong}"
                lacking = lacking or Lacking("InvalidKey", wrong, error.allowed)
                continue
            if _find(rows, value, algorithm) is not None:
                continue
            row = _find(before, value, algorithm)
            if row is None:
                newest += 1
                row = self._row(namespace, name, newest, algorithm, value, self._now - rotation.BACKDATE)
            rows.append(row)
        return tuple(rows), lacking

    def _row(
        self, namespace: str, name: str, version: int, algorithm: Algorithm, value: KeyValue, not_before: datetime
    ) -> KeyRow:
        return KeyRow(
            id=new_id(self._entropy),
            namespace=namespace,
            name=name,
            version=version,
            algorithm=algorithm,
            secret=value.secret,
            public=value.public,
            not_before=not_before,
        )


def _user_and_password(text: bytes) -> KeyValue:
    value = key_values.literal(text)
    if b":" not in value.secret:
        raise KeyValueError(
            "there is no colon in it", "user:password, or a Secret with the entries username and password"
        )
    return value


def _find(rows: Sequence[KeyRow], value: KeyValue, algorithm: Algorithm) -> KeyRow | None:
    wanted = (algorithm, value.secret, value.public)
    return next((row for row in rows if (row.algorithm, row.secret, row.public) == wanted), None)
