"""What is signed, by which keys, and what an attempt remembers of it."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import nacl.signing

from kapsel_deliverer import signing
from kapsel_deliverer.signing import Signer, checkpoint_header, signature_digest
from kapsel_store.rows import KeyRow, is_reserved_header

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# The published example of Standard Webhooks.
SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
EVENT_ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def key(version: int = 1, **fields: object) -> KeyRow:
    return KeyRow(
        **{
            "id": uuid4(),
            "namespace": "shop",
            "name": "out",
            "version": version,
            "algorithm": "HMAC-SHA256",
            "secret": SECRET,
            "not_before": NOW - timedelta(days=1),
            **fields,
        }
    )


def test_v1_is_the_published_vector() -> None:
    assert Signer([key()]).sign(EVENT_ID, TIMESTAMP, BODY, NOW) == SIGNATURE


def test_v1a_verifies_by_the_public_key() -> None:
    seed = nacl.signing.SigningKey.generate()
    value = Signer([key(algorithm="Ed25519", secret=bytes(seed))]).sign(EVENT_ID, TIMESTAMP, BODY, NOW)
    assert value is not None
    scheme, _, signature = value.partition(",")
    assert scheme == "v1a"
    seed.verify_key.verify(f"{EVENT_ID}.{TIMESTAMP}.".encode() + BODY, base64.b64decode(signature, validate=True))


def test_every_live_version_signs_the_newest_first() -> None:
    old = key(1, secret=b"old", not_after=NOW + timedelta(hours=1))
    value = Signer([old, key(2)]).sign(EVENT_ID, TIMESTAMP, BODY, NOW)
    assert value is not None
    first, second = value.split(" ")
    assert first == SIGNATURE
    assert second.startswith("v1,")


def test_a_version_signs_from_its_first_to_before_its_last_moment() -> None:
    signer = Signer([key(not_before=NOW, not_after=NOW + timedelta(hours=1))])
    assert signer.sign(EVENT_ID, TIMESTAMP, BODY, NOW - timedelta(microseconds=1)) is None
    assert signer.sign(EVENT_ID, TIMESTAMP, BODY, NOW) is not None
    assert signer.sign(EVENT_ID, TIMESTAMP, BODY, NOW + timedelta(hours=1)) is None


def test_keys_that_cannot_sign_do_not() -> None:
    public_only = key(algorithm="Ed25519", secret=b"", public=bytes(32))
    assert Signer([public_only, key(algorithm="HMAC-SHA512")]).sign(EVENT_ID, TIMESTAMP, BODY, NOW) is None


def test_the_digest_is_over_three_lines() -> None:
    headers = {signing.ID: "a", signing.TIMESTAMP: "1", signing.SIGNATURE: "v1,x", "x-other": "y"}
    lines = b"webhook-id: a\nwebhook-timestamp: 1\nwebhook-signature: v1,x\n"
    assert signature_digest(headers) == hashlib.sha256(lines).digest()


def test_a_checkpoint_travels_whole_if_it_fits() -> None:
    note = "origin\n12\nroot=\n\n\u2014 origin abcd\n\u2014 witness efgh\n"
    value = checkpoint_header(note)
    assert value is not None
    assert base64.b64decode(value, validate=True).decode() == note


def test_a_long_checkpoint_loses_its_last_signatures() -> None:
    text, first = "origin\n12\nroot=\n", "\u2014 origin abcd\n"
    value = checkpoint_header(f"{text}\n{first}" + f"\u2014 witness {'x' * 200}\n" * 10)
    assert value is not None
    assert len(value) < 1024
    assert base64.b64decode(value).decode().startswith(f"{text}\n{first}\u2014 witness")


def test_a_checkpoint_whose_first_signature_does_not_fit_stays_at_home() -> None:
    assert checkpoint_header(f"origin\n12\nroot=\n\n\u2014 origin {'x' * 2000}\n") is None


def test_no_header_that_a_delivery_carries_may_be_added_by_a_manifest() -> None:
    ours = (
        signing.ID,
        signing.TIMESTAMP,
        signing.SIGNATURE,
        signing.ATTEMPT,
        signing.CORRELATION_ID,
        signing.CHECKPOINT,
    )
    assert [name for name in (*ours, "Content-Type", "User-Agent", "Host") if not is_reserved_header(name)] == []
    assert not is_reserved_header("X-Team")
