"""The witnesses of a log, from its AttestationLog to what the attestor asks."""

from collections.abc import Collection
from datetime import timedelta

from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.witnessing import Witnessing
from kapsel_resources.problems import Problem
from kapsel_store import rows
from kapsel_verifier import policy
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.errors import MalformedKeyError, MalformedPolicyError
from kapsel_verifier.policy import WitnessLine

_DAY = timedelta(days=1)


def plan_witnessing(spec: Witnessing) -> rows.Witnessing:
    """Return the witnesses to ask and how many are enough."""
    return rows.Witnessing(
        witnesses=tuple(rows.Witness(name=one.name, vkey=one.vkey, url=one.url) for one in spec.witnesses),
        quorum=spec.quorum or len(spec.witnesses) // 2 + 1,
        required=spec.required,
        timeout=spec.timeout,
        queries_per_day=spec.queries_per_day,
    )


def heads_apart(spec: Witnessing | None) -> timedelta:
    """Return how far apart heads must be because each needs its witnesses, and these have a budget; else zero."""
    if spec is None or not spec.required or spec.queries_per_day is None:
        return timedelta()
    return _DAY / spec.queries_per_day


def unusable(resource: Identity, spec: Witnessing, own: Collection[bytes | None]) -> Problem | None:
    """Return what is wrong with a witness's key beyond its form, or None; `own` are the public keys of the log."""
    lines = []
    for index, one in enumerate(spec.witnesses):
        try:
            lines.append(WitnessLine(one.name, WitnessKey.parse(one.vkey)))
            # One witness under two names would count twice.
            policy.quorum_of(lines, 0)
            if lines[-1].key.public_key in own:
                raise MalformedPolicyError("it is a key of the log, which would vouch for itself")
        except (MalformedKeyError, MalformedPolicyError) as error:
            return Problem(
                resource=resource,
                path=("spec", "witnessing", "witnesses", index, "vkey"),
                reason="WitnessKeyInvalid",
                wrong=f"it is not the key of another witness: {error}",
                allowed="the vkey as `kapsel witness --print-key` prints it, of type 04, each once, none of the log",
            )
    return None
