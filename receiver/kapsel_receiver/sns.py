"""Amazon SNS: a message carries its signature, and the certificate's place follows from a topic of the manifest.

Called by `app`. Pure. By docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The certificate is
fetched by `certificates`, over TLS from the one host of the topic's region: that is what makes it Amazon's.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from kapsel_receiver.proofs import Rejected, Verified, fresh, mismatch
from kapsel_store import event_names
from kapsel_store.rows import Verification

CONFIRMATION: Final = "SubscriptionConfirmation"
_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SUBSCRIPTION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final = {
    "Notification": _NOTIFICATION,
    CONFIRMATION: _SUBSCRIPTION,
    "UnsubscribeConfirmation": _SUBSCRIPTION,
}
_CERTIFICATE: Final = re.compile(r"/SimpleNotificationService-[0-9A-Za-z]{1,64}\.pem", re.ASCII)
_HASHES: Final[dict[str, type[HashAlgorithm]]] = {"1": SHA1, "2": SHA256}
LONGEST_URL: Final = 2048
# The signed time is that of the publishing, the same at each try: SNS waits up to an hour in all between its tries, and
# 15 s for each of up to a hundred.
TOLERANCE: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that says it is of a topic that may send; its signature is still to be checked."""

    type: str
    sent_at: str  # seconds since 1970
    signed: bytes
    signature: bytes
    version: str
    certificate_url: str
    subscribe_url: str | None  # to visit, if the signature holds


def read(verification: Verification, body: bytes) -> Message | Rejected:
    """Read a message as far as that is possible without its certificate."""
    document = event_names.document(body)
    fields = {name: event_names.member(document, (name,)) for name in (*_SUBSCRIPTION, "Subject", *_PROOF)}
    kind, topic = fields["Type"], fields["TopicArn"]
    encoded, version, url = (fields[name] for name in _PROOF)
    if encoded is None or version is None or url is None:
        return Rejected(code="signature_missing", detail="the body is no message of SNS with its signature")
    if topic is None or topic not in verification.topic_arns:
        return Rejected(code="credentials_mismatch", detail="the message is of a topic that may not send here")
    host = host_of(topic)
    if kind not in _SIGNED or version not in _HASHES or not _is_certificate(url, host):
        detail = f"its type, its version, or its certificate, which is not of {host}, is none that is known"
        return Rejected(code="signature_malformed", detail=detail)
    try:
        signature = base64.b64decode(encoded, validate=True)
        signed = _signed(kind, fields)
    except (binascii.Error, KeyError, UnicodeEncodeError):
        return Rejected(code="signature_malformed", detail="the signature is no base64, or a signed member is missing")
    sent_at = _seconds(fields["Timestamp"] or "")
    if sent_at is None:
        return Rejected(code="timestamp_malformed", detail="the member Timestamp is no time with its zone")
    subscribe = fields["SubscribeURL"]
    if kind == CONFIRMATION and not (subscribe and _is_confirmation(subscribe, host, topic)):
        return Rejected(code="signature_malformed", detail=f"SubscribeURL does not confirm the topic at {host}")
    return Message(
        type=kind,
        sent_at=sent_at,
        signed=signed,
        signature=signature,
        version=version,
        certificate_url=url,
        subscribe_url=subscribe if kind == CONFIRMATION else None,
    )


_PROOF: Final = ("Signature", "SignatureVersion", "SigningCertURL")


def verify(message: Message, certificate: bytes, now: datetime) -> Verified | Rejected:
    """Check a message with its certificate."""
    try:
        key, not_before, not_after = _read_certificate(certificate)
    except ValueError:
        return Rejected(code="signature_malformed", detail="what SigningCertURL leads to is no RSA certificate")
    if not not_before <= now <= not_after:
        return Rejected(code="signature_malformed", detail="the certificate is over, or not valid yet")
    try:
        key.verify(message.signature, message.signed, PKCS1v15(), _HASHES[message.version]())
    except InvalidSignature:
        return mismatch()
    return fresh(message.sent_at, now, TOLERANCE) or Verified(key_id=None)


def host_of(topic: str) -> str:
    """Return the only host that speaks for a topic."""
    _, partition, _, region, *_ = topic.split(":")
    return f"sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


def _seconds(text: str) -> str | None:
    """Return a time as seconds since 1970, None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else str(int(moment.timestamp()))


def _signed(kind: str, fields: dict[str, str | None]) -> bytes:
    """Return what is signed: the members in their order, each name and each value on a line."""
    lines: list[str] = []
    for name in _SIGNED[kind]:
        value = fields[name]
        if value is None and name != "Subject":
            raise KeyError(name)
        if value is not None:
            lines += [name, value]
    return "".join(f"{line}\n" for line in lines).encode()


def _is_certificate(url: str, host: str) -> bool:
    return url.startswith(f"https://{host}/") and _CERTIFICATE.fullmatch(url[len(f"https://{host}") :]) is not None


def _is_confirmation(url: str, host: str, topic: str) -> bool:
    if len(url) > LONGEST_URL or not url.startswith(f"https://{host}/?") or not url.isascii() or not url.isprintable():
        return False
    query = parse_qs(urlsplit(url).query, max_num_fields=8) if url.count("&") < 8 else {}
    asked = (query.get("Action"), query.get("TopicArn"), len(query.get("Token", [])))
    return asked == (["ConfirmSubscription"], [topic], 1)


@lru_cache(maxsize=16)
def _read_certificate(certificate: bytes) -> tuple[RSAPublicKey, datetime, datetime]:
    read = x509.load_pem_x509_certificate(certificate)
    key = read.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError(type(key).__name__)
    return key, read.not_valid_before_utc, read.not_valid_after_utc
