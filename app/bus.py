"""The bus: committed events from one process to the hubs of the others, over Redis pub/sub.

A hint, never the truth: what it loses, repeats or reorders the hubs repair by version from the database. One channel a
room, subscribed only while a local socket watches it; sharded channels where the server has them. While Redis is away
publishing costs nothing and is lost, and everything is subscribed again when it is back.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from app.event import Event
from app.store.records import event_from_json, event_to_json

CHANNEL = "performance-queue:room:"
HEARTBEAT = "performance-queue:heartbeat"
"""Always subscribed: a connection without any subscription cannot be listened to."""
WAITING_LIMIT = 10_000
"""Rooms' messages waiting to be sent; beyond it the oldest are lost, as they are while Redis is away."""
SENT_AT_ONCE = 200
LISTEN_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
SHARDED_SINCE = 7
"""The first Redis (and Valkey) whose pub/sub is sharded."""

log = logging.getLogger(__name__)


class Bus:
    """One process's connection to the others. `run` keeps it going."""

    def __init__(self, url: str, receive: Callable[[str, Sequence[Event]], None]) -> None:
        """`receive` is called on the event loop with a room's events as they come, in whatever order they come."""
        self._url = url
        self._receive = receive
        self._watched: set[str] = set()
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING_LIMIT)
        self._wake = asyncio.Event()
        self._subscriptions: PubSub | None = None
        self._sharded = False

    @property
    def is_connected(self) -> bool:
        return self._subscriptions is not None

    def publish(self, performer_id: str, events: Sequence[Event]) -> None:
        """Tell the other processes what has been committed here. Never waits."""
        if self._subscriptions is not None:
            self._waiting.append((performer_id, event_to_json(events)))
            self._wake.set()

    async def watch(self, performer_id: str) -> None:
        """Receive a room's events from now on."""
        self._watched.add(performer_id)
        await self._change(performer_id, subscribe=True)

    async def unwatch(self, performer_id: str) -> None:
        self._watched.discard(performer_id)
        await self._change(performer_id, subscribe=False)

    async def _change(self, performer_id: str, *, subscribe: bool) -> None:
        subscriptions = self._subscriptions
        if subscriptions is None:
            return
        try:
            await self._ask(subscriptions, [CHANNEL + performer_id], subscribe=subscribe)
        except RedisError:
            # The listener meets the same failure and subscribes everything anew.
            return

    async def _ask(self, subscriptions: PubSub, channels: Sequence[str], *, subscribe: bool) -> None:
        if subscribe:
            await (subscriptions.ssubscribe if self._sharded else subscriptions.subscribe)(*channels)
        else:
            await (subscriptions.sunsubscribe if self._sharded else subscriptions.unsubscribe)(*channels)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with Redis.from_url(self._url) as redis:
                    await self._serve(redis)
            except* (RedisError, OSError) as failures:
                log.warning("the bus is away: %s", type(failures.exceptions[0]).__name__)
            finally:
                was_connected, self._subscriptions = self._subscriptions is not None, None
                self._waiting.clear()
            pause = FIRST_PAUSE_SECONDS if was_connected else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _serve(self, redis: Redis) -> None:
        server = await redis.info("server")
        self._sharded = int(str(server["redis_version"]).partition(".")[0]) >= SHARDED_SINCE
        async with redis.pubsub(ignore_subscribe_messages=True) as subscriptions:
            channels = [HEARTBEAT, *(CHANNEL + performer_id for performer_id in self._watched)]
            await self._ask(subscriptions, channels, subscribe=True)
            self._subscriptions = subscriptions
            log.info("the bus is connected%s", ", sharded" if self._sharded else "")
            async with asyncio.TaskGroup() as both:
                both.create_task(self._listen(subscriptions))
                both.create_task(self._send(redis))

    async def _listen(self, subscriptions: PubSub) -> None:
        while True:
            message = await subscriptions.get_message(timeout=LISTEN_SECONDS)
            if message is None:
                await subscriptions.ping()
            elif message["type"] in ("message", "smessage"):
                performer_id = message["channel"].decode().removeprefix(CHANNEL)
                self._receive(performer_id, event_from_json(message["data"]))

    async def _send(self, redis: Redis) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                # No transaction: rooms are independent, and one round trip serves many messages.
                async with redis.pipeline(transaction=False) as pipeline:
                    for _ in range(min(SENT_AT_ONCE, len(self._waiting))):
                        performer_id, payload = self._waiting.popleft()
                        send = pipeline.spublish if self._sharded else pipeline.publish
                        send(CHANNEL + performer_id, payload)
                    await pipeline.execute()
