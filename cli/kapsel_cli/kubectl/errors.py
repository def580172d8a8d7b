"""What the plugin cannot go on from, besides what every command of the package `kapsel_cli` may raise.

CliError (kapsel_cli.errors)
├── ForbiddenError   the API server does not let this person do it
└── NoConsoleError   a Relay's console cannot be asked; the API server itself answers
"""

from kapsel_cli.errors import CliError, UnreachableError


class ForbiddenError(CliError):
    """The API server does not let this person do it."""


class NoConsoleError(UnreachableError):
    """A Relay's console cannot be asked: its Service, its pods or its token are not there."""
