"""The CustomResourceDefinitions of all kinds, made from the models.

`python -m kapsel_resources.crd DIRECTORY` (make crds) writes them, one file a kind; a test keeps the files in crds/ and
the models equal. Names, columns and what can be selected are here; the schema is `crd_schema`'s.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kapsel_resources import crd_schema, yaml_text
from kapsel_resources.kinds.model import GROUP_VERSION, Model
from kapsel_resources.kinds.status import STATUSES
from kapsel_resources.manifests import KINDS

GROUP, _, VERSION = GROUP_VERSION.partition("/")
CATEGORY: Final = "kapsel"
"""`kubectl get kapsel` shows all of it, and so no kind may ever have that name."""
_HEADER: Final = "# Generated from the models of kapsel_resources by `make crds`: change those, not this.\n"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False  # only with -o wide

    def document(self) -> dict[str, Any]:
        """Return the entry of additionalPrinterColumns."""
        entry: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return {**entry, "priority": 1} if self.wide else entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a kind is called on the command line, what it shows there, and by what it can be selected."""

    plural: str
    short: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = field(default=())

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """The columns of the kind; age last, as everywhere."""
        return (*self.columns, _AGE)


def _condition(name: str, type_: str, part: str = "status", *, wide: bool = False) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{type_}")].{part}', wide=wide)


_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")
_READY: Final = _condition("Ready", "Ready")
_REASON: Final = _condition("Reason", "Ready", "reason")
_MESSAGE: Final = _condition("Message", "Ready", "message", wide=True)
_URL: Final = Column("URL", ".status.address.url")
_PENDING: Final = Column("Pending", ".status.pending", "integer")
_OLDEST: Final = Column("Oldest", ".status.oldestPending")

NAMES: Final[dict[str, Names]] = {
    "Relay": Names(
        plural="relays",
        short="whrl",
        columns=(
            _READY,
            _REASON,
            Column("Endpoints", ".status.endpoints", "integer"),
            Column("Unhealthy", ".status.unhealthyEndpoints", "integer"),
            _PENDING,
            _OLDEST,
            _URL,
            Column("Version", ".status.version", wide=True),
            _MESSAGE,
        ),
        selectable=(".spec.version", ".spec.database.secretRef.name", ".spec.database.cnpgClusterRef.name"),
    ),
    "WebhookEndpoint": Names(
        plural="webhookendpoints",
        short="whe",
        columns=(
            _READY,
            _REASON,
            _condition("Delivering", "Delivering", "reason"),
            Column("Success", ".status.success"),
            _PENDING,
            _OLDEST,
            _URL,
            _MESSAGE,
        ),
        selectable=(".spec.relayRef.name", ".spec.relayRef.namespace", ".spec.suspend"),
    ),
    "RetryPolicy": Names(
        plural="retrypolicies",
        short="whrp",
        columns=(
            Column("Type", ".status.type"),
            Column("Attempts", ".status.maxAttempts", "integer"),
            Column("Max-Age", ".status.maxAge"),
            Column("Users", ".status.users", "integer"),
            _READY,
            Column("Spans", ".status.spans", wide=True),
            _MESSAGE,
        ),
    ),
    "SigningKey": Names(
        plural="signingkeys",
        short="whk",
        columns=(
            _READY,
            _REASON,
            Column("Algorithm", ".spec.algorithm"),
            Column("Version", ".status.version", "integer"),
            Column("Rotates", ".status.nextRotation"),  # in the future, which a column of type date cannot show
            _MESSAGE,
        ),
        selectable=(".spec.algorithm", ".spec.source", ".spec.secretRef.name"),
    ),
    "AttestationLog": Names(
        plural="attestationlogs",
        short="whal",
        columns=(
            _READY,
            _REASON,
            Column("Size", ".status.head.treeSize", "integer"),
            Column("Published", ".status.head.timestamp", "date"),
            _condition("Consistent", "LogConsistent"),
            Column("Origin", ".status.origin"),
            _MESSAGE,
        ),
        selectable=(".spec.relayRef.name", ".spec.origin", ".spec.signingKeyRef.name"),
    ),
    "Replay": Names(
        plural="replays",
        short="whr",
        columns=(
            _condition("Complete", "Complete"),
            _condition("Reason", "Complete", "reason"),
            Column("Endpoint", ".spec.endpointRef.name"),
            Column("Matched", ".status.matched", "integer"),
            Column("Enqueued", ".status.enqueued", "integer"),
            Column("Delivered", ".status.delivered", "integer"),
            Column("Failed", ".status.failed", "integer"),
            _condition("Message", "Complete", "message", wide=True),
        ),
        selectable=(".spec.endpointRef.name", ".spec.suspend"),
    ),
}


def definition(kind: str) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    names = NAMES[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "kapsel"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": names.plural,
                "singular": kind.lower(),
                "shortNames": [names.short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [column.document() for column in names.all_columns],
                    **(
                        {"selectableFields": [{"jsonPath": path} for path in names.selectable]}
                        if names.selectable
                        else {}
                    ),
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _schema(KINDS[kind], STATUSES[kind])},
                }
            ],
        },
    }


def _schema(model: type[Model], status: type[Model]) -> dict[str, Any]:
    """Return the schema of whole objects; the API server brings that of metadata."""
    whole = crd_schema.of_model(model)
    required = {"required": ["spec"]} if "spec" in whole.pop("required") else {}
    return {
        **whole,
        "description": _sentence(model),
        **required,
        "properties": {
            "apiVersion": {"type": "string", "description": f"The version of this manifest: {GROUP_VERSION}."},
            "kind": {"type": "string", "description": "The kind of the resource."},
            "metadata": {"type": "object"},
            "spec": whole["properties"]["spec"],
            "status": {"description": _sentence(status), **crd_schema.of_model(status)},
        },
    }


def _sentence(model: type[Model]) -> str:
    return " ".join((model.__doc__ or "").split())


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {f"{NAMES[kind].plural}.yaml": _HEADER + yaml_text.dump(definition(kind)) for kind in KINDS}


def main(directory: Path) -> None:
    """Write the files, and remove those of kinds that are gone."""
    directory.mkdir(exist_ok=True)
    wanted = files()
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")
    for path in directory.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
