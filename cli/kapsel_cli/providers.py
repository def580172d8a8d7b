"""Signs a webhook as its provider would: what `kapsel send --as` and the demonstration put on the wire.

Written from the providers' own documentation and not from the receiver's checks, so that each shows the other right.
Secrets are the text that a provider's settings page shows.
"""

import base64
import hmac
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

from nacl.signing import SigningKey

from kapsel_resources import key_values
from kapsel_store.rows import Scheme, Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One webhook that is about to be posted."""

    body: bytes
    secret: bytes
    id: str  # the provider's own name for the event: a repeated one is a duplicate
    type: str  # such as push or charge.succeeded
    now: datetime
    url: str = ""  # as the provider has it: some sign it

    @property
    def timestamp(self) -> str:
        """The time as most providers write it."""
        return str(int(self.now.timestamp()))


def headers(verification: Verification, webhook: Outgoing) -> dict[str, str]:
    """Return the headers that prove where a webhook comes from; `verification` says how, as for an endpoint."""
    return {"Content-Type": "application/json"} | _PROVIDERS[verification.scheme](verification, webhook)


def new_id(scheme: Scheme) -> str:
    """Return an event id as the provider would make one."""
    prefix = {"stripe": "evt_", "standardWebhooks": "msg_", "slack": "Ev"}.get(scheme, "")
    return f"{prefix}{uuid.uuid4().hex}" if prefix else str(uuid.uuid4())


def _github(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {
        "User-Agent": "GitHub-Hookshot/kapsel",
        "X-GitHub-Event": webhook.type,
        "X-GitHub-Delivery": webhook.id,
        "X-Hub-Signature-256": f"sha256={hmac.digest(webhook.secret, webhook.body, 'sha256').hex()}",
    }


def _stripe(_: Verification, webhook: Outgoing) -> dict[str, str]:
    signed = f"{webhook.timestamp}.".encode() + webhook.body
    signature = hmac.digest(webhook.secret, signed, "sha256").hex()
    return {
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": f"t={webhook.timestamp},v1={signature}",
    }


def _shopify(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {
        "X-Shopify-Topic": webhook.type,
        "X-Shopify-Webhook-Id": webhook.id,
        "X-Shopify-Hmac-SHA256": base64.b64encode(hmac.digest(webhook.secret, webhook.body, "sha256")).decode(),
    }


def _slack(_: Verification, webhook: Outgoing) -> dict[str, str]:
    signed = f"v0:{webhook.timestamp}:".encode() + webhook.body
    return {
        "X-Slack-Request-Timestamp": webhook.timestamp,
        "X-Slack-Signature": f"v0={hmac.digest(webhook.secret, signed, 'sha256').hex()}",
    }


def _standard_webhooks(_: Verification, webhook: Outgoing) -> dict[str, str]:
    signed = f"{webhook.id}.{webhook.timestamp}.".encode() + webhook.body
    if webhook.secret.startswith(b"whsk_"):
        signing_key = SigningKey(key_values.ed25519(webhook.secret).secret)
        version, signature = "v1a", signing_key.sign(signed).signature
    else:
        version, signature = "v1", hmac.digest(key_values.standard(webhook.secret).secret, signed, "sha256")
    return {
        "webhook-id": webhook.id,
        "webhook-timestamp": webhook.timestamp,
        "webhook-signature": f"{version},{base64.b64encode(signature).decode()}",
    }


def _base64(secret: bytes, signed: bytes, algorithm: str = "sha256") -> str:
    return base64.b64encode(hmac.digest(secret, signed, algorithm)).decode()


def _twilio(_: Verification, webhook: Outgoing) -> dict[str, str]:
    parameters = sorted({*parse_qsl(webhook.body.decode(errors="replace"), keep_blank_values=True)})
    signed = webhook.url + "".join(name + value for name, value in parameters)
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "I-Twilio-Idempotency-Token": webhook.id,
        "X-Twilio-Signature": _base64(webhook.secret, signed.encode(), "sha1"),
    }


def _gitlab(_: Verification, webhook: Outgoing) -> dict[str, str]:
    token = webhook.secret.decode()
    return {"X-Gitlab-Token": token, "X-Gitlab-Event": webhook.type, "Idempotency-Key": webhook.id}


def _meta(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.digest(webhook.secret, webhook.body, 'sha256').hex()}"}


def _okta(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"Authorization": webhook.secret.decode()}


def _x(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"x-twitter-webhooks-signature": f"sha256={_base64(webhook.secret, webhook.body)}"}


def _microsoft_graph(_: Verification, _webhook: Outgoing) -> dict[str, str]:
    return {}  # the secret stands in the body, as clientState of each notification


def _zoom(_: Verification, webhook: Outgoing) -> dict[str, str]:
    signed = f"v0:{webhook.timestamp}:".encode() + webhook.body
    return {
        "x-zm-request-timestamp": webhook.timestamp,
        "x-zm-signature": f"v0={hmac.digest(webhook.secret, signed, 'sha256').hex()}",
    }


def _paddle(_: Verification, webhook: Outgoing) -> dict[str, str]:
    signed = f"{webhook.timestamp}:".encode() + webhook.body
    return {"Paddle-Signature": f"ts={webhook.timestamp};h1={hmac.digest(webhook.secret, signed, 'sha256').hex()}"}


def _square(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"x-square-hmacsha256-signature": _base64(webhook.secret, webhook.url.encode() + webhook.body)}


def _hubspot(_: Verification, webhook: Outgoing) -> dict[str, str]:
    milliseconds = str(int(webhook.now.timestamp() * 1000))
    signed = b"POST" + webhook.url.encode() + webhook.body + milliseconds.encode()
    return {
        "X-HubSpot-Request-Timestamp": milliseconds,
        "X-HubSpot-Signature-v3": _base64(webhook.secret, signed),
    }


def _linear(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {
        "Linear-Delivery": webhook.id,
        "Linear-Event": webhook.type,
        "Linear-Signature": hmac.digest(webhook.secret, webhook.body, "sha256").hex(),
    }


def _discord(_: Verification, webhook: Outgoing) -> dict[str, str]:
    pair = SigningKey(key_values.ed25519(webhook.secret).secret)
    return {
        "X-Signature-Timestamp": webhook.timestamp,
        "X-Signature-Ed25519": pair.sign(webhook.timestamp.encode() + webhook.body).signature.hex(),
    }


def _pagerduty(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"X-PagerDuty-Signature": f"v1={hmac.digest(webhook.secret, webhook.body, 'sha256').hex()}"}


def _docusign(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"X-DocuSign-Signature-1": _base64(webhook.secret, webhook.body)}


def _dropbox(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"X-Dropbox-Signature": hmac.digest(webhook.secret, webhook.body, "sha256").hex()}


def _sns(_: Verification, _webhook: Outgoing) -> dict[str, str]:
    return {"Content-Type": "text/plain; charset=UTF-8"}  # the signature stands in the body, and is Amazon's alone


def _hmac(verification: Verification, webhook: Outgoing) -> dict[str, str]:
    stamped = {} if verification.timestamp_header is None else {verification.timestamp_header: webhook.timestamp}
    signed = f"{webhook.timestamp}.".encode() + webhook.body if stamped else webhook.body
    digest = hmac.digest(webhook.secret, signed, verification.algorithm)
    text = digest.hex() if verification.encoding == "hex" else base64.b64encode(digest).decode()
    return {**stamped, verification.header or "X-Signature": f"{verification.prefix}{text}"}


def _basic(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(webhook.secret).decode()}"}


def _bearer(_: Verification, webhook: Outgoing) -> dict[str, str]:
    return {"Authorization": f"Bearer {webhook.secret.decode()}"}


def _none(_: Verification, _webhook: Outgoing) -> dict[str, str]:
    return {}


_PROVIDERS: Final[Mapping[Scheme, Callable[[Verification, Outgoing], dict[str, str]]]] = {
    "github": _github,
    "stripe": _stripe,
    "shopify": _shopify,
    "slack": _slack,
    "twilio": _twilio,
    "gitlab": _gitlab,
    "meta": _meta,
    "okta": _okta,
    "x": _x,
    "microsoftGraph": _microsoft_graph,
    "zoom": _zoom,
    "paddle": _paddle,
    "square": _square,
    "hubspot": _hubspot,
    "linear": _linear,
    "discord": _discord,
    "pagerduty": _pagerduty,
    "docusign": _docusign,
    "dropbox": _dropbox,
    "sns": _sns,
    "standardWebhooks": _standard_webhooks,
    "hmac": _hmac,
    "basic": _basic,
    "bearer": _bearer,
    "none": _none,
}
