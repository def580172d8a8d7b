"""What an attempt without a proof waits for, and whether waiting helps."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kapsel_console.proofs import waits_for
from kapsel_store import ids
from kapsel_store.facts import Leaf
from kapsel_store.rows import LogRow, Witness, Witnessing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON, LONG = timedelta(seconds=1), timedelta(hours=1)
LOG = LogRow(namespace="shop", name="main", origin="kapsel.test/shop", key_name="log")
WITNESSED = replace(
    LOG, witnessing=Witnessing(witnesses=(Witness(name="a", vkey="a", url="http://a"),), quorum=1, required=True)
)


def leaf(since: timedelta, **fields) -> Leaf:
    """Return the leaf of an attempt that was made so long ago."""
    made = Leaf(
        attempt_id=ids.first_at(NOW - since),
        leaf_index=7,
        published=False,
        frozen_reason=None,
        parked_reason=None,
    )
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("leaf", "log", "says"),
    [
        (leaf(SOON), LOG, "leaf 7 waits for a signed head over it"),
        (leaf(SOON), WITNESSED, "leaf 7 waits for a signed head over it"),
        (leaf(SOON, leaf_index=None), LOG, "the try waits for its leaf"),
    ],
)
def test_what_comes_by_itself_is_not_held(leaf: Leaf, log: LogRow, says: str) -> None:
    assert waits_for(leaf, log, NOW) == (says, False)


@pytest.mark.parametrize(
    ("leaf", "log", "says"),
    [
        (
            leaf(SOON, frozen_reason="two writers"),
            LOG,
            "the log is frozen, and no head is signed any more: two writers",
        ),
        (leaf(SOON, leaf_index=None, frozen_reason="two writers"), LOG, "this one is frozen: two writers"),
        (
            leaf(SOON, leaf_index=None, parked_reason="it is too long"),
            LOG,
            "cannot be put into the log: it is too long",
        ),
        (leaf(SOON, leaf_index=None), None, "no log is declared"),
        (leaf(LONG), LOG, "none was signed for longer than usual"),
        (leaf(LONG), WITNESSED, "heads are withheld until 1 of 1 witnesses cosign"),
        (leaf(LONG, leaf_index=None), LOG, "waits for its leaf, and has waited longer than usual"),
    ],
)
def test_what_does_not_come_by_itself_is_held_and_says_why(leaf: Leaf, log: LogRow | None, says: str) -> None:
    text, held = waits_for(leaf, log, NOW)
    assert held
    assert says in text
