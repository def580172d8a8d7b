"""What the attestor takes from the variables that a cloud sets in its pods."""

from pathlib import Path

import pytest

from kapsel_attestor.settings import AttestorSettings

NEEDED = {
    "KAPSEL_DATABASE_URL": "postgresql://localhost/kapsel",
    "KAPSEL_SEALING_KEY_FILE": "/run/sealing.key",
    "KAPSEL_ATTESTOR_FENCE_FILE": "/var/lib/fence.json",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE", raising=False)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)


def test_the_token_for_aws_is_where_eks_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AttestorSettings().attestor_aws_token_file is None
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/token")
    assert AttestorSettings().attestor_aws_token_file == Path("/var/run/secrets/eks.amazonaws.com/token")
    monkeypatch.setenv("KAPSEL_ATTESTOR_AWS_TOKEN_FILE", "/elsewhere")
    assert AttestorSettings().attestor_aws_token_file == Path("/elsewhere")


def test_the_metadata_server_of_google_may_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AttestorSettings().attestor_google_metadata == "http://metadata.google.internal"
    monkeypatch.setenv("KAPSEL_ATTESTOR_GOOGLE_METADATA", "http://169.254.169.254")
    assert AttestorSettings().attestor_google_metadata == "http://169.254.169.254"
