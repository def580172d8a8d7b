"""The JSON in which configuration rows are stored: one reader and writer for each of them.

Used by whoever in the store reads a `spec` or a `policy`. Pydantic takes milliseconds to make one, which each process
that imports it pays before its first webhook, so there is one of each.
"""

from dataclasses import replace
from typing import Annotated, Final

from pydantic import Discriminator, TypeAdapter

from kapsel_store.key_backends import KeyBackend
from kapsel_store.rows import DestinationRow, EndpointRow, LogRow, Policy, RelayRow

ENDPOINT: Final = TypeAdapter(EndpointRow)
DESTINATION: Final = TypeAdapter(DestinationRow)
POLICY: Final = TypeAdapter(Policy)
RELAY: Final = TypeAdapter(RelayRow)
LOG: Final = TypeAdapter(LogRow)
BACKEND: Final[TypeAdapter[KeyBackend]] = TypeAdapter(Annotated[KeyBackend, Discriminator("kind")])


def destination(spec: str, policy: str | None) -> DestinationRow:
    """Return a destination with its policy, which has a row of its own; None: that is gone, as of a removed one."""
    row = DESTINATION.validate_json(spec)
    return row if policy is None else replace(row, policy=POLICY.validate_json(policy))
