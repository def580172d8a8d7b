"""WebhookEndpoint: a URL that takes webhooks, how callers prove themselves, and where each webhook goes."""

from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from kapsel_egress import urls
from kapsel_expressions.expression import LONGEST
from kapsel_resources import key_values
from kapsel_resources.durations import Duration, text
from kapsel_resources.kinds.connection import HeaderSource, OAuth2, Tls, Url
from kapsel_resources.kinds.limits import MaxInFlight, RateLimit, Timeout
from kapsel_resources.kinds.model import (
    CONTENT_TYPE,
    ED25519_PUBLIC,
    HEADER,
    HEADER_VALUE,
    LABEL,
    RELAY_REF_DESCRIPTION,
    Model,
    Reference,
    RelayReference,
    Resource,
    broken,
    unique,
)
from kapsel_resources.kinds.retry_policy import Retry
from kapsel_resources.kinds.verification import NAMES_EVENTS, Verification
from kapsel_resources.rules import Rule, unchanged
from kapsel_store import rows
from kapsel_verifier.acknowledgement import MAX_SKEW_S

# The effective defaults are those of the rows: this kind only says how to write others.
_ENDPOINT: Final = rows.EndpointRow(
    id=UUID(int=0), namespace="", name="", verification=rows.Verification(scheme="none")
)
_ACKNOWLEDGEMENT: Final = rows.Acknowledgement()
_ORDERING: Final = rows.Ordering(key="")
_BATCH: Final = rows.Batch()
_DESTINATION: Final = rows.DestinationRow(id=UUID(int=0), endpoint_id=UUID(int=0), name="", url="")


MOST_TOGETHER: Final = 200  # so that an answer which names all of them is short enough to be kept


def _header(name: str) -> str:
    if rows.is_reserved_header(name):
        broken(f"the header {name} is set by kapsel itself", "a header of your own, such as X-Team")
    return name


_NOT_RESERVED: Final = Rule(
    f"!(self.lowerAscii() in {sorted(rows.RESERVED_HEADERS)}) && "
    + " && ".join(f"!self.lowerAscii().startsWith('{prefix}')" for prefix in rows.RESERVED_HEADER_PREFIXES),
    "the header is set by kapsel itself",
)
HeaderName = Annotated[str, Field(pattern=HEADER, max_length=128)]


class Idempotency(Model):
    """How duplicates are recognised: the second gets the answer of the first and is not delivered again."""

    RULES = (
        Rule("has(self.header) || self.source != 'Header'", "the source is Header, and no header is named", "header"),
        Rule(
            "!has(self.header) || self.source == 'Header'",
            "header has no meaning for any source but Header",
            "header",
        ),
    )

    source: Literal["Header", "Content", "Provider"] = Field(
        description=(
            "Header: the value of one header. Content: the hash of the body, where each carries an id or a time. "
            "Provider: the id that the provider "
            f"gives each event, for {', '.join(NAMES_EVENTS[:-1])} and {NAMES_EVENTS[-1]}; for "
            "hubspot and docusign the body without the number of the try."
        )
    )
    header: HeaderName | None = Field(default=None, description="Source Header: which one, such as Idempotency-Key.")
    window: Duration = Field(
        default=timedelta(hours=24),
        ge=timedelta(seconds=1),
        le=timedelta(hours=720),
        description="How long an event is remembered.",
    )

    @model_validator(mode="after")
    def _header_where_it_counts(self) -> "Idempotency":
        if self.source == "Header" and self.header is None:
            broken("the source is Header, and no header is named", "header: X-GitHub-Delivery, for instance", "header")
        if self.source != "Header" and self.header is not None:
            broken(f"header has no meaning for the source {self.source}", "source: Header beside it", "header")
        return self

    def row(self) -> rows.Idempotency:
        """Return the row."""
        return rows.Idempotency(source=self.source, header=self.header, window=self.window)


class Header(Model):
    """A header that is sent with every delivery."""

    KEY = "name"
    RULES = (Rule("has(self.value) != has(self.valueFrom)", "a header has one value: exactly one of value, valueFrom"),)

    name: Annotated[str, AfterValidator(_header), _NOT_RESERVED] = Field(
        pattern=HEADER, max_length=128, description="Name of the header."
    )
    value: str | None = Field(
        default=None,
        max_length=2048,
        pattern=HEADER_VALUE,
        description=(
            "Its value: printable ASCII, without blanks at the ends. Not for secrets: it is stored and shown in the "
            "clear."
        ),
    )
    value_from: HeaderSource | None = Field(
        default=None, description="Where the value is, if it is a secret, such as an API key."
    )

    @model_validator(mode="after")
    def _one_value(self) -> "Header":
        if (self.value is None) == (self.value_from is None):
            broken("a header has one value", "exactly one of value, valueFrom")
        return self


class MadeHeader(Model):
    """A header whose value is made of each event."""

    KEY = "name"

    name: Annotated[str, AfterValidator(_header), _NOT_RESERVED] = Field(
        pattern=HEADER, max_length=128, description="Name of the header."
    )
    value: str = Field(
        min_length=1,
        max_length=LONGEST,
        description=(
            "Its value, as a CEL expression that gives a string. Not for secrets: it is stored and shown in the clear."
        ),
    )


class Transform(Model):
    """What is sent instead of what came."""

    RULES = (
        Rule("has(self.body) || has(self.headers)", "a transform makes something: at least one of body, headers"),
        Rule("!has(self.contentType) || has(self.body)", "contentType has no meaning without a body", "contentType"),
        Rule(
            "!has(self.headers) || self.headers.all(one, self.headers.exists_one(other,"
            " other.name.lowerAscii() == one.name.lowerAscii()))",
            "each header once, in whatever case",
            "headers",
        ),
    )

    body: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST,
        description=(
            'The body, as a CEL expression, such as `{"id": event.id, "order": event.body.order}`, sent as JSON; '
            "if it gives a string and contentType is not JSON, as that string. A body that is no JSON is sent as it "
            "came."
        ),
    )
    headers: tuple[MadeHeader, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=16,
        description="Headers to add, beside those of the destination that are always the same.",
    )
    content_type: str | None = Field(
        default=None,
        max_length=128,
        pattern=CONTENT_TYPE,
        description="Content type of a body that was made. Default: application/json.",
    )

    @model_validator(mode="after")
    def _makes_something(self) -> "Transform":
        if self.body is None and self.headers is None:
            broken("a transform makes something", "at least one of body, headers")
        if self.content_type is not None and self.body is None:
            broken("contentType has no meaning without a body", "body beside it", "contentType")
        unique((header.name.lower() for header in self.headers or ()), "header", "headers")
        return self

    def row(self) -> rows.Transform:
        """Return the row."""
        headers = tuple((header.name, header.value) for header in self.headers or ())
        return rows.Transform(body=self.body, headers=headers, content_type=self.content_type)


class WellKnown(Model):
    """Keys that the destination publishes itself."""


class Acknowledgement(Model):
    """The destination signs what it got, and its signature goes into the log."""

    RULES = (
        Rule(
            "has(self.publicKeys) != has(self.wellKnown)",
            "the keys come from one place: exactly one of publicKeys, wellKnown",
        ),
    )

    required: bool = Field(
        default=_ACKNOWLEDGEMENT.required,
        description=(
            "true: a success without a valid signature counts as a failure, and is retried as the RetryPolicy says. "
            "false: it is delivered, and recorded as not acknowledged."
        ),
    )
    public_keys: tuple[Annotated[str, Field(max_length=64, pattern=ED25519_PUBLIC)], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=8,
        description=(
            "The destination's Ed25519 public keys, as whpk_<base64> or as 64 hex digits. Several are a rotation: a "
            "signature by any of them counts."
        ),
    )
    well_known: WellKnown | None = Field(
        default=None,
        description=(
            "`wellKnown: {}`: the destination publishes its keys as a JSON Web Key Set at "
            "/.well-known/http-message-signatures-directory of its origin."
        ),
    )
    tolerance: Duration = Field(
        default=_ACKNOWLEDGEMENT.tolerance,
        ge=timedelta(seconds=1),
        le=timedelta(seconds=MAX_SKEW_S),
        description="How far the time that the destination signed may be from that of the try, to either side.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Acknowledgement":
        if (self.public_keys is None) == (self.well_known is None):
            broken("the keys come from one place", "exactly one of publicKeys, wellKnown")
        return self

    def row(self) -> rows.Acknowledgement:
        """Return the row."""
        keys = dict.fromkeys(map(_public_key, self.public_keys or ()))  # each once, however often it is written
        return rows.Acknowledgement(required=self.required, public_keys=tuple(keys), tolerance=self.tolerance)


def _public_key(text: str) -> str:
    """Return a key of the form ED25519_PUBLIC as hex."""
    public = key_values.ed25519(text.encode()).public if text.startswith("whpk_") else None
    return text if public is None else public.hex()


class Ordering(Model):
    """Deliveries of one key go to the destination one after the other, in the order in which they were accepted."""

    RULES = (
        Rule("self.type != 'PerKey' || has(self.key)", "the type is PerKey, and no key is given", "key"),
        Rule("self.type == 'PerKey' || !has(self.key)", "key has no meaning for the type None", "key"),
    )

    type: Literal["None", "PerKey"] = Field(
        description="None: each delivery goes as soon as it can. PerKey: those of one key go one after the other."
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST,
        description=(
            "PerKey: a CEL expression that gives the key as a string, such as `event.body.customer`. Events for which "
            "it fails have one key together."
        ),
    )
    on_exhausted: Literal["Block", "Skip"] = Field(
        default=_ORDERING.on_exhausted,
        description=(
            "What becomes of a key when its first delivery is given up. Block: the others of the key wait until a "
            "person retries that one or unblocks the key. Skip: the next one goes."
        ),
    )

    @model_validator(mode="after")
    def _key_where_it_counts(self) -> "Ordering":
        if self.type == "PerKey" and self.key is None:
            broken("the type is PerKey, and no key is given", "key: event.body.customer, for instance", "key")
        if self.type == "None" and self.key is not None:
            broken("key has no meaning for the type None", "type: PerKey beside it", "key")
        return self

    def row(self) -> rows.Ordering | None:
        """Return the row; None if nothing is to be in order."""
        return None if self.key is None else rows.Ordering(key=self.key, on_exhausted=self.on_exhausted)


class Batch(Model):
    """Deliveries go to the destination together, many in one request."""

    max_events: int = Field(
        default=_BATCH.max_events, ge=2, le=MOST_TOGETHER, description="How many deliveries one request has at most."
    )
    max_bytes: int = Field(
        default=_BATCH.max_bytes,
        ge=1024,
        le=16_777_216,
        description="Size of the body of one request at most. A delivery that is larger by itself goes alone.",
    )
    interval: Annotated[Duration, Field(ge=timedelta(milliseconds=100), le=timedelta(hours=1))] = Field(
        default=_BATCH.interval,
        description=(
            "How long each deliverer lets deliveries gather after a request that was not full. A full one is followed "
            "by the next at once."
        ),
    )

    def row(self) -> rows.Batch:
        """Return the row."""
        return rows.Batch(max_events=self.max_events, max_bytes=self.max_bytes, interval=self.interval)


_SENT_BY_OAUTH2: Final = "oauth2 sends the header Authorization itself"
_MADE_TWICE: Final = "headers and transform.headers name the same header"
_SIGNED_TOGETHER: Final = "what a destination signs is one request, which is many deliveries with batch"
_TOO_FEW_AT_ONCE: Final = "a batch is of deliveries that are under way at once, and maxInFlight lets fewer"
_MAKES_NO_HEADER: Final = "!has(self.transform) || !has(self.transform.headers)"


class Destination(Model):
    """Where each webhook of the endpoint goes."""

    KEY = "name"
    RULES = (
        Rule(
            "!has(self.headers) || self.headers.all(one, self.headers.exists_one(other,"
            " other.name.lowerAscii() == one.name.lowerAscii()))",
            "each header once, in whatever case",
            "headers",
        ),
        Rule(
            "!has(self.oauth2) || !has(self.headers)"
            " || !self.headers.exists(one, one.name.lowerAscii() == 'authorization')",
            _SENT_BY_OAUTH2,
            "headers",
        ),
        Rule(
            f"!has(self.oauth2) || {_MAKES_NO_HEADER}"
            " || !self.transform.headers.exists(made, made.name.lowerAscii() == 'authorization')",
            _SENT_BY_OAUTH2,
            "transform.headers",
        ),
        Rule(
            f"!has(self.headers) || {_MAKES_NO_HEADER} || !self.transform.headers.exists(made,"
            " self.headers.exists(one, one.name.lowerAscii() == made.name.lowerAscii()))",
            _MADE_TWICE,
            "transform.headers",
        ),
        Rule("!has(self.batch) || !has(self.acknowledgement)", _SIGNED_TOGETHER, "acknowledgement"),
        Rule(
            f"!has(self.batch) || !has(self.maxInFlight) || self.maxInFlight >= (has(self.batch.maxEvents) ? "
            f"self.batch.maxEvents : {_BATCH.max_events})",
            _TOO_FEW_AT_ONCE,
            "maxInFlight",
        ),
    )

    name: str = Field(max_length=63, pattern=LABEL, description="Name of the destination, unique in the endpoint.")
    url: Url = Field(
        min_length=1,
        max_length=urls.LONGEST,
        description=(
            "Where to POST. http needs egress.allowHTTP of the Relay; private addresses need egress.allowedCIDRs."
            " Redirects are not followed."
        ),
    )
    filter: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST,
        description=(
            "Which events it wants, as a CEL expression that gives true or false, such as `event.body.action == "
            '"created"`. Other events are not sent to it. Without it: all.'
        ),
    )
    transform: Transform | None = Field(
        default=None,
        description=(
            "What is sent instead of what came, made of each event by CEL expressions. Without it: the body as it came."
        ),
    )
    headers: tuple[Header, ...] = Field(
        default=(), strict=False, max_length=32, description="Headers to add to every delivery."
    )
    signing_key_ref: Reference | None = Field(
        default=None,
        description=(
            "The SigningKey that signs, as Standard Webhooks says: v1 with HMAC-SHA256, v1a with Ed25519. Every "
            "live version signs. Without it kapsel generates an HMAC-SHA256 key for the endpoint."
        ),
    )
    retry_policy_ref: Reference | None = Field(
        default=None, description="The RetryPolicy. What it leaves open the Relay says, else the defaults of that kind."
    )
    retry: Retry | None = Field(
        default=None,
        description="Members of a RetryPolicy that hold for this destination, whatever its RetryPolicy says.",
    )
    timeout: Timeout | None = Field(
        default=None,
        description=(
            "How long one try may take as a whole. Connecting may take at most 5 s of it. Default: that of the Relay, "
            f"else {text(_DESTINATION.timeout)}."
        ),
    )
    max_in_flight: MaxInFlight | None = Field(
        default=None,
        description=(
            "How many tries may be under way at once, whatever the number of deliverers. Default: that of the Relay, "
            f"else {_DESTINATION.max_in_flight}, or batch.maxEvents if that is more."
        ),
    )
    rate_limit: RateLimit | None = Field(
        default=None,
        description=(
            "How fast to send, whatever the number of deliverers. Default: that of the Relay, else as fast as "
            "maxInFlight lets."
        ),
    )
    acknowledgement: Acknowledgement | None = Field(
        default=None,
        description=(
            "The destination answers with a signature over what it received (RFC 9421), which is checked and kept in "
            "the log: a proof is then more than the operator's word. Without it nothing is asked for."
        ),
    )
    ordering: Ordering | None = Field(
        default=None,
        description="Whether deliveries go in order. Without it: each as soon as it can, at once with others.",
    )
    batch: Batch | None = Field(
        default=None,
        description=(
            "Deliveries go together: the body of a request is a JSON list of them, each with the headers and the body "
            "that it would have alone. maxInFlight and rateLimit count deliveries. Without it: one request for each."
        ),
    )
    tls: Tls | None = Field(
        default=None,
        description="Authorities and a client certificate for this destination. Without it: what holds for all.",
    )
    oauth2: OAuth2 | None = Field(
        default=None, description="Access tokens that are asked for and sent. Without it: none."
    )
    suspend: bool = Field(
        default=False, description="true: send nothing. Deliveries wait, and still end when their maxAge has passed."
    )

    def secret_names(self) -> set[str]:
        """Return the Secrets that it names."""
        found = {header.value_from.secret_key_ref.name for header in self.headers if header.value_from is not None}
        if self.oauth2 is not None:
            found |= {self.oauth2.client_id_secret_ref.name, self.oauth2.client_secret_secret_ref.name}
        for tls in (self.tls, self.oauth2.tls if self.oauth2 else None):
            for reference in (tls.ca_secret_ref, tls.client_certificate_secret_ref) if tls else ():
                found |= {reference.name} if reference else set()
        return found


def _sends_each_header_once(destination: Destination, index: int) -> None:
    always = [header.name.lower() for header in destination.headers]
    made = [header.name.lower() for header in (destination.transform and destination.transform.headers) or ()]
    unique(always, "header", "destinations", index, "headers")
    if destination.oauth2 is not None and "authorization" in always:
        broken(_SENT_BY_OAUTH2, "either of both", "destinations", index, "headers")
    if destination.oauth2 is not None and "authorization" in made:
        broken(_SENT_BY_OAUTH2, "either of both", "destinations", index, "transform", "headers")
    if not set(always).isdisjoint(made):
        broken(_MADE_TWICE, "each header once", "destinations", index, "transform", "headers")


def _can_go_together(destination: Destination, index: int) -> None:
    if destination.batch is None:
        return
    if destination.acknowledgement is not None:
        broken(_SIGNED_TOGETHER, "batch or acknowledgement", "destinations", index, "acknowledgement")
    if destination.max_in_flight is not None and destination.max_in_flight < destination.batch.max_events:
        allowed = f"{destination.batch.max_events} or more, or a lower maxEvents"
        broken(_TOO_FEW_AT_ONCE, allowed, "destinations", index, "maxInFlight")


_ALIKE: Final = "of dropbox, bodies that tell of different changes are equal"


class WebhookEndpointSpec(Model):
    """Who may send, what counts as the same, how much is too much, and where it goes."""

    RULES = (
        Rule(
            "!has(self.idempotency) || self.idempotency.source != 'Provider' || "
            + " || ".join(f"has(self.verification.{scheme})" for scheme in NAMES_EVENTS),
            "webhooks verified in this way carry no provider's id",
            "idempotency.source",
        ),
        Rule(
            "!has(self.verification.dropbox) || !has(self.idempotency) || self.idempotency.source != 'Content'",
            _ALIKE,
            "idempotency.source",
        ),
        Rule(
            "!has(self.verification.github) || !has(self.verification.github.gapHealing) || "
            "(has(self.idempotency) && self.idempotency.source == 'Provider')",
            "gapHealing needs idempotency with source Provider",
            "verification.github.gapHealing",
        ),
    )

    relay_ref: RelayReference | None = Field(default=None, description=RELAY_REF_DESCRIPTION)
    verification: Verification = Field(
        description=(
            "How callers prove themselves: exactly one member. Checked on the raw bytes before anything else is "
            "done with them."
        )
    )
    idempotency: Idempotency | None = Field(
        default=None, description="How duplicates are recognised. Without it every accepted webhook is a new event."
    )
    rate_limit: RateLimit | None = Field(
        default=None,
        description="How fast webhooks may come in. Beyond it: 429 with Retry-After. Without it: no limit.",
    )
    max_body_bytes: int = Field(
        default=_ENDPOINT.max_body_bytes,
        ge=1,
        le=26_214_400,
        description="The largest body, in bytes. Beyond it: 413. GitHub sends up to 25 MiB.",
    )
    retention: Duration | None = Field(
        default=None,
        ge=timedelta(hours=1),
        le=timedelta(hours=87_600),
        description=(
            "How long an event is kept at least after it came in. Default: the retention of the Relay. Then headers, "
            "body and answers go; hashes, times and states stay as long as the Relay keeps them. What is over two "
            "days or less before that goes with it."
        ),
    )
    paths: tuple[Literal["Id", "Name"], ...] = Field(
        default=_ENDPOINT.paths,
        strict=False,
        min_length=1,
        max_length=2,
        description=(
            "Which URLs take webhooks. Id: /ingest/<id>, stable and not to be guessed. Name: "
            "/ingest/<namespace>/<name>, easy to remember."
        ),
    )
    suspend: bool = Field(default=False, description="true: take no webhooks; callers get 503 and come back later.")
    destinations: tuple[Destination, ...] = Field(
        strict=False,
        max_length=32,
        description=(
            "Where each webhook goes: every destination gets its own delivery. Empty: webhooks are kept and go nowhere."
        ),
    )

    @model_validator(mode="after")
    def _coherent(self) -> "WebhookEndpointSpec":
        unique(self.paths, "path", "paths")
        unique((destination.name for destination in self.destinations), "name", "destinations")
        for index, destination in enumerate(self.destinations):
            _sends_each_header_once(destination, index)
            _can_go_together(destination, index)
        if self.idempotency and self.idempotency.source == "Provider" and not self.verification.names_events:
            broken(
                f"webhooks verified by {self.verification.scheme} carry no provider's id",
                "source: Header, source: Content where each body carries an id or a time, or no idempotency",
                "idempotency",
                "source",
            )
        if self.idempotency and self.idempotency.source == "Content" and self.verification.dropbox is not None:
            broken(_ALIKE, "no idempotency", "idempotency", "source")
        github = self.verification.github
        by_provider = self.idempotency is not None and self.idempotency.source == "Provider"
        if github is not None and github.gap_healing is not None and not by_provider:
            broken(
                "gapHealing needs idempotency with source Provider",
                "idempotency: {source: Provider, window: 72h}",
                "verification",
                "github",
                "gapHealing",
            )
        return self

    def secret_names(self) -> frozenset[str]:
        """Return the Secrets that its destinations name."""
        return frozenset(name for destination in self.destinations for name in destination.secret_names())


class WebhookEndpoint(Resource):
    """A URL that takes webhooks, and the destinations that each of them is delivered to."""

    RULES = (
        unchanged(
            "relayRef",
            once="id",
            message="the Relay holds the deliveries of the endpoint: apply another endpoint for another Relay",
        ),
    )

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["WebhookEndpoint"]
    spec: WebhookEndpointSpec = Field(description="What comes in, and where it goes.")
