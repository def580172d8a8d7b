"""RetryPolicy: when a delivery is tried again, what is tried again, and when a destination is left in peace."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from kapsel_resources.durations import Duration, text
from kapsel_resources.kinds.model import STATUS_CODES, Model, Resource, broken
from kapsel_resources.rules import Rule
from kapsel_store import rows

# The effective defaults are those of the rows: this kind only says how to write others.
_POLICY: Final = rows.Policy()
_BREAKER: Final = rows.CircuitBreaker()

_WAIT_MIN: Final = timedelta(milliseconds=1)
_WAIT_MAX: Final = timedelta(hours=168)
Wait = Annotated[Duration, Field(ge=_WAIT_MIN, le=_WAIT_MAX)]
StatusCodes = Annotated[str, Field(pattern=STATUS_CODES, max_length=3)]


class Backoff(Model):
    """The waits between tries."""

    RULES = (
        Rule(
            "has(self.schedule) || !has(self.type) || self.type != 'Schedule'",
            "the type is Schedule, and there is no schedule",
            "schedule",
        ),
        Rule(
            "!has(self.schedule) || (has(self.type) && self.type == 'Schedule')",
            "schedule has no meaning for the type Exponential",
            "schedule",
        ),
        *(
            Rule(
                f"!has(self.{name}) || !has(self.type) || self.type != 'Schedule'",
                f"{name} has no meaning for the type Schedule",
                name,
            )
            for name in ("initial", "factor", "max")
        ),
        Rule(
            f"(has(self.initial) ? self.initial : duration('{text(_POLICY.backoff.initial)}'))"
            f" <= (has(self.max) ? self.max : duration('{text(_POLICY.backoff.max)}'))",
            "initial is longer than max",
            "initial",
        ),
    )

    type: Literal["Exponential", "Schedule"] = Field(
        default=_POLICY.backoff.type,
        description=(
            "Exponential: initial, then times factor each, up to max. Schedule: the waits of a list, the last "
            "repeating."
        ),
    )
    initial: Duration = Field(
        default=_POLICY.backoff.initial,
        ge=_WAIT_MIN,
        le=_WAIT_MAX,
        description="Exponential: the wait after the first try.",
    )
    factor: float = Field(
        default=_POLICY.backoff.factor,
        ge=1,
        le=10,
        description="Exponential: what each wait is multiplied by to get the next.",
    )
    max: Duration = Field(
        default=_POLICY.backoff.max, ge=_WAIT_MIN, le=_WAIT_MAX, description="Exponential: no wait is longer than this."
    )
    schedule: tuple[Wait, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        max_length=32,
        description="Schedule: the waits, in order; the last one repeats.",
    )
    jitter: float = Field(
        default=_POLICY.backoff.jitter,
        ge=0,
        le=1,
        description=(
            "Each wait is multiplied by a random number between 1 - jitter and 1 + jitter, so that deliveries "
            "that failed together do not all come back together."
        ),
    )

    @model_validator(mode="after")
    def _members_of_its_type(self) -> "Backoff":
        if self.type == "Schedule":
            if self.schedule is None:
                broken(
                    "the type is Schedule, and there is no schedule",
                    "a list of waits, such as [5s, 5m, 30m]",
                    "schedule",
                )
            for name in ("initial", "factor", "max"):
                if name in self.model_fields_set:
                    broken(f"{name} has no meaning for the type Schedule", "schedule and jitter", name)
        elif self.schedule is not None:
            broken("schedule has no meaning for the type Exponential", "type: Schedule beside it", "schedule")
        elif self.initial > self.max:
            broken(
                f"initial ({text(self.initial)}) is longer than max ({text(self.max)})", "initial up to max", "initial"
            )
        return self


class RetryOn(Model):
    """What counts as worth another try. A 2xx answer is a success, and 410 Gone always stops the destination."""

    status_codes: tuple[StatusCodes, ...] = Field(
        default=_POLICY.retry_status_codes,
        strict=False,
        max_length=64,
        description=(
            'Answers that are tried again, as strings: one code ("503") or a class ("5xx"). All others give up at once.'
        ),
    )
    connection_errors: bool = Field(
        default=_POLICY.retry_connection_errors,
        description=(
            "Whether to try again when there was no answer: name not found, connection refused or reset, TLS, timeout."
        ),
    )


class RetryAfter(Model):
    """What to do when the destination says when to come back."""

    honour: bool = Field(
        default=_POLICY.honour_retry_after,
        description=(
            "Whether the Retry-After header of an answer (seconds or a date) overrides a shorter wait of the backoff."
        ),
    )
    max: Duration = Field(
        default=_POLICY.retry_after_max,
        ge=timedelta(seconds=1),
        le=_WAIT_MAX,
        description="A Retry-After beyond this is cut down to it, so that nobody can park a delivery for ever.",
    )


class Drain(Model):
    """How fast deliveries that waited behind a circuit are sent when it has closed."""

    requests_per_second: float = Field(gt=0, le=1_000_000, description="How many a second.")


class CircuitBreaker(Model):
    """When to stop trying a destination that only fails, and how to find out that it is back."""

    enabled: bool = Field(
        default=True, description="false: never stop trying; every delivery runs through its own retries."
    )
    failure_ratio: float = Field(
        default=_BREAKER.failure_ratio,
        gt=0,
        le=1,
        description="The share of failed tries in a window at which the circuit opens.",
    )
    min_attempts: int = Field(
        default=_BREAKER.min_attempts,
        ge=1,
        le=100_000,
        description="Fewer tries than this in a window never open the circuit.",
    )
    window: Duration = Field(
        default=_BREAKER.window,
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long tries are counted before the count starts again.",
    )
    open_for: Duration = Field(
        default=_BREAKER.open_for,
        ge=timedelta(milliseconds=100),
        le=timedelta(hours=24),
        description="How long an open circuit lets nothing through; then it is half open and lets probes through.",
    )
    probes: int = Field(
        default=_BREAKER.probes,
        ge=1,
        le=100,
        description=(
            "How many deliveries are tried while half open. When all succeed the circuit closes; one failure "
            "opens it again."
        ),
    )
    recovery: Duration = Field(
        default=_BREAKER.recovery,
        ge=timedelta(0),
        le=timedelta(hours=24),
        description=(
            "How long after closing everything may be sent at once again. Until then the rate is bounded: as many a "
            "second as there are probes, and twice as many in each fifth of this time. 0s: no bound."
        ),
    )
    drain: Drain | None = Field(
        default=None,
        description=(
            "How fast to send until what waited behind the circuit is sent. Without it: as fast as recovery, and then "
            "the destination's own limits let."
        ),
    )
    disable_after: Duration | None = Field(
        default=None,
        ge=timedelta(seconds=1),
        le=timedelta(hours=8760),
        description=(
            "How long a destination may only fail until it is disabled: nothing is sent until `kapsel resume` or a "
            "change of its manifest. Without it: never."
        ),
    )
    warn_at: float = Field(
        default=_BREAKER.warn_at,
        gt=0,
        le=1,
        description="At which part of disableAfter to warn: by a condition, an Event, a metric and an alert.",
    )


MaxAttempts = Annotated[int, Field(ge=1, le=1000)]
MaxAge = Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(hours=720))]


class RetryPolicySpec(Model):
    """All of it has defaults: an empty spec is the policy of a destination that names none."""

    backoff: Backoff = Field(default=Backoff(), description="The waits between tries.")
    max_attempts: MaxAttempts = Field(
        default=_POLICY.max_attempts,
        description="How many tries a delivery gets, the first one included.",
    )
    max_age: MaxAge = Field(
        default=_POLICY.max_age,
        description=(
            "How long after its event a delivery may still be tried. Whichever of maxAttempts and maxAge comes "
            "first ends it."
        ),
    )
    retry_on: RetryOn = Field(default=RetryOn(), description="Which failures are tried again.")
    retry_after: RetryAfter = Field(default=RetryAfter(), description="What a Retry-After header is worth.")
    circuit_breaker: CircuitBreaker = Field(
        default=CircuitBreaker(), description="When a destination that only fails is left in peace for a while."
    )

    def policy(self) -> rows.Policy:
        """Return the row, every field with its effective value."""
        backoff, breaker = self.backoff, self.circuit_breaker
        return rows.Policy(
            backoff=rows.Backoff(
                type=backoff.type,
                initial=backoff.initial,
                factor=backoff.factor,
                max=backoff.max,
                jitter=backoff.jitter,
                schedule=backoff.schedule or (),
            ),
            max_attempts=self.max_attempts,
            max_age=self.max_age,
            retry_status_codes=self.retry_on.status_codes,
            retry_connection_errors=self.retry_on.connection_errors,
            honour_retry_after=self.retry_after.honour,
            retry_after_max=self.retry_after.max,
            circuit_breaker=rows.CircuitBreaker(
                failure_ratio=breaker.failure_ratio,
                min_attempts=breaker.min_attempts,
                window=breaker.window,
                open_for=breaker.open_for,
                probes=breaker.probes,
                recovery=breaker.recovery,
                drain=None if breaker.drain is None else float(breaker.drain.requests_per_second),
                disable_after=breaker.disable_after,
                warn_at=float(breaker.warn_at),
            )
            if breaker.enabled
            else None,
        )


class Retry(Model):
    """Members of a RetryPolicy that hold here whatever a policy further away says. Each is taken whole."""

    backoff: Backoff | None = Field(default=None, description="The waits between tries.")
    max_attempts: MaxAttempts | None = Field(default=None, description="How many tries a delivery gets.")
    max_age: MaxAge | None = Field(default=None, description="How long after its event a delivery may still be tried.")
    retry_on: RetryOn | None = Field(default=None, description="Which failures are tried again.")
    retry_after: RetryAfter | None = Field(default=None, description="What a Retry-After header is worth.")
    circuit_breaker: CircuitBreaker | None = Field(
        default=None, description="When a destination that only fails is left in peace for a while."
    )


class RetryPolicy(Resource):
    """When and how often a failed delivery is tried again. Destinations name it with retryPolicyRef."""

    api_version: Literal["kapsel.dev/v1alpha1"]
    kind: Literal["RetryPolicy"]
    spec: RetryPolicySpec = Field(default=RetryPolicySpec(), description="What the policy says.")
