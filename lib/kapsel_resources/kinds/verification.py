"""How callers of an endpoint prove themselves: a union with exactly one member, named like the provider."""

from datetime import timedelta
from typing import Annotated, Final, Self, cast

from pydantic import Field, model_validator

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.model import (
    HEADER,
    HEX_KEY,
    ORGANIZATION,
    PRINTABLE,
    PUBLIC_URL,
    REPOSITORY,
    TOPIC,
    Model,
    Reference,
    SecretReference,
    Union,
    broken,
)
from kapsel_resources.rules import Rule
from kapsel_store import event_names, rows

_ROW: Final = rows.Verification(scheme="none")
_HEALING: Final = rows.GapHealing(hook="")
_TOLERANCE_MIN: Final = timedelta(seconds=1)
_TOLERANCE_MAX: Final = timedelta(hours=24)
# The schemes whose provider gives each event an id: Provider idempotency needs one.
NAMES_EVENTS: Final = tuple(event_names.IDS)


class Signed(Model):
    """A provider that signs the body."""

    signing_key_ref: Reference = Field(
        description="The HMAC-SHA256 SigningKey that holds the secret the provider shows you."
    )


class GapHealing(Model):
    """Ask GitHub for what never arrived: it sends each webhook once, and never tries again by itself."""

    RULES = (
        Rule(
            "has(self.repository) != has(self.organization)",
            "the hook is of one place: exactly one of repository, organization",
        ),
    )

    repository: str | None = Field(
        default=None, max_length=140, pattern=REPOSITORY, description="Whose hook it is, as owner/name."
    )
    organization: str | None = Field(
        default=None, max_length=39, pattern=ORGANIZATION, description="Or: the organization whose hook it is."
    )
    hook_id: int = Field(
        ge=1, le=2**53 - 1, description="The number at the end of the URL of the webhook's settings page."
    )
    token_secret_ref: SecretReference = Field(
        description=(
            "The Secret whose entry is a token of GitHub's API that may read and write webhooks: of a fine-grained "
            "token, the permission Webhooks; of a classic one, the scope admin:repo_hook or admin:org_hook."
        )
    )
    period: Duration = Field(
        default=_HEALING.period,
        ge=timedelta(minutes=1),
        le=timedelta(hours=24),
        description="How often to look. GitHub keeps deliveries for three days.",
    )
    api_url: str = Field(
        default=_HEALING.api_url,
        alias="apiURL",
        max_length=256,
        pattern=PUBLIC_URL,
        description="GitHub's API; of a GitHub Enterprise Server, https://HOST/api/v3.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.repository is None) == (self.organization is None):
            broken("the hook is of one place", "exactly one of repository, organization")
        return self

    def row(self) -> rows.GapHealing:
        """Return the row."""
        place = f"/orgs/{self.organization}" if self.repository is None else f"/repos/{self.repository}"
        api_url = self.api_url.rstrip("/")
        return rows.GapHealing(hook=f"{place}/hooks/{self.hook_id}", api_url=api_url, period=self.period)


class GitHub(Signed):
    """GitHub signs the body."""

    gap_healing: GapHealing | None = Field(
        default=None,
        description=(
            "Have deliveries that failed sent again, if the event is not here. Needs idempotency with source "
            "Provider, and looks back as far as its window, at most three days."
        ),
    )


class SignedWithTime(Model):
    """A provider that signs the body and the time, so that an old request cannot be sent again."""

    signing_key_ref: Reference = Field(
        description="The HMAC-SHA256 SigningKey that holds the secret the provider shows you."
    )
    tolerance: Duration = Field(
        default=_ROW.tolerance,
        ge=_TOLERANCE_MIN,
        le=_TOLERANCE_MAX,
        description="How far the time of a request may be from ours, to either side.",
    )


class Meta(Signed):
    """Meta: Facebook, Instagram, Messenger, WhatsApp."""

    verify_token_ref: SecretReference = Field(
        description=(
            "The Secret whose entries are verify tokens: what you write into the App Dashboard beside the URL, and "
            "what Meta says when it looks whether the URL is yours."
        )
    )


class Token(Model):
    """A provider that sends a secret instead of a signature. Then https is all that keeps it secret."""

    secret_ref: SecretReference = Field(
        description="The Secret whose entries each hold a secret that the provider may send."
    )


_ONE_URL: Final = Rule(
    "!has(self.publicURL) || !has(self.trustForwarded) || !self.trustForwarded",
    "trustForwarded has no meaning beside publicURL",
    "trustForwarded",
)


class SignedUrl(Signed):
    """A provider that signs the URL with the body, so that the URL as it sees it has to be known."""

    RULES = (_ONE_URL,)

    public_url: str | None = Field(
        default=None,
        alias="publicURL",
        max_length=2048,
        pattern=PUBLIC_URL,
        description=(
            "The ingest URL as you gave it to the provider, without a query. Without it: https, the header Host, and "
            "the path of the request."
        ),
    )
    trust_forwarded: bool = Field(
        default=_ROW.trust_forwarded,
        description=(
            "true: believe X-Forwarded-Proto and X-Forwarded-Host, the last value of each. Only where a proxy of yours "
            "always sets both."
        ),
    )

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if self.public_url is not None and self.trust_forwarded:
            broken("trustForwarded has no meaning beside publicURL", "one of the two", "trustForwarded")
        return self


class SignedUrlWithTime(SignedUrl):
    """The same with a time, so that an old request cannot be sent again."""

    tolerance: Duration = Field(
        default=_ROW.tolerance,
        ge=_TOLERANCE_MIN,
        le=_TOLERANCE_MAX,
        description="How far the time of a request may be from ours, to either side.",
    )


class Discord(Model):
    """Discord signs with a key pair of its own, and shows you the public half."""

    public_keys: tuple[Annotated[str, Field(max_length=64, pattern=HEX_KEY)], ...] = Field(
        strict=False,
        min_length=1,
        max_length=8,
        description="The public key of the application, 64 hexadecimal digits: General Information in the portal.",
    )
    tolerance: Duration = Field(
        default=_ROW.tolerance,
        ge=_TOLERANCE_MIN,
        le=_TOLERANCE_MAX,
        description="How far the time of a request may be from ours, to either side.",
    )


class Sns(Model):
    """Amazon SNS signs with a certificate that it publishes; who may send is said by topics."""

    topic_arns: tuple[Annotated[str, Field(max_length=512, pattern=TOPIC)], ...] = Field(
        alias="topicARNs",
        strict=False,
        min_length=1,
        max_length=32,
        description=(
            "The topics that may send. Anybody with an account can have SNS sign a message of a topic of his own, so "
            "the signature alone says nothing. Subscriptions of these topics are confirmed."
        ),
    )


class StandardWebhooks(Model):
    """The Standard Webhooks specification: webhook-id, webhook-timestamp, webhook-signature."""

    signing_key_ref: Reference = Field(
        description=(
            "The SigningKey: HMAC-SHA256 for v1 signatures (whsec_...), Ed25519 for v1a (a public key, whpk_...)."
        )
    )
    tolerance: Duration = Field(
        default=_ROW.tolerance,
        ge=_TOLERANCE_MIN,
        le=_TOLERANCE_MAX,
        description="How far the time of a request may be from ours, to either side.",
    )


class Hmac(Model):
    """Any other caller that sends an HMAC of the body in a header."""

    RULES = (
        Rule(
            "!has(self.tolerance) || has(self.timestampHeader)",
            "tolerance has no meaning without timestampHeader",
            "tolerance",
        ),
    )

    signing_key_ref: Reference = Field(
        description="The SigningKey: HMAC-SHA512 for algorithm sha512, HMAC-SHA256 for all others."
    )
    header: str = Field(
        max_length=128, pattern=HEADER, description="The header that carries the signature, such as X-Signature."
    )
    prefix: str = Field(
        default=_ROW.prefix,
        max_length=32,
        pattern=PRINTABLE,
        description='What stands before it in the header, such as "sha256=".',
    )
    encoding: rows.Encoding = Field(default=_ROW.encoding, description="How the signature is written.")
    algorithm: rows.HashName = Field(
        default=_ROW.algorithm, description="The hash under the HMAC. sha1 is for old callers that know nothing better."
    )
    timestamp_header: str | None = Field(
        default=None,
        max_length=128,
        pattern=HEADER,
        description=(
            "The header that carries the time in seconds since 1970. With it, `<time>.<body>` must be signed and "
            "the time is checked; without it, an old request can be sent again."
        ),
    )
    tolerance: Duration = Field(
        default=_ROW.tolerance,
        ge=_TOLERANCE_MIN,
        le=_TOLERANCE_MAX,
        description="How far that time may be from ours, to either side. Only with timestampHeader.",
    )

    @model_validator(mode="after")
    def _tolerance_needs_a_time(self) -> "Hmac":
        if "tolerance" in self.model_fields_set and self.timestamp_header is None:
            broken("tolerance has no meaning without timestampHeader", "timestampHeader beside it", "tolerance")
        return self


class Basic(Model):
    """HTTP Basic authentication."""

    secret_ref: SecretReference = Field(
        description=(
            "The Secret that holds user and password: entries username and password (type kubernetes.io/basic-"
            "auth), or, if keys are named or those two are absent, entries that each hold user:password."
        )
    )


class Bearer(Model):
    """A token in the header `Authorization: Bearer ...`."""

    secret_ref: SecretReference = Field(description="The Secret whose entries each hold a token.")


class Unverified(Model):
    """No proof at all: whoever knows the URL may send. Then let the id be the only path."""


Member = (
    Signed
    | GitHub
    | SignedWithTime
    | Meta
    | Token
    | SignedUrl
    | SignedUrlWithTime
    | Discord
    | Sns
    | StandardWebhooks
    | Hmac
    | Basic
    | Bearer
    | Unverified
)


class Verification(Union):
    """Exactly one member: the scheme."""

    WHAT = "verification"

    github: GitHub | None = Field(default=None, description="GitHub: X-Hub-Signature-256.")
    stripe: SignedWithTime | None = Field(default=None, description="Stripe: Stripe-Signature, with its time.")
    shopify: Signed | None = Field(default=None, description="Shopify: X-Shopify-Hmac-SHA256.")
    slack: SignedWithTime | None = Field(
        default=None,
        description="Slack: X-Slack-Signature and X-Slack-Request-Timestamp.",
    )
    twilio: SignedUrl | None = Field(default=None, description="Twilio: X-Twilio-Signature, over URL and form.")
    gitlab: Token | None = Field(default=None, description="GitLab: X-Gitlab-Token.")
    meta: Meta | None = Field(
        default=None,
        description="Meta (Facebook, Instagram, Messenger, WhatsApp): X-Hub-Signature-256; answers hub.challenge.",
    )
    okta: Token | None = Field(
        default=None, description="Okta event hooks: Authorization; answers X-Okta-Verification-Challenge."
    )
    x: Signed | None = Field(
        default=None, description="X, once Twitter: X-Twitter-Webhooks-Signature; answers crc_token."
    )
    microsoft_graph: Token | None = Field(
        default=None, description="Microsoft Graph: clientState of each notification; answers validationToken."
    )
    zoom: SignedWithTime | None = Field(
        default=None, description="Zoom: x-zm-signature, with its time; answers endpoint.url_validation."
    )
    paddle: SignedWithTime | None = Field(default=None, description="Paddle Billing: Paddle-Signature, with its time.")
    square: SignedUrl | None = Field(
        default=None, description="Square: X-Square-HmacSha256-Signature, over URL and body."
    )
    hubspot: SignedUrlWithTime | None = Field(
        default=None, description="HubSpot: X-HubSpot-Signature-v3, over URL, body and time."
    )
    linear: SignedWithTime | None = Field(
        default=None, description="Linear: Linear-Signature, and the time in the body."
    )
    discord: Discord | None = Field(
        default=None, description="Discord: X-Signature-Ed25519, with its time; answers PING."
    )
    pagerduty: Signed | None = Field(default=None, description="PagerDuty v3: X-PagerDuty-Signature.")
    docusign: Signed | None = Field(default=None, description="DocuSign Connect: X-DocuSign-Signature-1 and further.")
    dropbox: Signed | None = Field(default=None, description="Dropbox: X-Dropbox-Signature; answers challenge.")
    sns: Sns | None = Field(
        default=None, description="Amazon SNS: a signature in the body, by a certificate; confirms subscriptions."
    )
    standard_webhooks: StandardWebhooks | None = Field(
        default=None, description="Standard Webhooks, as Svix and many others send: v1 and v1a."
    )
    hmac: Hmac | None = Field(default=None, description="Any HMAC of the body in a header.")
    basic: Basic | None = Field(default=None, description="HTTP Basic: user and password.")
    bearer: Bearer | None = Field(default=None, description="A bearer token.")
    none: Unverified | None = Field(default=None, description="No proof: `none: {}`.")

    @property
    def scheme(self) -> rows.Scheme:
        """The name of the only member."""
        return cast("rows.Scheme", next(iter(self.model_dump(by_alias=True, exclude_none=True))))

    @property
    def member(self) -> Member:
        """The only member."""
        found = (getattr(self, name) for name in type(self).model_fields)
        return cast("Member", next(member for member in found if member is not None))

    @property
    def names_events(self) -> bool:
        """Whether the provider gives each event an id."""
        return self.scheme in NAMES_EVENTS

    @property
    def heals(self) -> bool:
        """Whether the provider is asked for what never arrived."""
        return self.github is not None and self.github.gap_healing is not None

    @property
    def secrets(self) -> tuple[SecretReference, ...]:
        """The Secrets that it names itself; those of SigningKeys are theirs to name."""
        member = self.member
        if isinstance(member, Basic | Bearer | Token):
            return (member.secret_ref,)
        if isinstance(member, Meta):
            return (member.verify_token_ref,)
        if isinstance(member, GitHub) and member.gap_healing is not None:
            return (member.gap_healing.token_secret_ref,)
        return ()
