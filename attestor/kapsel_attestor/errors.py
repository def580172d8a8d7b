"""Why the attestor does not sign.

AttestorError
├── RefusedError       something around the log must be put right by a person; tried again until it is
│   └── FrozenError    the log was frozen before
├── MismatchError      the log does not continue what was signed, or does not hold together: it is frozen for good
├── FenceMovedError    another attestor passed the fence meanwhile; look again before doing anything
└── LateError          heads wait, and leaves do not: tried again, less and less often
    ├── FenceAwayError     the fence cannot be reached just now
    ├── SignerAwayError    what holds the key cannot be reached just now
    ├── SigningError       what is configured cannot sign: a person has to act
    └── UncosignedError    fewer witnesses cosigned than the log demands
"""

from typing import ClassVar


class AttestorError(Exception):
    """Base of all errors of this package."""


class RefusedError(AttestorError):
    """No head can be signed until a person acts; the message says what to do."""


class FrozenError(RefusedError):
    """The log was frozen: nothing is signed over it any more."""


class MismatchError(AttestorError):
    """Signing would fork the log, or sign what its tiles do not hold."""


class FenceMovedError(AttestorError):
    """The fence is not where it was when this attestor looked."""


class LateError(AttestorError):
    """A head cannot be published now; nothing else waits for it."""

    waits_for: ClassVar[str]  # the label of the metric that counts it


class FenceAwayError(LateError):
    """The fence cannot be reached, and may well be a moment later."""

    waits_for = "fence"


class SignerAwayError(LateError):
    """The signer cannot be reached, and may well be a moment later."""

    waits_for = "signer"


class SigningError(LateError):
    """There is no key to sign with, or it does not sign as what it is configured to be; the message says what to do."""

    waits_for = "key"


class UncosignedError(LateError):
    """The log demands a quorum of witnesses, and it was not reached in time."""

    waits_for = "witnesses"
