"""Vault's transit engine and its Kubernetes auth method, as far as one key of type ed25519 needs them."""

import base64

from aiohttp import web
from nacl.signing import SigningKey

from keyservers.server import Server

TOKEN = "hvs.static"


class Vault(Server):
    """A server with the mount `transit` and keys of several versions."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, list[SigningKey]] = {"log": [SigningKey.generate()], "rsa": []}
        self.types = {"log": "ed25519", "rsa": "rsa-2048"}
        self.namespaces: list[str] = []
        self.tokens = {TOKEN}
        self.accounts: dict[str, str] = {}  # role -> the service account's token that it takes
        self.logins = 0
        self.lease = 3600
        self.signs_with_newest = False  # as a server does that ignores key_version
        self.route("GET", "/v1/transit/keys/{key}", self._read)
        self.route("POST", "/v1/transit/sign/{key}", self._sign)
        self.route("POST", "/v1/auth/kubernetes/login", self._login)

    def rotate(self) -> None:
        """Give the key `log` another version."""
        self.keys["log"].append(SigningKey.generate())

    def public(self, version: int) -> bytes:
        return bytes(self.keys["log"][version - 1].verify_key)

    def _refusal(self, request: web.Request) -> web.Response | None:
        self.namespaces.append(request.headers.get("X-Vault-Namespace", ""))
        if request.headers.get("X-Vault-Token") not in self.tokens:
            return _errors(403, "permission denied")
        if request.match_info["key"] not in self.keys:
            return _errors(404 if request.method == "GET" else 400, "signing key not found")
        return None

    async def _read(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        name = request.match_info["key"]
        versions = {
            str(number): {
                "name": "ed25519",
                "public_key": base64.b64encode(bytes(key.verify_key)).decode(),
                "creation_time": "2026-06-01T00:00:00Z",
            }
            for number, key in enumerate(self.keys[name], 1)
        }
        data = {"name": name, "type": self.types[name], "keys": versions, "latest_version": len(versions)}
        return web.json_response({"data": data})

    async def _sign(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = await request.json()
        keys = self.keys[request.match_info["key"]]
        version = len(keys) if self.signs_with_newest else body.get("key_version", len(keys))
        if not 1 <= version <= len(keys):
            return _errors(400, "requested version for signing is higher than the latest key version")
        signature = self.signed(keys[version - 1], base64.b64decode(body["input"], validate=True))
        text = f"vault:v{version}:{base64.b64encode(signature).decode()}"
        return web.json_response({"data": {"signature": text, "key_version": version}})

    async def _login(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.accounts.get(body["role"]) != body["jwt"]:
            return _errors(403, "service account name not authorized")
        self.logins += 1
        token = f"hvs.login-{self.logins}"
        self.tokens.add(token)
        return web.json_response({"auth": {"client_token": token, "lease_duration": self.lease, "renewable": True}})


def _errors(status: int, *words: str) -> web.Response:
    return web.json_response({"errors": list(words)}, status=status)
