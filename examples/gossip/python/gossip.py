"""Holds a kapsel log to its word: what a destination does with the header `kapsel-checkpoint`.

`check` is all of it: it keeps the last checkpoint, has the log prove that each other one belongs to the same history,
and raises ForkError if it cannot be so. Everything below it is a destination to try it with:

    pip install .    # in a checkout of kapsel: the verifier
    python gossip.py VKEY CONSOLE_URL FILE [PORT]
"""

import base64
import json
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlencode

from kapsel_verifier.errors import ConsistencyError, VerificationError
from kapsel_verifier.merkle import verify_consistency
from kapsel_verifier.note import Checkpoint, Note, VerifierKey


class ForkError(Exception):
    """Two signed heads, and the log has not shown that they are of one history: keep both."""


def opened(note: bytes, key: VerifierKey) -> Checkpoint:
    """Return what the note says; raise VerificationError unless this key has signed it for its own log."""
    parsed = Note.parse(note)
    parsed.verify([key])
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != key.name:
        raise VerificationError(f"it is a checkpoint of {checkpoint.origin}")
    return checkpoint


def check(header: str, key: VerifierKey, console: str, kept: Path) -> None:
    """Compare the checkpoint of a delivery with the last one that was kept, and keep the larger."""
    note = base64.b64decode(header, validate=True)
    new = opened(note, key)
    if kept.exists():
        old = opened(kept.read_bytes(), key)
        first, second = sorted((old, new), key=lambda head: head.tree_size)
        proof: list[bytes] = []
        if 0 < first.tree_size < second.tree_size:
            sizes = {"old_size": first.tree_size, "new_size": second.tree_size, "origin": key.name}
            url = f"{console}/api/v1/attestation/consistency-proof?{urlencode(sizes)}"
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a URL of yours
                proof = [bytes.fromhex(node) for node in json.load(answer)["proof"]]
        try:
            verify_consistency(first.tree_size, second.tree_size, proof, first.root_hash, second.root_hash)
        except ConsistencyError as error:
            raise ForkError(f"{kept.read_text()}\n{note.decode()}") from error
        if new.tree_size <= old.tree_size:
            return
    beside = kept.with_name(kept.name + ".new")
    beside.write_bytes(note)
    beside.replace(kept)  # a crash leaves the old one or the new one


def say(text: str) -> None:
    """Shout, here into the terminal; in earnest to whoever is on call."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Destination(BaseHTTPRequestHandler):
    """Takes webhooks; the server has what `check` needs."""

    def do_POST(self) -> None:
        """Take a webhook, whatever its checkpoint says: the one has nothing to do with the other."""
        self.rfile.read(int(self.headers.get("content-length", "0")))
        header = self.headers.get("kapsel-checkpoint")
        if header is not None:  # absent before the log has its first head
            key, console, kept = self.server.gossip  # type: ignore[attr-defined]
            try:
                check(header, key, console, kept)
                say(f"ok {opened(base64.b64decode(header), key).tree_size}")
            except ForkError as error:
                say(f"FORK {json.dumps(str(error))}")
            except (OSError, ValueError, KeyError, VerificationError) as error:
                say(f"NOT PROVEN {error}")  # the console is away, or it has no proof: ask again next time
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[4]) if len(sys.argv) > 4 else 0), Destination)
    server.gossip = (VerifierKey.parse(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))  # type: ignore[attr-defined]
    say(f"listening on {server.server_port}")
    server.serve_forever()
