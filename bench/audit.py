"""How long `kapsel audit` takes for a large log: `python bench/audit.py [--leaves 1000000] [--directory DIR]`.

Makes a log of attempts of forty endpoints as the files that its read API serves (about 1.1 GB for a million leaves),
serves them over HTTP from another process, and runs the command as an auditor does: from the first leaf, then once more
over a log that has not grown.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from hashlib import sha256
from pathlib import Path

from aiohttp import web
from nacl.signing import SigningKey

from kapsel_tlog.tree import Tree, append
from kapsel_verifier import tiles
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash
from kapsel_verifier.note import Checkpoint, VerifierKey
from kapsel_verifier.sth import sign_head
from kapsel_verifier.tiles import WIDTH

ORIGIN = "bench.example.com/log"
ENDPOINTS = 40
SECRET = SigningKey(sha256(b"bench").digest())
KEY = VerifierKey(ORIGIN, bytes(SECRET.verify_key))


def make(directory: Path, count: int) -> int:
    """Write a log of so many leaves and return the bytes of its bundles."""
    rng, written, tree = random.Random(1), 0, Tree()
    endpoints = [str(uuid.UUID(int=number + 1)) for number in range(ENDPOINTS)]
    chains: dict[str, tuple[int, bytes | None]] = dict.fromkeys(endpoints, (-1, None))
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, count, WIDTH):
        bundle = [
            _leaf(rng, endpoints[index % ENDPOINTS], chains, now_ms)
            for index in range(first, min(first + WIDTH, count))
        ]
        packed = tiles.encode_bundle(bundle)
        written += len(packed)
        _write(directory / tiles.entries_path(first // WIDTH, len(bundle)), packed)
        grown = append(tree, [leaf_hash(data) for data in bundle])
        for tile, hashes in grown.tiles.items():
            if len(hashes) == tiles.TILE_BYTES or first + WIDTH >= count:
                _write(directory / tiles.path(tile, len(hashes) // HASH_SIZE), hashes)
        tree = grown.tree
    for level, row in enumerate(tree.edge):
        if row:
            _write(
                directory / tiles.path(tiles.Tile(level, tree.size >> (8 * (level + 1))), len(row) // HASH_SIZE), row
            )
    head = sign_head(
        Checkpoint(ORIGIN, tree.size, tree.root()), now_ms + 1000, KEY, lambda text: SECRET.sign(text).signature
    )
    _write(directory / "checkpoint", head.checkpoint.encode())
    return written


def _leaf(rng: random.Random, endpoint: str, chains: dict[str, tuple[int, bytes | None]], now_ms: int) -> bytes:
    last, previous = chains[endpoint]
    ids, some = [str(uuid.UUID(bytes=rng.randbytes(16))) for _ in range(3)], rng.randbytes(160)
    data = Leaf(
        attempt=1,
        delivery_attempt_id=ids[0],
        delivery_id=ids[1],
        destination="billing",
        endpoint="shop/orders",
        endpoint_id=endpoint,
        endpoint_sequence=last + 1,
        endpoint_url="https://billing.example.com/hooks",
        event_id=ids[2],
        outcome="delivered",
        payload_commitment=some[:32],
        payload_hash=some[32:64],
        previous_leaf_hash=previous,
        reason="status_200",
        response_digest=some[64:96],
        response_status=200,
        salt=some[96:128],
        signature_digest=some[128:],
        timestamp=now_ms,
    ).encode()
    chains[endpoint] = (last + 1, leaf_hash(data))
    return data


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


async def serve(directory: Path) -> None:
    """Serve the files of a directory, and say on which port."""
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        path = directory / request.match_info["path"]
        return web.Response(body=path.read_bytes()) if path.is_file() else web.Response(status=404)

    app.router.add_get("/{path:.+}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def audit(url: str, state: Path) -> dict[str, object]:
    """Run the command once and return what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "kapsel_cli", "audit", url, "--public-key", KEY.encode(), "--json"]
    command += ["--state", str(state), "--max-age", "86400"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout)
    assert done.returncode == 0, (found["findings"], done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    leaves = found["leaves_read"]
    return {
        "seconds": round(took, 2),
        "cpu_seconds": round(cpu, 2),
        "leaves_read": leaves,
        "rss_mib": after.ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=1_000_000)
    parser.add_argument(
        "--directory", type=Path, help="where the log is made, or lies already (default: a temporary one)"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return
    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.directory or Path(scratch) / "log"
        if not (directory / "checkpoint").exists():
            begun = time.perf_counter()
            size = make(directory, arguments.leaves)
            print(
                f"made {arguments.leaves} leaves, {size / 1e6:.0f} MB, in {time.perf_counter() - begun:.0f} s",
                flush=True,
            )
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(directory)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            state = Path(scratch) / "audit.json"
            load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
            print(json.dumps({"audit": "from the first leaf", "load": load, **audit(url, state)}))
            print(json.dumps({"audit": "nothing new", **audit(url, state)}))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
