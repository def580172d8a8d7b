"""When a head is due."""

from dataclasses import replace
from datetime import timedelta

import pytest

from kapsel_attestor.publisher import due_in
from kapsel_store.rows import LogRow

LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="log")


@pytest.mark.parametrize(
    ("unpublished", "age", "rest"),
    [
        (0, 11, 589),
        (0, 600, 0),
        (1, 4, 6),
        (99, 4, 6),
        (1, 12, -2),
        (100, 0.25, 0.75),
        (100_000, 1, 0),
    ],
)
def test_head_is_due(unpublished: int, age: float, rest: float) -> None:
    assert due_in(LOG, unpublished=unpublished, age=timedelta(seconds=age)) == timedelta(seconds=rest)


@pytest.mark.parametrize("unpublished", [0, 7])
def test_log_without_a_head_gets_one_at_once_also_an_empty_one(unpublished: int) -> None:
    assert due_in(LOG, unpublished=unpublished, age=None) == timedelta(0)


def test_no_interval_makes_more_than_one_head_a_second() -> None:
    hasty = replace(LOG, publish_interval=timedelta(0), publish_pending=1000)
    assert due_in(hasty, unpublished=5, age=timedelta(milliseconds=400)) == timedelta(milliseconds=600)
