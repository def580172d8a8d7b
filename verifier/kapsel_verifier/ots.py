"""OpenTimestamps: reads and writes detached .ots files, and checks one offline against a block header of Bitcoin.

The attestor keeps such files, the prover puts them into proofs, the verifier calls `of_file` and `check`. A timestamp
leads from the SHA-256 of a file along paths (`ots_paths`) to messages that others attest. Where Bitcoin attests, the
message is the Merkle root of a block, so a block header is all it takes to check it. Whether that block is in the
chain is the caller's to know, who asks any block explorer or node; the work in a header makes it dear to invent one.
"""

import re
from hashlib import sha256
from time import gmtime, strftime
from typing import Final, NamedTuple

from kapsel_verifier import ots_paths
from kapsel_verifier.errors import AnchorError, MalformedTimestampError, TooLargeError, UnsupportedProofError
from kapsel_verifier.ots_paths import BITCOIN, PENDING, SHA256, Path

MAX_FILE_SIZE: Final = ots_paths.MAX_SIZE
HEADER_SIZE: Final = 80  # bytes of a block header
DAY: Final = 86_400  # seconds: blocks may be dated two hours ahead, and miners' clocks are their own
# A third of what a block took in 2025: to make a header with so much work costs tens of thousands of dollars in
# electricity alone, for a block that is in nobody's chain.
MIN_DIFFICULTY: Final = 50_000_000_000_000

_MAGIC: Final = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
_VERSION: Final = 1
_START: Final = len(_MAGIC) + 2  # of the digest
_EASIEST: Final = 0xFFFF << 208  # the target of difficulty 1


class Promise(NamedTuple):
    """A calendar's word that it will put the message into a block."""

    uri: str
    message: bytes


class BlockClaim(NamedTuple):
    """A block of which the file says that it holds the message: `check` finds out."""

    height: int  # the file's claim: a header does not say its height
    merkle_root: bytes  # 32 bytes, in the order in which they stand in the header


class Anchor(NamedTuple):
    """A block that was checked to commit to the file."""

    height: int  # as the file says
    block_hash: bytes  # 32 bytes, in the order in which block explorers show them
    time: int  # seconds since 1970-01-01 UTC, as the miner dated it

    @property
    def day(self) -> str:
        """The day in UTC as of which the file existed: dates of blocks are not truer than that."""
        return strftime("%Y-%m-%d", gmtime(self.time))


class Timestamp(NamedTuple):
    """What a .ots file says about the SHA-256 of a file."""

    digest: bytes  # 32 bytes
    paths: tuple[Path, ...]

    def encode(self) -> bytes:
        """Return the file."""
        return _MAGIC + bytes([_VERSION, SHA256]) + self.digest + ots_paths.encode(self.paths)

    def promises(self) -> list[Promise]:
        """Return what calendars promise, in the order of the file."""
        return [
            Promise(ots_paths.pending_uri(path.attestation), message)
            for path in self.paths
            if path.attestation.tag == PENDING and (message := ots_paths.follow(self.digest, path.steps)) is not None
        ]

    def blocks(self) -> list[BlockClaim]:
        """Return the blocks that the file names, in its order; a message that cannot be a Merkle root names none."""
        return [
            BlockClaim(ots_paths.block_height(path.attestation), message)
            for path in self.paths
            if path.attestation.tag == BITCOIN
            and (message := ots_paths.follow(self.digest, path.steps)) is not None
            and len(message) == 32
        ]


def parse(data: bytes) -> Timestamp:
    """Read a .ots file strictly: what other implementations write has one spelling, and `encode` gives it back.

    Raises MalformedTimestampError, UnsupportedProofError (a later version, or a file that was hashed otherwise than by
    SHA-256) or TooLargeError (beyond 64 KiB).
    """
    if len(data) > MAX_FILE_SIZE:
        raise TooLargeError("the timestamp", MAX_FILE_SIZE)
    if not data.startswith(_MAGIC):
        raise MalformedTimestampError("the timestamp does not begin as an OpenTimestamps file does")
    if len(data) < _START + 32:
        raise MalformedTimestampError("the timestamp ends too early")
    if data[_START - 2] != _VERSION:
        raise UnsupportedProofError(f"the timestamp is not of version {_VERSION}")
    if data[_START - 1] != SHA256:
        raise UnsupportedProofError("the timestamp is of a file that was hashed otherwise than by SHA-256")
    return Timestamp(data[_START : _START + 32], ots_paths.parse(data[_START + 32 :], 32))


def of_file(data: bytes, file: bytes) -> Timestamp:
    """Read a .ots file that must be of these bytes; raises AnchorError beside what `parse` raises."""
    timestamp = parse(data)
    if timestamp.digest != sha256(file).digest():
        raise AnchorError("the timestamp is of another file")
    return timestamp


def check(
    timestamp: Timestamp,
    header: bytes,
    *,
    not_before_ms: int | None = None,
    min_difficulty: int = MIN_DIFFICULTY,
) -> Anchor:
    """Check that the block with this 80-byte header commits to the timestamp's file, and return what follows.

    `not_before_ms` is when the file says that it was made, in milliseconds since 1970-01-01 UTC: a block cannot hold
    what came more than a day after it. Raises AnchorError.
    """
    block_hash = _worked(header, min_difficulty)
    claims = timestamp.blocks()
    if not claims:
        raise AnchorError("the timestamp names no block of Bitcoin yet")
    found = next((claim for claim in claims if claim.merkle_root == header[36:68]), None)
    if found is None:
        named = ", ".join(str(claim.height) for claim in claims[:8])
        raise AnchorError(f"the header is not that of a block that the timestamp leads to (it names {named})")
    time = int.from_bytes(header[68:72], "little")
    if not_before_ms is not None and not_before_ms > (time + DAY) * 1000:
        raise AnchorError("the block is more than a day older than what it is to date")
    return Anchor(found.height, block_hash[::-1], time)


def read_header(data: bytes) -> bytes:
    """Return the 80 bytes of a block header from a file of them, or of their 160 hex digits; raises AnchorError."""
    if len(data) == HEADER_SIZE:
        return data
    text = data.strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]{160}", text):
        raise AnchorError(f"a block header has {HEADER_SIZE} bytes, or as many in hex")
    return bytes.fromhex(text.decode("ascii"))


def _worked(header: bytes, min_difficulty: int) -> bytes:
    """Return the block's hash if finding it took the work that the header claims, and enough."""
    if len(header) != HEADER_SIZE:
        raise AnchorError(f"a block header has {HEADER_SIZE} bytes, this one has {len(header)}")
    bits = int.from_bytes(header[72:76], "little")
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    target = mantissa << (8 * (exponent - 3)) if exponent > 3 else mantissa >> (8 * (3 - exponent))
    if bits & 0x800000 or not 0 < target < 1 << 256:
        raise AnchorError("the target in the block header is none")
    block_hash = sha256(sha256(header).digest()).digest()
    if int.from_bytes(block_hash, "little") > target:
        raise AnchorError("the block header does not hold the work that it claims")
    if target * min_difficulty > _EASIEST:
        raise AnchorError(f"the block header was too easy to make: its difficulty is below {min_difficulty}")
    return block_hash
