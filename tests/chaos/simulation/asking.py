"""What people ask for while a world runs: deliveries once more, cancelled or replayed; and what they hear.

In the worlds of some seeds, and drawn from a stream of its own, so that nothing else of a world depends on it. They ask
the store as the console does, on a connection that no fault strikes: what they hear is what was committed.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from kapsel_store import deliveries, hints, replays
from kapsel_store.database import DELIVERIES_CHANNEL
from kapsel_store.deliveries import NotRetried
from kapsel_store.rows import DestinationRow, ReplayRow
from kapsel_store.states import State
from simulation.clock import EPOCH, Clock

DAY = timedelta(days=1)
ENDED = "SELECT id FROM deliveries WHERE state IN ('delivered', 'exhausted', 'cancelled') ORDER BY id"
BLOCKING = "SELECT blocked_by AS id FROM turns WHERE blocked_by IS NOT NULL ORDER BY blocked_by"
WAITING = "SELECT id FROM deliveries_live WHERE state = 'pending' ORDER BY id"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One wish."""

    at: float | None  # None: when all has ended
    what: str  # retry insist cancel replay declare stop suspend resume
    draw: float = 0.0  # which of the deliveries that there are then
    replay: ReplayRow | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of a wish."""

    at: float
    what: str
    delivery: UUID | None = None
    made: UUID | None = None
    replay: UUID | None = None
    said: str = ""


def has_people(seed: int) -> bool:
    """Whether anybody asks for anything in the world of a seed: in one of seven, for it costs half as much again."""
    return seed % 20 in (3, 8) or seed % 40 == 10 or insist(seed)  # the last two are calm


def insist(seed: int) -> bool:
    """Whether they ask for what blocks a line, and twice."""
    return seed % 40 == 30


def asks(seed: int, destinations: Sequence[DestinationRow], wanted: str) -> list[Ask]:
    """Return what people ask for in the world of a seed; `wanted` is a filter that replays may have."""
    if not has_people(seed):
        return []
    chance = Random(f"asking {seed}")
    made = [
        Ask(at=chance.uniform(2, 10), what=chance.choice(("retry", "cancel")), draw=chance.random())
        for _ in range(chance.choice((2, 3, 5)))
    ]
    if insist(seed):
        made += [Ask(at=chance.uniform(1, 10), what="insist", draw=chance.random()) for _ in range(8)]
    for number in range(chance.choice((1, 2, 2))):
        made += _replay(chance, number, destinations, wanted, at=chance.uniform(2, 10))
    if chance.random() < 0.5:
        made += _replay(chance, 9, destinations, wanted, at=None)
        made.append(Ask(at=None, what="retry", draw=chance.random()))
    return made


def _replay(
    chance: Random, number: int, destinations: Sequence[DestinationRow], wanted: str, at: float | None
) -> list[Ask]:
    aimed = chance.choice(destinations)
    missing = chance.random() < 0.15
    states = chance.choice(((State.DELIVERED,), (State.EXHAUSTED, State.CANCELLED), tuple(State)[2:]))
    what = "replay" if chance.random() < 0.7 else "declare"
    row = ReplayRow(
        id=UUID(bytes=chance.randbytes(16), version=4),
        namespace="shop",
        name=f"again-{number}",
        endpoint_id=aimed.endpoint_id,
        destinations=None if chance.random() < 0.7 else (aimed.id,),
        received_from=EPOCH - DAY,
        received_to=EPOCH + 3 * DAY,
        states=() if missing else states,
        missing=missing,
        anyway=chance.random() < 0.2,
        filter=wanted if chance.random() < 0.3 else None,
        dry_run=chance.random() < 0.1,
        rate=chance.choice((2, 4, 50)),
        asked=what == "replay",
    )
    made = [Ask(at=at, what=what, replay=row)]
    if at is None or not row.asked:
        return made
    if chance.random() < 0.25:  # so slow that there is something left to stop
        row = dataclasses.replace(row, rate=1)
        made = [Ask(at=at, what=what, replay=row), Ask(at=at + chance.uniform(1.5, 4), what="stop", replay=row)]
    elif chance.random() < 0.3:
        begin = at + chance.uniform(0.5, 8)
        made += [
            Ask(at=begin, what="suspend", replay=row),
            Ask(at=begin + chance.uniform(1, 5), what="resume", replay=row),
        ]
    return made


class People:
    """They ask one after the other."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], clock: Clock) -> None:
        self.told: list[Told] = []
        self._connect = connect
        self._clock = clock
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def ask(self, ask: Ask) -> None:
        """Ask when it is time for it, and keep what is said."""
        if ask.at is not None:
            await asyncio.sleep(ask.at)
        async with self._turn:
            if self._connection is None:
                self._connection = await self._connect()
            told = await self._once(self._connection, ask)
            if ask.what == "insist" and told.made is not None:  # the first one goes first, and the second one last
                await self._once(self._connection, ask, told.delivery)

    async def go(self) -> None:
        """Ask for nothing more."""
        if self._connection is not None:
            await self._connection.close()

    async def _once(self, connection: asyncpg.Connection, ask: Ask, chosen: UUID | None = None) -> Told:
        async with connection.transaction():
            said = await self._ask(connection, ask, chosen)
        told = Told(at=self._clock.elapsed, what="retry" if ask.what == "insist" else ask.what, **said)
        self.told.append(told)
        return told

    async def _ask(self, connection: asyncpg.Connection, ask: Ask, chosen: UUID | None) -> dict[str, Any]:
        if ask.replay is None:
            return await self._of_delivery(connection, ask, chosen)
        replay_id = ask.replay.id
        match ask.what:
            case "replay":
                said = await replays.ask(connection, ask.replay)
            case "declare":
                await replays.apply(connection, [ask.replay], complete=False, actor="chaos")
                said = "made"
            case "stop":
                said = "stopped" if await replays.cancel(connection, replay_id) else ""
            case _:
                said = str(await replays.suspend(connection, replay_id, ask.what == "suspend"))
        return {"replay": replay_id, "said": said}

    async def _of_delivery(self, connection: asyncpg.Connection, ask: Ask, chosen: UUID | None) -> dict[str, Any]:
        if chosen is None:
            rows = await connection.fetch({"retry": ENDED, "insist": BLOCKING}.get(ask.what, WAITING))
            if not rows:
                return {"said": "nothing to ask for"}
            chosen = rows[int(ask.draw * len(rows))]["id"]
        if ask.what == "cancel":
            return {"delivery": chosen, "said": "cancelled" if await deliveries.cancel(connection, chosen) else ""}
        made = await deliveries.retry(connection, chosen)
        if isinstance(made, NotRetried):
            return {"delivery": chosen, "said": made.reason}
        await hints.tell(connection, DELIVERIES_CHANNEL)
        return {"delivery": chosen, "made": made}
