"""AWS KMS and STS: the JSON protocol with signed requests, and roles for the tokens of pods.

The signature of a request is checked by a way of its own, from the request as it came, and not with the client's code.
"""

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

from aiohttp import web
from nacl.signing import SigningKey

from keyservers.server import Server

REGION = "eu-central-1"
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
_SPKI = bytes.fromhex("302a300506032b6570032100")


class Aws(Server):
    """KMS and STS under one address."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = {KEY_ID: SigningKey.generate()}
        self.specs = {KEY_ID: "ECC_NIST_EDWARDS25519"}
        self.disabled: set[str] = set()
        self.secrets = {"AKIAKAPSEL": ("secret/with+signs", None)}  # access key id -> secret, session token
        self.roles: dict[str, str] = {}  # ARN -> the token that it takes
        self.assumed = 0
        self.life = 3600.0
        self.route("POST", "/", self._dispatch)

    def public(self, key_id: str = KEY_ID) -> bytes:
        return bytes(self.keys[key_id].verify_key)

    async def _dispatch(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.content_type == "application/x-www-form-urlencoded":
            return await self._assume(request)
        wrong = self._wrong_with(request, body)
        if wrong is not None:
            return _error(wrong, "The request signature we calculated does not match the signature you provided.")
        service, _, operation = request.headers["X-Amz-Target"].partition(".")
        asked = json.loads(body)
        key_id = asked["KeyId"].rpartition("/")[2]
        if service != "TrentService" or request.content_type != "application/x-amz-json-1.1":
            return _error("UnknownOperationException", "")
        if key_id not in self.keys:
            return _error("NotFoundException", f"Key 'arn:aws:kms:{REGION}:111122223333:key/{key_id}' does not exist")
        if key_id in self.disabled:
            return _error("DisabledException", f"{key_id} is disabled.")
        match operation:
            case "GetPublicKey":
                return web.json_response(self._public(key_id))
            case "Sign":
                return self._sign(key_id, asked)
        return _error("UnknownOperationException", operation)

    def _public(self, key_id: str) -> dict[str, object]:
        return {
            "KeyId": f"arn:aws:kms:{REGION}:111122223333:key/{key_id}",
            "PublicKey": base64.b64encode(_SPKI + self.public(key_id)).decode(),
            "KeySpec": self.specs[key_id],
            "KeyUsage": "SIGN_VERIFY",
            "SigningAlgorithms": ["ED25519_PH_SHA_512", "ED25519_SHA_512"],
        }

    def _sign(self, key_id: str, asked: dict[str, str]) -> web.Response:
        if (asked["SigningAlgorithm"], asked["MessageType"]) != ("ED25519_SHA_512", "RAW"):
            return _error("ValidationException", "MessageType and SigningAlgorithm do not fit")
        message = base64.b64decode(asked["Message"], validate=True)
        if not 0 < len(message) <= 4096:
            return _error("ValidationException", "Message must have 1 to 4096 bytes")
        signature = self.signed(self.keys[key_id], message)
        return web.json_response(
            {
                "KeyId": f"arn:aws:kms:{REGION}:111122223333:key/{key_id}",
                "Signature": base64.b64encode(signature).decode(),
                "SigningAlgorithm": asked["SigningAlgorithm"],
            }
        )

    def _wrong_with(self, request: web.Request, body: bytes) -> str | None:
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        access_key, date, region, service, end = parts["Credential"].split("/")
        if (scheme, region, service, end) != ("AWS4-HMAC-SHA256", REGION, "kms", "aws4_request"):
            return "IncompleteSignatureException"
        if access_key not in self.secrets:
            return "UnrecognizedClientException"
        moment = request.headers["X-Amz-Date"]
        made = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - made) > timedelta(minutes=5) or not moment.startswith(date):
            return "InvalidSignatureException"
        secret, session = self.secrets[access_key]
        if session is not None and request.headers.get("X-Amz-Security-Token") != session:
            return "UnrecognizedClientException"
        names = parts["SignedHeaders"].split(";")
        if not {"host", "x-amz-date", "x-amz-target"} <= set(names) or names != sorted(names):
            return "InvalidSignatureException"
        lines = [request.method, request.raw_path, ""]
        lines += [f"{name}:{request.headers[name].strip()}" for name in names]
        lines += ["", parts["SignedHeaders"], hashlib.sha256(body).hexdigest()]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{moment}\n{date}/{region}/{service}/aws4_request\n{digest}"
        key = ("AWS4" + secret).encode()
        for part in (date, region, service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return None if hmac.compare_digest(expected, parts["Signature"]) else "InvalidSignatureException"

    async def _assume(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form["Action"] != "AssumeRoleWithWebIdentity" or form["Version"] != "2011-06-15":
            return web.json_response({"Error": {"Code": "InvalidAction", "Message": "?"}}, status=400)
        if self.roles.get(str(form["RoleArn"])) != form["WebIdentityToken"]:
            words = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
            return web.json_response({"Error": {"Code": "AccessDenied", "Message": words}}, status=403)
        self.assumed += 1
        name, session = f"ASIA{self.assumed}", f"session-{self.assumed}"
        self.secrets[name] = (f"secret-{self.assumed}", session)
        credentials = {
            "AccessKeyId": name,
            "SecretAccessKey": f"secret-{self.assumed}",
            "SessionToken": session,
            "Expiration": time.time() + self.life,
        }
        result = {"Credentials": credentials}
        return web.json_response({"AssumeRoleWithWebIdentityResponse": {"AssumeRoleWithWebIdentityResult": result}})


def _error(kind: str, words: str) -> web.Response:
    return web.json_response({"__type": kind, "message": words}, status=400)
