"""What proves who the pod is goes to nobody whom a manifest alone names."""

import re
from pathlib import Path

import pytest

from kapsel_attestor.errors import SigningError
from kapsel_attestor.signers import hosts
from kapsel_attestor.signers.aws_kms import AwsBackend
from kapsel_attestor.signers.backends import Backend
from kapsel_attestor.signers.google_kms import GoogleBackend
from kapsel_attestor.signers.vault import VaultBackend
from kapsel_store.key_backends import AwsKey, GoogleKey, VaultKey

METADATA = "http://127.0.0.1:1"  # nobody answers there, and nobody must be asked


@pytest.mark.parametrize(
    ("own", "host"),
    [
        (hosts.AWS_STS, "sts.eu-central-1.amazonaws.com"),
        (hosts.AWS_STS, "sts.us-gov-west-1.amazonaws.com"),
        (hosts.AWS_STS, "sts.cn-north-1.amazonaws.com.cn"),
        (hosts.AWS_STS, "sts-fips.us-east-1.amazonaws.com"),
        (hosts.AWS_STS, "sts.amazonaws.com"),
        (hosts.GOOGLE_KMS, "cloudkms.googleapis.com"),
        (hosts.GOOGLE_KMS, "cloudkms.europe-west3.rep.googleapis.com"),
        (hosts.NONE, "localhost"),
        (hosts.NONE, "VAULT.shop.svc"),
    ],
)
def test_the_providers_own_hosts_and_those_that_were_named_may_have_it(own: re.Pattern[str], host: str) -> None:
    hosts.require(f"https://{host}:8443", "it", own, {"vault.shop.svc"})


@pytest.mark.parametrize(
    ("own", "host"),
    [
        (hosts.AWS_STS, "sts.example.com"),
        (hosts.AWS_STS, "sts.s3.amazonaws.com"),  # a bucket of the name sts
        (hosts.AWS_STS, "sts.s3-eu-west-1.amazonaws.com"),
        (hosts.AWS_STS, "abc.execute-api.eu-west-1.amazonaws.com"),
        (hosts.AWS_STS, "sts.amazonaws.com.example.com"),
        (hosts.AWS_STS, "stsxamazonaws.com"),
        (hosts.GOOGLE_KMS, "cloudkms.storage.googleapis.com"),
        (hosts.GOOGLE_KMS, "cloudkms.googleapis.com.example.com"),
        (hosts.NONE, "vault.shop.svc.example.com"),
        (hosts.NONE, ""),
    ],
)
def test_others_may_not(own: re.Pattern[str], host: str) -> None:
    with pytest.raises(SigningError, match=r"it does not go to .*KAPSEL_ATTESTOR_IDENTITY_HOSTS"):
        hosts.require(f"https://{host}", "it", own, {"vault.shop.svc"})


def test_a_signing_key_alone_sends_no_identity_anywhere(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("of the pod")
    role = "arn:aws:iam::111122223333:role/kapsel"
    vault = VaultKey(
        address="https://thief.invalid", mount="transit", key="k", version=1, role="kapsel", role_mount="kubernetes"
    )
    aws = AwsKey(
        key_id="k",
        region="eu-central-1",
        endpoint="https://kms.eu-central-1.amazonaws.com",
        role_arn=role,
        role_endpoint="https://thief.invalid",
    )
    google = GoogleKey(
        name="projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", endpoint="https://thief.invalid"
    )
    backends: list[Backend] = [
        VaultBackend(vault, {}, token, ()),
        AwsBackend(aws, {}, token, ()),
        GoogleBackend(google, None, METADATA, ()),
    ]
    for backend in backends:
        with pytest.raises(SigningError, match=r"does not go to thief\.invalid because a SigningKey says so"):
            backend.public_key()
