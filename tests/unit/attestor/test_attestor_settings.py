"""What the attestor takes from the variables that a cloud sets in its pods."""

from pathlib import Path

import pytest

from kapsel_attestor.settings import AttestorSettings
from kapsel_runtime import settings
from kapsel_runtime.errors import SettingsError

NEEDED = {
    "KAPSEL_DATABASE_URL": "postgresql://localhost/kapsel",
    "KAPSEL_SEALING_KEY_FILE": "/run/sealing.key",
    "KAPSEL_ATTESTOR_FENCE_FILE": "/var/lib/fence.json",
}


def loaded(**more: str) -> AttestorSettings:
    return settings.load(AttestorSettings, {**NEEDED, **more})


def test_the_token_for_aws_is_where_eks_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE", raising=False)
    assert loaded().attestor_aws_token_file is None
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/token")
    assert loaded().attestor_aws_token_file == Path("/var/run/secrets/eks.amazonaws.com/token")
    assert loaded(KAPSEL_ATTESTOR_AWS_TOKEN_FILE="/elsewhere").attestor_aws_token_file == Path("/elsewhere")


def test_the_metadata_server_of_google_may_be_another() -> None:
    assert loaded().attestor_google_metadata == "http://metadata.google.internal"
    assert loaded(KAPSEL_ATTESTOR_GOOGLE_METADATA="http://[::1]:8080").attestor_google_metadata == "http://[::1]:8080"


def test_hosts_that_may_have_the_identity_of_the_pod_are_named_one_by_one() -> None:
    assert loaded().identity_hosts == frozenset()
    named = loaded(KAPSEL_ATTESTOR_IDENTITY_HOSTS="Vault.shop.svc,sts.internal,fd00::1").identity_hosts
    assert named == {"vault.shop.svc", "sts.internal", "fd00::1"}
    with pytest.raises(SettingsError):
        loaded(KAPSEL_ATTESTOR_IDENTITY_HOSTS="https://vault.shop.svc")
