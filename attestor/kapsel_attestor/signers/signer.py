"""One key that can sign: its public half under the log's name, when it is live, and the gate to its private half."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from kapsel_attestor.errors import SigningError
from kapsel_attestor.signers.backends import Backend
from kapsel_attestor.signers.gate import Gate
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.note import Checkpoint, VerifierKey
from kapsel_verifier.sth import SignedHead, sign_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A version of a SigningKey as the attestor uses it."""

    key: VerifierKey  # what auditors pin
    key_id: UUID  # of its row
    where: str  # for people
    not_before: datetime
    not_after: datetime | None
    backend: Backend = field(repr=False)
    gate: Gate = field(repr=False)

    def is_live(self, now: datetime) -> bool:
        """Return whether the configuration has it sign now."""
        return self.not_before <= now and not self.is_over(now)

    def is_over(self, now: datetime) -> bool:
        """Return whether the configuration has it sign no more."""
        return self.not_after is not None and self.not_after <= now

    async def sign_head(self, checkpoint: Checkpoint, timestamp_ms: int) -> SignedHead:
        """Return both forms of a head, signed and verified; raise LateError if that is not to be had now."""

        def work() -> SignedHead:
            try:
                return sign_head(checkpoint, timestamp_ms, self.key, self.backend.sign)
            except VerificationError as error:
                raise self._does_not_fit(error) from error

        return await self.gate.call(self.where, work)

    async def sign(self, message: bytes) -> bytes:
        """Return a verified signature over a message of ASCII; raise LateError if that is not to be had now."""

        def work() -> bytes:
            signature = self.backend.sign(message)
            try:
                self.key.verify(message.decode("ascii"), signature)
            except VerificationError as error:
                raise self._does_not_fit(error) from error
            return signature

        return await self.gate.call(self.where, work)

    def _does_not_fit(self, error: VerificationError) -> SigningError:
        return SigningError(
            f"{self.where} does not sign as {self.key.encode()}: {error}; it holds another key than it did, or signs "
            f"in another way (Ed25519ph): put the key back that the log was signed with"
        )


async def sign_by_all(signers: Sequence[Signer], checkpoint: Checkpoint, timestamp_ms: int) -> SignedHead:
    """Return a head that every signer has signed, in their order; the small form is that of the first."""
    # One after another: while a head waits for a signer, the next one must not be asked for nothing.
    signed = [await signer.sign_head(checkpoint, timestamp_ms) for signer in signers]
    text = checkpoint.text()
    lines = "".join(one.checkpoint.removeprefix(f"{text}\n") for one in signed)
    return SignedHead(f"{text}\n{lines}", signed[0].sth)
