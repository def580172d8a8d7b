"""The inside of an OpenTimestamps file: paths of steps from a message to somebody's attestation.

`ots` reads and writes whole files with it, the attestor what calendars answer, which is the same without the front of
a file. Read is what other implementations write, in its one spelling: `encode` gives back the bytes that were read.
Nothing here says whether an attestation is true.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from kapsel_verifier.errors import MalformedTimestampError, TooLargeError

MAX_SIZE: Final = 65_536  # bytes; what five calendars say of one digest has 10,000
MAX_MESSAGE: Final = 4_096  # bytes, of a message on the way and of what a step adds to it
MAX_PAYLOAD: Final = 8_192  # bytes of one attestation
MAX_HEIGHT: Final = 2**53 - 1  # of a block: what a report in JSON can say exactly
MAX_URI: Final = 1_000  # characters
MAX_STEPS: Final = 255  # from the first message to an attestation
MAX_PATHS: Final = 256

PENDING: Final = bytes.fromhex("83dfe30d2ef90c8e")  # a calendar's promise
BITCOIN: Final = bytes.fromhex("0588960d73d71901")  # the message is the Merkle root of a block

SHA1: Final = 0x02
RIPEMD160: Final = 0x03
SHA256: Final = 0x08
KECCAK256: Final = 0x67
APPEND: Final = 0xF0
PREPEND: Final = 0xF1
REVERSE: Final = 0xF2
HEXLIFY: Final = 0xF3

_ATTESTATION: Final = 0x00
_FORK: Final = 0xFF
_DIGESTS: Final = {SHA1: 20, RIPEMD160: 20, SHA256: 32, KECCAK256: 32}  # bytes
_URI: Final = re.compile(rb"[A-Za-z0-9\-._/:]*")


class Step(NamedTuple):
    """One operation on a message; `argument` is what APPEND and PREPEND add."""

    tag: int
    argument: bytes = b""


class Attestation(NamedTuple):
    """Who says that the message at the end of a path was there; the payload's form depends on the tag."""

    tag: bytes  # 8 bytes; those that are not known are kept, and never trusted
    payload: bytes


class Path(NamedTuple):
    """Steps from a message, and the attestation that they lead to."""

    steps: tuple[Step, ...]
    attestation: Attestation


def parse(data: bytes, size: int) -> tuple[Path, ...]:
    """Read all that follows a message of `size` bytes; raises MalformedTimestampError, or TooLargeError (64 KiB)."""
    if len(data) > MAX_SIZE:
        raise TooLargeError("the timestamp", MAX_SIZE)
    reader = _Reader(data)
    paths = _read_paths(reader, size)
    if reader.at != len(data):
        raise MalformedTimestampError("the timestamp has bytes after its end")
    if encode(paths) != data:
        raise MalformedTimestampError("the timestamp has one step or attestation twice")
    return paths


def encode(paths: Iterable[Path]) -> bytes:
    """Return the bytes that follow the message; steps that paths share are written once."""
    return _encode([(*path.steps, path.attestation) for path in paths], 0)


def ordered(paths: Iterable[Path], size: int) -> tuple[Path, ...]:
    """Return each path once and those that share steps side by side, as `parse` would; raises what it raises."""
    return parse(encode(paths), size)


def follow(message: bytes, steps: Iterable[Step]) -> bytes | None:
    """Return the message at the end of the steps; None if they use a hash other than SHA-256.

    Paths to Bitcoin need no other. SHA-1 is broken, and the others are not everywhere at hand: a path that one
    verifier can follow and another cannot would be worse than one that none follows.
    """
    for tag, argument in steps:
        if tag == SHA256:
            message = sha256(message).digest()
        elif tag == APPEND:
            message += argument
        elif tag == PREPEND:
            message = argument + message
        elif tag == REVERSE:
            message = message[::-1]
        elif tag == HEXLIFY:
            message = message.hex().encode()
        else:
            return None
    return message


def pending(uri: str) -> Attestation:
    """Return the attestation of a calendar that is to be asked again."""
    return Attestation(PENDING, _varbytes(uri.encode("ascii")))


def bitcoin(height: int) -> Attestation:
    """Return the attestation of the block at this height."""
    return Attestation(BITCOIN, _varint(height))


def pending_uri(attestation: Attestation) -> str:
    """Return the calendar of a PENDING attestation; raises MalformedTimestampError."""
    reader = _Reader(attestation.payload)
    uri = reader.varbytes(MAX_URI)
    if reader.at != len(attestation.payload) or not _URI.fullmatch(uri):
        raise MalformedTimestampError("a calendar's address in the timestamp is not of the form it must have")
    return uri.decode("ascii")


def block_height(attestation: Attestation) -> int:
    """Return the height in a BITCOIN attestation; raises MalformedTimestampError."""
    reader = _Reader(attestation.payload)
    height = reader.varint()
    if reader.at != len(attestation.payload):
        raise MalformedTimestampError("a block's height in the timestamp is followed by more")
    if height > MAX_HEIGHT:
        raise MalformedTimestampError("a block's height in the timestamp is beyond 2^53 - 1")
    return height


class _Reader:
    """Takes bytes off the front; reading past the end is refused."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self.at : self.at + size]
        if len(taken) < size:
            raise MalformedTimestampError("the timestamp ends too early")
        self.at += size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        """Read an integer below 2^63 in LEB128, in its shortest form."""
        value = shift = 0
        while (byte := self.byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 56:
                raise MalformedTimestampError("a number in the timestamp is too large")
        if byte == 0 and shift:
            raise MalformedTimestampError("a number in the timestamp is written longer than it is")
        return value | byte << shift

    def varbytes(self, limit: int) -> bytes:
        size = self.varint()
        if size > limit:
            raise MalformedTimestampError(f"a part of the timestamp is longer than {limit} bytes")
        return self.take(size)


def _read_paths(reader: _Reader, size: int) -> tuple[Path, ...]:
    """Read the tree depth first, without recursion: the file says how deep it is."""
    paths: list[Path] = []
    forks: list[tuple[tuple[Step, ...], int]] = []  # places from which one more branch follows
    steps: tuple[Step, ...] = ()
    while True:
        tag = reader.byte()
        if tag == _FORK:
            forks.append((steps, size))
            if len(paths) + len(forks) >= MAX_PATHS:
                raise MalformedTimestampError(f"the timestamp has more than {MAX_PATHS} paths")
            tag = reader.byte()
        if tag == _ATTESTATION:
            paths.append(Path(steps, _read_attestation(reader)))
            if not forks:
                return tuple(paths)
            steps, size = forks.pop()
        else:
            step = _read_step(reader, tag)
            steps, size = (*steps, step), _size_after(step, size)
            if len(steps) > MAX_STEPS:
                raise MalformedTimestampError(f"a path of the timestamp has more than {MAX_STEPS} steps")


def _read_step(reader: _Reader, tag: int) -> Step:
    if tag in (APPEND, PREPEND):
        argument = reader.varbytes(MAX_MESSAGE)
        if not argument:
            raise MalformedTimestampError("a step of the timestamp adds nothing")
        return Step(tag, argument)
    if tag in (REVERSE, HEXLIFY) or tag in _DIGESTS:
        return Step(tag)
    raise MalformedTimestampError(f"the timestamp has a step of the unknown kind {tag:02x}")


def _size_after(step: Step, size: int) -> int:
    if step.tag in _DIGESTS:
        return _DIGESTS[step.tag]
    after = 2 * size if step.tag == HEXLIFY else size + len(step.argument)
    if after > MAX_MESSAGE:
        raise MalformedTimestampError(f"a message of the timestamp is longer than {MAX_MESSAGE} bytes")
    return after


def _read_attestation(reader: _Reader) -> Attestation:
    attestation = Attestation(reader.take(8), reader.varbytes(MAX_PAYLOAD))
    if attestation.tag == PENDING:
        pending_uri(attestation)
    elif attestation.tag == BITCOIN:
        block_height(attestation)
    return attestation


def _encode(paths: Sequence[tuple[Step | Attestation, ...]], depth: int) -> bytes:
    branches: dict[Step | Attestation, list[tuple[Step | Attestation, ...]]] = {}
    for path in paths:
        branches.setdefault(path[depth], []).append(path)
    parts: list[bytes] = []
    for first, rest in branches.items():
        parts.append(_step(first) + _encode(rest, depth + 1) if isinstance(first, Step) else _attestation(first))
    return b"".join([*(bytes([_FORK]) + part for part in parts[:-1]), parts[-1]])


def _step(step: Step) -> bytes:
    return bytes([step.tag]) + (_varbytes(step.argument) if step.tag in (APPEND, PREPEND) else b"")


def _attestation(attestation: Attestation) -> bytes:
    return bytes([_ATTESTATION]) + attestation.tag + _varbytes(attestation.payload)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _varbytes(data: bytes) -> bytes:
    return _varint(len(data)) + data
