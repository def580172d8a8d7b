"""Attempts as leaves: what is in them, how they hang together, and that nothing the store holds is left without one."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_attestor import leaves
from kapsel_store.tlog import Chain, PendingAttempt
from kapsel_verifier.errors import MalformedLeafError
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import leaf_hash

ORDERS = str(UUID(int=1))
REFUNDS = str(UUID(int=2))
SALT = bytes(range(32))

ATTEMPT = PendingAttempt(
    id=str(UUID(int=10)),
    delivery_id=str(UUID(int=11)),
    event_id=str(UUID(int=12)),
    endpoint_id=ORDERS,
    namespace="shop",
    name="orders",
    destination="billing",
    number=2,
    started_at=datetime(2026, 5, 4, 3, 2, 1, 987_654, tzinfo=UTC),
    outcome="delivered",
    reason="status_200",
    url="https://billing.example.com/hooks",
    payload_hash="01" * 32,
    payload_commitment="02" * 32,
    signature_digest="03" * 32,
    response_status=200,
    response_digest="04" * 32,
    acknowledgement_base=b'"@status": 200',
    acknowledgement_key=b"\x06" * 32,
    acknowledgement_signature=b"\x07" * 64,
)


def pending(number: int, endpoint_id: str = ORDERS) -> PendingAttempt:
    return ATTEMPT._replace(id=str(UUID(int=1000 + number)), endpoint_id=endpoint_id)


def test_leaf_says_what_the_attempt_says() -> None:
    assert Leaf.parse(leaves.encode(ATTEMPT, 8, b"\x05" * 32, SALT)) == Leaf(
        attempt=2,
        delivery_attempt_id=ATTEMPT.id,
        delivery_id=ATTEMPT.delivery_id,
        destination="billing",
        endpoint="shop/orders",
        endpoint_id=ORDERS,
        endpoint_sequence=8,
        endpoint_url="https://billing.example.com/hooks",
        event_id=ATTEMPT.event_id,
        outcome="delivered",
        payload_commitment=b"\x02" * 32,
        payload_hash=b"\x01" * 32,
        previous_leaf_hash=b"\x05" * 32,
        reason="status_200",
        response_digest=b"\x04" * 32,
        response_status=200,
        acknowledgement_base=b'"@status": 200',
        acknowledgement_key=b"\x06" * 32,
        acknowledgement_signature=b"\x07" * 64,
        salt=SALT,
        signature_digest=b"\x03" * 32,
        timestamp=1_777_863_721_987,
    )


def test_each_endpoint_has_its_own_unbroken_chain() -> None:
    stored = {ORDERS: Chain(endpoint_id=ORDERS, sequence=4, leaf_hash=b"\x06" * 32)}
    waiting = [pending(0), pending(1, REFUNDS), pending(2), pending(3, REFUNDS), pending(4)]
    batch = leaves.batch(waiting, stored, 100, bytes(32 * 5))
    parsed = [Leaf.parse(row.leaf or b"") for row in batch.leaves]
    assert [row.leaf_index for row in batch.leaves] == [100, 101, 102, 103, 104]
    assert [leaf.endpoint_sequence for leaf in parsed] == [5, 0, 6, 1, 7]
    assert [leaf.previous_leaf_hash for leaf in parsed] == [
        b"\x06" * 32,
        None,
        batch.hashes[0],
        batch.hashes[1],
        batch.hashes[2],
    ]
    assert batch.hashes == [leaf_hash(row.leaf or b"") for row in batch.leaves]
    assert {chain.endpoint_id: (chain.sequence, chain.leaf_hash) for chain in batch.chains.values()} == {
        ORDERS: (7, batch.hashes[4]),
        REFUNDS: (1, batch.hashes[3]),
    }


def test_each_leaf_has_a_salt_of_its_own() -> None:
    batch = leaves.batch([pending(0), pending(1)], {}, 0, bytes(range(64)))
    assert [Leaf.parse(row.leaf or b"").salt for row in batch.leaves] == [bytes(range(32)), bytes(range(32, 64))]


def test_batch_with_an_attempt_that_no_leaf_can_hold_is_refused_as_a_whole() -> None:
    broken = ATTEMPT._replace(payload_hash="5407")
    with pytest.raises(MalformedLeafError, match="32 bytes"):
        leaves.batch([pending(0), broken, pending(2)], {}, 0, bytes(96))


TEXTS = st.text(max_size=12) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)
HASHES = st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)


@settings(deadline=None)
@given(
    texts=st.lists(TEXTS.filter(bool), min_size=5, max_size=5),
    reason=TEXTS,
    hashes=st.lists(HASHES, min_size=4, max_size=4),
    status=st.none() | st.integers(100, 999),
    started_at=st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    acknowledged=st.booleans(),
    previous=st.none() | st.binary(min_size=32, max_size=32),
)
def test_short_way_makes_the_bytes_of_the_long_one(
    texts, reason, hashes, status, started_at, acknowledged, previous
) -> None:
    attempt = ATTEMPT._replace(
        namespace=texts[0], name=texts[1], destination=texts[2], outcome=texts[3], url=texts[4], reason=reason,
        payload_commitment=hashes[0], signature_digest=hashes[1], response_digest=hashes[2], response_status=status,
        started_at=started_at, sent_hash=hashes[3],
    )  # fmt: skip
    if not acknowledged:
        attempt = attempt._replace(acknowledgement_base=None, acknowledgement_key=None, acknowledgement_signature=None)
    chains = {} if previous is None else {ORDERS: Chain(endpoint_id=ORDERS, sequence=6, leaf_hash=previous)}
    batch = leaves.batch([attempt], chains, 3, SALT)
    expected = leaves.encode(attempt, 0 if previous is None else 7, previous, SALT)
    assert batch.leaves[0].leaf == expected
    assert Leaf.parse(expected).encode() == expected
    assert batch.hashes == [leaf_hash(expected)]


def test_chain_that_did_not_move_is_not_written() -> None:
    stored = {REFUNDS: Chain(endpoint_id=REFUNDS, sequence=4, leaf_hash=b"\x06" * 32)}
    assert list(leaves.batch([pending(0)], stored, 0, bytes(32)).chains) == [ORDERS]


def test_url_in_other_scripts_is_percent_encoded() -> None:
    international = ATTEMPT._replace(url="https://exämple.com/a%20b?q=ü\n")
    leaf = Leaf.parse(leaves.encode(international, 0, None, SALT))
    assert leaf.endpoint_url == "https://ex%C3%A4mple.com/a%20b?q=%C3%BC%0A"


def test_text_that_is_too_long_is_cut_but_committed_to_as_a_whole() -> None:
    long = [ATTEMPT._replace(url="https://e.example/" + "a" * 9000 + end) for end in "xy"]
    urls = {Leaf.parse(leaves.encode(one, 0, None, SALT)).endpoint_url for one in long}
    assert len(urls) == 2
    assert all(len(url) == 8192 and "~sha256:" in url for url in urls)


texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=400)
ids = st.uuids().map(str)
digest = st.binary(min_size=32, max_size=32).map(bytes.hex)
digests = st.none() | digest


@given(
    st.builds(
        PendingAttempt,
        id=ids,
        delivery_id=ids,
        event_id=ids,
        endpoint_id=ids,
        namespace=texts,
        name=texts,
        destination=texts,
        number=st.integers(1, 2**31 - 1),
        started_at=st.datetimes(timezones=st.just(UTC)),
        outcome=texts,
        reason=texts,
        url=texts | texts.map(lambda text: text * 100),
        payload_hash=digest,
        payload_commitment=digests,
        signature_digest=digests,
        response_digest=digests,
        response_status=st.none() | st.integers(100, 999),
        acknowledgement_base=st.none(),
        acknowledgement_key=st.none(),
        acknowledgement_signature=st.none(),
        sent_hash=digests,
    ),
    st.none() | st.binary(min_size=1, max_size=8192),
)
def test_whatever_the_store_can_hold_has_a_leaf(attempt: PendingAttempt, base: bytes | None) -> None:
    if base is not None:
        attempt = attempt._replace(
            acknowledgement_base=base, acknowledgement_key=bytes(32), acknowledgement_signature=bytes(64)
        )
    leaf = Leaf.parse(leaves.encode(attempt, 0, None, SALT))
    assert leaf.delivery_attempt_id == attempt.id
    assert leaf.acknowledgement_base == base
