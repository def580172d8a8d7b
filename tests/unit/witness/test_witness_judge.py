"""The statuses that C2SP tlog-witness gives to each thing that can be wrong, in the order of its checks."""

import pytest
from witnessing import SmallLog

from kapsel_verifier.add_checkpoint import AddCheckpoint
from kapsel_verifier.merkle import root_from_leaves
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_witness.judge import Agreed, Refused, judge


def said(log: SmallLog, request: AddCheckpoint, known: int = 0, history: str = "") -> Agreed | Refused:
    seen = {log.origin: Checkpoint(log.origin, known, root_from_leaves(log.leaves(known, history)))} if known else {}
    return judge(request, {log.origin: [log.key]}, seen)


def refused(log: SmallLog, request: AddCheckpoint, known: int = 0) -> Refused:
    found = said(log, request, known)
    assert isinstance(found, Refused)
    return found


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (0, 300), (1, 2), (3, 7), (7, 7), (8, 300), (255, 257)])
def test_a_head_that_extends_the_last_one_is_cosigned(log: SmallLog, old: int, new: int) -> None:
    agreed = said(log, log.request(old, new), known=old)
    assert isinstance(agreed, Agreed)
    assert agreed.checkpoint.tree_size == new
    assert agreed.text == Note.parse(log.checkpoint(new)).text
    assert [one.key_id for one in agreed.signatures] == [log.key.key_id]


def test_what_is_no_note_is_400(log: SmallLog) -> None:
    assert refused(log, AddCheckpoint(0, (), "not a note\n")).status == 400


def test_an_unknown_origin_is_404_even_if_the_signature_is_wrong_too(log: SmallLog) -> None:
    other = log.checkpoint(3).replace(log.origin, "log.example/other")
    assert refused(log, AddCheckpoint(0, (), other)).status == 404


def test_a_wrong_signature_is_403_and_so_is_one_by_a_stranger_alone(log: SmallLog) -> None:
    forged = log.checkpoint(3).replace("\n3\n", "\n4\n")
    assert refused(log, AddCheckpoint(0, (), forged)).status == 403
    stranger = VerifierKey(log.origin, bytes([1]) * 32)
    text = Note.parse(log.checkpoint(3)).text
    assert refused(log, AddCheckpoint(0, (), f"{text}\n{stranger.line(bytes(64))}")).status == 403


def test_an_old_size_beyond_the_head_is_400(log: SmallLog) -> None:
    assert refused(log, AddCheckpoint(5, (), log.checkpoint(3)), known=5).status == 400


@pytest.mark.parametrize("old", [0, 2, 4])
def test_another_old_size_than_that_cosigned_is_409_and_tells_it(log: SmallLog, old: int) -> None:
    found = refused(log, log.request(old, 7), known=3)
    assert (found.status, found.known_size) == (409, 3)


def test_an_older_head_than_that_cosigned_is_409(log: SmallLog) -> None:
    found = refused(log, log.request(3, 5), known=9)
    assert (found.status, found.known_size, found.forked) == (409, 9, False)


def test_a_wrong_proof_is_422(log: SmallLog) -> None:
    good = log.request(3, 7)
    for proof in ((), good.proof[:-1], (*good.proof, bytes(32)), good.proof[::-1]):
        assert refused(log, good._replace(proof=proof), known=3).status == 422


def test_a_proof_from_nothing_must_be_empty(log: SmallLog) -> None:
    assert refused(log, log.request(0, 7)._replace(proof=(bytes(32),))).status == 422


def test_another_history_is_422_and_at_the_same_size_it_proves_that_the_log_cheats(log: SmallLog) -> None:
    found = refused(log, log.request(5, 9, "other"), known=5)
    assert (found.status, found.forked) == (422, False)
    found = refused(log, AddCheckpoint(5, (), log.checkpoint(5, "other")), known=5)
    assert (found.status, found.result, found.forked) == (422, "forked", True)


def test_a_fork_shows_even_to_a_witness_that_is_asked_with_another_old_size(log: SmallLog) -> None:
    found = refused(log, AddCheckpoint(0, (), log.checkpoint(5, "other")), known=5)
    assert (found.status, found.known_size, found.forked) == (409, 5, True)


def test_no_leaves_under_another_root_than_that_of_no_leaves_is_422(log: SmallLog) -> None:
    text = Note.parse(log.checkpoint(0)).text.replace("47DEQpj8HBSa", "57DEQpj8HBSa")
    assert refused(log, AddCheckpoint(0, (), log.signed(text))).status == 422


def test_a_signed_text_that_is_no_checkpoint_is_400(log: SmallLog) -> None:
    for text in (f"{log.origin}\n", f"{log.origin}\n05\nAAAA\n", f"{log.origin}\n5\nAAAA\n"):
        assert refused(log, AddCheckpoint(0, (), log.signed(text))).status == 400


def test_signatures_of_strangers_are_not_taken_over(log: SmallLog) -> None:
    stranger = VerifierKey("stranger", bytes(32)).line(bytes(64))
    agreed = said(log, AddCheckpoint(0, (), log.checkpoint(3) + stranger))
    assert isinstance(agreed, Agreed)
    assert [one.name for one in agreed.signatures] == [log.origin]
