"""The connection to Redis, which may be away: one state and one log line for all its users.

The queue works without Redis. While Redis is away or slow, each process works alone: the quota counts in memory, a
process reports only its own connections, and reads other processes' events from the database. `run` is for
short commands; the bus, which listens all the time, opens its own client with `connect`, and reports with `lost` and
`found`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from redis.asyncio import Redis

SLOWEST_SECONDS = 0.25
"""The time limit of one `run`, connecting included."""
PAUSE_SECONDS = 1.0
"""The pause after a failure; then one `run` tries again."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class RedisAway(Exception):
    """Redis does not answer; the caller continues without it."""


class RedisLink:
    """`async with` closes its connections. Used from the event loop only."""

    def __init__(
        self,
        url: str,
        *,
        epoch: str,
        slowest_seconds: float = SLOWEST_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """`epoch`: the database's. It separates processes that share a Redis but not a database or its history."""
        self.prefix = f"performance-queue:{epoch}:"
        """The prefix of every key and channel."""
        self._url = url
        self._slowest_seconds = slowest_seconds
        self._pause_seconds = pause_seconds
        # One retry at once: a connection that was cut while idle fails only when it is used. `run` limits the time, not
        # the driver: up to Python 3.11 the driver's timeouts can swallow a cancellation of the task.
        self._redis = self.connect(retries=1, socket_timeout=None, socket_connect_timeout=None)
        self.is_away = False
        """Whether the last use of Redis failed."""
        self._next_try = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._redis.aclose()

    def connect(self, *, retries: int = 0, **options: Any) -> "Redis":
        """A new client. The caller closes it, and reports its successes and failures with `found` and `lost`."""
        from redis.asyncio import Redis  # an extra that one process does without
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        return Redis.from_url(self._url, retry=Retry(NoBackoff(), retries), **options)

    async def run(self, command: Callable[["Redis"], Awaitable[T]]) -> T:
        """The result of a short command. Raises RedisAway after `slowest_seconds` at most, and at once while Redis is
        known to be away."""
        from redis.exceptions import RedisError

        if self.is_away:
            if time.monotonic() < self._next_try:
                raise RedisAway
            # Only this call tries; the others do not wait for it.
            self._next_try = time.monotonic() + self._slowest_seconds + self._pause_seconds
        try:
            async with asyncio.timeout(self._slowest_seconds):
                result = await command(self._redis)
        except (RedisError, OSError) as failure:
            self.lost(failure)
            raise RedisAway from None
        self.found()
        return result

    def lost(self, failure: Exception) -> None:
        """Record that Redis has not answered."""
        self._next_try = time.monotonic() + self._pause_seconds
        if not self.is_away:
            log.warning("Redis is away, each process works alone: %s", type(failure).__name__)
        self.is_away = True

    def found(self) -> None:
        """Record that Redis has answered."""
        if self.is_away:
            log.info("Redis is back")
        self.is_away = False
