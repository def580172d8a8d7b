"""A key of AWS KMS, of the spec ECC_NIST_EDWARDS25519.

The algorithm is ED25519_SHA_512 over the message itself (RAW). KMS also offers ED25519_PH_SHA_512 over a digest, which
is Ed25519ph: another signature, that no verifier of a log accepts. Credentials come from a Secret, or from STS for the
token that the pod was given; those are renewed before they end.
"""

import base64
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers import foreign_bytes, hosts
from kapsel_attestor.signers.rest import Answer, Service, problem
from kapsel_attestor.signers.sigv4 import Credentials, signed_headers
from kapsel_store.key_backends import AwsKey

_EARLY: Final = timedelta(minutes=5)
# By their names, because KMS says nearly everything with status 400.
_AWAY: Final = (
    "Throttling",
    "LimitExceeded",
    "KMSInternal",
    "DependencyTimeout",
    "KeyUnavailable",
    "ServiceUnavailable",
)
_DISABLED: Final = ("DisabledException", "KMSInvalidStateException", "NotFoundException")


class AwsBackend:
    """One key."""

    def __init__(
        self, where: AwsKey, opens: Mapping[str, str], token_file: Path | None, identity_hosts: Collection[str]
    ) -> None:
        self._where = where
        self._service = Service("AWS KMS", where.endpoint)
        self._credentials = (
            Credentials(opens["accessKeyId"], opens["secretAccessKey"], opens.get("sessionToken")) if opens else None
        )
        self._until: datetime | None = None  # when credentials of STS end
        self._token_file = token_file
        self._identity_hosts = identity_hosts

    def public_key(self) -> bytes:
        answer = self._ask("GetPublicKey", {"KeyId": self._where.key_id})
        if answer.text("KeySpec") != "ECC_NIST_EDWARDS25519":
            raise SigningError(f"{self._where} is of the spec {answer.text('KeySpec')}; allowed: ECC_NIST_EDWARDS25519")
        return foreign_bytes.public_key(answer.text("PublicKey"), f"the public key of {self._where}")

    def sign(self, message: bytes) -> bytes:
        answer = self._ask(
            "Sign",
            {
                "KeyId": self._where.key_id,
                "Message": base64.b64encode(message).decode(),
                "MessageType": "RAW",
                "SigningAlgorithm": "ED25519_SHA_512",
            },
        )
        if answer.text("SigningAlgorithm") != "ED25519_SHA_512":
            raise SigningError(
                f"{self._where} has signed with {answer.text('SigningAlgorithm')}, not with ED25519_SHA_512"
            )
        return foreign_bytes.decoded(answer.text("Signature"), f"the signature of {self._where}")

    def _ask(self, operation: str, body: Mapping[str, str]) -> Answer:
        content = json.dumps(body).encode()
        headers = signed_headers(
            self._valid_credentials(),
            method="POST",
            path="/",
            headers={
                "Host": self._service.host,
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": f"TrentService.{operation}",
            },
            body=content,
            region=self._where.region,
            service="kms",
            now=datetime.now(UTC),
        )
        answer = self._service.request("POST", "/", headers, content)
        if answer.status == 200:
            return answer
        kind, words = str(answer.body.get("__type", "")).rpartition("#")[2], problem(answer)
        if any(name in kind for name in _AWAY):
            raise SignerAwayError(f"AWS KMS cannot serve {operation} now: {words}")
        if kind in _DISABLED:
            raise SigningError(f"{self._where} cannot be used: {words}; enable it, or name another")
        if "ExpiredToken" in kind and self._until is not None:
            self._until = datetime.now(UTC)  # the role is assumed anew the next time
        raise SigningError(
            f"AWS KMS refuses {operation} with {self._where}: {words or f'status {answer.status}'}; allow "
            f"kms:GetPublicKey and kms:Sign with it to those whose credentials these are"
        )

    def _valid_credentials(self) -> Credentials:
        if self._where.role_arn is not None and (self._until is None or datetime.now(UTC) > self._until - _EARLY):
            self._assume(self._where.role_arn, self._where.role_endpoint or "")
        if self._credentials is None:
            raise SigningError(f"there are no credentials for {self._where}")
        return self._credentials

    def _assume(self, role: str, endpoint: str) -> None:
        """Trade the token of the pod for credentials of a role."""
        hosts.require(endpoint, "the token of the pod for AWS", hosts.AWS_STS, self._identity_hosts)
        if self._token_file is None:
            raise SigningError(
                f"there is no token to assume {role} with: mount one for the audience sts.amazonaws.com, and name its "
                f"file with KAPSEL_ATTESTOR_AWS_TOKEN_FILE"
            )
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise SigningError(f"{self._token_file} cannot be read: {error.strerror}") from error
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": "kapsel-attestor",
            "WebIdentityToken": token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = Service("AWS STS", endpoint).request("POST", "/", headers, urlencode(form).encode())
        if answer.status != 200:
            raise SigningError(f"AWS STS does not let the attestor assume {role}: {problem(answer)}")
        path = ("AssumeRoleWithWebIdentityResponse", "AssumeRoleWithWebIdentityResult", "Credentials")
        self._credentials = Credentials(
            answer.text(*path, "AccessKeyId"), answer.text(*path, "SecretAccessKey"), answer.text(*path, "SessionToken")
        )
        expiration = answer.body[path[0]][path[1]][path[2]].get("Expiration")
        if not isinstance(expiration, int | float):
            raise SigningError("the answer of AWS STS does not say until when the credentials are good")
        self._until = datetime.fromtimestamp(expiration, UTC)
