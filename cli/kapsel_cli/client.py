"""The console's API as commands see it, and how a command finds the console.

Called by every command that asks a running kapsel. How a request gets there is left to `transport`.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from kapsel_cli.arguments import PROGRAM, Reach, worded
from kapsel_cli.data_dir import Running, holder, read_state
from kapsel_cli.errors import CliError, RefusedError, UnreachableError
from kapsel_cli.following import hint
from kapsel_cli.transport import Answer, HttpTransport, Transport

DATA_DIR: Final = ".kapsel"
VARIABLE: Final = "KAPSEL_TOKEN_FILE"
PAGE: Final = 200
START_SECONDS: Final = 30.0  # a first start takes two; on a machine that has much to do, longer
START_LOOK: Final = 0.1

_VERSIONS: Final = "Check that the command and the console are of the same version, and --server if you gave it"
_NEXT_STEPS: Final[Mapping[str, str]] = {
    "parameter_unknown": _VERSIONS,
    "parameter_invalid": "`kapsel get` lists ids, and the --help of each command explains its options",
    "unknown_host": "Name it so with --server",
    "unknown_route": _VERSIONS,
    "unknown_endpoint": "List them with `kapsel get endpoints`",
    "unknown_event": "List them with `kapsel get events`",
    "unknown_delivery": "List them with `kapsel get deliveries`, those of an event with --event ID",
    "unknown_attempt": "List them with `kapsel get attempts`",
    "unknown_destination": "List them with `kapsel get endpoints -o wide`",
    "unknown_replay": "List them with `kapsel get replays -o wide`",
    "not_anchored": "Declare it as docs/anchors.md says, or take the proof without a block",
    "method_not_allowed": _VERSIONS,
    "request_refused": _VERSIONS,
    "delivery_not_final": "Watch it with `kapsel get deliveries --watch`",
    "delivery_not_pending": "Look at it with `kapsel get deliveries ID -o yaml`",
    "destination_removed": "Declare it again, and have it get what it is missing with `kapsel replay --state missing`; "
    "if its endpoint was removed too, have the sender send it again",
    "event_gone": "Have its sender send it again",
    "destination_suspended": "It is tried again as soon as that is applied",
    "replay_invalid": "`kapsel replay --help` explains each option; docs/replay.md what a Replay can select",
    "replay_name_taken": "Give another --name, or see what there is with `kapsel get replays`",
    "replay_declared": "Delete the file of the directory that `kapsel up` watches, or the object in the cluster",
    "replay_ended": "See what became of it with `kapsel get replays`",
    "too_many_replays": "List them with `kapsel get replays`, and stop one with `kapsel replay --cancel ID`",
    "leaf_erased": "Nothing can be proven about it any more",
    "too_many_requests": "Give a token with --token-file or KAPSEL_TOKEN_FILE to be bound by that no more",
    "log_damaged": "Look at the attestor's log, and do not trust this database",
    "internal_error": "Look at the console's log",
    "storage_unavailable": "Try again in a moment",
    "query_timeout": "Ask for less, for example with --since 15m",
}


class Client:
    """One console."""

    def __init__(self, transport: Transport, *, namespace: str | None = None) -> None:
        self._transport = transport
        self.namespace = namespace  # of endpoints that are named without one; None: whichever has that name

    def worded(self, text: str) -> str:
        """Return a text with its commands as the person types them."""
        return worded(text, self._transport.program)

    @property
    def server(self) -> str:
        """Return what a person calls the console."""
        return self._transport.server

    def get(self, path: str, **query: str | int | None) -> Any:
        """Return the JSON at a path; raise RefusedError with the console's own words if it has none for us."""
        return self._good(self.request("GET", path, **query)).json()

    def post(self, path: str, content: object = None) -> Any:
        """Ask for a change and return what became of it."""
        if content is None:
            return self._good(self.request("POST", path)).json()
        headers = {"Content-Type": "application/json"}
        return self._good(self._transport.exchange("POST", path, headers, json.dumps(content).encode())).json()

    def delete(self, path: str) -> Any:
        """Have something stopped and return what became of it."""
        return self._good(self.request("DELETE", path)).json()

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
        return self._transport.exchange("POST", path, headers, body)

    def request(self, method: str, path: str, **query: str | int | None) -> Answer:
        """Return the answer, whatever its status; raise UnreachableError if there is none."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._transport.exchange(method, path + (f"?{urlencode(given)}" if given else ""))

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
            return self._transport.foreign(answer)
        # A code that is not here is of a newer console.
        step = self._transport.next_steps.get(code) or self.worded(_NEXT_STEPS.get(code, _VERSIONS))
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
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help=f"file with the token that the console wants (default: what {VARIABLE} names, if anything)",
    )
    parser.set_defaults(connect=connect_over_http)


OVER_HTTP: Final = Reach(program=PROGRAM, add_options=add_server)


def connect(arguments: argparse.Namespace) -> Client:
    """Return the console that the arguments name, by the way that the command declared its options for."""
    client: Client = arguments.connect(arguments)
    return client


def connect_over_http(arguments: argparse.Namespace) -> Client:
    """Return the console at --server, or the one that `kapsel up` left word of."""
    token = read_token(arguments.token_file)
    if arguments.server is not None:
        return Client(HttpTransport(arguments.server, "Check --server, and that the console runs there", token))
    running = find_running(arguments.data_dir)
    hint = f"`kapsel up` (pid {running.pid}) may be starting or may have died; look at it, or start it again"
    return Client(HttpTransport(running.console, hint, token))


def read_token(given: Path | None) -> str | None:
    """Return the newest token of a file, its last line: while it is rotated, an older one is live before it."""
    named = given or (Path(text) if (text := os.environ.get(VARIABLE)) else None)
    if named is None:
        return None
    try:
        tokens = named.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain ASCII text"
        raise CliError(f"{named} cannot be read: {reason}", f"Check --token-file, or {VARIABLE}") from error
    if not tokens:
        raise CliError(f"{named} holds no token", f"Check --token-file, or {VARIABLE}")
    return tokens[-1]


def find_running(data_dir: Path | None) -> Running:
    """Return where `kapsel up` can be reached: on this data directory, or on the nearest one from here upwards."""
    return find_data_dir(data_dir, "name the console with --server URL")[1]


def find_data_dir(data_dir: Path | None, otherwise: str) -> tuple[Path, Running]:
    """Return the data directory of the `kapsel up` that is meant; `otherwise` is what else a person may do."""
    here = Path.cwd()
    places = [data_dir] if data_dir is not None else [folder / DATA_DIR for folder in (here, *here.parents)]
    for place in places:
        running = _state(place, otherwise)
        if running is None and (pid := holder(place)) is not None:
            running = _started(place, pid, otherwise)
        if running is not None:
            return place, running
    where = str(data_dir) if data_dir is not None else f"{here / DATA_DIR} and no folder above it has one"
    raise UnreachableError(
        f"no kapsel is running here: {where}" if data_dir is None else f"no kapsel is running on {where}",
        f"Start one with `kapsel up DIR`, or {otherwise}",
    )


def _started(place: Path, pid: int, otherwise: str) -> Running | None:
    """Wait for a `kapsel up` that is starting; return where it is then, or None if it has ended instead."""
    hint(f"kapsel: `kapsel up` (pid {pid}) is starting on {place}; waiting for it.")
    deadline = time.monotonic() + START_SECONDS
    while holder(place) is not None:
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"`kapsel up` (pid {pid}) is still starting, or is stopping, on {place}",
                f"Look at what it says, or {otherwise}",
            )
        time.sleep(START_LOOK)
        if (running := _state(place, otherwise)) is not None:
            return running
    return None


def _state(place: Path, otherwise: str) -> Running | None:
    try:
        return read_state(place)
    except (OSError, ValueError, TypeError) as error:
        raise CliError(
            f"{place / 'up.json'} cannot be read: {error}",
            f"Run this as the user that runs `kapsel up`, or {otherwise}",
        ) from error


def endpoint_name(client: Client, text: str) -> str:
    """Return namespace/name of an endpoint; a name alone is enough if it is the only one."""
    if "/" in text:
        return text
    if client.namespace is not None:
        return f"{client.namespace}/{text}"
    found = [f"{one['namespace']}/{one['name']}" for one in client.items("/api/v1/endpoints", PAGE, name=text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CliError(f"{len(found)} endpoints are called {text}", f"Say which one: {', '.join(found)}")
    raise CliError(f"there is no endpoint called {text}", "List them with `kapsel get endpoints`")


def path(*parts: str) -> str:
    """Return a path of the API with each part quoted."""
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)
