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

    @property
    def timestamp(self) -> str:
        """The time as most providers write it."""
        return str(int(self.now.timestamp()))


def headers(verification: Verification, webhook: Outgoing) -> dict[str, str]:
    """Return the headers that prove where a webhook comes from; `verification` says how, as for an endpoint."""
    return {"Content-Type": "application/json", **_PROVIDERS[verification.scheme](verification, webhook)}


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
    "standardWebhooks": _standard_webhooks,
    "hmac": _hmac,
    "basic": _basic,
    "bearer": _bearer,
    "none": _none,
}
