"""How a destination is connected to: headers and tokens that are secrets, certificates, and the proxy on the way."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from kapsel_egress import urls
from kapsel_resources.kinds.key_backend import SecretEntry, SecretName
from kapsel_resources.kinds.model import ENTRY, PROXY_URL, SCOPE, SUBDOMAIN, TEXT, Model, broken
from kapsel_resources.rules import Rule, matches
from kapsel_store import rows

_TLS: Final = rows.Tls()


def _url(url: str) -> str:
    if reason := urls.wrong(url):
        broken(reason, urls.ALLOWED)
    return url


URL_FORMS: Final = tuple(matches(form, f"{wrong}; allowed: {urls.ALLOWED}") for form, wrong in urls.FORMS)
Url = Annotated[str, AfterValidator(_url), *URL_FORMS]


class HeaderSource(Model):
    """Where the value of a header is, if it is a secret."""

    secret_key_ref: SecretEntry = Field(
        description="The entry that holds the value: one line of printable ASCII. Line ends after it are ignored."
    )


class Authorities(Model):
    """An entry of a core Secret of the same namespace that holds certificates of authorities."""

    name: str = Field(max_length=253, pattern=SUBDOMAIN, description="Name of the Secret, in the same namespace.")
    key: str = Field(
        default="ca.crt", min_length=1, max_length=253, pattern=ENTRY, description="The entry, which is PEM."
    )

    @property
    def key_name(self) -> str:
        """The name that the entry has in the rows."""
        return f"ca/{self.name}/{self.key}"


class Tls(Model):
    """What holds for a TLS connection beside the rules for all of them."""

    ca_secret_ref: Authorities | None = Field(
        default=None,
        description=(
            "The authorities that are trusted, and no others. Without it: those of the system, and of "
            "KAPSEL_DELIVERER_CA_FILE."
        ),
    )
    client_certificate_secret_ref: SecretName | None = Field(
        default=None,
        description=(
            "The Secret of type kubernetes.io/tls with which kapsel proves itself (mTLS): tls.crt with the "
            "certificate and what leads to its authority, tls.key with the key, without a password."
        ),
    )
    min_version: Literal["1.2", "1.3"] = Field(
        default=_TLS.min_version, description="The lowest version of TLS. Nothing older than 1.2 is ever spoken."
    )

    def row(self) -> rows.Tls:
        """Return the row."""
        ca, certificate = self.ca_secret_ref, self.client_certificate_secret_ref
        return rows.Tls(
            ca_name=None if ca is None else ca.key_name,
            certificate_name=None if certificate is None else f"certificate/{certificate.name}",
            min_version=self.min_version,
        )


class OAuth2(Model):
    """Access tokens by the client credentials grant of OAuth 2 (RFC 6749, 4.4), sent as `Authorization: Bearer`."""

    token_url: Url = Field(
        alias="tokenURL",
        min_length=1,
        max_length=urls.LONGEST,
        description="Where tokens are asked for. The egress rules of the Relay hold for it as for the destination.",
    )
    client_id_secret_ref: SecretEntry = Field(description="The entry that holds the id of the client.")
    client_secret_secret_ref: SecretEntry = Field(description="The entry that holds its secret.")
    scopes: tuple[Annotated[str, Field(min_length=1, max_length=256, pattern=SCOPE)], ...] = Field(
        default=(), strict=False, max_length=32, description="Scopes to ask for."
    )
    audience: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        pattern=TEXT,
        description="For whom the token is meant, where the server wants that said, as Auth0 does.",
    )
    authentication: Literal["Basic", "Post"] = Field(
        default="Basic",
        description=(
            "How the client proves itself. Basic: in the Authorization header. Post: as client_id and client_secret "
            "in the form."
        ),
    )
    tls: Tls | None = Field(
        default=None, description="For the connection to tokenURL. That to the destination has its own."
    )

    def row(self) -> rows.OAuth2:
        """Return the row."""
        return rows.OAuth2(
            token_url=self.token_url,
            client_id_name=entry_name(self.client_id_secret_ref),
            client_secret_name=entry_name(self.client_secret_secret_ref),
            scopes=self.scopes,
            audience=self.audience,
            authentication=self.authentication,
            tls=None if self.tls is None else self.tls.row(),
        )


class Proxy(Model):
    """A forward proxy that every delivery goes through, http as well as https, in a tunnel (CONNECT)."""

    RULES = (
        Rule(
            "!has(self.caSecretRef) || self.url.startsWith('https://')",
            "authorities are of no use on a way without TLS: allowed with an https url only",
            "caSecretRef",
        ),
    )

    url: Url = Field(
        max_length=512,
        pattern=PROXY_URL,
        description=(
            "Its URL, such as http://proxy.example.com:3128; with https the way to it is TLS. kapsel resolves and "
            "judges names itself and asks the proxy for the address that was judged, so no name leads around the rules."
        ),
    )
    credentials_secret_ref: SecretName | None = Field(
        default=None,
        description="The Secret with the entries username and password, if the proxy wants them (Basic).",
    )
    ca_secret_ref: Authorities | None = Field(
        default=None,
        description=(
            "The authorities that are trusted for the proxy itself, and no others; with an https url only. Without it: "
            "those of the system, and of KAPSEL_DELIVERER_CA_FILE."
        ),
    )

    @model_validator(mode="after")
    def _authorities_for_tls(self) -> "Proxy":
        if self.ca_secret_ref is not None and not self.url.startswith("https://"):
            broken("authorities are of no use on a way without TLS", "caSecretRef with an https url", "caSecretRef")
        return self

    @property
    def secret_names(self) -> frozenset[str]:
        """The Secrets that are needed."""
        return frozenset(one.name for one in (self.credentials_secret_ref, self.ca_secret_ref) if one is not None)

    def row(self) -> rows.Proxy:
        """Return the row."""
        reference = self.credentials_secret_ref
        return rows.Proxy(
            url=self.url,
            credentials_name=None if reference is None else f"basic/{reference.name}",
            ca_name=None if self.ca_secret_ref is None else self.ca_secret_ref.key_name,
        )


def entry_name(entry: SecretEntry) -> str:
    """Return the name that an entry of a Secret has in the rows."""
    return f"secret/{entry.name}/{entry.key}"
