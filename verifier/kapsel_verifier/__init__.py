"""Offline checks of proofs of delivery: the formats of kapsel and every check an auditor needs.

It needs the standard library and pynacl, which it can do without, and talks to nobody. The formats: `merkle` (RFC
6962), `leaf` and `statements`, `note` (C2SP signed note and checkpoint), `sth`, `cosignature`, `policy`, `ots`,
`tiles`, `keys` and `jwks`, `proof` (proof.json), `tlog_proof`, `consistency`. The judgement: `verify`, with `heads`,
`levels` and `acknowledgement`; `errors` are its refusals, `report` its words, `cli` the command.
docs/proof-format.md describes the formats so that others can write their own verifier.

Values here are named tuples where the rest of kapsel has frozen dataclasses: importing `dataclasses` loads `inspect`,
and together with making the classes that would be a third of the time kapsel-verify takes.
"""

from kapsel_verifier.errors import VerificationError
from kapsel_verifier.merkle import leaf_hash, node_hash, root_from_leaves, verify_consistency, verify_inclusion

__all__ = [
    "VerificationError",
    "leaf_hash",
    "node_hash",
    "root_from_leaves",
    "verify_consistency",
    "verify_inclusion",
]
