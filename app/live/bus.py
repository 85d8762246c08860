"""The bus: committed events from one process to the hubs of the others, over Redis pub/sub.

It may lose, repeat or reorder events: the hubs find that by the versions, and read the database. Each room has a
channel of its own, subscribed only while a local socket watches it. One more channel, always subscribed, carries the
first events of all rooms: sockets may wait in any number of rooms that do not exist. The channels are sharded if the
server supports that. While Redis is away events are dropped; when it is back, everything is subscribed again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.domain.event import Event
from app.redis_link import RedisAway, RedisLink
from app.store.records import event_from_json, event_to_json
from app.tracing import current, within

WAITING_LIMIT = 10_000
"""Messages waiting to be sent; beyond it the oldest are lost, as they are while Redis is away."""
SENT_AT_ONCE = 200
SHARDED_SINCE = 7
"""The first major version of Redis, and of Valkey, with sharded channels."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds that the bus waits."""

    silence: float = 5.0
    """After this long without a message the server is pinged; after as long again without an answer the connection is
    given up."""
    first_pause: float = 0.1
    """Before it connects again; doubled with each failure, up to `longest_pause`."""
    longest_pause: float = 5.0


class Bus:
    """One process's connection to the others. `run` keeps it going."""

    def __init__(
        self,
        link: RedisLink,
        receive: Callable[[str, Sequence[Event]], None],
        receive_announcement: Callable[[bytes], None] = lambda payload: None,
        *,
        timing: Timing | None = None,
        waiting_limit: int = WAITING_LIMIT,
        sharded_since: int = SHARDED_SINCE,
    ) -> None:
        """`receive` is called on the event loop with a room's events as they come, in any order;
        `receive_announcement` with the payloads that any process has announced to all, itself included."""
        self._timing = timing or Timing()
        self._sharded_since = sharded_since
        self._link = link
        self._receive = receive
        self._receive_announcement = receive_announcement
        self._announcements = f"{link.prefix}announcements"
        """Always subscribed: a connection without any subscription cannot be listened to."""
        self._created = f"{link.prefix}created"
        """Always subscribed: the first events of each room."""
        self._channel = f"{link.prefix}room:"
        self._watched: set[str] = set()
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=waiting_limit)
        self._wake = asyncio.Event()
        self._subscriptions: PubSub | None = None
        self._sharded = False
        self.connections = 0
        """The number of times that it has connected."""

    @property
    def is_connected(self) -> bool:
        return self._subscriptions is not None

    @property
    def waiting(self) -> int:
        """Messages that wait to be sent."""
        return len(self._waiting)

    def publish(self, performer_id: str, events: Sequence[Event]) -> None:
        """Send committed events to the other processes, in the background; while Redis is away they are dropped."""
        if self._subscriptions is not None:
            # No process subscribes to a room's own channel before it knows that the room exists.
            channel = self._created if events and events[0].version == 1 else self._channel + performer_id
            self._waiting.append((channel, event_to_json(events, current.get())))
            self._wake.set()

    async def announce(self, payload: bytes) -> int | None:
        """Send a payload to all processes; returns the number that got it, or None while Redis is away."""
        if not self.is_connected:
            return None
        sharded, channel = self._sharded, self._announcements
        try:
            return int(
                await self._link.run(
                    lambda redis: (redis.spublish if sharded else redis.publish)(channel, payload.decode())
                )
            )
        except RedisAway:
            return None

    async def watch(self, performer_id: str) -> None:
        """Receive a room's events from now on; while Redis is away, from when it is back."""
        self._watched.add(performer_id)
        await self._change(performer_id, subscribe=True)

    async def unwatch(self, performer_id: str) -> None:
        """Receive a room's events no longer."""
        self._watched.discard(performer_id)
        await self._change(performer_id, subscribe=False)

    async def _change(self, performer_id: str, *, subscribe: bool) -> None:
        subscriptions = self._subscriptions
        if subscriptions is None:
            return
        try:
            await self._ask(subscriptions, [self._channel + performer_id], subscribe=subscribe)
        except (RedisError, OSError):
            # The listener meets the same failure and subscribes everything anew.
            return

    async def _ask(self, subscriptions: PubSub, channels: Sequence[str], *, subscribe: bool) -> None:
        if subscribe:
            await (subscriptions.ssubscribe if self._sharded else subscriptions.subscribe)(*channels)
        else:
            await (subscriptions.sunsubscribe if self._sharded else subscriptions.unsubscribe)(*channels)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        timing, pause = self._timing, 0.0
        while _goes_on():
            known = self.connections
            try:
                # Without retries: a lost connection has to fail at once, because its subscriptions are lost with it.
                async with self._link.connect(socket_timeout=timing.silence) as redis:
                    await self._exchange(redis)
            except (RedisError, OSError) as failure:
                self._link.lost(failure)
            was_connected = self.connections > known
            pause = timing.first_pause if was_connected or not pause else min(2 * pause, timing.longest_pause)
            await asyncio.sleep(pause)
        raise asyncio.CancelledError

    async def _exchange(self, redis: Redis) -> None:
        try:
            self._sharded = await _has_shards(redis, self._sharded_since)
            async with redis.pubsub() as subscriptions:
                await self._ask(subscriptions, [self._announcements, self._created], subscribe=True)
                # From here on `watch` subscribes by itself; the rooms watched before are subscribed now.
                self._subscriptions = subscriptions
                if self._watched:
                    await self._ask(subscriptions, [self._channel + name for name in self._watched], subscribe=True)
                self.connections += 1
                self._link.found()
                log.info("the bus is connected%s", ", sharded" if self._sharded else "")
                # A cancellation during the subscription may have been swallowed.
                if _goes_on():
                    await _both(self._listen(subscriptions), self._send(redis))
        finally:
            self._subscriptions = None
            self._waiting.clear()

    async def _listen(self, subscriptions: PubSub) -> None:
        is_silent = False
        while _goes_on():
            message = await subscriptions.get_message(timeout=self._timing.silence)
            if message is not None:
                is_silent = False
                if message["type"] in ("message", "smessage"):
                    self._take(message["channel"].decode(), message["data"])
            elif is_silent:
                raise RedisConnectionError("no answer to a ping")
            else:
                is_silent = True
                await subscriptions.ping()

    def _take(self, channel: str, payload: bytes) -> None:
        if channel == self._announcements:
            self._receive_announcement(payload)
            return
        if channel != self._created and not channel.startswith(self._channel):
            return
        try:
            events, traceparent = event_from_json(payload)
            performer_id = events[0].performer_id if channel == self._created else channel.removeprefix(self._channel)
        except (ValueError, TypeError, KeyError, IndexError):
            # From another release, perhaps. The position check finds the room behind, and the event is read from the
            # database.
            log.warning("a message on the bus could not be read")
            return
        with within(traceparent):
            self._receive(performer_id, events)

    async def _send(self, redis: Redis) -> None:
        while _goes_on():
            await self._wake.wait()
            self._wake.clear()
            while self._waiting and _goes_on():
                # No transaction: rooms are independent, and one round trip serves many messages.
                async with redis.pipeline(transaction=False) as pipeline:
                    for _ in range(min(SENT_AT_ONCE, len(self._waiting))):
                        channel, payload = self._waiting.popleft()
                        send = pipeline.spublish if self._sharded else pipeline.publish
                        send(channel, payload)
                    await pipeline.execute()


async def _has_shards(redis: Redis, since: int) -> bool:
    server: dict[str, Any] = await redis.info("server")
    # In a cluster each sharded channel is on one of the servers, which our connection may not be to. A plain channel
    # reaches every subscriber through any server.
    is_cluster = "cluster" in (server.get("redis_mode"), server.get("server_mode"))
    return int(str(server["redis_version"]).partition(".")[0]) >= since and not is_cluster


async def _both(*work: Coroutine[Any, Any, None]) -> None:
    """Run both until one of them ends or this is cancelled; raises its failure. Not a TaskGroup: up to Python 3.11 its
    failure leaves this task marked as cancelled."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        failures = [task.exception() for task in tasks if not task.cancelled()]
    for failure in failures:
        if failure is not None:
            raise failure


def _goes_on() -> bool:
    """Whether this task has not been cancelled. Up to Python 3.11 asyncio.wait_for, which the driver uses to send, may
    swallow a cancellation that comes as it completes."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
