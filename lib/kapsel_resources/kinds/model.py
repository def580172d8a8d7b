"""What all kinds share: the base model, metadata, references to other resources, and how a rule is broken in words."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from kapsel_resources.rules import Rule

GROUP_VERSION: Final = "kapsel.dev/v1alpha1"
LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ENTRY: Final = r"^[-._a-zA-Z0-9]+$"
HEADER: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
HEADER_VALUE: Final = r"^([!-~]([ -~]*[!-~])?)?$"
PRINTABLE: Final = r"^[!-~]*$"
ORIGIN: Final = r"^[!-*,-~]+$"
IMAGE_TAG: Final = r"^[a-zA-Z0-9_][-._a-zA-Z0-9]*$"
QUANTITY: Final = r"^[0-9]+([.][0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
REASON: Final = r"^[A-Za-z][A-Za-z0-9]*$"
SHA256: Final = r"^[0-9a-f]{64}$"
ED25519_PUBLIC: Final = r"^(whpk_[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|[0-9a-f]{64})$"
STATUS_CODES: Final = r"^[345]([0-9][0-9]|xx)$"
FILE_PATH: Final = r"^/[-._a-zA-Z0-9/]+$"
HTTPS: Final = (
    r"^(https://([-._a-zA-Z0-9]+|\[[0-9a-fA-F:.]+\])|http://(localhost|127\.0\.0\.1|\[::1\]))(:[0-9]{1,5})?/?$"
)
CALENDAR: Final = r"^(https://[-._a-zA-Z0-9]+|http://(localhost|127\.0\.0\.1))(:[0-9]{1,5})?$"
WITNESS_URL: Final = r"^https?://([-._a-zA-Z0-9]+|\[[:.0-9a-fA-F]+\])(:[0-9]{1,5})?(/[-._~a-zA-Z0-9]+)*$"
WITNESS_KEY: Final = r"^[!-*,-~]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*$"
# No segment of dots alone: a path must not lead out of where it stands.
VAULT_PATH: Final = r"^[.]*[-_a-zA-Z0-9][-._a-zA-Z0-9]*(/[.]*[-_a-zA-Z0-9][-._a-zA-Z0-9]*)*$"
HEX_ID: Final = r"^([0-9a-f][0-9a-f])+$"
REGION: Final = r"^[a-z0-9]+(-[a-z0-9]+)+$"
AWS_KEY: Final = r"^(arn:[-a-z]+:kms:[-a-z0-9]+:[0-9]{12}:key/)?[-a-zA-Z0-9]+$"
ARN: Final = r"^arn:[-a-z]+:iam::[0-9]{12}:role/[-+=,.@_a-zA-Z0-9/]+$"
GOOGLE_KEY_VERSION: Final = (
    r"^projects/[-.:a-z0-9]+/locations/[-a-z0-9]+/keyRings/[-_a-zA-Z0-9]+/cryptoKeys/[-_a-zA-Z0-9]+"
    r"/cryptoKeyVersions/[1-9][0-9]*$"
)
TEXT: Final = r"^[ -~]+$"
PUBLIC_URL: Final = r"^https?://[-.A-Za-z0-9]+(:[0-9]{1,5})?(/[-._~!$&'()*+,;=:@%/A-Za-z0-9]*)?$"
ORGANIZATION: Final = r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"
REPOSITORY: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?/[-_A-Za-z0-9]?[-._A-Za-z0-9]*[-_A-Za-z0-9]$"
TOPIC: Final = (
    r"^arn:(aws|aws-cn|aws-us-gov):sns:[a-z]{2}(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:[-_A-Za-z0-9]{1,256}([.]fifo)?$"
)
HEX_KEY: Final = r"^[0-9a-fA-F]{64}$"
PROXY_URL: Final = r"^https?://([-._a-zA-Z0-9]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?/?$"
SCOPE: Final = r"^[!#-\[\]-~]+$"
# The patterns in words, for messages.
CONTENT_TYPE: Final = r"^[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9-]+)?$"
FORMS: Final = {
    LABEL: "lower-case letters, digits and '-', with a letter or digit at both ends",
    SUBDOMAIN: "lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
    ENTRY: "letters, digits, '-', '_' and '.'",
    HEADER: "letters, digits, and the characters that names of headers may have",
    CONTENT_TYPE: "a media type such as text/plain, or with one parameter: text/plain; charset=utf-8",
    HEADER_VALUE: "printable ASCII without blanks at the ends",
    PRINTABLE: "printable ASCII without blanks",
    ORIGIN: "printable ASCII without blanks and plus signs",
    IMAGE_TAG: "a tag such as 0.1.0: letters, digits, '-', '_' and '.', not beginning with '-' or '.'",
    QUANTITY: "a quantity such as 500m, 2, 256Mi or 10Gi",
    REASON: "one word of letters and digits",
    SHA256: "64 hex digits in lower case",
    ED25519_PUBLIC: "an Ed25519 public key: whpk_<base64 of 32 bytes>, or 64 hex digits in lower case",
    STATUS_CODES: 'a status code such as "503", or a class: "3xx", "4xx", "5xx"',
    FILE_PATH: "an absolute path of letters, digits, '-', '_', '.' and '/'",
    HTTPS: "a URL of a server without a path, such as https://vault.example.com:8200; http on this machine alone",
    CALENDAR: "a URL without a path, such as https://alice.btc.calendar.opentimestamps.org; http on this machine alone",
    WITNESS_URL: "a URL without '/' at its end, such as https://witness.example.com/w1",
    WITNESS_KEY: "a vkey such as witness.example.com/w1+55b4d5ae+BMTm...",
    VAULT_PATH: "letters, digits, '-', '_', '.', and '/' between them; no part of dots alone",
    HEX_ID: "hex digits in lower case, two for each byte",
    REGION: "a region such as eu-central-1",
    AWS_KEY: "the id of a key, or its ARN; no alias, which could come to mean another key",
    ARN: "the ARN of a role, such as arn:aws:iam::111122223333:role/log",
    GOOGLE_KEY_VERSION: "projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N",
    TEXT: "printable ASCII",
    PUBLIC_URL: "a URL without a query, such as https://hooks.example.com/ingest/shop/calls",
    TOPIC: "the ARN of a topic, such as arn:aws:sns:eu-west-1:123456789012:orders",
    HEX_KEY: "64 hex digits",
    ORGANIZATION: "the name of an account of GitHub: letters, digits, and '-' between them",
    REPOSITORY: "owner/name, such as octocat/hello-world",
    PROXY_URL: "a URL without a path, such as http://proxy.example.com:3128",
    SCOPE: "printable ASCII without blanks, quotes and backslashes",
}
DEFAULT_NAMESPACE: Final = "default"


def broken(wrong: str, allowed: str, *path: str | int) -> NoReturn:
    """Refuse what a validator looks at: what is wrong, what is allowed, and the field below it, if one is to blame."""
    raise PydanticCustomError("kapsel", "{wrong}", {"wrong": wrong, "allowed": allowed, "path": path})


def unique(values: Iterable[Hashable], what: str, *path: str | int) -> None:
    """Refuse a list in which two items go by one name."""
    seen: set[Hashable] = set()
    for index, value in enumerate(values):
        if value in seen:
            broken(f"{value} is there twice", f"each {what} once", *path, index)
        seen.add(value)


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """Which resource: what `kubectl get KIND NAME -n NAMESPACE` would need. The namespace of a Namespace is empty."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Model(BaseModel):
    """Base of every part of a manifest: frozen, camelCase, nothing unknown, nothing converted silently."""

    RULES: ClassVar[tuple[Rule, ...]] = ()  # what the validators say, in the words of the API server
    KEY: ClassVar[str | None] = None  # the field that tells the items of a list of these apart

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        """Read a field without a value as one that is not there, as the API server does."""
        if not isinstance(value, Mapping):
            return value
        return {key: inner for key, inner in value.items() if inner is not None or key not in cls.aliases()}

    @classmethod
    def aliases(cls) -> list[str]:
        """Return the fields by their names in a manifest."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class Union(Model):
    """Base of an object of which exactly one member is set, and whose name says which kind it is."""

    WHAT: ClassVar[str]

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        members = [field.alias for name, field in type(self).model_fields.items() if getattr(self, name) is not None]
        names = [name for name in members if name]
        if len(names) != 1:
            found = (
                f"{self.WHAT} has {len(names)} members ({', '.join(names)})" if names else f"{self.WHAT} has no member"
            )
            broken(found, f"exactly one of: {', '.join(self.aliases())}")
        return self


def _without_null(value: object) -> object:
    return {key: inner for key, inner in value.items() if inner is not None} if isinstance(value, Mapping) else value


# An entry of a map without a value is no entry, as for the API server. Where entries narrow something down, as labels
# in a selector, this is not for them: an entry that goes unnoticed would widen it.
NULL_IS_ABSENT: Final = BeforeValidator(_without_null)
LabelKey = Annotated[str, Field(max_length=317)]
Labels = dict[LabelKey, Annotated[str, Field(max_length=63)]]
Annotations = dict[LabelKey, Annotated[str, Field(max_length=262_144)]]


class Members:
    """What the members of a dict are for, whose keys are known but whose values stay plain."""

    def __init__(self, **descriptions: str) -> None:
        self.descriptions = descriptions


class Metadata(Model):
    """Name, namespace and labels; what an API server adds to them is taken away before this is read."""

    name: str = Field(
        max_length=253, pattern=SUBDOMAIN, description="Name of the resource, unique in its namespace and kind."
    )
    namespace: str = Field(
        default=DEFAULT_NAMESPACE,
        max_length=63,
        pattern=LABEL,
        description="Namespace of the resource. A namespace is a tenant: references do not leave it.",
    )
    labels: Labels = Field(default_factory=dict, max_length=128, description="Labels, as everywhere in Kubernetes.")
    annotations: Annotations = Field(
        default_factory=dict, max_length=256, description="Annotations, as everywhere in Kubernetes."
    )


class Resource(Model):
    """A whole manifest."""

    api_version: str
    kind: str
    metadata: Metadata = Field(description="Name, namespace and labels of the resource.")

    @property
    def identity(self) -> Identity:
        """Which resource this is."""
        return Identity(self.kind, self.metadata.namespace, self.metadata.name)


class Reference(Model):
    """A resource of the same namespace. A missing one is a condition of the resource, never a refused apply."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the resource, in the same namespace.")


class SecretReference(Model):
    """Entries of a core Secret of the same namespace."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Secret, in the same namespace.")
    keys: tuple[Annotated[str, Field(min_length=1, max_length=253, pattern=ENTRY)], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=16,
        description=(
            "Which entries of the Secret are live. Several live ones at once are a rotation: all are accepted, "
            "and all sign. Without it every entry is live."
        ),
    )


class RelayReference(Model):
    """The Relay that carries a resource: the only reference that may leave the namespace, if that Relay allows it."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Relay.")
    namespace: str | None = Field(
        default=None,
        max_length=63,
        pattern=LABEL,
        description=(
            "Namespace of the Relay; without it, this namespace. The Relay's allowedNamespaces must include this one."
        ),
    )


RELAY_REF_DESCRIPTION: Final = (
    "The Relay that carries this. Without it: the only Relay of this namespace, or, if the namespace has "
    "none, the only Relay that allows this namespace."
)
