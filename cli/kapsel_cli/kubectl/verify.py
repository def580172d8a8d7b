"""`kubectl kapsel verify`: fetches the proof of an attempt and judges it here, with a key that did not come with it."""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kapsel_cli.arguments import Subparsers, add_command, add_wait
from kapsel_cli.errors import CliError
from kapsel_cli.kubectl.options import add_relay, open_cluster
from kapsel_cli.proof import Missing, fetch, wait_in_vain

if TYPE_CHECKING:
    from kapsel_cli.kubectl.cluster import Object
    from kapsel_verifier.keys import TrustedKey

MOST_KEYS: Final = 1_048_576  # bytes of a file

TEXT: Final = """\
Fetches the proof of an attempt from the console, and checks on this machine that the log holds the attempt, as it is
told, under a head signed by the log's key. It says what is proven, and whose word the key is.

Without a key of yours, the key is taken from the status of the AttestationLog. That trusts the cluster: whoever may
write that status could put another key there. Note the key down once, and pin it with --public-key from then on.

examples:
  kubectl kapsel attempts -n shop                          find the id
  kubectl kapsel verify -n shop ATTEMPT_ID --wait
  kubectl kapsel verify -n shop ATTEMPT_ID --public-key "$(cat log.vkey)"
  kubectl get attestationlog shop -n shop -o jsonpath='{.status.publicKey}' > log.vkey

exit codes: 0 verified, 1 it could not be done, 2 the arguments are wrong, 3 there is no proof yet; a proof that is
refused has the exit codes of kapsel-verify, from 10 on
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "verify", summary="fetch a proof of delivery, and check it offline", text=TEXT)
    parser.add_argument("attempt", metavar="ATTEMPT_ID", help="id of an attempt: `kubectl kapsel attempts`")
    parser.add_argument("--public-key", action="append", default=[], metavar="KEY", help="a key that you trust: a vkey")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="keys that you trust: lines of vkeys, or keys.json")
    add_wait(parser, "the proof can be made")
    parser.add_argument("-f", "--file", type=Path, metavar="PATH", help="keep the proof in this file too")
    add_relay(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge the proof of one attempt."""
    from kapsel_cli.kubectl.cluster import resources
    from kapsel_cli.kubectl.relays import find_relay, open_console
    from kapsel_verifier.errors import VerificationError

    cluster = open_cluster(arguments)
    relay = find_relay(cluster, arguments.relay)
    client = open_console(cluster, relay)
    proof = fetch(client, arguments.attempt, time.monotonic() + arguments.wait)
    if isinstance(proof, Missing):
        return wait_in_vain(proof, waited=bool(arguments.wait))
    if arguments.file is not None:
        _keep(arguments.file, proof)
    try:
        pinned = _pinned(arguments)
        keys, whose = (
            (pinned, "yours")
            if pinned
            else key_of_log(origin_of(proof), cluster.items(resources("attestationlogs", relay.namespace)))
        )
        said = judge(proof, keys)
    except VerificationError as error:
        print(f"kapsel: {error.sentence()}", file=sys.stderr)
        return error.exit_code
    print("Proof verified successfully!", *said, f"{'Key':<14}{whose}", sep="\n", flush=True)
    return 0


def judge(proof: bytes, keys: Iterable["TrustedKey"]) -> list[str]:
    """Return what is proven, a line each; raise VerificationError if it is not."""
    from kapsel_verifier import report, verify
    from kapsel_verifier.proof import parse

    now_ms = time.time_ns() // 1_000_000
    return report.lines(verify.verify_proof(parse(proof), list(keys), now_ms=now_ms))


def origin_of(proof: bytes) -> str:
    """Return which log a proof says that it is of: good enough to look for a key, and for nothing else."""
    from kapsel_verifier.proof import parse

    return parse(proof).checkpoint.partition("\n")[0]


def key_of_log(origin: str, logs: Sequence["Object"]) -> tuple[list["TrustedKey"], str]:
    """Return the key that the status of the log's AttestationLog names, and whose word that is."""
    from kapsel_verifier.keys import parse_key

    for log in logs:
        status, metadata = log.get("status") or {}, log["metadata"]
        if status.get("origin") == origin and status.get("publicKey"):
            place = f"{metadata['namespace']}/{metadata['name']}"
            text = (
                f"{status['publicKey']}, by the word of AttestationLog {place}; to rely on yourself, use --public-key"
            )
            return [parse_key(status["publicKey"])], text
    raise CliError(
        f"no AttestationLog here names a key for the log {origin}",
        "Give a key that you trust with --public-key, or see `kubectl get attestationlogs`",
    )


def _pinned(arguments: argparse.Namespace) -> list["TrustedKey"]:
    from kapsel_verifier.keys import parse_key, parse_key_set

    trusted = [parse_key(text) for text in arguments.public_key]
    if arguments.keys is not None:
        try:
            with arguments.keys.open("rb") as file:
                trusted += parse_key_set(file.read(MOST_KEYS))
        except OSError as error:
            raise CliError(f"{arguments.keys} cannot be read: {error.strerror}", "Check --keys") from error
    return trusted


def _keep(path: Path, proof: bytes) -> None:
    try:
        path.write_bytes(proof)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}", "Name another file") from error
