"""The proof as other transparency-log tools read it: C2SP tlog-proof v1, extension `.tlog-proof`.

It carries the same facts as proof.json. The leaf travels in the `extra` line, which C2SP leaves to the application and
which nothing protects; that is no loss, since its hash must lead to the signed root. Behind the leaf and a newline,
which no leaf has, follows the timestamp file, if there is one; its own digest binds it to the checkpoint.
"""

from typing import NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedProofError, TooLargeError
from kapsel_verifier.leaf import MAX_LEAF_SIZE
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.proof import MAX_PATH, MAX_PROOF_SIZE, TLOG_PROOF, Proof


class TlogProof(NamedTuple):
    """What a `.tlog-proof` file says; `verify.verify_proof` judges it."""

    leaf: bytes
    leaf_index: int  # from 0
    inclusion_proof: tuple[bytes, ...]  # 32-byte hashes from the leaf's sibling up
    checkpoint: str  # the signed note, verbatim
    ots: bytes | None = None  # a .ots file over the bytes of the checkpoint

    @classmethod
    def of(cls, proof: Proof) -> "TlogProof":
        """Return the same proof in this form."""
        return cls(
            leaf=proof.leaf,
            leaf_index=proof.leaf_index,
            inclusion_proof=proof.inclusion_proof,
            checkpoint=proof.checkpoint,
            ots=proof.ots,
        )

    def encode(self) -> bytes:
        """Return the file."""
        hashes = "".join(f"{strict.to_base64(node)}\n" for node in self.inclusion_proof)
        extra = self.leaf if self.ots is None else self.leaf + b"\n" + self.ots
        head = f"{TLOG_PROOF}\nextra {strict.to_base64(extra)}\nindex {self.leaf_index}\n"
        return f"{head}{hashes}\n{self.checkpoint}".encode()

    @classmethod
    def parse(cls, data: bytes) -> "TlogProof":
        """Read the file strictly; raises MalformedProofError or TooLargeError (beyond 1 MiB)."""
        if len(data) > MAX_PROOF_SIZE:
            raise TooLargeError("the proof", MAX_PROOF_SIZE)
        try:
            head, separator, checkpoint = data.decode("utf-8").partition("\n\n")
        except UnicodeDecodeError:
            raise MalformedProofError("the proof is not UTF-8") from None
        lines = head.split("\n")
        if not separator or lines[0] != TLOG_PROOF:
            raise MalformedProofError(f"the file is not a {TLOG_PROOF} with a checkpoint")
        if len(lines) < 3 or len(lines) > 3 + MAX_PATH:
            raise MalformedProofError("the proof lacks its extra or index line, or has too many hashes")
        extra = strict.base64(_after("extra ", lines[1]), "the extra line of the proof", MalformedProofError)
        leaf, newline, ots = extra.partition(b"\n")
        if len(leaf) > MAX_LEAF_SIZE:
            raise TooLargeError("the leaf", MAX_LEAF_SIZE)
        return cls(
            leaf=leaf,
            leaf_index=strict.decimal(_after("index ", lines[2]), "the index of the proof", MalformedProofError),
            inclusion_proof=tuple(_hash(line, number) for number, line in enumerate(lines[3:], 4)),
            checkpoint=checkpoint,
            ots=ots if newline else None,
        )


def _after(prefix: str, line: str) -> str:
    if not line.startswith(prefix):
        raise MalformedProofError(f"a line of the proof does not begin with {prefix.strip()}")
    return line.removeprefix(prefix)


def _hash(line: str, number: int) -> bytes:
    what = f"the hash in line {number} of the proof"
    node = strict.base64(line, what, MalformedProofError)
    if len(node) != HASH_SIZE:
        raise MalformedProofError(f"{what} does not have {HASH_SIZE} bytes")
    return node
