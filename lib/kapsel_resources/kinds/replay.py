"""Replay: a one-shot job, like a Job: deliver a selection of events again."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from kapsel_resources.kinds.model import LABEL, Model, Reference, Resource, broken, unique

_ALLOWED: Final = "a time with its offset, such as 2026-03-01T09:30:00Z"


def _time(value: object) -> object:
    parsed = value
    if isinstance(value, str) and len(value) <= 64:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            broken(f"{value!r} is not a time", _ALLOWED)
    if not isinstance(parsed, datetime):
        broken(f"{value!r} is not a time", _ALLOWED)
    if parsed.tzinfo is None:
        broken(f"{value!s} has no offset from UTC", _ALLOWED)
    return parsed.astimezone(UTC)


Time = Annotated[datetime, BeforeValidator(_time)]


class Selection(Model):
    """Which deliveries: those of events that came in within [from, to) and that ended so."""

    from_: Time = Field(alias="from", description="The first instant that is in.")
    to: Time = Field(description="The first instant that is out.")
    states: tuple[Literal["delivered", "exhausted", "cancelled"], ...] = Field(
        default=("exhausted",), strict=False, min_length=1, max_length=3, description="How the deliveries ended."
    )

    @model_validator(mode="after")
    def _from_before_to(self) -> "Selection":
        if self.from_ >= self.to:
            broken("from is not before to", "a from that is earlier than to", "from")
        unique(self.states, "state", "states")
        return self


class ReplaySpec(Model):
    """What to deliver again. Every delivery of the selection gets a new one; the old one stays as it is."""

    endpoint_ref: Reference = Field(description="The WebhookEndpoint whose events are meant.")
    destinations: tuple[Annotated[str, Field(max_length=63, pattern=LABEL)], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=32,
        description="To which destinations. Without it: to all.",
    )
    selection: Selection = Field(description="Which deliveries.")


class Replay(Resource):
    """A one-shot job: deliver a selection of events again."""

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["Replay"]
    spec: ReplaySpec = Field(description="What to deliver again.")
