"""Downtime and a clock that is set change no deadline."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from app.domain import command as do
from app.domain.event import EventName
from app.domain.item import Clock, Item, Reason, Status
from app.domain.room import Policy
from app.engine.heartbeat import BEAT, CORRECTION_SECONDS, LONGEST_LEASE, STALE_SECONDS, Heartbeat
from app.engine.room_clock import AGREEMENT, RoomClock
from app.engine.timers import sweep
from app.parts import utc_now
from app.store import Store, heartbeat, reading, wallet_operations, writing
from tests.support.builders import NOON, PERFORMER, moment
from tests.support.processes import Process, running
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    build_writer,
    queue_item,
    send,
    start_of,
    stored_events,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture

POLICY = Policy(
    rope_drop_seconds=100, started_timeout_seconds=200, disconnect_grace_seconds=30, default_duration_seconds=50
)


@dataclass(eq=False, kw_only=True)
class Service:
    """A process with its heartbeat. The test moves real time and the clock together, or the clock alone."""

    process: Process
    clock: HandClock
    heartbeat: Heartbeat
    seconds: float = 0.0

    async def work(self, seconds: float) -> None:
        """Let the process run for this long, with heartbeats and sweeps."""
        for _ in range(round(seconds)):
            self.clock.wait(1)
            self.seconds += 1
            await self.look()

    async def look(self) -> int:
        """One heartbeat and one sweep."""
        return await sweep(self.process.queries, self.process.lanes, await self.heartbeat.keep())


@asynccontextmanager
async def at_work(store: Store, clock: HandClock, process_id: str = "one") -> AsyncIterator[Service]:
    async with running(store, clock, process_id) as process:
        # The time in these tests is not the database server's.
        beats = Heartbeat(process.lanes, process.queries, RoomClock(clock), elapsed=lambda: service.seconds)
        service = Service(process=process, clock=clock, heartbeat=beats)
        await beats.start()
        yield service


def item_of(store: Store, item: Item) -> Item:
    with store.reading() as connection:
        found = reading.find_item(connection, item.item_id)
    assert found is not None
    return found


async def test_a_stop_longer_than_any_deadline_costs_nobody_a_place(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    writer = build_writer(store, clock)
    on_stage, behind = queue_item(writer), queue_item(writer)
    head = queue_item(writer, performer_id="nova")
    absent = queue_item(writer, performer_id="vega")
    async with at_work(store, clock) as service:
        await service.process.lanes.send(PERFORMER.id, start_of(on_stage))
        for online in (True, False):
            await service.process.lanes.send("vega", do.SetPresence(online=online))
        await service.work(20)
    clock.wait(100_000)
    store = database.open(POLICY)
    async with at_work(store, clock) as service:
        assert await service.look() == 0
        items = [item_of(store, item) for item in (on_stage, behind, head, absent)]
        assert [item.status for item in items] == [Status.STARTED, Status.CREATED, Status.CREATED, Status.CREATED]
        assert items[0].clock == Clock(used_seconds=20, since=clock())
        assert items[2].clock == Clock(used_seconds=20, since=clock())
        await service.work(29)
        assert item_of(store, absent).is_active
        await service.work(1)
        assert item_of(store, absent).abandon_reason is Reason.PERFORMER_DISCONNECTED
        await service.work(49)
        assert item_of(store, head).is_active
        await service.work(1)
        assert item_of(store, head).abandon_reason is Reason.TIMEOUT
        assert item_of(store, on_stage).is_active
    assert_consistent(store)


async def test_the_stop_is_in_the_log_as_a_change_of_the_room(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.process.lanes.send(PERFORMER.id, start_of(item))
        await service.work(10)
    clock.wait(500)
    async with at_work(database.open(POLICY), clock):
        pass
    *_, last = stored_events(store)
    assert (last.name, last.at, last.reason) == (EventName.ROOM_CHANGED, clock(), None)
    assert last.item is not None
    assert last.item.service_clock == Clock(used_seconds=10, since=clock())


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps_makes_nothing_due_and_stops_no_clock(database: Database, hours: int) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(40)
        clock.wait(3600 * hours)
        assert await service.look() == 0
        assert item_of(store, item).clock == Clock(used_seconds=40, since=clock())
        await service.work(59)
        assert item_of(store, item).is_active
        await service.work(1)
        assert item_of(store, item).abandon_reason is Reason.TIMEOUT


async def test_there_and_back_again_leaves_the_time_that_was_left(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(10)
        clock.wait(3600)
        await service.work(10)
        clock.wait(-3600)
        await service.work(79)
        assert item_of(store, item).is_active
        # Each jump has cost a heartbeat: what happened since the last one is not known.
        await service.work(3)
        assert not item_of(store, item).is_active


async def test_an_item_started_between_a_clock_set_back_and_the_next_heartbeat_has_used_only_that_time(
    database: Database,
) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(20)
        clock.wait(-3600)
        await service.process.lanes.send(PERFORMER.id, start_of(item))
        clock.wait(0.5)
        service.seconds += 0.5
        assert await service.look() == 0
        assert item_of(store, item).clock == Clock(used_seconds=0.5, since=clock())
        await service.work(249)
        assert item_of(store, item).is_active
        await service.work(1)
        assert item_of(store, item).abandon_reason is Reason.TIMEOUT


async def test_a_process_that_stood_still_finds_it_out_before_it_looks_at_a_deadline(database: Database) -> None:
    """It was suspended, or had no database; the loop continues where it was."""
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(10)
        clock.wait(100_000)
        service.seconds += 100_000
        assert await service.look() == 0
        assert item_of(store, item).clock == Clock(used_seconds=10, since=clock())


async def test_a_busy_moment_is_no_standstill(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(10)
        clock.wait(4)
        service.seconds += 4
        await service.look()
    assert item_of(store, item).clock == Clock(since=NOON)
    assert len(stored_events(store)) == 1


async def test_while_another_process_is_at_work_a_start_restarts_nothing(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(99)
        async with at_work(database.open(POLICY), clock, "two"):
            pass
    assert item_of(store, item).clock == Clock(since=NOON)


async def test_a_settlement_ordered_by_a_clock_that_was_wrong_is_due_in_time(database: Database) -> None:
    store, clock = database.open(replace(POLICY, settle_delay_seconds=30)), HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer)
    send(writer, start_of(item))
    async with at_work(store, clock) as service:
        clock.wait(3600)
        await service.process.lanes.send(PERFORMER.id, do.Complete(actor=PERFORMER, item_id=item.item_id))
        clock.wait(-3600)
        await service.work(CORRECTION_SECONDS)
        with store.reading() as connection:
            found = wallet_operations.operation_of(connection, item.item_id)
        assert found is not None
        assert moment(30) <= found[0].next_attempt_at <= moment(30 + CORRECTION_SECONDS)
    with store.writing() as connection:
        due = writing.claim_operations(connection, now=moment(60), lease_until=moment(90), limit=5)
    assert [operation.item_id for operation in due] == [item.item_id]


async def test_an_operation_claimed_by_a_wrong_clock_is_not_held_up_by_that_clocks_lease(database: Database) -> None:
    """The attempt ended without a stored outcome, so only the end of the lease releases the operation."""
    store, clock = database.open(POLICY), HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer)
    send(writer, start_of(item))
    send(writer, do.Complete(actor=PERFORMER, item_id=item.item_id))
    async with at_work(store, clock) as service:
        ahead = clock() + timedelta(hours=1)
        with store.writing() as connection:
            assert writing.claim_operations(connection, now=ahead, lease_until=ahead + LONGEST_LEASE, limit=10)
        await service.work(CORRECTION_SECONDS + 1)
        with store.reading() as connection:
            assert not wallet_operations.is_operation_due(connection, clock()), "an attempt may be under way"
            assert wallet_operations.is_operation_due(connection, clock() + LONGEST_LEASE)


async def test_a_clock_started_by_a_single_wrong_reading_counts_from_now(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(1)
        clock.wait(3600)
        await service.process.lanes.send(PERFORMER.id, start_of(item))
        clock.wait(-3600)
        await service.work(CORRECTION_SECONDS + 1)
        assert moment(0) < (item_of(store, item).clock.since or NOON) <= clock()


async def test_it_shows_that_nothing_can_be_written(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    async with at_work(store, clock) as service:
        await service.work(3)
        assert service.heartbeat.can_write
        service.seconds += STALE_SECONDS
        assert not service.heartbeat.can_write
        await service.look()
        assert service.heartbeat.can_write
        assert service.heartbeat.age_seconds < BEAT.total_seconds()


async def test_a_heartbeat_is_not_moved_back_by_a_process_that_is_a_little_behind(database: Database) -> None:
    store = database.open()
    with store.writing() as connection:
        heartbeat.write(connection, moment(10))
        assert heartbeat.beat(connection, moment(9), timedelta(seconds=5)) is None
        assert heartbeat.beat(connection, moment(16), timedelta(seconds=5)) == moment(10)
        assert heartbeat.beat(connection, moment(4), timedelta(seconds=5)) == moment(10)


async def test_the_processes_of_a_shared_database_go_by_its_clock(
    postgres_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """One clock is an hour ahead: its skew is measured, and its process expires no deadline early."""
    store = postgres_database.open(POLICY)
    item = queue_item(build_writer(store, utc_now))

    def wrong() -> datetime:
        return utc_now() + timedelta(hours=1)

    caplog.set_level(logging.WARNING)
    async with running(store, HandClock()) as process:
        right = RoomClock(utc_now)
        beats = Heartbeat(process.lanes, process.queries, right, database_time=heartbeat.database_time)
        await beats.start()
        assert beats.skew_seconds < 1
        assert abs(right.skew) < timedelta(seconds=1)
        clock = RoomClock(wrong)
        beats = Heartbeat(process.lanes, process.queries, clock, database_time=heartbeat.database_time)
        await beats.start()
        assert abs(clock.skew + timedelta(hours=1)) < timedelta(seconds=1)
        assert 3599 < beats.skew_seconds < 3601
        assert abs(clock() - utc_now()) < timedelta(seconds=1)
        assert await sweep(process.queries, process.lanes, await beats.keep()) == 0
    assert item_of(store, item).is_active
    assert "restart" not in caplog.text


def test_a_clock_that_is_set_between_two_comparisons_moves_no_time_of_a_room() -> None:
    """A deadline written an hour early, by a clock that was set back, would be overdue at once."""
    own, elapsed = HandClock(), HandClock()
    clock = RoomClock(own, elapsed=lambda: elapsed.now.timestamp())
    clock.compare(clock.asked(), own.now)
    right = own.now
    for seconds in (-3600, 7200, -3600):
        own.wait(seconds)
        assert clock() == right
    elapsed.wait(0.25)
    assert clock() == right + timedelta(milliseconds=250)
    own.wait(3600)
    clock.compare(clock.asked(), right + timedelta(milliseconds=250))
    assert clock() == right + timedelta(milliseconds=250)
    assert clock.skew < timedelta(minutes=-59)


@pytest.mark.parametrize("jump", [-86400, -20, 20, 86400])
def test_a_clock_that_is_set_while_the_database_is_asked_for_its_time_moves_no_time_of_a_room(jump: float) -> None:
    """Half the jump was once counted as half of the round trip, which moved the rooms' time by half a day."""
    own, elapsed = HandClock(), HandClock()
    clock = RoomClock(own, elapsed=lambda: elapsed.now.timestamp())
    asked, right = clock.asked(), own.now + timedelta(seconds=1)
    own.wait(1 + jump)
    elapsed.wait(1)
    clock.compare(asked, right)
    assert abs(clock() - right) <= AGREEMENT
    assert abs(clock.skew - timedelta(seconds=-jump)) <= timedelta(seconds=1)


def test_a_database_that_takes_long_to_say_its_time_corrects_nothing() -> None:
    """Its answer may be from any moment between the query and the answer's arrival."""
    own = HandClock()
    clock = RoomClock(own, elapsed=lambda: own.now.timestamp())
    for answered_after in (0, 5):
        asked, began = clock.asked(), own.now
        own.wait(5)
        clock.compare(asked, began + timedelta(seconds=answered_after))
        assert clock() == own.now


async def test_a_clock_that_is_set_behind_a_heartbeat_makes_nothing_overdue(database: Database) -> None:
    """Neither for the sweep nor for the room's decision a while later."""
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    async with at_work(store, clock) as service:
        await service.work(2)
        process, now = service.process, await service.heartbeat.keep()
        clock.wait(86400)
        assert await sweep(process.queries, process.lanes, now) == 0
        await process.lanes.send(item.performer_id, do.Expire(item_id=item.item_id, at=now))
        assert item_of(store, item).is_active
        assert await sweep(process.queries, process.lanes, clock()) == 1, "it would have been overdue"
