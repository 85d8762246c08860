"""An update holds the news that its readers may see; an empty one is not sent."""

import asyncio
from random import Random

import pytest

from app.domain.errors import QueueError
from app.domain.item import Status
from app.domain.operation import OperationStatus
from app.domain.view import View
from app.live.subscriber import Subscriber
from app.simulate import view as client
from tests.support.hub_harness import FakeConnection, World, rest, until


@pytest.fixture
def world() -> World:
    return World()


async def settled(world: World) -> None:
    """Publish all events, and let the hub send them."""
    world.publish()
    await rest()


async def test_an_update_has_no_room_unless_something_of_it_but_depth_and_version_has_changed(world: World) -> None:
    line = FakeConnection()
    await world.join(line, view=View.FULL)
    item = world.intake()
    await settled(world)
    world.stage.start(item)
    await settled(world)
    world.stage.change(announcement="Hello")
    await settled(world)
    world.stage.complete(item)
    await settled(world)
    rooms = [frame.get("room") for frame in line.frames[1:]]
    assert [room is not None for room in rooms] == [False, False, True, False]
    assert rooms[2] is not None
    assert (rooms[2]["announcement"], rooms[2]["depth"], rooms[2]["version"]) == ("Hello", 1, 3)


async def test_a_setting_that_is_back_where_it_was_by_the_time_of_the_frame_has_not_changed(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    world.stage.change(announcement="Hello")
    world.stage.change(announcement=None)
    await settled(world)
    (update,) = line.frames[1:]
    assert [event["event"] for event in update["events"]] == ["queue.room.changed"] * 2
    assert "room" not in update


async def test_params_do_not_repeat_the_item(world: World) -> None:
    line = FakeConnection()
    await world.join(line, view=View.FULL)
    world.intake()
    second = world.intake()
    world.stage.start(second)
    world.stage.complete(second, refund_tokens=40)
    await settled(world)
    params = [event["params"] for frame in line.frames[1:] for event in frame["events"]]
    assert params == [{}, {}, {"overtook": 1}, {"refundTokens": 40}]


async def test_viewers_get_no_update_for_payment_events_and_the_next_update_reaches_back(
    world: World,
) -> None:
    public, panel = FakeConnection(), FakeConnection()
    await world.join(public)
    await world.join(panel, view=View.FULL)
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    world.stage.confirm(item)
    await settled(world)
    assert public.sent == [("snapshot", 0), ("update", 3)]
    assert panel.sent[-1] == ("update", 4)
    world.intake()
    await settled(world)
    update = public.frames[-1]
    assert (update["from"], update["version"], len(update["events"])) == (3, 5, 1)
    assert (panel.frames[-1]["from"], panel.frames[-1]["version"]) == (4, 5)


async def test_an_update_leaves_a_hidden_event_out_and_does_not_count_it(world: World) -> None:
    public = FakeConnection()
    await world.join(public)
    item = world.stage.in_status(Status.FINISHED)
    world.stage.confirm(item)
    await settled(world)
    update = public.frames[-1]
    assert (update["from"], update["version"], len(update["events"])) == (0, 3, 3)
    world.intake()
    await settled(world)
    assert (public.frames[-1]["from"], public.frames[-1]["version"]) == (3, 5)


async def test_one_who_comes_after_a_hidden_event_gets_what_the_others_have(world: World) -> None:
    first, second = FakeConnection(), FakeConnection()
    await world.join(first)
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    world.stage.confirm(item)
    await settled(world)
    await world.join(second)
    snapshot = second.frames[0]
    assert (snapshot["version"], snapshot["room"]["version"]) == (3, 3)
    world.intake()
    await settled(world)
    assert first.written[-1] == second.written[-1]


async def test_one_who_lags_during_a_hidden_event_has_missed_nothing(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    line.is_lagging = True
    world.stage.confirm(item)
    await settled(world)
    assert world.hub.lagging == 0
    line.is_lagging = False
    assert line.sent == [("snapshot", 0), ("update", 3)]


async def test_an_owner_who_lags_when_only_their_own_frame_is_due_gets_a_snapshot(world: World) -> None:
    line = FakeConnection()
    await world.join(line, sub="viewer-1")
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    line.is_lagging = True
    world.stage.confirm(item)
    await settled(world)
    assert world.hub.lagging == 1
    line.is_lagging = False
    assert line.sent[-1] == ("snapshot", 3)


async def test_resuming_leaves_out_hidden_events_and_an_unchanged_room(world: World) -> None:
    stays = FakeConnection()
    await world.join(stays)
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    world.stage.confirm(item)
    await settled(world)
    for since, events in ((0, 3), (2, 1), (3, 0)):
        back = FakeConnection()
        await world.join(back, since=since)
        (update,) = back.frames
        assert (update["from"], update["version"], len(update["events"])) == (since, 3, events)
        assert update["recovered"] is True
        assert "room" not in update
    world.stage.change(accepting=False)
    await settled(world)
    back = FakeConnection()
    await world.join(back, since=1)
    assert back.frames[0]["room"]["accepting"] is False
    assert (back.frames[0]["version"], back.frames[0]["room"]["version"]) == (5, 5)


async def test_a_hidden_version_that_another_process_has_shown_can_be_resumed_from(world: World) -> None:
    """A room that is opened after a hidden event has its version: the room alone does not show that it was hidden."""
    stays, back = FakeConnection(), FakeConnection()
    await world.join(stays)
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    world.stage.confirm(item)
    await settled(world)
    subscriber = await world.join(back, since=4)
    assert (back.frames[0]["from"], back.frames[0]["version"]) == (4, 4)
    world.show(subscriber)
    assert back.sent[-1] == ("snapshot", 4), "versions never go back"
    world.intake()
    await settled(world)
    assert [(line.frames[-1]["from"], line.frames[-1]["version"]) for line in (stays, back)] == [(3, 5), (4, 5)]


async def test_many_hidden_events_are_not_kept_for_those_who_may_not_see_them(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    item = world.stage.in_status(Status.FINISHED)
    await settled(world)
    for turn in range(600):
        world.stage.report(item, OperationStatus.RETRYING if turn % 2 == 0 else OperationStatus.DEAD)
        await settled_one(world)
    assert len(line.written) == 2
    world.intake()
    await settled(world)
    assert (line.frames[-1]["from"], line.frames[-1]["version"]) == (3, 604)
    assert [event["event"] for event in line.frames[-1]["events"]] == ["queue.item.created"]
    assert world.reads == []


async def settled_one(world: World) -> None:
    world.publish(world.stage.room.version)
    await rest()


def act(world: World, draw: Random) -> None:
    """Send a command, which may be refused."""
    stage = world.stage
    items = list(stage.items.values())
    item = draw.choice(items[-6:]) if items else None
    stage.wait(1)
    try:
        if item is None or draw.random() < 0.3:
            stage.intake(user_id=draw.choice(("ada", "bob")))
            return
        match draw.randrange(8):
            case 0:
                stage.start_next()
            case 1 | 2:
                stage.complete(item)
            case 3:
                stage.abandon(item)
            case 4 | 5 if item.item_id in stage.operations:
                stage.confirm(item)
            case 6:
                stage.change(announcement=draw.choice(("Hello", None)), accepting=True)
            case 7:
                stage.presence(online=draw.random() < 0.5)
    except QueueError:
        return


@pytest.mark.parametrize("seed", range(40))
async def test_every_update_applied_to_a_snapshot_gives_exactly_a_fresh_snapshot(world: World, seed: int) -> None:
    """Sockets of both views stay, leave and resume, lag and catch up, while events of both kinds are sent."""
    draw = Random(seed)
    watching: list[tuple[FakeConnection, client.View, Subscriber]] = []

    def read(line: FakeConnection, view: client.View) -> None:
        for frame in line.frames:
            assert view.take(frame) is not client.Taken.GAP
            if frame["type"] == "update":
                assert frame["events"] or frame.get("recovered"), "an update that holds nothing"
        line.written.clear()

    for turn in range(200):
        match draw.randrange(10):
            case 0 if len(watching) < 12:
                line, sees = FakeConnection(), draw.choice(list(View))
                watching.append((line, client.View(), await world.join(line, view=sees, sub="ada")))
            case 1 if watching:
                line, view, subscriber = watching.pop(draw.randrange(len(watching)))
                read(line, view)
                world.leave(subscriber)
                act(world, draw)
                line = FakeConnection()
                joined = await world.join(line, since=view.version, view=subscriber.view, sub="ada")
                watching.append((line, view, joined))
            case 2 if watching:
                line = draw.choice(watching)[0]
                line.is_lagging = not line.is_lagging
            case _:
                act(world, draw)
        if turn % 3 == 0:
            world.publish()
        await asyncio.sleep(0)
    for line, _, _ in watching:
        line.is_lagging = False
    await settled(world)
    await until(lambda: world.hub.lagging == 0)
    for line, view, subscriber in watching:
        read(line, view)
        fresh = FakeConnection()
        await world.join(fresh, view=subscriber.view, sub="ada")
        (snapshot,) = fresh.frames
        assert view.version == snapshot["version"]
        assert view.differences(snapshot) == []
