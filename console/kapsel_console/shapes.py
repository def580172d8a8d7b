"""What answers look like: the members of each document and their types.

`documents` builds them, so mypy holds every document to its shape, and `openapi` describes them from the same types.
The shapes are an interface: members are added, never renamed.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic reads the one of `typing` from Python 3.12 on

from kapsel_store.reasons import Fault
from kapsel_store.replays import Phase
from kapsel_store.rows import Scheme
from kapsel_store.states import State

Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, description="UTC, to the millisecond.")]
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Span = Annotated[str, Field(description="A duration such as 15m or 720h.")]
Path = Annotated[str, Field(description="namespace/name")]
Headers = Annotated[list[tuple[str, str]], Field(description="Pairs of name and value, in their order.")]
Readiness = Literal["Loaded", "Loading", "NoReceiver", "NoDeliverer"]


class RateLimit(TypedDict):
    """How much may come or go."""

    requests_per_second: float
    burst: int


class Acknowledgement(TypedDict):
    """What a destination declares of acknowledgements."""

    required: bool
    public_keys: list[str]
    tolerance: Span


class Header(TypedDict):
    """A header of a transform, and the expression that gives its value."""

    name: str
    value: str


class Transform(TypedDict):
    """What is sent instead of what came."""

    body: str | None
    headers: list[Header]
    content_type: str | None


class Ordering(TypedDict):
    """Deliveries of one key go one after the other."""

    key: str
    on_exhausted: Literal["Block", "Skip"]


class Batch(TypedDict):
    """Deliveries go together, many in one request."""

    max_events: int
    max_bytes: int
    interval: Span


class Circuit(TypedDict):
    """What is known of the other side."""

    state: Literal["closed", "open", "half_open", "disabled"]
    open_until: Time | None
    disabled_at: Time | None
    disabled_reason: str | None


class Destination(TypedDict):
    """Where deliveries of an endpoint go."""

    id: Id
    name: str
    url: str
    headers: Annotated[list[str], Field(description="Names only: values are often tokens.")]
    generation: int
    suspend: bool
    timeout: Span
    max_in_flight: int
    rate_limit: RateLimit | None
    acknowledgement: Acknowledgement | None
    filter: str | None
    transform: Transform | None
    ordering: Ordering | None
    batch: Batch | None
    max_attempts: int
    max_age: Span
    pending: int
    pending_more: Annotated[bool, Field(description="true: there are more pending than were counted.")]
    sending: int
    oldest_pending_at: Time | None
    circuit: Circuit


class Endpoint(TypedDict):
    """Where webhooks come in."""

    id: Id
    namespace: str
    name: str
    generation: int
    ready: bool
    reason: Readiness
    suspend: bool
    verification: Scheme
    idempotency: str | None
    rate_limit: RateLimit | None
    max_body_bytes: int
    retention: Span
    ingest_paths: list[str]
    pending: int
    pending_more: bool
    sending: int
    oldest_pending_at: Time | None
    destinations: list[Destination]


class Event(TypedDict):
    """One accepted webhook."""

    id: Id
    endpoint: Path
    endpoint_id: Id
    received_at: Time
    content_type: str | None
    size: int | None
    body_hash: Hex | None
    correlation_id: str | None


class WholeEvent(Event):
    """One accepted webhook with what it said; that is null once it was erased, or its retention is over."""

    erased_at: Time | None
    headers: Headers | None
    body_base64: Base64 | None
    body_text: Annotated[str | None, Field(description="The same, if it is UTF-8.")]


class Erasure(TypedDict):
    """How far an event is forgotten."""

    event_id: Id
    erased_at: Time
    complete: bool
    cancelled_deliveries: int
    attempts: int
    deliveries_under_way: int
    attempts_without_leaf: int


class Delivery(TypedDict):
    """One event on its way to one destination."""

    id: Id
    event_id: Id
    endpoint: Path
    endpoint_id: Id
    destination: str
    destination_id: Id
    state: State
    attempts: int
    created_at: Time
    due_at: Annotated[Time | None, Field(description="null: it has ended, or waits for its turn.")]
    expires_at: Time
    finished_at: Time | None
    last_reason: str | None
    acknowledgement: str | None
    replay_of: Id | None


class Undelivered(Delivery):
    """A delivery that did not arrive, why, and whose fault that is."""

    reason: Annotated[str, Field(description="What came of the last try, and before the first what keeps it.")]
    fault: Fault


class UndeliveredSum(TypedDict):
    """What was not delivered to one destination for one reason."""

    destination: str
    destination_id: Id
    removed: bool
    fault: Fault
    reason: str
    text: str
    state: State
    count: int
    more: Annotated[bool, Field(description="true: there are more than were counted.")]
    oldest_at: Time


class Hold(TypedDict):
    """One thing that keeps a delivery from being tried now."""

    reason: str
    fault: Fault
    text: str
    until: Time | None


class NextTry(TypedDict):
    """A try to come, if those before it fail."""

    number: int
    earliest: Time
    latest: Time


class LastTry(TypedDict):
    """A try that was made, and what its answer meant."""

    id: Id
    number: int
    started_at: Time
    outcome: str
    reason: str
    fault: Fault
    response_status: int | None
    text: str
    detail: str | None


class PolicyValue(TypedDict):
    """One value of the policy and who said it."""

    name: str
    value: str
    source: str


class Relative(TypedDict):
    """A delivery of the same event to the same destination."""

    id: Id
    state: State
    created_at: Time
    finished_at: Time | None
    last_reason: str | None
    replay_of: Id | None


class Explanation(TypedDict):
    """Why a delivery is where it is."""

    delivery: Delivery
    summary: str
    reason: str | None
    fault: Fault
    held_by: list[Hold]
    next_tries: list[NextTry]
    expires_at: Time
    last_tries: list[LastTry]
    policy: list[PolicyValue]
    proof: str
    ancestry: str
    deliveries_of_event: list[Relative]
    advice: list[str]


class Attempt(TypedDict):
    """One try."""

    id: Id
    delivery_id: Id
    event_id: Id
    endpoint: Path
    endpoint_id: Id
    destination: str
    destination_id: Id
    number: int
    started_at: Time
    duration_ms: float
    outcome: str
    reason: str
    detail: str | None
    url: str
    payload_hash: Hex | None
    payload_commitment: Hex | None
    sent_hash: Hex | None
    signature_digest: Hex | None
    response_status: int | None
    response_size: int | None
    response_digest: Hex | None
    acknowledgement: str | None
    acknowledgement_key: Hex | None
    leaf_index: int | None


class WholeAttempt(Attempt):
    """One try with the response as far as it was kept."""

    response_headers: Headers | None
    response_body_base64: Base64 | None
    response_body_text: Annotated[str | None, Field(description="The same, if it is UTF-8.")]
    acknowledgement_base_base64: Base64 | None
    acknowledgement_base_text: str | None
    acknowledgement_signature: Hex | None


class Process(TypedDict):
    """A live process."""

    component: str
    instance: str
    address: str
    generation: int
    started_at: Time
    seen_at: Time


class ReplayProgress(TypedDict):
    """A Replay and how far it is."""

    id: Id
    namespace: str
    name: str
    endpoint: Path
    phase: Phase
    message: str
    received_from: Time
    received_to: Time
    states: list[State | Literal["missing"]]
    reasons: list[str] | None
    filter: str | None
    dry_run: bool
    rate: int
    suspend: bool
    asked: Annotated[bool, Field(description="true: a person asked for it here; false: a manifest declares it.")]
    matched: int
    enqueued: int
    delivered: int
    failed: int
    skipped_events: int
    skipped_destinations: int
    skipped_pending: int
    unjudged: int
    declared_at: Time
    started_at: Time | None
    counted_at: Time | None
    enqueued_at: Time | None
    completed_at: Time | None
    removed_at: Time | None


class Blocked(TypedDict):
    """An order key that waits for a person, under the id of the delivery that blocks it."""

    id: Id
    endpoint: Path
    destination: str
    destination_id: Id
    key: str | None
    event_id: Id | None
    attempts: int | None
    last_reason: str | None
    blocked_at: Time
    waiting: int
    waiting_more: bool


class Resumed(TypedDict):
    """The circuit of a destination after somebody resumed it."""

    id: Id
    destination: str
    circuit: Circuit


class Unblocked(TypedDict):
    """How many order keys of a destination go on."""

    id: Id
    destination: str
    unblocked: int


class Key(TypedDict):
    """One version of a key; its secret stays where it is."""

    id: Id
    namespace: str
    name: str
    version: int
    algorithm: str | None
    generated: bool
    live: bool
    not_before: Time
    not_after: Time | None
    public_key: str | None
    used_by: list[str]


KeyState = Annotated[
    Literal["coming", "current", "retiring"],
    Field(description="coming: not_before has not come. current: the newest that signs. retiring: signs beside it."),
]


class SigningKeyVersion(TypedDict):
    """One version of a key pair that signs deliveries."""

    id: Id
    name: str
    version: int
    algorithm: Literal["Ed25519"]
    public_key: str
    state: KeyState
    not_before: Time
    not_after: Time | None


class SigningKeys(TypedDict):
    """The public keys with which deliveries of a namespace are signed, now or soon."""

    keys: list[SigningKeyVersion]


class SigningJwk(TypedDict):
    """The same version as a JSON Web Key (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: Id
    x: str
    name: str
    nbf: int
    exp: NotRequired[int]


class SigningJwks(TypedDict):
    """The same keys as a JSON Web Key Set."""

    keys: list[SigningJwk]
