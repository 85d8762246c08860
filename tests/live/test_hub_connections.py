"""The hub and the state of its connections: resumed, lagging, closed, and drained."""

import asyncio

import pytest

from app.domain.view import View
from app.live.connections import Audience
from app.wire.websocket import CloseCode
from tests.support.hub_harness import STAR, FakeConnection, World, rest, until


@pytest.fixture
def world() -> World:
    return World()


# Resuming


async def test_resuming_gives_all_that_was_missed_or_a_snapshot() -> None:
    world = World(limits={"recent_events": 4})
    await world.join(FakeConnection())
    for _ in range(6):
        world.intake()
    world.publish()
    await rest()
    expected = {
        0: "snapshot",  # more than is kept
        1: "snapshot",
        2: "update",
        5: "update",
        6: "update",  # nothing missed
        7: "snapshot",  # from a future that never was
        -1: "snapshot",
    }
    for since, kind in expected.items():
        line = FakeConnection()
        await world.join(line, since=since)
        await rest()
        (frame,) = line.frames
        assert (frame["type"], frame["version"]) == (kind, 6)
        if kind == "update":
            assert (frame["from"], frame["recovered"], len(frame["events"])) == (since, True, 6 - since)


async def test_resuming_reads_events_that_are_no_longer_in_memory(world: World) -> None:
    for _ in range(3):
        world.intake()
    line = FakeConnection()
    await world.join(line, since=1)
    assert world.reads == [1]
    assert [len(frame["events"]) for frame in line.frames] == [2]


async def test_a_log_with_a_hole_is_not_resumed_from(world: World) -> None:
    for _ in range(3):
        world.intake()
    del world.stage.events[1]
    line = FakeConnection()
    await world.join(line, since=0)
    assert line.sent == [("snapshot", 3)]


# Lines that lag


async def test_a_rooms_audience_says_how_many_watch_how_many_lag_and_for_how_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.hub.audiences() == []
    slow, quick = FakeConnection(), FakeConnection()
    subscriber = await world.join(slow, view=View.FULL)
    await world.join(quick)
    assert world.hub.audiences() == [Audience(performer_id=STAR, sockets=2, lagging=0, longest_lag_seconds=0)]
    slow.is_lagging = True
    world.intake()
    world.publish()
    await until(lambda: subscriber.lagging_since is not None)
    since = subscriber.lagging_since
    assert since is not None
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", lambda: since + 16)
        (audience,) = world.hub.audiences()
    assert (audience.sockets, audience.lagging) == (2, 1)
    assert audience.longest_lag_seconds == pytest.approx(16)
    slow.is_lagging = False
    world.leave(subscriber)
    assert world.hub.audiences() == [Audience(performer_id=STAR, sockets=1, lagging=0, longest_lag_seconds=0)]


async def test_a_lagging_connection_is_skipped_and_gets_the_room_when_it_has_caught_up(world: World) -> None:
    slow, quick = FakeConnection(), FakeConnection()
    await world.join(slow)
    await world.join(quick)
    slow.is_lagging = True
    for version in (1, 2, 3):
        world.intake()
        world.publish(version)
        await until(lambda version=version: len(quick.written) == version + 1)  # type: ignore[misc]
    assert len(slow.written) == 1
    assert world.hub.lagging == 1
    slow.is_lagging = False
    slow.on_change()
    assert slow.sent == [("snapshot", 0), ("snapshot", 3)]
    assert world.hub.lagging == 0
    world.intake()
    world.publish(4)
    await until(lambda: slow.sent[-1] == ("update", 4))


async def test_a_connection_that_lagged_while_nothing_happened_has_missed_nothing(world: World) -> None:
    line = FakeConnection()
    await world.join(line)
    line.is_lagging = True
    line.is_lagging = False
    assert line.sent == [("snapshot", 0)]


async def test_snapshots_do_not_pile_up_for_a_lagging_connection(world: World) -> None:
    line = FakeConnection()
    subscriber = await world.join(line)
    line.is_lagging = True
    for _ in range(100):
        world.show(subscriber)
    assert len(line.written) == 1
    line.is_lagging = False
    assert len(line.written) == 2


async def test_a_connection_that_lags_too_long_is_cut_off_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = FakeConnection(), FakeConnection()
    await world.join(slow)
    await world.join(quick)
    slow.is_lagging = True
    world.intake()
    world.publish()
    await until(lambda: len(quick.written) == 2)
    assert world.hub.tidy(30) == 0
    loop = asyncio.get_running_loop()
    half_a_minute_on = loop.time() + 31
    monkeypatch.setattr(loop, "time", lambda: half_a_minute_on)
    assert world.hub.tidy(30) == 1
    assert world.hub.tidy(30) == 0
    assert [code for code, _ in slow.cut] == [CloseCode.TOO_SLOW]
    assert quick.cut == []


async def test_nothing_is_written_to_a_closed_connection(world: World) -> None:
    gone, stays = FakeConnection(), FakeConnection()
    subscriber = await world.join(gone, sub="viewer-1")
    await world.join(stays)
    gone.is_open = False
    world.intake()
    world.publish()
    await until(lambda: len(stays.written) == 2)
    world.show(subscriber)
    assert len(gone.written) == 1


async def test_nothing_is_written_to_a_connection_that_closes_while_the_room_is_read(world: World) -> None:
    for since in (None, 0):
        line = FakeConnection(is_open=False)
        await world.join(line, since=since, sub="viewer-1")
        assert line.written == []


async def test_a_room_without_sockets_is_removed(world: World) -> None:
    world.may_load.clear()
    joining = asyncio.create_task(world.join(FakeConnection()))
    await until(lambda: world.loads == 1)
    joining.cancel()
    world.may_load.set()
    await until(lambda: world.hub.rooms == 1)
    world.hub.tidy(30)
    assert world.hub.rooms == 0


# Lines that change in the middle of a broadcast

TWO_AT_A_TIME = {"sockets_a_turn": 2}


async def half_sent(world: World) -> list[FakeConnection]:
    """Ten connections that are written two at a time; the first ones have an update for which the others still wait."""
    lines = [FakeConnection() for _ in range(10)]
    for number, line in enumerate(lines):
        await world.join(line, sub=f"viewer-{number}")
    world.intake(user_id="viewer-7")
    world.publish()
    await until(lambda: len(lines[0].written) == 2)
    assert len(lines[7].written) == 1, "the broadcast is not over"
    return lines


async def test_a_connection_that_begins_to_lag_before_its_turn_gets_a_snapshot_instead() -> None:
    world = World(limits=TWO_AT_A_TIME)
    crowd = await half_sent(world)
    crowd[7].is_lagging = True
    await until(lambda: len(crowd[9].written) == 2)
    await rest()
    assert world.hub.lagging == 1
    assert crowd[7].sent == [("snapshot", 0)]
    crowd[7].is_lagging = False
    assert crowd[7].sent == [("snapshot", 0), ("snapshot", 1)]
    assert all(line.sent == [("snapshot", 0), ("update", 1)] for line in crowd if line is not crowd[7])


async def test_a_connection_that_lags_for_a_moment_before_its_turn_misses_nothing() -> None:
    world = World(limits=TWO_AT_A_TIME)
    crowd = await half_sent(world)
    crowd[7].is_lagging = True
    crowd[7].is_lagging = False
    await until(lambda: len(crowd[9].written) == 2)
    await rest()
    assert crowd[7].sent == [("snapshot", 0), ("update", 1), ("position", 1), ("notice", -1)]


async def test_a_connection_that_lags_after_its_turn_has_missed_nothing() -> None:
    world = World(limits=TWO_AT_A_TIME)
    crowd = await half_sent(world)
    crowd[0].is_lagging = True
    await until(lambda: len(crowd[9].written) == 2)
    crowd[0].is_lagging = False
    await rest()
    assert crowd[0].sent == [("snapshot", 0), ("update", 1)]


async def test_a_connection_that_closes_before_its_turn_is_skipped() -> None:
    world = World(limits=TWO_AT_A_TIME)
    crowd = await half_sent(world)
    crowd[7].is_open = False
    await until(lambda: len(crowd[9].written) == 2)
    await rest()
    assert crowd[7].sent == [("snapshot", 0)]
    assert world.hub.lagging == 0


async def test_a_connection_whose_way_of_sending_changes_is_no_longer_written_in_the_old_way() -> None:
    world = World(limits=TWO_AT_A_TIME)
    """A frame that is sent at once would overtake those in its buffer."""
    crowd = await half_sent(world)
    await until(lambda: len(crowd[9].written) == 2)
    old_way: list[bytes] = []
    line = crowd[3]
    line.send_at_once = lambda frame: old_way.append(frame) or len(frame)  # type: ignore[func-returns-value,method-assign]
    line.on_change()
    world.intake()
    world.publish(2)
    await until(lambda: len(crowd[0].written) == 3)
    before = len(old_way)
    del line.send_at_once
    line.on_change()
    await until(lambda: len(crowd[9].written) == 3)
    await rest()
    assert len(old_way) == before
    assert line.sent == [("snapshot", 0), ("update", 1), ("update", 2)]


@pytest.mark.parametrize("taken", [0, 1, 10])
async def test_bytes_that_a_connection_does_not_take_at_once_are_buffered_in_order(world: World, taken: int) -> None:
    line, other = FakeConnection(), FakeConnection()
    begun: list[bytes] = []

    def send(frame: bytes) -> int:
        if not taken:
            raise BlockingIOError
        begun.append(frame[:taken])
        return taken

    line.send_at_once = send  # type: ignore[method-assign]
    await world.join(line)
    await world.join(other)
    world.intake()
    world.publish()
    await until(lambda: len(other.written) == 2)
    assert b"".join(begun) + line.written[1] == other.written[1]


async def test_a_connection_whose_way_of_sending_changes_with_its_snapshot_is_written_in_the_new_way(
    world: World,
) -> None:
    """It cannot report the change yet, because its subscriber has not got the room. Bytes in its buffer would be
    overtaken."""
    line = FakeConnection()
    old_way: list[bytes] = []
    line.send_at_once = lambda frame: old_way.append(frame) or len(frame)  # type: ignore[func-returns-value,method-assign]
    write = line.write

    def write_and_change(frame: bytes) -> None:
        write(frame)
        line.__dict__.pop("send_at_once", None)

    line.write = write_and_change  # type: ignore[method-assign]
    await world.join(line)
    world.intake()
    world.publish(1)
    await until(lambda: len(line.written) == 2)
    assert old_way == []


# The end


async def test_everybody_is_sent_away_in_batches(world: World) -> None:
    for _ in range(10):
        await world.join(FakeConnection())
    draining = asyncio.create_task(world.hub.drain(seconds=0.1, batches=5))
    await rest()
    assert len(world.closed) == 2
    await draining
    assert [code for code, _ in world.closed] == [CloseCode.RESTARTING] * 10


async def test_an_empty_hub_is_drained_at_once(world: World) -> None:
    async with asyncio.timeout(1):
        await world.hub.drain(seconds=60)
