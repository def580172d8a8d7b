"""What objects are called and how they are labelled.

An object of the Relay `main` is called `main-receiver` and so on. Names of Services are the strictest: 63 characters,
no dots, a letter first; a Relay whose name does not fit into that gets a shorter form with a digest, which stays the
same for ever.
"""

import hashlib
import re
from typing import Final

from kapsel_resources.kinds.relay import Relay

LONGEST: Final = 63
MANAGED_BY: Final = "kapsel"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "kapsel-operator"  # the field manager of everything that the operator applies
_SERVICE_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DIGEST: Final = 8


def object_name(relay: str, suffix: str, longest: int = LONGEST) -> str:
    """Return the name of an object of the Relay of that name."""
    plain = f"{relay}-{suffix}"
    if len(plain) <= longest and _SERVICE_NAME.fullmatch(plain):
        return plain
    readable = re.sub(r"[^-a-z0-9]", "-", relay)
    if not readable[0].isalpha():
        readable = f"r{readable}"
    room = longest - len(suffix) - _DIGEST - 2
    return f"{readable[:room].rstrip('-')}-{digest(relay)}-{suffix}"


def digest(text: str) -> str:
    """Return a few characters that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def label_value(text: str) -> str:
    """Return the text as a label may hold it: at most 63 characters, a letter or digit at both ends."""
    if len(text) <= LONGEST and text[0].isalnum() and text[-1].isalnum():
        return text
    return f"{text[: LONGEST - _DIGEST - 1].strip('-._')}-{digest(text)}".lstrip("-")


def selector(relay: Relay, component: str) -> dict[str, str]:
    """Return the labels that find the pods of a component: these never change, for no Deployment could follow."""
    return {
        "app.kubernetes.io/name": "kapsel",
        "app.kubernetes.io/instance": label_value(relay.metadata.name),
        "app.kubernetes.io/component": component,
    }


def labels(relay: Relay, component: str, version: str) -> dict[str, str]:
    """Return all labels of an object."""
    return {
        **selector(relay, component),
        "app.kubernetes.io/part-of": "kapsel",
        MANAGED_BY_LABEL: MANAGED_BY,
        "app.kubernetes.io/version": label_value(version),
    }
