"""The connection to Redis, which may be away: one state and one log line for all who use it.

Nothing of the queue depends on Redis. While it is away, or slow, every user of it goes on alone: the quota counts in
memory, a process tells of its own connections only, and other processes' events are found in the database. `ask` is
for short questions; the bus, which listens all the time, opens a client of its own with `connect` and reports what it
meets.
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
"""How long one question may take, connecting included."""
PAUSE_SECONDS = 1.0
"""How long Redis is left alone after a failure; then one question tries it."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class RedisAway(Exception):
    """Redis does not answer; the caller goes on without it."""


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
        """`epoch` is the database's: processes that share a Redis but not a database or its history do not meet."""
        self.prefix = f"performance-queue:{epoch}:"
        """Of every key and channel."""
        self._url = url
        self._slowest_seconds = slowest_seconds
        self._pause_seconds = pause_seconds
        # Once, at once: a connection that was cut while it was idle is only found so when it is used. The time is
        # bounded here, not by the driver, whose bounds up to Python 3.11 may swallow that the task was cancelled.
        self._redis = self.connect(retries=1, socket_timeout=None, socket_connect_timeout=None)
        self._is_away = False
        self._next_try = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._redis.aclose()

    @property
    def is_away(self) -> bool:
        """Whether the last that was heard of Redis was a failure."""
        return self._is_away

    def connect(self, *, retries: int = 0, **options: Any) -> "Redis":
        """A client of the caller's own, which it closes, and whose successes and failures it reports."""
        from redis.asyncio import Redis  # an extra that one process does without
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        return Redis.from_url(self._url, retry=Retry(NoBackoff(), retries), **options)

    async def ask(self, question: Callable[["Redis"], Awaitable[T]]) -> T:
        """The answer to a short question. Raises RedisAway: after `slowest_seconds` at most, and at once while Redis is
        known to be away."""
        from redis.exceptions import RedisError

        if self._is_away:
            if time.monotonic() < self._next_try:
                raise RedisAway
            # Only this question tries; the others do not wait for it.
            self._next_try = time.monotonic() + self._slowest_seconds + self._pause_seconds
        try:
            async with asyncio.timeout(self._slowest_seconds):
                answer = await question(self._redis)
        except (RedisError, OSError) as failure:
            self.lost(failure)
            raise RedisAway from None
        self.found()
        return answer

    def lost(self, failure: Exception) -> None:
        """Redis has not answered."""
        self._next_try = time.monotonic() + self._pause_seconds
        if not self._is_away:
            log.warning("Redis is away, each process goes on alone: %s", type(failure).__name__)
        self._is_away = True

    def found(self) -> None:
        """Redis has answered."""
        if self._is_away:
            log.info("Redis is back")
        self._is_away = False
