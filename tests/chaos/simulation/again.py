"""What people asked for, held against what came of it: retries, replays and what was cancelled. For `oracle`.

What was asked for is known from who asked; which replay has made which delivery was noted while the run went on, since
the store forgets it when a replay is long complete. Times of the database are compared where its clock has not jumped.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

import asyncpg

from kapsel_store.rows import ReplayRow
from simulation.people import Seen
from simulation.scenario import Arrival
from simulation.world import Run

Rows = Mapping[UUID, asyncpg.Record]
SANE = 3000.0  # seconds by which machines may differ: beyond an hour, a replay may not find what was made by them


def kept(
    run: Run,
    deliveries: Rows,
    replays: Rows,
    of: Mapping[UUID, Arrival],
    tries: Mapping[UUID, Sequence[Seen]],
) -> Iterator[str]:
    """Say what was asked for and not done, done and not asked for, or done twice."""
    told = run.people.told
    yield from _made(run, deliveries)
    yield from _cancelled(run, deliveries, tries)
    yield from _once(run, deliveries, replays)
    for said in told:
        if said.what == "retry" and said.made is None and said.said != "nothing to ask for":
            yield f"a retry of {said.delivery} was refused: {said.said}"
    for ask in run.scenario.asks:
        if ask.what in ("replay", "declare") and ask.replay is not None:
            row = replays.get(ask.replay.id)
            if row is None:
                yield f"replay {ask.replay.name} was asked for, and is not there"
                continue
            yield from _replay(run, ask.replay, row, deliveries)
            if _is_comparable(run) and _is_sane(run):
                yield from _selection(ask.replay, row, deliveries, of)


def retried(run: Run) -> dict[UUID, UUID]:
    """Return which delivery each retry has made anew, by the new one."""
    return {said.made: said.delivery for said in run.people.told if said.made and said.delivery}


def cancelled(run: Run) -> dict[UUID, float]:
    """Return when each delivery that a person cancelled was."""
    return {said.delivery: said.at for said in run.people.told if said.said == "cancelled" and said.delivery}


def _made(run: Run, deliveries: Rows) -> Iterator[str]:
    """Each new delivery is of an ended one that somebody asked for again, and each that was asked for is there."""
    asked = retried(run) | {made: old for made, (_, old) in run.replayed.items()}
    for made, old in asked.items():
        row = deliveries.get(made)
        if row is None:
            yield f"{old} was to be delivered again as {made}, which is not there"
        elif row["replay_of"] != old:
            yield f"{made} says that it stands for {row['replay_of']}, and was made of {old}"
    for row in deliveries.values():
        if row["replay_of"] is None:
            continue
        if row["id"] not in asked:
            others = [made for made, of in asked.items() if of == row["replay_of"]]
            why = f"which was asked for once, as {others[0]}" if others else "and nobody asked for that"
            yield f"{row['id']} was made anew of {row['replay_of']}, {why}"
        old = deliveries.get(row["replay_of"])
        same = ("event_id", "endpoint_id", "destination_id", "order_key")
        if old is None or any(old[name] != row[name] for name in same):
            yield f"{row['id']} delivers something else than {row['replay_of']}, which it stands for"
        elif _is_comparable(run) and row["created_at"] < old["finished_at"]:
            yield f"{row['id']} was made before {old['id']} had ended"


def _cancelled(run: Run, deliveries: Rows, tries: Mapping[UUID, Sequence[Seen]]) -> Iterator[str]:
    for delivery_id, at in cancelled(run).items():
        row = deliveries[delivery_id]
        if row["state"] != "cancelled":
            yield f"{delivery_id} was cancelled, and is {row['state']}"
        for seen in tries.get(delivery_id, ()):
            if seen.begin > at:
                yield f"{delivery_id} was cancelled, and attempt {seen.number} went out {seen.begin - at:.3f} s after"


def _once(run: Run, deliveries: Rows, replays: Rows) -> Iterator[str]:
    """What somebody has delivered again already, no replay does, unless it was told to; and no replay does it twice."""
    takers = defaultdict[UUID, list[UUID]](list)
    for made, (_, old) in run.replayed.items():
        takers[old].append(made)
    for made, old in retried(run).items():
        takers[old].append(made)
    for old, children in takers.items():
        by = [run.replayed[made][0] for made in children if made in run.replayed]
        if len(set(by)) < len(by):
            yield f"{old} was replayed twice by one replay"
        careful = [made for made in children if made in run.replayed and not replays[run.replayed[made][0]]["anyway"]]
        if len(careful) > 1:
            yield f"{old} was replayed though another replay had done so: {careful}"
        if not careful or not _is_comparable(run):
            continue
        (made,) = careful[:1]
        earlier = [each for each in children if deliveries[each]["created_at"] < deliveries[made]["created_at"]]
        if earlier:
            yield f"{old} was replayed though somebody had it delivered again already, as {earlier[0]}"


def _replay(run: Run, asked: ReplayRow, row: asyncpg.Record, deliveries: Rows) -> Iterator[str]:
    children = [deliveries[made] for made, (by, _) in run.replayed.items() if by == asked.id and made in deliveries]
    if asked.missing:  # what it makes stands for nothing that was, and is told of by no delivery
        children = []
    stopped = next((each.at for each in run.people.told if each.replay == asked.id and each.said == "stopped"), None)
    if row["enqueued"] != len(children):
        yield f"replay {asked.name} says that it made {row['enqueued']}, and there are {len(children)}"
    if asked.dry_run and children:
        yield f"replay {asked.name} is a dry run, and made {len(children)}"
    if stopped is not None:
        late = [each for each in children if _is_comparable(run) and each["created_at"] > row["removed_at"]]
        if late:
            yield f"replay {asked.name} was stopped, and made {len(late)} after that"
        return
    if row["completed_at"] is None:
        yield f"replay {asked.name} never ended"
        return
    ended = [each["state"] for each in children]
    delivered, failed = ended.count("delivered"), len(ended) - ended.count("delivered")
    if (row["delivered"], row["failed"]) != (delivered, failed):
        yield f"replay {asked.name} counts {row['delivered']} and {row['failed']}; there are {delivered} and {failed}"
    skipped = row["skipped_events"] + row["skipped_destinations"] + row["skipped_pending"]
    if not asked.dry_run and row["matched"] != row["enqueued"] + skipped:
        yield f"replay {asked.name} matched {row['matched']}, made {row['enqueued']} and skipped {skipped}"


def _selection(asked: ReplayRow, row: asyncpg.Record, deliveries: Rows, of: Mapping[UUID, Arrival]) -> Iterator[str]:
    """It means what had ended when it began, the newest of each event and destination, and what its filter wants."""
    if row["counted_at"] is None or row["started_at"] is None:
        return
    began = row["started_at"]
    families = defaultdict[tuple[UUID, UUID], list[asyncpg.Record]](list)
    for each in deliveries.values():
        ended = each["finished_at"] is not None and each["finished_at"] <= began
        counts = ended if asked.anyway else each["created_at"] <= began
        if each["endpoint_id"] == asked.endpoint_id and counts:
            families[each["event_id"], each["destination_id"]].append(each)
    meant = 0
    for (event_id, destination_id), family in families.items():
        newest = max(family, key=lambda each: (each["created_at"], each["id"]))
        if asked.destinations is not None and destination_id not in asked.destinations:
            continue
        ended = newest["finished_at"] is not None and newest["finished_at"] <= began
        if ended and newest["state"] in asked.states and (asked.filter is None or of[event_id].wanted):
            meant += 1
    if not asked.missing and row["matched"] != meant:
        yield f"replay {asked.name} matched {row['matched']}, and means {meant}"
    if asked.missing and row["enqueued"]:
        yield f"replay {asked.name} made {row['enqueued']} of what was missing, and nothing was"


def _is_comparable(run: Run) -> bool:
    return not run.scenario.database_jumps


def _is_sane(run: Run) -> bool:
    jumps = [seconds for _, seconds in run.scenario.machine_jumps]
    return all(abs(life.clock_error) < SANE for life in run.lives) and all(abs(each) < SANE for each in jumps)
