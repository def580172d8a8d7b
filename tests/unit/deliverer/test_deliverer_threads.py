"""Which names may be looked up, while others take long."""

from kapsel_deliverer.names import Standing, Threads

EMPTY = Threads(total=256, taken=0, slow=0)


def fill(threads: Threads, standing: Standing) -> Threads:
    """Give such names all that they may have."""
    while threads.may_have(standing):
        threads = threads.less(standing)
    return threads


def test_names_that_are_slow_have_a_quarter_of_the_threads_at_most() -> None:
    assert fill(EMPTY, "slow").taken == 64


def test_beside_slow_names_those_that_nobody_knows_have_half_and_quick_ones_the_last_quarter() -> None:
    full = fill(fill(EMPTY, "slow"), "unknown")
    assert full.taken == 192
    assert fill(full, "quick").taken == 256


def test_who_is_alone_may_have_all_that_is_not_for_others() -> None:
    assert fill(EMPTY, "unknown").taken == 192
    assert fill(EMPTY, "quick").taken == 256


def test_slow_names_have_none_of_the_last_quarter_though_they_have_less_than_theirs() -> None:
    assert not Threads(total=256, taken=192, slow=10).may_have("slow")


def test_what_hangs_already_counts_as_slow_whatever_it_was_before() -> None:
    assert not Threads(total=256, taken=70, slow=64).may_have("slow")
    assert Threads(total=256, taken=70, slow=64).may_have("unknown")
