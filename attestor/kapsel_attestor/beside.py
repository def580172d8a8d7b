"""What runs beside a log that is led: tasks that add to published heads, such as anchors.

The leader starts them once the log was found to be the right one, and cancels them when it no longer leads. Nothing
that goes wrong in one reaches the log: it is logged, counted, and the task is started anew.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kapsel_attestor.metrics import Metrics
from kapsel_attestor.status_report import Condition
from kapsel_runtime.backoff import patient
from kapsel_store.database import Pool, is_away
from kapsel_store.rows import LogRow
from kapsel_store.tlog import LogState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Led:
    """The log that is led, as what runs beside it sees it."""

    pool: Pool  # for a connection of one's own, a moment at a time
    log: LogState  # as it stood when it was taken over
    row: Callable[[], LogRow]  # as it is configured now
    say: Callable[[Condition], None]  # a condition of the AttestationLog; of a type the one that was said last counts


class SideTask(Protocol):
    """One such task."""

    name: str  # the label of the metric that counts its failures

    async def run(self, led: Led) -> None:
        """Work until cancelled."""


async def keep_running(task: SideTask, led: Led, metrics: Metrics) -> None:
    """Run a task until cancelled, anew whenever it fails."""
    waits = patient()
    while True:
        try:
            await task.run(led)
            return
        except Exception as error:
            metrics.side_failures.labels(task=task.name).inc()
            if is_away(error):
                logger.warning("%s waits for the database: %s", task.name, str(error) or type(error).__name__)
            else:
                logger.exception("%s failed; starting it again", task.name)
        await asyncio.sleep(next(waits))
