"""Deliveries that go to a destination together: who goes with whom, how it is written, what an answer says of each.

The worker groups what may start; the sender writes each delivery as an `Item`, packs items into requests, and reads
the answers. An item is a whole webhook with the headers and the body that it would have alone, so its signature and its
leaf mean the same in a batch and without (docs/adr/0012). Everything here is pure.
"""

import base64
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_deliverer.exchange import BODY_KEPT, Response
from kapsel_deliverer.lane import Leased
from kapsel_store.rows import Batch, Policy

CONTENT_TYPE: Final = "application/json"
FAILURES: Final = "batchItemFailures"  # who answers so names what failed, as functions behind AWS event sources do
IDENTIFIER: Final = "itemIdentifier"


class Item(NamedTuple):
    """One delivery as it stands in a batch."""

    event_id: str
    text: bytes  # JSON
    signature_digest: bytes


def together(leased: Iterable[Leased], batch: Batch, policy: Policy) -> Iterator[list[Leased]]:
    """Yield who goes in one request.

    What failed may have failed because of another one. So each try of a delivery is made in half the company of the
    one before, and its last one alone. An event that is delivered again is in no request twice: an answer names events.
    """
    groups: dict[tuple[int, int], list[Leased]] = {}
    times = Counter[UUID]()
    for each in leased:
        event_id, most = each.delivery.event_id, _most(each.delivery.number, batch, policy)
        place = most, times[event_id]
        times[event_id] += 1
        group = groups.setdefault(place, [])
        group.append(each)
        if len(group) == most:
            yield groups.pop(place)
    yield from groups.values()


def _most(number: int, batch: Batch, policy: Policy) -> int:
    """Return how many deliveries may be in a request that makes try `number` (from 1) of one of them."""
    return 1 if 1 < number >= policy.max_attempts else max(1, batch.max_events >> (number - 1))


def item(event_id: str, headers: Mapping[str, str], body: bytes, signature_digest: bytes) -> Item:
    """Write one delivery: its body as text if it is UTF-8, else in base64."""
    said: dict[str, object] = {"headers": {name: _text(value) for name, value in headers.items()}}
    try:
        said["body"] = body.decode()
    except UnicodeDecodeError:
        said["body_base64"] = base64.b64encode(body).decode()
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    return Item(event_id, text.encode(), signature_digest)


def _text(value: str) -> str:
    """Return the value of a header as JSON can have it: any byte may stand in one, and those of UTF-8 are text."""
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def packed(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Yield the items of each request: as many as `most` bytes can hold, and one at least."""
    request: list[Item] = []
    size = 1  # its brackets, and a comma after each item but the last
    for each in items:
        if request and size + len(each.text) + 1 > most:
            yield request
            request, size = [], 1
        request.append(each)
        size += len(each.text) + 1
    if request:
        yield request


def body(items: Iterable[Item]) -> bytes:
    """Return the body of a request: a JSON list."""
    return b"[" + b",".join([each.text for each in items]) + b"]"


def failed(response: Response, sent: Collection[str]) -> set[str] | None:
    """Return which events of a batch an answer of success says have failed; None if that cannot be told.

    An answer says nothing of that unless it is a JSON object with the member batchItemFailures.
    """
    if response.body and any(value.lower() != "identity" for value in response.values("content-encoding")):
        return None  # nobody asked for that, and what it says is not to be seen
    is_cut = not response.whole or response.size > BODY_KEPT  # without what was a secret it may be shorter
    if FAILURES.encode() not in response.body:
        return None if is_cut and response.body.lstrip().startswith(b"{") else set()
    try:
        said = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    # Functions in languages where an empty list may be null say so, and mean that nothing failed.
    if not isinstance(said, dict) or said.get(FAILURES) is None:
        return set()
    listed = said[FAILURES]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        return None
    names = [one.get(IDENTIFIER) for one in listed]
    return set(names) if all(isinstance(name, str) and name in sent for name in names) else None
