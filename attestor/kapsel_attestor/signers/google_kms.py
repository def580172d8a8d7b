"""A key version of Google Cloud KMS, of the algorithm EC_SIGN_ED25519.

The message goes as `data` and never as `digest`, with its checksum; that of the signature is checked when it comes
back, as Google asks of its clients.
"""

import base64
import json
from collections.abc import Collection
from typing import Any

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers import foreign_bytes, hosts
from kapsel_attestor.signers.crc32c import crc32c
from kapsel_attestor.signers.google_tokens import Tokens
from kapsel_attestor.signers.rest import Answer, Service, problem
from kapsel_store.key_backends import GoogleKey


class GoogleBackend:
    """One version of one key."""

    def __init__(
        self, where: GoogleKey, service_account: str | None, metadata: str, identity_hosts: Collection[str]
    ) -> None:
        self._where = where
        self._as_pod = service_account is None
        self._identity_hosts = identity_hosts
        self._service = Service("Google Cloud KMS", where.endpoint)
        self._tokens = Tokens(service_account, metadata)

    def public_key(self) -> bytes:
        answer = self._ask("GET", f"/v1/{self._where.name}/publicKey", None)
        if answer.text("algorithm") != "EC_SIGN_ED25519":
            raise SigningError(
                f"{self._where} is of the algorithm {answer.text('algorithm')}; allowed: EC_SIGN_ED25519"
            )
        pem = answer.text("pem")
        _require_checksum(answer, "pemCrc32c", pem.encode(), f"the public key of {self._where}")
        body = "".join(line for line in pem.splitlines() if not line.startswith("-----"))
        return foreign_bytes.public_key(body, f"the public key of {self._where}")

    def sign(self, message: bytes) -> bytes:
        body = {"data": base64.b64encode(message).decode(), "dataCrc32c": str(crc32c(message))}
        answer = self._ask("POST", f"/v1/{self._where.name}:asymmetricSign", body)
        if answer.text("name") != self._where.name:
            raise SigningError(f"another version than {self._where} has signed: {answer.text('name')}")
        if answer.body.get("verifiedDataCrc32c") is not True:
            raise SignerAwayError(f"{self._where} has not got the message as it was sent")
        what = f"the signature of {self._where}"
        signature = foreign_bytes.decoded(answer.text("signature"), what)
        _require_checksum(answer, "signatureCrc32c", signature, what)
        return signature

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        if self._as_pod:
            hosts.require(self._where.endpoint, "the pod's token for Google", hosts.GOOGLE_KMS, self._identity_hosts)
        headers = {"Authorization": f"Bearer {self._tokens.current()}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        answer = self._service.request(method, path, headers, content)
        if answer.status == 200:
            return answer
        words = problem(answer) or f"status {answer.status}"
        match answer.status:
            case 401:
                self._tokens.forget()
                raise SigningError(f"Google Cloud KMS does not take the credentials for {self._where}: {words}")
            case 403:
                raise SigningError(
                    f"Google Cloud KMS refuses {self._where}: {words}; grant roles/cloudkms.signerVerifier on the key"
                )
        raise SigningError(f"{self._where} cannot be used: {words}; enable it, or name another")


def _require_checksum(answer: Answer, name: str, content: bytes, what: str) -> None:
    if answer.text(name) != str(crc32c(content)):
        raise SignerAwayError(f"{what} was changed on its way: its checksum does not fit")
