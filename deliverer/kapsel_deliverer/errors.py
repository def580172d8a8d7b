"""What can go wrong in the deliverer that is not an outcome.

DelivererError
└── AddressDeniedError   a name resolves to denied addresses alone
"""

from kapsel_egress.verdicts import Denied


class DelivererError(Exception):
    """Base of all errors of this package."""


class AddressDeniedError(DelivererError, OSError):
    """A name resolves to denied addresses alone; an OSError too, because that is what a resolver may raise."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.detail)
        self.denied = denied
