"""Where a provider puts the id of an event, by which a repetition is known.

For the receiver's idempotency, and for the plan, which has to know whether a scheme names its events at all. What kind
of event it is, `kapsel_expressions.event` finds out. Pure.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kapsel_store.rows import Scheme


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


@dataclass(frozen=True, slots=True)
class ButFor:
    """The whole body, but for the numbers under this name: they count the tries."""

    name: str

    def rest(self, body: bytes) -> bytes | None:
        """Return a body without them, None if there is none: then it is not of the form that is known."""
        # In JSON a quoted text before a colon is a name, wherever it stands.
        rest, found = re.subn(rb'"%s"\s*:\s*\d+' % self.name.encode(), b"", body)
        return rest if found else None


Place = InHeader | InBody | ButFor

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
    # HubSpot says of its eventId that it may not be unique, and DocuSign's events have none.
    "hubspot": ButFor("attemptNumber"),
    "linear": InHeader("Linear-Delivery"),
    "pagerduty": InBody(("event", "id")),
    "docusign": ButFor("retryCount"),
    "sns": InBody(("MessageId",)),
    "standardWebhooks": InHeader("webhook-id"),
}


_DOMAIN: Final = b"kapsel/idempotency/v1"


def encode(source: str, values: Sequence[bytes]) -> bytes:
    """Hash a source and its values so that no other source or list of values gives the same bytes."""
    parts = [len(part).to_bytes(8) + part for part in (_DOMAIN, source.encode(), *values)]
    return hashlib.sha256(b"".join(parts)).digest()


def header_key(name: str, *values: bytes) -> bytes:
    """Return the idempotency key of an event whose provider gives its id in a header."""
    return encode("provider", (name.lower().encode(), *values))


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
