"""What can go wrong in the console.

ConsoleError
├── ProblemError   a request ends here, with the problem that its caller is told
└── TokensError    the file of tokens gives none
"""

from kapsel_console.codes import Code


class ConsoleError(Exception):
    """Base of all errors of this package."""


class ProblemError(ConsoleError):
    """The request cannot be answered; the middleware turns this into problem details."""

    def __init__(
        self, code: Code, detail: str, *, retry_after: int | None = None, members: dict[str, object] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after  # seconds
        self.members = members or {}  # extension members of the problem


class TokensError(ConsoleError):
    """The file of tokens gives none; the message says why, and never what is in it."""
