"""Reads give the present state; they use memory only where it is as current as the database."""

import logging
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from app.domain import command as do
from app.domain.errors import ItemNotFound, PerformerNotFound, Unavailable
from app.domain.item import Item, Status
from app.domain.room import Room
from app.store import reading
from tests.support.builders import PERFORMER
from tests.support.processes import Process, running
from tests.support.stores import (
    Database,
    HandClock,
    build_writer,
    complete_of,
    intake_of,
    queue_item,
    send,
    start_of,
    stored_room,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture


async def queued(process: Process, **fields: Any) -> Item:
    item = (await process.lanes.send(PERFORMER.id, intake_of(**fields))).item
    assert item is not None
    return item


def statements_of(process: Process) -> list[str]:
    """A list of all statements that these queries execute from now on."""
    statements: list[str] = []

    @event.listens_for(process.store.engines.reader, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    return statements


async def test_a_sqlite_room_that_is_in_memory_needs_no_look_into_the_database(sqlite_database: Database) -> None:
    async with running(sqlite_database.open(), HandClock()) as process:
        item = await queued(process)
        statements = statements_of(process)
        room = await process.queries.room(PERFORMER.id)
        assert (await process.queries.item(item.item_id)) == (room.items[0], room)
        assert statements == []
    assert room == stored_room(process.store)


async def test_a_shared_room_that_is_in_memory_is_compared_first(postgres_database: Database) -> None:
    other = build_writer(postgres_database.open())
    async with running(postgres_database.open(), HandClock()) as process:
        await queued(process)
        statements = statements_of(process)
        cached = process.lanes.peek(PERFORMER.id)
        assert await process.queries.room(PERFORMER.id) is cached
        assert len(statements) == 1
        queue_item(other)
        room = await process.queries.room(PERFORMER.id)
        assert room == stored_room(process.store)
        assert room.depth == 2


async def test_a_room_that_is_not_in_memory_is_read(database: Database) -> None:
    queue_item(build_writer(database.open()))
    async with running(database.open(), HandClock()) as process:
        assert await process.queries.room(PERFORMER.id) == stored_room(process.store)
        assert (await process.queries.existing_room(PERFORMER.id)).version == 1


async def test_an_unknown_room_is_empty_and_does_not_exist(database: Database) -> None:
    async with running(database.open(), HandClock()) as process:
        assert await process.queries.room("nobody") == Room(performer_id="nobody", policy=process.store.policy)
        with pytest.raises(PerformerNotFound):
            await process.queries.existing_room("nobody")


async def test_an_item_is_found_as_long_as_it_waits_and_after_it_has_ended(database: Database) -> None:
    async with running(database.open(), HandClock()) as process:
        item = await queued(process)
        found, room = await process.queries.item(item.item_id)
        assert (found.status, room.position(item.item_id)) == (Status.CREATED, 1)
        await process.lanes.send(PERFORMER.id, start_of(item))
        assert (await process.queries.item(item.item_id))[0].status is Status.STARTED
        await process.lanes.send(PERFORMER.id, complete_of(item))
        found, room = await process.queries.item(item.item_id)
        assert (found.status, room.position(item.item_id), room.version) == (Status.FINISHED, 0, 3)
        with pytest.raises(ItemNotFound):
            await process.queries.item("nothing")


async def test_an_item_of_another_process_is_found_and_so_is_its_end_there(postgres_database: Database) -> None:
    other = build_writer(postgres_database.open())
    async with running(postgres_database.open(), HandClock()) as process:
        ours, theirs = await queued(process), queue_item(other)
        for item in (ours, theirs):
            assert (await process.queries.item(item.item_id))[0].status is Status.CREATED
            send(other, do.Abandon(actor=PERFORMER, item_id=item.item_id))
            found, room = await process.queries.item(item.item_id)
            assert found.status is Status.ABANDONED
            assert room.position(item.item_id) == 0


async def test_an_item_that_ends_between_two_reads_is_seen_ended(database: Database) -> None:
    """Its row was read before its end and its room after it: the answer must be from one moment."""
    store = database.open()
    writer = build_writer(store)
    item = queue_item(writer)
    async with running(store, HandClock()) as process:
        ended = False

        @event.listens_for(store.engines.reader, "after_cursor_execute")
        def end(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            nonlocal ended
            if "FROM items" in statement and not ended:
                ended = True
                send(writer, do.Abandon(actor=PERFORMER, item_id=item.item_id))

        found, room = await process.queries.item(item.item_id)
        assert ended
        assert (found.status, room.version, room.depth) == (Status.ABANDONED, 2, 0)


async def test_the_rooms_of_the_newest_active_items_are_remembered_and_of_no_others(database: Database) -> None:
    store = database.open()
    looked_up: list[None] = []

    @event.listens_for(store.engines.reader, "after_cursor_execute")
    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM items" in statement and "item_id =" in statement:
            looked_up.append(None)

    async def look_up(process: Process, item: Item) -> int:
        """The number of queries for an item, without that for its room."""
        looked_up.clear()
        assert (await process.queries.item(item.item_id))[0].item_id == item.item_id
        return len(looked_up)

    async with running(store, HandClock(), remembered_items=3) as process:
        items = [await queued(process) for _ in range(5)]
        assert [await look_up(process, item) for item in items] == [1, 1, 0, 0, 0]
        await process.lanes.send(PERFORMER.id, do.Abandon(actor=PERFORMER, item_id=items[-1].item_id))
        assert [await look_up(process, item) for item in items] == [1, 1, 0, 0, 1]


async def test_the_events_that_a_listener_missed_come_in_order_as_many_as_are_read_at_once(database: Database) -> None:
    async with running(database.open(), HandClock()) as process:
        for _ in range(6):
            await queued(process)
        assert [event.version for event in await process.queries.missed(PERFORMER.id, 1, limit=3)] == [2, 3, 4]
        assert [event.version for event in await process.queries.missed(PERFORMER.id, 4)] == [5, 6]
        assert await process.queries.missed(PERFORMER.id, 6) == []


async def test_a_database_in_trouble_is_unavailable_and_the_trouble_is_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = [OperationalError("SELECT", {}, Exception("the server is away"))]

    def question(connection: Connection) -> str:
        if trouble:
            raise trouble.pop()
        return reading.epoch(connection)

    async with running(database.open(), HandClock()) as process:
        with caplog.at_level(logging.ERROR), pytest.raises(Unavailable) as refused:
            await process.queries.run(question)
        assert refused.value.retry_after_seconds == 1
        assert "the server is away" not in refused.value.detail
        assert "the server is away" in caplog.text
        assert "Traceback" not in caplog.text, "a line for each is enough"
        assert await process.queries.run(question) == process.store.epoch
