"""The other side of the demonstration: a service that fails twice for each delivery before it takes it.

Called by `demo`, and run as a process by `kapsel run destination`. It listens where examples/quickstart sends to. What
it takes it acknowledges, if that is wanted, with a key that it makes when it starts and publishes.
"""

import base64
import hashlib
import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from nacl.signing import SigningKey

from kapsel_cli.arguments import Parser
from kapsel_verifier import strict, structured_fields
from kapsel_verifier.acknowledgement import COMPONENTS, TAG, Exchange, digest_field, signature_base
from kapsel_verifier.errors import AcknowledgementError

DIRECTORY: Final = "/.well-known/http-message-signatures-directory"
HOST: Final = "127.0.0.1"
PORT: Final = 9900
FAILURES: Final = 2


@contextmanager
def destination() -> Iterator[int]:
    """Serve until the block ends, and yield the port: the expected one, or a free one if somebody else has it."""
    handler = _handler(Counter(), SigningKey.generate())
    try:
        server = ThreadingHTTPServer((HOST, PORT), handler)
    except OSError:
        server = ThreadingHTTPServer((HOST, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def acknowledgement(
    key: SigningKey, webhook_id: str, payload: bytes, status: int, answer: bytes, now: float
) -> Mapping[str, str]:
    """Return the headers of an answer that say, signed, what was received and answered."""
    exchange = Exchange(
        status=status,
        response_digest=hashlib.sha256(answer).digest(),
        webhook_id=webhook_id,
        payload_hash=hashlib.sha256(payload).digest(),
        timestamp=int(now * 1000),
    )
    text = f'({" ".join(COMPONENTS)});created={int(now)};keyid="{key_id(key)}";tag="{TAG}"'
    parameters = structured_fields.inner_list(text, "the parameters", AcknowledgementError)
    signature = key.sign(signature_base(exchange, parameters)).signature
    return {
        "content-digest": digest_field(exchange.response_digest),
        "signature-input": f"demo={text}",
        "signature": f"demo=:{strict.to_base64(signature)}:",
    }


def key_id(key: SigningKey) -> str:
    """Return what signatures call the key: another name after each start, so that nobody takes the old one for it."""
    return bytes(key.verify_key).hex()[:16]


def directory(key: SigningKey) -> bytes:
    """Return the key as it is published, a JSON Web Key Set."""
    x = base64.urlsafe_b64encode(bytes(key.verify_key)).decode().rstrip("=")
    return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": key_id(key), "x": x}]}).encode()


def _handler(tries: Counter[tuple[str, str]], key: SigningKey) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers 500 to the first tries of each webhook on each path."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            payload = self.rfile.read(int(self.headers.get("content-length", "0")))
            webhook = (self.path, self.headers.get("webhook-id", ""))
            tries[webhook] += 1
            status, answer = (500, b"not today") if tries[webhook] <= FAILURES else (200, b"thank you")
            wanted = self.headers.get("content-digest") == digest_field(hashlib.sha256(payload).digest())
            signed = acknowledgement(key, webhook[1], payload, status, answer, time.time()) if wanted else {}
            self._answer(status, answer, signed)

        def do_GET(self) -> None:
            if self.path == DIRECTORY:
                self._answer(200, directory(key), {"content-type": "application/jwk-set+json"})
            else:
                self._answer(404, b"not here", {})

        def _answer(self, status: int, answer: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server declares it
            """Say nothing: the demonstration shows every try itself."""

    return Handler


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = Parser(prog="kapsel run destination", description=__doc__, allow_abbrev=False)
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        handler = _handler(Counter(), SigningKey.generate())
        server = ThreadingHTTPServer((arguments.host, arguments.port), handler)
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"kapsel-destination: cannot listen on {arguments.host}:{arguments.port}: {error}\n")
        return 1
    # The first process of a container dies of no signal that it does not handle.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
