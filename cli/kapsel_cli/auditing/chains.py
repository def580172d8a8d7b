"""Whether every endpoint's records are there: each leaf names its number and the hash of the one before it.

The walk feeds it runs of leaves in the order of the log. An erased leaf says nothing any more, not even of which
endpoint it was; so a gap is forgiven if the leaf after it names an erased leaf as the one before, and only as many
leaves are missing as were erased.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kapsel_cli.auditing.errors import GapError


class Run(NamedTuple):
    """Leaves of one endpoint that follow each other without a gap, in one bundle."""

    endpoint_id: str
    first: int  # the sequence number of the first of them
    previous: bytes | None  # the hash that it names as that of the leaf before
    last: int
    last_hash: bytes


@dataclass(slots=True)
class Chains:
    """The newest record of each endpoint, and the erased leaves that no gap has used up."""

    last: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)
    unclaimed: int = 0

    def erase(self, hashes: Iterable[bytes]) -> None:
        """Take note of leaves of which only the hash is left."""
        for one in hashes:
            self.erased.add(one)
            self.unclaimed += 1

    def take(self, run: Run) -> None:
        """Continue an endpoint's chain; raises GapError, and goes on from here all the same."""
        number, previous = self.last.get(run.endpoint_id, (-1, None))
        self.last[run.endpoint_id] = (run.last, run.last_hash)
        if run.first <= number:
            raise GapError(f"record {run.first} of endpoint {run.endpoint_id} comes after record {number}")
        if run.first == number + 1:
            if run.previous != previous:
                raise GapError(f"record {run.first} of endpoint {run.endpoint_id} does not name the one before it")
        else:
            self._forgive(run, number)

    def _forgive(self, run: Run, number: int) -> None:
        missing = run.first - number - 1
        if run.previous is None or run.previous not in self.erased or missing > self.unclaimed:
            told = f"record {number + 1}" if missing == 1 else f"records {number + 1} to {run.first - 1}"
            raise GapError(f"{told} of endpoint {run.endpoint_id} are not in the log, and were not erased")
        self.erased.discard(run.previous)
        self.unclaimed -= missing
