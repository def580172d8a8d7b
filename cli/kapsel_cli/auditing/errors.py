"""What an audit finds wrong beside what the verifier's own classes say; each has an exit code, as those do.

VerificationError
├── BehindError          3   the log shows an older head than it has shown to others, or to you
├── SourceError          4   a server cannot be reached, hangs, or answers what no log answers
├── GapError            50   records of an endpoint are missing, doubled or out of order
└── ConsistencyError    32   (the verifier's)
    └── SplitViewError  32   two heads of one log that cannot both be true, each signed by it
"""

from collections.abc import Sequence

from kapsel_verifier.errors import ConsistencyError, VerificationError


class BehindError(VerificationError):
    """The log shows an older head than it has shown before, or to a witness."""

    exit_code = 3
    meaning = "the log withholds its newest part from you, or you are answered from an old copy"


class SourceError(VerificationError):
    """A server cannot be reached, does not answer in time, or does not answer as a log or a witness does."""

    exit_code = 4
    meaning = "so much could not be checked"


class GapError(VerificationError):
    """Records of an endpoint are missing, doubled or out of order."""

    exit_code = 50
    meaning = "the log does not hold every attempt that it numbered"


class SplitViewError(ConsistencyError):
    """Two heads that the log signed cannot both be true; `heads` are the two signed notes."""

    meaning = "the log shows different histories to different people, and these two heads prove it"

    def __init__(self, message: str, heads: Sequence[str]) -> None:
        super().__init__(message)
        self.heads = tuple(heads)
