"""The other side of the demonstration: a service that fails twice for each delivery before it takes it.

Called by `demo`. It listens where examples/quickstart sends to.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

HOST: Final = "127.0.0.1"
PORT: Final = 9900
FAILURES: Final = 2


@contextmanager
def destination() -> Iterator[int]:
    """Serve until the block ends, and yield the port: the expected one, or a free one if somebody else has it."""
    handler = _handler(Counter())
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


def _handler(tries: Counter[tuple[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers 500 to the first tries of each webhook on each path."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            webhook = (self.path, self.headers.get("webhook-id", ""))
            tries[webhook] += 1
            status, answer = (500, b"not today") if tries[webhook] <= FAILURES else (200, b"thank you")
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server declares it
            """Say nothing: the demonstration shows every try itself."""

    return Handler
