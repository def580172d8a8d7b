"""A log's key in Google Cloud KMS: tokens, checksums, and what each refusal means."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from keyservers.google import KEY, Google
from nacl.signing import SigningKey, VerifyKey

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring, Opened
from kapsel_store.key_backends import GoogleKey
from kapsel_store.rows import Configuration, KeyRow, LogRow

LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="external/k")


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    server = Google()
    await server.start()
    yield server
    await server.stop()


def row(google: Google, account: dict[str, str] | None, number: int = 1) -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name="external/k",
        version=number,
        algorithm="Ed25519",
        secret=json.dumps({"serviceAccount": json.dumps(account)}).encode() if account is not None else b"",
        not_before=datetime.now(UTC) - timedelta(minutes=5),
        backend=GoogleKey(name=f"{KEY}/cryptoKeyVersions/{number}", endpoint=google.url),
    )


async def opened(google: Google, key: KeyRow) -> Opened:
    return await Keyring(Identity(google_metadata=google.url)).open(Configuration(keys=(key,)), LOG, {})


async def test_a_version_signs_for_a_service_account(google: Google) -> None:
    google.versions[f"{KEY}/cryptoKeyVersions/2"] = SigningKey.generate()
    for number in (1, 2):
        (one,) = (await opened(google, row(google, google.service_account(), number))).signers
        assert one.key.public_key == google.public(number)
        VerifyKey(google.public(number)).verify(b"message", await one.sign(b"message"))
    assert google.requests.count("POST /token") == 2  # one for each version, kept between requests


async def test_a_version_signs_for_a_pod_with_workload_identity(google: Google) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    VerifyKey(google.public()).verify(b"message", await one.sign(b"message"))


async def test_a_token_that_was_taken_back_is_replaced_at_the_next_try(google: Google) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    google.tokens.clear()
    with pytest.raises(SigningError, match="does not take the credentials"):
        await one.sign(b"message")
    signature = await asyncio.to_thread(one.backend.sign, b"message")  # what the gate lets through after its wait
    VerifyKey(google.public()).verify(b"message", signature)


@pytest.mark.parametrize("fault", ["prehashed", "wrong_key"])
async def test_a_signature_of_another_kind_or_key_is_refused_by_the_check(google: Google, fault: str) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    setattr(google.faults, fault, True)
    with pytest.raises(SigningError, match="does not sign as log"):
        await one.sign(b"message")


@pytest.mark.parametrize(
    ("damage", "words"),
    [("signature", "signature of .* was changed on its way"), ("data", "has not got the message as it was sent")],
)
async def test_what_was_changed_on_its_way_is_noticed(google: Google, damage: str, words: str) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    google.damages = damage
    with pytest.raises(SignerAwayError, match=words):
        await one.sign(b"message")


async def test_a_public_key_that_was_changed_on_its_way_is_noticed(google: Google) -> None:
    google.damages = "pem"
    assert "was changed on its way" in str((await opened(google, row(google, None))).troubles[0])


async def test_a_key_of_another_algorithm_is_refused(google: Google) -> None:
    google.algorithm = "EC_SIGN_P256_SHA256"
    (trouble,) = (await opened(google, row(google, None))).troubles
    assert "is of the algorithm EC_SIGN_P256_SHA256; allowed: EC_SIGN_ED25519" in str(trouble)


async def test_a_version_that_was_disabled_is_a_matter_for_a_person(google: Google) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    google.states[f"{KEY}/cryptoKeyVersions/1"] = "DISABLED"
    with pytest.raises(SigningError, match=r"is not enabled, current state is: DISABLED.; enable it, or name another"):
        await one.sign(b"message")


async def test_a_permission_that_is_missing_is_named(google: Google) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    google.faults.status = 403
    google.faults.body = {"error": {"code": 403, "message": "Permission 'cloudkms.cryptoKeyVersions.useToSign' denied"}}
    with pytest.raises(SigningError, match=r"useToSign' denied; grant roles/cloudkms.signerVerifier on the key"):
        await one.sign(b"message")


async def test_a_service_that_is_overloaded_is_away(google: Google) -> None:
    (one,) = (await opened(google, row(google, None))).signers
    google.faults.status, google.faults.body = 429, {"error": {"code": 429, "message": "Quota exceeded"}}
    with pytest.raises(SignerAwayError, match="status 429 Quota exceeded"):
        await one.sign(b"message")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"private_key": "none"}, "private_key of the service account cannot be read"),
        ({"client_email": "other@example.com"}, "no token: Bad claims: invalid_grant"),
        ({"token_uri": "http://tokens.example.com/token"}, "token_uri of the service account's key is not https"),
    ],
)
async def test_a_service_account_that_does_not_work_is_said(
    google: Google, changed: dict[str, str], words: str
) -> None:
    (trouble,) = (await opened(google, row(google, google.service_account() | changed))).troubles
    with pytest.raises(SigningError, match=words):
        raise trouble


async def test_a_key_that_is_none_of_a_service_account_is_said(google: Google) -> None:
    (trouble,) = (await opened(google, row(google, {"type": "authorized_user"}))).troubles
    assert "lacks one of client_email, private_key, token_uri" in str(trouble)


async def test_a_pod_without_an_identity_is_told_what_it_needs(google: Google) -> None:
    google.metadata_tokens = False
    (trouble,) = (await opened(google, row(google, None))).troubles
    assert "give the pod a service account with workload identity" in str(trouble)
