"""What a destination's URL must look like, before anybody resolves or connects.

Which addresses may be reached is another question: the deliverer answers it when it connects.
"""

import re
from typing import Final
from urllib.parse import urlsplit

LONGEST: Final = 2048
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")  # RFC 3986, so that all parsers agree
ALLOWED: Final = "an absolute URL such as https://billing.example.com/hooks"


def wrong(url: str) -> str | None:
    """Return what is wrong with a destination's URL, or None."""
    if not _CHARACTERS.fullmatch(url):
        return "the URL holds a character that must be percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL cannot be parsed"
    if parts.scheme not in ("http", "https"):
        return f"the scheme {parts.scheme or '(none)'!r} is not http or https"
    if not parts.hostname:
        return "the URL has no host"
    if "@" in parts.netloc:
        return "the URL holds credentials, which every log line and proof would show"
    if "#" in url:
        return "the URL has a fragment, which is never sent"
    return "port 0 cannot be reached" if port == 0 else None


def is_plain_http(url: str) -> bool:
    """Whether the URL sends in the clear."""
    return urlsplit(url).scheme == "http"
