"""Why a proof is refused: one class per way a proof can be wrong, and nothing else leaves this package.

    VerificationError               1
    ├── MalformedProofError        10   the file does not have the form of a proof
    │   └── EmbeddedKeyError       15   it brings its own public key
    ├── UnsupportedProofError      11   a version, algorithm or assurance this verifier does not know
    ├── MalformedLeafError         12   the leaf is not in the canonical form
    ├── MalformedNoteError         13   the signed note or the checkpoint in it is not well-formed
    ├── MalformedKeyError          14   a key, or the set of keys, that the verifier was given is not usable
    ├── TooLargeError              16   an input is larger than its limit
    ├── MalformedPolicyError       17   the trust policy that the verifier was given is not usable
    ├── MalformedTimestampError    18   the OpenTimestamps file is not well-formed
    ├── MalformedTileError         19   a tile, an entry bundle, or the path of one is not well-formed
    ├── UntrustedKeyError          20   no key that you trust has signed the head
    ├── SignatureError             21   a signature that claims to be by a trusted key is wrong
    ├── KeyValidityError           22   the head is dated outside the time in which its key was valid
    ├── FutureHeadError            23   the head is dated in the future
    ├── QuorumError                24   too few of the witnesses that the policy demands have cosigned the head
    ├── AcknowledgementError       25   the destination has not signed, or has signed something else
    ├── StaleHeadError             26   the head is older than you allow
    ├── HeadMismatchError          30   two places that must say the same do not
    ├── InclusionError             31   the path does not lead from the leaf to the signed root
    ├── ConsistencyError           32   the newer tree is not an extension of the older one
    ├── AnchorError                33   the timestamp does not lead from the checkpoint to the block
    ├── PayloadMismatchError       40   the body is not the one that the leaf commits to
    └── ExpectationError           41   the leaf is about something else than you asked

The numbers are exit codes of kapsel-verify and part of its interface; 2 is left to usage errors. The message of an
error says what is wrong, its `meaning` what follows from it.
"""

from typing import ClassVar


class VerificationError(Exception):
    """Base of all refusals; `exit_code` and `meaning` belong to the class, the message to the case."""

    exit_code: ClassVar[int] = 1
    meaning: ClassVar[str] = "nothing is proven"

    def sentence(self) -> str:
        """Return what is wrong and what it means as one sentence for people."""
        return f"{self}: {self.meaning}."


class MalformedProofError(VerificationError):
    """The file is not strict JSON, or members are missing, unknown, doubled or of the wrong form."""

    exit_code = 10
    meaning = "the file is damaged or is not a proof, and says nothing"


class EmbeddedKeyError(MalformedProofError):
    """The proof brings a public key: anybody can sign with a key of their own."""

    exit_code = 15
    meaning = "a proof checked with a key of its own proves nothing, the key must come from elsewhere"


class UnsupportedProofError(VerificationError):
    """The version, an algorithm or the assurance is not known to this verifier."""

    exit_code = 11
    meaning = "this verifier cannot judge it, a newer one may"


class MalformedLeafError(VerificationError):
    """The leaf is not in the canonical form, byte for byte."""

    exit_code = 12
    meaning = "what the log recorded is no delivery attempt that can be read in one way only"


class MalformedNoteError(VerificationError):
    """The signed note, or the checkpoint in it, is not well-formed."""

    exit_code = 13
    meaning = "the head is damaged, and nothing in it can be trusted"


class MalformedKeyError(VerificationError):
    """A key, or the set of keys, that the verifier was given is not usable."""

    exit_code = 14
    meaning = "nothing was checked, the trusted key must be corrected first"


class TooLargeError(VerificationError):
    """An input is larger than its limit; no more than the limit was read."""

    exit_code = 16
    meaning = "nothing was checked"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is larger than {limit} bytes")
        self.limit = limit


class MalformedPolicyError(VerificationError):
    """The trust policy that the verifier was given is not usable."""

    exit_code = 17
    meaning = "nothing was checked, the policy must be corrected first"


class MalformedTimestampError(VerificationError):
    """The OpenTimestamps file is not well-formed, or is not written in its one spelling."""

    exit_code = 18
    meaning = "the timestamp is damaged or is none, and dates nothing"


class MalformedTileError(VerificationError):
    """A tile, an entry bundle, or the path of one is not well-formed."""

    exit_code = 19
    meaning = "the log does not serve what it must, and nothing was learnt from it"


class UntrustedKeyError(VerificationError):
    """No trusted key has signed the head, or it is the head of another log."""

    exit_code = 20
    meaning = "whoever signed it is not somebody you trust"


class SignatureError(VerificationError):
    """A signature names a trusted key and was not made by it over this text."""

    exit_code = 21
    meaning = "the head was changed after signing, or somebody pretends to be the log"


class KeyValidityError(VerificationError):
    """The head is dated outside the time in which its key was valid."""

    exit_code = 22
    meaning = "the key was not to be trusted at that time"


class FutureHeadError(VerificationError):
    """The head is dated later than now, by more than clocks may differ."""

    exit_code = 23
    meaning = "the log or this machine has a wrong clock, or the date is forged"


class StaleHeadError(VerificationError):
    """The head is dated longer ago than the caller allows."""

    exit_code = 26
    meaning = "the log may have gone on without telling you, or somebody hands out an old proof"


class QuorumError(VerificationError):
    """Too few of the witnesses that the policy demands have cosigned the head."""

    exit_code = 24
    meaning = "the log may be showing this head to you alone"

    def __init__(self, what: str, signed: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> None:
        names = ", ".join(ascii(name)[1:-1] for name in missing[:10]) + (", ..." if len(missing) > 10 else "")
        super().__init__(what + (f"; there is no cosignature by {names}" if missing else ""))
        self.signed = signed  # names in the policy of the witnesses that cosigned
        self.missing = missing  # and of those that did not


class AcknowledgementError(VerificationError):
    """The destination has not signed what it got, or has signed something else, or another key was used."""

    exit_code = 25
    meaning = "that the destination got this delivery is not proven"


class HeadMismatchError(VerificationError):
    """Two forms of the head, or the proof and its head, do not say the same."""

    exit_code = 30
    meaning = "the proof was put together from parts that do not belong together"


class InclusionError(VerificationError):
    """The path does not lead from the leaf to the signed root."""

    exit_code = 31
    meaning = "this attempt is not, in this form and at this place, in the log that was signed"


class ConsistencyError(VerificationError):
    """The newer tree is not an extension of the older one."""

    exit_code = 32
    meaning = "the log was rewritten, or these heads are of different logs"


class AnchorError(VerificationError):
    """The timestamp does not lead from this checkpoint to a block of Bitcoin that can be what it says."""

    exit_code = 33
    meaning = "nothing but the log's own word says when this head existed"


class PayloadMismatchError(VerificationError):
    """The body is not the one that the leaf commits to."""

    exit_code = 40
    meaning = "the log recorded that something else was sent"


class ExpectationError(VerificationError):
    """The leaf is about something else than was asked."""

    exit_code = 41
    meaning = "the proof may be true, but it is not the proof of what you asked for"
