"""Limits of a destination, which a Relay may declare for those that say nothing: both write them in the same way."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.model import Model
from kapsel_resources.kinds.retry_policy import Retry
from kapsel_store import rows

Timeout = Annotated[Duration, Field(ge=timedelta(milliseconds=100), le=timedelta(seconds=60))]
MaxInFlight = Annotated[int, Field(ge=1, le=10_000)]


class RateLimit(Model):
    """A token bucket."""

    requests_per_second: float = Field(gt=0, le=1_000_000, description="How many a second in the long run.")
    burst: int = Field(ge=1, le=1_000_000, description="How many may come at once.")

    def row(self) -> rows.RateLimit:
        """Return the row."""
        return rows.RateLimit(requests_per_second=float(self.requests_per_second), burst=self.burst)


class Defaults(Model):
    """What holds for a destination that says nothing itself, and whose RetryPolicy says nothing either."""

    retry: Retry | None = Field(
        default=None, description="Members of a RetryPolicy, for policies and destinations that leave them open."
    )
    timeout: Timeout | None = Field(default=None, description="How long one try may take as a whole.")
    max_in_flight: MaxInFlight | None = Field(
        default=None, description="How many tries may be under way at once at each destination."
    )
    rate_limit: RateLimit | None = Field(default=None, description="How fast to send to each destination.")
