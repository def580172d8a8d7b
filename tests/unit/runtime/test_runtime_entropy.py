"""Random bytes in bulk."""

from hypothesis import given
from hypothesis import strategies as st

from kapsel_runtime.entropy import POOL, Entropy


@given(st.lists(st.integers(16, 1024), min_size=1, max_size=60))
def test_each_draw_has_its_length_and_no_byte_is_handed_out_twice(counts: list[int]) -> None:
    entropy = Entropy()
    drawn = [entropy.take(count) for count in counts]
    assert [len(draw) for draw in drawn] == counts
    # Sixteen random bytes do not repeat: any that did would have been handed out before.
    pieces = [draw[start : start + 16] for draw in drawn for start in range(0, len(draw) - 15, 16)]
    assert len(set(pieces)) == len(pieces)


def test_a_whole_pool_can_be_drawn_at_once() -> None:
    assert len(Entropy().take(POOL)) == POOL
