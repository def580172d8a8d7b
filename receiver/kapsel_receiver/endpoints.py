"""The endpoints as the hot path wants them: one dictionary from URL path to endpoint, its live keys at hand.

`configuration.Source` calls `Index.replace` with each generation; `app` asks `at` for every request. An ingest URL that
is switched off is not in the dictionary, so it is answered exactly as one that never was.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from kapsel_receiver.limits import TokenBucket, Tokens
from kapsel_receiver.ordering import Lines
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, KeyRow, RateLimit

PREFIX: Final = "/ingest/"
# Of handshakes that anybody may ask for; a provider asks once an hour, or again and again while somebody tries.
HANDSHAKES: Final = RateLimit(requests_per_second=5.0, burst=20)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class Endpoint:
    """One endpoint with what a request to it needs."""

    __slots__ = (
        "_keys",
        "_live",
        "_since",
        "_tokens",
        "_until",
        "destinations",
        "handshakes",
        "label",
        "lines",
        "rate",
        "row",
    )

    def __init__(
        self,
        row: EndpointRow,
        destinations: Sequence[DestinationRow],
        keys: Sequence[KeyRow],
        rate: Tokens | None,
        *,
        tokens: Sequence[KeyRow] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.row = row
        self.label = f"{row.namespace}/{row.name}"
        # Id, and how long a delivery to it may be tried. A suspended one is included: its deliveries wait.
        self.destinations = tuple((destination.id, destination.policy.max_age) for destination in destinations)
        self.lines = Lines(row, destinations)
        self.rate = rate
        self.handshakes = TokenBucket(HANDSHAKES, clock())
        self._keys = tuple(keys)
        self._tokens = tuple(tokens)
        self._live: tuple[KeyRow, ...] = ()
        self._since = self._until = _LAST

    def live_keys(self, now: datetime) -> tuple[KeyRow, ...]:
        """Return the keys whose interval holds now; computed anew only when an interval began or ended since."""
        if not self._since <= now < self._until:
            self._live = tuple(key for key in self._keys if _from(key) <= now < _to(key))
            edges = [edge for key in self._keys for edge in (_from(key), _to(key))]
            # Both sides are bounded, so that a clock that is set back also finds the keys of its time.
            self._since = max((edge for edge in edges if edge <= now), default=_FIRST)
            self._until = min((edge for edge in edges if edge > now), default=_LAST)
        return self._live

    def live_tokens(self, now: datetime) -> tuple[KeyRow, ...]:
        """Return what the provider may say in a handshake; so rare that nothing is remembered."""
        return tuple(key for key in self._tokens if _from(key) <= now < _to(key))


def _from(key: KeyRow) -> datetime:
    return key.not_before


def _to(key: KeyRow) -> datetime:
    return _LAST if key.not_after is None else key.not_after


class Index:
    """All endpoints of the newest configuration, by the paths of their ingest URLs."""

    def __init__(self, ask: Callable[[Tokens], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Have tokens drawn by `ask` for endpoints with a rate."""
        self._ask = ask
        self._clock = clock
        self._endpoints: tuple[Endpoint, ...] = ()
        self._by_path: dict[str, Endpoint] = {}
        self.generation = 0
        self.loaded = False

    def at(self, path: str) -> Endpoint | None:
        """Return the endpoint whose ingest URL has this path."""
        return self._by_path.get(path)

    def replace(self, configuration: Configuration) -> None:
        """Serve this configuration from now on; who waits for a token goes on waiting."""
        rates = {endpoint.row.id: endpoint.rate for endpoint in self._endpoints}
        destinations = _by_endpoint(configuration.destinations)
        keys = _by_name(configuration.keys)
        self._endpoints = tuple(
            Endpoint(
                row,
                destinations.get(row.id, ()),
                keys.get((row.namespace, row.verification.key_name), ()),
                self._rate(row, rates.get(row.id)),
                tokens=keys.get((row.namespace, row.verification.token_key_name), ()),
                clock=self._clock,
            )
            for row in configuration.endpoints
        )
        self._by_path = {path: endpoint for endpoint in self._endpoints for path in _paths(endpoint.row)}
        self.generation = configuration.generation
        self.loaded = True

    def _rate(self, row: EndpointRow, previous: Tokens | None) -> Tokens | None:
        if row.rate_limit is None:
            return None
        if previous is None:
            return Tokens(row.id, row.rate_limit, self._ask, self._clock)
        previous.limit = row.rate_limit
        return previous


def _paths(row: EndpointRow) -> list[str]:
    paths = {"Id": f"{PREFIX}{row.id}", "Name": f"{PREFIX}{row.namespace}/{row.name}"}
    return [paths[kind] for kind in row.paths]


def _by_endpoint(rows: Sequence[DestinationRow]) -> dict[UUID, list[DestinationRow]]:
    found: dict[UUID, list[DestinationRow]] = {}
    for row in rows:
        found.setdefault(row.endpoint_id, []).append(row)
    return found


def _by_name(keys: Sequence[KeyRow]) -> dict[tuple[str, str | None], list[KeyRow]]:
    found: dict[tuple[str, str | None], list[KeyRow]] = {}
    for key in keys:
        found.setdefault((key.namespace, key.name), []).append(key)
    return found
