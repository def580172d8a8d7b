"""`kubectl kapsel secret`: the key that a destination checks its deliveries with, from the Secret that holds it.

It reads Secrets with the rights of whoever runs it, and asks no console: who may not read the Secret does not get it.
Which Secret and entry is meant is decided without IO.
"""

import argparse
import base64
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.errors import CliError
from kapsel_cli.following import hint
from kapsel_cli.kubectl.options import add_cluster, open_cluster

if TYPE_CHECKING:
    from kapsel_cli.kubectl.cluster import Cluster, Object

_VERSION: Final = re.compile(r"v([1-9][0-9]{0,8})(\.pub)?")

TEXT: Final = """\
Shows the key that the destinations of an endpoint need to check that a delivery comes from here: `whsec_<base64>`, or
of an Ed25519 key the public half, `whpk_<base64>`. Standard output is that one line and nothing else.

It is read from the Secret that kapsel keeps it in. A key in a Secret of your own is not shown: you have it already.

examples:
  kubectl kapsel secret github-orders -n shop                      the key of the endpoint's only or first destination
  kubectl kapsel secret stripe-payments -n shop --destination mailer
  kubectl kapsel secret stripe-payments -n shop --version 2        the next version, ahead of its time
"""


class Holder(NamedTuple):
    """Where a key is: a Secret, and the versions of it that are live."""

    secret: str
    live: tuple[int, ...]  # empty: nobody says, the newest is meant


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "secret", summary="the key that a destination checks deliveries with", text=TEXT)
    parser.add_argument("endpoint", metavar="ENDPOINT", help="name of a WebhookEndpoint")
    parser.add_argument("--destination", metavar="NAME", help="which destination (default: the first)")
    parser.add_argument("--version", type=_version, metavar="N", help="this version (default: the newest live one)")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one key."""
    from kapsel_cli.kubectl.cluster import core, resources

    cluster = open_cluster(arguments)
    endpoint = cluster.find(resources("webhookendpoints", cluster.namespace, arguments.endpoint))
    if endpoint is None:
        raise CliError(
            f"there is no WebhookEndpoint {arguments.endpoint} in namespace {cluster.namespace}",
            "List them with `kubectl get webhookendpoints -A`",
        )
    holder = _holder(cluster, endpoint, destination(endpoint, arguments.destination))
    found = cluster.find(core("secrets", cluster.namespace, holder.secret))
    if found is None:
        raise CliError(
            f"there is no Secret {holder.secret} yet",
            f"See what the operator waits for with `kubectl kapsel status -n {cluster.namespace}`",
        )
    text, others = choose(found.get("data") or {}, holder, arguments.version)
    if others:
        hint(f"Live now or soon are also versions: {', '.join(map(str, others))} (--version N).")
    print(text)
    return 0


def destination(endpoint: "Object", named: str | None) -> Mapping[str, Any]:
    """Return the destination of an endpoint that is meant."""
    found: list[Mapping[str, Any]] = endpoint["spec"].get("destinations") or []
    place = f"{endpoint['metadata']['namespace']}/{endpoint['metadata']['name']}"
    if not found:
        raise CliError(f"the endpoint {place} has no destination, so nothing is signed for it", "Name another endpoint")
    if named is None:
        keys = {_key_name(one) for one in found}
        if len(keys) > 1:
            names = ", ".join(one["name"] for one in found)
            raise CliError(f"the destinations of {place} have different keys", f"Say which with --destination: {names}")
        return found[0]
    for one in found:
        if one["name"] == named:
            return one
    raise CliError(f"{place} has no destination {named}", f"It has: {', '.join(one['name'] for one in found)}")


def choose(data: Mapping[str, str], holder: Holder, version: int | None) -> tuple[str, list[int]]:
    """Return a key from the entries of a Secret, and which other versions there are."""
    entries = {entry: found for entry in data if (found := _VERSION.fullmatch(entry))}
    versions = sorted({int(found[1]) for found in entries.values()})
    live = [one for one in versions if one in holder.live] or versions
    meant = version if version is not None else max(live, default=None)
    if meant is None or meant not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise CliError(f"the Secret {holder.secret} holds no version {meant or ''}".rstrip(), f"It holds: {known}")
    public = f"v{meant}.pub"
    text = base64.b64decode(data[public if public in data else f"v{meant}"]).decode("ascii").strip()
    return text, [one for one in versions if one != meant]


def _holder(cluster: "Cluster", endpoint: "Object", of: Mapping[str, Any]) -> Holder:
    """Return where the key of a destination is."""
    from kapsel_cli.kubectl.cluster import resources

    name = _key_name(of)
    if name is None:
        return Holder(f"{endpoint['metadata']['name'][:245].rstrip('-.')}-signing", ())
    key = cluster.find(resources("signingkeys", cluster.namespace, name))
    if key is None:
        raise CliError(
            f"there is no SigningKey {name}, which {of['name']} signs with", "Apply it, or correct signingKeyRef"
        )
    if key["spec"]["source"] != "Generate":
        secret = key["spec"].get("secretRef", {}).get("name")
        raise CliError(f"kapsel did not make the key {name}", f"Its value is in your Secret {secret}")
    status = key.get("status") or {}
    return Holder(status.get("secretName") or f"{name}-key", tuple(_live(status.get("versions") or ())))


def _live(versions: Iterable[Mapping[str, Any]]) -> Iterable[int]:
    return (int(one["version"]) for one in versions if one.get("state") == "Live")


def _key_name(of: Mapping[str, Any]) -> str | None:
    return (of.get("signingKeyRef") or {}).get("name")


def _version(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not the number of a version")
    return int(text)
