"""To which servers the identity of the pod may go.

A SigningKey names addresses, and who may write one need not be allowed to make a pod. So what proves that a request is
of this pod (the token of its service account, the token for AWS, what Google's metadata server gives) goes to the
provider's own hosts, to this machine, and to hosts that who runs the attestor has named: never to whatever a manifest
says. Credentials from a Secret of the manifest's own namespace are not meant; they go where the manifest says.
"""

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from kapsel_attestor.errors import SigningError

SETTING: Final = "KAPSEL_ATTESTOR_IDENTITY_HOSTS"

# No wider: below amazonaws.com and googleapis.com there are buckets and gateways that anybody can have.
AWS_STS: Final = re.compile(r"sts(-fips)?(\.[a-z]{2}(-[a-z]+)+-[0-9]+)?\.amazonaws\.com(\.cn)?")
GOOGLE_KMS: Final = re.compile(r"cloudkms(\.(mtls|p|[a-z0-9-]+\.rep))?\.googleapis\.com")
NONE: Final = re.compile(r"(?!)")  # a service that everybody runs for themselves

_THIS_MACHINE: Final = ("127.0.0.1", "::1", "localhost")


def require(url: str, what: str, own: re.Pattern[str], named: Collection[str]) -> None:
    """Raise SigningError unless `what` may go to the server at `url`."""
    host = (urlsplit(url).hostname or "").lower()
    if host in _THIS_MACHINE or host in named or own.fullmatch(host):
        return
    raise SigningError(
        f"{what} does not go to {host} because a SigningKey says so: whoever runs the attestor allows the host with "
        f"{SETTING}"
    )
