"""What can go wrong between the tree and its tiles.

TlogError
├── TilePathError      text that is not the path of a tile
└── DamagedTreeError   stored tiles that do not make the tree they belong to
"""


class TlogError(Exception):
    """Base of all errors of this package."""


class TilePathError(TlogError):
    """The text is not a tile path in its one canonical form."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path!r} is not a tile path such as tile/0/x001/067 or tile/0/x001/067.p/5")
        self.path = path


class DamagedTreeError(TlogError):
    """A tile is missing, short, or holds hashes that do not fold to what they must; no head may be signed over it."""
