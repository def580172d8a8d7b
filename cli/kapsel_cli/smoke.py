"""`kapsel smoke`: one signed webhook through a Relay in a cluster, with the proof of its delivery verified.

The chart's `helm test` runs it in a pod. It goes the way that everything goes: an endpoint is declared, the operator
makes it so, a receiver takes the webhook, a deliverer sends it here, the attestor signs, the console proves. It asks
the API server for no more than its own objects, the token of that console and the way to it.
"""

import argparse
import base64
import json
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeVar

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.errors import CliError, RefusedError, UnreachableError
from kapsel_cli.smoke_destination import listening
from kapsel_cli.smoke_objects import Scene, endpoint, reaches, readiness, relay

if TYPE_CHECKING:
    from kapsel_cli.client import Client
    from kapsel_cli.kubectl.cluster import Cluster, Object
    from kapsel_cli.kubectl.relays import RelayName

POLL_SECONDS: Final = 1.0
ENTRIES: Final = (
    "webhookendpoints",
    "signingkeys",
    "secrets",
    "attestationlogs",
    "relays",
)  # in which they are deleted
T = TypeVar("T")

TEXT: Final = """\
Sends one signed webhook through a Relay and verifies the proof of its delivery, then removes what it made. It runs in a
pod of the cluster, since it is the destination itself; `helm test` does that.

Without --relay it makes a Relay of its own with an embedded Postgres, which needs a volume of 1 GiB. With --relay it
uses one that is there: it makes a WebhookEndpoint, a SigningKey and a Secret in that namespace. Deliveries reach this
pod only if the egress of that Relay allows plain HTTP to its address; otherwise name a URL with --destination.

examples:
  kapsel smoke --address 10.244.0.7 -n kapsel-system
  kapsel smoke --address 10.244.0.7 --relay shop/main --destination https://example.com/hooks

exit codes: 0 delivered and proven, 1 it was not, 2 the arguments are wrong
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    from kapsel_cli.kubectl.options import add_cluster

    parser = add_command(subparsers, "smoke", summary="test an installation in a cluster, from within", text=TEXT)
    parser.add_argument("--address", type=_address, required=True, metavar="IP", help="the address of this pod")
    parser.add_argument("--port", type=int, default=8080, help="the port to listen on (default: %(default)s)")
    parser.add_argument("--relay", metavar="NAMESPACE/NAME", help="the Relay to test (default: one of its own)")
    parser.add_argument("--destination", metavar="URL", help="where it delivers to (default: this pod)")
    parser.add_argument("--storage-class", metavar="NAME", help="of the volume of its own Relay")
    parser.add_argument("--name", default="kapsel-smoke", help="name of all that it makes (default: %(default)s)")
    parser.add_argument(
        "--owner", type=_owner, metavar="POD/UID", help="the pod with which all of it goes at the latest"
    )
    parser.add_argument("--timeout", type=float, default=240.0, metavar="SECONDS", help="default: %(default)g")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Test one Relay and say what happened on the way."""
    from kapsel_cli.kubectl.options import open_cluster
    from kapsel_cli.kubectl.relays import RelayName

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then, what was made is removed
    cluster = open_cluster(arguments)
    namespace, _, name = (arguments.relay or f"{cluster.namespace}/{arguments.name}").partition("/")
    if not (namespace and name):
        raise CliError(f"{arguments.relay!r} is no Relay", "Write it as NAMESPACE/NAME")
    with listening(arguments.address, arguments.port) as (here, received):
        scene = Scene(
            namespace=namespace,
            name=arguments.name,
            relay=name,
            destination=arguments.destination or here,
            owner=arguments.owner,
        )
        smoke = Smoke(
            cluster,
            scene,
            RelayName(namespace, name),
            own_relay=arguments.relay is None,
            deadline=time.monotonic() + arguments.timeout,
        )
        smoke.remove()  # what a test that was killed has left
        try:
            if arguments.relay is None:
                smoke.make_relay(arguments.address, arguments.storage_class)
            else:
                smoke.look_at_relay(None if arguments.destination else arguments.address)
            event, body = smoke.send()
            attempt = smoke.await_delivery(event)
            if arguments.destination is None and body not in received:
                raise CliError("what was delivered is not what was sent", "Compare the payload in the console")
            smoke.verify(attempt)
        except BaseException:
            with suppress(CliError):  # why the test failed is worth more than why nothing could be removed
                smoke.remove()
            raise
        smoke.remove()
    print("kapsel works: a signed webhook was taken in, delivered and proven.", flush=True)
    return 0


class Smoke:
    """One test, in the order in which it happens."""

    def __init__(
        self, cluster: "Cluster", scene: Scene, relay: "RelayName", *, own_relay: bool, deadline: float
    ) -> None:
        self._cluster = cluster
        self._scene = scene
        self._relay = relay
        self._deadline = deadline
        self._own_relay = own_relay
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def make_relay(self, address: str, storage_class: str | None) -> None:
        """Make a Relay for this test alone."""
        self._make(relay(self._scene, address, storage_class))
        self._await_ready("relays", self._relay.name)

    def look_at_relay(self, address: str | None) -> None:
        """See that the Relay is there and, if deliveries are to come to this address, that it lets them."""
        from kapsel_cli.kubectl.cluster import resources

        found = self._cluster.find(resources("relays", *self._relay))
        if found is None:
            raise CliError(f"there is no Relay {self._relay}", "List them with `kubectl get relays -A`")
        egress = found["spec"].get("egress") or {}
        if address is not None and not reaches(egress, address):
            raise CliError(
                f"Relay {self._relay} does not deliver here: its egress does not allow plain http to {address}",
                "Name a destination that it reaches (smoke.destination), or test a Relay of the test's own",
            )
        self._await_ready("relays", self._relay.name)

    def send(self) -> tuple[str, bytes]:
        """Declare an endpoint, post one webhook to it, and return the event's id with the body."""
        from kapsel_cli import output, providers
        from kapsel_store.rows import Verification

        self._make(endpoint(self._scene, self._secret))
        self._await_ready("webhookendpoints", self._scene.name)
        body = json.dumps({"type": "kapsel.smoke", "nonce": secrets.token_hex(16)}).encode()
        webhook = providers.Outgoing(
            body=body,
            secret=self._secret.encode(),
            id=providers.new_id("standardWebhooks"),
            type="kapsel.smoke",
            now=output.now(),
        )
        headers = providers.headers(Verification(scheme="standardWebhooks"), webhook)
        event = self._wait(lambda: self._post(headers, body), "a receiver takes the webhook")
        self._say(f"a receiver took the webhook in as event {event}")
        return event, body

    def await_delivery(self, event: str) -> str:
        """Return the id of the attempt that delivered the event."""
        self._client: Client = self._wait(self._console, "the console can be asked")
        seen: dict[str, str] = {}

        def delivered() -> str | None:
            for attempt in self._client.items("/api/v1/attempts", 50, event=event):
                if attempt["outcome"] == "delivered":
                    return str(attempt["id"])
                seen[attempt["id"]] = f"{attempt['outcome']}, {attempt['reason']}"
            return None

        attempt = self._wait(delivered, "the webhook is delivered", lambda: "; ".join(seen.values()) or "not tried yet")
        self._say(f"a deliverer delivered it to {self._scene.destination}: attempt {attempt}")
        return attempt

    def verify(self, attempt: str) -> None:
        """Fetch the proof of the attempt and judge it with the key of the log's AttestationLog."""
        from kapsel_cli.kubectl.cluster import resources
        from kapsel_cli.kubectl.verify import judge, key_of_log, origin_of
        from kapsel_cli.proof import Missing, fetch
        from kapsel_verifier.errors import VerificationError

        proof = fetch(self._client, attempt, self._deadline)
        if isinstance(proof, Missing):
            raise CliError(f"there is no proof: {proof.detail}", "Look at the attestor's log and at the AttestationLog")
        try:
            keys, whose = key_of_log(
                origin_of(proof), self._cluster.items(resources("attestationlogs", self._relay.namespace))
            )
            lines = judge(proof, keys)
        except VerificationError as error:
            raise CliError(f"the proof is refused: {error.sentence()}", "Do not trust this installation") from error
        for line in (*lines, f"Key        {whose}"):
            print(f"    {line}")
        self._say("the proof of the delivery is verified")

    def remove(self) -> None:
        """Delete everything that a test makes, whether it is there or not."""
        names = dict.fromkeys(ENTRIES[:3], self._scene.name)
        if self._own_relay:
            names |= dict.fromkeys(ENTRIES[3:], self._scene.name)
        for plural, name in names.items():
            answer = self._cluster.exchange("DELETE", self._target(plural, name))
            if answer.status not in (200, 202, 404):
                raise self._cluster.refusal(answer)

    def _make(self, objects: "dict[str, Object]") -> None:
        for plural, manifest in objects.items():
            self._cluster.create(self._target(plural, None), manifest)

    def _target(self, plural: str, name: str | None) -> str:
        from kapsel_cli.kubectl.cluster import core, resources

        return (core if plural == "secrets" else resources)(plural, self._scene.namespace, name)

    def _await_ready(self, plural: str, name: str) -> None:
        """Wait until the operator says that a resource, as it is declared now, is in force."""
        last: list[str] = ["it has no status: no operator looks at this namespace"]

        def ready() -> bool | None:
            found = self._cluster.get(self._target(plural, name))
            is_ready, words = readiness(found)
            if words:
                last[:] = [words]
            return is_ready or None

        what = f"{plural}/{name} is Ready"
        self._wait(ready, what, lambda: last[0])
        self._say(what)

    def _post(self, headers: dict[str, str], body: bytes) -> str | None:
        from kapsel_cli.client import Client
        from kapsel_cli.transport import HttpTransport
        from kapsel_operator.manifests.names import object_name

        server = f"http://{object_name(self._relay.name, 'receiver')}.{self._relay.namespace}.svc"
        client = Client(HttpTransport(server, "Look at the Service and the pods of the receivers"))
        answer = client.send(f"/ingest/{self._scene.namespace}/{self._scene.name}", headers, body)
        if answer.status == 202:
            return str(answer.json()["id"])
        if answer.status == 503:
            return None
        raise CliError(
            f"the receiver answered {answer.status}: {answer.body[:500].decode(errors='replace')}",
            "Look at the receiver's log",
        )

    def _console(self) -> "Client":
        from kapsel_cli.kubectl.relays import open_console

        client = open_console(self._cluster, self._relay)
        client.get("/api/v1/endpoints", limit=1)
        return client

    def _wait(self, ask: Callable[[], T | None], what: str, so_far: Callable[[], str] = lambda: "") -> T:
        """Ask until there is an answer; what cannot be reached yet may be reached later."""
        while True:
            reason = ""
            try:
                answer = ask()
                if answer is not None:
                    return answer
            except (UnreachableError, RefusedError) as error:
                reason = str(error)
            if time.monotonic() >= self._deadline:
                why = reason or so_far()
                raise CliError(
                    f"not in time: {what}" + (f" ({why.rstrip('.')})" if why else ""),
                    f"Look at `kubectl get kapsel -n {self._scene.namespace}` and at the operator's log",
                )
            time.sleep(POLL_SECONDS)

    def _say(self, text: str) -> None:
        print(f"  {text}", flush=True)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not an IP address") from None


def _owner(text: str) -> tuple[str, str]:
    name, slash, uid = text.partition("/")
    if not (name and slash and uid):
        raise argparse.ArgumentTypeError(f"{text} is not POD/UID")
    return name, uid
