"""The limit on a user's intakes per minute: counted in Redis by all processes together, or in this process's memory.

The limit is exact: it holds in any 60 seconds. While Redis is away each process counts alone, so that intake goes on.
An intake that queues nothing is uncounted again.
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
"""Counts an intake in the user's sorted set of intakes by time. Returns -1 if there was room for it, otherwise, without
counting it, the milliseconds until there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One intake's share of a user's minute."""

    user_id: str
    at: float | None = None
    """When it was counted in memory; None if it was counted in Redis."""
    name: str = ""
    """Its name in Redis."""


class Quota:
    """The intakes of each user in the last minute, and their limit."""

    def __init__(self, per_minute: int, link: RedisLink | None = None) -> None:
        self.per_minute = per_minute
        self._own = Window(per_minute)
        self._link = link

    async def take(self, user_id: str) -> Taken:
        """Count an intake of a user. Raises RateLimitExceeded, and does not count it, if it is one too many."""
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
        """Uncount an intake that has queued nothing."""
        if taken.at is not None:
            self._own.give_back(taken.user_id, taken.at)
            return
        if self._link is not None:
            key = self._key(self._link, taken.user_id)
            try:
                await self._link.run(lambda redis: redis.zrem(key, taken.name))
            except RedisAway:
                return  # it expires within the minute

    async def _take_shared(self, link: RedisLink, user_id: str, name: str) -> int:
        window = round(WINDOW_SECONDS * 1000)
        key = self._key(link, user_id)
        return int(
            await link.run(
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
    """A sliding window in memory: the times of each user's intakes in the last `seconds`."""

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
        """The users in the order of their last intakes, each with its times in order."""

    def __len__(self) -> int:
        """The number of users remembered."""
        return len(self._users)

    def take(self, user_id: str) -> tuple[float | None, float]:
        """Count an intake. Returns the time at which it was counted and 0, or None and the seconds until one can be."""
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
        """Uncount the intake that was counted at this time."""
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
