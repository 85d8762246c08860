"""A broadcast that takes several turns of the loop, and events that happen meanwhile."""

import asyncio
import random
from collections import Counter

import pytest

from app.domain.view import View
from app.live.subscriber import Subscriber
from tests.support.hub_harness import FakeConnection, Frame, World, rest, until

VIEWS = [View.PUBLIC] * 4 + [View.FULL]


TWO_AT_A_TIME = {"sockets_a_turn": 2}


@pytest.fixture
def world() -> World:
    return World(limits=TWO_AT_A_TIME)


def groups(subscribers: list[Subscriber]) -> list[int]:
    """The number of these sockets in each group that has one of them."""
    return list(Counter(subscriber.group for subscriber in subscribers if subscriber.group is not None).values())


def items(world: World, after: int, last: int) -> list[str]:
    """The items of the events that led from one version to another."""
    return [event.item.item_id for event in world.stage.events[after:last] if event.item is not None]


def sent_items(frame: Frame) -> list[str]:
    return [event["itemId"] for event in frame["events"]]


async def crowd_of(world: World, count: int = 10) -> list[FakeConnection]:
    lines = [FakeConnection() for _ in range(count)]
    for number, line in enumerate(lines):
        await world.join(line, sub=f"viewer-{number}")
    return lines


async def begin(world: World, crowd: list[FakeConnection], user_id: str = "nobody") -> None:
    """Send the first event, an item of this user, to the first two sockets."""
    world.intake(user_id=user_id)
    world.publish(1)
    await until(lambda: len(crowd[0].written) == 2)
    assert len(crowd[2].written) == 1, "the broadcast is not over"


async def test_events_committed_during_a_broadcast_are_sent_at_once_to_sockets_it_has_not_reached(world: World) -> None:
    crowd = await crowd_of(world)
    await begin(world, crowd)
    world.intake(user_id="nobody")
    world.intake(user_id="nobody")
    world.publish(2, 3)
    await until(lambda: len(crowd[0].written) == 3)
    await rest()
    for line in crowd[:2]:
        assert line.sent == [("snapshot", 0), ("update", 1), ("update", 3)]
    for line in crowd[2:]:
        assert line.sent == [("snapshot", 0), ("update", 3)]
        assert sent_items(line.frames[1]) == items(world, 0, 3)
        assert line.frames[1]["from"] == 0


async def test_sockets_that_have_had_the_broadcast_wait_for_the_window() -> None:
    world = World(window=0.05, limits=TWO_AT_A_TIME)
    loop = asyncio.get_running_loop()
    crowd = await crowd_of(world)
    began = loop.time()
    await begin(world, crowd)
    world.intake(user_id="nobody")
    world.publish(2)
    await until(lambda: len(crowd[9].written) == 2)
    assert crowd[9].sent[-1] == ("update", 2)
    assert len(crowd[0].written) == 2
    await until(lambda: len(crowd[0].written) == 3)
    assert loop.time() - began >= 0.05
    await rest()
    assert len(crowd[9].written) == 2, "it has been sent to them"


async def test_an_owner_is_sent_their_position_once_and_after_the_frame(world: World) -> None:
    crowd = await crowd_of(world)
    await begin(world, crowd)
    world.intake(user_id="viewer-0")
    world.intake(user_id="viewer-7")
    world.publish(2, 3)
    await until(lambda: len(crowd[0].written) >= 4)
    await rest()
    assert crowd[0].sent == [("snapshot", 0), ("update", 1), ("update", 3), ("position", 3)]
    assert crowd[7].sent == [("snapshot", 0), ("update", 3), ("position", 3), ("notice", -1)]


async def test_a_socket_that_asks_for_the_room_before_its_turn_is_not_sent_the_same_events_again(world: World) -> None:
    crowd = await crowd_of(world)
    await begin(world, crowd, "viewer-7")
    subscriber = next(each for each in world.room.subscribers if each.connection is crowd[7])
    world.show(subscriber)
    await until(lambda: len(crowd[9].written) == 2)
    await rest()
    assert crowd[7].sent == [("snapshot", 0), ("snapshot", 1)]
    world.intake(user_id="nobody")
    world.publish(2)
    await until(lambda: len(crowd[7].written) == 3)
    assert crowd[7].sent[-1] == ("update", 2)


async def test_events_are_kept_as_long_as_somebody_has_not_been_sent_them() -> None:
    world = World(limits={**TWO_AT_A_TIME, "recent_events": 2})
    crowd = await crowd_of(world)
    await begin(world, crowd)
    for _ in range(5):
        world.intake(user_id="nobody")
    world.publish(2, 3, 4, 5, 6)
    await until(lambda: len(crowd[0].written) == 3)
    await rest()
    assert sent_items(crowd[0].frames[2]) == items(world, 1, 6)
    for since, kind in ((4, "update"), (3, "snapshot")):
        line = FakeConnection()
        await world.join(line, since=since)
        assert line.frames[0]["type"] == kind, "only so many are kept"
    assert world.reads == []


async def test_groups_that_have_grown_small_become_one() -> None:
    world = World(limits={"sockets_a_turn": 4})
    lines = [FakeConnection() for _ in range(12)]
    everyone = [await world.join(line) for line in lines]
    assert groups(everyone) == [4, 4, 4]
    for number in (0, 1, 2, 5, 6, 8, 9, 10, 11):
        world.leave(everyone[number])
    assert groups(everyone) == [1, 2], "one without sockets is gone"
    world.hub.tidy(30)
    assert groups(everyone) == [3]
    world.intake(user_id="nobody")
    world.publish(1)
    await until(lambda: lines[7].sent[-1] == ("update", 1))
    await rest()
    assert all(lines[number].sent == [("snapshot", 0), ("update", 1)] for number in (3, 4, 7))
    world.leave(everyone[7])
    assert groups(everyone) == [2]


async def test_groups_are_made_one_while_a_broadcast_is_under_way(world: World) -> None:
    lines = [FakeConnection() for _ in range(10)]
    everyone = [await world.join(line) for line in lines]
    for number in (3, 4, 7, 8):
        world.leave(everyone[number])
    await begin(world, lines)
    world.hub.tidy(30)
    assert groups(everyone) == [2, 2, 2]
    await until(lambda: lines[9].sent[-1] == ("update", 1))
    await rest()
    assert all(lines[number].sent == [("snapshot", 0), ("update", 1)] for number in (0, 1, 2, 5, 6, 9))


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_happens_everybody_is_sent_everything_in_order(seed: int, world: World) -> None:
    """Sockets come, go, lag, catch up and ask for the room while broadcasts are under way."""
    draw = random.Random(seed)
    inside: dict[FakeConnection, Subscriber] = {}
    everyone: list[FakeConnection] = []
    for _ in range(150):
        action = draw.choice(
            ["join", "join", "leave", "lag", "catch up", "resync", "event", "event", "turn", "turn", "tidy"]
        )
        line = draw.choice([*inside, None]) if inside else None
        if action == "join":
            line = FakeConnection()
            everyone.append(line)
            since = draw.choice([None, 0, world.stage.room.version])
            inside[line] = await world.join(line, since=since, view=draw.choice(VIEWS))
        elif action == "event":
            if len(world.stage.room.items) < 40:
                world.intake()
            world.publish()
        elif action == "tidy":
            world.hub.tidy(30)
        elif action == "turn" or line is None:
            await asyncio.sleep(0)
        elif action == "leave":
            world.leave(inside.pop(line))
        elif action == "resync":
            world.show(inside[line])
        else:
            line.is_lagging = action == "lag"
    for line in inside:
        line.is_lagging = False
    await until(lambda: not inside or not world.room.has_unsent)
    await rest()
    for line in everyone:
        version = None
        for frame in line.frames:
            if frame["type"] == "snapshot":
                version = frame["version"]
            elif frame["type"] == "update":
                assert version is None or frame["from"] == version
                assert sent_items(frame) == items(world, frame["from"], frame["version"])
                version = frame["version"]
        if line in inside:
            assert version == world.stage.room.version
