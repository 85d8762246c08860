"""The hub: events in, frames out, each to its recipients."""

import asyncio
import gc
import weakref
from itertools import pairwise

import pytest

from app.domain.command import Role
from app.domain.view import View
from tests.support.hub_harness import STAR, FakeConnection, World, rest, until


@pytest.fixture
def world() -> World:
    return World()


# Events in, frames out


async def test_a_new_subscriber_gets_the_room_and_then_its_events(world: World) -> None:
    world.intake()
    line = FakeConnection()
    await world.join(line)
    world.intake()
    world.publish(2)
    await until(lambda: len(line.written) == 2)
    assert line.sent == [("snapshot", 1), ("update", 2)]
    assert line.frames[1]["from"] == 1


async def test_events_that_come_twice_or_late_are_sent_once(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    for _ in range(3):
        world.intake()
    world.publish(1)
    world.publish(1, 2)
    world.publish(2)
    world.publish(1, 2, 3)
    world.publish(3)
    await rest()
    assert line.sent[-1] == ("update", 3)
    versions = [(frame["from"], frame["version"]) for frame in line.frames[1:]]
    assert sum(len(frame["events"]) for frame in line.frames[1:]) == 3
    assert all(later[0] == earlier[1] for earlier, later in pairwise(versions))
    assert world.reads == []


async def test_a_gap_is_closed_from_the_database(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    for _ in range(4):
        world.intake()
    world.publish(4)
    await until(lambda: ("update", 4) in line.sent)
    assert world.reads == [0]
    assert [frame["from"] for frame in line.frames[1:]] == [0]
    assert len(line.frames[1]["events"]) == 4


async def test_events_out_of_order_are_sent_in_order(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    for _ in range(3):
        world.intake()
    world.publish(3, 2, 1)
    await until(lambda: line.sent[-1] == ("update", 3))
    assert [event["item"]["title"] for frame in line.frames[1:] for event in frame["events"]] == [
        "Request 1",
        "Request 2",
        "Request 3",
    ]


async def test_a_room_that_is_behind_catches_up(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    world.intake()
    world.intake()
    world.hub.behind(STAR, 2)
    await until(lambda: line.sent[-1] == ("update", 2))
    world.hub.behind(STAR, 1)
    world.hub.behind("nobody-watches", 9)
    await rest()
    assert len(line.written) == 2


async def test_events_during_the_read_of_a_room_are_not_lost(world: World) -> None:
    world.may_load.clear()
    line = FakeConnection()
    joining = asyncio.create_task(world.join(line))
    await until(lambda: world.loads == 1)
    world.intake()
    world.publish()
    world.may_load.set()
    await joining
    assert line.sent == [("snapshot", 1)]
    world.intake()
    world.publish(2)
    await until(lambda: line.sent == [("snapshot", 1), ("update", 2)])


async def test_many_who_come_at_once_share_one_read_and_one_frame(world: World) -> None:
    world.intake()
    lines = [FakeConnection() for _ in range(50)]
    await asyncio.gather(*(world.join(line) for line in lines))
    assert world.loads == 1
    world.intake()
    world.publish(2)
    await until(lambda: all(len(line.written) == 2 for line in lines))
    assert len({id(line.written[1]) for line in lines}) == 1


async def test_one_who_leaves_while_the_room_is_read_does_not_take_it_from_the_others(world: World) -> None:
    world.may_load.clear()
    first, second = FakeConnection(), FakeConnection()
    one, two = asyncio.create_task(world.join(first)), asyncio.create_task(world.join(second))
    await until(lambda: world.loads == 1)
    one.cancel()
    world.may_load.set()
    await two
    assert second.sent == [("snapshot", 0)]
    assert first.written == []


async def test_a_read_that_fails_fails_all_who_wait_for_it_and_is_tried_again_by_the_next(world: World) -> None:
    world.failure = OSError("the disk is on fire")
    outcomes = await asyncio.gather(*(world.join(FakeConnection()) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError] * 3
    world.failure = None
    line = FakeConnection()
    await world.join(line)
    assert line.sent == [("snapshot", 0)]


async def test_a_socket_that_leaves_in_the_middle_of_a_broadcast_is_sent_no_more() -> None:
    """Its connection may have joined again by then, as another user and with a newer snapshot."""
    world = World(limits={"sockets_a_turn": 2})
    lines = [FakeConnection() for _ in range(10)]
    subscribers = [await world.join(line) for line in lines]
    world.intake()
    world.publish()
    await until(lambda: len(lines[0].written) == 2)
    assert len(lines[8].written) == 1, "the broadcast is not over"
    world.leave(subscribers[8])
    await until(lambda: len(lines[9].written) == 2)
    assert lines[8].sent == [("snapshot", 0)]
    assert world.hub.traffic.lagged == 0


async def test_a_subscriber_that_has_left_is_forgotten_with_the_next_frame(world: World) -> None:
    line, stays = FakeConnection(), FakeConnection()
    subscriber = await world.join(line)
    await world.join(stays)
    gone = weakref.ref(line)
    world.leave(subscriber)
    world.intake()
    world.publish()
    await until(lambda: len(stays.written) == 2)
    del line, subscriber
    gc.collect()
    assert gone() is None


async def test_a_gap_that_shows_before_the_events_are_sent_is_read_from_the_database(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    for _ in range(3):
        world.intake()
    world.publish(1)
    world.publish(3)
    await until(lambda: line.sent[-1] == ("update", 3))
    assert world.reads == [1]


async def test_a_socket_that_joins_in_the_middle_of_a_broadcast_is_not_sent_an_event_twice() -> None:
    world = World(limits={"sockets_a_turn": 2})
    lines = [FakeConnection() for _ in range(10)]
    for line in lines:
        await world.join(line)
    world.intake()
    world.publish()
    await until(lambda: len(lines[0].written) == 2)
    assert len(lines[-1].written) == 1, "the broadcast is not over"
    late = FakeConnection()
    await world.join(late)
    await until(lambda: len(lines[-1].written) == 2)
    await rest()
    assert late.sent == [("snapshot", 1)]


async def test_the_first_event_is_sent_at_once_and_later_ones_wait_for_the_window() -> None:
    world = World(window=0.1)
    line = FakeConnection()
    await world.join(line)
    for _ in range(4):
        world.intake()
    world.publish(1)
    await rest()
    assert line.sent[1:] == [("update", 1)]
    for version in (2, 3, 4):
        world.publish(version)
        await rest()
    assert line.sent[1:] == [("update", 1)]
    await until(lambda: len(line.written) == 3)
    assert [(frame["from"], frame["version"], len(frame["events"])) for frame in line.frames[1:]] == [
        (0, 1, 1),
        (1, 4, 3),
    ]


# Audiences


async def test_each_audience_gets_its_own_shape(world: World) -> None:
    public, whole = FakeConnection(), FakeConnection()
    await world.join(public)
    await world.join(whole, view=View.FULL, role=Role.PERFORMER, sub=STAR)
    world.intake()
    world.publish()
    await until(lambda: len(public.written) == len(whole.written) == 2)
    assert "userId" not in public.frames[1]["events"][0]["item"]
    assert whole.frames[1]["events"][0]["item"]["userId"] == "viewer-1"


async def test_positions_and_milestones_are_sent_to_the_owner_alone_on_every_socket(world: World) -> None:
    mine, mine_too, anothers, performers = FakeConnection(), FakeConnection(), FakeConnection(), FakeConnection()
    await world.join(mine, sub="viewer-2")
    await world.join(mine_too, sub="viewer-2")
    await world.join(anothers, sub="viewer-9")
    # The same name in another role is somebody else.
    await world.join(performers, sub="viewer-2", role=Role.PERFORMER)
    first, _ = world.intake(), world.intake()
    world.publish(1, 2)
    await until(lambda: len(mine.written) == 3)
    assert [frame["type"] for frame in mine.frames] == ["snapshot", "update", "position"]
    assert (mine.frames[2]["position"], mine.frames[2]["ahead"]) == (2, 1)
    world.stage.abandon(first)
    world.publish(3)
    await until(lambda: len(mine.written) == 6)
    assert [frame["type"] for frame in mine.frames[3:]] == ["update", "position", "notice"]
    assert mine.frames[5]["template"] == "queue.item.next_up_notice"
    await rest()
    assert mine_too.written == mine.written
    for line in (anothers, performers):
        assert [frame["type"] for frame in line.frames] == ["snapshot", "update", "update"]


async def test_a_socket_that_has_left_is_sent_nothing_more_and_an_empty_room_is_forgotten(world: World) -> None:
    line, other = FakeConnection(), FakeConnection()
    gone, stays = await world.join(line, sub="viewer-1"), await world.join(other)
    assert (world.hub.sockets, world.hub.rooms) == (2, 1)
    world.leave(gone)
    world.leave(gone)
    world.intake()
    world.publish()
    await until(lambda: len(other.written) == 2)
    assert len(line.written) == 1
    world.leave(stays)
    assert (world.hub.sockets, world.hub.rooms) == (0, 0)
    await world.join(line)
    assert world.loads == 2
