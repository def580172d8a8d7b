"""What a proof file claims about its own strength: four levels, each with what would have to be shown for it.

`proof` writes and reads these claims, `verify` holds them to the note and the leaf that they repeat, and `levels`
judges what they are worth. Until then they are words: anybody can write a line that looks like a witness's.
"""

from typing import Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.note import Note

CLAIMED: Final = "claimed"  # in the log, signed by its operator alone
WITNESSED: Final = "witnessed"  # others cosigned the head
ANCHORED: Final = "anchored"  # a block of Bitcoin commits to the head
ACKNOWLEDGED: Final = "acknowledged"  # the destination signed that it got the delivery
LEVELS: Final = (CLAIMED, WITNESSED, ANCHORED, ACKNOWLEDGED)  # from the weakest to the strongest

_COSIGNATURE_SIZE: Final = 72  # bytes after the key id: date(8) || signature(64)


class CosignatureClaim(NamedTuple):
    """A signature line that looks like a witness's: only a policy knows whose it is."""

    name: str
    key_id: bytes  # 4 bytes
    timestamp_s: int  # seconds since 1970-01-01 UTC, by the witness's clock


class AcknowledgementClaim(NamedTuple):
    """What the leaf says that the destination signed, and the key that it is said to have."""

    base: bytes
    key: bytes  # 32 bytes
    signature: bytes  # 64 bytes


def cosignatures_in(note: Note) -> tuple[CosignatureClaim, ...]:
    """Return the lines of a note that have the form of a cosignature under a name other than the log's, in order."""
    origin = note.text.partition("\n")[0]
    found = []
    for line in note.signatures:
        timestamp_s = int.from_bytes(line.signature[:8], "big")
        if line.name != origin and len(line.signature) == _COSIGNATURE_SIZE and timestamp_s <= strict.MAX_INTEGER:
            found.append(CosignatureClaim(line.name, line.key_id, timestamp_s))
    return tuple(found)


def acknowledgement_in(leaf: object) -> AcknowledgementClaim | None:
    """Return the acknowledgement in a leaf; what a log says about itself has none."""
    if not isinstance(leaf, Leaf):
        return None
    base, key, signature = leaf.acknowledgement_base, leaf.acknowledgement_key, leaf.acknowledgement_signature
    if base is None or key is None or signature is None:
        return None
    return AcknowledgementClaim(base, key, signature)


def strongest(
    cosignatures: tuple[CosignatureClaim, ...], ots: bytes | None, acknowledgement: AcknowledgementClaim | None
) -> str:
    """Return the strongest level that these claims come to.

    Raises MalformedTimestampError, UnsupportedProofError or TooLargeError if `ots` is no timestamp file.
    """
    if acknowledgement is not None:
        return ACKNOWLEDGED
    if ots is not None and names_a_block(ots):
        return ANCHORED
    return WITNESSED if cosignatures else CLAIMED


def names_a_block(ots: bytes) -> bool:
    """Say whether a timestamp file leads to a block, and not to calendars' promises alone; raises as `strongest`."""
    from kapsel_verifier.ots import parse  # few proofs have one

    return bool(parse(ots).blocks())
