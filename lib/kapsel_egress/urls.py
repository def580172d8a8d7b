"""What a destination's URL must look like, before anybody resolves or connects.

Which addresses may be reached is another question, which `verdicts` answers. The forms are regular
expressions that mean the same to Python and to the API server (RE2), which checks them as rules of the CRD.
"""

import re
from typing import Final

LONGEST: Final = 2048
ALLOWED: Final = "an absolute URL such as https://billing.example.com/hooks"

_HEX: Final = "[0-9A-Fa-f]{1,4}"
_BYTE: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LAST: Final = rf"({_HEX}:{_HEX}|{_BYTE}([.]{_BYTE}){{3}})"  # the last 32 bits may be written as an IPv4 address
_IPV6: Final = "|".join(
    [
        f"({_HEX}:){{6}}{_LAST}",
        f"::({_HEX}:){{5}}{_LAST}",
        *(f"(({_HEX}:){{0,{left}}}{_HEX})?::({_HEX}:){{{4 - left}}}{_LAST}" for left in range(5)),
        f"(({_HEX}:){{0,5}}{_HEX})?::{_HEX}",
        f"(({_HEX}:){{0,6}}{_HEX})?::",
    ]
)
_PORT: Final = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_CREDENTIALS: Final = "([^/?#]*@)?"
# What a good URL looks like in one respect, and what is wrong with one that does not. Each looks at its own part.
FORMS: Final = (
    (
        r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*",  # RFC 3986, so that all parsers agree
        "the URL holds a character that must be percent-encoded",
    ),
    (r"[Hh][Tt][Tt][Pp][Ss]?:.*", "the scheme is not http or https"),
    (rf"[^:/?#]*://{_CREDENTIALS}[^/?#@:].*", "the URL has no host"),
    (r"[^/?#]*(//[^/?#@]*([/?#].*)?)?", "the URL holds credentials, which every log line and proof would show"),
    (r"[^#]*", "the URL has a fragment, which is never sent"),
    (
        rf"[^/?#]*(//{_CREDENTIALS}([^/?#@:\[\]]*|\[({_IPV6})\])(:[^/?#@\[\]]*)?([/?#].*)?)?",
        "the host of the URL cannot be read",
    ),
    (
        rf"[^/?#]*(//{_CREDENTIALS}([^/?#@:\[\]]*|\[[^/?#@\[\]]*\])(:({_PORT})?)?([/?#].*)?)?",
        "the port of the URL is not a number from 1 to 65535",
    ),
)


def wrong(url: str) -> str | None:
    """Return what is wrong with a destination's URL, or None."""
    return next((words for form, words in FORMS if not re.fullmatch(form, url, re.ASCII)), None)
