"""Google Cloud KMS, its token server, and the metadata server of a pod."""

import base64
import json
import time
from typing import Any

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from nacl.signing import SigningKey

from keyservers.server import Server

KEY = "projects/kapsel/locations/europe-west3/keyRings/logs/cryptoKeys/orders"
_SPKI = bytes.fromhex("302a300506032b6570032100")


class Google(Server):
    """All three under one address."""

    def __init__(self) -> None:
        super().__init__()
        self.versions = {f"{KEY}/cryptoKeyVersions/1": SigningKey.generate()}
        self.algorithm = "EC_SIGN_ED25519"
        self.states: dict[str, str] = {}
        self.damages = ""  # which checksum is wrong
        self.tokens: set[str] = set()
        self.metadata_tokens = True
        self._rsa = rsa.generate_private_key(65537, 2048)
        self.route("POST", "/token", self._token)
        self.route("GET", "/computeMetadata/v1/instance/service-accounts/default/token", self._metadata)
        self.route("GET", "/v1/{name:.+}/publicKey", self._public)
        self.route("POST", "/v1/{name:.+}:asymmetricSign", self._sign)

    def public(self, number: int = 1) -> bytes:
        return bytes(self.versions[f"{KEY}/cryptoKeyVersions/{number}"].verify_key)

    def service_account(self) -> dict[str, str]:
        """Return the JSON key of a service account that may sign."""
        pem = self._rsa.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "client_email": "kapsel@kapsel.iam.gserviceaccount.com",
            "private_key_id": "a1b2",
            "private_key": pem.decode(),
            "token_uri": f"{self.url}/token",
        }

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        header, claims, signature = str(form["assertion"]).split(".")
        try:
            self._rsa.public_key().verify(
                _unpadded(signature), f"{header}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return web.json_response({"error": "invalid_grant", "error_description": "Invalid JWT"}, status=400)
        said = json.loads(_unpadded(claims))
        known = (said["iss"], said["aud"]) == ("kapsel@kapsel.iam.gserviceaccount.com", f"{self.url}/token")
        in_time = said["iat"] <= time.time() + 60 and time.time() < said["exp"] <= said["iat"] + 3600
        if json.loads(_unpadded(header)) != {"alg": "RS256", "typ": "JWT", "kid": "a1b2"} or not known or not in_time:
            return web.json_response({"error": "invalid_grant", "error_description": "Bad claims"}, status=400)
        return self._given()

    async def _metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        return self._given() if self.metadata_tokens else web.json_response({}, status=404)

    def _given(self) -> web.Response:
        token = f"ya29.{len(self.tokens)}"
        self.tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        name = request.match_info["name"]
        if name not in self.versions:
            return _error(404, "NOT_FOUND", f"CryptoKeyVersion {name} not found.")
        state = self.states.get(name, "ENABLED")
        if state != "ENABLED":
            return _error(400, "FAILED_PRECONDITION", f"{name} is not enabled, current state is: {state}.")
        return None

    async def _public(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        name = request.match_info["name"]
        body = base64.b64encode(_SPKI + bytes(self.versions[name].verify_key)).decode()
        pem = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
        answer = {"pem": pem, "algorithm": self.algorithm, "pemCrc32c": self._checksum("pem", pem.encode())}
        return web.json_response({**answer, "name": name, "protectionLevel": "HSM"})

    async def _sign(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        name, asked = request.match_info["name"], await request.json()
        if set(asked) != {"data", "dataCrc32c"}:
            return _error(400, "INVALID_ARGUMENT", "data and its checksum are what this key signs")
        message = base64.b64decode(asked["data"], validate=True)
        signature = self.signed(self.versions[name], message)
        fits = asked["dataCrc32c"] == str(castagnoli(message)) and self.damages != "data"
        answer = {
            "signature": base64.b64encode(signature).decode(),
            "signatureCrc32c": self._checksum("signature", signature),
            "verifiedDataCrc32c": fits,
            "name": name,
        }
        return web.json_response(answer)

    def _checksum(self, what: str, content: bytes) -> str:
        return str(castagnoli(content) ^ (self.damages == what))


def castagnoli(data: bytes) -> int:
    """CRC-32C bit by bit, as the polynomial says."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 * (value & 1))
    return value ^ 0xFFFFFFFF


def _error(status: int, kind: str, words: str) -> web.Response:
    error: dict[str, Any] = {"code": status, "message": words, "status": kind}
    return web.json_response({"error": error}, status=status)


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
