"""Items end at their deadlines, not before them, whatever the service did meanwhile."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from app.domain import command as do
from app.domain.item import Item, Reason, Status
from app.domain.room import Policy
from app.engine.timers import every, sweep
from app.store import Store, reading, wallet_operations, writing
from tests.support.builders import ADMIN, PERFORMER, moment
from tests.support.processes import Process, no_room, running
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
from tests.support.stores import store_fixture as store_fixture

POLICY = Policy(
    rope_drop_seconds=10, started_timeout_seconds=20, disconnect_grace_seconds=30, default_duration_seconds=5
)
BARELY = timedelta(milliseconds=1)


def item_of(store: Store, item: Item) -> Item:
    with store.reading() as connection:
        found = reading.find_item(connection, item.item_id)
    assert found is not None
    return found


async def sweep_at(process: Process, seconds: float) -> int:
    """Sweep at this time, and a moment earlier, when nothing may be due."""
    process.clock.now = moment(seconds) - BARELY
    assert await sweep(process.queries, process.lanes, process.clock()) == 0
    process.clock.now = moment(seconds)
    return await sweep(process.queries, process.lanes, process.clock())


async def test_the_next_item_is_abandoned_when_nobody_starts_it_and_then_the_one_after_it(database: Database) -> None:
    store = database.open(POLICY)
    first, second = (queue_item(build_writer(store)) for _ in range(2))
    async with running(store, HandClock()) as process:
        assert await sweep_at(process, 10) == 1
        assert [item_of(store, item).status for item in (first, second)] == [Status.ABANDONED, Status.CREATED]
        assert item_of(store, first).abandon_reason is Reason.TIMEOUT
        assert await sweep_at(process, 20) == 1
        assert item_of(store, second).status is Status.ABANDONED
        assert await sweep(process.queries, process.lanes, moment(10**6)) == 0
    with store.reading() as connection:
        assert wallet_operations.operations_page(connection, status="pending", limit=10, skip=0).total == 2


async def test_a_started_item_is_abandoned_after_its_duration_and_the_limit(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer, duration_seconds=60)
    clock.wait(9)
    send(writer, start_of(item))
    async with running(store, clock) as process:
        assert await sweep_at(process, 9 + 60 + 20) == 1
    assert item_of(store, item).status is Status.ABANDONED


async def test_a_stopped_clock_makes_nothing_due(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer)
    clock.wait(4)
    send(writer, do.ChangeSettings(actor=PERFORMER, paused=True))
    clock.wait(1000)
    async with running(store, clock) as process:
        assert await sweep(process.queries, process.lanes, clock()) == 0
        await process.lanes.send(PERFORMER.id, do.ChangeSettings(actor=PERFORMER, paused=False))
        assert await sweep_at(process, 1004 + 6) == 1
    assert item_of(store, item).status is Status.ABANDONED


async def test_everything_is_abandoned_when_the_performer_stays_away(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    writer = build_writer(store, clock)
    items = [queue_item(writer) for _ in range(3)]
    send(writer, start_of(items[1]))
    send(writer, do.SetPresence(online=True))
    clock.wait(2)
    send(writer, do.SetPresence(online=False))
    async with running(store, clock) as process:
        assert await sweep_at(process, 32) == 3
    assert {item_of(store, item).abandon_reason for item in items} == {Reason.PERFORMER_DISCONNECTED}
    assert assert_consistent(store).depth == 0


async def test_a_more_patient_policy_holds_after_a_restart_and_spared_items_delay_no_others(
    database: Database,
) -> None:
    clock = HandClock()
    hasty = build_writer(database.open(POLICY), clock)
    spared = [queue_item(hasty, performer_id=f"star-{number}") for number in range(3)]
    store = database.open(Policy(rope_drop_seconds=1000, started_timeout_seconds=20))
    patient = build_writer(store, clock)
    overdue = queue_item(patient, performer_id="late", duration_seconds=1)
    send(patient, start_of(overdue), performer_id="late")
    clock.wait(50)
    async with running(store, clock) as process:
        assert [await sweep(process.queries, process.lanes, clock(), at_once=2) for _ in range(3)] == [2, 2, 0]
        assert item_of(store, overdue).status is Status.ABANDONED
        assert [item_of(store, item).status for item in spared] == [Status.CREATED] * 3
        clock.now = moment(1000)
        assert [await sweep(process.queries, process.lanes, clock(), at_once=2) for _ in range(2)] == [2, 1]


async def test_a_stricter_policy_holds_after_a_restart_for_those_who_wait_already(database: Database) -> None:
    clock = HandClock()
    item = queue_item(build_writer(database.open(Policy(rope_drop_seconds=0)), clock))
    store = database.open(POLICY)
    clock.wait(10)
    async with running(store, clock) as process:
        assert await sweep(process.queries, process.lanes, clock()) == 0
        await process.lanes.run(lambda connection: writing.review_deadlines(connection, store.policy, clock()))
        assert await sweep(process.queries, process.lanes, clock()) == 1
    assert item_of(store, item).status is Status.ABANDONED


async def test_an_item_that_ends_while_it_is_swept_is_left_alone(database: Database) -> None:
    store, clock = database.open(POLICY), HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer)
    clock.wait(10)
    is_refunded = False
    async with running(store, clock) as process:

        @event.listens_for(store.engines.reader, "after_cursor_execute")
        def refund(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            nonlocal is_refunded
            if "FROM items" in statement and not is_refunded:
                is_refunded = True
                send(writer, do.Refund(actor=ADMIN, item_id=item.item_id, reason=Reason.ADMIN_REFUND))

        assert await sweep(process.queries, process.lanes, clock()) == 1
    assert item_of(store, item).status is Status.REFUNDED
    assert assert_consistent(store).version == 2


async def test_two_processes_that_sweep_together_abandon_once(postgres_database: Database) -> None:
    stores, clock = [postgres_database.open(POLICY) for _ in range(2)], HandClock()
    writer = build_writer(stores[0], clock)
    names = [f"star-{number}" for number in range(20)]
    for name in names:
        queue_item(writer, performer_id=name)
    clock.wait(10)
    async with running(stores[0], clock, "one") as one, running(stores[1], clock, "two") as two:
        await asyncio.gather(*(sweep(process.queries, process.lanes, clock()) for process in (one, two)))
    for name in names:
        assert [event.item and event.item.status for event in stored_events(stores[0], name)] == [
            Status.CREATED,
            Status.ABANDONED,
        ]


async def test_a_sweep_that_finds_the_lanes_closed_leaves_the_items_to_the_next(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = database.open(POLICY), HandClock()
    item = queue_item(build_writer(store, clock))
    clock.wait(10)
    async with running(store, clock) as process:
        with caplog.at_level(logging.WARNING), no_room(process.lanes):
            assert await sweep(process.queries, process.lanes, clock()) == 1
        assert "an overdue item could not be ended: UNAVAILABLE" in caplog.text
        assert item_of(store, item).status is Status.CREATED
        assert await sweep(process.queries, process.lanes, clock()) == 1
    assert item_of(store, item).status is Status.ABANDONED


async def test_a_loop_outlives_its_failures(caplog: pytest.LogCaptureFixture) -> None:
    turns = 0
    thrice = asyncio.Event()

    async def work() -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            thrice.set()
        raise RuntimeError("the database is away")

    loop = asyncio.create_task(every(0, "the work", work))
    await asyncio.wait_for(thrice.wait(), 10)
    assert not loop.done()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert caplog.text.count("the work failed; trying again") >= 3
