"""What can go wrong between the tree and its tiles.

TlogError
└── DamagedTreeError   stored tiles that do not make the tree they belong to
"""


class TlogError(Exception):
    """Base of all errors of this package."""


class DamagedTreeError(TlogError):
    """A tile is missing, short, or holds hashes that do not fold to what they must; no head may be signed over it."""
