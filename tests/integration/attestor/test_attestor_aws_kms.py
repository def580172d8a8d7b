"""A log's key in AWS KMS: signed requests, the one right algorithm, and what each refusal means."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from keyservers.aws import KEY_ID, REGION, Aws
from nacl.signing import VerifyKey

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring, Opened
from kapsel_store.key_backends import AwsKey
from kapsel_store.rows import Configuration, KeyRow, LogRow

LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="external/k")
ROLE = "arn:aws:iam::111122223333:role/kapsel"
CREDENTIALS = {"accessKeyId": "AKIAKAPSEL", "secretAccessKey": "secret/with+signs"}


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    server = Aws()
    await server.start()
    yield server
    await server.stop()


def row(aws: Aws, credentials: dict[str, str] | None = None, **where: object) -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name="external/k",
        version=1,
        algorithm="Ed25519",
        secret=json.dumps(CREDENTIALS if credentials is None else credentials).encode(),
        not_before=datetime.now(UTC) - timedelta(minutes=5),
        backend=replace(AwsKey(key_id=KEY_ID, region=REGION, endpoint=aws.url), **where),
    )


async def opened(key: KeyRow, identity: Identity | None = None, **waits: float) -> Opened:
    return await Keyring(identity or Identity(), **waits).open(Configuration(keys=(key,)), LOG, {})


async def test_a_key_signs_by_id_and_by_arn(aws: Aws) -> None:
    for key_id in (KEY_ID, f"arn:aws:kms:{REGION}:111122223333:key/{KEY_ID}"):
        (one,) = (await opened(row(aws, key_id=key_id))).signers
        assert one.key.public_key == aws.public()
        VerifyKey(aws.public()).verify(b"message", await one.sign(b"message"))
    assert aws.requests[:2] == ["POST / TrentService.GetPublicKey", "POST / TrentService.Sign"]


@pytest.mark.parametrize("fault", ["prehashed", "wrong_key"])
async def test_a_signature_of_another_kind_or_key_is_refused_by_the_check(aws: Aws, fault: str) -> None:
    (one,) = (await opened(row(aws))).signers
    setattr(aws.faults, fault, True)
    with pytest.raises(SigningError, match="does not sign as log"):
        await one.sign(b"message")


async def test_a_signature_with_the_prehash_algorithm_is_refused_by_its_name(aws: Aws) -> None:
    (one,) = (await opened(row(aws))).signers
    aws.faults.status, aws.faults.body = 200, {"SigningAlgorithm": "ED25519_PH_SHA_512", "Signature": ""}
    with pytest.raises(SigningError, match="has signed with ED25519_PH_SHA_512, not with ED25519_SHA_512"):
        await one.sign(b"message")


@pytest.mark.parametrize(
    ("credentials", "where", "words"),
    [
        ({**CREDENTIALS, "secretAccessKey": "wrong"}, {}, "AWS KMS refuses GetPublicKey .* InvalidSignatureException"),
        ({**CREDENTIALS, "accessKeyId": "AKIAGONE"}, {}, "UnrecognizedClientException.*allow kms:GetPublicKey"),
        (None, {"key_id": "absent"}, "cannot be used: NotFoundException: Key .* does not exist; enable it, or name"),
        (None, {"region": "us-east-1"}, "IncompleteSignatureException"),
    ],
)
async def test_what_a_person_has_to_correct_is_said(
    aws: Aws, credentials: dict[str, str] | None, where: dict[str, object], words: str
) -> None:
    (trouble,) = (await opened(row(aws, credentials, **where))).troubles
    with pytest.raises(SigningError, match=words):
        raise trouble
    assert "secret/with+signs" not in str(trouble)


async def test_a_key_of_another_spec_is_refused(aws: Aws) -> None:
    aws.specs[KEY_ID] = "ECC_NIST_P256"
    (trouble,) = (await opened(row(aws))).troubles
    assert "is of the spec ECC_NIST_P256; allowed: ECC_NIST_EDWARDS25519" in str(trouble)


async def test_a_key_that_was_disabled_is_a_matter_for_a_person(aws: Aws) -> None:
    (one,) = (await opened(row(aws))).signers
    aws.disabled.add(KEY_ID)
    with pytest.raises(
        SigningError, match=r"cannot be used: DisabledException: .* is disabled.; enable it, or name another"
    ):
        await one.sign(b"message")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "ThrottlingException"), (400, "LimitExceededException"), (500, "KMSInternalException")]
)
async def test_a_kms_that_is_overloaded_is_away_and_not_asked_at_once_again(aws: Aws, status: int, kind: str) -> None:
    (one,) = (await opened(row(aws), first_wait=60)).signers
    aws.faults.status, aws.faults.body = status, {"__type": kind, "message": "Rate exceeded"}
    for _ in range(5):
        with pytest.raises(SignerAwayError, match=f"{kind}: Rate exceeded"):
            await one.sign(b"message")
    assert aws.requests.count("POST / TrentService.Sign") == 1


async def test_a_pod_assumes_its_role_and_again_before_the_credentials_end(aws: Aws, tmp_path: Path) -> None:
    aws.roles[ROLE] = "pod-token"
    token = tmp_path / "token"
    token.write_text("pod-token")
    key = replace(row(aws, role_arn=ROLE, role_endpoint=aws.url), secret=b"")
    (one,) = (await opened(key, Identity(aws_token_file=token))).signers
    VerifyKey(aws.public()).verify(b"one", await one.sign(b"one"))
    assert aws.assumed == 1
    aws.life = 60.0  # less than what is left when credentials are renewed
    (other,) = (await opened(replace(key, id=uuid4()), Identity(aws_token_file=token))).signers
    assert aws.assumed == 2
    await other.sign(b"two")
    assert aws.assumed == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no token to assume .*name its file with KAPSEL_ATTESTOR_AWS_TOKEN_FILE"),
        ("another", "does not let the attestor assume .*: Not authorized to perform sts:AssumeRoleWithWebIdentity"),
    ],
)
async def test_a_role_that_is_not_to_be_had_is_said(aws: Aws, tmp_path: Path, content: str | None, words: str) -> None:
    token = tmp_path / "token"
    token.write_text(content or "")
    key = replace(row(aws, role_arn=ROLE, role_endpoint=aws.url), secret=b"")
    (trouble,) = (await opened(key, Identity(aws_token_file=token if content else None))).troubles
    with pytest.raises(SigningError, match=words):
        raise trouble
