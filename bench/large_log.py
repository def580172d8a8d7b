"""Measures a log of many leaves: proofs, heads and appending, beside the same of a log that has just begun.

Ten million attempts would take an hour to make by delivering. What a proof and a head read are tiles and, for an
attempt, its leaf; so the tiles are made of ten million leaf hashes, by the code that makes them always, the table of
leaves gets its ten million rows, as those of erased leaves are, and on top come real attempts with real leaves.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from log import BATCH, fill, prepare

from kapsel_attestor import publisher
from kapsel_attestor.fence import FileFence
from kapsel_attestor.sequencer import Sequencer
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.seeds import SeedBackend
from kapsel_attestor.signers.signer import Signer
from kapsel_runtime import process
from kapsel_store import database, tlog
from kapsel_tlog import prover, tiles, tree
from kapsel_verifier.note import VerifierKey
from kapsel_verifier.tiles import TILE_BYTES

SCHEMA = "bench_large_log"
ORIGIN = "bench.kapsel.local/large"
CHUNK = 1 << 18  # leaf hashes that are appended at once while the log is made
SAMPLES = 2_000  # proofs of each kind
HEADS = 200
ATTEMPTS = 20_000

LEAVES = (
    "INSERT INTO leaves (log_id, leaf_index, attempt_id) SELECT $1, n, uuidv7() FROM generate_series($2::bigint, $3) n"
)
BYTES = """
SELECT pg_total_relation_size('leaves') AS leaves, pg_total_relation_size('tiles') AS tiles
"""


async def measure(url: str, directory: Path, size: int, *, quick: bool) -> dict[str, Any]:
    """Return the figures of a log of `size` leaves and of one that has just begun."""
    await prepare(url, SCHEMA)
    async with database.connect(url, role=None, schema=SCHEMA, size=3, component="attestor") as pool:
        found = {}
        for leaves in (0, size):
            origin = f"{ORIGIN}/{leaves}"
            async with pool.acquire() as connection:
                began = time.perf_counter()
                await _make(connection, origin, leaves)
                made = time.perf_counter() - began
                found[f"{leaves:,} leaves"] = await _one(pool, connection, directory, origin, quick) | {
                    "made_in_s": made
                }
        return found


async def _make(connection: database.Connection, origin: str, size: int) -> None:
    """Store a log of `size` leaves that nothing is known of but their hashes."""
    log = await tlog.open_log(connection, origin)
    grown = tree.Tree()
    for first in range(0, size, CHUNK):
        count = min(CHUNK, size - first)
        hashes = [sha256(b"\0" + (first + n).to_bytes(32)).digest() for n in range(count)]
        result = tree.append(grown, hashes)
        grown = result.tree
        rows = [
            (log.id, tile.level, tile.number, held) for tile, held in result.tiles.items() if len(held) == TILE_BYTES
        ]
        await connection.copy_records_to_table("tiles", records=rows, columns=("log_id", "level", "index", "hashes"))
        await connection.execute(LEAVES, log.id, first, first + count - 1, timeout=600)
    unfinished = [(log.id, tile.level, tile.number, grown.edge[tile.level]) for tile in tiles.edge(size)]
    await connection.copy_records_to_table("tiles", records=unfinished, columns=("log_id", "level", "index", "hashes"))
    await connection.execute("UPDATE logs SET tree_size = $2, root = $3 WHERE id = $1", log.id, size, grown.root())
    await connection.execute("VACUUM (ANALYZE) leaves, tiles", timeout=600)
    await connection.execute("CHECKPOINT", timeout=600)


async def _one(
    pool: database.Pool, connection: database.Connection, directory: Path, origin: str, quick: bool
) -> dict[str, Any]:
    attempts, samples, heads = (2_000, 200, 20) if quick else (ATTEMPTS, SAMPLES, HEADS)
    before = await connection.fetchrow(BYTES)
    log = await tlog.open_log(connection, origin)
    sequencer = await Sequencer.open(connection, log, ahead=pool)
    await fill(pool, attempts)
    began = time.perf_counter()
    while await sequencer.integrate(connection, BATCH):
        pass
    appended = attempts / (time.perf_counter() - began)
    after = await connection.fetchrow(BYTES)
    size = sequencer.log.tree_size
    publishing = await _publish(pool, connection, sequencer, FileFence(directory / f"fence-{log.id}", origin), heads)
    rng = random.Random(6962)
    some = [rng.randrange(size) for _ in range(samples)]
    pairs = [sorted(rng.sample(range(1, size + 1), 2)) for _ in range(samples)]
    ids = [row["attempt_id"] for row in await connection.fetch(
        "SELECT attempt_id FROM leaves WHERE log_id = $1 AND leaf IS NOT NULL AND attempt_id IS NOT NULL"
        " ORDER BY random() LIMIT $2", log.id, samples
    )]  # fmt: skip
    await sequencer.close()
    return {
        "leaves_per_s": appended,
        "publish_ms": publishing,
        "inclusion_ms": await _timed(some, lambda index: prover.inclusion(connection, log.id, index, size)),
        "consistency_ms": await _timed(pairs, lambda pair: prover.consistency(connection, log.id, *pair)),
        "proof_of_an_attempt_ms": await _timed(ids, lambda one: prover.proof_for_attempt(connection, one)),
        "bytes_per_leaf": (after["leaves"] - before["leaves"] + after["tiles"] - before["tiles"]) / attempts,
    }


async def _publish(
    pool: database.Pool, connection: database.Connection, sequencer: Sequencer, fence: FileFence, heads: int
) -> dict[str, float]:
    """Publish a head after every ten leaves."""
    backend = SeedBackend(os.urandom(32))
    signer = Signer(
        key=VerifierKey(sequencer.log.origin, backend.public_key()),
        key_id=uuid4(),
        where="the bench's key",
        not_before=datetime.now(UTC),
        not_after=None,
        backend=backend,
        gate=Gate(),
    )
    times = []
    for _ in range(heads):
        await fill(pool, 10)
        await sequencer.integrate(connection, BATCH)
        began = time.perf_counter()
        await publisher.publish(connection, sequencer.log, fence, [signer], lambda: time.time_ns() // 1_000_000)
        times.append(time.perf_counter() - began)
    return quantiles(times)


async def _timed(items: Iterable[Any], work: Callable[[Any], Awaitable[object]]) -> dict[str, float]:
    times = []
    for item in items:
        began = time.perf_counter()
        await work(item)
        times.append(time.perf_counter() - began)
    return quantiles(times)


def quantiles(times: list[float]) -> dict[str, float]:
    """Return p50 and p99 of seconds, in milliseconds."""
    ordered = sorted(times)
    return {name: 1000 * ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}


def run(url: str, directory: Path, size: int, *, quick: bool) -> dict[str, Any]:
    """Make and measure both logs."""
    with process.runner() as runner:
        return runner.run(measure(url, directory, size, quick=quick))
