"""Which names may be looked up, while others take long."""

from kapsel_deliverer.names import Standing, Threads

EMPTY = Threads(total=128, taken=0, slow=0, renewing=0)


def fill(threads: Threads, standing: Standing, *, renews: bool = False) -> Threads:
    """Give such names all that they may have."""
    while threads.may_have(standing, renews=renews):
        threads = threads.less(standing, renews=renews)
    return threads


def test_names_that_are_slow_have_half_of_the_threads_at_most() -> None:
    full = fill(EMPTY, "slow")
    assert full.taken == 64
    assert full.may_have("unknown", renews=False)
    assert full.may_have("quick", renews=False)


def test_beside_slow_names_those_that_nobody_knows_have_a_quarter_and_quick_ones_the_last() -> None:
    full = fill(fill(EMPTY, "slow"), "unknown")
    assert full.taken == 96
    assert fill(full, "quick").taken == 128


def test_who_is_alone_may_have_all_that_is_not_for_others() -> None:
    assert fill(EMPTY, "unknown").taken == 96
    assert fill(EMPTY, "quick").taken == 128


def test_slow_names_have_none_of_the_last_quarter_though_they_have_less_than_half() -> None:
    assert not Threads(total=128, taken=96, slow=10, renewing=0).may_have("slow", renews=False)


def test_what_hangs_already_counts_as_slow_whatever_it_was_before() -> None:
    assert not Threads(total=128, taken=70, slow=64, renewing=0).may_have("slow", renews=False)
    assert Threads(total=128, taken=70, slow=64, renewing=0).may_have("unknown", renews=False)


def test_names_that_have_addresses_leave_half_of_the_threads_to_those_that_have_none() -> None:
    full = fill(EMPTY, "quick", renews=True)
    assert full.taken == 64
    assert not full.may_have("slow", renews=True)
    assert fill(full, "unknown").taken == 96
    assert fill(full, "quick").taken == 128


def test_names_that_nobody_knows_leave_the_last_quarter_to_quick_ones_that_have_addresses() -> None:
    assert fill(fill(EMPTY, "unknown"), "quick", renews=True).taken == 128


def test_slow_names_have_threads_beside_those_that_have_addresses_and_leave_some_to_who_is_not_known() -> None:
    for standing in ("slow", "quick"):
        full = fill(fill(EMPTY, standing, renews=True), "slow")
        assert full.taken == 80
        assert fill(full, "unknown").taken == 96


def test_slow_names_and_quick_ones_that_have_addresses_may_take_all_together() -> None:
    assert fill(fill(EMPTY, "slow"), "quick", renews=True).taken == 128
