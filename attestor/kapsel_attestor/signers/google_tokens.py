"""Access tokens for Google's services: for the key of a service account (RFC 7523), or from the metadata server."""

import base64
import json
import time
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from kapsel_attestor.errors import SigningError
from kapsel_attestor.signers.rest import Answer, Service, problem

SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
_LIFE: Final = 3600  # seconds that an assertion is good for, the most that Google takes
_EARLY: Final = 60.0  # seconds before its end at which a token is renewed
_METADATA: Final = "/computeMetadata/v1/instance/service-accounts/default/token"


class Tokens:
    """The token of one identity, renewed in time."""

    def __init__(self, service_account: str | None, metadata: str) -> None:
        """Ask with the JSON key of a service account, or, without one, the metadata server at a URL."""
        self._service_account = service_account
        self._metadata = metadata
        self._token: str | None = None
        self._end = 0.0

    def current(self) -> str:
        """Return a token that is good for a while."""
        if self._token is None or time.monotonic() > self._end - _EARLY:
            answer = self._of_metadata() if self._service_account is None else self._of_account(self._service_account)
            self._token = answer.text("access_token")
            seconds = answer.body.get("expires_in")
            self._end = time.monotonic() + (seconds if isinstance(seconds, int) else 0)
        return self._token

    def forget(self) -> None:
        """Get another token the next time."""
        self._token = None

    def _of_metadata(self) -> Answer:
        answer = Service("the metadata server", self._metadata).request("GET", _METADATA, {"Metadata-Flavor": "Google"})
        if answer.status != 200:
            raise SigningError(
                f"the metadata server has no token ({problem(answer) or answer.status}): give the pod a service "
                f"account with workload identity, or the SigningKey a credentialsSecretRef"
            )
        return answer

    def _of_account(self, text: str) -> Answer:
        account = _account(text)
        parts = urlsplit(account["token_uri"])
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SigningError("the token_uri of the service account's key is not https")
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": assertion(account, int(time.time())),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        service = Service("Google's token server", f"{parts.scheme}://{parts.netloc}")
        answer = service.request("POST", parts.path or "/", headers, urlencode(form).encode())
        if answer.status != 200:
            raise SigningError(f"Google gives {account['client_email']} no token: {problem(answer)}")
        return answer


def _account(text: str) -> dict[str, str]:
    try:
        account: Any = json.loads(text)
    except ValueError as error:
        raise SigningError("the key of the service account is not JSON") from error
    wanted = ("client_email", "private_key", "token_uri")
    if not isinstance(account, dict) or not all(isinstance(account.get(name), str) for name in wanted):
        raise SigningError(f"the key of the service account lacks one of {', '.join(wanted)}")
    return {name: account[name] for name in (*wanted, "private_key_id") if isinstance(account.get(name), str)}


def assertion(account: dict[str, str], now: int) -> str:
    """Return the signed statement that is traded for a token (RFC 7523, RS256)."""
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError as error:
        raise SigningError("keys of service accounts need the package cryptography: pip install '.[google]'") from error
    try:
        key = serialization.load_pem_private_key(account["private_key"].encode(), None)
    except (ValueError, TypeError) as error:
        raise SigningError(f"the private_key of the service account cannot be read: {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SigningError("the private_key of the service account is not of RSA")
    named = {"kid": account["private_key_id"]} if "private_key_id" in account else {}
    header = {"alg": "RS256", "typ": "JWT", **named}
    claims = {
        "iss": account["client_email"],
        "scope": SCOPE,
        "aud": account["token_uri"],
        "iat": now,
        "exp": now + _LIFE,
    }
    signed = f"{_part(header)}.{_part(claims)}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_encoded(signature)}"


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
