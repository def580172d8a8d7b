"""AWS Signature Version 4: the headers that prove who asks. Pure; checked with the examples that AWS publishes.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, for requests whose path
needs no encoding and that have no query, as all of KMS and STS are.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def signed_headers(
    credentials: Credentials,
    *,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers of a request, with what signs them; `headers` has the host, `now` is in UTC."""
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    token = {} if credentials.session_token is None else {"X-Amz-Security-Token": credentials.session_token}
    sent = {**headers, "X-Amz-Date": moment, **token}
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    names, canonical = canonical_request(method, path, sent, body)
    to_sign = "\n".join((ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = signing_key(credentials.secret_access_key, moment[:8], region, service)
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{credentials.access_key_id}/{scope}"
    return {
        **sent,
        "Authorization": f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}",
    }


def canonical_request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """Return the names of the signed headers and the request in the form that is signed."""
    folded = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    names = ";".join(sorted(folded))
    lines = "".join(f"{name}:{folded[name]}\n" for name in sorted(folded))
    return names, "\n".join((method, path, "", lines, names, hashlib.sha256(body).hexdigest()))


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the key of one day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
