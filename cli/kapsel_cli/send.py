"""`kapsel send`: posts a webhook to an endpoint, signed as its provider would sign it."""

import argparse
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from kapsel_cli.arguments import Subparsers, add_command
from kapsel_cli.client import Client, add_server, connect, endpoint_name, find_running
from kapsel_cli.errors import CliError, RefusedError
from kapsel_cli.following import hint
from kapsel_cli.transport import Answer, HttpTransport
from kapsel_store.rows import Scheme, Verification

SCHEMES: Final[tuple[Scheme, ...]] = get_args(Scheme)
MOST_BYTES: Final = 67_108_864

TEXT: Final = """\
Posts a file to an endpoint as its provider would: with the provider's headers, signed with the secret that you name.
Secrets are never taken from the command line, where every user of the machine could read them, but from a file, a
variable, or the manifests that declare the endpoint.

examples:
  kapsel send shop/github-orders push.json --manifests examples/quickstart    everything from the manifests
  kapsel send shop/github-orders push.json --manifests examples/quickstart --id 42
                                                             twice: the second is a duplicate
  kapsel send shop/github-orders push.json --as github --secret-file github.key
  STRIPE=whsec_... kapsel send shop/stripe-payments charge.json --secret-env STRIPE --type charge.succeeded
  echo '{"hello": "world"}' | kapsel send shop/open - --as none
  kapsel send shop/orders order.json --as github --secret-file k --url https://hooks.example.com/ingest/shop/orders

Without --url it goes to the `kapsel up` of this folder. Then --as may be left out: the console knows the scheme.

exit codes: 0 accepted, 1 refused or not reachable, 2 the arguments are wrong
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "send", summary="post a webhook as a provider would", text=TEXT)
    parser.add_argument("endpoint", metavar="ENDPOINT", help="namespace/name, or the name alone if it is the only one")
    parser.add_argument("file", metavar="FILE", help="the body; - reads standard input")
    parser.add_argument("--as", dest="scheme", choices=SCHEMES, metavar="SCHEME", help=", ".join(SCHEMES))
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--secret-file", type=Path, metavar="PATH", help="file with the secret, as the provider shows it"
    )
    secret.add_argument("--secret-env", metavar="NAME", help="environment variable with the secret")
    secret.add_argument(
        "--manifests", type=Path, metavar="DIR", help="manifests with the endpoint, its key and its Secret"
    )
    parser.add_argument("--type", default="kapsel.test", metavar="TYPE", help="what happened (default: %(default)s)")
    parser.add_argument("--id", metavar="ID", help="the provider's id of the event (default: a new one)")
    parser.add_argument("--url", metavar="URL", help="ingest URL (default: asked of the console)")
    add_server(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a webhook goes, and how its caller proves itself."""

    namespace: str
    name: str
    url: str
    verification: Verification
    secret: bytes = field(repr=False)


def run(arguments: argparse.Namespace) -> int:
    """Post one webhook and say what became of it."""
    from kapsel_cli import output, providers  # slow to import, and of no use to `kapsel --help`

    target = _target(arguments)
    webhook = providers.Outgoing(
        body=read_body(arguments.file),
        secret=target.secret,
        id=arguments.id or providers.new_id(target.verification.scheme),
        type=arguments.type,
        now=output.now(),
        url=target.verification.public_url or f"https://{target.url.partition('://')[2]}",
    )
    answer = _post(target, providers.headers(target.verification, webhook), webhook.body)
    event_id = answer.headers.get("x-event-id") or answer.json()["id"]
    duplicate = " (a duplicate: it was stored before)" if "idempotent-replayed" in answer.headers else ""
    print(f"event {event_id} accepted by {target.namespace}/{target.name}{duplicate}")
    hint(f"See where it goes: kapsel get deliveries --event {event_id}")
    return 0


def _target(arguments: argparse.Namespace) -> Target:
    listed: dict[str, Any] | None = None
    if arguments.url is not None:
        url, named = arguments.url, arguments.endpoint
    else:
        if arguments.server is not None:
            raise CliError("a console does not know under which URL its receivers are reached", "Name it with --url")
        client = connect(arguments)
        named = endpoint_name(client, arguments.endpoint)
        listed = _listed(client, named)
        url = find_running(arguments.data_dir).ingest + listed["ingest_paths"][0]
    namespace, slash, name = named.partition("/")
    if not (namespace and slash and name):
        raise CliError(f"{named!r} does not say which endpoint", "Write namespace/name")
    verification, secret = _proof(arguments, namespace, name, listed)
    return Target(namespace=namespace, name=name, url=url, verification=verification, secret=secret)


def _listed(client: Client, named: str) -> dict[str, Any]:
    namespace, _, name = named.partition("/")
    found = list(client.items("/api/v1/endpoints", 1, namespace=namespace, name=name))
    if not found:
        raise CliError(f"there is no endpoint {named}", "List them with `kapsel get endpoints`")
    if not found[0]["ingest_paths"]:
        raise CliError(f"{named} has no path that takes webhooks", "Name one under paths in its manifest")
    return found[0]


def _proof(
    arguments: argparse.Namespace, namespace: str, name: str, listed: dict[str, Any] | None
) -> tuple[Verification, bytes]:
    asked: Scheme | None = arguments.scheme
    if arguments.manifests is not None:
        from kapsel_cli import credentials  # reading manifests takes pydantic and yaml

        found = credentials.read(arguments.manifests, namespace, name)
        other = asked is not None and asked != found.verification.scheme
        return (Verification(scheme=asked) if asked and other else found.verification), found.secret
    scheme = asked or (listed["verification"] if listed else None)
    if scheme is None:
        raise CliError("nothing says how the webhook is signed", f"Say --as with one of {', '.join(SCHEMES)}")
    return Verification(scheme=scheme), b"" if scheme == "none" else _secret(arguments, scheme)


def _secret(arguments: argparse.Namespace, scheme: Scheme) -> bytes:
    if arguments.secret_file is not None:
        try:
            secret: bytes = arguments.secret_file.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise CliError(
                f"{arguments.secret_file} cannot be read: {error.strerror}", "Name a file that holds the secret alone"
            ) from error
    elif arguments.secret_env is not None:
        secret = os.environb.get(arguments.secret_env.encode(), b"")
    else:
        raise CliError(
            f"a webhook for {scheme} has to be signed, and no secret was named",
            "Name one with --secret-file, --secret-env or --manifests",
        )
    if not secret:
        raise CliError("the secret is empty", "Put into the file or the variable what the provider shows")
    return secret


def read_body(file: str) -> bytes:
    """Return what is in a file, or comes in on standard input for -."""
    try:
        body = sys.stdin.buffer.read(MOST_BYTES + 1) if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CliError(
            f"{file} cannot be read: {error.strerror}", "Name a file with the body, or - for standard input"
        ) from error
    if len(body) > MOST_BYTES:
        raise CliError(f"the body has more than {MOST_BYTES} bytes", "No endpoint takes that much")
    return body


def _post(target: Target, headers: dict[str, str], body: bytes) -> Answer:
    scheme, rest = target.url.partition("://")[::2]
    host, slash, path = rest.partition("/")
    if not path:
        raise CliError(f"{target.url!r} is no ingest URL", "It looks like https://host/ingest/namespace/name")
    receiver = Client(HttpTransport(f"{scheme}://{host}", "See that kapsel runs and takes webhooks there"))
    answer = receiver.send(slash + path, headers, body)
    if 200 <= answer.status < 300:
        return answer
    try:
        problem = json.loads(answer.body)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        raise CliError(
            f"{target.url} answered with HTTP status {answer.status}", "See that it is an ingest URL"
        ) from None
    raise RefusedError(
        f"refused with {answer.status} {code}: {detail}", _NEXT_STEPS.get(code, "Look at the receiver's log"), code=code
    )


_NEXT_STEPS: Final = {
    "signature_mismatch": "Sign with the secret that the endpoint's SigningKey holds",
    "signature_missing": "Say with --as how this endpoint's callers sign: kapsel get endpoints",
    "credentials_missing": "Say with --as how this endpoint's callers sign: kapsel get endpoints",
    "credentials_mismatch": "Use the credentials that the endpoint's Secret holds",
    "unknown_endpoint": "List them with `kapsel get endpoints`",
    "rate_limited": "Wait a moment and send it again",
    "endpoint_suspended": "Set suspend: false in its manifest",
    "overloaded": "Wait a moment and send it again",
    "storage_unavailable": "Wait a moment and send it again",
}
