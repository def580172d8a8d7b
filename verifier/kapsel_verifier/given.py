"""Reads what kapsel-verify was given: files up to their limits, keys, and the means to check the levels with.

The command line calls it once its options are in order. A file that cannot be read is a UsageError, one that is not
what it must be a refusal of its class. Modules are imported where something was given for them.
"""

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, BinaryIO, Final

from kapsel_verifier.errors import MalformedKeyError, MalformedNoteError, TooLargeError

if TYPE_CHECKING:
    from kapsel_verifier.heads import KnownHead
    from kapsel_verifier.keys import TrustedKey
    from kapsel_verifier.levels import Means
    from kapsel_verifier.proof import Proof
    from kapsel_verifier.tlog_proof import TlogProof
    from kapsel_verifier.verify import Payload

MAX_BODY_SIZE: Final = 67_108_864  # bytes
_MAX_HEADER_FILE: Final = 1024  # bytes
_HEADER_DIGITS: Final = 160
_PUBLIC: Final = "whpk_"
_KEY_SIZE: Final = 32  # bytes


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


def proof(name: str) -> "Proof | TlogProof":
    """Read the proof file in either form."""
    from kapsel_verifier import proof as proofs

    data = read(name, "the proof", proofs.MAX_PROOF_SIZE)
    if not proofs.is_tlog_proof(data):
        return proofs.parse(data)
    from kapsel_verifier.tlog_proof import TlogProof

    return TlogProof.parse(data)


def trusted_keys(texts: list[str], key_set: str | None, successors: str | None) -> "list[TrustedKey]":
    """Return the keys given as text, those of a key set file, and their successors in one that is not trusted."""
    from kapsel_verifier import keys

    trusted = [keys.parse_key(text) for text in texts]
    if key_set is not None:
        trusted += keys.parse_key_set(read(key_set, "the key set", keys.MAX_KEY_SET_SIZE))
    if successors is not None:
        offered = keys.parse_key_set(read(successors, "the set of successors", keys.MAX_KEY_SET_SIZE))
        trusted = [*keys.follow(trusted, offered)]
    return trusted


def means(options: SimpleNamespace) -> "Means":
    """Return what the levels are checked with; whatever is given makes its level required."""
    from kapsel_verifier.levels import Means

    required = set(options.require)
    policy = None
    if options.policy:
        from kapsel_verifier import policy as policies

        policy = policies.parse(read(options.policy, "the policy", policies.MAX_POLICY_SIZE))
    if options.block_header:
        required.add("anchored")
    if options.destination_key:
        required.add("acknowledged")
    return Means(
        policy=policy,
        block_headers=tuple(_block_header(text) for text in options.block_header),
        min_difficulty=options.min_difficulty,
        destination_keys=tuple(key for text in options.destination_key for key in _destination_keys(text)),
        require=frozenset(required),
    )


def known_head(checkpoint: str | None, consistency: str | None) -> "KnownHead | None":
    """Read the head that the caller holds, and what connects it with that of the proof."""
    if checkpoint is None:
        return None
    from kapsel_verifier.consistency import MAX_CONSISTENCY_SIZE, ConsistencyProof
    from kapsel_verifier.heads import KnownHead
    from kapsel_verifier.note import MAX_NOTE_SIZE

    try:
        note = read(checkpoint, "the known checkpoint", MAX_NOTE_SIZE).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedNoteError("the known checkpoint is not UTF-8") from None
    if consistency is None:
        return KnownHead(note)
    data = read(consistency, "the consistency proof", MAX_CONSISTENCY_SIZE)
    return KnownHead(note, ConsistencyProof.parse(data))


def payload(body: str | None, salt: str | None) -> "Payload | None":
    """Read the body that was sent, and its salt from hex."""
    if body is None:
        return None
    from kapsel_verifier.verify import Payload

    try:
        opened = None if salt is None else bytes.fromhex(salt)
    except ValueError:
        raise UsageError("--payload-salt takes hex digits") from None
    return Payload(read(body, "the body", MAX_BODY_SIZE), opened)


def read(name: str, what: str, limit: int) -> bytes:
    """Read a file up to its limit, never more: the file may be huge, or endless."""
    try:
        if name == "-":
            return _read_stream(sys.stdin.buffer, what, limit)
        with open(name, "rb") as file:  # noqa: PTH123 - pathlib takes a tenth of the time this command has
            return _read_stream(file, what, limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {what} from {name}: {reason}") from None


def _read_stream(stream: BinaryIO, what: str, limit: int) -> bytes:
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise TooLargeError(what, limit)
    return data


def _block_header(text: str) -> bytes:
    from kapsel_verifier.ots import read_header

    # A file may have any name but this: 160 hex digits are a header.
    if len(text) == _HEADER_DIGITS and text.isalnum() and text.isascii():
        return read_header(text.encode("ascii"))
    return read_header(read(text, "the block header", _MAX_HEADER_FILE))


def _destination_keys(text: str) -> list[bytes]:
    # A file may have any name but these, as manifests write keys.
    if (len(text) == 64 and text.isalnum()) or text.startswith(_PUBLIC):
        return [_destination_key(text)]
    from kapsel_verifier import jwks

    data = read(text, "the destination's keys", jwks.MAX_DIRECTORY_SIZE)
    if data.lstrip().startswith(b"{"):
        return [key.public for key in jwks.parse(data)]
    try:
        lines = [line.strip() for line in data.decode("ascii").split("\n")]
    except UnicodeDecodeError:
        raise MalformedKeyError("the destination's keys are neither lines of text nor JSON") from None
    found = [_destination_key(line) for line in lines if line and not line.startswith("#")]
    if not found:
        raise MalformedKeyError("the file of the destination's keys holds none")
    return found


def _destination_key(text: str) -> bytes:
    from kapsel_verifier import strict

    what = "a key of the destination"
    if not text.startswith(_PUBLIC):
        return strict.hexadecimal(text.lower(), _KEY_SIZE, what, MalformedKeyError)
    key = strict.base64(text.removeprefix(_PUBLIC), what, MalformedKeyError)
    if len(key) != _KEY_SIZE:
        raise MalformedKeyError(f"{what} has {len(key)} bytes, not {_KEY_SIZE}")
    return key
