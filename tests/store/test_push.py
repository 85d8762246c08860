"""Rows of push notifications, on both databases: each notice is stored once, and one process sends them."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.event import listen

from app.domain import command as do
from app.domain.command import Actor, Mode, Role
from app.domain.event import EventName
from app.domain.item import Item, Reason
from app.domain.operation import OperationStatus, Receipt
from app.domain.push import Language, Moment, Subscription
from app.store import Store, event_log, push
from app.store.push import News
from app.store.push_tables import PUSH_NOTICES, PUSH_SUBSCRIPTIONS
from tests.support.builders import NOON, PERFORMER
from tests.support.stores import Database, HandClock, build_writer, complete_of, queue_item, send, start_of
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture
from tests.support.stores import store_fixture as store_fixture

MINUTE = timedelta(minutes=1)


def subscription_of(user_id: str, name: str = "phone", **fields: object) -> Subscription:
    made = Subscription(
        user_id=user_id,
        name=name,
        endpoint=f"https://push.example/{user_id}/{name}",
        origin="https://push.example",
        p256dh="p",
        auth="a",
        language=Language.EN,
        created_at=NOON,
        renewed_at=NOON,
    )
    return replace(made, **fields)


def subscribe(store: Store, user_id: str, name: str = "phone", **fields: object) -> bool:
    with store.writing() as connection:
        return push.save_subscription(connection, subscription_of(user_id, name, **fields))


class Reader:
    """Reads the log as the process with the lease does."""

    def __init__(self, store: Store, clock: HandClock, holder: str = "one") -> None:
        self.store, self.clock, self.holder = store, clock, holder
        with store.writing() as connection:
            claimed = push.claim(connection, holder, clock(), clock() + MINUTE)
        assert claimed is not None
        self.cursor = claimed.cursor

    def news(self) -> News:
        with self.store.reading() as connection:
            return push.read_news(connection, self.cursor, self.clock())

    def read(self) -> list[tuple[str, Moment]]:
        """The new notices: item and moment."""
        news, now = self.news(), self.clock()
        with self.store.writing() as connection:
            assert push.advance(connection, self.holder, news.cursor, now + MINUTE, news.notices, now)
        self.cursor = news.cursor
        return [(notice.item_id, notice.moment) for notice in news.notices]


def names(store: Store, user_id: str) -> list[str]:
    with store.reading() as connection:
        of_user = select(PUSH_SUBSCRIPTIONS.c.name).where(PUSH_SUBSCRIPTIONS.c.user_id == user_id)
        return sorted(connection.execute(of_user).scalars())


@pytest.mark.parametrize("compact", [False, True])
def test_every_moment_is_notified_once_and_only_to_subscribers(store: Store, compact: bool) -> None:
    store.compact = compact
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    first = queue_item(writer, user_id="somebody")
    mine = queue_item(writer, user_id="ada")
    third = queue_item(writer, user_id="somebody")
    assert reader.read() == []
    send(writer, start_of(first))
    assert reader.read() == [(mine.item_id, Moment.NEXT)]
    queue_item(writer, user_id="somebody")
    send(writer, complete_of(first))
    assert reader.read() == []
    send(writer, start_of(mine))
    assert reader.read() == [(mine.item_id, Moment.STARTED)]
    send(writer, do.Abandon(actor=PERFORMER, item_id=mine.item_id, reason=Reason.TECHNICAL_ERROR))
    send(writer, start_of(third))
    assert reader.read() == [(mine.item_id, Moment.ENDED)]
    assert reader.read() == []


def test_neither_a_cancelled_nor_a_performed_item_has_a_notice_of_its_end(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    items = [queue_item(writer, user_id="ada") for _ in range(2)]
    viewer = Actor(role=Role.VIEWER, id="ada")
    send(writer, do.Refund(actor=viewer, item_id=items[1].item_id, reason=Reason.USER_CANCELLED))
    send(writer, start_of(items[0]))
    send(writer, complete_of(items[0]))
    assert reader.read() == [(items[0].item_id, Moment.STARTED)]


def test_the_refund_after_an_end_has_no_notice_however_late_the_wallet_confirms(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    mine = queue_item(writer, user_id="ada")
    abandon = do.Abandon(actor=PERFORMER, item_id=mine.item_id, reason=Reason.TECHNICAL_ERROR)
    operation = send(writer, abandon).operation
    assert operation is not None
    assert reader.read() == [(mine.item_id, Moment.ENDED)]
    clock.wait(3 * 3600)
    with store.writing() as connection:
        push.clear(connection, clock(), clock() - timedelta(days=90))
    done = replace(operation, status=OperationStatus.DONE, attempts=1, updated_at=clock())
    receipt = Receipt(transaction_id="t", settled_tokens=0, refunded_tokens=operation.refund_tokens)
    events = send(writer, do.Confirm(item_id=mine.item_id, operation=done, receipt=receipt)).events
    assert [event.name for event in events] == [EventName.ITEM_REFUNDED]
    assert reader.read() == []


def test_a_room_that_gives_no_notice_to_the_next_gives_none_here(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    send(writer, do.ChangeSettings(actor=PERFORMER, notify_positions=(3,)))
    mine = queue_item(writer, user_id="ada")
    assert reader.read() == []
    send(writer, start_of(mine))
    assert reader.read() == [(mine.item_id, Moment.STARTED)]


def test_an_item_that_passes_through_has_a_notice_of_a_refund_only(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    mine = queue_item(writer, user_id="ada", queue_mode=Mode.OFF)
    assert reader.read() == []
    send(writer, do.Refund(actor=PERFORMER, item_id=mine.item_id, reason=Reason.ADMIN_REFUND))
    assert reader.read() == [(mine.item_id, Moment.ENDED)]


def test_events_that_are_read_again_after_a_crash_are_not_notified_again(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    for name in ("phone", "desk"):
        subscribe(store, "ada", name)
    reader = Reader(store, clock)
    begin = reader.cursor
    mine = queue_item(writer, user_id="ada")
    send(writer, start_of(mine))
    assert reader.read() == [(mine.item_id, Moment.STARTED)] * 2
    reader.cursor = begin
    assert reader.read() == []


def test_old_events_are_not_notified(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    mine = queue_item(writer, user_id="ada")
    send(writer, start_of(mine))
    send(writer, do.Abandon(actor=PERFORMER, item_id=mine.item_id, reason=Reason.TECHNICAL_ERROR))
    clock.wait(121)
    assert reader.read() == [(mine.item_id, Moment.ENDED)]
    with store.reading() as connection:
        assert len(push.due_notices(connection, clock(), limit=9)) == 1
        assert push.due_notices(connection, clock() + timedelta(hours=1), limit=9) == []


def test_one_process_reads_and_another_goes_on_when_its_lease_has_ended(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    reader = Reader(store, clock)
    send(writer, start_of(queue_item(writer, user_id="ada")))
    news = reader.news()
    clock.wait(30)
    with store.writing() as connection:
        assert push.claim(connection, "two", clock(), clock() + MINUTE) is None
    clock.wait(31)
    other = Reader(store, clock, "two")
    with store.writing() as connection:
        assert not push.advance(connection, "one", news.cursor, clock() + MINUTE, news.notices, clock())
    assert other.read() == [(news.notices[0].item_id, Moment.STARTED)]


def test_a_process_that_ends_in_order_lets_another_go_on_at_once(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    reader = Reader(store, clock)
    send(writer, start_of(queue_item(writer, user_id="ada")))
    cursor = reader.news().cursor
    with store.writing() as connection:
        push.release(connection, "two", None)
        assert push.claim(connection, "three", clock(), clock() + MINUTE) is None
        push.release(connection, "one", cursor)
    assert Reader(store, clock, "two").cursor == cursor


def test_after_an_hour_without_anybody_the_log_is_taken_up_at_its_end(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    Reader(store, clock)
    send(writer, start_of(queue_item(writer, user_id="ada")))
    clock.wait(2 * 3600)
    reader = Reader(store, clock, "two")
    with store.reading() as connection:
        assert reader.cursor == event_log.log_end(connection)


def test_a_user_has_ten_browsers_and_an_endpoint_belongs_to_one(store: Store) -> None:
    for number in range(12):
        subscribe(store, "ada", f"b{number:02}", renewed_at=NOON + number * MINUTE)
    assert names(store, "ada") == [f"b{number:02}" for number in range(2, 12)]
    assert not subscribe(store, "ada", "b02", renewed_at=NOON + 99 * MINUTE)
    assert subscribe(store, "eve", "hers", endpoint="https://push.example/ada/b05")
    assert "b05" not in names(store, "ada")
    assert names(store, "eve") == ["hers"]


def test_a_subscription_that_nobody_renews_goes_and_so_do_notices_of_items_that_have_ended(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    subscribe(store, "eve", renewed_at=NOON - timedelta(days=91))
    reader = Reader(store, clock)
    over: Item = queue_item(writer, user_id="ada")
    send(writer, start_of(over))
    send(writer, complete_of(over))
    waits = queue_item(writer, user_id="ada")
    assert sorted(reader.read()) == sorted([(over.item_id, Moment.STARTED), (waits.item_id, Moment.NEXT)])
    clock.wait(13 * 60)
    with store.writing() as connection:
        assert push.clear(connection, clock(), clock() - timedelta(days=90)) == 2
    with store.reading() as connection:
        assert connection.execute(select(PUSH_NOTICES.c.item_id)).scalars().all() == [waits.item_id]
    assert names(store, "eve") == []
    queue_item(writer, user_id="somebody")
    assert reader.read() == []


def test_excluded_origins_are_left_out_and_the_least_tried_notices_come_first(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    subscribe(store, "eve", origin="https://other.example")
    reader = Reader(store, clock)
    items = [queue_item(writer, user_id=user_id, performer_id=user_id) for user_id in ("ada", "eve")]
    assert len(reader.read()) == 2

    def due(*without: str) -> list[str]:
        with store.reading() as connection:
            found = push.due_notices(connection, clock(), limit=9, without=without)
            return [notice.item_id for notice, _ in found]

    assert due("https://push.example") == [items[1].item_id]
    with store.writing() as connection:
        ((notice, _),) = push.due_notices(connection, clock(), limit=1, without=["https://other.example"])
        push.postpone(connection, notice, clock() + timedelta(seconds=5))
    assert due() == [items[1].item_id]
    clock.wait(6)
    assert due() == [items[1].item_id, items[0].item_id]
    with store.writing() as connection:
        assert push.delete_subscription(connection, "eve", "phone", "https://push.example/another") is False
        assert push.delete_subscription(connection, "eve", "phone") is True
    assert due() == [items[0].item_id]


def test_subscribers_are_looked_up_one_by_one_however_many_there_are(sqlite_database: Database) -> None:
    store, clock = sqlite_database.open(), HandClock()
    subscribe(store, "ada")
    reader = Reader(store, clock)
    writer = build_writer(store, clock)
    send(writer, start_of(queue_item(writer, user_id="ada")))
    statements: list[tuple[str, Any]] = []
    listen(store.engines.reader, "before_cursor_execute", lambda *call: statements.append(call[2:4]))
    assert len(reader.read()) == 1
    scans = []
    with store.reading() as connection:
        for statement, values in list(statements):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            scans += [statement for row in plan if "SCAN push_subscriptions" in row.detail]
    assert len(scans) == 1, "but for the question whether there is one"
    assert scans[0].startswith("SELECT EXISTS")


def test_a_user_is_forgotten(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    subscribe(store, "ada")
    subscribe(store, "eve")
    reader = Reader(store, clock)
    queue_item(writer, user_id="ada")
    assert len(reader.read()) == 1
    with store.writing() as connection:
        push.forget(connection, "ada")
    with store.reading() as connection:
        assert connection.execute(select(PUSH_NOTICES)).all() == []
    assert names(store, "ada") == []
    assert names(store, "eve") == ["phone"]
