"""A log's key in Vault: what the attestor asks of the transit engine, and what it makes of every answer."""

import asyncio
import base64
import json
import ssl
import subprocess
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from keyservers.vault import TOKEN, Vault
from nacl.signing import VerifyKey

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring, Opened
from kapsel_attestor.signers.signer import Signer
from kapsel_store.key_backends import VaultKey
from kapsel_store.rows import Configuration, KeyRow, LogRow

LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="external/k")


@pytest.fixture
async def vault() -> AsyncIterator[Vault]:
    server = Vault()
    await server.start()
    yield server
    await server.stop()


def row(vault: Vault, *, version: int = 1, token: str = TOKEN, **where: object) -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name="external/k",
        version=version,
        algorithm="Ed25519",
        secret=json.dumps({"token": token}).encode(),
        not_before=datetime.now(UTC) - timedelta(minutes=5),
        backend=replace(VaultKey(address=vault.url, mount="transit", key="log", version=version), **where),
    )


async def opened(*rows: KeyRow, identity: Identity | None = None, ring: Keyring | None = None) -> Opened:
    ring = ring or Keyring(identity or Identity())
    return await ring.open(Configuration(keys=rows), LOG, {})


async def signer(key: KeyRow, ring: Keyring | None = None) -> Signer:
    found = await opened(key, ring=ring)
    assert found.troubles == ()
    return found.signers[0]


async def test_the_version_that_is_named_signs(vault: Vault) -> None:
    vault.rotate()
    for version in (1, 2):
        one = await signer(row(vault, version=version))
        assert one.key.public_key == vault.public(version)
        VerifyKey(vault.public(version)).verify(b"message", await one.sign(b"message"))
    assert vault.requests[:2] == ["GET /v1/transit/keys/log", "POST /v1/transit/sign/log"]


async def test_the_namespace_of_vault_enterprise_is_named(vault: Vault) -> None:
    await signer(row(vault, namespace="team/a"))
    assert vault.namespaces == ["team/a"]


async def test_a_signature_by_another_version_is_refused_by_its_name(vault: Vault) -> None:
    one = await signer(row(vault))
    vault.rotate()
    vault.signs_with_newest = True
    with pytest.raises(SigningError, match=r"another version than version 1 of transit/log .* has signed: vault:v2"):
        await one.sign(b"message")


@pytest.mark.parametrize("fault", ["prehashed", "wrong_key"])
async def test_a_signature_of_another_kind_or_key_is_refused_by_the_check(vault: Vault, fault: str) -> None:
    one = await signer(row(vault))
    setattr(vault.faults, fault, True)
    with pytest.raises(SigningError, match="does not sign as log"):
        await one.sign(b"message")


@pytest.mark.parametrize(
    ("where", "token", "words"),
    [
        ({"version": 7}, TOKEN, "there is no version 7 of transit/log .*; versions of the key: 1"),
        ({"key": "rsa"}, TOKEN, "is of type rsa-2048; allowed: ed25519"),
        ({"key": "absent"}, TOKEN, "status 404 signing key not found"),
        ({}, "hvs.revoked", "permission denied.*must allow read of transit/keys/log and update of transit/sign/log"),
        ({"mount": "elsewhere"}, TOKEN, "status 404"),
    ],
)
async def test_what_a_person_has_to_correct_is_said(
    vault: Vault, where: dict[str, object], token: str, words: str
) -> None:
    found = await opened(row(vault, token=token, **where))
    (trouble,) = found.troubles
    assert isinstance(trouble, SigningError)
    assert TOKEN not in str(trouble)
    with pytest.raises(SigningError, match=words):
        raise trouble


@pytest.mark.parametrize(
    ("status", "body"), [(429, {"errors": ["request path quota exceeded"]}), (503, {"errors": ["Vault is sealed"]})]
)
async def test_a_vault_that_is_overloaded_or_sealed_is_away(vault: Vault, status: int, body: object) -> None:
    one = await signer(row(vault), Keyring(Identity(), first_wait=60))
    vault.faults.status, vault.faults.body = status, body
    with pytest.raises(SignerAwayError, match=f"cannot serve: status {status} {body['errors'][0]}"):
        await one.sign(b"message")
    asked = len(vault.requests)
    for _ in range(10):
        with pytest.raises(SignerAwayError, match="cannot serve"):
            await one.sign(b"message")
    assert len(vault.requests) == asked


async def test_a_vault_that_hangs_is_away_and_asked_no_second_time_meanwhile(vault: Vault) -> None:
    ring = Keyring(Identity(), deadline=3.0)  # shorter than that of the connection
    found = await opened(row(vault), ring=ring)
    vault.faults.hangs = True
    with pytest.raises(SignerAwayError, match=r"did not answer within 3 s"):
        await found.signers[0].sign(b"message")
    assert vault.requests.count("POST /v1/transit/sign/log") == 1


async def test_nobody_at_the_address_is_away(vault: Vault) -> None:
    one = await signer(row(vault))
    await vault.stop()
    with pytest.raises(SignerAwayError, match="does not answer"):
        await one.sign(b"message")


async def test_an_answer_that_is_no_vaults_is_no_signature(vault: Vault) -> None:
    one = await signer(row(vault))
    vault.faults.status, vault.faults.body = 200, {"hello": "world"}
    with pytest.raises(SigningError, match=r"the answer has no data.signature"):
        await one.sign(b"message")
    other = await signer_after_fault(vault, {"data": {"signature": "vault:v1:no base64!"}})
    with pytest.raises(SignerAwayError, match="did not come as base64"):
        await other.sign(b"message")
    third = await signer_after_fault(vault, {"data": {"signature": "vault:v1:" + base64.b64encode(b"short").decode()}})
    with pytest.raises(SigningError, match="does not sign as log"):
        await third.sign(b"message")


async def test_a_token_that_cannot_be_sent_is_said_and_not_shown(vault: Vault) -> None:
    found = await opened(row(vault, token="hvs.secret\n# rotated on monday"))
    (trouble,) = found.troubles
    assert isinstance(trouble, SigningError)
    assert "cannot be sent: it has a line break" in str(trouble)
    assert "hvs.secret" not in "".join(traceback.format_exception(trouble))


async def test_an_answer_without_what_belongs_into_it_is_away(vault: Vault) -> None:
    vault.faults.status, vault.faults.body = 200, {"data": None}
    (trouble,) = (await opened(row(vault))).troubles
    assert isinstance(trouble, SignerAwayError | SigningError)


async def signer_after_fault(vault: Vault, body: object) -> Signer:
    vault.faults.status = None
    one = await signer(row(vault))
    vault.faults.status, vault.faults.body = 200, body
    return one


async def test_a_pod_logs_in_with_its_service_account_and_again_when_the_token_is_over(
    vault: Vault, tmp_path: Path
) -> None:
    vault.accounts["kapsel"] = "account-token"
    (tmp_path / "token").write_text("account-token\n")
    key = replace(row(vault, role="kapsel", role_mount="kubernetes"), secret=b"")
    found = await opened(key, identity=Identity(service_account=tmp_path))
    (one,) = found.signers
    await one.sign(b"one")
    await one.sign(b"two")
    assert vault.logins == 1
    vault.tokens.clear()  # revoked before its time
    await one.sign(b"three")
    assert vault.logins == 2
    vault.accounts.clear()
    vault.tokens.clear()
    with pytest.raises(SigningError, match="does not let the role kapsel in: service account name not authorized"):
        await one.sign(b"four")


async def test_outside_a_pod_there_is_no_account_to_log_in_with(vault: Vault, tmp_path: Path) -> None:
    key = replace(row(vault, role="kapsel", role_mount="kubernetes"), secret=b"")
    found = await opened(key, identity=Identity(service_account=tmp_path / "none"))
    assert "which only a pod has" in str(found.troubles[0])


async def test_a_server_is_believed_for_the_authority_that_is_named_and_for_no_other(tmp_path: Path) -> None:
    for name in ("server", "stranger"):
        command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", "-subj", "/CN=vault"]
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command, *files], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    vault = Vault()
    await vault.start(context)
    try:

        async def trusting(name: str | None) -> Opened:
            authority = {} if name is None else {"ca": (tmp_path / name).read_text()}
            return await opened(replace(row(vault), secret=json.dumps({"token": TOKEN, **authority}).encode()))

        (one,) = (await trusting("server.crt")).signers
        VerifyKey(vault.public(1)).verify(b"message", await one.sign(b"message"))
        for stranger in ("stranger.crt", None):
            (trouble,) = (await trusting(stranger)).troubles
            assert isinstance(trouble, SignerAwayError)
            assert "CERTIFICATE_VERIFY_FAILED" in str(trouble)
        (trouble,) = (await trusting("server.key")).troubles
        assert "the authority of Vault is no certificate in PEM" in str(trouble)
    finally:
        await vault.stop()


async def test_a_redirect_is_not_followed(vault: Vault) -> None:
    one = await signer(row(vault))
    vault.faults.status, vault.faults.body = 307, {}
    with pytest.raises(SigningError, match="redirects, which is not followed"):
        await one.sign(b"message")


async def test_a_token_that_was_renewed_is_used_at_once(vault: Vault) -> None:
    ring, key = Keyring(Identity()), row(vault, token="hvs.old")
    assert isinstance((await opened(key, ring=ring)).troubles[0], SigningError)
    renewed = replace(key, secret=json.dumps({"token": TOKEN}).encode())
    (one,) = (await opened(renewed, ring=ring)).signers
    await asyncio.wait_for(one.sign(b"message"), 240)


async def test_a_log_is_signed_by_vault_and_rotated_to_its_next_version(world, eventually, vault: Vault) -> None:
    first = replace(row(vault), name=world.row.key_name)
    world.keys[:] = [first]
    await world.apply(world.row)
    running = await world.start()
    await world.head_over(0)
    assert (await world.head()).public_key == vault.public(1)

    vault.faults.status, vault.faults.body = 429, {"errors": ["quota"]}
    await world.record(3)
    await eventually(lambda: running.value("attestation_late_heads_total", waits_for="signer") > 0)
    await eventually(grown_to, world, 3)
    assert (await world.head()).tree_size == 0
    await running.well()  # nobody has to act
    vault.faults.status = None
    await world.head_over(3)

    vault.rotate()
    world.keys.append(replace(row(vault, version=2), name=world.row.key_name))
    await world.apply(world.row)
    await world.head_over(4)  # the announcement
    world.keys.remove(first)
    await world.apply(world.row)
    await world.record()
    await world.head_over(5)
    await eventually(signed_with, world, vault.public(2))


async def grown_to(world, size: int) -> bool:
    return (await world.log()).tree_size >= size


async def signed_with(world, public_key: bytes) -> bool:
    await world.record()
    return (await world.head()).public_key == public_key
