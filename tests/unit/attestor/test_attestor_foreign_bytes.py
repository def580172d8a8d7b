"""What services that hold keys write is taken for what it is, or refused."""

import base64

import pytest
from nacl.signing import SigningKey

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers.foreign_bytes import decoded, public_key
from kapsel_verifier.sth import SPKI

RAW = bytes(SigningKey(bytes(32)).verify_key)


def test_a_public_key_is_taken_out_of_its_der() -> None:
    assert public_key(base64.b64encode(SPKI + RAW).decode(), "it") == RAW


@pytest.mark.parametrize("data", [RAW, SPKI + RAW[:-1], SPKI + RAW + b"\0", SPKI[:-1] + b"\1" + RAW, b""])
def test_a_key_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(SigningError, match="it is no Ed25519 key"):
        public_key(base64.b64encode(data).decode(), "it")


@pytest.mark.parametrize("text", ["a", "ab-_", "a b=", "ä"])
def test_what_is_no_base64_may_be_so_the_next_time(text: str) -> None:
    with pytest.raises(SignerAwayError, match="it did not come as base64"):
        decoded(text, "it")
