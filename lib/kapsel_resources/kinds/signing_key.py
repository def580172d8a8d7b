"""SigningKey: a named secret or key pair, generated or from a Secret, with several live versions during a rotation."""

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from kapsel_resources.durations import Duration, text
from kapsel_resources.kinds.model import Model, Resource, SecretReference, broken
from kapsel_resources.rules import Rule


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
    """Either kapsel makes the key and rotates it, or a Secret holds it and whoever writes the Secret rotates it."""

    RULES = (
        Rule(
            "has(self.secretRef) || self.source != 'Secret'",
            "the source is Secret, and there is no secretRef",
            "secretRef",
        ),
        Rule("!has(self.secretRef) || self.source != 'Generate'", "a generated key has no secretRef", "secretRef"),
        Rule(
            "!has(self.rotation) || self.source != 'Secret'",
            "kapsel cannot rotate a key that a Secret holds",
            "rotation",
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
    source: Literal["Generate", "Secret"] = Field(
        description="Generate: kapsel makes it from the system's random source. Secret: it is what secretRef points to."
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
            "Source Generate: replace the key regularly. The next version is always published one period ahead. "
            "Without it the key stays."
        ),
    )

    @model_validator(mode="after")
    def _members_of_its_source(self) -> "SigningKeySpec":
        if self.source == "Secret" and self.secret_ref is None:
            broken("the source is Secret, and there is no secretRef", "secretRef: {name: ...}", "secretRef")
        if self.source == "Generate" and self.secret_ref is not None:
            broken("a generated key has no secretRef", "source: Secret, or no secretRef", "secretRef")
        if self.source == "Secret" and self.rotation is not None:
            broken(
                "kapsel cannot rotate a key that a Secret holds",
                "source: Generate, or a second entry in the Secret while you rotate it yourself",
                "rotation",
            )
        return self


class SigningKey(Resource):
    """A secret or key pair with a name: what verifies webhooks that come in, and signs what goes out."""

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["SigningKey"]
    spec: SigningKeySpec = Field(description="Where the key comes from.")
