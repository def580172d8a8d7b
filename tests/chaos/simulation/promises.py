"""What a destination asks for beyond its webhooks, held against what it got: order by key, a filter, and limits.

For `oracle`. Excuses are facts of the run: a process that cannot reach the database cannot renew what it holds, and the
try that it has under way is then beside those that others start.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from uuid import UUID

import asyncpg

from kapsel_deliverer.lanes import TOKEN_SPAN
from kapsel_deliverer.oauth2 import DOUBTED, PAUSE
from kapsel_store.rows import Batch, DestinationRow, Policy, RateLimit, Transform
from simulation.clock import EPOCH
from simulation.people import Destination, Seen, TokenServer
from simulation.scenario import COUNTING, Arrival
from simulation.world import Run

READ = 1e-3  # seconds in which an answer is read
SOON = 1.0  # seconds in which what is due and may go has gone
LEARNT = 5.0  # seconds in which a configuration is known to everybody: here it is looked for every four
HOLDING = {"429", "410", "hang", "unreachable", "slow"}  # what a destination may do that keeps others waiting
Rows = Mapping[UUID, asyncpg.Record]
Tries = Mapping[UUID, Sequence[Seen]]  # by delivery
Arrivals = Mapping[UUID, Arrival]  # by event


def arrivals(run: Run, events: Rows) -> Arrivals:
    """Return what was sent for each event."""
    by_body = {arrival.body: arrival for arrival in run.scenario.arrivals}
    return {event_id: by_body[bytes(row["body"])] for event_id, row in events.items()}


def kept(
    run: Run,
    deliveries: Rows,
    events: Rows,
    of: Arrivals,
    attempts: Mapping[UUID, Sequence[asyncpg.Record]],
    tries: Tries,
) -> Iterator[str]:
    """Say which of them were not kept."""
    for destination in run.scenario.configuration.destinations:
        rows = [row for row in deliveries.values() if row["destination_id"] == destination.id]
        if destination.filter is not None:
            for row in rows:
                yield from _filter(row, of[row["event_id"]], tries.get(row["id"], ()), attempts.get(row["id"], ()))
        for row in rows:
            seen, made = tries.get(row["id"], ()), attempts.get(row["id"], ())
            yield from _content(row, destination.transform, of[row["event_id"]], seen, made)
        if destination.ordering is not None:
            yield from _order(run, destination, rows, of, events, tries)
        yield from _concurrency(run, destination)
        if destination.batch is not None:
            yield from _together(
                destination.name, destination.batch, destination.policy, run.destinations[destination.id]
            )
            yield from _gathered(run, destination, destination.batch, rows)
        yield from _suspended(run, destination)
        if (tokens := run.destinations[destination.id].tokens) is not None:
            yield from _tokens(destination.name, run.destinations[destination.id].seen, tokens)
        if destination.rate_limit is not None:
            begun = sorted(seen.begin for seen in run.destinations[destination.id].seen)
            # A try that waits for its access token has begun, and is seen when that has come.
            fetched = () if tokens is None else (fetch.end - fetch.begin for fetch in tokens.fetches if fetch.end)
            span = TOKEN_SPAN + max(fetched, default=0.0)
            yield from _rate(run, destination.name, begun, destination.rate_limit, span)
    for endpoint in run.scenario.configuration.endpoints:
        if endpoint.rate_limit is not None:
            yield from _taken(run, endpoint.id, endpoint.rate_limit)


# Filters.


def _filter(
    row: asyncpg.Record, arrival: Arrival, seen: Sequence[Seen], attempts: Sequence[asyncpg.Record]
) -> Iterator[str]:
    if arrival.wanted is not True and seen:
        yield f"{row['id']} was sent, and its filter {'fails' if arrival.wanted is None else 'refuses it'}"
    if arrival.wanted is False and row["state"] != "cancelled" and row["finished_at"] < row["expires_at"]:
        yield f"{row['id']} is {row['state']}, and its filter refuses it"
    if arrival.wanted is False and attempts:
        yield f"{row['id']} was tried {len(attempts)} times, and its filter refuses it"
    if arrival.wanted is not False and row["last_reason"] == "filtered":
        yield f"{row['id']} was filtered, and its filter wants it or fails"
    if arrival.wanted is None and any(attempt["reason"] != "filter_error" for attempt in attempts):
        yield f"{row['id']} was tried for another reason than that its filter fails"


# Transforms.


def _content(
    row: asyncpg.Record,
    transform: Transform | None,
    arrival: Arrival,
    tries: Sequence[Seen],
    attempts: Sequence[asyncpg.Record],
) -> Iterator[str]:
    """The destination gets what its transform makes of the event, or the event as it came, and the log says which."""
    made = (arrival.body, dict[str, str]()) if transform is None else arrival.made(transform)
    errors = [attempt for attempt in attempts if attempt["reason"] == "transform_error"]
    if made is None:
        if tries:
            yield f"{row['id']} was sent, and its transform fails"
        return
    if errors:
        yield f"{row['id']} failed by its transform, which does not fail"
    body, headers = made
    is_made = transform is not None and transform.body is not None
    type_ = (transform.content_type if is_made and transform is not None else None) or "application/json"
    for seen in tries:
        if seen.body is not None and seen.body != body:
            yield f"attempt {seen.number} of {row['id']} had the body {seen.body[:80]!r}, and not {body[:80]!r}"
        if wrong := {
            name: seen.headers.get(name) for name, value in headers.items() if seen.headers.get(name) != value
        }:
            yield f"attempt {seen.number} of {row['id']} had the headers {wrong}, and not {headers}"
        if seen.headers["content-type"] != type_:
            yield f"attempt {seen.number} of {row['id']} is said to be {seen.headers['content-type']}, not {type_}"
    sent = hashlib.sha256(body).digest() if is_made else None
    for attempt in attempts:
        if attempt["response_status"] is not None and attempt["sent_hash"] != sent:
            yield f"attempt {attempt['number']} of {row['id']} is recorded with the hash of another body"


# Order.


def _order(
    run: Run,
    destination: DestinationRow,
    rows: Sequence[asyncpg.Record],
    of: Mapping[UUID, Arrival],
    events: Rows,
    tries: Tries,
) -> Iterator[str]:
    lines = defaultdict[str | None, list[asyncpg.Record]](list)
    for row in rows:
        lines[of[row["event_id"]].customer].append(row)
    for customer, line in lines.items():
        if len({row["order_key"] for row in line}) != 1 or line[0]["order_key"] is None:
            yield f"what {destination.name} gets of {customer} is not in one line"
        yield from _line(run, destination, f"{destination.name} of {customer}", line, events, tries)


def _line(
    run: Run, destination: DestinationRow, name: str, line: Sequence[asyncpg.Record], events: Rows, tries: Tries
) -> Iterator[str]:
    """In a line each has all its tries before the next one has any."""
    made = sorted(
        ((seen, row) for row in line for seen in tries.get(row["id"], ())),
        key=lambda each: each[0].begin,
    )
    ended, by_id = set[UUID](), {row["id"]: row for row in line}
    accepted, asked = _accepted(run), _asked(run, events)
    blocks = destination.ordering.on_exhausted == "Block"  # type: ignore[union-attr]
    if blocks:
        yield from _firsts(run, by_id, tries, name)
    for (before, first), (after, second) in pairwise(made):
        if first["id"] == second["id"]:
            continue
        ended.add(first["id"])
        if run.scenario.troubled(before.begin - 15, after.begin):
            continue
        if second["id"] in ended:
            yield f"in the line of {name}, {second['id']} was tried after {first['id']} had its turn"
        if not before.life.killed and after.begin < (before.end or after.begin) - 1e-6:
            yield f"in the line of {name}, {second['id']} was tried while {first['id']} still was"
        came = _came(run, first, by_id, asked, blocks=blocks)
        if second["replay_of"] is None and accepted.get(second["event_id"], after.begin) < came:
            yield f"in the line of {name}, {first['id']} came before {second['id']}, which was accepted before it"
        again = any(row["replay_of"] == first["id"] and _made_at(run, row) < after.begin for row in line)
        if first["state"] == "exhausted" and blocks and not again:
            yield f"in the line of {name}, {second['id']} was tried, and {first['id']} blocks it"


def _firsts(run: Run, line: Rows, tries: Tries, name: str) -> Iterator[str]:
    """What stands for what blocked the line is tried before all that waits in it."""
    for row in line.values():
        if row["replay_of"] is None or not tries.get(row["id"]) or run.scenario.database_jumps:
            continue
        blocked = line[row["replay_of"]]["state"] == "exhausted" and tries.get(row["replay_of"])  # it was the first one
        if not blocked or not _is_first(run, row, line):
            continue
        begun = min(seen.begin for seen in tries[row["id"]])
        for other in line.values():
            if any(_made_at(run, row) < seen.begin < begun for seen in tries.get(other["id"], ())):
                them = f"{other['id']} was tried before {row['id']}"
                yield f"in the line of {name}, {them}, which has the place of what blocked it"


def _is_first(run: Run, row: asyncpg.Record, line: Rows) -> bool:
    """Whether it is the first one that stands for what it stands for."""
    again = (each for each in line.values() if each["replay_of"] == row["replay_of"])
    return row is min(again, key=lambda each: (_made_at(run, each), each["id"]))


def _came(run: Run, row: asyncpg.Record, line: Rows, asked: Mapping[UUID, float], *, blocks: bool) -> float:
    """Since when a delivery has its place in the line: it is the last one, or that of what blocked the line."""
    if row["replay_of"] is None:
        return asked[row["event_id"]]
    if blocks and line[row["replay_of"]]["state"] == "exhausted" and _is_first(run, row, line):
        return _came(run, line[row["replay_of"]], line, asked, blocks=blocks)
    return _made_at(run, row)


def _made_at(run: Run, row: asyncpg.Record) -> float:
    """When a delivery was made; at the beginning, where the database's clock has jumped and does not tell."""
    if run.scenario.database_jumps:
        return 0.0
    return float((row["created_at"] - EPOCH).total_seconds()) - run.clock.database_error


def _asked(run: Run, events: Rows) -> dict[UUID, float]:
    """When the request was begun that each event was stored for."""
    sent = {one.request_id: one.at for one in run.sender.sent}
    return {event_id: sent[row["correlation_id"]] for event_id, row in events.items()}


def _accepted(run: Run) -> dict[UUID, float]:
    """When the sender of each event was first told that it is there."""
    found: dict[UUID, float] = {}
    for sent in run.sender.sent:
        if sent.event_id is not None:
            found[sent.event_id] = min(sent.ended, found.get(sent.event_id, sent.ended))
    return found


# Suspension.


def _suspended(run: Run, destination: DestinationRow) -> Iterator[str]:
    """Who has learnt that a destination is suspended begins no try of it, and everybody learns it soon."""
    for send in run.sends:
        if send.destination != destination.id:
            continue
        known = [load for load in run.loads if load.life is send.life and load.at <= send.begin]
        since = send.begin - known[-1].at
        if destination.id in known[-1].suspended and since > 1e-6:
            yield f"{send.life} tried {destination.name} {since:.3f} s after it was suspended"
    for rest in (rest for rest in run.rests if rest.destination == destination.id):
        soon = rest.begin + LEARNT
        for life in run.lives:
            there = life.born < rest.begin and all(end is None or end > soon for end in (life.asked, life.died))
            if life.component != "deliverer" or not there or run.scenario.troubled(rest.begin - 1, soon):
                continue
            told = (load for load in run.loads if load.life is life and rest.begin - 1 <= load.at <= soon)
            if not any(destination.id in load.suspended for load in told):
                yield f"{life} has not learnt in {LEARNT:.0f} s that {destination.name} was suspended"


# Batches.


def _together(name: str, batch: Batch, policy: Policy, destination: Destination) -> Iterator[str]:
    """No request is larger than it may be; who failed goes on in half the company, and alone in the end."""
    for request in destination.requests:
        count = len(request.items)
        if request.body is not None and len({seen.webhook_id for seen in request.items}) < count:
            yield f"{name} had an event twice in one request"
        numbers = {seen.number for seen in request.items if seen.number > 1}
        most = min(
            (1 if n >= policy.max_attempts else max(1, batch.max_events // 2 ** (n - 1)) for n in numbers),
            default=batch.max_events,
        )
        if count > most:
            yield f"{name} had {count} in one request at try {max(numbers, default=1)}, and {most} may go together then"
        if count > 1 and request.body is not None and len(request.body) > batch.max_bytes:
            yield f"{name} had {count} in a request of {len(request.body)} bytes, and {batch.max_bytes} are its most"


def _gathered(run: Run, destination: DestinationRow, batch: Batch, rows: Sequence[asyncpg.Record]) -> Iterator[str]:
    """Nothing waits for its batch longer than the interval, until somebody looks, and others have let go of slots."""
    holds = destination.rate_limit, destination.ordering, destination.oauth2
    breaker, actions = destination.policy.circuit_breaker, dict(run.scenario.conducts[destination.id].weights).keys()
    if any(holds) or breaker not in (None, COUNTING) or actions & HOLDING or run.scenario.database_jumps:
        return
    if any(rest.destination == destination.id for rest in run.rests):
        return
    if any(blow.component == "deliverer" for blow in run.scenario.blows):
        return
    longest = batch.interval.total_seconds() + run.scenario.poll + run.scenario.lease + SOON
    for row in rows:
        made = _made_at(run, row)
        begun = min((one.begin for one in run.sends if one.delivery == row["id"]), default=0.0)
        if row["replay_of"] is None and begun > made + longest and not run.scenario.troubled(made - 15, begun):
            yield f"{row['id']} waited {begun - made:.3f} s for its batch, and its interval allows {longest:.1f}"


# Access tokens.


def _tokens(name: str, seen: Sequence[Seen], server: TokenServer) -> Iterator[str]:
    """Every try has a token that is good as far as who makes it can know, and a server that fails is left alone."""
    by_life = defaultdict[str, list[Seen]](list)
    for one in (one for one in seen if one.webhook_id is not None):
        by_life[one.life.name].append(one)
        given = server.given.get(one.token)
        if given is None:
            yield f"{one.life} went to {name} without a token: {one.headers.get('authorization')}"
        elif one.begin > given + server.login.lifetime:
            late = one.begin - given - server.login.lifetime
            yield f"{one.life} went to {name} with a token {late:.3f} s after its end"
    for tries in by_life.values():
        taken, refused = set[str](), dict[str, float]()
        for one in sorted(tries, key=lambda each: each.end or each.begin):
            if one.status == 401:  # one that never was good is not at once worth another one
                until = one.begin if one.token in taken else server.given.get(one.token, 0.0) + DOUBTED
                refused.setdefault(one.token, max(one.end or one.begin, until))
            elif one.status is not None:
                taken.add(one.token)
        for one in tries:
            if one.begin > refused.get(one.token, one.begin) + READ:
                yield f"{one.life} went to {name} with a token that had been refused"
    for fetch in server.fetches:
        if fetch.stranger:
            yield f"{fetch.life} asked for a token of {name} as nobody that its server knows"
    for before, after in pairwise(sorted(server.fetches, key=lambda each: (each.life.name, each.begin))):
        if before.life is not after.life or before.end is None:
            continue
        if after.begin < before.end + (0.0 if before.token else PAUSE) - READ:
            yield f"{after.life} asked for a token of {name} {after.begin - before.end:.3f} s after it had got none"


# Limits.


def _concurrency(run: Run, destination: DestinationRow) -> Iterator[str]:
    under_way: list[Seen] = []
    for seen in sorted(run.destinations[destination.id].seen, key=lambda each: each.begin):
        under_way = [each for each in under_way if each.end is None or each.end > seen.begin + 1e-6]
        under_way.append(seen)
        if len(under_way) <= destination.max_in_flight or any(each.life.killed for each in under_way):
            continue
        if not run.scenario.troubled(min(each.begin for each in under_way) - 15, seen.begin):
            yield f"{destination.name} had {len(under_way)} tries under way, and takes {destination.max_in_flight}"
            return


def _rate(run: Run, name: str, begun: Sequence[float], limit: RateLimit, span: float) -> Iterator[str]:
    """No time sees more than the burst and what the rate lets in; a token may be used some time after it was drawn."""
    for place, first in enumerate(begun):
        for count, last in enumerate(begun[place:], 1):
            allowed = limit.burst + limit.requests_per_second * (last - first + span) + 1e-3
            jumped = any(first - span <= at <= last for at, _ in run.scenario.database_jumps)
            if count > allowed and not jumped:
                yield f"{name} had {count} in {last - first:.3f} s, and its rate allows {allowed:.1f}"
                return


def _taken(run: Run, endpoint_id: UUID, limit: RateLimit) -> Iterator[str]:
    """The same of an endpoint: what was stored for it, by when it was asked and when that was answered."""
    endpoints = run.scenario.configuration.endpoints
    told = [
        one
        for one in run.sender.sent
        if one.status == 202 and endpoints[run.scenario.arrivals[one.arrival].endpoint].id == endpoint_id
    ]
    longest = max((one.ended - one.at for one in told), default=0.0)
    yield from _rate(run, "the endpoint", sorted(one.ended for one in told), limit, longest + 1.0)
