"""Keys that kapsel does not hold, through the database and back, and the time in which a log had each of its keys."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from kapsel_store import configuration, log_keys, tlog
from kapsel_store.key_backends import AwsKey, FileKey, GoogleKey, KeyBackend, Pkcs11Key, VaultKey
from kapsel_store.log_keys import LogKey
from kapsel_store.rows import Configuration, KeyRow

BACKENDS = (
    FileKey(path="/run/key"),
    Pkcs11Key(module="/usr/lib/module.so", token_label="logs", label="log", id="a1"),
    VaultKey(address="https://vault.example", mount="transit", key="log", version=2, namespace="team", role="kapsel"),
    AwsKey(key_id="1234abcd", region="eu-central-1", endpoint="https://kms.example", role_arn="arn:aws:iam::1:role/r"),
    GoogleKey(
        name="projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", endpoint="https://kms.example"
    ),
)


def row(backend: KeyBackend | None, version: int = 1) -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace="shop",
        name="external/k",
        version=version,
        algorithm="Ed25519",
        secret=b'{"token":"t"}',
        not_before=datetime(2026, 6, 1, tzinfo=UTC),
        backend=backend,
    )


async def test_where_a_key_is_comes_back_as_it_was_applied_and_what_opens_it_is_sealed(database) -> None:
    connection = await database.connection()
    keys = tuple(row(backend, number) for number, backend in enumerate((*BACKENDS, None), 1))
    desired = Configuration(keys=keys)
    generation = await configuration.apply(connection, database.sealing, desired, actor="test")
    assert (await configuration.load(connection, database.sealing)).keys == keys
    assert await configuration.apply(connection, database.sealing, desired, actor="test") == generation
    assert await connection.fetchval("SELECT count(*) FROM keys WHERE position('token'::bytea IN sealed) > 0") == 0

    moved = Configuration(keys=(row(FileKey(path="/run/other")),))
    assert await configuration.apply(connection, database.sealing, moved, actor="test") == generation + 1
    assert (await configuration.load(connection, database.sealing)).keys == moved.keys
    await connection.close()


async def test_a_log_remembers_its_keys_in_their_order(database) -> None:
    connection = await database.connection()
    log = await tlog.open_log(connection, "log.example.com")
    first, second = bytes(32), b"\x01" * 32
    for timestamp in (1000, 2000):
        await log_keys.begin(connection, log.id, first, UUID(int=1), timestamp)
    await log_keys.announce(connection, log.id, second, UUID(int=2), not_before_ms=5000, leaf_index=7)
    await log_keys.end(connection, log.id, first, 4000)
    known = LogKey(number=1, public_key=first, not_before_ms=1000, not_after_ms=4000, key_id=UUID(int=1))
    new = LogKey(number=2, public_key=second, not_before_ms=5000, announced_in=7, key_id=UUID(int=2))
    assert await log_keys.history(connection, log.id) == [known, new]

    await log_keys.end(connection, log.id, first, 9000)  # what has ended, has
    await log_keys.end(connection, log.id, second, 4500)  # one that never signed
    assert [one.not_after_ms for one in await log_keys.history(connection, log.id)] == [4000, 5000]
    with pytest.raises(asyncpg.UniqueViolationError):
        await log_keys.announce(connection, log.id, first, UUID(int=3), not_before_ms=9000, leaf_index=9)
    await connection.close()
