"""What a seed decides: a pure function from a number to a world and all that befalls it."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from kapsel_store.rows import (
    Backoff,
    Batch,
    CircuitBreaker,
    Configuration,
    DestinationRow,
    EndpointRow,
    Idempotency,
    KeyRow,
    LogRow,
    OAuth2,
    Ordering,
    Policy,
    RateLimit,
    RelayRow,
    Transform,
    Verification,
)
from simulation.asking import Ask, asks, insist

# The server's ways to say that it cannot serve just now; 53100 is a full disk, 40P01 a deadlock, 58030 a broken one.
SQLSTATES = ("53100", "53300", "40001", "40P01", "57P01", "57P03", "58030", "25006")
HOUR = 3600.0
ORDER = "event.body.customer"  # a key that some bodies do not have
FILTER = "event.body.wanted"  # a filter that fails where that is no boolean
# What a template makes; `Arrival.made` says the same without CEL. The header fails where there is no customer.
TEMPLATE = '{"n": event.body.number + 1, "who": has(event.body.customer) ? event.body.customer : "nobody"}'
MADE_TYPE = "application/vnd.chaos+json"
# A circuit that never opens and whose window is never over: at the end it has counted every failure there was.
COUNTING = CircuitBreaker(
    failure_ratio=1.0, min_attempts=10**6, window=timedelta(days=30), open_for=timedelta(seconds=10), probes=1
)
HEADERS = (("X-Number", '"no. " + string(event.body.number)'), ("X-Customer", "event.body.customer"))
CLIENT = (("secret/client/id", b"kapsel"), ("secret/client/secret", b"a secret"))  # who asks for access tokens


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How a destination behaves: what it does with a request, by chance, until it recovers."""

    weights: tuple[tuple[str, float], ...]  # action -> weight
    recovers: float | None = None  # seconds from the beginning; None: never changes
    latency: float = 0.02
    retry_after: int = 0


@dataclass(frozen=True, kw_only=True)
class Login:
    """A server of access tokens, and what it does with a question, by chance, until it recovers."""

    weights: tuple[tuple[str, float], ...]
    recovers: float
    lifetime: int  # seconds of a token
    rotates: float | None  # seconds after which all tokens that it gave are good no more, over and over
    authentication: str  # how it asks who comes: Basic or Post


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One webhook that somebody sends, again until it is accepted."""

    at: float
    endpoint: int
    key: str | None
    body: bytes
    again: tuple[float, ...] = ()  # and once more after it was accepted, so many seconds later

    @property
    def customer(self) -> str | None:
        """By which it is put in order; None: it is in one line with all that say nothing."""
        found: str | None = json.loads(self.body).get("customer")
        return found

    def made(self, transform: Transform) -> tuple[bytes, dict[str, str]] | None:
        """Return the body and the headers that a transform makes of it; None: it fails."""
        said = json.loads(self.body)
        known = {"X-Number": f"no. {said['number']}", "X-Customer": self.customer}
        headers = {name.lower(): known[name] for name, _ in transform.headers}
        if None in headers.values():
            return None
        if transform.body is None:
            return self.body, headers
        who = said.get("customer", "nobody")
        return f'{{"n":{said["number"] + 1},"who":"{who}"}}'.encode(), headers

    @property
    def wanted(self) -> bool | None:
        """What the filter makes of it; None: it fails."""
        found = json.loads(self.body)["wanted"]
        return found if isinstance(found, bool) else None


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One end of one process."""

    at: float
    component: str
    number: int
    steps: int  # callbacks of it until it dies; 0: it is asked to stop instead
    back: float  # seconds until another one starts in its place


@dataclass(frozen=True, kw_only=True)
class Window:
    """A time in which statements fail by chance."""

    begin: float
    end: float
    kinds: tuple[str, ...]
    chance: float
    sqlstate: str = ""
    seconds: float = 0.0
    component: str | None = None
    only: str = ""  # statements that say this


@dataclass(frozen=True, kw_only=True)
class Rest:
    """A time in which a destination is suspended."""

    destination: UUID
    begin: float
    end: float


@dataclass(kw_only=True)
class Scenario:
    """A world."""

    seed: int
    receivers: int
    deliverers: int
    attestors: int
    configuration: Configuration
    conducts: dict[UUID, Conduct]
    arrivals: list[Arrival]
    blows: list[Blow]
    windows: list[Window]
    database_jumps: list[tuple[float, float]]  # when, and by how many seconds
    clock_errors: list[float]  # of machines, in turn
    machine_jumps: list[tuple[float, float]]
    hint_loss: float
    lease: float
    poll: float
    secret: bytes
    calm: bool  # no blow, no fault, no jump of the database's clock
    asks: list[Ask] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    logins: dict[UUID, Login] = field(default_factory=dict)  # of destinations that want access tokens
    trouble_ends: float = field(init=False)

    def __post_init__(self) -> None:
        ends = [blow.at + blow.back + 1 for blow in self.blows] + [window.end + 1 for window in self.windows]
        ends += [rest.end for rest in self.rests]
        self.trouble_ends = max([*ends, *(at for at, _ in self.database_jumps), *(one.at for one in self.arrivals)])

    def troubled(self, begin: float, end: float) -> bool:
        """Whether the database failed anybody in this time, or what came of that may still be under way."""
        if any(begin - 1 <= at <= end for at, _ in self.database_jumps):
            return True
        return any(one.begin - 1 <= end and begin <= one.end + one.seconds + 30 for one in self.windows)

    def destinations_of(self, endpoint_id: UUID) -> list[DestinationRow]:
        return [row for row in self.configuration.destinations if row.endpoint_id == endpoint_id]


def scenario(seed: int) -> Scenario:
    """Return the world of a seed."""
    chance = Random(f"kapsel {seed}")
    calm = seed % 5 == 0
    identities = Random(f"identities {seed}")

    def identity() -> UUID:
        return UUID(bytes=identities.randbytes(16), version=4)

    secret = identities.randbytes(32)
    endpoints, destinations, conducts = [], [], {}
    for number in range(chance.choice((1, 1, 2, 3))):
        endpoint = _endpoint(identity(), number, chance)
        endpoints.append(endpoint)
        for place in range(chance.choice((1, 1, 2, 3))):
            row = _destination(identity(), endpoint, len(destinations), place, chance, identity)
            destinations.append(row)
            conducts[row.id] = _conduct(row, chance)
    keys = [_key(identity(), "shop", f"endpoint/e{n}", identities) for n in range(len(endpoints))]
    keys = [*keys, _given_key(identity(), "in", secret), _log_key(identity(), identities)]
    keys += [_given_key(identity(), name, value) for name, value in CLIENT]
    log = LogRow(
        namespace="shop",
        name="log",
        origin=f"chaos.example/{seed}",
        key_name="log",
        integrate_interval=timedelta(seconds=chance.choice((0.5, 1.0, 2.0))),
        integrate_batch=chance.choice((2, 10, 1000)),
        publish_interval=timedelta(seconds=chance.choice((1, 1, 4))),
        publish_pending=chance.choice((1, 20, 100)),
    )
    relay = RelayRow(namespace="shop", allowed_cidrs=("127.0.0.0/8",), allow_http=True)
    shaped = [_shaped(row, Random(f"shaping {row.id}")) for row in destinations]
    shaped = [_transforming(row, Random(f"transforming {row.id}")) for row in shaped]
    shaped = [_counting(row, Random(f"counting {row.id}")) for row in shaped]
    if not insist(seed):  # where a refusal has to end its delivery at once
        shaped = [_batching(row, Random(f"batching {row.id}")) for row in shaped]
    logins = {row.id: login for row in shaped if (login := _login(Random(f"login {row.id}"))) is not None}
    shaped = [
        dataclasses.replace(row, oauth2=_oauth2(row, logins[row.id])) if row.id in logins else row for row in shaped
    ]
    if insist(seed):
        shaped = [_blocking(row) for row in shaped]
        conducts = {row.id: Conduct(weights=(("ok", 2.0), ("404", 1.0)), latency=0.5) for row in shaped}
    made = Configuration(relay=relay, endpoints=tuple(endpoints), destinations=tuple(shaped), keys=tuple(keys), log=log)
    span = chance.uniform(2, 6)
    counts = {"receiver": chance.choice((1, 1, 2)), "deliverer": chance.choice((1, 2, 2))}
    counts["attestor"] = chance.choice((1, 1, 2))
    return Scenario(
        seed=seed,
        receivers=counts["receiver"],
        deliverers=counts["deliverer"],
        attestors=counts["attestor"],
        configuration=made,
        conducts=conducts,
        arrivals=_arrivals(chance, endpoints, span),
        blows=[] if calm else _blows(chance, counts, span),
        windows=[] if calm else [*_windows(chance, span), *_unanswered(Random(f"unanswered {seed}"), span)],
        database_jumps=[]
        if calm or chance.random() < 0.7
        else [(chance.uniform(1, span), chance.choice((-20.0, -1.0, 3.0, 40.0)))],
        clock_errors=[chance.choice((0.0, 0.0, 0.4, -1.5, 90.0, -3600.0)) for _ in range(8)],
        machine_jumps=[
            (chance.uniform(1, span), chance.choice((-5.0, 60.0, 7200.0))) for _ in range(chance.choice((0, 0, 1)))
        ],
        hint_loss=chance.choice((0.0, 0.0, 0.3, 1.0)),
        lease=chance.choice((3.0, 4.0, 6.0)),
        poll=chance.choice((1.0, 1.0, 5.0)),
        secret=secret,
        calm=calm,
        asks=asks(seed, shaped, FILTER),
        rests=[rest for row in shaped for rest in _rests(row, Random(f"resting {row.id}"), span)],
        logins=logins,
    )


def _endpoint(identity: UUID, number: int, chance: Random) -> EndpointRow:
    idempotency = chance.choice(
        (
            Idempotency(source="Header", header="X-Delivery"),
            Idempotency(source="Header", header="X-Delivery"),
            Idempotency(source="Content"),
            None,
        )
    )
    scheme = chance.choice(("none", "hmac"))
    verification = Verification(scheme="none")
    if scheme == "hmac":
        verification = Verification(scheme="hmac", key_name="in", header="X-Signature", prefix="sha256=")
    limit = RateLimit(requests_per_second=2.0, burst=3) if chance.random() < 0.1 else None
    return EndpointRow(
        id=identity,
        namespace="shop",
        name=f"e{number}",
        verification=verification,
        idempotency=idempotency,
        rate_limit=limit,
    )


def _destination(
    identity: UUID, endpoint: EndpointRow, number: int, place: int, chance: Random, another: object
) -> DestinationRow:
    backoff = chance.choice(
        (
            Backoff(initial=timedelta(seconds=1), factor=2, max=timedelta(minutes=1), jitter=0.25),
            Backoff(initial=timedelta(seconds=5), factor=4, max=timedelta(hours=6), jitter=0.0),
            Backoff(type="Schedule", schedule=tuple(timedelta(seconds=s) for s in (1, 30, 1800, 28800)), jitter=0.1),
        )
    )
    breaker = CircuitBreaker(
        failure_ratio=0.5,
        min_attempts=chance.choice((4, 6)),
        window=timedelta(minutes=1),
        open_for=timedelta(seconds=chance.choice((10, 300))),
        probes=chance.choice((1, 2)),
    )
    policy = Policy(
        backoff=backoff,
        max_attempts=chance.choice((2, 4, 6)),
        max_age=timedelta(hours=chance.choice((1, 12, 24))),
        honour_retry_after=chance.random() < 0.8,
        retry_after_max=timedelta(seconds=chance.choice((20, 3600))),
        circuit_breaker=chance.choice((None, breaker)),
    )
    return DestinationRow(
        id=identity,
        endpoint_id=endpoint.id,
        name=f"d{place}",
        url=f"http://127.0.0.{number + 2}:80/hooks",
        policy=policy,
        timeout=timedelta(seconds=chance.choice((2, 5, 10))),
        max_in_flight=chance.choice((1, 4, 32)),
        rate_limit=RateLimit(requests_per_second=2.0, burst=2) if chance.random() < 0.1 else None,
    )


def _shaped(row: DestinationRow, chance: Random) -> DestinationRow:
    """Have some destinations ask for order, a filter or a limit, by a chance that moves nothing else in the world."""
    ordering = Ordering(key=ORDER, on_exhausted=chance.choice(("Block", "Skip")))
    limit = RateLimit(requests_per_second=chance.choice((0.5, 2.0)), burst=chance.choice((1, 3)))
    return dataclasses.replace(
        row,
        ordering=ordering if chance.random() < 0.35 else None,
        filter=FILTER if chance.random() < 0.3 else None,
        rate_limit=limit if chance.random() < 0.2 else row.rate_limit,
        max_in_flight=2 if chance.random() < 0.2 else row.max_in_flight,
    )


def _transforming(row: DestinationRow, chance: Random) -> DestinationRow:
    """Have some destinations ask for another body, for headers or for both."""
    if chance.random() >= 0.3:
        return row
    body = chance.choice((TEMPLATE, TEMPLATE, None))
    headers = chance.choice((HEADERS[:1], HEADERS[:1], HEADERS, ()))
    transform = Transform(
        body=body, headers=headers, content_type=MADE_TYPE if body and chance.random() < 0.5 else None
    )
    return dataclasses.replace(row, transform=transform)


def _counting(row: DestinationRow, chance: Random) -> DestinationRow:
    """Have half of those that have no circuit count, so that what is told of their tries can be reckoned exactly."""
    if row.policy.circuit_breaker is not None or chance.random() < 0.5:
        return row
    return dataclasses.replace(row, policy=dataclasses.replace(row.policy, circuit_breaker=COUNTING))


def _batching(row: DestinationRow, chance: Random) -> DestinationRow:
    """Have one destination in five want its deliveries together."""
    if chance.random() >= 0.2:
        return row
    most = chance.choice((2, 3, 10, 10))
    batch = Batch(
        max_events=most,
        max_bytes=chance.choice((1_048_576, 1_048_576, 6000, 1024)),
        interval=timedelta(seconds=chance.choice((0.1, 1.0, 1.0, 5.0, 20.0))),
    )
    limit = row.rate_limit
    if limit is not None and chance.random() < 0.5:  # else no request has more than a burst, which is small
        limit = dataclasses.replace(limit, burst=most)
    return dataclasses.replace(row, batch=batch, max_in_flight=max(row.max_in_flight, most), rate_limit=limit)


def _login(chance: Random) -> Login | None:
    """Have one destination in eight want access tokens."""
    if chance.random() >= 0.125:
        return None
    weights = (("ok", 3.0), ("500", 1.0), ("403", 0.5), ("refuse", 0.5), ("garbage", 0.5), ("slow", 1.0), ("hang", 0.5))
    return Login(
        weights=chance.choice(((("ok", 1.0),), weights, weights)),
        recovers=chance.choice((10.0, 40.0, HOUR)),
        lifetime=chance.choice((4, 30, 3600)),
        rotates=chance.choice((None, 7.0, 1000.0)),
        authentication=chance.choice(("Basic", "Post")),
    )


def _oauth2(row: DestinationRow, login: Login) -> OAuth2:
    """Ask a server of its own."""
    url = row.url.replace("127.0.0.", "127.0.1.").replace("/hooks", "/token")
    (identity, _), (secret, _) = CLIENT
    return OAuth2(
        token_url=url, client_id_name=identity, client_secret_name=secret, authentication=login.authentication
    )


def _blocking(row: DestinationRow) -> DestinationRow:
    """Have a destination's lines stand behind what was given up, for people who ask for that again."""
    return dataclasses.replace(row, ordering=Ordering(key=ORDER, on_exhausted="Block"))


def _rests(row: DestinationRow, chance: Random, span: float) -> list[Rest]:
    """Have one destination in eight suspended for a while, from before or in the middle of what comes for it."""
    if chance.random() >= 0.125:
        return []
    begin = chance.uniform(0.5, span)
    return [Rest(destination=row.id, begin=begin, end=begin + chance.uniform(6, 12))]


def _conduct(row: DestinationRow, chance: Random) -> Conduct:
    recovers = chance.choice((30.0, 120.0, HOUR, 10 * HOUR))
    latency = chance.choice((0.001, 0.02, 0.5))
    match chance.randrange(9):
        case 0 | 1:
            return Conduct(weights=(("ok", 1.0),), latency=latency)
        case 2:
            weights = (("ok", 4.0), ("503", 1.0), ("reset", 1.0), ("lie", 0.5), ("garbage", 0.5), ("short", 0.5))
            return Conduct(weights=weights, latency=latency)
        case 3:
            return Conduct(weights=(("503", 3.0), ("refuse", 2.0), ("reset", 1.0)), recovers=recovers, latency=latency)
        case 4:
            return Conduct(weights=(("hang", 2.0), ("unreachable", 1.0), ("503", 1.0)), recovers=recovers)
        case 5:
            retry_after = chance.choice((7, 90, 9000))
            weights = (("ok", 1.0), ("429", 2.0))
            return Conduct(weights=weights, recovers=recovers, latency=latency, retry_after=retry_after)
        case 6:
            return Conduct(weights=(("ok", 1.0), ("404", 0.5), ("500", 1.0)), latency=latency)
        case 7:
            return Conduct(weights=(("ok", 3.0), ("410", 1.0)), latency=latency)
        case _:
            # Nearly as long as a try may take: longer than a lease, where that is longer than a lease.
            return Conduct(weights=(("slow", 1.0), ("ok", 1.0)), latency=latency)


def _arrivals(chance: Random, endpoints: Sequence[EndpointRow], span: float) -> list[Arrival]:
    made = []
    bursts = [chance.uniform(0.5, span) for _ in range(chance.randint(1, 4))]
    for number in range(chance.randint(5, 16)):
        endpoint = chance.randrange(len(endpoints))
        at = chance.choice(bursts) + chance.expovariate(20) if chance.random() < 0.6 else chance.uniform(0.5, span)
        body = _body(number, chance.choice((0, 10, 5000)))
        again = tuple(chance.uniform(0.01, 6) for _ in range(chance.choice((0, 0, 1, 2))))
        made.append(Arrival(at=at, endpoint=endpoint, key=f"k{number}", body=body, again=again))
    return sorted(made, key=lambda arrival: arrival.at)


def _body(number: int, filling: int) -> bytes:
    """Return what is sent: two in five are of one customer, and one in eight has nothing that a filter could go by."""
    customer = {} if number % 5 == 4 else {"customer": "ab"[number % 5 // 2]}
    wanted = "perhaps" if number % 8 == 5 else number % 3 != 1
    return json.dumps({"number": number, "wanted": wanted, **customer, "filling": "x" * filling}).encode()


def _blows(chance: Random, counts: dict[str, int], span: float) -> list[Blow]:
    made = []
    for _ in range(chance.choice((0, 1, 2, 4, 6))):
        component = chance.choice(("receiver", "deliverer", "deliverer", "attestor"))
        steps = 0 if chance.random() < 0.2 else chance.choice((1, chance.randint(1, 40), chance.randint(1, 150)))
        made.append(
            Blow(
                at=chance.uniform(1, span + 4),
                component=component,
                number=chance.randrange(counts[component]),
                steps=steps,
                back=chance.choice((0.1, 1.0, 5.0)),
            )
        )
    return sorted(made, key=lambda blow: blow.at)


def _windows(chance: Random, span: float) -> list[Window]:
    made = []
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        begin = chance.uniform(1, span)
        component = chance.choice((None, None, "receiver", "deliverer", "attestor"))
        kind = chance.randrange(6)
        if kind == 0:  # it is away
            made.append(Window(begin=begin, end=begin + chance.uniform(0.5, 8), kinds=("refused",), chance=1.0))
        elif kind == 1:  # the disk is full, or something like it
            sqlstate = chance.choice(SQLSTATES)
            end = begin + chance.uniform(0.5, 8)
            made.append(
                Window(begin=begin, end=end, kinds=("error",), chance=chance.uniform(0.3, 1), sqlstate=sqlstate)
            )
        elif kind == 2:  # it hangs
            end = begin + chance.uniform(1, 6)
            seconds = chance.choice((1.0, 6.0, 20.0))
            made.append(
                Window(begin=begin, end=end, kinds=("delay",), chance=0.3, seconds=seconds, component=component)
            )
        else:  # connections break, at whichever moment
            kinds = chance.choice((("before",), ("after",), ("after", "torn"), ("before", "after", "torn", "error")))
            end = begin + chance.uniform(1, 8)
            made.append(
                Window(
                    begin=begin,
                    end=end,
                    kinds=kinds,
                    chance=chance.uniform(0.05, 0.4),
                    sqlstate="40001",
                    component=component,
                )
            )
    return made


def _unanswered(chance: Random, span: float) -> list[Window]:
    """In one world of four, have commits of deliverers fail to be answered, made or not."""
    if chance.random() >= 0.25:
        return []
    begin = chance.uniform(0.5, span)
    return [
        Window(
            begin=begin,
            end=begin + chance.uniform(3, 8),
            kinds=("before", "after"),
            chance=0.5,
            component="deliverer",
            only="COMMIT",
        )
    ]


def _key(identity: UUID, namespace: str, name: str, chance: Random) -> KeyRow:
    return KeyRow(
        id=identity,
        namespace=namespace,
        name=name,
        version=1,
        algorithm="HMAC-SHA256",
        secret=chance.randbytes(32),
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )


def _given_key(identity: UUID, name: str, secret: bytes) -> KeyRow:
    return KeyRow(
        id=identity,
        namespace="shop",
        name=name,
        version=1,
        algorithm="HMAC-SHA256",
        secret=secret,
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )


def _log_key(identity: UUID, chance: Random) -> KeyRow:
    from nacl.signing import SigningKey

    seed = hashlib.sha256(chance.randbytes(32)).digest()
    return KeyRow(
        id=identity,
        namespace="shop",
        name="log",
        version=1,
        algorithm="Ed25519",
        secret=seed,
        public=bytes(SigningKey(seed).verify_key),
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )
