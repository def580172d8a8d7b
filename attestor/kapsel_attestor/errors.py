"""Why the attestor does not sign.

AttestorError
├── RefusedError       something around the log must be put right by a person; tried again until it is
├── MismatchError      the log does not continue what was signed, or does not hold together: it is frozen for good
└── FenceMovedError    another attestor passed the fence meanwhile; look again before doing anything
"""


class AttestorError(Exception):
    """Base of all errors of this package."""


class RefusedError(AttestorError):
    """No head can be signed until a person acts; the message says what to do."""


class MismatchError(AttestorError):
    """Signing would fork the log, or sign what its tiles do not hold."""


class FenceMovedError(AttestorError):
    """The fence is not where it was when this attestor looked."""
