"""Reads one bundle of leaves against its tile: every hash computed anew, every leaf canonical.

Pure, and most of the time that an audit takes: the walk runs it in other processes. What leaves it is small.
"""

import json
from typing import Final, NamedTuple, NoReturn

from kapsel_cli.auditing.chains import Run
from kapsel_verifier import tiles
from kapsel_verifier.errors import InclusionError, MalformedLeafError, TooLargeError
from kapsel_verifier.leaf import Leaf, parse_any
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash
from kapsel_verifier.statements import KeySuccession, LogContinuation, Statement
from kapsel_verifier.tiles import WIDTH

_BYTES: Final = (
    "payload_commitment",
    "payload_hash",
    "previous_leaf_hash",
    "response_digest",
    "salt",
    "signature_digest",
    "acknowledgement_key",
    "acknowledgement_signature",
)


def _no_float(text: str) -> NoReturn:
    raise ValueError(text)


_DECODER: Final = json.JSONDecoder(parse_float=_no_float)  # 1.0 is written as it is read, and is no integer


class Read(NamedTuple):
    """What one bundle holds, from the leaf `skip` on."""

    hashes: bytes  # of the leaves, side by side
    runs: tuple[Run, ...]
    erased: tuple[bytes, ...]  # the hashes of leaves of which nothing else is left
    statements: tuple[tuple[int, bytes], ...]  # index and bytes of leaves in which the log speaks of itself
    newest_ms: int  # the latest date in an attempt's leaf, 0 if there is none


def read(number: int, skip: int, count: int, bundle: bytes, tile: bytes) -> Read:
    """Read a bundle of `count` leaves, of which the first `skip` were read before.

    Raises MalformedTileError, MalformedLeafError, or InclusionError if a leaf has not the hash in the tile.
    """
    stored = tiles.parse_tile(tile, count)
    found = tiles.parse_bundle(bundle, count)
    runs: list[Run] = []
    open_runs: dict[str, int] = {}  # endpoint -> its newest run
    erased: list[bytes] = []
    statements: list[tuple[int, bytes]] = []
    newest_ms = 0
    for place in range(skip, count):
        data, index = found[place], number * WIDTH + place
        if not data:
            erased.append(stored[place])
            continue
        digest = leaf_hash(data)
        if digest != stored[place]:
            raise InclusionError(f"leaf {index} has another hash than the tile says")
        leaf = _leaf(index, data)
        if isinstance(leaf, Leaf):
            newest_ms = max(newest_ms, leaf.timestamp)
            _follow(runs, open_runs, leaf, digest)
        else:
            statements.append((index, data))
    hashes = b"".join(stored[skip:])
    return Read(hashes, tuple(runs), tuple(erased), tuple(statements), newest_ms)


def _follow(runs: list[Run], open_runs: dict[str, int], leaf: Leaf, digest: bytes) -> None:
    place = open_runs.get(leaf.endpoint_id)
    if place is not None:
        run = runs[place]
        if leaf.endpoint_sequence == run.last + 1 and leaf.previous_leaf_hash == run.last_hash:
            runs[place] = run._replace(last=leaf.endpoint_sequence, last_hash=digest)
            return
    open_runs[leaf.endpoint_id] = len(runs)
    sequence = leaf.endpoint_sequence
    runs.append(Run(leaf.endpoint_id, sequence, leaf.previous_leaf_hash, sequence, digest))


def _leaf(index: int, data: bytes) -> Leaf | Statement:
    """Read a leaf as `parse_any` does, and as strictly, in a third of the time where it is the leaf of an attempt.

    What encodes to the same bytes is canonical, however it was read; whatever is not goes the long way, which says why.
    """
    try:
        members = _DECODER.decode(data.decode("ascii"))
        del members["type"], members["v"]
        if "sent_hash" in members:  # of what a transform made: the one member that need not be there
            members["sent_hash"] = bytes.fromhex(members["sent_hash"])
        for name in _BYTES:
            if members[name] is not None:
                members[name] = bytes.fromhex(members[name])
        if members["acknowledgement_base"] is None:
            leaf = Leaf(**members)
            if leaf.encode() == data:
                return leaf
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MalformedLeafError):
        pass
    try:
        return parse_any(data)
    except (MalformedLeafError, TooLargeError) as error:
        raise MalformedLeafError(f"leaf {index}: {error}") from None


def statement(index: int, data: bytes) -> LogContinuation | KeySuccession:
    """Read a statement and check what can be checked of it alone: a succession is signed by both of its keys."""
    found = _leaf(index, data)
    if isinstance(found, Leaf):
        raise MalformedLeafError(f"leaf {index} is no statement")
    if isinstance(found, KeySuccession):
        found.verify()
    return found


def split(hashes: bytes) -> list[bytes]:
    """Return the single hashes of a read bundle."""
    return [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]
