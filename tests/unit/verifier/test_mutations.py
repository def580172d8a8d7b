"""A proof of all four levels, changed in any byte: refused by a class that fits the place, and never otherwise."""

import json
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_verifier import policy, proof
from kapsel_verifier.consistency import ConsistencyProof
from kapsel_verifier.errors import (
    AcknowledgementError,
    AnchorError,
    HeadMismatchError,
    InclusionError,
    MalformedLeafError,
    MalformedNoteError,
    MalformedProofError,
    MalformedTimestampError,
    QuorumError,
    SignatureError,
    UnsupportedProofError,
    UntrustedKeyError,
    VerificationError,
)
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.levels import Means
from kapsel_verifier.note import Note
from kapsel_verifier.ots import parse as parse_ots
from kapsel_verifier.proof import Proof
from kapsel_verifier.sth import STHVerifier
from kapsel_verifier.tlog_proof import TlogProof
from kapsel_verifier.verify import Verified, verify_proof


@pytest.fixture(scope="module")
def strong(log: ModuleType) -> Proof:
    """Witnessed by all, anchored, and acknowledged."""
    checkpoint = log.PROOF.checkpoint + log.cosigned("a", "b", "c")
    made: Proof = log.rebuilt(checkpoint, log.timestamp_of(checkpoint, log.in_block()), log.ACKNOWLEDGED)
    return made


def judge(log: ModuleType, strong: Proof, data: bytes | Proof | TlogProof) -> Verified:
    """Judge with all that an auditor can have, and demand everything."""
    if isinstance(data, bytes):
        data = TlogProof.parse(data) if proof.is_tlog_proof(data) else proof.parse(data)
    means = everything(log, strong.checkpoint)
    return verify_proof(data, [], means=means, now_ms=log.HEAD_MS, max_age_ms=0, expected={"outcome": "delivered"})


@cache
def everything(log: ModuleType, checkpoint: str) -> Means:
    return Means(
        policy=policy.parse(log.policy("group all all a b c\nquorum all\n")),
        block_headers=(log.block(checkpoint),),
        min_difficulty=0,
        destination_keys=(bytes(log.signer("destination").verify_key),),
        require=frozenset({"witnessed", "anchored", "acknowledged"}),
    )


def outcome(log: ModuleType, strong: Proof, data: bytes | Proof | TlogProof) -> type[VerificationError] | Verified:
    try:
        return judge(log, strong, data)
    except VerificationError as refusal:
        return type(refusal)


def assert_refused(log: ModuleType, strong: Proof, data: bytes) -> None:
    """A block header does not say its height, so that one number of a proof is only ever a claim."""
    found = outcome(log, strong, data)
    if isinstance(found, Verified):
        assert found.levels[2].facts["height"] != judge(log, strong, strong).levels[2].facts["height"]
        return
    assert found is not VerificationError


def test_the_proof_is_of_all_levels_and_comes_back_in_both_forms(log: ModuleType, strong: Proof) -> None:
    assert strong.assurance == "acknowledged"
    assert proof.parse(strong.encode()) == strong
    assert TlogProof.parse(TlogProof.of(strong).encode()) == TlogProof.of(strong)
    for form in (strong.encode(), TlogProof.of(strong).encode()):
        assert {level.state for level in judge(log, strong, form).levels} == {"established"}


@pytest.mark.parametrize("form", ["proof.json", "tlog-proof"])
def test_every_single_byte_matters(log: ModuleType, strong: Proof, form: str) -> None:
    original = strong.encode() if form == "proof.json" else TlogProof.of(strong).encode()
    for where, byte in enumerate(original):
        assert_refused(log, strong, original[:where] + bytes([byte ^ 0x01]) + original[where + 1 :])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_other_byte_anywhere_is_refused(log: ModuleType, strong: Proof, data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([strong.encode(), TlogProof.of(strong).encode()]))
    assert_refused(log, strong, mutated(original, data))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_piece_taken_out_or_doubled_is_refused(log: ModuleType, strong: Proof, data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([strong.encode(), TlogProof.of(strong).encode()]))
    first = data.draw(st.integers(0, len(original) - 1))
    last = data.draw(st.integers(first + 1, len(original)))
    assert_refused(log, strong, original[:first] + original[last:])
    assert_refused(log, strong, original[:last] + original[first:])


NOTE = {MalformedNoteError, SignatureError, UntrustedKeyError}
PLACES: dict[str, set[type[VerificationError]]] = {
    "leaf": {InclusionError},
    "inclusion_proof": {InclusionError},
    "text": NOTE,
    "signatures": NOTE | {HeadMismatchError, QuorumError},
    "root_hash": {HeadMismatchError},
    "signature": {HeadMismatchError},
    "log_id": {HeadMismatchError},
    "ots": {MalformedTimestampError, AnchorError, UnsupportedProofError, HeadMismatchError},
    "acknowledgement": {HeadMismatchError},
}


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_part_is_refused_by_a_class_that_fits_it(
    log: ModuleType, strong: Proof, place: str, data: st.DataObject
) -> None:
    changed = changed_in(strong, place, data)
    found = outcome(log, strong, changed)
    if place == "ots" and isinstance(found, Verified):
        assert parse_ots(changed.ots or b"").blocks()[0].height != 930_000
        return
    assert found in PLACES[place]


def changed_in(strong: Proof, place: str, data: st.DataObject) -> Proof:
    text, blank, signatures = strong.checkpoint.partition("\n\n")
    match place:
        case "leaf":
            return strong._replace(leaf=mutated(strong.leaf, data))
        case "inclusion_proof":
            where = data.draw(st.integers(0, len(strong.inclusion_proof) - 1))
            nodes = list(strong.inclusion_proof)
            nodes[where] = mutated(nodes[where], data)
            return strong._replace(inclusion_proof=tuple(nodes))
        case "text":
            return strong._replace(checkpoint=mutated_text(text, data) + blank + signatures)
        case "signatures":
            return strong._replace(checkpoint=text + blank + mutated_text(signatures, data))
        case "ots":
            return strong._replace(ots=mutated(strong.ots or b"", data))
        case "acknowledgement":
            shown = strong.acknowledgement
            assert shown is not None
            return strong._replace(acknowledgement=shown._replace(base=mutated(shown.base, data)))
    value: bytes = getattr(strong.sth, place)
    return strong._replace(sth=strong.sth._replace(**{place: mutated(value, data)}))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_acknowledgement_that_the_log_recorded_wrongly_is_refused(
    log: ModuleType, strong: Proof, data: st.DataObject
) -> None:
    """The log signs whatever it likes; the destination's signature is not its to make."""
    leaf = Leaf.parse(log.LEAVES[log.ACKNOWLEDGED])._replace(endpoint_sequence=log.INDEX)
    name = data.draw(st.sampled_from(["acknowledgement_base", "acknowledgement_signature", "acknowledgement_key"]))
    changed: Proof = log.signed_leaf(leaf._replace(**{name: mutated(getattr(leaf, name), data)}))
    key = bytes(log.signer("destination").verify_key)
    with pytest.raises((AcknowledgementError, MalformedLeafError)):
        verify_proof(changed, [log.trusted()], means=Means(destination_keys=(key,)))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_signed_note_with_any_byte_changed_is_not_believed(log: ModuleType, data: st.DataObject) -> None:
    key = log.vkey()
    original = log.PROOF.checkpoint.encode()
    try:
        note = Note.parse(mutated(original, data))
        trusted = note.verify([key, STHVerifier(key)])
    except VerificationError as refusal:
        assert isinstance(refusal, tuple(NOTE))  # noqa: PT017 - one of several, or believed in part
        return
    # A line that no longer names a known key is ignored; the other one still vouches for the same text.
    assert note.text == Note.parse(original).text
    assert len(trusted) == 1


@settings(max_examples=200)
@given(st.data())
def test_a_consistency_proof_comes_back_and_with_any_byte_changed_is_another_or_none(
    log: ModuleType, data: st.DataObject
) -> None:
    original = log.between(7, log.SIZE).encode()
    read = ConsistencyProof.parse(original)
    assert read.encode() == original
    try:
        other = ConsistencyProof.parse(mutated(original, data))
    except MalformedProofError:
        return
    assert other != read


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_no_consistency_proof(data: bytes) -> None:
    with pytest.raises(VerificationError):
        ConsistencyProof.parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.data())
def test_any_json_in_place_of_any_member_is_refused(
    log: ModuleType, strong: Proof, value: Any, data: st.DataObject
) -> None:
    members = json.loads(strong.encode())
    parts = [members, members["sth"], members["acknowledgement"], *members["cosignatures"]]
    holder = data.draw(st.sampled_from(parts))
    name = data.draw(st.sampled_from(sorted(holder)))
    if holder[name] != value:
        holder[name] = value
        found = outcome(log, strong, json.dumps(members).encode())
        assert isinstance(found, type)
        assert found is not VerificationError


def mutated(original: bytes, data: st.DataObject) -> bytes:
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != original[where]))
    return original[:where] + bytes([value]) + original[where + 1 :]


def mutated_text(original: str, data: st.DataObject) -> str:
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.characters(codec="utf-8").filter(lambda value: value != original[where]))
    return original[:where] + value + original[where + 1 :]
