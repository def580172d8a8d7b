"""AttestationLog: one Merkle log of delivery attempts, its name to the world, its key and its intervals."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.model import CALENDAR, ORIGIN, SUBDOMAIN, Model, Reference, Resource, broken, unique
from kapsel_resources.kinds.witnessing import Witnessing
from kapsel_resources.rules import Rule, each_once, unchanged
from kapsel_store import rows

MAX_ORIGIN: Final = 200  # characters
_ANCHORING: Final = rows.Anchoring(calendars=(), minimum=0)
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


class Anchoring(Model):
    """Dates heads from outside: OpenTimestamps calendars put the hash of a checkpoint into a block of Bitcoin."""

    RULES = (
        each_once("calendars", "calendar"),
        Rule(
            "!has(self.minimum) || self.minimum <= size(self.calendars)",
            "more than there are calendars; allowed: at most as many as calendars",
            "minimum",
        ),
    )

    calendars: tuple[Annotated[str, Field(max_length=200, pattern=CALENDAR)], ...] = Field(
        strict=False,
        min_length=1,
        max_length=8,
        description=(
            "URLs of OpenTimestamps calendar servers. They learn that a log lives, and a salted hash. No other server "
            "is ever asked, so name the calendars themselves, such as https://alice.btc.calendar.opentimestamps.org, "
            "and not a pool that passes on to them."
        ),
    )
    interval: Duration = Field(
        default=_ANCHORING.interval,
        ge=timedelta(minutes=1),
        le=timedelta(hours=24),
        description="How often at most a checkpoint is dated, and only if leaves have come since the last.",
    )
    minimum: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description=(
            "How many calendars must have promised to date a checkpoint before no other is asked again. Default: 2, "
            "or 1 where only one is named."
        ),
    )
    timeout: Duration = Field(
        default=_ANCHORING.timeout,
        ge=timedelta(seconds=1),
        le=timedelta(minutes=1),
        description="How long one calendar may take to answer. Nothing else waits for it.",
    )

    @model_validator(mode="after")
    def _coherent(self) -> "Anchoring":
        unique(self.calendars, "calendar", "calendars")
        if self.minimum is not None and self.minimum > len(self.calendars):
            broken(f"{self.minimum} is more than there are calendars", "at most as many as calendars", "minimum")
        return self


class RetiringKey(Model):
    """The key that a log moves away from."""

    name: str | None = Field(
        default=None,
        max_length=253,
        pattern=SUBDOMAIN,
        description=(
            "Name of its SigningKey, in the same namespace. Without it: the key that kapsel generated for the origin."
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
        max_length=MAX_ORIGIN,
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
    retiring_signing_key: RetiringKey | None = Field(
        default=None,
        description=(
            "A key that signs beside that of signingKeyRef while the log moves from one SigningKey to another, such as "
            "from a generated one to an HSM. Take this away when the overlap is over."
        ),
    )
    integration: Integration = Field(default=Integration(), description="When attempts become leaves.")
    publication: Publication = Field(default=Publication(), description="When heads are signed and published.")
    anchoring: Anchoring | None = Field(
        default=None,
        description="Who dates heads from outside. Without it nobody: the log's own word says when a head existed.",
    )
    witnessing: Witnessing | None = Field(
        default=None,
        description="Who cosigns heads. Without it nobody: the log could show one history to some, another to others.",
    )


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
