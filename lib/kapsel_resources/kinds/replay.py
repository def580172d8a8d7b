"""Replay: a one-shot job, like a Job: deliver a selection of events again."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kapsel_expressions.expression import LONGEST
from kapsel_resources.kinds.model import LABEL, Model, Reference, Resource, broken, unique
from kapsel_resources.rules import Rule, quoted
from kapsel_resources.times import Time
from kapsel_store.reasons import REASONS, STATUSES, instead

_RATE: Final = 50
_CODE: Final = "^[a-z][a-z0-9_]*$"
_MISSING: Final = "missing stands alone"
_NO_REASON: Final = "what is missing has no reason"
_NO_SUCH_REASON: Final = "there is no such reason"
_DONE_ONCE: Final = "a Replay is carried out once, as it was applied: apply another one"


class Selection(Model):
    """Which deliveries: those of events that came in within [from, to) and that ended so."""

    RULES = (
        Rule("self.from < self.to", "from is not before to", "from"),
        Rule("!has(self.states) || !('missing' in self.states) || size(self.states) == 1", _MISSING, "states"),
        Rule(
            "!has(self.states) || !('missing' in self.states) || (!has(self.reasons) && !has(self.faults))",
            _NO_REASON,
            "states",
        ),
        Rule(
            f"!has(self.reasons) || self.reasons.all(one, one in {list(REASONS)} || one.matches({quoted(STATUSES)}))",
            _NO_SUCH_REASON,
            "reasons",
        ),
    )

    from_: Time = Field(alias="from", description="The first instant that is in.")
    to: Time = Field(description="The first instant that is out.")
    states: tuple[Literal["delivered", "exhausted", "cancelled", "missing"], ...] = Field(
        default=("exhausted",),
        strict=False,
        min_length=1,
        max_length=3,
        description=(
            "How the deliveries ended. missing, which stands alone: events that have no delivery to the destination, "
            "because it was declared after they came in."
        ),
    )
    reasons: tuple[Annotated[str, Field(max_length=63, pattern=_CODE)], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=32,
        description=(
            "For which reasons: codes such as status_503 or dns, or status_5xx; only such as there are. Without it: "
            "whatever they are."
        ),
    )
    faults: tuple[Literal["destination", "configuration", "ours"], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=3,
        description="Whose fault it was, besides `reasons`.",
    )
    filter: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST,
        description=(
            "Which events, as a CEL expression that gives true or false, such as `event.body.amount > 100`: as the "
            "filter of a destination. An event on which it fails is left out, and counted. Without it: all."
        ),
    )
    include_pending: bool = Field(
        default=False,
        description=(
            "true: also what is being delivered again already, by a person or another Replay, so that a destination "
            "may get it twice."
        ),
    )

    @model_validator(mode="after")
    def _from_before_to(self) -> "Selection":
        if self.from_ >= self.to:
            broken("from is not before to", "a from that is earlier than to", "from")
        unique(self.states, "state", "states")
        unique(self.faults or (), "fault", "faults")
        for index, code in enumerate(self.reasons or ()):
            if (allowed := instead(code)) is not None:
                broken(f"{_NO_SUCH_REASON}: {code}", allowed, "reasons", index)
        if "missing" in self.states and len(self.states) > 1:
            broken(_MISSING, "missing alone, or states without it", "states")
        if "missing" in self.states and (self.reasons or self.faults):
            broken(_NO_REASON, "states without missing, or neither reasons nor faults", "states")
        return self


class ReplaySpec(Model):
    """What to deliver again. Every delivery of the selection gets a new one; the old one stays as it is."""

    RULES = (
        *(Rule(f"self.{name} == oldSelf.{name}", _DONE_ONCE, name) for name in ("endpointRef", "selection")),
        Rule(
            "has(self.destinations) == has(oldSelf.destinations)"
            " && (!has(self.destinations) || self.destinations == oldSelf.destinations)",
            _DONE_ONCE,
            "destinations",
        ),
        Rule(
            f"(has(self.rate) ? self.rate : {_RATE}) == (has(oldSelf.rate) ? oldSelf.rate : {_RATE})",
            _DONE_ONCE,
            "rate",
        ),
        Rule("(has(self.dryRun) && self.dryRun) == (has(oldSelf.dryRun) && oldSelf.dryRun)", _DONE_ONCE, "dryRun"),
    )

    endpoint_ref: Reference = Field(description="The WebhookEndpoint whose events are meant.")
    destinations: tuple[Annotated[str, Field(max_length=63, pattern=LABEL)], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=32,
        description="To which destinations. Without it: to all.",
    )
    selection: Selection = Field(description="Which deliveries.")
    rate: int = Field(
        default=_RATE,
        ge=1,
        le=100_000,
        description="How many deliveries a second are made anew, so that a replay leaves room for what comes in.",
    )
    dry_run: bool = Field(
        default=False, description="true: only count what the selection matches, and deliver nothing again."
    )
    suspend: bool = Field(
        default=False, description="true: make no more deliveries until this is false again. May be changed any time."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description=(
            "How long after its end a cluster deletes the Replay. Without it the Replay stays. May be changed any time."
        ),
    )


class Replay(Resource):
    """A one-shot job: deliver a selection of events again."""

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["Replay"]
    spec: ReplaySpec = Field(description="What to deliver again.")
