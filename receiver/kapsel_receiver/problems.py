"""The refusals a caller can meet, and how each is said: RFC 9457 problem details with a stable code.

`app`, `connection` and `intake` make a Refusal as a value; only here does it become an answer. The codes are an
interface: they label webhook_ingestion_total, and people write alerts and runbooks on them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kapsel_receiver import proofs
from kapsel_receiver.answers import Answer, lines

Code = (
    proofs.Code
    | Literal[
        "unknown_endpoint",
        "method_not_allowed",
        "request_malformed",
        "header_too_large",
        "header_timeout",
        "expectation_failed",
        "body_too_large",
        "body_timeout",
        "body_malformed",
        "body_incomplete",
        "rate_limited",
        "endpoint_suspended",
        "signing_key_missing",
        "certificate_unknown",
        "not_ready",
        "overloaded",
        "too_many_connections",
        "storage_unavailable",
        "storage_uncertain",
        "not_storable",
        "internal_error",
    ]
)

ANSWERS: Final[Mapping[Code, tuple[int, str]]] = {
    "signature_missing": (401, "The request is not signed"),
    "signature_malformed": (401, "The signature cannot be read"),
    "signature_mismatch": (401, "The signature does not match"),
    "timestamp_missing": (401, "The request carries no timestamp"),
    "timestamp_malformed": (401, "The timestamp cannot be read"),
    "timestamp_out_of_tolerance": (401, "The request is too old, or a clock is wrong"),
    "credentials_missing": (401, "The request carries no credentials"),
    "credentials_malformed": (401, "The credentials cannot be read"),
    "credentials_mismatch": (401, "The credentials do not match"),
    "unknown_endpoint": (404, "No such endpoint"),
    "method_not_allowed": (405, "Webhooks are sent with POST"),
    "request_malformed": (400, "The request is not valid HTTP"),
    "header_too_large": (431, "The request line or the headers are too large"),
    "header_timeout": (408, "The headers took too long"),
    "expectation_failed": (417, "The expectation cannot be met"),
    "body_too_large": (413, "The body is too large"),
    "body_timeout": (408, "The body took too long"),
    "body_malformed": (400, "The body is not framed as its headers say"),
    "body_incomplete": (400, "The connection was closed before the body ended"),
    "rate_limited": (429, "Too many requests"),
    "endpoint_suspended": (503, "The endpoint is suspended"),
    "signing_key_missing": (503, "The endpoint has no live key yet"),
    "certificate_unknown": (503, "The certificate of the signature is not here yet"),
    "not_ready": (503, "The receiver has no configuration yet"),
    "overloaded": (503, "The receiver has as much to store as it can hold"),
    "too_many_connections": (503, "The receiver has as many connections as it can hold"),
    "storage_unavailable": (503, "The database is away"),
    "storage_uncertain": (503, "The database did not confirm"),
    "not_storable": (500, "The database refused this webhook"),
    "internal_error": (500, "The receiver failed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a webhook was not taken; nothing of it is stored unless the code is storage_uncertain."""

    code: Code
    detail: str
    retry_after: int | None = None  # seconds
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False  # what follows on the connection cannot be trusted, or is not worth reading


def document(refusal: Refusal, correlation_id: str) -> bytes:
    """Return the body of the answer."""
    status, title = ANSWERS[refusal.code]
    return json.dumps(
        {
            "type": f"urn:kapsel:problem:{refusal.code}",
            "title": title,
            "status": status,
            "detail": refusal.detail,
            "code": refusal.code,
            "correlation_id": correlation_id,
        }
    ).encode()


def answer(refusal: Refusal, correlation_id: str) -> Answer:
    """Return the answer that says it."""
    headers = {"Content-Type": "application/problem+json", **dict(refusal.headers)}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    status, _ = ANSWERS[refusal.code]
    return Answer(status, lines(correlation_id, headers), document(refusal, correlation_id), close=refusal.close)
