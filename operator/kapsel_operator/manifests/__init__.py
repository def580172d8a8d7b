"""The objects that a Relay becomes: pure builders, one file for each kind of object.

Called by the operator's decisions. `build` says what to apply, `held` what to leave alone, `problems` what the Relay asks
for and cannot have; `observed` reads back what became of it. Nothing here reads or writes anything.
"""

from kapsel_operator.manifests.build import Key, build, held, key_of, problems
from kapsel_operator.manifests.facts import Capability, Database, Facts, Image, Log, Manifest

__all__ = [
    "Capability",
    "Database",
    "Facts",
    "Image",
    "Key",
    "Log",
    "Manifest",
    "build",
    "held",
    "key_of",
    "problems",
]
