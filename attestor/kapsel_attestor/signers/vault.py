"""A key of the transit engine of HashiCorp Vault or OpenBao.

Two requests: the public half of a version, and a signature by exactly that version. What comes back names the version
that has signed (`vault:v<N>:`), so a key that was rotated meanwhile is noticed before anybody verifies.
"""

import base64
import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from kapsel_attestor.errors import SigningError
from kapsel_attestor.signers import foreign_bytes, hosts
from kapsel_attestor.signers.rest import Answer, Service, problem
from kapsel_store.key_backends import VaultKey

_EARLY: Final = 30.0  # seconds before its end at which a token is renewed


class VaultBackend:
    """One version of one key."""

    def __init__(
        self, where: VaultKey, opens: Mapping[str, str], account_token: Path, identity_hosts: Collection[str]
    ) -> None:
        self._where = where
        self._service = Service("Vault", where.address, opens.get("ca"))
        self._token = opens.get("token")
        self._account_token = account_token
        self._identity_hosts = identity_hosts
        self._lease_end = 0.0  # of a token that logging in has brought

    def public_key(self) -> bytes:
        answer = self._ask("GET", f"keys/{self._where.key}")
        versions = answer.body.get("data", {}).get("keys", {})
        if answer.text("data", "type") != "ed25519":
            raise SigningError(f"{self._where} is of type {answer.text('data', 'type')}; allowed: ed25519")
        version = versions.get(str(self._where.version))
        if not isinstance(version, dict):
            known = ", ".join(sorted(versions)) or "none"
            raise SigningError(f"there is no {self._where}; versions of the key: {known}")
        return foreign_bytes.decoded(str(version.get("public_key", "")), f"the public key of {self._where}")

    def sign(self, message: bytes) -> bytes:
        wanted = {"input": base64.b64encode(message).decode(), "key_version": self._where.version}
        answer = self._ask("POST", f"sign/{self._where.key}", wanted)
        signature = answer.text("data", "signature")
        prefix = f"vault:v{self._where.version}:"
        if not signature.startswith(prefix):
            raise SigningError(f"another version than {self._where} has signed: {signature.rpartition(':')[0]}")
        return foreign_bytes.decoded(signature.removeprefix(prefix), f"the signature of {self._where}")

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        # Asked twice if a token from a login was taken back before its time; a token of a manifest is what it is.
        answer = self._once(method, path, body)
        if answer.status == 403 and self._where.role is not None:
            self._token = None
            answer = self._once(method, path, body)
        if answer.status == 200:
            return answer
        if answer.status == 403:
            raise SigningError(
                f"Vault refuses {method} {self._where.mount}/{path} ({problem(answer)}): the token must be valid, and "
                f"its policy must allow read of {self._where.mount}/keys/{self._where.key} and update of "
                f"{self._where.mount}/sign/{self._where.key}"
            )
        raise SigningError(f"Vault does not {method} {self._where}: status {answer.status} {problem(answer)}")

    def _once(self, method: str, path: str, body: Mapping[str, object] | None) -> Answer:
        headers = {"X-Vault-Token": self._valid_token(), "X-Vault-Request": "true", **self._namespace()}
        content = None if body is None else json.dumps(body).encode()
        return self._service.request(method, f"/v1/{self._where.mount}/{path}", headers, content)

    def _namespace(self) -> dict[str, str]:
        return {} if self._where.namespace is None else {"X-Vault-Namespace": self._where.namespace}

    def _valid_token(self) -> str:
        if self._where.role is None:
            return self._token or ""
        if self._token is None or time.monotonic() > self._lease_end:
            self._log_in()
        return self._token or ""

    def _log_in(self) -> None:
        """Trade the token of the pod's service account for one of Vault's."""
        hosts.require(self._where.address, "the token of the pod's service account", hosts.NONE, self._identity_hosts)
        try:
            account = self._account_token.read_text(encoding="ascii").strip()
        except OSError as error:
            raise SigningError(
                f"{self._account_token} cannot be read ({error.strerror}): Vault's Kubernetes auth method needs the "
                f"token of a service account, which only a pod has"
            ) from error
        body = json.dumps({"role": self._where.role, "jwt": account}).encode()
        path = f"/v1/auth/{self._where.role_mount}/login"
        answer = self._service.request("POST", path, self._namespace(), body)
        if answer.status != 200:
            raise SigningError(f"Vault does not let the role {self._where.role} in: {problem(answer)}")
        self._token = answer.text("auth", "client_token")
        lease = answer.body["auth"].get("lease_duration")
        self._lease_end = time.monotonic() + (max(lease - _EARLY, lease / 2) if isinstance(lease, int) else 0.0)
