"""The destination of the smoke test: its own pod, which takes whatever is delivered to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kapsel_cli.errors import CliError


@contextmanager
def listening(address: str, port: int) -> Iterator[tuple[str, list[bytes]]]:
    """Be a destination until the block ends: yield its URL, and what was delivered to it so far."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        """Takes whatever comes."""

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers.get("content-length", "0"))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server declares it
            """Say nothing: the test says what was delivered."""

    try:
        server = ThreadingHTTPServer((address, port), Handler)
    except OSError as error:
        raise CliError(
            f"cannot listen on {address} port {port}: {error.strerror}", "Name this pod's address and a free port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    host = f"[{address}]" if ":" in address else address
    try:
        yield f"http://{host}:{server.server_port}/smoke", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
