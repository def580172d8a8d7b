"""Amazon SNS as it is seen from outside: one topic, its certificate, and a subscription that must be confirmed.

By docs.aws.amazon.com/sns/latest/dg/SendMessageToHttp.prepare.html. It answers over TLS as the host of its region.
"""

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from uuid import uuid4

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.x509.oid import NameOID

HOST = "sns.us-west-2.amazonaws.com"
TOPIC = "arn:aws:sns:us-west-2:123456789012:orders"
CERTIFICATE = "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
BETWEEN_TRIES = 0.2  # seconds; the real one waits longer


def certified(
    name: str, key: ec.EllipticCurvePrivateKey | RSAPrivateKey, *, is_authority: bool = False
) -> x509.Certificate:
    """Return a certificate that vouches for itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def server_of(name: str, directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a TLS server of that name, and the file of the certificate that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = certified(name, key, is_authority=True).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both, authority = directory / f"{name}.key.pem", directory / f"{name}.pem"
    both.write_bytes(private + public)
    authority.write_bytes(public)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, authority


class AmazonSns:
    """The topic and its one subscription."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._key = generate_private_key(65537, 2048)
        self._certificate = certified("sns.amazonaws.com", self._key).public_bytes(serialization.Encoding.PEM)
        self._token = uuid4().hex
        self._subscriber = ""
        self.confirmed = asyncio.Event()
        self.asked: list[str] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        self.port = self._runner.addresses[0][1]
        self._session = aiohttp.ClientSession(headers={"User-Agent": "Amazon Simple Notification Service Agent"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.host != HOST:
            return web.Response(status=421)
        if request.path == CERTIFICATE:
            return web.Response(body=self._certificate, content_type="application/x-x509-ca-cert")
        asked = {"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": self._token}
        if request.path != "/" or dict(request.query) != asked:
            return web.Response(status=400, text="<ErrorResponse/>", content_type="text/xml")
        self.confirmed.set()
        return web.Response(text="<ConfirmSubscriptionResponse/>", content_type="text/xml")

    async def subscribe(self, url: str) -> int:
        """Ask a URL to confirm that it wants the messages of the topic; return what it answered in the end."""
        self._subscriber = url
        visit = f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={self._token}"
        text = f"You have chosen to subscribe to the topic {TOPIC}."
        return await self._send("SubscriptionConfirmation", Message=text, Token=self._token, SubscribeURL=visit)

    async def publish(self, message: str, subject: str) -> int:
        """Send a message to who has confirmed."""
        assert self.confirmed.is_set(), "nobody gets messages who has not asked for them"
        return await self._send("Notification", Message=message, Subject=subject)

    async def _send(self, kind: str, **members: str) -> int:
        fields = {
            "Type": kind,
            "MessageId": str(uuid4()),
            "TopicArn": TOPIC,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            **members,
        }
        signed = "".join(f"{name}\n{fields[name]}\n" for name in sorted(fields)).encode()
        signature = base64.b64encode(self._key.sign(signed, PKCS1v15(), hashes.SHA256())).decode()
        proof = {"SignatureVersion": "2", "Signature": signature, "SigningCertURL": f"https://{HOST}{CERTIFICATE}"}
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "x-amz-sns-message-type": kind,
            "x-amz-sns-message-id": fields["MessageId"],
            "x-amz-sns-topic-arn": TOPIC,
        }
        while True:
            async with self._session.post(self._subscriber, data=json.dumps(fields | proof), headers=headers) as answer:
                if answer.status < 500:
                    return answer.status
            await asyncio.sleep(BETWEEN_TRIES)
