"""How much a user may queue in a minute: counted in Redis by all processes together, else in this one's memory.

A limit protects the service; it must not be what stops it. While Redis is away, or slow, each process counts by itself.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

SLOWEST_SECONDS = 0.25
"""How long an intake waits for Redis to answer, or to take a connection."""
PAUSE_SECONDS = 1.0
"""How long Redis is left alone when it has failed."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Quota:
    """`async with` closes its connections."""

    def __init__(self, per_minute: int, redis_url: str | None = None, *, epoch: str = "") -> None:
        """`epoch` is the database's: what shares a Redis but not a database does not count together."""
        self.per_minute = per_minute
        self._limit = RateLimitItemPerMinute(per_minute)
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None
        self._pool: ConnectionPool | None = None
        if redis_url is not None:
            self._pool = _connections(redis_url)
            storage = RedisStorage(
                "redis://",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix=f"performance-queue:{epoch}:limit",
                connection_pool=self._pool,  # type: ignore[arg-type]
            )
            self._shared = MovingWindowRateLimiter(storage)
        self._away_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def take(self, user_id: str) -> bool:
        """Count one more of a user's; False if that would be too many, and then it is not counted."""
        return await self._ask(lambda limiter: limiter.hit(self._limit, user_id))

    async def seconds_left(self, user_id: str) -> int:
        """Until a user who has taken all may take again, at least 1."""
        window = await self._ask(lambda limiter: limiter.get_window_stats(self._limit, user_id))
        # Not the service's clock: the windows go by the machine's.
        return max(1, round(window.reset_time - time.time()))

    async def _ask(self, question: Callable[[MovingWindowRateLimiter], Awaitable[T]]) -> T:
        if self._shared is not None and time.monotonic() >= self._away_until:
            try:
                return await question(self._shared)
            except (StorageError, OSError):
                self._away_until = time.monotonic() + PAUSE_SECONDS
                log.warning("users' limits are not counted together for now: Redis does not answer")
        return await question(self._own)


def _connections(redis_url: str) -> "ConnectionPool":
    from redis.asyncio import ConnectionPool  # an extra that one process does without
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return ConnectionPool.from_url(
        redis_url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SLOWEST_SECONDS,
        socket_connect_timeout=SLOWEST_SECONDS,
    )
