"""Who may take the Lease: decided by one's own clock alone."""

from kapsel_operator.lease import DURATION, Observed


def lease(version: str, holder: str) -> dict[str, object]:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}}


UNSEEN = Observed(version="", holder="", at=0.0)


def test_a_lease_of_somebody_else_is_free_when_it_has_not_changed_for_its_duration() -> None:
    seen = UNSEEN.next(lease("1", "other"), 100.0)
    assert not seen.is_free("me", 100.0 + DURATION)
    assert seen.next(lease("1", "other"), 110.0).is_free("me", 100.1 + DURATION)


def test_a_renewal_makes_the_wait_begin_anew() -> None:
    seen = UNSEEN.next(lease("1", "other"), 100.0).next(lease("2", "other"), 110.0)
    assert not seen.is_free("me", 110.0 + DURATION)


def test_ones_own_lease_and_one_that_was_given_back_are_free() -> None:
    assert UNSEEN.next(lease("1", "me"), 100.0).is_free("me", 100.0)
    assert UNSEEN.next(lease("1", ""), 100.0).is_free("me", 100.0)
