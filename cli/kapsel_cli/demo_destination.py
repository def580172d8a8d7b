"""The other side of the demonstration: a service that fails twice for each delivery before it takes it.

Called by `demo`, and run as a process by `kapsel run destination`. It listens where examples/quickstart sends to.
"""

import argparse
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
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


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="kapsel run destination", description=__doc__, allow_abbrev=False)
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        server = ThreadingHTTPServer((arguments.host, arguments.port), _handler(Counter()))
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
