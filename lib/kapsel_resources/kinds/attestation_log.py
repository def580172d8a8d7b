"""AttestationLog: one Merkle log of delivery attempts, its name to the world, its key and its intervals."""

from datetime import timedelta
from typing import Final, Literal

from pydantic import Field

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.model import ORIGIN, Model, Reference, Resource
from kapsel_resources.rules import unchanged
from kapsel_store import rows

_LOG: Final = rows.LogRow(namespace="", name="", origin="", key_name="")


class Integration(Model):
    """When attempts become leaves of the tree. Cheap: one transaction for all that wait."""

    interval: Duration = Field(
        default=_LOG.integrate_interval,
        ge=timedelta(milliseconds=10),
        le=timedelta(seconds=10),
        description="How long an attempt waits at most before it becomes a leaf.",
    )
    batch: int = Field(
        default=_LOG.integrate_batch,
        ge=1,
        le=10_000,
        description="When so many attempts wait, they do not wait for the interval.",
    )


class Publication(Model):
    """When a new tree head is signed and published: what a proof needs, and what auditors watch."""

    interval: Duration = Field(
        default=_LOG.publish_interval,
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long a leaf waits at most before a signed head covers it, and with that a proof exists.",
    )
    pending: int = Field(
        default=_LOG.publish_pending,
        ge=1,
        le=1_000_000,
        description=(
            "When so many leaves wait, a head is published before the interval ends, but never within a second of"
            " the last."
        ),
    )
    idle_interval: Duration = Field(
        default=_LOG.idle_interval,
        ge=timedelta(seconds=10),
        le=timedelta(hours=24),
        description=(
            "How often a head is signed anew when nothing happens, so that silence can be told from a log that stopped."
        ),
    )


class AttestationLogSpec(Model):
    """All of it has defaults; name an origin of your own before others rely on proofs."""

    relay_ref: Reference | None = Field(
        default=None,
        description="The Relay, of the same namespace, whose log this is. Without it: the only Relay of the namespace.",
    )
    origin: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=ORIGIN,
        description=(
            "The name of the log in every checkpoint and proof: a URL without scheme, under a domain you own, "
            "such as log.example.com/orders. Printable ASCII without blanks and plus signs. Another origin is "
            "another log. Default: kapsel.local/<namespace>/<name of the AttestationLog>."
        ),
    )
    signing_key_ref: Reference | None = Field(
        default=None,
        description=(
            "An Ed25519 SigningKey, used by nothing else. Auditors pin its public half. While it has several live "
            "versions every head is signed by all of them, and a new one is announced in the log by both before it "
            "signs alone. Without it kapsel generates a key for the origin, which stays."
        ),
    )
    integration: Integration = Field(default=Integration(), description="When attempts become leaves.")
    publication: Publication = Field(default=Publication(), description="When heads are signed and published.")


class AttestationLog(Resource):
    """The log that proves deliveries. A Relay has one; without a manifest it has one with all defaults."""

    RULES = (
        unchanged(
            "origin",
            once="fence",
            message="signed heads name the origin, and another origin is another log: apply another AttestationLog",
        ),
        unchanged(
            "relayRef",
            once="fence",
            message="signed heads commit to what the Relay holds: apply another AttestationLog for another Relay",
        ),
    )

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["AttestationLog"]
    spec: AttestationLogSpec = Field(default=AttestationLogSpec(), description="Name, key and intervals of the log.")
