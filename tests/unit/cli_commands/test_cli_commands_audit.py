"""The pure parts of an audit: chains of records, what is remembered, notes that people keep, and the exit code."""

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from public_log import PublicLog

from kapsel_cli import audit
from kapsel_cli.auditing import bundle, views
from kapsel_cli.auditing.chains import Chains, Run
from kapsel_cli.auditing.errors import BehindError, GapError, SourceError, SplitViewError
from kapsel_cli.auditing.run import Outcome
from kapsel_cli.auditing.state import Progress, State, load, save
from kapsel_cli.errors import CliError
from kapsel_tlog.tree import Tree, append
from kapsel_verifier import tiles
from kapsel_verifier.errors import MalformedLeafError, StaleHeadError, VerificationError
from kapsel_verifier.leaf import Leaf, parse_any
from kapsel_verifier.merkle import leaf_hash


def records(count: int, endpoints: int) -> list[bytes]:
    log = PublicLog(endpoints=endpoints)
    log.grow(count)
    return log.leaves


RECORDS = {endpoints: records(40, endpoints) for endpoints in (1, 2, 5)}


def follow(leaves: list[bytes], erased: set[int]) -> Chains:
    """Take leaves one by one, as a walk does with its bundles."""
    chains = Chains()
    for place, data in enumerate(leaves):
        if place in erased:
            chains.erase([leaf_hash(data)])
            continue
        leaf = Leaf.parse(data)
        sequence = leaf.endpoint_sequence
        chains.take(Run(leaf.endpoint_id, sequence, leaf.previous_leaf_hash, sequence, leaf_hash(data)))
    return chains


@settings(deadline=None)
@given(st.sampled_from([1, 2, 5]), st.sets(st.integers(0, 39)))
def test_whatever_is_erased_is_no_gap(endpoints: int, erased: set[int]) -> None:
    follow(RECORDS[endpoints], erased)


@settings(deadline=None)
@given(st.sampled_from([1, 2, 5]), st.sets(st.integers(0, 39)), st.integers(0, 39))
def test_a_record_that_was_left_out_is_a_gap_unless_nothing_after_it_can_tell(
    endpoints: int, erased: set[int], left_out: int
) -> None:
    leaves = RECORDS[endpoints]
    later = [place for place in range(left_out + 1, 40) if place % endpoints == left_out % endpoints]
    erased -= {left_out, *later}
    without = [leaf for place, leaf in enumerate(leaves) if place != left_out]
    shifted = {place - (place > left_out) for place in erased}
    if later:
        with pytest.raises(GapError):
            follow(without, shifted)
    else:
        follow(without, shifted)


@settings(deadline=None)
@given(st.integers(0, 39), st.integers(0, 1200), st.binary(max_size=2))
def test_a_leaf_is_read_as_strictly_as_the_verifier_reads_it(place: int, where: int, to: bytes) -> None:
    data = RECORDS[2][place]
    where %= len(data)
    changed = data[:where] + to + data[where + 1 :]
    try:
        expected = parse_any(changed)
    except VerificationError:
        with pytest.raises(VerificationError):
            bundle._leaf(0, changed)
    else:
        assert bundle._leaf(0, changed) == expected


@pytest.mark.parametrize("member", ["attempt", "endpoint_sequence", "response_status", "timestamp"])
@pytest.mark.parametrize("change", ["{}.0", "{}.5", "{}e0", '"{}"', "-{}", "+{}", "0{}", "true", "null", "NaN", "[{}]"])
def test_whatever_stands_for_an_integer_is_read_as_the_verifier_reads_it(member: str, change: str) -> None:
    data = RECORDS[2][7]
    value = getattr(Leaf.parse(data), member)
    changed = data.replace(f'"{member}":{value}'.encode(), f'"{member}":{change.format(value)}'.encode())
    assert changed != data
    if (member, change) == ("response_status", "null"):  # what an attempt without an answer has
        assert bundle._leaf(7, changed) == parse_any(changed)
        return
    for read in (parse_any, lambda leaf: bundle._leaf(7, leaf)):
        with pytest.raises(MalformedLeafError):
            read(changed)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b"1" * 5000, b'{"type":1,"v":1}', b"[" * 60_000, b"\xff"])
def test_what_is_no_leaf_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(MalformedLeafError, match="leaf 7"):
        bundle._leaf(7, data)


def test_a_bundle_gives_its_runs_its_erased_and_its_newest_date() -> None:
    leaves = RECORDS[2][:10]
    hashes = b"".join(map(leaf_hash, leaves))
    read = bundle.read(
        0, 4, 10, tiles.encode_bundle([b"" if n == 5 else leaf for n, leaf in enumerate(leaves)]), hashes
    )
    assert read.hashes == hashes[4 * 32 :]
    assert read.erased == (leaf_hash(leaves[5]),)
    assert [(run.first, run.last) for run in read.runs] == [(2, 4), (3, 4)]
    assert read.newest_ms == Leaf.parse(leaves[9]).timestamp


def test_what_is_remembered_comes_back(tmp_path: Path) -> None:
    tree = append(Tree(), [leaf_hash(leaf) for leaf in RECORDS[5]]).tree
    progress = Progress(tree, follow(RECORDS[5], {3, 17}), 2, [b"leaf"], ["a gap"])
    state = State("log.example", "note", 5, ["another"], Progress(), progress)
    path = tmp_path / "audit.json"
    save(path, state)
    assert load(path) == state
    state.verified_progress = progress.copy()
    save(path, state)
    assert load(path) == state
    assert load(tmp_path / "none.json") == State()


@settings(deadline=None)
@given(st.data())
def test_a_damaged_state_is_refused_or_still_one(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("state") / "audit.json"
    progress = Progress(append(Tree(), [bytes(32)] * 300).tree, follow(RECORDS[2], {1}), 1)
    save(path, State("log.example", "note", 5, [], progress, progress.copy()))
    whole = path.read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:where] + data.draw(st.binary(max_size=2)) + whole[where + 1 :])
    try:
        read = load(path)
    except CliError:
        return  # and no other exception
    assert read.progress.tree.size == 300


def test_a_note_is_read_as_it_is_and_as_a_delivery_carries_it() -> None:
    note = PublicLog().note
    assert views.read_note(note.encode()) == note
    assert views.read_note(base64.b64encode(note.encode()) + b"\n") == note
    with pytest.raises(VerificationError):
        views.read_note(b"\xff\xfe")


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([StaleHeadError("old")], 26),
        ([StaleHeadError("old"), BehindError("less")], 3),
        ([SourceError("away"), GapError("gone")], 50),
        ([GapError("gone"), SplitViewError("two", ("a", "b"))], 32),
        ([SourceError("away")], 4),
    ],
)
def test_of_several_findings_the_gravest_is_the_exit_code(findings: list[VerificationError], code: int) -> None:
    assert audit.exit_code(Outcome(findings=findings)) == code


def test_what_was_erased_is_said_to_be_what_was_seen_when_it_was_read() -> None:
    """A leaf that is erased after it was read is not read again, so a count of all that are erased is not known."""
    said = audit.lines(Outcome(origin="log.example.com", tree_size=9, read=0, erased=2, endpoints=3))
    assert "  read 0 leaves, of 3 endpoints; 2 of all were erased when they were read" in said


@pytest.mark.parametrize(
    ("seconds", "told"), [(1_767_225_700, "2026-01-01 00:01:40 UTC"), (1_767_225_700_000, "1767225700000 s after 1970")]
)
def test_a_date_of_a_witness_that_no_calendar_has_is_told_as_it_is(seconds: int, told: str) -> None:
    assert audit.lines(Outcome(origin="log.example", witnessed_at=seconds))[-2].endswith(f", by {told}")
