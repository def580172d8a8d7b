"""What can go wrong in the operator.

OperatorError
├── ApiError         the API server refused a request, or did not answer it
└── LeaseLostError   this operator may not write any more
"""

from typing import Final

_AGAIN: Final = frozenset({0, 408, 409, 410, 429})
# A manifest whose fields fit no type, as podTemplate can make one, is answered with 500 as if the server had trouble.
_MISFIT: Final = "failed to create typed patch object"


class OperatorError(Exception):
    """Base of all errors of this package."""


class ApiError(OperatorError):
    """A request that the API server did not carry out; `status` is 0 if it gave no answer."""

    def __init__(self, request: str, status: int, message: str) -> None:
        super().__init__(f"{request}: {status or 'no answer'}: {message}")
        self.status = status
        self.message = message

    @property
    def is_transient(self) -> bool:
        """Whether the same request may pass later."""
        return self.status in _AGAIN or (self.status >= 500 and not self.message.startswith(_MISFIT))


class LeaseLostError(OperatorError):
    """The Lease was not renewed in time, so that another operator may hold it."""
