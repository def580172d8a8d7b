"""How a caller proves itself to an endpoint, read from the manifests that declare the endpoint.

Called by `kapsel send`, which plays that caller. The plan reads the same manifests for the other side, the receiver.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kapsel_cli import manifests
from kapsel_cli.errors import CliError
from kapsel_resources import key_values
from kapsel_resources.inventory import Inventory
from kapsel_resources.key_values import KeyValueError
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import SecretReference
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.verification import Basic, Bearer, Discord, Hmac, SignedUrl, Sns, Token, Unverified
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.manifests import Resource
from kapsel_store.rows import Verification

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a caller needs: the scheme with its details, and the secret as the provider shows it."""

    verification: Verification
    secret: bytes = field(repr=False)


def read(directory: Path, namespace: str, name: str) -> Credentials:
    """Return the credentials of a caller of an endpoint; CliError says what the manifests lack."""
    if not directory.is_dir():
        raise CliError(f"{directory} is not a directory", "Name the one that `kapsel up` runs with --manifests")
    inventory = Inventory(manifests.read(directory).resources, (), True)
    endpoint = _find(inventory, WebhookEndpoint, namespace, name, directory)
    scheme, member = endpoint.spec.verification.scheme, endpoint.spec.verification.member
    match member:
        case Unverified():
            return Credentials(verification=Verification(scheme=scheme), secret=b"")
        case Basic() | Bearer():
            entries = _entries(inventory, namespace, member.secret_ref, directory)
            return Credentials(verification=Verification(scheme=scheme), secret=_login(entries, member))
        case Token():
            entries = _entries(inventory, namespace, member.secret_ref, directory)
            secret = next(iter(entries.values())).rstrip(b"\r\n")
            return Credentials(verification=Verification(scheme=scheme), secret=secret)
        case Sns():
            raise CliError("Amazon alone can sign a message of SNS", "Publish one to the topic: aws sns publish")
        case Discord():
            raise CliError(
                "Discord keeps the private half of its key, so it stands in no manifest",
                "For a test, make a key pair, add its public half to publicKeys, and sign with --secret-file",
            )
    key = _find(inventory, SigningKey, namespace, member.signing_key_ref.name, directory)
    if key.spec.secret_ref is None:
        raise CliError(
            f"SigningKey {namespace}/{key.metadata.name} is made by kapsel, so its value stands in no manifest",
            "Sign with --secret-file, or declare the key with source: Secret",
        )
    value = next(iter(_entries(inventory, namespace, key.spec.secret_ref, directory).values()))
    secret = _seed(value) if key.spec.algorithm == "Ed25519" else value.rstrip(b"\r\n")
    if isinstance(member, SignedUrl):
        return Credentials(verification=Verification(scheme=scheme, public_url=member.public_url), secret=secret)
    if not isinstance(member, Hmac):
        return Credentials(verification=Verification(scheme=scheme), secret=secret)
    verification = Verification(
        scheme=scheme,
        header=member.header,
        prefix=member.prefix,
        encoding=member.encoding,
        algorithm=member.algorithm,
        timestamp_header=member.timestamp_header,
    )
    return Credentials(verification=verification, secret=secret)


def _find(inventory: Inventory, kind: type[R], namespace: str, name: str, directory: Path) -> R:
    found = inventory.find(kind, namespace, name)
    if found is None:
        names = ", ".join(inventory.names(kind, namespace)) or "none"
        raise CliError(
            f"{directory} declares no {kind.__name__} {namespace}/{name}",
            f"In the namespace {namespace} it has: {names}",
        )
    return found


def _entries(inventory: Inventory, namespace: str, reference: SecretReference, directory: Path) -> Mapping[str, bytes]:
    entries = _find(inventory, Secret, namespace, reference.name, directory).entries
    wanted = {entry: entries[entry] for entry in reference.keys or entries if entry in entries}
    if not wanted:
        raise CliError(
            f"Secret {namespace}/{reference.name} has no entry that is a key",
            "Correct the manifest, or use --secret-file",
        )
    return wanted


def _login(entries: Mapping[str, bytes], member: Basic | Bearer) -> bytes:
    if isinstance(member, Basic) and {"username", "password"} <= entries.keys():
        return b":".join(entries[part].rstrip(b"\r\n") for part in ("username", "password"))
    return next(iter(entries.values())).rstrip(b"\r\n")


def _seed(value: bytes) -> bytes:
    """Return an Ed25519 seed in the form of Standard Webhooks, in which it can be told from a shared secret."""
    try:
        seed = key_values.ed25519(value).secret
    except KeyValueError as error:
        raise CliError(f"the Ed25519 key cannot be read: {error.wrong}", f"Allowed: {error.allowed}") from error
    if not seed:
        raise CliError("the manifests hold only the public half of the key", "Sign with --secret-file")
    return b"whsk_" + base64.b64encode(seed)
