"""What a proof says of its neighbours: nothing, however little there is to guess about them."""

import hashlib
import json
import secrets
from datetime import UTC, datetime
from uuid import UUID

import pytest

from kapsel_attestor import leaves
from kapsel_store.tlog import PendingAttempt
from kapsel_tlog.prover import inclusion_spans, resolve
from kapsel_tlog.tiles import Tile
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import leaf_hash, root_from_leaves, verify_inclusion

SECRETS = [b"yes", b"no", b"perhaps"]  # all that a neighbour can have said


def leaf(payload: bytes, salt: bytes) -> Leaf:
    """A leaf of which a curious neighbour knows everything but the payload and the salt."""
    return Leaf(
        attempt=1,
        delivery_attempt_id="0190f5fe-7c00-7a00-8000-000000000001",
        delivery_id="0190f5fe-7c00-7a00-8000-000000000002",
        destination="billing",
        endpoint="shop/votes",
        endpoint_id="0190f5fe-7c00-7a00-8000-000000000003",
        endpoint_sequence=0,
        endpoint_url="https://billing.example.com/hooks",
        event_id="0190f5fe-7c00-7a00-8000-000000000004",
        outcome="delivered",
        payload_commitment=None,
        payload_hash=hashlib.sha256(payload).digest(),
        previous_leaf_hash=None,
        reason="status_200",
        response_digest=None,
        response_status=200,
        salt=salt,
        signature_digest=None,
        timestamp=1_767_225_600_000,
    )


def attempt(number: int) -> PendingAttempt:
    return PendingAttempt(
        id=str(UUID(int=number)),
        delivery_id=str(UUID(int=1)),
        event_id=str(UUID(int=2)),
        endpoint_id=str(UUID(int=3)),
        namespace="shop",
        name="votes",
        destination="billing",
        number=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        outcome="delivered",
        reason="status_200",
        url="https://billing.example.com/hooks",
        payload_hash="00" * 32,
        payload_commitment=None,
        signature_digest=None,
        response_status=200,
        response_digest=None,
        acknowledgement_base=None,
        acknowledgement_key=None,
        acknowledgement_signature=None,
    )


def guessed(sibling: bytes, salts: list[bytes]) -> list[bytes]:
    """Return the payloads that would explain a sibling hash, by trying all of them with what salts one knows."""
    return [said for said in SECRETS for salt in salts if leaf_hash(leaf(said, salt).encode()) == sibling]


def published(neighbour: bytes) -> tuple[bytes, bytes]:
    """Return the sibling hash in the proof of the leaf beside a neighbour, and the root that it leads to."""
    mine = leaf(b"mine", secrets.token_bytes(32)).encode()
    hashes = [leaf_hash(mine), leaf_hash(neighbour)]
    (sibling,) = resolve(inclusion_spans(0, 2), {Tile(0, 0): b"".join(hashes)})
    verify_inclusion(0, 2, hashes[0], [sibling], root_from_leaves(hashes))
    return sibling, root_from_leaves(hashes)


@pytest.mark.parametrize("said", SECRETS)
def test_a_neighbour_cannot_be_guessed_from_a_proof(said: bytes) -> None:
    salt = secrets.token_bytes(32)
    sibling, _ = published(leaf(said, salt).encode())
    # What somebody would try: no salt, that of a leaf of their own, any that they make up.
    tried = [bytes(32), *(secrets.token_bytes(32) for _ in range(200))]
    assert guessed(sibling, tried) == []
    # It is the salt alone that keeps it: with it, the guess is right at once. So this test could fail.
    assert guessed(sibling, [salt]) == [said]


@pytest.mark.parametrize("said", SECRETS)
def test_without_a_salt_a_neighbour_would_be_an_open_book(said: bytes) -> None:
    sibling, _ = published(leaf(said, bytes(32)).encode())
    assert guessed(sibling, [bytes(32)]) == [said]


def test_the_sequencer_salts_each_leaf_of_a_batch_anew() -> None:
    waiting = [attempt(number) for number in range(1, 60)]
    entropy = secrets.token_bytes(leaves.SALT_BYTES * len(waiting))
    batch = leaves.batch(waiting, {}, 0, entropy)
    salts = [json.loads(row.leaf or b"")["salt"] for row in batch.leaves]
    assert len(set(salts)) == len(waiting)
    assert "".join(salts) == entropy.hex()
