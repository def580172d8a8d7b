"""What a replay has to look into events for: whether its filter means them, and where in line their deliveries go.

Called by the replayer for each step of its walk, in the transaction of the step. What is read and evaluated at once is
bounded by events, bytes and time: a step that finds more ends early, and the next one goes on from there.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from uuid import UUID

from kapsel_deliverer import shapes
from kapsel_expressions.event import Event
from kapsel_expressions.expression import Expression, Failed, Invalid, compile_source
from kapsel_store import replay_runs
from kapsel_store.database import Connection
from kapsel_store.order_keys import compiled, evaluated, key_of
from kapsel_store.replay_runs import Around, Matched, Run, Step

EXAMINED: Final = 200  # deliveries whose events one step looks into
MOST_BYTES: Final = 1_048_576  # of bodies that one step reads, or one body that is larger
# Seconds from which on a step evaluates no more. Nothing else goes on meanwhile, and one evaluation may take this long.
EVALUATING: Final = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """What one step looks for in events. None in `events`: it is gone."""

    filter: Expression | Invalid | None
    order_keys: Mapping[UUID, Expression | Invalid]
    events: Mapping[UUID, Event | None]


async def step(connection: Connection, run: Run, *, most: int, width: int) -> Step:
    """Take one step of the walk: find at most `most` deliveries that the replay means, with their order keys."""
    if run.filter is None and not run.missing:
        return await replay_runs.step(connection, run, most=most, width=width)
    around = await replay_runs.around(connection, run)
    counts = run.counted_at is None
    if run.filter is None and (counts or not around.order_keys):
        return await replay_runs.step(connection, run, most=most, width=width)
    wide = EXAMINED if run.filter is not None else min(most, EXAMINED)
    found = await replay_runs.step(connection, run, most=wide, width=width)
    looking = Looking(
        filter=None if run.filter is None else _filter(run.filter),
        order_keys={} if counts else {of: compiled(key) for of, key in around.order_keys.items()},
        events=await _events(connection, around, found),
    )
    return narrowed(found, looking, most)


def narrowed(found: Step, looking: Looking, most: int, clock: Callable[[], float] = time.perf_counter) -> Step:
    """Return a step with what is meant of it, ended at `most`, when time is up, or before what was not read."""
    began = clock()
    verdicts: dict[UUID, bool | Failed] = {}
    meant: list[Matched] = []
    unjudged, looked = 0, 0
    for one in found.found:
        if len(meant) == most or one.event_id not in looking.events or (looked and clock() - began >= EVALUATING):
            break
        if one.event_id not in verdicts:
            verdicts[one.event_id] = _verdict(looking.events[one.event_id], looking)
        looked += 1
        verdict = verdicts[one.event_id]
        if verdict is True:
            meant.append(_in_line(one, looking))
        unjudged += verdict is not True and verdict is not False
    _say_failed(verdicts)
    ended = found if looked == len(found.found) else found.until(found.found[looked - 1])
    return replace(ended, found=tuple(meant), unjudged=unjudged, seconds=clock() - began)


def _verdict(event: Event | None, looking: Looking) -> bool | Failed:
    """Return whether an event is meant, or why that cannot be said."""
    if looking.filter is None:
        return True
    if event is None:
        return Failed(reason="missing", detail="the event is gone")
    if isinstance(looking.filter, Invalid):  # it was planned by a newer version
        return Failed(reason="failed", detail=looking.filter.wrong)
    made = looking.filter.evaluate(event)
    return made if isinstance(made, Failed) else made.value is True


def _say_failed(verdicts: Mapping[UUID, bool | Failed]) -> None:
    """Log the first failure of a step: whoever wrote the filter needs one, and there may be very many."""
    for event_id, verdict in verdicts.items():
        if isinstance(verdict, Failed):
            logger.warning("the filter of a replay failed: %s", verdict.said, extra={"event_id": str(event_id)})
            return


def _in_line(one: Matched, looking: Looking) -> Matched:
    event, expression = looking.events[one.event_id], looking.order_keys.get(one.destination_id)
    if event is None or expression is None or one.order_key is not None:
        return one
    return replace(one, order_key=key_of(one.destination_id, evaluated(expression, event)).digest)


async def _events(connection: Connection, around: Around, found: Step) -> dict[UUID, Event | None]:
    """Read the first of the events that a step found, as many as may be read at once."""
    ids = list(dict.fromkeys(one.event_id for one in found.found))
    return {
        event_id: None
        if content is None
        else shapes.seen(
            event_id=str(event_id),
            scheme=around.scheme,
            endpoint=around.name,
            namespace=around.namespace,
            received_at=content.received_at,
            headers=content.headers,
            body=content.body,
        )
        for event_id, content in (await replay_runs.contents(connection, ids, MOST_BYTES)).items()
    }


@lru_cache(maxsize=256)
def _filter(source: str) -> Expression | Invalid:
    return compile_source(source, "bool")
