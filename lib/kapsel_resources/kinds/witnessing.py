"""Who cosigns the heads of a log: a part of AttestationLog."""

from datetime import timedelta
from typing import Final

from pydantic import Field, model_validator

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.model import LABEL, WITNESS_KEY, WITNESS_URL, Model, broken, unique
from kapsel_resources.rules import Rule
from kapsel_store import rows

_WITNESSING: Final = rows.Witnessing(witnesses=(), quorum=0)


class Witness(Model):
    """Somebody else who follows the log, and cosigns a head only if it extends the last one."""

    KEY = "name"

    name: str = Field(max_length=63, pattern=LABEL, description="Name of the witness in metrics and messages.")
    vkey: str = Field(
        max_length=400,
        pattern=WITNESS_KEY,
        description="Its verifier key (C2SP cosignature/v1, Ed25519), as `kapsel witness --print-key` prints it.",
    )
    url: str = Field(
        max_length=500,
        pattern=WITNESS_URL,
        description=(
            "Where it is asked: its submission prefix, to which /add-checkpoint is added. Plain http does no harm to "
            "what it says, for that is signed. Redirects are not followed."
        ),
    )


class Witnessing(Model):
    """Keeps the log from showing one history to some and another to others."""

    RULES = (
        Rule(
            "self.witnesses.all(one, self.witnesses.exists_one(other, one.vkey == other.vkey))",
            "each vkey once",
            "witnesses",
        ),
        Rule(
            "!has(self.quorum) || self.quorum <= size(self.witnesses)",
            "more than there are witnesses; allowed: at most as many as witnesses",
            "quorum",
        ),
    )

    witnesses: tuple[Witness, ...] = Field(
        strict=False,
        min_length=1,
        max_length=16,
        description="Who is asked for a cosignature of each head, all at once. Choose people whom you do not control.",
    )
    quorum: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="How many of them make a head witnessed. Default: more than half.",
    )
    required: bool = Field(
        default=_WITNESSING.required,
        description=(
            "Whether a head without a quorum is withheld. Leaves go on, and proofs of new attempts wait until the "
            "quorum is there again. Without it a head is published with the cosignatures that came in time."
        ),
    )
    timeout: Duration = Field(
        default=_WITNESSING.timeout,
        ge=timedelta(milliseconds=100),
        le=timedelta(seconds=30),
        description="How long a head waits for its witnesses at most. One that keeps failing is left out for a while.",
    )
    queries_per_day: int | None = Field(
        default=None,
        ge=24,
        le=86_400,
        description=(
            "How many heads each witness is sent at most, evenly over the day: public witnesses give a log such a "
            "budget. With `required`, heads are published no more often. Default: every head."
        ),
    )

    @model_validator(mode="after")
    def _coherent(self) -> "Witnessing":
        unique((one.name for one in self.witnesses), "witness", "witnesses")
        unique((one.vkey for one in self.witnesses), "vkey", "witnesses")
        if self.quorum is not None and self.quorum > len(self.witnesses):
            broken(f"{self.quorum} is more than there are witnesses", "at most as many as witnesses", "quorum")
        return self
