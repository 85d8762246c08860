"""The search for items on both databases: references of the wallet, and how far it looks back."""

from typing import Any

import pytest
from sqlalchemy import Connection, update

from app.store import Store, tables
from app.store.engines import driver_rows
from app.store.searching import search_items
from tests.support.stores import (
    Database,
    HandClock,
    before_each_statement,
    build_writer,
    complete_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture
from tests.support.stores import store_fixture as store_fixture


@pytest.mark.parametrize("column", ["settlement_transaction_id", "refund_transaction_id"])
def test_an_item_is_found_by_the_wallets_reference_and_by_its_end(store: Store, column: str) -> None:
    writer = build_writer(store)
    item, _ = queue_item(writer), queue_item(writer)
    with store.writing() as connection:
        its_row = tables.ITEMS.c.item_id == item.item_id
        connection.execute(update(tables.ITEMS).where(its_row).values({column: "transaction-12345678"}))
    with store.reading() as connection:
        for words in ("transaction-12345678", "…12345678", "345678"):
            (found,) = search_items(connection, words, limit=20).items
            assert found.item_id == item.item_id
        assert search_items(connection, "45678", limit=20).items == []


def test_an_amount_is_found_however_old_and_an_event_among_the_newest(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    items = []
    for number in range(4):
        items.append(queue_item(writer, tokens=1000 + number, source_event_id=f"event-{number}"))
        clock.wait(1)
    with store.reading() as connection:
        found = [search_items(connection, f"event-{number}", limit=20, scanned=2) for number in range(4)]
        assert [[item.item_id for item in each.items] for each in found] == [[], [], *([i.item_id] for i in items[2:])]
        assert {each.looked_back_to for each in found} == {items[2].created_at}
        assert search_items(connection, "event-0", limit=20, scanned=4).looked_back_to is None
        (oldest,) = search_items(connection, "1000", limit=20, scanned=2).items
    assert oldest.item_id == items[0].item_id


def test_an_amount_is_found_of_what_waits_and_of_what_has_ended(store: Store) -> None:
    writer = build_writer(store)
    items = [queue_item(writer, tokens=77) for _ in range(2)]
    send(writer, start_of(items[0]))
    send(writer, complete_of(items[0]))
    with store.reading() as connection:
        found = search_items(connection, "77", limit=20, scanned=1).items
    assert [item.item_id for item in found] == [items[1].item_id, items[0].item_id]


def test_the_newest_come_first_and_it_is_said_that_there_are_more(store: Store) -> None:
    writer = build_writer(store)
    items = [queue_item(writer, tokens=77) for _ in range(3)]
    with store.reading() as connection:
        found = search_items(connection, "77", limit=2)
        everything = search_items(connection, "77", limit=3)
    assert ([item.item_id for item in found.items], found.more) == ([items[2].item_id, items[1].item_id], True)
    assert (len(everything.items), everything.more) == (3, False)


@pytest.mark.parametrize(
    ("words", "index"),
    [
        ("ada", "ix_item_by_user"),
        ("250", "ix_item_tokens"),
        ("250", "ix_item_active"),
        ("reference", "ix_item_settlement"),
        ("reference", "ix_item_refund"),
    ],
)
def test_a_word_is_looked_up_in_indexes_and_what_is_scanned_is_bounded(
    sqlite_database: Database, words: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_database.open()
    queue_item(build_writer(store))
    plans: list[str] = []

    def explain(connection: Connection, statement: str, parameters: Any) -> None:
        plans.extend(row[3] for row in driver_rows(connection, "EXPLAIN QUERY PLAN " + statement, parameters))

    before_each_statement(monkeypatch, store.engines.reader, explain)
    with store.reading() as connection:
        search_items(connection, words, limit=20)
    assert any(index in step for step in plans), plans
    assert not [step for step in plans if step.startswith("SCAN items") and "INDEX" not in step], plans
    assert not [step for step in plans if "TEMP B-TREE" in step and "LAST TERM" not in step], plans
