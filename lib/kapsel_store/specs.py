"""The JSON in which configuration rows are stored: one reader and writer for each of them.

Used by whoever in the store reads a `spec` or a `policy`. Pydantic takes milliseconds to make one, which each process
that imports it pays before its first webhook, so there is one of each.
"""

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
