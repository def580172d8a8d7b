"""The fence file: one head, swapped as a whole, by one attestor at a time."""

import fcntl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_attestor import fence
from kapsel_attestor.errors import FenceMovedError, RefusedError
from kapsel_attestor.fence import Fenced, FileFence

ORIGIN = "log.example.com/shop"
FIRST = Fenced(origin=ORIGIN, tree_size=0, root=bytes(32), timestamp_ms=1_700_000_000_000)
SECOND = Fenced(origin=ORIGIN, tree_size=5, root=b"\x01" * 32, timestamp_ms=1_700_000_000_001)


@pytest.fixture
def guard(tmp_path: Path) -> FileFence:
    return FileFence(tmp_path / "fence.json", ORIGIN)


def test_new_log_has_no_fence_and_then_the_first_one(guard: FileFence) -> None:
    assert guard.read() is None
    guard.swap(None, FIRST)
    assert guard.read() == FIRST
    guard.swap(FIRST, SECOND)
    assert guard.read() == SECOND


@given(
    st.builds(
        Fenced,
        origin=st.text(st.characters(codec="utf-8"), min_size=1),
        tree_size=st.integers(0, 2**53 - 1),
        root=st.binary(min_size=32, max_size=32),
        timestamp_ms=st.integers(0, 2**53 - 1),
    )
)
def test_content_round_trips(fenced: Fenced) -> None:
    assert fence.parse(fence.text(fenced).encode()) == fenced


@pytest.mark.parametrize("old", [None, SECOND, replace(FIRST, timestamp_ms=1)])
def test_swap_from_another_head_changes_nothing(guard: FileFence, old: Fenced | None) -> None:
    guard.swap(None, FIRST)
    with pytest.raises(FenceMovedError):
        guard.swap(old, SECOND)
    assert guard.read() == FIRST


def test_of_many_attestors_at_once_exactly_one_passes(guard: FileFence) -> None:
    guard.swap(None, FIRST)
    passed = []
    barrier = threading.Barrier(8)

    def swap(number: int) -> None:
        new = replace(SECOND, tree_size=number)
        barrier.wait()
        try:
            FileFence(guard.path, ORIGIN).swap(FIRST, new)
        except FenceMovedError:
            return
        passed.append(new)

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed == [guard.read()]


def test_swap_does_not_wait_while_another_attestor_is_passing(guard: FileFence) -> None:
    guard.swap(None, FIRST)
    with guard.path.with_name("fence.json.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FenceMovedError):
            guard.swap(FIRST, SECOND)
    assert guard.read() == FIRST


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        fence.text(FIRST).encode().replace(b'"v": 1', b'"v": 2'),
        fence.text(FIRST).encode().replace(b'"tree_size": 0', b'"tree_size": -1'),
        fence.text(FIRST).encode().replace(b'"tree_size": 0', b'"tree_size": 0.0'),
        fence.text(FIRST).encode().replace(b"00", b"0", 1),
        fence.text(FIRST).encode().replace(b"}", b', "more": 1}'),
        fence.text(FIRST).encode()[:-20],
    ],
)
def test_damaged_file_is_refused_and_left_alone(guard: FileFence, content: bytes) -> None:
    guard.path.write_bytes(content)
    with pytest.raises(RefusedError, match=r"damaged .* newest copy"):
        guard.read()
    with pytest.raises(RefusedError):
        guard.swap(None, FIRST)
    assert guard.path.read_bytes() == content


def test_file_of_another_log_is_refused(guard: FileFence) -> None:
    FileFence(guard.path, "other.example.com").swap(None, replace(FIRST, origin="other.example.com"))
    with pytest.raises(RefusedError, match=r"belongs to the log other\.example\.com"):
        guard.read()


def test_directory_that_is_not_there_is_no_first_start(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="mount it"):
        FileFence(tmp_path / "volume" / "fence.json", ORIGIN).read()


def test_path_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot be read"):
        FileFence(tmp_path, ORIGIN).read()


def test_path_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    guard = FileFence(tmp_path / "fence.json", ORIGIN)
    (tmp_path / "fence.json.new").mkdir()
    with pytest.raises(RefusedError, match="cannot be written"):
        guard.swap(None, FIRST)
    assert guard.read() is None


def test_crash_while_replacing_leaves_a_file_that_does_no_harm(guard: FileFence) -> None:
    guard.swap(None, FIRST)
    guard.path.with_name("fence.json.new").write_bytes(b'{"v": 1, "ori')
    assert guard.read() == FIRST
    guard.swap(FIRST, SECOND)
    assert guard.read() == SECOND
