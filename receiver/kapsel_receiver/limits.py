"""The token bucket of an endpoint: so many requests per second, and so many at once.

Called by `app`. Pure: the clock is passed in, and must be one that never goes back. Every receiver keeps its own bucket
with its share of the rate, so no request waits for another process to be asked.
"""

from kapsel_store.rows import RateLimit


class TokenBucket:
    """Tokens flow in at the rate up to the burst; a request takes one."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens", "limit")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self.limit = limit
        self._rate = limit.requests_per_second
        self._burst = float(limit.burst)
        self._tokens = self._burst
        self._filled_at = now

    def share(self, processes: int) -> None:
        """Keep one part of the limit, since `processes` receivers serve the endpoint; at least one request at once."""
        self._rate = self.limit.requests_per_second / processes
        self._burst = max(1.0, self.limit.burst / processes)
        self._tokens = min(self._tokens, self._burst)

    def wait(self, now: float) -> float:
        """Return how many seconds until a token is there: 0 if one is."""
        self._fill(now)
        return 0.0 if self._tokens >= 1.0 else (1.0 - self._tokens) / self._rate

    def take(self, now: float) -> float:
        """Take a token and return 0, or take none and return the seconds to wait."""
        seconds = self.wait(now)
        if not seconds:
            self._tokens -= 1.0
        return seconds

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
