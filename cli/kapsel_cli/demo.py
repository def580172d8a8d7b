"""The main job on real input, in under a minute: `make demo` runs this as `python -m kapsel_cli.demo`.

It is a newcomer's first look, so it uses what they will use: the real `kapsel up`, providers' signatures, the console's
API and the stand-alone verifier, each as a process or over HTTP. What is not as it must be ends it with an error, so it
is also a test of all of that.
"""

import argparse
import base64
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from kapsel_cli import demo_tables as tables
from kapsel_cli import providers
from kapsel_cli.client import Client
from kapsel_cli.data_dir import Running, read_state
from kapsel_cli.demo_destination import DIRECTORY, HOST, PORT, destination
from kapsel_cli.demo_webhooks import webhooks
from kapsel_cli.errors import CliError
from kapsel_cli.transport import HttpTransport
from kapsel_store.rows import Verification

EXAMPLE: Final = Path("examples/quickstart")
START_SECONDS: Final = 180.0
DELIVER_SECONDS: Final = 180.0
PROVE_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1
FINAL: Final = ("delivered", "exhausted", "cancelled")
T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration and return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="Show the main job of kapsel on real input.")
    parser.add_argument("directory", nargs="?", type=Path, default=EXAMPLE, help="manifests (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, until Ctrl-C")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then, what was started is stopped
    try:
        with tempfile.TemporaryDirectory(prefix="kapsel-demo-") as directory, destination() as port:
            example = _sending_to(port, arguments.directory, Path(directory))
            Demo(console, example, Path(directory), f"http://{HOST}:{port}").run(keep=arguments.keep)
    except CliError as error:
        console.print(f"[red]✗[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class Demo:
    """The demonstration, told in the order in which it happens."""

    def __init__(self, console: Console, example: Path, directory: Path, destination: str) -> None:
        self._console = console
        self._example = example
        self._directory = directory
        self._destination = destination
        self._data = directory / "data"

    def run(self, *, keep: bool) -> None:
        """Tell the whole story."""
        began = time.monotonic()
        self._say(f"starting [bold]kapsel up {self._example}[/]: an embedded Postgres and every process of kapsel")
        with self._up() as running:
            self._done(f"everything runs, {time.monotonic() - began:.1f} s after the start")
            client = Client(HttpTransport(running.console, "Look at the messages above"))
            self._post_all(running)
            self._watch(client)
            delivered = self._tell(client)
            self._prove(client, delivered)
            self._point_out(running, client, delivered["id"])
            self._done(f"[bold]the demonstration is over[/], {time.monotonic() - began:.0f} s in all")
            if not keep:
                self._say("all of it stops now; `make demo KEEP=1` leaves it running, to look at these")
            else:
                self._say("it keeps running; Ctrl-C stops it")
                self._say(f"look around: .venv/bin/kapsel get deliveries --server {running.console}")
                with suppress(KeyboardInterrupt):
                    signal.pause()

    @contextmanager
    def _up(self) -> Iterator[Running]:
        """Run `kapsel up` for as long as the block lasts."""
        command = [sys.executable, "-P", "-m", "kapsel_cli", "up", str(self._example)]
        log = self._directory / "up.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--data-dir", str(self._data), "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # Ctrl-C is for this demonstration, which then stops it in its own time
            )
        try:
            running = self._wait(lambda: self._state(process, log), START_SECONDS, f"kapsel up is ready ({log})")
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(STOP_SECONDS)
        if code != 0:
            raise _failed(f"kapsel up ended with exit code {code}", log)

    def _state(self, process: "subprocess.Popen[bytes]", log: Path) -> Running | None:
        if process.poll() is not None:
            raise _failed("kapsel up did not start", log)
        return read_state(self._data)

    def _post_all(self, running: Running) -> None:
        """Post as providers do, and check every answer."""
        rows = []
        seen: dict[str, str] = {}
        client = Client(HttpTransport(running.ingest, "Look at the messages above"))
        for post in webhooks(self._example):
            headers = providers.headers(Verification(scheme=post.scheme), post.webhook)
            answer = client.send(f"/ingest/shop/{post.endpoint}", headers, post.webhook.body)
            said = answer.json()
            rows.append((post.what, post.endpoint, answer.status, said.get("id") or said["code"]))
            _require(answer.status == post.status, f"{post.what} was answered {answer.status}, not {post.status}")
            if answer.status == 202:
                first = seen.setdefault(f"{post.endpoint} {post.webhook.id}", said["id"])
                _require(first == said["id"], f"{post.what} was not recognised as a duplicate")
        self._console.print(tables.posts(rows))

    def _watch(self, client: Client) -> None:
        """Show the deliveries until all of them have ended."""
        self._say("delivering: the destination answers 500 twice and then 200, and one destination is dead")
        deadline = time.monotonic() + DELIVER_SECONDS
        shown = Live(console=self._console, auto_refresh=False, transient=True)
        with shown:
            while True:
                items = oldest_first(client, "/api/v1/deliveries")
                if self._console.is_terminal:
                    shown.update(tables.deliveries(items), refresh=True)
                if all(item["state"] in FINAL for item in items):
                    return
                _require(time.monotonic() < deadline, f"not all deliveries ended within {DELIVER_SECONDS:g} s")
                time.sleep(POLL_SECONDS)

    def _tell(self, client: Client) -> dict[str, Any]:
        """Show all that is stored, and return an attempt that the destination has acknowledged."""
        head = self._wait(lambda: _covering_head(client), PROVE_SECONDS, "a signed head covers every attempt")
        attempts = oldest_first(client, "/api/v1/attempts")
        self._console.print(tables.events(oldest_first(client, "/api/v1/events")))
        self._console.print(tables.deliveries(oldest_first(client, "/api/v1/deliveries")))
        self._console.print(tables.attempts(attempts))
        self._done(f"a signed head covers all {head['tree_size']} attempts: root {head['root_hash']}")
        signed = [item for item in attempts if item["acknowledgement"] == "acknowledged"]
        _require(bool(signed), "no destination has signed what it got")
        return signed[0]

    def _prove(self, client: Client, attempt: dict[str, Any]) -> None:
        """Take a proof along, check it with the stand-alone verifier, and show that a changed one is refused."""
        proof = client.request("GET", f"/api/v1/attestation/download-proof/{attempt['id']}")
        _require(proof.status == 200, f"the proof was answered {proof.status}")
        event = client.get(f"/api/v1/events/{attempt['event_id']}")
        self._write("proof.json", proof.body)
        self._write("keys.json", client.request("GET", "/.well-known/kapsel/keys.json").body)
        self._write("body.json", base64.b64decode(event["body_base64"]))
        published = Client(HttpTransport(self._destination, "Look at the messages above")).request("GET", DIRECTORY)
        self._write("destination.jwks", published.body)
        self._write("forged.json", with_other_status(proof.body))
        self._say("checking a proof offline with the keys of log and destination, neither of which is in the proof")
        verified = self._verify("proof.json", "green")
        _require(verified == 0, f"the proof was refused with exit code {verified}")
        self._say("the same proof with one byte of its leaf changed, as if the destination had answered 500")
        refused = self._verify("forged.json", "red")
        _require(refused not in (0, 2), "the forged proof was not refused")

    def _verify(self, proof: str, style: str) -> int:
        """Run the verifier as an auditor would, show what it says, and return its exit code."""
        command = ["kapsel-verify", "--proof", proof, "--keys", "keys.json", "--body", "body.json"]
        command += ["--destination-key", "destination.jwks"]
        self._console.print(f"  [bold]$ {' '.join(command)}[/]", soft_wrap=True)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        for line in (done.stdout + done.stderr).splitlines():
            self._console.print(f"  [{style}]{escape(line)}[/]", soft_wrap=True)
        return done.returncode

    def _write(self, name: str, content: bytes) -> None:
        (self._directory / name).write_bytes(content)

    def _point_out(self, running: Running, client: Client, attempt_id: str) -> None:
        rows = {
            "head": f"{client.server}/api/v1/attestation/sth",
            "proof": f"{client.server}/api/v1/attestation/proof/{attempt_id}",
            "keys": f"{client.server}/.well-known/kapsel/keys.json",
            "API": f"{client.server}/",
            **{f"{name} metrics": url for name, url in running.metrics.items()},
        }
        width = max(map(len, rows))
        for name, url in rows.items():
            self._console.print(f"  {name:<{width}}  [cyan]{url}[/]", soft_wrap=True)

    def _wait(self, ask: Callable[[], T | None], seconds: float, what: str) -> T:
        deadline = time.monotonic() + seconds
        with self._console.status(f"waiting until {what}"):
            while (answer := ask()) is None:
                _require(time.monotonic() < deadline, f"not within {seconds:g} s: {what}")
                time.sleep(POLL_SECONDS)
        return answer

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]·[/] {text}", soft_wrap=True)

    def _done(self, text: str) -> None:
        self._console.print(f"[green]✓[/] {text}", soft_wrap=True)


def _sending_to(port: int, example: Path, directory: Path) -> Path:
    """Return the example, or a copy that sends to another port because somebody listens on the one it names."""
    if port == PORT:
        return example
    copy = directory / example.name
    copy.mkdir()
    for file in example.glob("*.yaml"):
        (copy / file.name).write_text(file.read_text().replace(f"{HOST}:{PORT}/", f"{HOST}:{port}/"))
    return copy


def oldest_first(client: Client, path: str) -> list[dict[str, Any]]:
    """Return a list of the console in the order in which things happened."""
    return list(client.items(path, 200))[::-1]


def _covering_head(client: Client) -> dict[str, Any] | None:
    """Return the newest head as soon as it covers all attempts."""
    state = client.get("/api/v1/attestation/log")
    for log in state["items"]:
        head: dict[str, Any] | None = log["head"]
        if head and state["waiting_attempts"] == 0 and head["tree_size"] == log["tree_size"]:
            return head
    return None


def with_other_status(proof: bytes) -> bytes:
    """Return a proof whose leaf says 500 where it said 200: one byte of the leaf is another."""
    document = json.loads(proof)
    leaf = base64.b64decode(document["leaf_b64"])
    changed = leaf.replace(b'"response_status":200', b'"response_status":500')
    _require(changed != leaf, "the leaf of the proof does not say 200")
    document["leaf_b64"] = base64.b64encode(changed).decode()
    return json.dumps(document, separators=(",", ":")).encode()


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise CliError(otherwise, "This should not happen: please report it with what stands above")


def _failed(what: str, log: Path) -> CliError:
    lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
    return CliError(f"{what}:\n" + "\n".join(f"    {line}" for line in lines[-15:]), "Correct that and try again")


if __name__ == "__main__":
    sys.exit(main())
