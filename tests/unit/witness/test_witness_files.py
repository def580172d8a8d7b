"""The witness's key and state: made once, read strictly, never gone back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey
from witnessing import SmallLog

from kapsel_verifier.cosignature import cosign
from kapsel_verifier.errors import MalformedKeyError
from kapsel_verifier.note import Note
from kapsel_witness import key as key_file
from kapsel_witness import state
from kapsel_witness.errors import KeyFileError, StateError
from kapsel_witness.key import Key, open_key

NAME = "witness.example/w1"
# As golang.org/x/mod/sumdb/note publishes it in its tests.
GO_SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"


def cosigned(log: SmallLog, key: Key, size: int, at: int = 1_700_000_000) -> str:
    note = log.checkpoint(size)
    return note + cosign(Note.parse(note).text, at, key.public, key.sign)


def test_a_key_is_made_at_the_first_start_and_read_ever_after(tmp_path: Path) -> None:
    made = open_key(tmp_path / "w", NAME)
    assert made.public.name == NAME
    assert open_key(tmp_path / "w", None).public == made.public
    assert open_key(tmp_path / "w", NAME).public == made.public
    assert (tmp_path / "w" / "key").stat().st_mode & 0o777 == 0o400


def test_a_key_is_in_the_directory_for_good_before_anybody_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        os_fsync(descriptor)
        is_directory = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        synced.append((is_directory, (tmp_path / "key").exists()))

    os_fsync = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    open_key(tmp_path, NAME)
    assert synced[-1] == (True, True)


def test_the_key_file_is_that_of_other_witnesses(tmp_path: Path) -> None:
    read = key_file.parse(GO_SIGNER)
    assert read.public.name == "PeterNeumann"
    assert key_file.encode("PeterNeumann", read.signing) == GO_SIGNER


def test_a_name_once_chosen_stays(tmp_path: Path) -> None:
    open_key(tmp_path, NAME)
    with pytest.raises(KeyFileError, match="is called"):
        open_key(tmp_path, "witness.example/w2")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        (None, "a new witness needs a name, such as witness.example.com/w1"),
        ("", "take one like witness.example.com/w1"),
        ("a b", "take ab"),
        ("a+b", "take a-b"),
        ("a\nb", "take ab"),
        ("https://witness.example/w1/", "it begins with https://; take witness.example/w1"),
        ("https://", "take one like witness.example.com/w1"),
        ("https://http://a", "take one like witness.example.com/w1"),
    ],
)
def test_without_a_proper_name_no_key_is_made(tmp_path: Path, name: str | None, step: str) -> None:
    with pytest.raises(KeyFileError, match=step):
        open_key(tmp_path, name)
    assert not (tmp_path / "key").exists()


def test_a_witness_keeps_the_name_that_is_in_its_key(tmp_path: Path) -> None:
    signing, name = SigningKey(bytes(range(32))), "https://witness.example/w1"
    state.prepare(tmp_path)
    (tmp_path / "key").write_text(key_file.encode(name, signing) + "\n")
    assert open_key(tmp_path, name).public.name == name


@settings(deadline=None)
@given(where=st.integers(0, len(GO_SIGNER) - 1), to=st.characters(codec="ascii"))
def test_a_damaged_key_file_is_refused(where: int, to: str) -> None:
    changed = GO_SIGNER[:where] + to + GO_SIGNER[where + 1 :]
    if changed != GO_SIGNER:
        with pytest.raises(MalformedKeyError):
            key_file.parse(changed)


def test_what_was_put_is_found_at_the_next_start(tmp_path: Path, log: SmallLog) -> None:
    key = open_key(tmp_path, NAME)
    found = state.load(tmp_path, key.public)
    assert found.notes == {}
    assert found.timestamp(log.origin) == 0
    found.put(log.origin, cosigned(log, key, 3))
    found.put(log.origin, cosigned(log, key, 5, at=1_700_000_009))
    again = state.load(tmp_path, key.public)
    assert again.known[log.origin].tree_size == 5
    assert again.timestamp(log.origin) == 1_700_000_009
    assert again.notes == found.notes


def test_a_key_without_its_state_has_forgotten_what_it_cosigned_and_is_refused(tmp_path: Path) -> None:
    key = open_key(tmp_path, NAME)
    (tmp_path / "state.json").unlink()
    assert open_key(tmp_path, NAME).public == key.public
    with pytest.raises(StateError, match="missing"):
        state.load(tmp_path, key.public)


def test_the_state_of_another_witness_is_refused(tmp_path: Path, log: SmallLog) -> None:
    mine, other = open_key(tmp_path / "a", NAME), open_key(tmp_path / "b", "witness.example/w2")
    state.load(tmp_path / "b", other.public).put(log.origin, cosigned(log, other, 3))
    (tmp_path / "a" / "state.json").write_bytes((tmp_path / "b" / "state.json").read_bytes())
    with pytest.raises(StateError, match="belongs to"):
        state.load(tmp_path / "a", mine.public)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_state_is_refused_and_nothing_else_is_raised(
    tmp_path: Path, log: SmallLog, data: st.DataObject
) -> None:
    path = tmp_path / "state.json"
    key = open_key(tmp_path, NAME)
    path.write_bytes(b"{}\n")
    state.load(tmp_path, key.public).put(log.origin, cosigned(log, key, 3))
    whole = path.read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:where] + data.draw(st.binary(max_size=2)) + whole[where + 1 :])
    try:
        read = state.load(tmp_path, key.public)
    except StateError:
        return
    # White space, or the log's own signature, which the witness checked when it came in.
    assert read.known[log.origin].tree_size == 3


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"v": True}, {"checkpoints": []}, {"checkpoints": {"log.example/shop": 1}}, {"more": 1}],
    ids=str,
)
def test_a_state_of_another_form_is_refused(tmp_path: Path, log: SmallLog, change: dict[str, object]) -> None:
    key = open_key(tmp_path, NAME)
    state.load(tmp_path, key.public).put(log.origin, cosigned(log, key, 3))
    path = tmp_path / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StateError, match="damaged"):
        state.load(tmp_path, key.public)


def test_a_head_that_this_witness_never_cosigned_is_not_believed(tmp_path: Path, log: SmallLog) -> None:
    key = open_key(tmp_path, NAME)
    state.load(tmp_path, key.public).put(log.origin, log.checkpoint(3))
    with pytest.raises(StateError, match="not cosigned"):
        state.load(tmp_path, key.public)


# What another process runs; the tests themselves cannot be imported in each of the ways that pytest is started.
LOCKS = """
import pathlib, sys
from kapsel_witness import errors, state
try:
    with state.locked(pathlib.Path(sys.argv[1])):
        pass
except errors.WitnessError:
    sys.exit(7)
"""


def test_a_second_process_in_the_directory_is_refused(tmp_path: Path) -> None:
    def other() -> int:
        return subprocess.run([sys.executable, "-c", LOCKS, tmp_path], timeout=240, check=False).returncode

    with state.locked(tmp_path):
        assert other() == 7
    assert other() == 0


def test_a_state_that_cannot_be_written_says_so(tmp_path: Path, log: SmallLog) -> None:
    key = open_key(tmp_path, NAME)
    found = state.load(tmp_path, key.public)
    (tmp_path / "state.json.new").mkdir()
    with pytest.raises(StateError, match="cannot be written"):
        found.put(log.origin, cosigned(log, key, 3))
    assert found.known == {}


def test_a_key_does_not_show_itself() -> None:
    assert "Signing" not in repr(Key(key_file.parse(GO_SIGNER).public, SigningKey(bytes(32))))
