"""The status of a Replay, and when it may go. Pure."""

from datetime import UTC, datetime
from typing import Any, Final

from kapsel_operator.conditions import Verdict, conditions, document, stalled
from kapsel_operator.store import Declared
from kapsel_resources.kinds.replay import Replay
from kapsel_resources.kinds.status import ReplayStatus
from kapsel_resources.statuses import Status
from kapsel_store.replays import Phase, ReplayProgress

_REASONS: Final = {
    Phase.WAITING: "Waiting",
    Phase.COUNTING: "Counting",
    Phase.ENQUEUING: "Enqueuing",
    Phase.DELIVERING: "Delivering",
    Phase.COMPLETE: "Completed",
    Phase.SUSPENDED: "Suspended",
    Phase.REMOVED: "Removed",
}


def replay(one: Declared, told: Status | None, progress: ReplayProgress | None, now: datetime) -> dict[str, Any]:
    """Return the status of a Replay."""
    if progress is None:
        if told is not None and told.stalled:
            # Its columns are those of Complete.
            verdicts: tuple[Verdict, ...] = (
                *stalled(told.reason, told.message),
                Verdict("Complete", "False", told.reason, told.message),
            )
        else:
            message = "it is about to be handed to the deliverers"
            verdicts = (
                Verdict("Ready", "Unknown", "Loading", message),
                Verdict("Complete", "False", "Loading", message),
            )
        return _document(one, verdicts, now)
    return _document(
        one,
        _verdicts(progress),
        now,
        matched=progress.matched,
        enqueued=progress.enqueued,
        delivered=progress.delivered,
        failed=progress.failed,
        start_time=_second(progress.started_at),
        completion_time=_second(progress.completed_at),
    )


def replay_is_over(resource: Replay, progress: ReplayProgress | None, now: datetime) -> bool:
    """Return whether a Replay has been complete for as long as it is to be kept."""
    ttl = resource.spec.ttl_seconds_after_finished
    if ttl is None or progress is None or progress.completed_at is None:
        return False
    return (now - progress.completed_at).total_seconds() >= ttl


def _verdicts(progress: ReplayProgress) -> tuple[Verdict, ...]:
    phase, message = progress.phase, progress.message
    reason = _REASONS[phase]
    complete = phase is Phase.COMPLETE
    suspended = phase is Phase.SUSPENDED
    failed = complete and progress.failed > 0
    return (
        Verdict("Ready", "True", "Accepted"),
        Verdict("Complete", "True" if complete else "False", reason, message),
        Verdict("Failed", "True" if failed else "False", "DeliveriesFailed" if failed else reason, message),
        Verdict("Suspended", "True" if suspended else "False", reason if suspended else "Running"),
    )


def _document(one: Declared, verdicts: tuple[Verdict, ...], now: datetime, **fields: Any) -> dict[str, Any]:
    written = conditions(verdicts, one.told, one.generation, now)
    return document(ReplayStatus(observed_generation=one.generation, conditions=written, **fields))


def _second(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC).replace(microsecond=0)
