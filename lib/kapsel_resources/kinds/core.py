"""The two core kinds that lie beside kapsel's in a directory of manifests: Secret and Namespace."""

import base64
import binascii
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from kapsel_resources.kinds.model import ENTRY, LABEL, Annotations, Identity, Labels, Model, Resource, broken


def _decode(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        broken("the value is not base64", "base64 under data; text belongs under stringData")


_LARGEST: Final = 1_048_576  # what Kubernetes lets a whole Secret be
Base64 = Annotated[bytes, BeforeValidator(_decode), Field(max_length=_LARGEST)]
Text = Annotated[str, Field(max_length=_LARGEST)]
Entry = Annotated[str, Field(max_length=253, pattern=ENTRY)]


class Secret(Resource):
    """A core v1 Secret, as far as kapsel reads it."""

    api_version: Literal["v1"]
    kind: Literal["Secret"]
    type: str = Field(
        default="Opaque", max_length=253, description="Type of the Secret, such as kubernetes.io/basic-auth."
    )
    immutable: bool = Field(default=False, description="Whether Kubernetes refuses changes to it.")
    data: dict[Entry, Base64] = Field(
        default_factory=dict, max_length=256, repr=False, description="Entries, in base64."
    )
    string_data: dict[Entry, Text] = Field(
        default_factory=dict, max_length=256, repr=False, description="Entries as text; they win over data."
    )

    @property
    def entries(self) -> dict[str, bytes]:
        """All entries as bytes, in the order of their names."""
        merged = {**self.data, **{name: value.encode() for name, value in self.string_data.items()}}
        return dict(sorted(merged.items()))


class NamespaceMetadata(Model):
    """Name and labels of a Namespace."""

    name: str = Field(max_length=63, pattern=LABEL, description="Name of the namespace.")
    labels: Labels = Field(default_factory=dict, max_length=128, description="Labels, for Relay.allowedNamespaces.")
    annotations: Annotations = Field(default_factory=dict, max_length=256, description="Annotations.")


class Namespace(Model):
    """A core v1 Namespace: a tenant, and the labels by which a Relay may select it."""

    api_version: Literal["v1"]
    kind: Literal["Namespace"]
    metadata: NamespaceMetadata = Field(description="Name and labels of the namespace.")

    @property
    def identity(self) -> Identity:
        """Which namespace this is."""
        return Identity("Namespace", "", self.metadata.name)
