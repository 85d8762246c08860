"""The log of an earlier release gets the new layout: the same events and answers, in a quarter of the space."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, func, inspect, select, text

from app.domain import command as do
from app.domain.command import Mode
from app.domain.event import Event
from app.domain.item import Reason
from app.domain.view import View
from app.engine import upkeep
from app.engine.lane import Lanes
from app.store import Store, compaction, event_log
from app.store.tables import ANSWERS, EVENTS, ITEMS, META
from app.wire import frames
from app.wire.encoding import encode
from app.wire.shapes import logged_event
from tests.support.builders import ADMIN, PERFORMER, moment
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    build_writer,
    complete_of,
    idempotency_of,
    intake_of,
    new_id,
    queue_item,
    send,
    start_of,
    stored_events,
)
from tests.support.stores import database_fixture as database_fixture


def earlier_release(database: Database) -> Store:
    """The store before `migrate --contract`, with the index that this removes."""
    store = database.open()
    with store.writing() as connection:
        connection.execute(META.delete().where(META.c.name.in_([compaction.PROGRESS])))
        connection.execute(text("CREATE INDEX IF NOT EXISTS ix_event_item ON events (item_id, version)"))
    store.compact = False
    return store


def a_night(store: Store) -> list[Any]:
    """Make all kinds of events; returns the intakes with keys."""
    clock = HandClock()
    writer = build_writer(store, clock)
    keyed = [intake_of(queue_mode=mode, metadata={"n": [1, 2]}) for mode in (Mode.ON, Mode.OFF, Mode.ON)]
    for intake in keyed:
        clock.wait(1)
        send(writer, intake, idempotency_of(intake))
    items = [queue_item(writer, title=f"Wish {number}") for number in range(6)]
    for item in items[:3]:
        send(writer, start_of(item))
        clock.wait(12.345)
        send(writer, do.Pause(actor=PERFORMER, item_id=item.item_id))
        clock.wait(3)
        send(writer, do.ChangeSettings(actor=PERFORMER, paused=True))
        send(writer, do.ChangeSettings(actor=PERFORMER, paused=False, announcement="On we go"))
        send(writer, do.Resume(actor=PERFORMER, item_id=item.item_id))
        clock.wait(7.001)
        send(writer, complete_of(item))
    send(writer, do.Refund(actor=ADMIN, item_id=items[3].item_id, reason=Reason.ADMIN_REFUND))
    send(writer, do.Abandon(actor=PERFORMER, item_id=items[4].item_id, reason=Reason.PERFORMER_DECLINED))
    return keyed


def frames_of(store: Store, events: Sequence[Event]) -> list[bytes]:
    """The frames of each event, to the performer and to viewers, and the log's entries."""
    with store.reading() as connection:
        logged = event_log.log_events(connection, after=None, limit=1000)
    assert_consistent(store)
    sent = [encode(logged_event(entry)) for entry in logged]
    for event in events:
        for view in View:
            sent.append(frames.update([event], moment(), since=event.version - 1, version=event.version, view=view))
    return sent


def all_batches(store: Store, at_most: int = 7) -> int:
    number = 1
    with store.writing() as connection:
        more = compaction.compact_batch(connection, at_most)
    while more:
        number += 1
        with store.writing() as connection:
            more = compaction.compact_batch(connection, at_most)
    return number


def whole_events(connection: Connection) -> int:
    statement = select(func.count()).select_from(EVENTS).where(EVENTS.c.item.is_not(None), ~EVENTS.c.item.like("~%"))
    return int(connection.execute(statement).scalar_one())


def test_a_compacted_log_gives_the_same_frames_byte_for_byte_and_the_same_answers(database: Database) -> None:
    store = earlier_release(database)
    keyed = a_night(store)
    before = stored_events(store)
    sent = frames_of(store, before)
    with store.reading() as connection:
        assert whole_events(connection) > 20
        assert connection.execute(select(func.count()).select_from(ANSWERS)).scalar_one() == len(keyed)
        lives = {item_id: event_log.item_events(connection, item_id) for item_id in item_ids(connection)}
    answers = [send(build_writer(store), intake, idempotency_of(intake)) for intake in keyed]
    assert all_batches(store) > 4
    store.compact = True
    compaction.finish(store.engines.writer)
    assert "ix_event_item" not in {index["name"] for index in inspect(store.engines.writer).get_indexes("events")}
    with store.reading() as connection:
        assert whole_events(connection) == 0
        assert connection.execute(select(func.count()).select_from(ANSWERS)).scalar_one() == 0
        assert {item_id: event_log.item_events(connection, item_id) for item_id in item_ids(connection)} == lives
    assert stored_events(store) == before
    assert frames_of(store, before) == sent
    again = [send(build_writer(store), intake, idempotency_of(intake)) for intake in keyed]
    assert [(each.item, each.position, each.replayed) for each in again] == [
        (each.item, each.position, True) for each in answers
    ]


def item_ids(connection: Connection) -> list[str]:
    return list(connection.execute(select(ITEMS.c.item_id)).scalars())


@pytest.mark.parametrize("compact", [False, True])
def test_both_layouts_of_one_night_are_the_same_night(database: Database, compact: bool) -> None:
    store = database.open()
    store.compact = compact
    a_night(store)
    other = database.open()
    other.compact = not compact
    assert stored_events(other) == stored_events(store)
    queue_item(build_writer(other))
    assert_consistent(store)


async def test_the_log_is_compacted_beside_commands_and_a_restart_goes_on(database: Database) -> None:
    store = earlier_release(database)
    a_night(store)
    before = stored_events(store)
    with store.writing() as connection:
        assert compaction.compact_batch(connection, 5)
    store.compact = True
    async with Lanes(store, HandClock(moment(1000)), new_id, lambda outcomes: None) as lanes:
        await upkeep.compact_log(lanes, store, pause_seconds=0)
        await lanes.send(PERFORMER.id, intake_of())
        await upkeep.compact_log(lanes, store, pause_seconds=0)
    with store.reading() as connection:
        assert compaction.is_done(connection)
        assert whole_events(connection) == 0
    assert stored_events(store)[: len(before)] == before
    assert_consistent(store)


async def test_while_the_previous_release_may_run_everything_is_written_as_it_reads_it(database: Database) -> None:
    store = earlier_release(database)
    intake = intake_of()
    send(build_writer(store), intake, idempotency_of(intake))
    async with Lanes(store, HandClock(), new_id, lambda outcomes: None) as lanes:
        await upkeep.compact_log(lanes, store)
    with store.reading() as connection:
        assert whole_events(connection) == 1
        assert connection.execute(select(func.count()).select_from(ANSWERS)).scalar_one() == 1
