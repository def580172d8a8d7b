"""A log's key in a PKCS#11 token, with SoftHSM2 as the token."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from nacl.signing import VerifyKey

from kapsel_attestor.errors import SigningError
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring, Opened
from kapsel_attestor.signers.pkcs11_token import point
from kapsel_store.key_backends import Pkcs11Key
from kapsel_store.rows import Configuration, KeyRow, LogRow

LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="external/k")
PIN = "1234-pin"
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so")
MODULE = next((path for path in MODULES if Path(path).is_file()), None)

# A library is loaded once into a process and reads its configuration then: keys are made by a process of their own.
GENERATE = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType, Mechanism
module, token, pin, *names = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin, rw=True) as session:
    for name in names:
        label, identifier, kind = name.split(":")
        if kind == "rsa":
            session.generate_keypair(KeyType.RSA, 2048, store=True, label=label, id=bytes.fromhex(identifier))
            continue
        domain = session.create_domain_parameters(
            KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: b"\\x13\\x0cedwards25519"}, local=True
        )
        domain.generate_keypair(
            mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label, id=bytes.fromhex(identifier)
        )
"""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The label of a token with keys `log`, `next`, twice `twin`, and an RSA key `rsa`."""
    if MODULE is None or shutil.which("softhsm2-util") is None:
        assert not os.environ.get("CI"), "SoftHSM2 is missing: apt-get install softhsm2"
        pytest.skip("SoftHSM2 is missing: apt-get install softhsm2, or brew install softhsm")
    place = tmp_path_factory.mktemp("softhsm")
    (place / "tokens").mkdir()
    configuration = place / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {place / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(configuration)  # where the library looks, in this process too
    label = "kapsel logs"
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "5678"]
    subprocess.run(command, check=True, capture_output=True)
    keys = ["log:a1:ed", "next:a2:ed", "twin:b1:ed", "twin:b2:ed", "rsa:c1:rsa"]
    subprocess.run([sys.executable, "-c", GENERATE, MODULE, label, PIN, *keys], check=True)
    yield label
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def row(token: str, *, pin: str = PIN, **where: object) -> KeyRow:
    backend = Pkcs11Key(module=MODULE or "", token_label=token, label="log")
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name="external/k",
        version=1,
        algorithm="Ed25519",
        secret=json.dumps({"pin": pin}).encode(),
        not_before=datetime.now(UTC) - timedelta(minutes=5),
        backend=replace(backend, **where),
    )


async def opened(*rows: KeyRow) -> Opened:
    return await Keyring(Identity()).open(Configuration(keys=rows), LOG, {})


@pytest.mark.parametrize("where", [{}, {"label": None, "id": "a1"}, {"id": "a1"}, {"label": "twin", "id": "b2"}])
async def test_a_key_signs_that_is_named_by_label_by_id_or_by_both(token: str, where: dict[str, str]) -> None:
    (one,) = (await opened(row(token, **where))).signers
    for message in (b"message", b"x" * 4096):
        VerifyKey(one.key.public_key).verify(message, await one.sign(message))


async def test_two_keys_of_a_token_sign_side_by_side(token: str) -> None:
    first, second = (await opened(row(token), replace(row(token, label="next"), version=2))).signers
    assert first.key.public_key != second.key.public_key
    signatures = await asyncio.gather(*(one.sign(b"message") for one in (first, second)))
    for one, signature in zip((first, second), signatures, strict=True):
        VerifyKey(one.key.public_key).verify(b"message", signature)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"label": "absent"}, "there is no Ed25519 key pair for the key absent of the PKCS#11 token kapsel logs"),
        ({"label": "rsa"}, "there is no Ed25519 key pair for the key rsa"),
        ({"label": "twin"}, r"several keys go by the name of the key twin .* name it by label and id"),
        ({"token_label": "other"}, "there is not exactly one token of the label other"),
        ({"module": "/nowhere/module.so"}, "the PKCS#11 module /nowhere/module.so cannot be loaded"),
    ],
)
async def test_what_a_person_has_to_correct_is_said(token: str, where: dict[str, str], words: str) -> None:
    (trouble,) = (await opened(row(token, **where))).troubles
    with pytest.raises(SigningError, match=words):
        raise trouble


def test_a_wrong_pin_is_said_and_not_tried_over_and_over(token: str) -> None:
    """In a process of its own: who is logged in to a token is asked for no PIN."""
    program = """
import asyncio, sys
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.pkcs11_token import TokenBackend
from kapsel_store.key_backends import Pkcs11Key
backend = TokenBackend(Pkcs11Key(module=sys.argv[1], token_label=sys.argv[2], label="log"), "0000")
async def main():
    gate, said = Gate(first_wait=60), set()
    for _ in range(5):
        try:
            await gate.call("it", backend.public_key)
        except Exception as error:
            said.add(f"{type(error).__name__} {error}")
    print(*said)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, MODULE or "", token], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith(
        "SigningError the token of the key log of the PKCS#11 token kapsel logs does not take"
    )
    assert "0000" not in done.stdout


def test_a_pin_that_was_refused_is_not_tried_again_until_it_is_another_one(token: str) -> None:
    """In a process of its own: who is logged in to a token is asked for no PIN."""
    program = """
import sys
from kapsel_attestor.errors import SigningError
from kapsel_attestor.signers.pkcs11_token import TokenBackend
from kapsel_store.key_backends import Pkcs11Key
module, label, pin = sys.argv[1:]
def attempt(key, pin):
    try:
        return len(TokenBackend(Pkcs11Key(module=module, token_label=label, label=key), pin).public_key())
    except SigningError as error:
        return str(error)
first, again, other_key = attempt("log", "0000"), attempt("log", "0000"), attempt("next", "0000")
assert "does not take the PIN (" in first and "restart the attestor" in first, first
assert "did not take the PIN" in again and "did not take the PIN" in other_key, (again, other_key)
assert "0000" not in first + again, "a PIN is told"
print(attempt("log", pin))
"""
    command = [sys.executable, "-c", program, MODULE or "", token, PIN]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "32\n"


@pytest.mark.parametrize("encoded", [bytes(range(32)), b"\x04\x20" + bytes(range(32))])
def test_the_public_point_is_read_raw_and_within_der(encoded: bytes) -> None:
    assert point(encoded, "it") == bytes(range(32))


@pytest.mark.parametrize("encoded", [b"", bytes(31), bytes(33), b"\x04\x41" + bytes(65), b"\x05\x20" + bytes(32)])
def test_a_point_of_another_curve_is_refused(encoded: bytes) -> None:
    with pytest.raises(SigningError, match="is no Ed25519 point"):
        point(encoded, "it")


async def test_a_log_is_signed_by_a_token(world, token: str) -> None:
    world.keys[:] = [replace(row(token), name=world.row.key_name)]
    await world.apply(world.row)
    await world.start()
    await world.record()
    head = await world.head_over(1)
    (one,) = (await opened(row(token))).signers
    assert head.public_key == one.key.public_key
