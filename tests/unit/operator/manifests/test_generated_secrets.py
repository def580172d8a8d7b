"""The Secrets that the operator makes once: what is in them, and what becomes of them with the Relay."""

import urllib.parse
from typing import Any

import pytest

from kapsel_operator.manifests import generated_secrets
from kapsel_store.sealing import SealingKeys


def test_what_opens_the_data_belongs_to_nobody_when_it_is_made(relay: Any, facts: Any) -> None:
    """Only what an apply has said can an apply take back."""
    one = relay({"database": {"embedded": {}}, "deletionPolicy": "Delete"})
    for secret in (
        generated_secrets.sealing_key(one, facts(), bytes(32)),
        generated_secrets.postgres(one, facts(), "password"),
    ):
        assert "ownerReferences" not in secret["metadata"]


@pytest.mark.parametrize(("policy", "owned"), [("Retain", False), ("Delete", True)])
def test_it_is_tied_to_the_relay_that_takes_it_along_and_to_no_other(
    relay: Any, facts: Any, policy: str, owned: bool
) -> None:
    one = relay({"deletionPolicy": policy})
    metadata = generated_secrets.tie(one, facts(), "main-sealing-key", "its-uid")["metadata"]
    assert metadata["uid"] == "its-uid"
    assert ("ownerReferences" in metadata) is owned
    assert (metadata.get("annotations") == {"kapsel.dev/goes-with": facts().owner_uid}) is owned


def test_the_token_of_the_console_goes_with_the_relay(relay: Any, facts: Any) -> None:
    assert "ownerReferences" in generated_secrets.console_token(relay(), facts(), "t")["metadata"]


def test_a_sealing_key_is_read_by_the_processes_as_it_is_written(relay: Any, facts: Any, tmp_path: Any) -> None:
    secret = generated_secrets.sealing_key(relay(), facts(), bytes(range(32)))
    (tmp_path / "sealing.key").write_text(secret["stringData"]["sealing.key"])
    sealed = SealingKeys([bytes(range(32))]).seal(b"secret")
    assert SealingKeys.from_file(tmp_path / "sealing.key").open(sealed) == b"secret"


def test_any_password_survives_in_the_url_of_the_database(relay: Any, facts: Any) -> None:
    secret = generated_secrets.postgres(relay(), facts(), "p@ss/w:rd?#%")
    parts = urllib.parse.urlsplit(secret["stringData"]["uri"])
    assert urllib.parse.unquote(parts.password or "") == "p@ss/w:rd?#%"
    assert (parts.hostname, parts.port, parts.path) == ("main-postgres.shop.svc.cluster.local", 5432, "/kapsel")
