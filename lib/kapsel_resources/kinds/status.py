"""What a cluster says of each resource: the models of `status`, from which the CRDs have their schema.

The operator and the attestor build these and apply them; nobody else writes a status, and `kapsel up` has none. Every
field but the conditions is absent until it is known. Each condition and field has one writer.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from kapsel_resources.kinds.model import LABEL, REASON, SHA256, Model
from kapsel_resources.rules import Rule
from kapsel_resources.times import Time

_LARGEST: Final = 2**53 - 1  # beyond this not every reader of JSON keeps a number as it is
_URL: Final = 2048
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Text = Annotated[str, Field(max_length=64)]
Hash = Annotated[str, Field(max_length=64, pattern=SHA256)]
Name = Annotated[str, Field(max_length=253)]
Reason = Annotated[str, Field(min_length=1, max_length=128, pattern=REASON)]


class Part(Model):
    """Base of what the operator builds: by the names of Python, written with those of Kubernetes."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    def document(self) -> dict[str, object]:
        """Return what goes into an object: what is not known is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(Part):
    """A fact about a resource that is true, false or unknown, and why."""

    KEY = "type"

    type: str = Field(min_length=1, max_length=64, pattern=REASON, description="Which fact, such as Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Reason = Field(description="Why, in one stable word.")
    message: str = Field(max_length=8192, description="Why, in sentences: what is wrong, where, and what to do.")
    last_transition_time: Time = Field(description="Since when the status is what it is.")
    observed_generation: Count | None = Field(
        default=None, description="The generation of the resource that this speaks of."
    )


class Status(Part):
    """What every kind has."""

    observed_generation: Count | None = Field(
        default=None, description="The generation of the resource that this status speaks of."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        strict=False,
        max_length=16,
        description="The facts about the resource, by type. Ready is there from the first pass on.",
    )


class Address(Part):
    """Where a resource can be reached, in the shape that Knative reads."""

    url: str = Field(min_length=1, max_length=_URL, description="The URL.")


class RelayStatus(Status):
    """Conditions: Ready, ReceiverAvailable, DelivererAvailable, ConsoleAvailable, DatabaseReachable, SchemaCurrent,
    Exposed; Stalled and Paused only when they hold."""

    address: Address | None = Field(default=None, description="Where the receivers take webhooks.")
    version: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="The version of kapsel that all pods of the Relay run."
    )
    schema_version: Text | None = Field(
        default=None, description="The newest migration that the database has, such as 0002."
    )
    configuration_generation: Count | None = Field(
        default=None, description="The generation of the configuration that was last written to the database."
    )
    endpoints: Count | None = Field(default=None, description="How many WebhookEndpoints the Relay carries.")
    unhealthy_endpoints: Count | None = Field(
        default=None, description="How many of them are not Ready, or do not deliver."
    )
    pending: Count | None = Field(default=None, description="How many deliveries wait, rounded.")
    oldest_pending: Text | None = Field(
        default=None, description="How long the oldest of them has waited, such as 3m12s."
    )


class DestinationStatus(Part):
    """How a destination is doing."""

    KEY = "name"

    name: str = Field(max_length=63, pattern=LABEL, description="Name of the destination.")
    id: Text | None = Field(default=None, description="Its id, as the console and the proofs have it.")
    state: Literal["Delivering", "Failing", "CircuitOpen", "DisableWarning", "Disabled", "Suspended", "Idle"] = Field(
        description=(
            "Delivering: recent tries succeeded, some of them at least. Failing: none did. CircuitOpen: they failed "
            "so often that it is left in peace for a while. DisableWarning: it will be disabled if it goes on failing. "
            "Disabled: it answered 410 Gone, or failed for too long. Suspended: by its manifest. Idle: nothing was "
            "tried lately."
        )
    )
    pending: Count | None = Field(default=None, description="How many deliveries to it wait, rounded.")
    last_reason: Annotated[str, Field(max_length=256)] | None = Field(
        default=None, description="Why the last failed try failed."
    )


class WebhookEndpointStatus(Status):
    """Conditions: Ready (running pods have loaded it), Delivering (the destinations answer); GapsHealed (all is here
    that GitHub tried to deliver) only where gapHealing is declared; Stalled and Paused only when they hold."""

    id: Text | None = Field(default=None, description="The id in the URL /ingest/<id>, stable as long as it exists.")
    address: Address | None = Field(default=None, description="Where it takes webhooks.")
    destinations: tuple[DestinationStatus, ...] = Field(
        default=(), strict=False, max_length=32, description="How each destination is doing, by name."
    )
    pending: Count | None = Field(default=None, description="How many deliveries wait, rounded.")
    oldest_pending: Text | None = Field(
        default=None, description="How long the oldest of them has waited, such as 3m12s."
    )
    success: Text | None = Field(
        default=None, description="How many of the recent tries succeeded, such as 98.2%; absent if there were none."
    )


class RetryPolicyStatus(Status):
    """Conditions: Ready; Stalled only when it holds. With the effective values, defaults included."""

    type: Text | None = Field(default=None, description="The effective type of the backoff.")
    max_attempts: Count | None = Field(default=None, description="The effective number of tries.")
    max_age: Text | None = Field(default=None, description="The effective age at which a delivery ends.")
    spans: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="The waits without jitter, such as 5s, 10s, 20s, ... at most 72h."
    )
    users: Count | None = Field(default=None, description="How many destinations name it.")


class KeyVersion(Part):
    """One version of a key."""

    KEY = "version"

    version: int = Field(ge=1, le=_LARGEST, description="Its number; a higher one is newer.")
    state: Literal["Next", "Live", "Retiring"] = Field(
        description=(
            "Next: published, and not used yet. Live: signs and verifies. Retiring: does both, until notAfter, beside "
            "its successor."
        )
    )
    not_before: Time | None = Field(default=None, description="From when on it is live.")
    not_after: Time | None = Field(default=None, description="Until when it is live.")
    public_key: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Ed25519: the public half, as whpk_<base64>."
    )


class SigningKeyStatus(Status):
    """Conditions: Ready; Stalled only when it holds. Never anything secret."""

    version: Count | None = Field(default=None, description="The newest live version.")
    public_key: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Ed25519: the public half of that version, as whpk_<base64>."
    )
    next_rotation: Time | None = Field(default=None, description="When the next version becomes live.")
    secret_name: Name | None = Field(
        default=None, description="The Secret that holds the versions: yours, or the one that kapsel keeps."
    )
    versions: tuple[KeyVersion, ...] = Field(
        default=(), strict=False, max_length=32, description="The versions that are live or will be, by number."
    )


class Head(Part):
    """A signed tree head that was published."""

    tree_size: Count = Field(description="How many leaves it covers.")
    root_hash: Hash = Field(description="The root hash of the tree of that size, in hex.")
    timestamp: Time = Field(description="When it was signed.")
    checkpoint: Annotated[str, Field(max_length=16_384)] = Field(
        description="The head as a signed note (C2SP checkpoint), as auditors read it."
    )


class Fence(Part):
    """The last head that the attestor was going to sign: it never signs what does not follow from this."""

    RULES = (
        Rule(
            "self.origin != oldSelf.origin || self.treeSize > oldSelf.treeSize"
            " || (self.treeSize == oldSelf.treeSize && self.rootHash == oldSelf.rootHash)",
            "within an origin the tree only grows",
            "treeSize",
        ),
    )

    origin: Annotated[str, Field(max_length=200)] = Field(description="The origin of the log.")
    tree_size: Count = Field(description="The size of the tree.")
    root_hash: Hash = Field(description="The root hash of the tree of that size, in hex.")
    timestamp_ms: Count = Field(description="The time of the head, in milliseconds since 1970.")


class LogKeyStatus(Part):
    """One key of a log, and the time in which it signs heads."""

    KEY = "id"

    id: Annotated[str, Field(max_length=8)] = Field(description="The key id, as in the signature lines of checkpoints.")
    public_key: Annotated[str, Field(max_length=512)] = Field(
        description="The key as auditors pin it: <name>+<id>+<base64>."
    )
    not_before: Time = Field(description="The date of the first head that it signed, or from when on it will.")
    not_after: Time | None = Field(
        default=None, description="The date of the last head that it signed; absent as long as it signs."
    )


class AttestationLogStatus(Status):
    """Conditions: Ready (and Stalled when it holds) by the operator; LogConsistent, CheckpointFresh, LeavesComplete,
    KeysAnnounced and, if somebody is to date or cosign heads, Anchored and Witnessed by the attestor, who writes head,
    keys and fence as well."""

    origin: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="The name of the log in every checkpoint and proof."
    )
    public_key: Annotated[str, Field(max_length=512)] | None = Field(
        default=None,
        description=(
            "The oldest live version of the key, as a verifier key: <name>+<id>+<base64>. Absent if it is held "
            "elsewhere: see keys."
        ),
    )
    keys: tuple[LogKeyStatus, ...] = Field(
        default=(),
        strict=False,
        max_length=32,
        description="The keys that the log has had and has announced, the oldest first; of more than 32 the newest.",
    )
    head: Head | None = Field(default=None, description="The newest head that was published.")
    fence: Fence | None = Field(
        default=None,
        description=(
            "What the attestor has committed itself to, outside of the database: a database that was set back is found "
            "out by it. Within an origin it only grows."
        ),
    )


class ReplayStatus(Status):
    """Conditions: Complete, Failed, Suspended, Ready; Stalled only when it holds."""

    matched: Count | None = Field(default=None, description="How many deliveries the selection matches.")
    enqueued: Count | None = Field(default=None, description="For how many of them there is a new delivery.")
    delivered: Count | None = Field(default=None, description="How many of the new ones were delivered.")
    failed: Count | None = Field(default=None, description="How many of the new ones ended without success.")
    start_time: Time | None = Field(default=None, description="When it began.")
    completion_time: Time | None = Field(default=None, description="When it ended.")


STATUSES: Final[dict[str, type[Status]]] = {
    "Relay": RelayStatus,
    "WebhookEndpoint": WebhookEndpointStatus,
    "RetryPolicy": RetryPolicyStatus,
    "SigningKey": SigningKeyStatus,
    "AttestationLog": AttestationLogStatus,
    "Replay": ReplayStatus,
}
