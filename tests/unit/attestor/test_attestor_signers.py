"""Which key signs a log."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from nacl.signing import SigningKey, VerifyKey

from kapsel_attestor.errors import RefusedError
from kapsel_attestor.signers import signer_of
from kapsel_store.rows import Configuration, KeyRow, LogRow

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="log-key")
KEY = KeyRow(
    id=UUID(int=1),
    namespace="shop",
    name="log-key",
    version=1,
    algorithm="Ed25519",
    secret=b"\x01" * 32,
    not_before=NOW - timedelta(days=1),
)
NEWER = replace(KEY, id=UUID(int=2), version=2, secret=b"\x02" * 32)


def public(key: KeyRow) -> bytes:
    return bytes(SigningKey(key.secret).verify_key)


def test_signer_signs_under_the_name_of_the_log() -> None:
    signer = signer_of(Configuration(keys=(KEY,)), LOG, NOW)
    assert signer.key.name == "log.example.com"
    assert signer.key.public_key == public(KEY)
    signature = signer.sign(b"message")
    assert len(signature) == 64
    VerifyKey(signer.key.public_key).verify(b"message", signature)


def test_newest_live_version_signs() -> None:
    assert signer_of(Configuration(keys=(NEWER, KEY)), LOG, NOW).key.public_key == public(NEWER)


@pytest.mark.parametrize(
    "dead",
    [
        replace(NEWER, not_before=NOW + timedelta(seconds=1)),
        replace(NEWER, not_after=NOW),
        replace(NEWER, secret=b""),
        replace(NEWER, namespace="other"),
        replace(NEWER, name="other"),
        replace(NEWER, algorithm="HMAC-SHA256"),
    ],
)
def test_version_that_is_not_live_or_cannot_sign_is_passed_over(dead: KeyRow) -> None:
    assert signer_of(Configuration(keys=(dead, KEY)), LOG, NOW).key.public_key == public(KEY)
    with pytest.raises(RefusedError, match="SigningKey shop/log-key needs a live version"):
        signer_of(Configuration(keys=(dead,)), LOG, NOW)
