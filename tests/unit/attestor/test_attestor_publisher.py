"""When a head is due."""

from datetime import timedelta

import pytest

from kapsel_attestor.publisher import is_due
from kapsel_store.rows import LogRow

LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="log")


@pytest.mark.parametrize(
    ("unpublished", "seconds", "stopping", "due"),
    [
        (0, 11, False, False),
        (0, 599, False, False),
        (0, 600, False, True),
        (1, 9.9, False, False),
        (1, 10, False, True),
        (99, 9.9, False, False),
        (100, 0.9, False, False),
        (100, 1, False, True),
        (1, 0, True, True),
        (0, 0, True, False),
        (0, 6000, True, False),
    ],
)
def test_head_is_due(unpublished: int, seconds: float, stopping: bool, due: bool) -> None:
    age = timedelta(seconds=seconds)
    assert is_due(LOG, unpublished=unpublished, age=age, stopping=stopping) is due


def test_log_without_a_head_gets_one_at_once_also_an_empty_one() -> None:
    assert is_due(LOG, unpublished=0, age=None, stopping=False)


def test_no_interval_makes_more_than_one_head_a_second() -> None:
    hasty = LogRow(
        namespace="shop", name="log", origin="o", key_name="k", publish_interval=timedelta(0), publish_pending=1
    )
    assert not is_due(hasty, unpublished=5, age=timedelta(milliseconds=999), stopping=False)
    assert is_due(hasty, unpublished=5, age=timedelta(seconds=1), stopping=False)
