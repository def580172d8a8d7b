import json
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kapsel_verifier import proof, verify
from kapsel_verifier.errors import (
    HeadMismatchError,
    KeyValidityError,
    SignatureError,
    TooLargeError,
    UnsupportedProofError,
    UntrustedKeyError,
    VerificationError,
)
from kapsel_verifier.heads import verify_head
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.levels import Means
from kapsel_verifier.note import Checkpoint, Note
from kapsel_verifier.report import lines, to_json
from kapsel_verifier.sth import SignedTreeHead, find_sth, sign_head
from kapsel_verifier.tlog_proof import TlogProof
from kapsel_verifier.verify import verify_proof


def trusted(log: ModuleType) -> list[TrustedKey]:
    return [TrustedKey(public_key=log.vkey().public_key, name=log.ORIGIN)]


def test_a_proof_comes_back_as_it_was_written(log: ModuleType) -> None:
    assert proof.parse(log.PROOF.encode()) == log.PROOF
    assert TlogProof.parse(TlogProof.of(log.PROOF).encode()) == TlogProof.of(log.PROOF)


def test_the_head_comes_back_from_json_and_from_the_note(log: ModuleType) -> None:
    assert SignedTreeHead.from_json(log.PROOF.sth.to_json()) == log.PROOF.sth
    assert find_sth(Note.parse(log.PROOF.checkpoint), [log.vkey("other"), log.vkey()]) == log.PROOF.sth


def test_every_leaf_of_a_log_is_proven_in_both_forms(log: ModuleType) -> None:
    for index in range(log.SIZE):
        made = log.make_proof(log.LEAVES, index)
        for form in (proof.parse(made.encode()), TlogProof.of(made)):
            verified = verify_proof(form, trusted(log))
            assert (verified.leaf_index, verified.leaf.encode()) == (index, log.LEAVES[index])


def test_every_single_byte_of_a_proof_matters(log: ModuleType) -> None:
    """Each byte in turn, replaced by a few that are most likely to be taken for the same."""
    original = log.PROOF.encode()
    for where, byte in enumerate(original):
        for value in {byte ^ 0x01, byte ^ 0x20, 0x20, 0x0A} - {byte}:
            assert_refused(log, original[:where] + bytes([value]) + original[where + 1 :])


@settings(max_examples=400)
@given(st.data())
def test_a_proof_with_any_byte_changed_is_refused(log: ModuleType, data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([log.PROOF.encode(), TlogProof.of(log.PROOF).encode()]))
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != original[where]))
    assert_refused(log, original[:where] + bytes([value]) + original[where + 1 :])


@settings(max_examples=300)
@given(st.data())
def test_a_proof_cut_or_with_a_piece_taken_out_or_doubled_is_refused_or_says_the_same(
    log: ModuleType, data: st.DataObject
) -> None:
    original = data.draw(st.sampled_from([log.PROOF.encode(), TlogProof.of(log.PROOF).encode()]))
    first = data.draw(st.integers(0, len(original)))
    last = data.draw(
        st.integers(first + 1, len(original) + 1).filter(lambda last: last <= len(original))
        if first < len(original)
        else st.just(first)
    )
    if first == last:
        return
    for changed in (original[:first] + original[last:], original[:last] + original[first:]):
        # One change makes no other proof of a .tlog-proof: a signature line more, twice the same or by a key unknown.
        before, lines = parts(changed)
        if not (proof.is_tlog_proof(changed) and before == parts(original)[0] and lines >= parts(original)[1]):
            assert_refused(log, changed)


def parts(data: bytes) -> tuple[bytes, frozenset[bytes]]:
    """Return a .tlog-proof without its signature lines, and which lines these are."""
    before, _, lines = data.rpartition(b"\n\n")
    return before, frozenset(lines.splitlines(keepends=True))


def assert_refused(log: ModuleType, data: bytes) -> None:
    with pytest.raises(VerificationError):
        verify_proof(TlogProof.parse(data) if proof.is_tlog_proof(data) else proof.parse(data), trusted(log))


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"c2sp.org/tlog-proof@v1\n\n")
@example(b'{"a":' * 5000)
def test_arbitrary_bytes_are_refused_by_every_parser(data: bytes) -> None:
    for parse in (proof.parse, TlogProof.parse, Note.parse):
        with pytest.raises(VerificationError):
            parse(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=8,
    ),
    st.data(),
)
def test_any_json_in_place_of_any_member_is_refused(log: ModuleType, value: object, data: st.DataObject) -> None:
    members = json.loads(log.PROOF.encode())
    holder = data.draw(st.sampled_from([members, members["sth"]]))
    name = data.draw(st.sampled_from(sorted(holder)))
    if holder[name] != value:
        holder[name] = value
        assert_refused(log, json.dumps(members).encode())


def test_a_file_beyond_its_limit_is_refused_unread() -> None:
    for parse in (proof.parse, TlogProof.parse):
        with pytest.raises(TooLargeError):
            parse(b" " * (proof.MAX_PROOF_SIZE + 1))


def test_a_signer_that_signs_with_another_key_is_caught_before_publishing(log: ModuleType) -> None:
    checkpoint = Checkpoint(origin=log.ORIGIN, tree_size=13, root_hash=log.PROOF.sth.root_hash)
    with pytest.raises(SignatureError):
        sign_head(checkpoint, log.HEAD_MS, log.vkey(), log.sign("other"))
    with pytest.raises(HeadMismatchError):
        sign_head(checkpoint, log.HEAD_MS, log.vkey(origin="elsewhere"), log.sign())


@pytest.mark.parametrize("wrong", ["checkpoint", "tree head"])
def test_either_form_of_a_head_is_checked_after_signing(log: ModuleType, wrong: str) -> None:
    checkpoint = Checkpoint(origin=log.ORIGIN, tree_size=13, root_hash=log.PROOF.sth.root_hash)

    def sign(message: bytes) -> bytes:
        is_wrong = (len(message) == 48) == (wrong == "tree head")
        return bytes(log.sign("other" if is_wrong else "log")(message))

    with pytest.raises(SignatureError, match=wrong):
        sign_head(checkpoint, log.HEAD_MS, log.vkey(), sign)


def test_of_two_tree_head_lines_by_one_key_the_first_counts(log: ModuleType) -> None:
    again = log.make_proof(log.LEAVES, 0, timestamp_ms=log.HEAD_MS + 1).sth.line(log.vkey())
    assert verify_head(log.PROOF.checkpoint + again, trusted(log)).sth == log.PROOF.sth


def test_a_proof_cannot_be_built_without_the_key_of_its_head(log: ModuleType) -> None:
    with pytest.raises(UntrustedKeyError):
        proof.build(
            leaf=b"", leaf_index=0, inclusion_proof=[], checkpoint=log.PROOF.checkpoint, keys=[log.vkey("other")]
        )


def test_a_head_alone_is_judged_by_the_same_rules(log: ModuleType) -> None:
    head = verify_head(log.PROOF.checkpoint, trusted(log), now_ms=log.HEAD_MS)
    assert (head.checkpoint.tree_size, head.sth) == (log.SIZE, log.PROOF.sth)
    with pytest.raises(UntrustedKeyError):
        verify_head(log.PROOF.checkpoint, [])


def test_a_key_trusted_in_two_ways_is_valid_when_one_of_them_says_so(log: ModuleType) -> None:
    expired = TrustedKey(public_key=log.vkey().public_key, name=log.ORIGIN, not_after_ms=log.HEAD_MS - 1)
    with pytest.raises(KeyValidityError):
        verify_proof(log.PROOF, [expired])
    assert verify_proof(log.PROOF, [expired, *trusted(log)]).assurance == "claimed"


def test_a_valid_successor_carries_a_head_that_the_expired_key_signed_too(log: ModuleType) -> None:
    head = sign_head(
        Checkpoint(origin=log.ORIGIN, tree_size=13, root_hash=log.PROOF.sth.root_hash),
        log.HEAD_MS,
        log.vkey("next"),
        log.sign("next"),
    )
    both = log.PROOF.checkpoint + head.checkpoint.partition("\n\n")[2]
    expired = TrustedKey(public_key=log.vkey().public_key, name=log.ORIGIN, not_after_ms=log.HEAD_MS - 1)
    successor = TrustedKey(public_key=log.vkey("next").public_key, name=log.ORIGIN)
    assert verify_head(both, [expired, successor]).key == log.vkey("next")


def test_a_demand_for_a_level_that_nobody_knows_is_not_met_by_silence(log: ModuleType) -> None:
    with pytest.raises(UnsupportedProofError, match="no level is called notarised"):
        verify_proof(log.PROOF, trusted(log), means=Means(require=frozenset({"notarised"})))
    assert verify_proof(log.PROOF, trusted(log), means=Means(require=frozenset({"claimed"}))).assurance == "claimed"


def test_without_the_time_no_head_is_too_new(log: ModuleType) -> None:
    assert verify.verify_proof(log.make_proof(log.LEAVES, 0, timestamp_ms=2**53 - 1), trusted(log)).leaf_index == 0


def test_the_report_names_everything_that_was_proven(log: ModuleType) -> None:
    verified = verify_proof(log.PROOF, trusted(log), payload=verify.Payload(log.BODY, log.EVENT_SALT))
    text = "\n".join(lines(verified))
    for fact in (
        log.uuid("attempt 5"), log.uuid("event 1"), "shop/orders", "billing.example.com", "2026-01-01 00:00:00.005 UTC",
        "delivered, status 200", "opens the commitment", log.ORIGIN, "leaf 5 in a tree of 13",
        "2026-01-01 00:00:01.000 UTC", log.vkey().key_id.hex(), "claimed",
    ):  # fmt: skip
        assert fact in text
    assert to_json(verified)["leaf"]["event_id"] == log.uuid("event 1")


def test_the_report_of_a_date_beyond_the_calendar_is_still_a_report(log: ModuleType) -> None:
    made = log.make_proof(log.LEAVES, 0, timestamp_ms=2**53 - 1)
    assert f"{2**53 - 1} ms since 1970" in "\n".join(lines(verify_proof(made, trusted(log))))


def test_an_origin_cannot_steer_the_terminal(log: ModuleType) -> None:
    key = log.vkey(origin="log\x9b2J\u202e")
    made = log.make_proof(log.LEAVES, 0, key=key)
    verified = verify_proof(made, [TrustedKey(public_key=key.public_key)])
    assert all(line.isprintable() and line.isascii() for line in lines(verified))
