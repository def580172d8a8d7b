"""The rows of the store as frozen values: configuration that is planned and loaded, and facts that are recorded.

The plan (kapsel_resources) writes the configuration rows, receivers and deliverers read them. A row is plain data: no
behaviour, no secrets in the clear except `KeyRow.secret`, which exists only between unsealing and use.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

from kapsel_store.key_backends import KeyBackend
from kapsel_store.states import State

Scheme = Literal[
    "github",
    "stripe",
    "shopify",
    "slack",
    "twilio",
    "gitlab",
    "meta",
    "okta",
    "x",
    "microsoftGraph",
    "zoom",
    "paddle",
    "square",
    "hubspot",
    "linear",
    "discord",
    "pagerduty",
    "docusign",
    "dropbox",
    "sns",
    "standardWebhooks",
    "hmac",
    "basic",
    "bearer",
    "none",
]
Encoding = Literal["hex", "base64"]
HashName = Literal["sha1", "sha256", "sha512"]
Algorithm = Literal["HMAC-SHA256", "HMAC-SHA512", "Ed25519"]
Component = Literal["receiver", "deliverer", "attestor", "console"]
Acknowledged = Literal["acknowledged", "missing", "invalid", "no_key"]

# Set by the deliverer itself, or meant for one hop: a manifest cannot know their value.
RESERVED_HEADERS: Final = frozenset(
    {
        "accept-signature", "connection", "content-digest", "content-encoding", "content-length", "content-type",
        "date", "expect", "host", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "user-agent", "want-content-digest", "x-correlation-id",
    }
)  # fmt: skip
RESERVED_HEADER_PREFIXES: Final = ("webhook-", "kapsel-")
# Headers that carry credentials are not stored: whoever reads the events must not be able to act as their sender.
SECRET_HEADERS: Final = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "apikey", "x-auth-token",
        "x-access-token", "x-gitlab-token", "x-amz-security-token", "x-forwarded-access-token",
        "x-goog-iap-jwt-assertion",
    }
)  # fmt: skip
LONGEST_DETAIL: Final = 512  # characters of AttemptRow.detail


def is_reserved_header(name: str) -> bool:
    """Return whether a destination may not add a header of this name."""
    return name.lower() in RESERVED_HEADERS or name.lower().startswith(RESERVED_HEADER_PREFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class GapHealing:
    """Where GitHub lists the deliveries of a hook, so that those that failed can be asked for again."""

    hook: str  # the path of the hook in the API: /repos/<owner>/<name>/hooks/<id> or /orgs/<organization>/hooks/<id>
    api_url: str = "https://api.github.com"  # without a slash at its end
    period: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How callers of an endpoint prove themselves.

    The fields from `header` to `timestamp_header` are read by `hmac`, and `tolerance` by every scheme with a timestamp.
    """

    scheme: Scheme
    key_name: str | None = None  # a KeyRow.name of the endpoint's namespace; None for scheme none
    header: str | None = None  # hmac: the header that carries the signature
    prefix: str = ""  # hmac: what stands before the signature in the header, such as "sha256="
    encoding: Encoding = "hex"
    algorithm: HashName = "sha256"
    timestamp_header: str | None = None  # hmac: if set, "<timestamp>.<body>" is signed and the age is checked
    tolerance: timedelta = timedelta(minutes=5)
    # A KeyRow.name. meta: the token with which the provider asks for a handshake; github: that of its API
    token_key_name: str | None = None
    public_url: str | None = None  # twilio, square, hubspot sign it: the URL as the provider calls it, without a query
    trust_forwarded: bool = False  # the same: believe X-Forwarded-Proto and X-Forwarded-Host of the proxy in front
    public_keys: tuple[str, ...] = ()  # discord: Ed25519, 32 bytes in hex each
    gap_healing: GapHealing | None = None  # github
    topic_arns: tuple[str, ...] = ()  # sns: the topics that may send


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """How duplicates are recognised: by a header, by the hash of the content, or by the provider's own id."""

    source: Literal["Header", "Content", "Provider"]
    header: str | None = None
    window: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket: requests per second, and how many may come at once."""

    requests_per_second: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    """One WebhookEndpoint as receivers see it."""

    id: UUID  # stable and unguessable: part of the ingest URL
    namespace: str
    name: str
    verification: Verification
    idempotency: Idempotency | None = None
    rate_limit: RateLimit | None = None
    max_body_bytes: int = 1_048_576
    retention: timedelta = timedelta(hours=720)
    suspend: bool = False
    paths: tuple[Literal["Id", "Name"], ...] = ("Id", "Name")  # which ingest URLs answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When the next try is due: exponential with a ceiling, or a list of waits whose last repeats."""

    type: Literal["Exponential", "Schedule"] = "Exponential"
    initial: timedelta = timedelta(seconds=5)
    factor: float = 2.0
    max: timedelta = timedelta(hours=1)
    jitter: float = 0.25  # the wait is multiplied by a uniform draw from [1 - jitter, 1 + jitter]
    schedule: tuple[timedelta, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """When to stop trying a destination for a while, and how to find out that it is back."""

    failure_ratio: float = 0.5
    min_attempts: int = 20
    window: timedelta = timedelta(minutes=1)
    open_for: timedelta = timedelta(seconds=30)
    probes: int = 3
    recovery: timedelta = timedelta(seconds=30)  # from closing on: how long until all may be sent at once again
    drain: float | None = None  # requests a second until what waited meanwhile is sent; None: as fast as recovery lets
    disable_after: timedelta | None = None  # of nothing but failures; None: never
    warn_at: float = 0.5  # of disable_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One RetryPolicy, resolved: every field has its effective value."""

    backoff: Backoff = Backoff()
    max_attempts: int = 12
    max_age: timedelta = timedelta(hours=72)
    retry_status_codes: tuple[str, ...] = ("408", "425", "429", "5xx")
    retry_connection_errors: bool = True
    honour_retry_after: bool = True
    retry_after_max: timedelta = timedelta(hours=1)
    circuit_breaker: CircuitBreaker | None = CircuitBreaker()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """How a destination signs what it got (RFC 9421): with which keys, and whether a delivery without it counts."""

    required: bool = False  # true: a success that is not signed is a failure
    public_keys: tuple[str, ...] = ()  # Ed25519, 32 bytes in hex each; none: those of the destination's well-known URL
    tolerance: timedelta = timedelta(minutes=5)  # between the try and the time that was signed, to either side


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """Deliveries of one key go one after the other; what happens to a key whose first delivery is given up."""

    key: str  # CEL, a string
    on_exhausted: Literal["Block", "Skip"] = "Block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Deliveries go together, many in one request; each keeps its own attempts."""

    max_events: int = 100
    max_bytes: int = 1_048_576  # of the body of a request, except that one delivery alone may be larger
    interval: timedelta = timedelta(seconds=5)  # from one request that was not full until more is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a TLS connection is made; names are those of KeyRows in the endpoint's namespace."""

    ca_name: str | None = None  # the authorities that are trusted, and no others; None: the system's
    certificate_name: str | None = None  # the client's certificate and its key
    min_version: Literal["1.2", "1.3"] = "1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2:
    """Where access tokens come from (RFC 6749, client credentials); names are those of KeyRows."""

    token_url: str
    client_id_name: str
    client_secret_name: str
    scopes: tuple[str, ...] = ()
    audience: str | None = None
    authentication: Literal["Basic", "Post"] = "Basic"  # how the client proves itself: a header, or two form fields
    tls: Tls | None = None  # of the connection to token_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """What is sent instead of what came, each as CEL."""

    body: str | None = None  # None: the body as it came
    headers: tuple[tuple[str, str], ...] = ()  # names and the expressions of their values
    content_type: str | None = None  # None: application/json for a body that was made, else that of the event


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRow:
    """One destination of an endpoint as deliverers see it, its policy resolved into it."""

    id: UUID
    endpoint_id: UUID
    name: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    key_name: str | None = None  # a KeyRow.name of the endpoint's namespace, which says the use too: standard/out
    policy: Policy = Policy()
    timeout: timedelta = timedelta(seconds=15)  # the whole try; connecting may take at most 5 s of it
    max_in_flight: int = 32
    rate_limit: RateLimit | None = None
    suspend: bool = False
    acknowledgement: Acknowledgement | None = None  # None: nothing is asked for
    transform: Transform | None = None  # None: events are sent as they came
    filter: str | None = None  # CEL: which events it wants; None: all
    secret_headers: tuple[tuple[str, str], ...] = ()  # a header, and the KeyRow.name of its value
    tls: Tls | None = None
    oauth2: OAuth2 | None = None  # None: no access token is sent
    sources: tuple[tuple[str, str], ...] = ()  # which level said what; what is not listed has kapsel's own default
    ordering: Ordering | None = None  # None: as fast as each can be sent
    batch: Batch | None = None  # None: each in a request of its own

    @property
    def credential_names(self) -> tuple[str, ...]:
        """The names of the KeyRows that it needs to be called, the signing key apart."""
        names = [name for _, name in self.secret_headers]
        if self.oauth2 is not None:
            names += [self.oauth2.client_id_name, self.oauth2.client_secret_name]
        for tls in (self.tls, self.oauth2.tls if self.oauth2 else None):
            if tls is not None:
                names += [name for name in (tls.ca_name, tls.certificate_name) if name is not None]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One version of a SigningKey; live versions are those whose interval holds now."""

    id: UUID
    namespace: str
    name: str
    version: int
    algorithm: Algorithm
    # HMAC: the shared secret; Ed25519: the seed, or empty if we only verify; with a backend: JSON that opens it, if any
    secret: bytes = field(repr=False)
    public: bytes | None = None  # Ed25519: 32 bytes
    not_before: datetime
    not_after: datetime | None = None
    backend: KeyBackend | None = None  # where the private half is, if it is not `secret`; for the key of a log alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchoring:
    """Who dates the heads of a log from outside, and how often they are asked."""

    calendars: tuple[str, ...]  # URLs of OpenTimestamps calendar servers, which alone are ever asked
    minimum: int  # calendars that must have promised before no further one is asked
    interval: timedelta = timedelta(hours=1)  # between two heads that are dated
    timeout: timedelta = timedelta(seconds=10)  # of one question to one calendar


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Somebody who cosigns the heads of a log."""

    name: str  # in messages, metrics and conditions
    vkey: str
    url: str  # the submission prefix, without a slash at its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessing:
    """Who cosigns the heads of a log, and how many of them are enough."""

    witnesses: tuple[Witness, ...]
    quorum: int
    required: bool = False  # whether a head without a quorum is withheld
    timeout: timedelta = timedelta(seconds=2)  # for all witnesses together: so much later is a head at most
    queries_per_day: int | None = None  # of each witness at most


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One AttestationLog as the attestor sees it."""

    namespace: str
    name: str
    origin: str  # the C2SP origin line, and the name of the key
    key_name: str  # a KeyRow.name of the same namespace, Ed25519
    integrate_interval: timedelta = timedelta(milliseconds=250)
    integrate_batch: int = 1000
    publish_interval: timedelta = timedelta(seconds=10)
    publish_pending: int = 100  # publish early when so many leaves wait, at most every second
    idle_interval: timedelta = timedelta(minutes=10)
    anchoring: Anchoring | None = None
    witnessing: Witnessing | None = None
    retiring_key_name: str | None = None  # another key that signs beside `key_name` while the log moves from it

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of all its keys, the one that goes first."""
        return (self.key_name,) if self.retiring_key_name is None else (self.retiring_key_name, self.key_name)

    def versions(self, keys: Iterable[KeyRow]) -> list[KeyRow]:
        """Return the versions of its keys, the one that goes first, each from the oldest on."""
        mine = [key for key in keys if key.namespace == self.namespace and key.name in self.key_names]
        return sorted(
            (key for key in mine if key.algorithm == "Ed25519"),
            key=lambda key: (self.key_names.index(key.name), key.version),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A forward proxy that all deliveries go through, in tunnels (CONNECT)."""

    url: str
    credentials_name: str | None = None  # a KeyRow.name of the Relay's namespace: user:password
    ca_name: str | None = None  # the same: the authorities that are trusted for it, and no others; None: the system's

    @property
    def key_names(self) -> tuple[str, ...]:
        """The keys that the way to it needs."""
        return tuple(name for name in (self.credentials_name, self.ca_name) if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRow:
    """What every process of a data plane needs to know of its Relay."""

    namespace: str = "default"
    name: str = "main"
    allowed_cidrs: tuple[str, ...] = ()  # egress: ranges that are allowed although they are private or special
    allow_http: bool = False  # egress: plain http destinations
    hash_retention: timedelta | None = None  # None: hashes go with the bodies that are kept longest
    proxy: Proxy | None = None  # egress


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All configuration of one data plane, as of one generation."""

    generation: int = 0
    relay: RelayRow = RelayRow()
    endpoints: tuple[EndpointRow, ...] = ()
    destinations: tuple[DestinationRow, ...] = ()
    keys: tuple[KeyRow, ...] = ()
    log: LogRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRow:
    """One Replay as it was declared: which deliveries get a new one, and how fast.

    It is no part of the Configuration: no process has to load it, and what it has done outlives its manifest.
    """

    id: UUID  # follows from namespace, name and selection: the same again is the same run, another one is another
    namespace: str
    name: str
    endpoint_id: UUID
    destinations: tuple[UUID, ...] | None  # None: to all of the endpoint
    received_from: datetime  # the first instant that is in
    received_to: datetime  # the first instant that is out
    states: tuple[State, ...]  # final ones; none if `missing`
    reasons: tuple[str, ...] | None = None  # patterns of LIKE for the reasons that are meant; None: whatever they are
    missing: bool = False  # what has no delivery at all, for its destination was declared later
    anyway: bool = False  # also what is being delivered again already
    filter: str | None = None  # only events for which this expression gives true
    dry_run: bool = False
    rate: int = 50  # new deliveries a second
    suspend: bool = False
    asked: bool = False  # a person asked the console for it, and no manifest declares it


# The rows of the hot path are named tuples: frozen dataclasses take five times as long to make. Their fields stand in
# the order in which the statements take them.


class NewDelivery(NamedTuple):
    """One delivery to be made of a new event."""

    id: UUID
    destination_id: UUID
    max_age: timedelta
    order_key: bytes | None = None  # 16 bytes, kapsel_store.turns.digest; None: it waits for no other
    order_shown: str | None = None  # the key as people read it, shortened


class NewEvent(NamedTuple):
    """A webhook that passed every check and waits for its commit."""

    id: UUID  # version 7
    endpoint_id: UUID
    received_at: datetime
    content_type: str
    headers: str  # JSON: a list of [name, value] pairs as they came, those that carry secrets left out
    body: bytes
    body_hash: bytes  # SHA-256 of the body, 32 bytes
    salt: bytes  # 32 random bytes, the key of the payload commitment; erasable
    idempotency_key: bytes | None  # 32 bytes, the hash of what the endpoint says makes an event unique
    idempotency_window: timedelta | None
    correlation_id: str | None
    deliveries: tuple[NewDelivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The event is stored, durably."""

    event_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """An event with the same idempotency key was stored before; `event_id` is that one's."""

    event_id: UUID


class Claimed(NamedTuple):
    """A leased delivery with all that one try needs."""

    id: UUID
    event_id: UUID
    endpoint_id: UUID
    destination_id: UUID
    number: int  # which try this is, from 1
    created_at: datetime
    expires_at: datetime
    received_at: datetime
    content_type: str
    headers: str
    body: bytes
    body_hash: bytes
    salt: bytes | None
    correlation_id: str | None
    order_key: bytes | None = None  # None: it waits for no other, and nobody waits for it


class AttemptRow(NamedTuple):
    """One try and what came of it."""

    id: UUID  # version 7
    delivery_id: UUID
    event_id: UUID
    endpoint_id: UUID
    destination_id: UUID
    number: int
    started_at: datetime
    duration: timedelta
    outcome: str  # delivered, refused, unreachable, timed_out, ...: kapsel_deliverer.outcome
    reason: str  # a stable code, such as status_503, dns, connect_refused, address_denied
    url: str
    payload_hash: bytes | None  # SHA-256 of the body as it came; None once the event was erased
    payload_commitment: bytes | None  # HMAC-SHA256(salt, body as it came); None if the salt was erased
    signature_digest: bytes | None  # SHA-256 of the signature headers as sent
    response_status: int | None = None
    response_headers: str | None = None  # JSON: a list of [name, value] pairs
    response_body: bytes | None = None  # truncated
    response_size: int | None = None
    response_digest: bytes | None = None  # SHA-256 of the whole body that was read
    sent_hash: bytes | None = None  # SHA-256 of the body as sent, if a transform made it
    detail: str | None = None  # what exactly was wrong, where the reason alone does not tell; nothing of the event
    acknowledgement: Acknowledged | None = None  # None: the destination declares none, or did not take the delivery
    acknowledgement_base: bytes | None = None  # what the destination signed; these three if it is acknowledged
    acknowledgement_key: bytes | None = None
    acknowledgement_signature: bytes | None = None


class Result(NamedTuple):
    """An attempt and where it leaves its delivery."""

    attempt: AttemptRow
    lease_id: UUID
    state: State  # delivered, pending or exhausted
    retry_in: timedelta | None = None  # for pending: from now, by the database's clock
    order_key: bytes | None = None  # of the delivery
    correlation_id: str | None = None  # of the event, for the log
    label: str = ""  # namespace/endpoint/destination, for metrics: the destination may be gone by then
