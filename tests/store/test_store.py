"""The store's answers, on both databases: rooms, pages, the event log."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text

from app.domain import command as do
from app.domain.command import Actor, Mode, Role
from app.domain.estimate import Kind
from app.domain.event import Logged
from app.domain.fit import NO_FIT, Fit
from app.domain.item import Reason
from app.domain.operation import OperationStatus
from app.domain.room import Room
from app.engine.writer import Writer
from app.store import Store, engines, event_log, reading, wallet_operations
from app.store.engines import driver_rows
from app.store.facts import fact, set_fact
from app.store.histories import HISTORIES
from app.store.migrating import migrate
from app.store.writing import Changes, save
from tests.support.builders import ADMIN, PERFORMER, build_room, moment
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    build_operation,
    build_writer,
    complete_of,
    first_event,
    intake_of,
    job_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture
from tests.support.stores import store_fixture as store_fixture

# Facts


def test_a_fact_is_set_then_replaced(store: Store) -> None:
    with store.writing() as connection:
        assert fact(connection, "colour") is None
        for value in ("green", "blue"):
            set_fact(connection, "colour", value)
            assert fact(connection, "colour", lock=True) == value


# Rooms


def test_a_room_loads_in_queue_order_with_what_it_has_learnt(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    items = [queue_item(writer, duration_seconds=60) for _ in range(7)]
    for item in items[:3]:
        send(writer, start_of(item))
        clock.wait(30)
        send(writer, complete_of(item))
        clock.wait(5)
    room = assert_consistent(store)
    known = writer.peek(PERFORMER.id)
    assert known is not None
    assert room.history == known.history
    assert room.history.fits["wheel", True].weight > 2
    assert room.history.gaps == (5.0, 5.0)
    send(writer, start_of(items[5]))
    room = assert_consistent(store)
    assert [item.item_id for item in room.items] == [items[at].item_id for at in (5, 3, 4, 6)]


def _with_three_services(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    for seconds in (10, 20, 30):
        item = queue_item(writer)
        send(writer, start_of(item))
        clock.wait(seconds)
        send(writer, complete_of(item))


def _learnt(store: Store) -> Mapping[Kind, Fit]:
    return assert_consistent(store).history.fits


THREE_SERVICES = NO_FIT.with_service(60, 10.0).with_service(60, 20.0).with_service(60, 30.0)


def _a_night(clock: HandClock, performer_id: str, one: Writer, two: Writer) -> None:
    """Intakes, starts and cancellations through one process, ends through the other."""
    actor = Actor(role=Role.PERFORMER, id=performer_id)
    for _ in range(5):
        served, leaving = (queue_item(one, performer_id=performer_id) for _ in range(2))
        clock.wait(10)
        send(one, start_of(served, actor), performer_id=performer_id)
        clock.wait(20)
        send(two, complete_of(served, actor), performer_id=performer_id)
        cancellation = do.Abandon(actor=actor, item_id=leaving.item_id, reason=Reason.PERFORMER_DECLINED)
        send(one, cancellation, performer_id=performer_id)
        clock.wait(5)


def test_two_processes_learn_of_a_room_what_one_would_have_learnt(postgres_database: Database) -> None:
    stores = [postgres_database.open() for _ in range(2)]
    clock = HandClock()
    one, two, alone = (build_writer(store, clock) for store in (*stores, stores[0]))
    _a_night(clock, "both", one, two)
    _a_night(clock, "alone", alone, alone)
    with stores[0].reading() as connection:
        rooms = reading.load_rooms(connection, stores[0].policy, ["both", "alone"])
    both, single = (replace(rooms[name].history, last_end_at=None) for name in ("both", "alone"))
    assert both == single
    assert len(both.gaps) == 4
    assert both.leavers > 3


def test_a_room_without_a_history_of_its_own_learns_from_its_last_items(store: Store) -> None:
    _with_three_services(store)
    with store.writing() as connection:
        connection.execute(HISTORIES.delete())
    assert _learnt(store) == {("wheel", False): THREE_SERVICES}


def test_a_history_that_another_release_has_laid_out_otherwise_is_passed_over(store: Store) -> None:
    _with_three_services(store)
    with store.writing() as connection:
        connection.execute(HISTORIES.update().values(learnt=msgspec.msgpack.encode({"gaps": "none"})))
    assert _learnt(store) == {("wheel", False): THREE_SERVICES}


def test_an_unknown_room_loads_empty(store: Store) -> None:
    with store.reading() as connection:
        rooms = reading.load_rooms(connection, store.policy, ["nobody"])
        assert rooms == {"nobody": Room(performer_id="nobody", policy=store.policy)}
        assert reading.versions(connection, ["nobody"]) == {}


def test_a_room_read_while_it_changes_is_the_room_at_one_version(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row and its items are read by two statements; neither may see a commit alone."""
    store = database.open()
    writer = build_writer(store)
    queue_item(writer, 1)
    other = database.open()
    steps = iter([2, 3])

    def somebody_writes_afterwards(connection: Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        rows = driver_rows(connection, statement, values)
        if connection.engine is other.engines.reader and " FROM " in statement:
            number = next(steps, None)
            if number is not None:
                queue_item(writer, number)
        return rows

    monkeypatch.setattr(engines, "driver_rows", somebody_writes_afterwards)
    with other.reading() as connection:
        room = reading.load_rooms(connection, other.policy, [PERFORMER.id])[PERFORMER.id]
    assert next(steps, None) is None
    assert room.version == len(room.items)


def test_nothing_is_found_under_a_name_that_no_database_can_hold(store: Store) -> None:
    with store.reading() as connection:
        for name in ("", "\0", "a\0b", "x" * 10_000, "%", "' OR 1=1 --"):
            assert reading.find_item(connection, name) is None
            assert wallet_operations.find_operation(connection, name) is None


# Pages


def test_ended_items_come_newest_end_first_a_page_at_a_time(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    items = [queue_item(writer) for _ in range(5)]
    queue_item(writer, performer_id="other")
    for item in (items[2], items[0], items[4]):
        clock.wait(1)
        send(writer, do.Abandon(actor=PERFORMER, item_id=item.item_id))
    with store.reading() as connection:
        page = reading.ended_items(connection, PERFORMER.id, limit=2, skip=0)
        rest = reading.ended_items(connection, PERFORMER.id, limit=2, skip=2)
        beyond = reading.ended_items(connection, PERFORMER.id, limit=2, skip=9)
    assert [item.item_id for item in page.rows + rest.rows] == [items[at].item_id for at in (4, 0, 2)]
    assert (page.total, rest.total, beyond.total, beyond.rows) == (3, 3, 3, [])


def test_items_that_ended_in_the_same_millisecond_keep_one_order_over_the_pages(store: Store) -> None:
    writer = build_writer(store)
    items = [send(writer, intake_of(queue_mode=Mode.OFF)).item for _ in range(5)]
    with store.reading() as connection:
        pages = [reading.ended_items(connection, PERFORMER.id, limit=1, skip=skip).rows[0] for skip in range(5)]
    assert [item.item_id for item in pages] == sorted((item.item_id for item in items if item), reverse=True)


def test_a_users_items_come_newest_first_over_all_rooms(store: Store) -> None:
    writer = build_writer(store)
    items = [queue_item(writer, performer_id=f"star-{at % 2}", user_id="ada") for at in range(5)]
    queue_item(writer, user_id="bob")
    with store.reading() as connection:
        page = reading.items_of_user(connection, "ada", limit=3, skip=1)
    assert [item.item_id for item in page.rows] == [items[at].item_id for at in (3, 2, 1)]
    assert page.total == 5


def test_rooms_come_with_the_most_recent_activity_first(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    for name in ("a", "b", "c", "a"):
        clock.wait(1)
        queue_item(writer, performer_id=name)
    with store.reading() as connection:
        page = reading.rooms_page(connection, store.policy, limit=2, skip=0)
    assert [(room.performer_id, room.depth) for room in page.rows] == [("a", 2), ("c", 1)]
    assert page.total == 3


def test_the_items_in_the_queues_are_counted_up_to_a_bound(store: Store) -> None:
    writer = build_writer(store)
    with store.reading() as connection:
        assert reading.active_item_counts(connection) == {"created": 0, "started": 0}
    items = [queue_item(writer, performer_id=name) for name in ("a", "a", "b", "c")]
    for item in items[1:3]:
        send(writer, start_of(item), performer_id=item.performer_id)
    send(writer, complete_of(items[1]), performer_id="a")
    with store.reading() as connection:
        assert reading.active_item_counts(connection) == {"created": 2, "started": 1}
        assert sum(reading.active_item_counts(connection, at_most=2).values()) == 2


def test_operations_are_listed_and_counted_by_status(store: Store) -> None:
    with store.writing() as connection:
        for number, status in enumerate(["pending", "dead", "dead", "done"]):
            operation = build_operation(number, status=OperationStatus(status), created_at=moment(number))
            save(connection, Changes(operations={operation.item_id: operation}))
    with store.reading() as connection:
        dead = wallet_operations.operations_page(connection, status="dead", limit=1, skip=0)
        every = wallet_operations.operations_page(connection, status=None, limit=10, skip=1)
        assert wallet_operations.operation_counts(connection) == {"pending": 1, "dead": 2, "done": 1}
        assert wallet_operations.oldest_open_operation(connection) == moment(0)
    assert [operation.operation_id for operation in dead.rows] == ["operation-2"]
    assert dead.total == 2
    assert [operation.operation_id for operation in every.rows] == ["operation-2", "operation-1", "operation-0"]
    assert every.total == 4


# The event log


def read_log(store: Store, *, limit: int = 1000, **scope: Any) -> list[Logged]:
    """The whole log, page by page."""
    entries: list[Logged] = []
    while True:
        after = entries[-1].cursor if entries else None
        with store.reading() as connection:
            page = event_log.log_events(connection, after=after, limit=limit, **scope)
        if not page:
            return entries
        assert len(page) <= limit
        entries += page


def places(log: list[Logged]) -> list[tuple[str, int]]:
    return [(entry.event.performer_id, entry.event.version) for entry in log]


def test_the_log_holds_every_event_in_the_order_of_their_commits(store: Store) -> None:
    writer = build_writer(store)
    expected = []
    for number in range(12):
        name = f"star-{number % 3}"
        queue_item(writer, performer_id=name)
        expected.append((name, number // 3 + 1))
    assert places(read_log(store)) == expected
    assert places(read_log(store, limit=1)) == expected
    assert places(read_log(store, limit=5)) == expected
    with store.reading() as connection:
        (item_id,) = {entry.event.item.item_id for entry in read_log(store)[4:5] if entry.event.item}
        assert [event.version for event in event_log.item_events(connection, item_id)] == [2]


def test_the_log_can_be_read_of_one_room_and_of_one_feature(store: Store) -> None:
    writer = build_writer(store)
    for number in range(8):
        queue_item(writer, performer_id=f"star-{number % 2}", source_feature=f"feature-{number // 4}")
    send(writer, do.ChangeSettings(actor=ADMIN, accepting=False), performer_id="star-0")
    assert places(read_log(store, limit=2, performer_id="star-0")) == [("star-0", at) for at in range(1, 6)]
    assert places(read_log(store, limit=3, source_feature="feature-1")) == [
        ("star-0", 3),
        ("star-1", 3),
        ("star-0", 4),
        ("star-1", 4),
    ]
    both = read_log(store, performer_id="star-1", source_feature="feature-0")
    assert places(both) == [("star-1", 1), ("star-1", 2)]


def test_a_room_is_read_on_from_any_place_of_the_whole_log(store: Store) -> None:
    """Also from the place of another room's event, and where retention has left gaps in the room's versions."""
    writer = build_writer(store)
    for number in range(30):
        queue_item(writer, performer_id=("often", "often", "rarely")[number % 3])
    with store.writing() as connection:
        connection.execute(text("DELETE FROM events WHERE version IN (1, 2, 5, 6, 7)"))
    log = read_log(store)
    for performer_id in ("often", "rarely", "never"):
        of_room = [entry for entry in log if entry.event.performer_id == performer_id]
        assert read_log(store, performer_id=performer_id, limit=2) == of_room
        for at, entry in enumerate(log):
            later = [each for each in log[at + 1 :] if each.event.performer_id == performer_id]
            with store.reading() as connection:
                after = entry.cursor
                assert event_log.log_events(connection, after=after, limit=3, performer_id=performer_id) == later[:3]


def test_to_read_a_room_nothing_of_its_earlier_events_is_read(sqlite_database: Database) -> None:
    store = sqlite_database.open()
    writer = build_writer(store)
    with store.writing() as connection:
        for version in range(1, 2_001):
            save(connection, Changes(events=[replace(first_event("star"), version=version)]))
    queue_item(writer, performer_id="other")
    newest = read_log(store)[-1].cursor
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with store.reading() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, 10)
        assert event_log.log_events(connection, after=newest, limit=20, performer_id="star") == []
        driver.set_progress_handler(None, 0)
    assert steps < 300


def test_a_cursor_that_no_log_has_given_is_a_value_error(store: Store) -> None:
    bad = ["x", "1,5", "1.x", "-1", "1_0", " 1", "٣", "1.2.3", "9" * 19, "9" * 30, "9" * 5000, "0x10", "1e3", "."]
    for cursor in [form.format(part) for part in bad for form in ("{}", "1.{}", "{}.1")]:
        with store.reading() as connection, pytest.raises(ValueError, match="cursor"):
            event_log.log_events(connection, after=cursor, limit=10)


def first_of(performer_id: str) -> Changes:
    """A room's first event, and its item."""
    event = first_event(performer_id)
    assert event.item is not None
    return Changes(events=[event], new_items={event.item.item_id: event.item})


def test_the_log_waits_for_a_slow_transaction_instead_of_skipping_its_event(postgres_database: Database) -> None:
    """The slow transaction takes the earlier number and commits later: a reader that continued after the last visible
    number would miss it."""
    store = postgres_database.open()
    writer = build_writer(store)
    queue_item(writer, performer_id="first")
    slow = store.engines.writer.connect()
    begun = slow.begin()
    save(slow, first_of("slow"))
    with store.writing() as fast:
        save(fast, first_of("fast"))
    seen = read_log(store)
    assert places(seen) == [("first", 1)]
    begun.commit()
    slow.close()
    with store.reading() as connection:
        later = event_log.log_events(connection, after=seen[-1].cursor, limit=10)
    assert places(later) == [("slow", 1), ("fast", 1)]


def test_after_a_restore_on_another_server_the_log_goes_on_where_it_was(postgres_database: Database) -> None:
    store = postgres_database.open()
    writer = build_writer(store)
    queue_item(writer)
    queue_item(writer)
    with store.engines.writer.begin() as connection:
        # As on a server that has seen far fewer transactions than the one the backup came from.
        connection.execute(text("UPDATE events SET transaction_id = transaction_id + 1000000000"))
    with store.reading() as connection:
        assert event_log.log_events(connection, after=None, limit=10) == []
    migrate(store.engines.writer, restored=True)
    queue_item(writer)
    with store.reading() as connection:
        whole = event_log.log_events(connection, after=None, limit=10)
        assert len(whole) == 3
        assert event_log.log_events(connection, after=whole[1].cursor, limit=10) == whole[2:]


def test_after_a_restore_nobody_misses_events_that_get_the_numbers_of_lost_ones(
    sqlite_database: Database, tmp_path: Path
) -> None:
    store = sqlite_database.open()
    queue_item(build_writer(store))
    backup = Database(url=f"sqlite:///{tmp_path / 'backup.db'}", shared=False)
    with closing(store.engines.writer.raw_connection()) as raw:
        raw.cursor().execute("VACUUM INTO ?", [str(tmp_path / "backup.db")])
    queue_item(build_writer(store))
    seen = read_log(store)
    restored = backup.open()
    migrate(restored.engines.writer, restored=True)
    queue_item(build_writer(restored), performer_id="new")
    with restored.reading() as connection:
        later = event_log.log_events(connection, after=seen[-1].cursor, limit=10)
    backup.close()
    assert places(later) == [("new", 1)]


def test_a_rooms_events_stand_in_the_log_in_their_order_whichever_transaction_began_first(
    postgres_database: Database,
) -> None:
    """A locked room of a batch is written later, by another transaction; the other rooms are written meanwhile."""
    store = postgres_database.open(lanes=4)
    first, second = build_writer(store), build_writer(store)
    for name in ("a", "b", "c"):
        queue_item(first, performer_id=name)
    with store.engines.writer.connect() as holder, holder.begin():
        reading.locked_versions(holder, ["b"])
        batch = [job_of(intake_of(performer_id=name)) for name in ("a", "b", "c")]
        waiting = threading.Thread(target=first.process, args=[batch])
        waiting.start()
        while (first.peek("c") or build_room()).version < 2:
            time.sleep(0.01)
        queue_item(second, performer_id="c")
    waiting.join()
    log = read_log(store)
    assert [version for name, version in places(log) if name == "c"] == [1, 2, 3]
    assert len(log) == 7
    assert places(read_log(store, limit=1)) == places(log)
