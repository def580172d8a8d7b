"""Why the attestor does not sign.

AttestorError
├── RefusedError       something around the log must be put right by a person; tried again until it is
│   └── FrozenError    the log was frozen before
├── MismatchError      the log does not continue what was signed, or does not hold together: it is frozen for good
├── FenceMovedError    another attestor passed the fence meanwhile; look again before doing anything
└── FenceAwayError     the fence cannot be reached just now; heads wait for it, and leaves do not
"""


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


class FenceAwayError(AttestorError):
    """The fence cannot be reached, and may well be a moment later."""
