"""How a request reaches a console: over plain HTTP here; the kubectl plugin has a way of its own.

Called by the client, which knows what the answers mean. The standard library's client is enough for one small request
after the other, and a command that has to import no more answers sooner.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from kapsel_cli.arguments import PROGRAM
from kapsel_cli.errors import CliError, UnreachableError

TIMEOUT: Final = 15.0  # seconds; the console itself gives up after 10
MOST_BYTES: Final = 67_108_864


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the console said."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """Return the content; raise UnreachableError if it is not JSON, so that no console can have said it."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise UnreachableError(
                "what answers there is not a kapsel console", "Check --server: it is the console's URL"
            ) from error


class Transport(Protocol):
    """A way to one console."""

    @property
    def program(self) -> str:
        """Return what a person types before a command."""

    @property
    def server(self) -> str:
        """Return what a person calls the console."""

    @property
    def next_steps(self) -> Mapping[str, str]:
        """Return what to do about a problem of the console, by its code, where this way has its own advice."""

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Return the answer, whatever its status; raise UnreachableError if there is none."""

    def foreign(self, answer: Answer) -> CliError:
        """Return what to say of a refusal that no console has written."""


class HttpTransport:
    """A console at a URL, with a token if it wants one."""

    program = PROGRAM
    next_steps: Final[Mapping[str, str]] = {
        "token_required": "Give the file that holds it with --token-file or KAPSEL_TOKEN_FILE",
        "token_wrong": "Look at the file of --token-file or KAPSEL_TOKEN_FILE",
    }

    def __init__(self, server: str, hint: str, token: str | None = None) -> None:
        try:
            parts = urlsplit(server)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
            raise CliError(f"{server!r} is not the URL of a console", "Write it like http://127.0.0.1:8081")
        self.server = server.rstrip("/")
        self._hint = hint  # what to do if nothing answers
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Accept": "application/json", "User-Agent": "kapsel"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Return the answer, whatever its status; raise UnreachableError if there is none."""
        sent = {**self._headers, **(headers or {})}
        try:
            try:
                return self._once(method, self._prefix + target, sent, body)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A kept connection that was closed meanwhile, also when the console was restarted: once more on a new
                # one. What changes something is sent once: whether it arrived cannot be known if the answer is lost.
                if method != "GET":
                    raise
                return self._once(method, self._prefix + target, sent, body)
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from error

    def foreign(self, answer: Answer) -> CliError:
        """Return what to say of a refusal that no console has written."""
        return UnreachableError(
            f"{self.server} answered with HTTP status {answer.status}, and not as a kapsel console does",
            "Check --server: it is the console's URL, on the port after the one that takes webhooks",
        )

    def _once(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        try:
            self._connection.request(method, target, body=body, headers=dict(headers))
            response = self._connection.getresponse()
            content = response.read(MOST_BYTES + 1)
        except BaseException:
            self._connection.close()
            raise
        if len(content) > MOST_BYTES:
            self._connection.close()
            raise UnreachableError(f"{self.server} sends more than any console does", "Check --server")
        received = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=received, body=content)

    def _unreachable(self, error: Exception) -> UnreachableError:
        reason = "it did not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        return UnreachableError(f"cannot reach {self.server}: {reason}", self._hint)
