"""One document in, one frozen resource or a list of problems out.

The command line calls this for every YAML document of a directory, the operator for every object it watches.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from kapsel_resources.kinds.attestation_log import AttestationLog
from kapsel_resources.kinds.core import Namespace, Secret
from kapsel_resources.kinds.model import DEFAULT_NAMESPACE, GROUP_VERSION, Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.replay import Replay
from kapsel_resources.kinds.retry_policy import RetryPolicy
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.problems import Problem, choices, of_validation

Resource = Relay | WebhookEndpoint | RetryPolicy | SigningKey | AttestationLog | Replay | Secret | Namespace

KINDS: Final[dict[str, type[Resource]]] = {
    "Relay": Relay,
    "WebhookEndpoint": WebhookEndpoint,
    "RetryPolicy": RetryPolicy,
    "SigningKey": SigningKey,
    "AttestationLog": AttestationLog,
    "Replay": Replay,
}
CORE_KINDS: Final[dict[str, type[Resource]]] = {"Secret": Secret, "Namespace": Namespace}
# What an API server adds to an object: none of it is ours to read, and a live object must parse as its manifest does.
_SERVER_METADATA: Final = frozenset(
    {
        "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
        "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
    }
)  # fmt: skip


def is_foreign(document: object) -> bool:
    """Whether a document is a manifest of somebody else's kind, which lies beside ours and is none of our business."""
    if not isinstance(document, Mapping):
        return False
    group, _, _ = str(document.get("apiVersion", "")).partition("/")
    named = bool(document.get("apiVersion")) and bool(document.get("kind"))
    return named and group != "kapsel.dev" and not (group == "v1" and document.get("kind") in CORE_KINDS)


def identity(document: object) -> Identity:
    """Return which resource a document declares, as far as that can be read; parts that cannot are empty."""
    if not isinstance(document, Mapping):
        return Identity("", "", "")
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    kind, name, namespace = (
        _text(value) for value in (document.get("kind"), metadata.get("name"), metadata.get("namespace"))
    )
    return Identity(kind, "" if kind == "Namespace" else namespace or DEFAULT_NAMESPACE, name)


def parse(document: object) -> Resource | list[Problem]:
    """Return the resource that a document declares, or all that is wrong with it."""
    if not isinstance(document, Mapping):
        return [
            _unreadable(document, (), "the document is not a mapping", "a manifest with apiVersion, kind and metadata")
        ]
    version, kind = document.get("apiVersion"), document.get("kind")
    if version not in (GROUP_VERSION, "v1"):
        wrong = "the field is missing" if version is None else f"{version!r} is not a version that is read here"
        return [_unreadable(document, ("apiVersion",), wrong, f"{GROUP_VERSION}, or v1 for Secret and Namespace")]
    kinds = CORE_KINDS if version == "v1" else KINDS
    if not isinstance(kind, str) or kind not in kinds:
        wrong = "the field is missing" if kind is None else f"{kind!r} is not a kind of {version}"
        return [_unreadable(document, ("kind",), wrong, choices(str(kind), list(kinds)))]
    try:
        return kinds[kind].model_validate(_declared(document, kind))
    except ValidationError as error:
        return of_validation(identity(document), kinds[kind], error)


def _declared(document: Mapping[str, object], kind: str) -> dict[str, object]:
    """Return what people declared, without what an API server keeps in the object."""
    undeclared = ("status", "spec") if kind == "Namespace" else ("status",)
    declared = {name: value for name, value in document.items() if name not in undeclared}
    metadata = declared.get("metadata")
    if isinstance(metadata, Mapping):
        declared["metadata"] = {name: value for name, value in metadata.items() if name not in _SERVER_METADATA}
    return declared


def _unreadable(document: object, path: tuple[str, ...], wrong: str, allowed: str) -> Problem:
    return Problem(resource=identity(document), path=path, reason="InvalidManifest", wrong=wrong, allowed=allowed)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
