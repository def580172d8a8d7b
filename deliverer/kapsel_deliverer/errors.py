"""What can go wrong in the deliverer that is not an outcome.

DelivererError
├── AddressDeniedError   a name resolves to denied addresses alone
├── BadResponseError     what came back is no HTTP, or its head is too large
├── DisconnectedError    the connection ended before there was an answer
├── NoAnswerError        there was none in time
└── ProxyError           the proxy of the Relay made no tunnel
"""

from kapsel_deliverer.outcome import ProxyReason
from kapsel_egress.verdicts import Denied


class DelivererError(Exception):
    """Base of all errors of this package."""


class AddressDeniedError(DelivererError, OSError):
    """A name resolves to denied addresses alone; an OSError too, because that is what a resolver may raise."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.detail)
        self.denied = denied


class BadResponseError(DelivererError):
    """What came back is no HTTP, or its head is too large."""


class DisconnectedError(DelivererError):
    """The connection ended before there was an answer."""


class NoAnswerError(DelivererError):
    """There was no answer in time, and the request had been sent."""


class ProxyError(DelivererError, OSError):
    """The proxy of the Relay made no tunnel, which says nothing of the destination; an OSError, as the client wants."""

    def __init__(self, reason: ProxyReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: ProxyReason = reason
