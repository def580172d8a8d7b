"""A request as its head says it: all that is known before its body comes.

`connection` makes one of each head that was parsed; `app` looks at it.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from multidict import CIMultiDict, MultiMapping
from yarl import URL

MOST_HEADERS: Final = 128
LONGEST_LINE: Final = 8190  # bytes
LARGEST_HEAD: Final = 65_536  # bytes

_Field = tuple[bytes, bytes]


class Request:
    """The head of one request."""

    def __init__(self, method: str, raw_path: str, headers: MultiMapping[str]) -> None:
        self.method = method
        self.raw_path = raw_path  # the target as it came: with its query, its escapes, or whole
        self.headers = headers

    @cached_property
    def url(self) -> URL:
        """The target; for all but what the quick look at `raw_path` finds."""
        if self.raw_path.startswith("/"):
            path, _, query = self.raw_path.partition("#")[0].partition("?")
            return URL.build(path=path, query_string=query, encoded=True)
        return URL(self.raw_path, encoded=True)

    def has_url(self) -> bool:
        """Whether the target is one that `url` can be made of: of those that begin with a slash each one is."""
        if self.raw_path.startswith("/"):
            return True
        try:
            return bool(self.url)
        except ValueError:
            return False


def fields(raw: Sequence[_Field]) -> CIMultiDict[str]:
    """Return headers as text, in which bytes that are no UTF-8 are kept as surrogates.

    A Content-Type that says once more what the first one said is left out: careless senders set it twice, and a webhook
    shall not be lost for a repetition that means nothing. Raises ValueError for two that differ.
    """
    found = CIMultiDict(
        [
            (name.decode("utf-8", "surrogateescape"), value.rstrip(b" \t").decode("utf-8", "surrogateescape"))
            for name, value in raw
        ]
    )
    types = found.getall("Content-Type", ())
    if len(types) > 1:
        if any(one != types[0] for one in types):
            raise ValueError("Content-Type says two things")
        return _without_repeats(found)
    return found


def _without_repeats(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() != "content-type" or "Content-Type" not in kept:
            kept.add(name, value)
    return kept
