"""Accounts for every id of a run: what was promised against what is stored, what the network saw and what was counted.

Each check is sharp where the run was calm, and knows which faults excuse what where it was not. An excuse is always a
fact of the run (this process was killed, a statement failed in this time), never a tolerance.
"""

import base64
import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any
from uuid import UUID

import asyncpg

from kapsel_deliverer.metrics import CIRCUIT_STATES, DISABLED
from kapsel_store import tlog
from kapsel_store.reasons import fault_of
from kapsel_store.rows import DestinationRow, KeyRow
from kapsel_tlog import examination, prover
from kapsel_verifier import proof as proof_file
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.proof import Proof
from kapsel_verifier.verify import verify_proof
from simulation import again, promises
from simulation.loop import Life
from simulation.people import Request, Seen
from simulation.scenario import COUNTING
from simulation.world import CircuitSeen, Run, Send

NEAR = 3.0  # seconds in which a circuit's change has reached every deliverer
PROOFS = 5  # proof files that are made and verified, of each run


@dataclass(kw_only=True)
class Facts:
    """What the database holds when a run has ended."""

    events: dict[UUID, asyncpg.Record]
    deliveries: dict[UUID, asyncpg.Record]
    attempts: dict[UUID, list[asyncpg.Record]]  # by delivery
    leaves: list[asyncpg.Record]
    replays: dict[UUID, asyncpg.Record]


async def facts(connection: asyncpg.Connection) -> Facts:
    events = await connection.fetch("SELECT * FROM events")
    deliveries = await connection.fetch("SELECT * FROM deliveries")
    attempts: dict[UUID, list[asyncpg.Record]] = defaultdict(list)
    for row in await connection.fetch("SELECT * FROM attempts ORDER BY number, id"):
        attempts[row["delivery_id"]].append(row)
    return Facts(
        events={row["id"]: row for row in events},
        deliveries={row["id"]: row for row in deliveries},
        attempts=attempts,
        leaves=await connection.fetch("SELECT * FROM leaves"),
        replays={row["id"]: row for row in await connection.fetch("SELECT * FROM replays")},
    )


async def judge(run: Run, connection: asyncpg.Connection) -> list[str]:
    """Return everything that is wrong."""
    held = await facts(connection)
    judge = _Judge(run, held)
    found = [*run.problems, *judge.all()]
    found += [problem async for problem in _log(run, held, connection)]
    return found


class _Sends:
    """Finds the delivery of each try that a destination saw, for that one knows only its event."""

    def __init__(self, run: Run) -> None:
        self._open: dict[tuple[Life, UUID, UUID, int], list[Send]] = defaultdict(list)
        for send in run.sends:
            self._open[send.life, send.event, send.destination, send.number].append(send)

    def of(self, seen: Seen) -> Send | None:
        assert seen.webhook_id is not None
        sends = self._open[seen.life, seen.webhook_id, seen.destination, seen.number]
        for send in sends:
            if send.begin <= seen.begin and (send.end is None or seen.begin <= send.end):
                sends.remove(send)
                return send
        return None


class _Judge:
    def __init__(self, run: Run, held: Facts) -> None:
        self.run = run
        self.held = held
        self.rows = {row.id: row for row in run.scenario.configuration.destinations}
        endpoints = {endpoint.id: endpoint for endpoint in run.scenario.configuration.endpoints}
        names = {row.id: endpoints[row.endpoint_id] for row in self.rows.values()}
        self.labels = {  # of metrics: the endpoint's and the destination's
            key: (f"{of.namespace}/{of.name}", f"{of.namespace}/{of.name}/{self.rows[key].name}")
            for key, of in names.items()
        }
        self.tries: dict[UUID, list[Seen]] = defaultdict(list)  # by delivery
        self.unasked: list[Seen] = []  # what nobody can have sent
        sends = _Sends(run)
        for seen in (seen for destination in run.destinations.values() for seen in destination.seen):
            if seen.webhook_id is not None:
                send = sends.of(seen)
                if send is None:
                    self.unasked.append(seen)
                    continue
                seen.delivery, seen.probe = send.delivery, send.probe
                self.tries[send.delivery].append(seen)

    def all(self) -> Iterator[str]:
        yield from self._accepted()
        yield from self._events()
        yield from self._deliveries()
        yield from self._attempts()
        yield from self._requests()
        yield from self._leases()
        yield from self._schedule()
        of = promises.arrivals(self.run, self.held.events)
        self.of = of
        yield from promises.kept(self.run, self.held.deliveries, self.held.events, of, self.held.attempts, self.tries)
        yield from again.kept(self.run, self.held.deliveries, self.held.replays, of, self.tries)
        yield from self._circuits()
        yield from self._metrics()
        yield from self._words()

    def _troubled(self, begin: float, end: float) -> bool:
        return self.run.scenario.troubled(begin, end)

    # Senders and events.

    def _accepted(self) -> Iterator[str]:
        scenario, ids = self.run.scenario, dict[tuple[UUID, bytes], UUID]()
        by_request = {row["correlation_id"]: row["id"] for row in self.held.events.values()}
        for sent in self.run.sender.sent:
            arrival = scenario.arrivals[sent.arrival]
            endpoint = scenario.configuration.endpoints[arrival.endpoint]
            if sent.status == 202:
                row = self.held.events.get(sent.event_id)
                if row is None:
                    yield f"accepted and lost: event {sent.event_id} of {sent}"
                    continue
                if row["body_hash"] != hashlib.sha256(arrival.body).digest() or row["endpoint_id"] != endpoint.id:
                    yield f"accepted as something else: {sent}"
                if endpoint.idempotency is not None:
                    key = arrival.key or ""
                    first = ids.setdefault((endpoint.id, key.encode()), sent.event_id)
                    if first != sent.event_id:
                        yield f"two events for one idempotency key: {first} and {sent.event_id}"
                elif by_request.get(sent.request_id) != sent.event_id:
                    yield f"without a key, {sent} is not an event of its own"
            elif sent.code == "storage_unavailable" and sent.request_id in by_request:
                yield f"nothing was stored, it said, and it was: {sent}"
        calm = [sent for sent in self.run.sender.sent if sent.status != 202 and scenario.calm and sent.at > 3]
        for sent in calm:
            if sent.code != "rate_limited":
                yield f"refused without a reason: {sent}"
        for number, _ in enumerate(scenario.arrivals):
            if not any(sent.status == 202 for sent in self.run.sender.sent if sent.arrival == number):
                yield f"arrival {number} was never accepted"

    def _events(self) -> Iterator[str]:
        scenario = self.run.scenario
        requests = {sent.request_id: sent for sent in self.run.sender.sent}
        seen = Counter[tuple[UUID, bytes]]()
        for row in self.held.events.values():
            if row["correlation_id"] not in requests:
                yield f"event {row['id']} was never sent"
            if row["idempotency_key"] is not None:
                seen[row["endpoint_id"], row["idempotency_key"]] += 1
            wanted = {each.id for each in scenario.destinations_of(row["endpoint_id"])}
            made = [each for each in self.held.deliveries.values() if each["event_id"] == row["id"]]
            got = [each["destination_id"] for each in made if each["replay_of"] is None]
            if sorted(got) != sorted(wanted):
                yield f"event {row['id']} has deliveries to {got}, not to {wanted}"
        for key, count in seen.items():
            if count > 1:
                yield f"{count} events are stored under one idempotency key {key[1].hex()[:8]}"
        for row in self.held.deliveries.values():
            if row["event_id"] not in self.held.events:
                yield f"delivery {row['id']} is of no event"

    # Deliveries and attempts.

    def _deliveries(self) -> Iterator[str]:
        for row in self.held.deliveries.values():
            destination = self.rows[row["destination_id"]]
            attempts = self.held.attempts.get(row["id"], [])
            match row["state"]:
                case "delivered":
                    if not any(attempt["outcome"] == "delivered" for attempt in attempts):
                        yield f"delivered by no attempt: {row['id']}"
                case "exhausted":
                    yield from self._exhausted(row, attempts, destination)
                case "cancelled" if row["last_reason"] == "filtered" and destination.filter is not None:
                    pass  # whether by right is asked of each filter
                case "cancelled" if row["last_reason"] == "cancelled" and row["id"] in again.cancelled(self.run):
                    pass
                case state:
                    yield f"delivery {row['id']} is {state}"

    def _exhausted(
        self, row: asyncpg.Record, attempts: list[asyncpg.Record], destination: DestinationRow
    ) -> Iterator[str]:
        policy = destination.policy
        if row["finished_at"] >= row["expires_at"]:
            return
        counted = [attempt for attempt in attempts if attempt["outcome"] != "delivered"]
        if not counted:
            yield f"given up before its age, and never tried: {row['id']}"
            return
        tries = {seen.number: seen for seen in self.tries.get(row["id"], [])}
        if any(_is_last(policy, attempt, tries.get(attempt["number"])) for attempt in counted):
            return
        # The schedule may have reached beyond its age: then the longest next wait must.
        longest = max(policy.backoff.max, *(policy.backoff.schedule or (policy.backoff.max,))) * 1.25
        waits = max(longest, policy.retry_after_max if policy.honour_retry_after else longest)
        last = max(counted, key=lambda attempt: attempt["number"])
        wait = min(waits, _declared(policy, last["number"]) * (1 + policy.backoff.jitter))
        if last["response_status"] == 429:
            wait = max(wait, waits)
        jumped = sum(abs(seconds) for _, seconds in self.run.scenario.database_jumps)
        if (
            row["finished_at"] - row["created_at"] + wait
        ).total_seconds() + jumped + 30 < policy.max_age.total_seconds():
            yield f"given up too early: {row['id']} after attempt {last['number']}, {last['reason']}"

    def _attempts(self) -> Iterator[str]:
        scenario = self.run.scenario
        crashes = sum(life.killed for life in self.run.lives)
        keys = {key.name: key for key in scenario.configuration.keys}
        labels = {endpoint.id: endpoint.name for endpoint in scenario.configuration.endpoints}
        for delivery_id, attempts in self.held.attempts.items():
            row = self.held.deliveries[delivery_id]
            policy = self.rows[row["destination_id"]].policy
            numbers = Counter(attempt["number"] for attempt in attempts)
            for number, count in numbers.items():
                if count > 1:
                    yield f"attempt {number} of {delivery_id} is recorded {count} times"
            beyond = [number for number in numbers if number > policy.max_attempts]
            if len(beyond) > (0 if scenario.calm else crashes + len(self.run.proxy.faults)):
                yield f"{delivery_id} was tried {max(numbers)} times, and {policy.max_attempts} are allowed"
            if max(numbers) > row["attempts"]:
                yield f"{delivery_id} counts {row['attempts']} attempts and has number {max(numbers)}"
            final = [attempt for attempt in attempts if attempt["outcome"] == "delivered"]
            if len(final) > 1 and scenario.calm:
                yield f"{delivery_id} was delivered {len(final)} times"
            if final and row["state"] != "delivered" and scenario.calm:
                yield f"{delivery_id} was delivered and is {row['state']}"
            tries = {seen.number: seen for seen in self.tries.get(delivery_id, [])}
            for attempt in attempts:
                seen = tries.get(attempt["number"])
                status = attempt["response_status"]
                if status is not None and (seen is None or seen.status != status):
                    yield f"attempt {attempt['number']} of {delivery_id} says {status}; the destination saw {seen}"
                if seen is not None and seen.status is not None and status is None:
                    gone = seen.action == "short" or seen.life.killed or attempt["outcome"] == "timed_out"
                    if not gone:
                        yield f"attempt {attempt['number']} of {delivery_id} says nothing, and had {seen.status}"
                if seen is not None and seen.request is not None:
                    yield from _recorded_together(attempt, seen, len(seen.request.items))
        for seen in self.unasked:
            yield f"{seen.webhook_id} was sent to {seen.destination}, and {seen.life} had no delivery of it to send"
        for delivery_id, sent in self.tries.items():
            recorded = {attempt["number"] for attempt in self.held.attempts.get(delivery_id, [])}
            for number, count in Counter(seen.number for seen in sent).items():
                if count > 1:
                    yield f"the destination saw attempt {number} of {delivery_id} {count} times"
            event = self.held.events[self.held.deliveries[delivery_id]["event_id"]]
            key = keys[f"endpoint/{labels[event['endpoint_id']]}"]
            for seen in sent:
                if seen.number not in recorded and not seen.life.killed:
                    yield f"attempt {seen.number} of {delivery_id} by {seen.life} was made and is not recorded"
                if seen.body is None:
                    yield f"attempt {seen.number} of {delivery_id} by {seen.life} broke off before its body had come"
                elif not _is_signed(seen, seen.body, key):
                    yield f"attempt {seen.number} of {delivery_id} has a wrong body or signature"

    def _requests(self) -> Iterator[str]:
        """A request of several is signed as a whole, under an id that nothing else has."""
        keys, ids = {key.name: key for key in self.run.scenario.configuration.keys}, set[str]()
        endpoints = {endpoint.id: endpoint.name for endpoint in self.run.scenario.configuration.endpoints}
        for destination_id, row in self.rows.items():
            for request in self.run.destinations[destination_id].requests:
                if not request.headers:
                    continue
                said, name = request.headers["webhook-id"], f"the request of {request.life} at {request.begin:.3f}"
                if request.body is None:
                    yield f"{name} broke off before its body had come"
                    continue
                if request.wrong or not request.items:
                    yield f"{name} is no list of webhooks: {request.wrong} {request.body[:80]!r}"
                if said in ids or UUID(said) in self.held.events:
                    yield f"{name} has the id {said}, which something else has too"
                ids.add(said)
                message = f"{said}.{request.headers['webhook-timestamp']}.".encode() + request.body
                key = keys[f"endpoint/{endpoints[row.endpoint_id]}"]
                if _signature(message, key) not in request.headers["webhook-signature"].split(" "):
                    yield f"{name} is not signed as a whole"

    def _leases(self) -> Iterator[str]:
        """Nobody moves what another one has claimed since, and nobody claims what somebody holds and works on."""
        holds: dict[UUID, Any] = {}
        for move in self.run.moves:
            held = holds.get(move.delivery)
            if move.what == "recorded" and held is not None and held.lease != move.lease:
                yield f"{move.life} moved {move.delivery}, which {held.life} had claimed after it"
            if move.what == "recorded":
                holds.pop(move.delivery, None)
                continue
            holds[move.delivery] = move
        for tries in self.tries.values():
            for earlier, later in pairwise(sorted(tries, key=lambda seen: (seen.begin, seen.number))):
                ended = later.begin if earlier.end is None else earlier.end
                overlaps = later.begin < ended - 1e-6
                if overlaps and not earlier.life.killed and not self._troubled(earlier.begin - 15, later.begin):
                    yield f"{later.life} tried {later.webhook_id} while {earlier.life} still did"

    def _schedule(self) -> Iterator[str]:
        """No try comes before its wait is over."""
        for delivery_id, tries in self.tries.items():
            destination_id = tries[0].destination
            policy = self.rows[destination_id].policy
            recorded = {each["number"]: each for each in self.held.attempts.get(delivery_id, [])}
            by_number = {seen.number: seen for seen in tries}
            for number, seen in by_number.items():
                following, attempt = by_number.get(number + 1), recorded.get(number)
                if following is None or attempt is None or seen.end is None or seen.life.killed:
                    continue
                if self._troubled(seen.begin - 15, following.begin) or attempt["outcome"] == "delivered":
                    continue
                wait = _declared(policy, number).total_seconds() * (1 - policy.backoff.jitter)
                if seen.status == 429 and policy.honour_retry_after:
                    asked = self.run.scenario.conducts[destination_id].retry_after
                    wait = max(wait, min(asked, policy.retry_after_max.total_seconds()))
                if following.begin - seen.end < wait - 0.1:
                    waited = following.begin - seen.end
                    yield f"attempt {number + 1} of {delivery_id} came after {waited:.3f} s of {wait:.3f}"

    # Circuits.

    def _circuits(self) -> Iterator[str]:
        by_destination = defaultdict(list)
        for seen in self.run.circuits:
            by_destination[seen.destination].append(seen)
        for destination_id, states in by_destination.items():
            row = self.rows[destination_id]
            tries = _heard(self.run.destinations[destination_id].seen)
            breaker = row.policy.circuit_breaker
            for before, after in pairwise([None, *states]):
                if after is None or breaker is None:
                    continue
                failed = sum(seen.failed and (seen.end or after.at) <= after.at for seen in tries)
                if after.failures > failed:
                    yield f"the circuit of {row.name} counts {after.failures} failures; there were {failed}"
                if after.state == "open" and (before is None or before.state == "closed"):
                    enough = breaker.min_attempts
                    if self._has_come_back(destination_id, tries, after.at):
                        enough = min(enough, breaker.probes)
                    if failed < ceil(breaker.failure_ratio * enough) or len(tries) < enough:
                        yield f"the circuit of {row.name} opened after {failed} failures of {len(tries)} tries"
                if after.state == "open" and before is not None and before.state == "open":
                    if self._troubled(before.at - 15, after.at) or before.open_until != after.open_until:
                        continue
                    begun = [seen for seen in tries if before.at + NEAR < seen.begin < min(after.at, after.open_until)]
                    if begun and not any(a <= after.at and a + length >= before.at for a, length in self.run.skips):
                        yield f"{row.name} was tried behind its open circuit: {begun[0]}"

            if breaker == COUNTING and not any(rest.destination == destination_id for rest in self.run.rests):
                certain = sum(seen.failed and not self._is_untold(seen) for seen in tries)
                if states[-1].failures < certain:
                    told = f"{states[-1].failures} failures of {certain}"
                    yield f"the circuit of {row.name} has lost count: it has been told of {told}"

    def _has_come_back(self, destination_id: UUID, tries: Sequence[Seen], by: float) -> bool:
        """Whether a destination that wanted no more was let back in by steps, since its manifest had changed."""
        gone = [seen.end for seen in tries if seen.status == 410 and seen.end is not None]
        rests = [rest for rest in self.run.rests if rest.destination == destination_id]
        return any(end < change < by for rest in rests for change in (rest.begin, rest.end) for end in gone)

    def _is_untold(self, seen: Seen) -> bool:
        """Whether who made a try may have ended before the circuit was told: killed at once, or without a database."""
        died, ended = seen.life.died, seen.end
        if died is None or ended is None or (seen.life.killed and died - ended < NEAR):
            return True
        return self._troubled(died, died) and self._troubled(ended, died)

    # Counting.

    def _metrics(self) -> Iterator[str]:
        given_up = sum(row["state"] == "exhausted" for row in self.held.deliveries.values())
        told = sum(_sum(counted, "webhook_deliveries_exhausted_total") for counted in self.run.counted.values())
        # Who was killed takes its count along, and who never heard of its commit has not counted it.
        if told > given_up or (told < given_up and self.run.scenario.calm):
            yield f"deliverers count {told:.0f} deliveries given up, and {given_up} were"
        for life in self.run.lives:
            counted = self.run.counted.get(life.name)
            if counted is None:
                continue
            if life.component == "deliverer":
                told = _sum(counted, "webhook_delivery_attempts_total")
                unsent = "filter_error", "transform_error", "token_refused", "token_unavailable"
                told -= _sum(counted, "webhook_delivery_failures_total", *unsent)  # nothing was sent
                made = sum(seen.life is life for each in self.run.destinations.values() for seen in each.seen)
                if told != made:
                    yield f"{life} counts {told:.0f} attempts, and made {made}"
                yield from self._deliverer_metrics(life, counted)
            if life.component == "receiver":
                told = _sum(counted, "webhook_ingestion_total", "accepted", "duplicate")
                got = sum(sent.life is life and sent.status == 202 for sent in self.run.sender.sent)
                unheard = sum(sent.status is None for sent in self.run.sender.sent)
                if not got <= told <= got + unheard:
                    yield f"{life} counts {told:.0f} webhooks taken, and {got} were told so ({unheard} heard nothing)"

        yield from self._replays_counted()

    def _deliverer_metrics(self, life: Life, counted: dict[str, float]) -> Iterator[str]:
        """What one that ended in order has counted, against the rows of its tries and what it was told by the store."""
        learned = self.run.learned[life.name]
        pending, sending = self.run.depths.get(life.name, (0, 0))
        facts = Counter[str](
            {
                "delivery_claim_size_count{}": learned["claims"],
                "delivery_claim_size_sum{}": learned["claimed"],
                "delivery_record_size_count{}": learned["records"],
                "delivery_record_size_sum{}": learned["recorded"],
                "delivery_lease_lost_total{}": learned["lost"],
                "delivery_rescued_total{}": learned["rescue"],
                "delivery_expired_total{}": learned["expire"],
                "delivery_queue_depth{state=pending}": pending,
                "delivery_queue_depth{state=sending}": sending,
            }
        )
        for request in (one for each in self.run.destinations.values() for one in each.requests if one.life is life):
            facts["delivery_batch_size_count{}"] += 1
            facts["delivery_batch_size_sum{}"] += len(request.items)
        for row in (row for rows in self.held.attempts.values() for row in rows):
            if self.run.recorders.get(row["id"]) is life:
                of, label = self.labels[row["destination_id"]]
                tried = f"destination={label},endpoint={of},outcome={row['outcome']}"
                facts[f"webhook_delivery_attempts_total{{{tried}}}"] += 1
                if row["outcome"] != "delivered":
                    why = f"fault={fault_of(row['reason'])},reason={row['reason']}"
                    facts[f"webhook_delivery_failures_total{{{why}}}"] += 1
        for move in self.run.moves:
            if move.life is life and move.what == "claimed" and self._is_unwanted(move.delivery):
                _, label = self.labels[self.held.deliveries[move.delivery]["destination_id"]]
                facts[f"webhook_deliveries_filtered_total{{destination={label}}}"] += 1
        families = {sample.partition("{")[0] for sample in facts} | {"webhook_delivery_failures_total"}
        families |= {"webhook_delivery_attempts_total", "webhook_deliveries_filtered_total"}
        for sample in sorted(facts.keys() | {each for each in counted if each.partition("{")[0] in families}):
            if counted.get(sample, 0) != facts[sample]:
                yield f"{life} counts {counted.get(sample, 0):.0f} as {sample}, and it was {facts[sample]}"
        yield from self._circuits_shown(life, counted)

    def _is_unwanted(self, delivery_id: UUID) -> bool:
        row = self.held.deliveries[delivery_id]
        return self.rows[row["destination_id"]].filter is not None and self.of[row["event_id"]].wanted is False

    def _circuits_shown(self, life: Life, counted: dict[str, float]) -> Iterator[str]:
        """Who ends when all has ended shows each circuit as it stood, or did a moment ago."""
        died = life.died
        if died is None or died < self.run.scenario.trouble_ends + NEAR or self._troubled(died - 15, died):
            return
        for destination_id, row in self.rows.items():
            states = [seen for seen in self.run.circuits if seen.destination == destination_id]
            known = [seen for seen in states if seen.at < died - NEAR][-1:]
            near = [*known, *(seen for seen in states if seen.at >= died - NEAR)]
            stood = {_shown(seen, row) for seen in near} | (set() if known else {0})
            shown = counted.get(f"circuit_breaker_state{{destination={self.labels[destination_id][1]}}}", 0)
            if shown not in stood:
                yield f"{life} shows {shown:.0f} for the circuit of {row.name}, which was {sorted(stood)}"

    def _replays_counted(self) -> Iterator[str]:
        """A turn that was committed and not answered is counted by nobody, and nothing is counted twice."""
        deliverers = [life for life in self.run.lives if life.component == "deliverer"]
        told = sum(_sum(self.run.counted.get(life.name, {}), "replay_deliveries_enqueued_total") for life in deliverers)
        made = sum(row["enqueued"] for row in self.held.replays.values())
        if told > made or (told < made and not self.run.proxy.faults and not any(life.killed for life in deliverers)):
            yield f"{told:.0f} deliveries are counted that replays made, and there are {made}"

    def _words(self) -> Iterator[str]:
        """Nothing is logged as a bug of ours."""
        for at, life, record in self.run.logs:
            if record.exc_info and record.exc_info[1] is not None:
                error = record.exc_info[1]
                yield f"{at:.3f} {life} logs {record.getMessage()!r}: {type(error).__name__}: {error}"
            elif record.levelname in ("ERROR", "CRITICAL"):
                yield f"{at:.3f} {life} logs {record.levelname}: {record.getMessage()}"


async def _log(run: Run, held: Facts, connection: asyncpg.Connection) -> Any:
    """Every attempt has its leaf, every head covers what it says, and proofs hold."""
    leaves = Counter(row["attempt_id"] for row in held.leaves)
    for attempts in held.attempts.values():
        for attempt in attempts:
            if leaves[attempt["id"]] != 1:
                yield f"attempt {attempt['id']} has {leaves[attempt['id']]} leaves"
    if sum(leaves.values()) != sum(len(attempts) for attempts in held.attempts.values()):
        yield "there are leaves of no attempt"
    for log in await tlog.states(connection):
        if log.frozen_reason:
            yield f"the log is frozen: {log.frozen_reason}"
        seen = await examination.examine(connection, log, lambda _: None)
        for finding in seen.findings:
            yield f"the log: {finding}"
        head = await tlog.latest_head(connection, log.id)
        if held.leaves and (head is None or head.tree_size < log.tree_size):
            yield "no head covers the log"
    async for problem in _proofs(run, held, connection):
        yield problem


async def _proofs(run: Run, held: Facts, connection: asyncpg.Connection) -> Any:
    row = run.scenario.configuration.log
    assert row is not None
    key = next(key for key in run.scenario.configuration.keys if key.name == "log")
    trusted = TrustedKey(name=row.origin, public_key=key.public)
    for leaf in held.leaves[:: max(1, len(held.leaves) // PROOFS)]:
        try:
            made = await prover.proof_for_attempt(connection, leaf["attempt_id"])
            assert isinstance(made, Proof), made
            verify_proof(proof_file.parse(made.encode()), [trusted])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
            yield f"no proof of {leaf['attempt_id']}: {type(error).__name__}: {error}"


def _declared(policy: Any, number: int) -> Any:
    backoff = policy.backoff
    if backoff.type == "Schedule":
        return backoff.schedule[min(number, len(backoff.schedule)) - 1]
    return min(backoff.initial * backoff.factor ** (number - 1), backoff.max)


def _is_last(policy: Any, attempt: asyncpg.Record, seen: Seen | None) -> bool:
    status = attempt["response_status"]
    if attempt["number"] >= policy.max_attempts or status == 410:
        return True
    if status is None:
        return not policy.retry_connection_errors
    if attempt["reason"] in ("item_failed", "batch_answer_invalid"):
        return False
    if seen is not None and seen.request is not None and len(seen.request.items) > 1:  # which of them it means is open
        return False
    return str(status) not in policy.retry_status_codes and f"{status // 100}xx" not in policy.retry_status_codes


def _is_signed(seen: Seen, body: bytes, key: KeyRow) -> bool:
    return _signature(f"{seen.webhook_id}.{seen.timestamp}.".encode() + body, key) in seen.signature.split(" ")


def _signature(message: bytes, key: KeyRow) -> str:
    return "v1," + base64.b64encode(hmac.digest(key.secret, message, "sha256")).decode()


def _recorded_together(attempt: asyncpg.Record, seen: Seen, count: int) -> Iterator[str]:
    """An attempt that was made with others says so, and what the answer says of it alone."""
    name = f"attempt {attempt['number']} of {attempt['delivery_id']}"
    assert seen.request is not None
    told = f"in a batch of {count}, webhook-id {seen.request.headers['webhook-id']}"
    if attempt["detail"] != told and attempt["outcome"] != "unsent":
        yield f"{name} is recorded as {attempt['detail']!r}, and was {told!r}"
    lines = "".join(f"webhook-{part}: {seen.headers[f'webhook-{part}']}\n" for part in ("id", "timestamp", "signature"))
    if attempt["signature_digest"] != hashlib.sha256(lines.encode()).digest():
        yield f"{name} is recorded with the digest of another signature"
    if attempt["response_status"] == 200 == seen.status:
        meant = ("refused", seen.said) if seen.said else ("delivered", "status_200")
        if (attempt["outcome"], attempt["reason"]) != meant:
            yield f"{name} is recorded as {attempt['outcome']}, {attempt['reason']}; its answer meant {meant}"


def _heard(seen: Sequence[Seen]) -> list[Seen]:
    """Return the tries as the circuit is to count them: what went together once, and once more for each probe in it.

    It is one that was taken, if any was.
    """
    requests = defaultdict[Request, list[Seen]](list)
    for one in seen:
        if one.request is not None:
            requests[one.request].append(one)
    heard = [one for one in seen if one.request is None]
    for items in requests.values():
        probes, best = sum(one.probe for one in items), next((one for one in items if not one.failed), items[0])
        heard += [best] * (probes + (probes < len(items)))
    return heard


def _shown(seen: CircuitSeen, row: DestinationRow) -> int:
    """Return what the metric says of a circuit."""
    if seen.disabled:
        return DISABLED
    return 0 if row.policy.circuit_breaker is None else CIRCUIT_STATES[seen.state]


def _sum(counted: dict[str, float], name: str, *results: str) -> float:
    total = 0.0
    for sample, value in counted.items():
        if sample.startswith(f"{name}{{") and (not results or any(f"={result}" in sample for result in results)):
            total += value
    return total
