"""Takes webhooks that come together: a destination that declares `batch`, to start from.

`take` is all of it, and needs no more than Python. What is below keeps each webhook as a file, to try it with:

    kapsel secret NAMESPACE/KEY > secret
    python batch.py secret FOLDER [PORT]
"""

import base64
import hmac
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

LARGEST = 32 << 20  # bytes of a request: maxBytes of the destination, or one webhook that is larger by itself


def is_genuine(key: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    """Say whether one of the signatures is good, and its time within five minutes of ours."""
    timestamp = headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > 300:
        return False
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    good = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    offered = headers.get("webhook-signature", "").encode().split(b" ")  # several while a key is rotated
    return any(hmac.compare_digest(each, good) for each in offered)


def opened(item: object) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of one webhook; raise ValueError if it is none."""
    match item:
        case {"headers": {"webhook-id": str()} as headers, "body": str(text)}:
            return headers, text.encode()
        case {"headers": {"webhook-id": str()} as headers, "body_base64": str(text)}:
            return headers, base64.b64decode(text, validate=True)
    raise ValueError("it is no webhook of a batch")


def take(
    key: bytes,
    headers: Mapping[str, str],
    body: bytes,
    seen: Callable[[str], bool],
    handle: Callable[[dict[str, str], bytes], None],
) -> tuple[int, dict[str, object]]:
    """Handle each webhook of a request that was not seen before; return the status and the answer."""
    if not is_genuine(key, headers, body):
        return 401, {"error": "it is not signed with this key, or not just now"}
    try:
        items = json.loads(body)
        webhooks = [opened(item) for item in items] if isinstance(items, list) else []
    except ValueError:
        webhooks = []
    if not webhooks:
        return 400, {"error": "it is no batch"}
    failures = []
    for its_headers, its_body in webhooks:
        event_id = its_headers["webhook-id"]
        try:
            if not seen(event_id):
                handle(its_headers, its_body)
        except Exception as error:  # noqa: BLE001 - whatever it is, this one is sent again, and the others are done
            sys.stderr.write(f"{event_id} failed: {error}\n")
            failures.append({"itemIdentifier": event_id})
    return 200, {"batchItemFailures": failures}


def folder(place: Path) -> tuple[Callable[[str], bool], Callable[[dict[str, str], bytes], None]]:
    """Return `seen` and `handle`, where your own code goes: whatever handle has kept, seen must find afterwards."""

    def file_of(event_id: str) -> Path:
        return place / Path(event_id).name

    def seen(event_id: str) -> bool:
        return file_of(event_id).is_file()

    def handle(headers: dict[str, str], body: bytes) -> None:
        file = file_of(headers["webhook-id"])
        beside = file.with_name(file.name + ".new")
        beside.write_bytes(body)
        beside.replace(file)  # a crash leaves all of it or nothing

    return seen, handle


class Destination(BaseHTTPRequestHandler):
    """Hands requests to `take`; the server has what it needs."""

    timeout = 30

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            return self.answer(413, {"error": "it is too large, or of no length"})
        key, seen, handle = self.server.batch  # type: ignore[attr-defined]
        return self.answer(*take(key, self.headers, self.rfile.read(int(length)), seen, handle))

    def answer(self, status: int, said: dict[str, object]) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: python batch.py SECRET_FILE FOLDER [PORT]")
    secret = Path(sys.argv[1]).read_text().strip()
    if not re.fullmatch("whsec_[A-Za-z0-9+/]{4,}=*", secret):
        sys.exit(f"{sys.argv[1]} holds no whsec_ secret")
    server = HTTPServer(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0), Destination)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    server.batch = (key, *folder(Path(sys.argv[2])))  # type: ignore[attr-defined]
    sys.stdout.write(f"listening on http://127.0.0.1:{server.server_port}/hooks\n")
    sys.stdout.flush()
    server.serve_forever()
