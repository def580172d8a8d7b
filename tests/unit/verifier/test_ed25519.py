"""The written profile of Ed25519: libsodium keeps it, and so does the verification in Python alone, in every case."""

import json
from hashlib import sha512
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_ed25519_base_noclamp
from nacl.signing import SigningKey

from kapsel_verifier import ed25519, pure_ed25519
from kapsel_verifier.errors import MalformedKeyError, SignatureError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ed25519.json").read_text())
P, ORDER = pure_ed25519.P, pure_ed25519.ORDER
MESSAGE = b"one profile"
SECRET, NONCE = 0x5EC2E7 << 200, 0x0F0F0F << 190

# RFC 8032, section 7.1: public key, message, signature.
KNOWN = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
            "55141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb"
            "00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc"
            "027beceea1ec40a"
        ),
    ),
]


def libsodium_says(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        ed25519.verify(public_key, message, signature, "the signature")
    except SignatureError:
        return False
    return True


def test_signatures_are_checked_by_libsodium_where_pynacl_is() -> None:
    assert ed25519.implementation() == "libsodium"


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["description"])
def test_both_keep_the_written_profile(row: dict[str, Any]) -> None:
    arguments = (bytes.fromhex(row["public_key"]), bytes.fromhex(row["message"]), bytes.fromhex(row["signature"]))
    assert libsodium_says(*arguments) == row["valid"]
    assert pure_ed25519.is_valid(*arguments) == row["valid"]


@pytest.mark.parametrize(("key", "message", "signature"), KNOWN)
def test_known_answers_of_the_standard_hold(key: str, message: str, signature: str) -> None:
    arguments = (bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature))
    assert libsodium_says(*arguments)
    assert pure_ed25519.is_valid(*arguments)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_libsodium_signed_is_valid_for_both(seed: bytes, message: bytes) -> None:
    key = SigningKey(seed)
    arguments = (bytes(key.verify_key), message, key.sign(message).signature)
    assert libsodium_says(*arguments)
    assert pure_ed25519.is_valid(*arguments)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 111), st.integers(1, 255))
def test_a_changed_byte_of_key_message_or_signature_is_invalid_for_both(seed: bytes, where: int, change: int) -> None:
    key = SigningKey(seed)
    whole = bytearray(bytes(key.verify_key) + key.sign(bytes(16)).signature + bytes(16))
    whole[where] ^= change
    arguments = (bytes(whole[:32]), bytes(whole[96:]), bytes(whole[32:96]))
    assert not libsodium_says(*arguments)
    assert not pure_ed25519.is_valid(*arguments)


def encodings() -> list[bytes]:
    """Encodings to be careful with: of small order, canonical and not, off the curve, mixed, and plain ones."""
    small = [0, 1, P - 1, *(y for y in pure_ed25519._SMALL_ORDER if y not in (0, 1, P - 1))]
    values = [*small, P, P + 1, P + 2, P + 18, 2, 3, 2**255 - 1]
    found = [(value | sign << 255).to_bytes(32, "little") for value in values for sign in (0, 1)]
    mixed = [bytes.fromhex(row["public_key"]) for row in VECTORS]
    plain = [crypto_scalarmult_ed25519_base_noclamp(n.to_bytes(32, "little")) for n in (SECRET, NONCE)]
    return [*dict.fromkeys([*found, *mixed, *plain])]


def test_both_agree_on_every_combination_of_awkward_points_and_scalars() -> None:
    points = encodings()
    valid = 0
    for key, commitment in product(points, points):
        challenge = int.from_bytes(sha512(commitment + key + MESSAGE).digest(), "little")
        fitting = (NONCE + challenge * SECRET) % ORDER
        for scalar in (fitting, fitting + ORDER, 0):
            arguments = (key, MESSAGE, commitment + scalar.to_bytes(32, "little"))
            said = libsodium_says(*arguments)
            assert pure_ed25519.is_valid(*arguments) == said, (key.hex(), commitment.hex(), scalar)
            valid += said
    assert valid, "at least the plain signature is valid, or nothing was compared"


def test_lengths_are_refused_before_anything_is_computed(log: ModuleType) -> None:
    key, signature = log.vkey().public_key, log.sign()(MESSAGE)
    with pytest.raises(MalformedKeyError):
        ed25519.verify(key[:-1], MESSAGE, signature, "the signature")
    with pytest.raises(SignatureError, match="64 bytes"):
        ed25519.verify(key, MESSAGE, signature + b"x", "the signature")


def test_a_signature_cannot_lend_its_end_to_the_message(log: ModuleType) -> None:
    signature = log.sign()(b"x" + b"message")
    with pytest.raises(SignatureError):
        ed25519.verify(log.vkey().public_key, b"message", signature + b"x", "the signature")
