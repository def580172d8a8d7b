"""A claimed delivery, for tests of what is made of one: they say what matters to them, and the rest is as it may be."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from kapsel_store.rows import Claimed


def claimed(**fields: Any) -> Claimed:
    """Return a delivery on its first try, made just now."""
    now = datetime.now(UTC)
    return Claimed(
        **{
            "id": uuid4(),
            "event_id": uuid4(),
            "endpoint_id": uuid4(),
            "destination_id": uuid4(),
            "number": 1,
            "created_at": now,
            "expires_at": now + timedelta(days=3),
            "received_at": now,
            "content_type": "text/plain",
            "headers": "[]",
            "body": b"",
            "body_hash": bytes(32),
            "salt": None,
            "correlation_id": None,
            **fields,
        }
    )
