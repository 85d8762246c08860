"""How much a user may queue in a minute: counted in Redis by all processes together, else in this process's memory.

The limit is exact: never more than so many in any 60 seconds. It protects the service and must not be what stops it:
while Redis is away, each process counts alone. What was taken for an intake that queued nothing is given back.
"""

import secrets
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import ceil
from typing import cast

from app.domain.errors import RateLimitExceeded
from app.redis_link import RedisAway, RedisLink

WINDOW_SECONDS = 60.0
USERS_REMEMBERED = 100_000
"""Users counted in memory at once, about 400 bytes each; beyond it the longest idle are forgotten first."""

TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('ZADD', KEYS[1], now, ARGV[2])
  redis.call('PEXPIRE', KEYS[1], window)
  return -1
end
return tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]) + window - now
"""
"""A sorted set a user: the intakes taken, by their times. Returns -1, or the milliseconds until there is room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One intake's share of a user's minute."""

    user_id: str
    at: float | None = None
    """When it was counted in memory; None if it was counted in Redis."""
    name: str = ""
    """Its name in Redis."""


class Quota:
    def __init__(self, per_minute: int, link: RedisLink | None = None) -> None:
        self.per_minute = per_minute
        self._own = Window(per_minute)
        self._link = link

    async def take(self, user_id: str) -> Taken:
        """Count one more of a user's. Raises RateLimitExceeded if that is too many; then it is not counted."""
        if self._link is not None:
            name = secrets.token_hex(8)
            try:
                wait = await self._take_shared(self._link, user_id, name)
            except RedisAway:
                pass
            else:
                if wait >= 0:
                    raise self._refusal(wait / 1000)
                return Taken(user_id=user_id, name=name)
        at, wait_seconds = self._own.take(user_id)
        if at is None:
            raise self._refusal(wait_seconds)
        return Taken(user_id=user_id, at=at)

    async def give_back(self, taken: Taken) -> None:
        """Nothing was queued for it."""
        if taken.at is not None:
            self._own.give_back(taken.user_id, taken.at)
            return
        if self._link is not None:
            key = self._key(self._link, taken.user_id)
            try:
                await self._link.ask(lambda redis: redis.zrem(key, taken.name))
            except RedisAway:
                return  # it leaves by itself within the minute

    async def _take_shared(self, link: RedisLink, user_id: str, name: str) -> int:
        window = round(WINDOW_SECONDS * 1000)
        key = self._key(link, user_id)
        return int(
            await link.ask(
                lambda redis: cast("Awaitable[int]", redis.eval(TAKE, 1, key, self.per_minute, name, window))
            )
        )

    def _key(self, link: RedisLink, user_id: str) -> str:
        return f"{link.prefix}quota:{user_id}"

    def _refusal(self, wait_seconds: float) -> RateLimitExceeded:
        seconds = max(1, ceil(wait_seconds))
        return RateLimitExceeded(
            f"This user may queue {self.per_minute} items a minute; try again in {seconds} s.",
            retry_after_seconds=seconds,
        )


class Window:
    """A sliding window in memory: when each user has taken something in the last `seconds`."""

    def __init__(
        self,
        limit: int,
        *,
        seconds: float = WINDOW_SECONDS,
        users: int = USERS_REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._most_users = users
        self._clock = clock
        self._users: OrderedDict[str, list[float]] = OrderedDict()
        """Ordered by when each has last taken something; the times of one are in order."""

    def __len__(self) -> int:
        """Users remembered."""
        return len(self._users)

    def take(self, user_id: str) -> tuple[float | None, float]:
        """When it was counted, or None and how many seconds until the user may take again."""
        now = self._clock()
        self._forget(now - self._seconds)
        times = self._users.setdefault(user_id, [])
        del times[: bisect_right(times, now - self._seconds)]
        if len(times) >= self._limit:
            return None, times[0] + self._seconds - now
        times.append(now)
        self._users.move_to_end(user_id)
        if len(self._users) > self._most_users:
            self._users.popitem(last=False)
        return now, 0.0

    def give_back(self, user_id: str, at: float) -> None:
        times = self._users.get(user_id, [])
        if at in times:
            times.remove(at)
            if not times:
                del self._users[user_id]

    def _forget(self, until: float) -> None:
        while self._users:
            user_id, times = next(iter(self._users.items()))
            if times[-1] > until:
                return
            del self._users[user_id]
