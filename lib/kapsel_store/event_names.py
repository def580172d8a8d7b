"""What a provider calls an event: its id, by which a repetition is known, and its type, by which people choose.

Two tables, and the look into a webhook that they direct: for the receiver's idempotency, for expressions, and for the
plan, which has to know whether a scheme names its events at all. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kapsel_store.rows import Scheme


class Headers(Protocol):
    """What is asked of a case-insensitive multi-dict."""

    def getall(self, key: str, default: Sequence[str]) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class InHeader:
    """A header."""

    name: str


@dataclass(frozen=True, slots=True)
class InBody:
    """A member of the JSON body, or of an object in it."""

    path: tuple[str, ...]

    @property
    def dotted(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)


Place = InHeader | InBody

# Standard Webhooks is here for its header of today; the receiver also reads the older name, if that one is signed.
IDS: Final[Mapping[Scheme, Place]] = {
    "github": InHeader("X-GitHub-Delivery"),
    "stripe": InBody(("id",)),
    "shopify": InHeader("X-Shopify-Webhook-Id"),
    "slack": InBody(("event_id",)),
    "twilio": InHeader("I-Twilio-Idempotency-Token"),
    "gitlab": InHeader("Idempotency-Key"),
    "okta": InBody(("eventId",)),
    "paddle": InBody(("event_id",)),
    "square": InBody(("event_id",)),
    "linear": InHeader("Linear-Delivery"),
    "pagerduty": InBody(("event", "id")),
    "standardWebhooks": InHeader("webhook-id"),
}

TYPES: Final[Mapping[Scheme, Place]] = {
    "github": InHeader("X-GitHub-Event"),
    "stripe": InBody(("type",)),
    "shopify": InHeader("X-Shopify-Topic"),
    "slack": InBody(("event", "type")),
    "gitlab": InHeader("X-Gitlab-Event"),
    "meta": InBody(("object",)),
    "okta": InBody(("eventType",)),
    "zoom": InBody(("event",)),
    "paddle": InBody(("event_type",)),
    "square": InBody(("type",)),
    "linear": InHeader("Linear-Event"),
    "discord": InBody(("event", "type")),
    "pagerduty": InBody(("event", "event_type")),
    "docusign": InBody(("event",)),
    "standardWebhooks": InBody(("type",)),
}


def document(body: bytes) -> Any:
    """Return a JSON body as Python has it, None if it is something else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def member(document: Any, path: Sequence[str]) -> str | None:
    """Return a text in the depth of a document, None if there is none or it is empty."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, str) and document else None


def event_type(scheme: Scheme, headers: Headers, body: bytes) -> str | None:
    """Return what the provider calls this kind of event, None if it says nothing."""
    match TYPES.get(scheme):
        case InHeader(name=name):
            return next((value for value in headers.getall(name, ()) if value), None)
        case InBody(path=path):
            return member(document(body), path)
        case None:
            return None
