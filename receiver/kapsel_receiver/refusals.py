"""The log of refusals: enough to find out why webhooks are refused, never so much that a flood of them fills a disk."""

import logging
from collections.abc import Callable
from typing import Final

from kapsel_receiver.problems import Refusal

A_SECOND: Final = 20

logger = logging.getLogger(__name__)


class RefusalLog:
    """Writes the first few refusals of each second and says how many more there were; metrics count them all."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._second = 0
        self._written = 0
        self._suppressed = 0

    def write(self, endpoint: str, refusal: Refusal, correlation_id: str) -> None:
        """Log one refusal, or count it as not logged."""
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= A_SECOND:
            self._suppressed += 1
            return
        facts = {"endpoint": endpoint, "code": refusal.code, "detail": refusal.detail, "correlation_id": correlation_id}
        if self._suppressed:
            facts["not_logged"] = str(self._suppressed)
        self._written, self._suppressed = self._written + 1, 0
        logger.info("refused: %s", refusal.code, extra=facts)
