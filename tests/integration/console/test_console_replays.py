"""Replays as the console and the command line show them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from kapsel_cli.replay_news import ReplayNews
from kapsel_store import replays
from kapsel_store.rows import ReplayRow
from kapsel_store.states import State

PATH = "/api/v1/replays"


@pytest.fixture
async def again(console, world) -> ReplayRow:
    """A Replay that was removed, and another of the same name that is declared."""
    row = ReplayRow(
        id=uuid4(),
        namespace="shop",
        name="again",
        endpoint_id=world.orders.id,
        destinations=None,
        received_from=datetime(2026, 3, 1, tzinfo=UTC),
        received_to=datetime(2026, 3, 2, tzinfo=UTC),
        states=(State.EXHAUSTED,),
    )
    await replays.apply(world.connection, [replace(row, id=uuid4())], actor="test")
    await replays.apply(world.connection, [row], actor="test")
    return row


async def complete(world, row: ReplayRow) -> None:
    await world.connection.execute(
        "UPDATE replays SET started_at = now(), counted_at = now(), enqueued_at = now(), completed_at = now(), "
        "matched = 5, enqueued = 3, skipped_events = 2, delivered = 2, failed = 1 WHERE id = $1",
        row.id,
    )


async def test_replays_are_listed_with_how_far_they_are(console, world, again) -> None:
    await complete(world, again)
    removed, shown = (await console.get(PATH))["items"]
    assert (removed["phase"], removed["message"]) == ("removed", "it has not begun yet")
    assert (shown["namespace"], shown["name"], shown["endpoint"]) == ("shop", "again", "shop/orders")
    assert (shown["phase"], shown["matched"], shown["enqueued"], shown["delivered"], shown["failed"]) == (
        *("complete", 5, 3, 2, 1),
    )
    assert (shown["states"], shown["received_from"]) == (["exhausted"], "2026-03-01T00:00:00.000Z")
    assert shown["message"] == (
        "5 matched, 3 enqueued, 2 delivered, 1 failed, 2 skipped because the retention of their event is over"
    )


async def test_a_list_goes_on_where_its_cursor_says_also_within_one_name(console, world, again) -> None:
    await replays.apply(
        world.connection, [again, *(replace(again, id=uuid4(), name=f"n{number}") for number in range(3))], actor="test"
    )
    seen, cursor = [], None
    while True:
        page = await console.get(f"{PATH}?limit=1" + ("" if cursor is None else f"&cursor={cursor}"))
        seen += [(one["name"], one["phase"]) for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [("again", "removed"), ("again", "waiting"), ("n0", "waiting"), ("n1", "waiting"), ("n2", "waiting")]


async def test_a_replay_that_has_become_complete_is_told_once(world, console, again) -> None:
    news, late = ReplayNews(), ReplayNews()
    assert await news.look(world.connection) == []
    await complete(world, again)
    [line] = await news.look(world.connection)
    assert line.startswith("replay shop/again is complete: 5 matched, 3 enqueued")
    assert await news.look(world.connection) == []
    assert await late.look(world.connection) == []


async def test_the_phases_of_a_replay_follow_from_its_times(world, console, again) -> None:
    phases = []
    for change in ("started_at", "counted_at", "enqueued_at", "completed_at"):
        [one] = await replays.progress(world.connection)
        phases.append(one.phase)
        await world.connection.execute(f"UPDATE replays SET {change} = $2 WHERE id = $1", again.id, datetime.now(UTC))
        if change == "started_at":
            [one] = await replays.progress(world.connection)
            assert one.message == "0 matched so far, 0 enqueued, 0 delivered"
    [one] = await replays.progress(world.connection)
    assert [*phases, one.phase] == ["waiting", "counting", "enqueuing", "delivering", "complete"]
    assert timedelta(0) <= datetime.now(UTC) - one.declared_at
