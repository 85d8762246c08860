"""Counts the sockets of each room, and how many of them lag: in this process, and in all processes together.

With Redis every process posts its own numbers every POST_SECONDS, under a key that expires: a process that dies is not
counted for long. While Redis is away, or slow, a process counts only its own sockets.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

import orjson

from app.redis_link import RedisAway, RedisLink

if TYPE_CHECKING:
    from redis.asyncio import Redis

POST_SECONDS = 5.0
KEPT_SECONDS = 15.0
"""How long numbers count that are not posted again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """The sockets of one room."""

    performer_id: str
    sockets: int
    lagging: int
    longest_lag_seconds: float
    """Of those that lag now; 0 if none does."""


def merged(audiences: Iterable[Audience]) -> list[Audience]:
    """One audience for each room, with the sums of all; the most watched room first."""
    rooms: dict[str, Audience] = {}
    for each in audiences:
        known = rooms.get(each.performer_id)
        rooms[each.performer_id] = _together(known, each) if known is not None else each
    return sorted(rooms.values(), key=lambda audience: (-audience.sockets, audience.performer_id))


def _together(one: Audience, other: Audience) -> Audience:
    return Audience(
        performer_id=one.performer_id,
        sockets=one.sockets + other.sockets,
        lagging=one.lagging + other.lagging,
        longest_lag_seconds=max(one.longest_lag_seconds, other.longest_lag_seconds),
    )


class Audiences:
    """The audiences of all processes, as one of them sees them. `async with` withdraws its own at the end."""

    def __init__(
        self, own: Callable[[], Sequence[Audience]], link: RedisLink | None = None, *, process_id: str = ""
    ) -> None:
        """`own` returns the audiences of this process."""
        self._own = own
        self._process_id = process_id
        self._link = link
        prefix = link.prefix if link is not None else ""
        self._prefix = f"{prefix}audience:"
        self._processes = f"{prefix}audiences"
        """The key of the set of processes that have posted. Redis could find their keys only by a scan of all keys."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its sockets have gone elsewhere and would be counted twice until the key expires.
        await self._run(self._withdraw)

    async def post(self) -> None:
        """Post this process's numbers for the others. Called every POST_SECONDS if there is a Redis."""
        await self._run(self._put)

    async def everywhere(self) -> tuple[list[Audience], int]:
        """The audience of every watched room, the most watched first, and the number of processes that are counted:
        this one as it is now, the others as they last posted."""
        posted = await self._run(self._others) or []
        return merged([*self._own(), *(each for audiences in posted for each in audiences)]), 1 + len(posted)

    async def _put(self, redis: "Redis") -> None:
        kept = round(KEPT_SECONDS * 1000)
        async with redis.pipeline() as pipeline:
            pipeline.set(self._prefix + self._process_id, orjson.dumps(self._own()), px=kept)
            pipeline.sadd(self._processes, self._process_id)
            pipeline.pexpire(self._processes, kept)
            await pipeline.execute()

    async def _withdraw(self, redis: "Redis") -> None:
        async with redis.pipeline() as pipeline:
            pipeline.delete(self._prefix + self._process_id)
            pipeline.srem(self._processes, self._process_id)
            await pipeline.execute()

    async def _others(self, redis: "Redis") -> list[list[Audience]]:
        members = cast(set[bytes], await redis.smembers(self._processes))
        others = sorted({member.decode() for member in members} - {self._process_id})
        if not others:
            return []
        values = cast(list[bytes | None], await redis.mget([self._prefix + name for name in others]))
        if gone := [name for name, value in zip(others, values, strict=True) if value is None]:
            await redis.srem(self._processes, *gone)
        read = [_read(value) for value in values if value is not None]
        return [audiences for audiences in read if audiences is not None]

    async def _run(self, query: Callable[["Redis"], Awaitable[T]]) -> T | None:
        """The result of a query to Redis; None without Redis, or while it is away."""
        if self._link is None:
            return None
        try:
            return await self._link.run(query)
        except RedisAway:
            return None


def _read(value: bytes) -> list[Audience] | None:
    try:
        return [Audience(**fields) for fields in orjson.loads(value)]
    except (ValueError, TypeError):
        # Another release's: that process is not counted.
        return None
