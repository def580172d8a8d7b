"""Waits between tries to reach something that is away: they double, and are spread so that many do not come at once."""

import random
from collections.abc import Iterator


def delays(initial: float, maximum: float, rng: random.Random) -> Iterator[float]:
    """Yield seconds to wait, for ever: doubling from `initial` to `maximum`, each drawn from its upper half."""
    ceiling = min(initial, maximum)
    while True:
        yield rng.uniform(ceiling / 2, ceiling)
        ceiling = min(ceiling * 2, maximum)


def reconnecting() -> Iterator[float]:
    """Yield the waits of a loop whose database is away: from 50 ms to 2 s."""
    yield from delays(0.05, 2.0, random.Random())  # noqa: S311 - jitter, not a secret


def patient() -> Iterator[float]:
    """Yield the waits of a loop that asks somebody else's server, or waits for a person: from half a second to 5 s."""
    yield from delays(0.5, 5.0, random.Random())  # noqa: S311 - jitter, not a secret
