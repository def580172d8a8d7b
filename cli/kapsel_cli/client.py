"""The console's API over plain HTTP, and how a command finds the console.

Called by every command that asks a running kapsel. The standard library's client is enough for one small request after
the other, and a command that has to import no more answers sooner.
"""

import argparse
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from kapsel_cli.data_dir import Running, read_state
from kapsel_cli.errors import CliError, RefusedError, UnreachableError

DATA_DIR: Final = ".kapsel"
TIMEOUT: Final = 15.0  # seconds; the console itself gives up after 10
MOST_BYTES: Final = 67_108_864
PAGE: Final = 200

_NEXT_STEPS: Final[Mapping[str, str]] = {
    "unknown_endpoint": "List them with `kapsel get endpoints`",
    "unknown_event": "List them with `kapsel get events`",
    "unknown_delivery": "List them with `kapsel get deliveries`",
    "unknown_attempt": "List them with `kapsel get attempts`",
    "unknown_destination": "List them with `kapsel get endpoints -o wide`",
    "delivery_not_final": "Watch it with `kapsel get deliveries --watch`",
    "delivery_not_pending": "Look at it with `kapsel get deliveries ID -o yaml`",
    "leaf_erased": "Nothing can be proven about it any more",
    "storage_unavailable": "Try again in a moment",
    "query_timeout": "Ask for less, for example with --since 15m",
    "log_damaged": "Look at the attestor's log, and do not trust this database",
}


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


class Client:
    """One console."""

    def __init__(self, server: str, hint: str) -> None:
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
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def get(self, path: str, **query: str | int | None) -> Any:
        """Return the JSON at a path; raise RefusedError with the console's own words if it has none for us."""
        return self._good(self.request("GET", path, **query)).json()

    def post(self, path: str) -> Any:
        """Ask for a change and return what became of it."""
        return self._good(self.request("POST", path)).json()

    def items(self, path: str, limit: int | None, **query: str | None) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, at most `limit` (None: all), page after page."""
        cursor: str | None = None
        while limit is None or limit > 0:
            page = self.get(path, limit=PAGE if limit is None else min(limit, PAGE), cursor=cursor, **query)
            yield from page["items"]
            if limit is not None:
                limit -= len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def send(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a webhook, once: whether it arrived cannot be known if the answer is lost."""
        try:
            return self._exchange("POST", self._prefix + path, headers, body)
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from error

    def request(self, method: str, path: str, **query: str | int | None) -> Answer:
        """Return the answer, whatever its status; raise UnreachableError if there is none."""
        given = {name: value for name, value in query.items() if value is not None}
        target = self._prefix + path + (f"?{urlencode(given)}" if given else "")
        try:
            return self._exchange(method, target)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            # A kept connection that was closed meanwhile, also when the console was restarted: once more on a new one.
            if method != "GET":
                raise self._unreachable(error) from error
            return self._again(method, target)
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from error

    def _again(self, method: str, target: str) -> Answer:
        self._connection.close()
        try:
            return self._exchange(method, target)
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from error

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        sent = {"Accept": "application/json", "User-Agent": "kapsel", **(headers or {})}
        try:
            self._connection.request(method, target, body=body, headers=sent)
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

    def _good(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        raise self.refusal(answer)

    def refusal(self, answer: Answer) -> CliError:
        """Return the console's problem as one sentence and a next step."""
        try:
            problem = json.loads(answer.body)
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            return UnreachableError(
                f"{self.server} answered with HTTP status {answer.status}, and not as a kapsel console does",
                "Check --server: it is the console's URL, on the port after the one that takes webhooks",
            )
        step = _NEXT_STEPS.get(code, f"The console at {self.server} lists what it has at /")
        return RefusedError(detail, step, code=code, temporary=answer.status == 503)


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which kapsel is asked."""
    parser.add_argument(
        "--server",
        metavar="URL",
        help="the console to ask (default: that of the `kapsel up` of this folder or one above it)",
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="PATH", help=f"data directory of the `kapsel up` to ask (default: {DATA_DIR})"
    )


def connect(arguments: argparse.Namespace) -> Client:
    """Return the console that the arguments name, or the one that `kapsel up` left word of."""
    if arguments.server is not None:
        return Client(arguments.server, "Check --server, and that the console runs there")
    running = find_running(arguments.data_dir)
    return Client(
        running.console,
        f"`kapsel up` (pid {running.pid}) may be starting or may have died; look at it, or start it again",
    )


def find_running(data_dir: Path | None) -> Running:
    """Return where `kapsel up` can be reached: on this data directory, or on the nearest one from here upwards."""
    return find_data_dir(data_dir, "name the console with --server URL")[1]


def find_data_dir(data_dir: Path | None, otherwise: str) -> tuple[Path, Running]:
    """Return the data directory of the `kapsel up` that is meant; `otherwise` is what else a person may do."""
    here = Path.cwd()
    places = [data_dir] if data_dir is not None else [folder / DATA_DIR for folder in (here, *here.parents)]
    for place in places:
        try:
            running = read_state(place)
        except (OSError, ValueError, TypeError) as error:
            raise CliError(
                f"{place / 'up.json'} cannot be read: {error}",
                f"Run this as the user that runs `kapsel up`, or {otherwise}",
            ) from error
        if running is not None:
            return place, running
    where = str(data_dir) if data_dir is not None else f"{here / DATA_DIR} and no folder above it has one"
    raise UnreachableError(
        f"no kapsel is running here: {where}" if data_dir is None else f"no kapsel is running on {where}",
        f"Start one with `kapsel up DIR`, or {otherwise}",
    )


def endpoint_name(client: Client, text: str) -> str:
    """Return namespace/name of an endpoint; a name alone is enough if it is the only one."""
    if "/" in text:
        return text
    found = [f"{one['namespace']}/{one['name']}" for one in client.items("/api/v1/endpoints", PAGE, name=text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CliError(f"{len(found)} endpoints are called {text}", f"Say which one: {', '.join(found)}")
    raise CliError(f"there is no endpoint called {text}", "List them with `kapsel get endpoints`")


def path(*parts: str) -> str:
    """Return a path of the API with each part quoted."""
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)
