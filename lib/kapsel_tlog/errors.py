"""What can go wrong between the tree, its tiles and the logs of one database.

TlogError
├── DamagedTreeError      stored tiles, leaves or heads that do not make the tree they belong to
├── BusyLogError          a log is led by somebody else, and must not be touched meanwhile
└── NoContinuationError   a log cannot be continued in this way
"""


class TlogError(Exception):
    """Base of all errors of this package."""


class DamagedTreeError(TlogError):
    """A tile is missing, short, or holds hashes that do not fold to what they must; no head may be signed over it."""


class BusyLogError(TlogError):
    """Somebody else holds the lock of a log that another one is to continue."""

    def __init__(self, busy: str, new: str) -> None:
        super().__init__(f"the log {new} continues {busy}, and another attestor still leads that one")
        self.busy = busy
        self.new = new


class NoContinuationError(TlogError):
    """What a log is to begin with does not belong to the log before it."""
