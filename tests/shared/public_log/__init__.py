"""A whole log as the public sees it, over HTTP, in one object: it grows, erases, and cheats as it is told to."""

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nacl.signing import SigningKey

from kapsel_tlog.tree import Tree, append
from kapsel_verifier import tiles
from kapsel_verifier.errors import MalformedTileError
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash
from kapsel_verifier.note import Checkpoint, VerifierKey
from kapsel_verifier.sth import sign_head
from kapsel_verifier.tiles import WIDTH, Tile

START_MS = 1_767_225_601_000  # 2026-01-01 00:00:01 UTC


class PublicLog:
    """A log of attempts of a few endpoints."""

    def __init__(self, origin: str = "log.example.com/shop", *, seed: int = 0, endpoints: int = 3) -> None:
        self.origin = origin
        self.secret = SigningKey(sha256(f"key {seed}".encode()).digest())
        self.key = VerifierKey(origin, bytes(self.secret.verify_key))
        self.leaves: list[bytes] = []
        self.erased: set[int] = set()
        self.note = ""
        self.date_ms = START_MS
        self.key_set = b""
        self.overrides: dict[str, bytes | int | Callable[[], bytes | int]] = {}  # path -> what is answered instead
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.retry_after: str | None = None
        self._random = random.Random(7)
        self._endpoints = [str(uuid.UUID(int=number + 1)) for number in range(endpoints)]
        self._chains: dict[str, tuple[int, bytes | None]] = dict.fromkeys(self._endpoints, (-1, None))
        self._tree = Tree()
        self._tiles: dict[Tile, bytes] = {}
        self.publish()

    def leaf(self, endpoint: str, sequence: int, previous: bytes | None, **changed: object) -> bytes:
        digest = self._random.randbytes
        made = Leaf(
            attempt=1,
            delivery_attempt_id=str(uuid.UUID(bytes=digest(16))),
            delivery_id=str(uuid.UUID(bytes=digest(16))),
            destination="billing",
            endpoint="shop/orders",
            endpoint_id=endpoint,
            endpoint_sequence=sequence,
            endpoint_url="https://billing.example.com/hooks",
            event_id=str(uuid.UUID(bytes=digest(16))),
            outcome="delivered",
            payload_commitment=digest(32),
            payload_hash=digest(32),
            previous_leaf_hash=previous,
            reason="status_200",
            response_digest=digest(32),
            response_status=200,
            salt=digest(32),
            signature_digest=digest(32),
            timestamp=self.date_ms,
        )
        return made._replace(**changed).encode()  # type: ignore[arg-type]

    def grow(self, count: int, *, skip: bool = False, **changed: object) -> None:
        """Add attempts; with `skip` the first of them leaves a number of its endpoint out."""
        made = []
        for number in range(count):
            endpoint = self._endpoints[(len(self.leaves) + number) % len(self._endpoints)]
            last, previous = self._chains[endpoint]
            if skip and not number:
                last, previous = last + 1, bytes(32)
            data = self.leaf(endpoint, last + 1, previous, **changed)
            self._chains[endpoint] = (last + 1, leaf_hash(data))
            made.append(data)
        self.add(made)

    def add(self, made: list[bytes]) -> None:
        """Add leaves as they are."""
        self.leaves += made
        grown = append(self._tree, [leaf_hash(data) for data in made])
        self._tree = grown.tree
        self._tiles |= grown.tiles

    def publish(self, *, root: bytes | None = None, size: int | None = None, after_ms: int = 1000) -> str:
        """Sign a head over all there is, a second later than the one before."""
        self.date_ms += after_ms
        checkpoint = Checkpoint(
            self.origin, self._tree.size if size is None else size, self._tree.root() if root is None else root
        )
        head = sign_head(checkpoint, self.date_ms, self.key, lambda message: self.secret.sign(message).signature)
        self.note = head.checkpoint
        return self.note

    def root(self) -> bytes:
        return self._tree.root()

    def answer(self, path: str) -> bytes | int:
        """Return what a GET of this path is answered with: a body, or a status."""
        self.asked.append(path)
        other = self.overrides.get(path)
        if other is not None:
            return other() if callable(other) else other
        return self.truth(path)

    def truth(self, path: str) -> bytes | int:
        """Return what an honest server answers."""
        if path == "checkpoint":
            return self.note.encode()
        if path == ".well-known/kapsel/keys.json":
            return self.key_set or 404
        try:
            if path.startswith("tile/entries/"):
                number, count = tiles.parse_entries_path(path)
                first = number * WIDTH
                chosen = self.leaves[first : first + count]
                found = [b"" if first + place in self.erased else leaf for place, leaf in enumerate(chosen)]
                return tiles.encode_bundle(found) if len(found) == count else 404
            tile, count = tiles.parse_path(path)
        except MalformedTileError:
            return 404
        hashes = self._tiles.get(tile, b"")[: count * HASH_SIZE]
        return hashes if len(hashes) == count * HASH_SIZE else 404


@contextmanager
def serving(log: PublicLog) -> Iterator[str]:
    """Serve a log on a port of its own, in threads, so that whoever audits may be in this process or another."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            log.tokens.append(self.headers["Authorization"])
            said = log.answer(self.path.lstrip("/"))
            body = b"" if isinstance(said, int) else said
            self.send_response(said if isinstance(said, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            if said == 429 and log.retry_after is not None:
                self.send_header("Retry-After", log.retry_after)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of an auditor that hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
