"""SigningKey: a named secret or key pair, generated, from a Secret, or in a place that kapsel cannot look into.

Several versions are live during a rotation. What is in an HSM, in Vault or in a cloud's KMS stays there: the attestor
has it sign the heads of the log, and nothing else can use it.
"""

from datetime import timedelta
from typing import Final, Literal

from pydantic import Field, model_validator

from kapsel_resources.durations import Duration, text
from kapsel_resources.kinds.key_backend import (
    AwsSource,
    FileSource,
    GoogleSource,
    Pkcs11Source,
    Source,
    VaultSource,
)
from kapsel_resources.kinds.model import Model, Resource, SecretReference, broken
from kapsel_resources.rules import Rule

_MEMBERS: Final = {  # of the sources that kapsel cannot look into
    "File": "file",
    "PKCS11": "pkcs11",
    "Vault": "vault",
    "AWSKMS": "awsKMS",
    "GoogleKMS": "googleKMS",
}


class Rotation(Model):
    """How often a generated key is replaced, and for how long the old and the new one are both live."""

    RULES = (Rule("self.overlap < self.period", "overlap is not shorter than period", "overlap"),)

    period: Duration = Field(
        ge=timedelta(hours=1), le=timedelta(hours=87_600), description="How long a version is the newest live one."
    )
    overlap: Duration = Field(
        ge=timedelta(minutes=1),
        le=timedelta(hours=8_760),
        description=(
            "How long a version stays live after its successor has become live. In that time everything is signed"
            " with both, so that receivers may switch when it suits them. Shorter than period."
        ),
    )

    @model_validator(mode="after")
    def _overlap_is_shorter(self) -> "Rotation":
        if self.overlap >= self.period:
            broken(
                f"overlap ({text(self.overlap)}) is not shorter than period ({text(self.period)})",
                "an overlap shorter than the period",
                "overlap",
            )
        return self


class SigningKeySpec(Model):
    """Either kapsel makes the key and rotates it, or a Secret holds it, or a member named like the source says where it
    is; then whoever keeps it there rotates it."""

    RULES = (
        Rule(
            "has(self.secretRef) || self.source != 'Secret'",
            "the source is Secret, and there is no secretRef",
            "secretRef",
        ),
        Rule("!has(self.secretRef) || self.source == 'Secret'", "no source but Secret has a secretRef", "secretRef"),
        Rule(
            "!has(self.rotation) || self.source == 'Generate'",
            "kapsel can rotate no key but those that it makes",
            "rotation",
        ),
        *(
            Rule(
                f"has(self.{member}) == (self.source == '{source}')",
                f"{member} belongs to the source {source}, and that source needs it",
                member,
            )
            for source, member in _MEMBERS.items()
        ),
        Rule(
            "self.algorithm == 'Ed25519' || self.source == 'Generate' || self.source == 'Secret'",
            "a key that kapsel does not hold is of the algorithm Ed25519",
            "algorithm",
        ),
        Rule(
            "self.algorithm == oldSelf.algorithm",
            "a key of another algorithm is another key: apply another SigningKey",
            "algorithm",
        ),
    )

    algorithm: Literal["HMAC-SHA256", "HMAC-SHA512", "Ed25519"] = Field(
        description=(
            "HMAC-SHA256: the shared secret of most providers, and Standard Webhooks v1 on the way out. HMAC-"
            "SHA512: for verification.hmac alone. Ed25519: a key pair, for Standard Webhooks v1a and for an "
            "AttestationLog."
        )
    )
    source: Literal["Generate", "Secret", "File", "PKCS11", "Vault", "AWSKMS", "GoogleKMS"] = Field(
        description=(
            "Generate: kapsel makes it from the system's random source. Secret: it is what secretRef points to. All "
            "others: kapsel never holds it, the member of that name says where it is, and only an AttestationLog may "
            "name it."
        )
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Source Secret: the entries that hold the key. HMAC: the text as the provider shows it; a value that "
            "begins with whsec_ is decoded where Standard Webhooks wants that, and taken literally where Stripe "
            "wants that. Ed25519: a 32-byte seed as 64 hex digits, base64 or whsk_<base64>, or, to verify alone, "
            "a public key as whpk_<base64>. Line ends after the value are ignored."
        ),
    )
    rotation: Rotation | None = Field(
        default=None,
        description=(
            "Source Generate: replace the key regularly. The next version is published one period ahead, and an hour "
            "ahead at least. Without it the key stays."
        ),
    )

    file: FileSource | None = Field(default=None, description="Source File: seeds that only the attestor can read.")
    pkcs11: Pkcs11Source | None = Field(default=None, description="Source PKCS11: a token, as an HSM has it.")
    vault: VaultSource | None = Field(default=None, description="Source Vault: the transit engine.")
    aws_kms: AwsSource | None = Field(default=None, alias="awsKMS", description="Source AWSKMS.")
    google_kms: GoogleSource | None = Field(default=None, alias="googleKMS", description="Source GoogleKMS.")

    @property
    def held_elsewhere(self) -> Source | None:
        """Where the key is, if kapsel does not hold it."""
        return self.file or self.pkcs11 or self.vault or self.aws_kms or self.google_kms

    def secret_names(self) -> frozenset[str]:
        """Return the Secrets that are needed to have the key or to reach it."""
        found = {self.secret_ref.name} if self.secret_ref else set()
        elsewhere = self.held_elsewhere
        return frozenset(found | ({entry.name for entry in elsewhere.secrets().values()} if elsewhere else set()))

    @model_validator(mode="after")
    def _members_of_its_source(self) -> "SigningKeySpec":
        if self.source == "Secret" and self.secret_ref is None:
            broken("the source is Secret, and there is no secretRef", "secretRef: {name: ...}", "secretRef")
        if self.source != "Secret" and self.secret_ref is not None:
            broken("no source but Secret has a secretRef", "source: Secret, or no secretRef", "secretRef")
        if self.source != "Generate" and self.rotation is not None:
            broken(
                "kapsel can rotate no key but those that it makes",
                "source: Generate, or two live versions while you rotate it yourself",
                "rotation",
            )
        members = dict(zip(_MEMBERS, (self.file, self.pkcs11, self.vault, self.aws_kms, self.google_kms), strict=True))
        for source, member in members.items():
            if (member is not None) != (self.source == source):
                name = _MEMBERS[source]
                broken(
                    f"{name} belongs to the source {source}, and that source needs it",
                    f"source: {source} with {name}, or neither",
                    name,
                )
        if self.held_elsewhere is not None and self.algorithm != "Ed25519":
            broken("a key that kapsel does not hold is of the algorithm Ed25519", "Ed25519", "algorithm")
        return self


class SigningKey(Resource):
    """A secret or key pair with a name: what verifies webhooks that come in, and signs what goes out."""

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["SigningKey"]
    spec: SigningKeySpec = Field(description="Where the key comes from.")
