"""Every command has a deadline, whatever the database does; and one locked row delays only its own room."""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import Connection, event

from app.access.auth import Principal
from app.actions import Actions
from app.domain import command as do
from app.domain.command import Role
from app.domain.errors import Unavailable
from app.engine.deadline import Deadline
from app.engine.lane import Lanes
from app.engine.queries import REPORTS_LIMIT, Queries
from app.store import Store, reading
from app.store.engines import open_engines
from app.wallet.outbox import Outbox
from app.wire.requests import EmptyRequest
from tests.support.builders import PERFORMER
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    build_writer,
    held,
    idempotency_of,
    intake_of,
    locked_by_a_shell,
    new_id,
    queue_item,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture

FAR = datetime(2100, 1, 1, tzinfo=UTC)
SECONDS = 3.0
"""The deadline in these tests."""


def lanes_on(store: Store, seconds: float = SECONDS) -> Lanes:
    """One lane for all rooms."""
    return Lanes(store, HandClock(), new_id, lambda outcomes: None, seconds=seconds)


def impatient(database: Database) -> Store:
    """A store as the service opens it: an attempt waits for SQLite's lock only for a moment."""
    store = Store(open_engines(database.url, busy_timeout_ms=100), database.open().policy)
    database.stores.append(store)
    return store


async def refused(lanes: Lanes, command: do.Intake, seconds: float = SECONDS) -> str:
    """The detail of the refusal, which must come within the deadline."""
    began = monotonic()
    with pytest.raises(Unavailable) as caught:
        await lanes.send(command.item.performer_id, command, idempotency_of(command))
    assert monotonic() - began < seconds + 0.3
    assert caught.value.retry_after_seconds == 1
    return caught.value.detail


async def test_a_database_locked_by_a_shell_is_unavailable_in_time_and_nothing_was_done(
    sqlite_database: Database,
) -> None:
    store = impatient(sqlite_database)
    async with lanes_on(store) as lanes:
        with locked_by_a_shell(sqlite_database.url):
            details = await asyncio.gather(*(refused(lanes, intake_of(number)) for number in (1, 2, 3)))
            assert all("nothing was done" in detail for detail in details)
        assert (await lanes.send(PERFORMER.id, intake_of(4))).position == 1
    assert assert_consistent(store).version == 1


async def test_the_time_that_a_caller_has_waited_before_counts(sqlite_database: Database) -> None:
    async with lanes_on(impatient(sqlite_database), seconds=10) as lanes:
        with locked_by_a_shell(sqlite_database.url):
            first = asyncio.create_task(lanes.send(PERFORMER.id, intake_of(1)))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await lanes.send(PERFORMER.id, intake_of(2), deadline=Deadline(1))
            assert not first.done(), "it has its own ten seconds"
        assert (await first).position == 1


async def test_a_slow_look_before_the_lane_takes_no_longer_than_the_command_may(database: Database) -> None:
    store = database.open()
    item = queue_item(build_writer(store))

    @event.listens_for(store.engines.reader, "before_cursor_execute")
    def slow(*_: Any) -> None:
        released.wait(20)

    released = threading.Event()
    async with lanes_on(store, seconds=1) as lanes:
        queries = Queries(store, lanes, seconds=20)
        actions = Actions(
            lanes=lanes,
            queries=queries,
            outbox=cast(Outbox, None),
            clock=HandClock(),
            new_id=new_id,
            max_duration_seconds=3600,
            quota=None,
        )
        performer = Principal(role=Role.PERFORMER, sub=PERFORMER.id, performer_id=PERFORMER.id, expires_at=FAR)
        with pytest.raises(Unavailable):
            await actions.command(performer, "start", item.item_id, EmptyRequest())
        released.set()
        queries.close()


async def test_a_lock_that_is_gone_in_time_is_not_noticed(sqlite_database: Database) -> None:
    async with lanes_on(impatient(sqlite_database), seconds=30) as lanes:
        with locked_by_a_shell(sqlite_database.url):
            sent = asyncio.gather(*(lanes.send(PERFORMER.id, intake_of(number)) for number in (1, 2, 3)))
            done, _ = await asyncio.wait([sent], timeout=1)
            assert not done
        assert [outcome.position for outcome in await sent] == [1, 2, 3]


async def test_the_end_does_not_wait_for_a_lock(sqlite_database: Database) -> None:
    lanes = lanes_on(impatient(sqlite_database), seconds=60)
    await lanes.__aenter__()
    with locked_by_a_shell(sqlite_database.url):
        sent = asyncio.create_task(lanes.send(PERFORMER.id, intake_of()))
        await asyncio.sleep(0)
        began = monotonic()
        await lanes.__aexit__(None, None, None)
        assert monotonic() - began < 4
        with pytest.raises(Unavailable):
            await sent


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM rooms WHERE performer_id = %s FOR UPDATE",
        "SELECT 1 FROM items WHERE performer_id = %s FOR UPDATE",
    ],
    ids=["its room's row", "an item's row"],
)
async def test_one_locked_row_holds_up_its_room_and_no_other(postgres_database: Database, statement: str) -> None:
    store = postgres_database.open()
    writer = build_writer(store)
    item = queue_item(writer, performer_id="held")
    queue_item(writer, performer_id="free")
    start = do.Start(actor=PERFORMER, item_id=item.item_id)
    async with lanes_on(store) as lanes:
        with held(postgres_database, statement, "held"):
            stuck = asyncio.create_task(lanes.send("held", start))
            waits = []
            for _ in range(10):
                began = monotonic()
                await lanes.send("free", intake_of(performer_id="free"))
                waits.append(monotonic() - began)
            assert sorted(waits)[5] < 0.5
            with pytest.raises(Unavailable):
                await stuck
            await lanes.send("free", intake_of(performer_id="free"))
        assert (await lanes.send("held", start)).item is not None
    for name in ("held", "free"):
        assert_consistent(store, name)


async def test_the_commands_of_a_held_room_keep_their_order(postgres_database: Database) -> None:
    store = postgres_database.open()
    queue_item(build_writer(store))
    async with lanes_on(store, seconds=30) as lanes:
        with held(postgres_database, "SELECT 1 FROM rooms WHERE performer_id = %s FOR UPDATE", PERFORMER.id):
            sent = asyncio.gather(*(lanes.send(PERFORMER.id, intake_of()) for _ in range(20)))
            await lanes.send("free", intake_of(performer_id="free"))
            assert not sent.done()
        assert [outcome.position for outcome in await sent] == list(range(2, 22))


def backends(database: Database) -> Sequence[int]:
    """The process ids of PostgreSQL's backends of this database."""
    with psycopg.connect(database.url) as other:
        rows = other.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [pid for (pid,) in rows]


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_a_server_that_does_not_answer_is_unavailable_in_time_and_a_repeat_gets_the_result(
    postgres_database: Database,
) -> None:
    store = postgres_database.open()
    async with lanes_on(store) as lanes:
        await lanes.send(PERFORMER.id, intake_of(1))
        intake = intake_of(2)
        with frozen(backends(postgres_database)):
            detail = await refused(lanes, intake)
            assert "Idempotency-Key" in detail
            # Disconnected from the silent one, the lane works with another.
            outcome = await lanes.send("free", intake_of(performer_id="free"))
            assert outcome.position == 1
        answer = await lanes.send(PERFORMER.id, intake, idempotency_of(intake))
        assert answer.position == 2
    assert assert_consistent(store).depth == 2


async def test_the_end_does_not_wait_for_a_server_that_does_not_answer(postgres_database: Database) -> None:
    store = postgres_database.open()
    lanes = lanes_on(store, seconds=60)
    await lanes.__aenter__()
    await lanes.send(PERFORMER.id, intake_of(1))
    with frozen(backends(postgres_database)):
        sent = asyncio.create_task(lanes.send(PERFORMER.id, intake_of(2)))
        await asyncio.sleep(0)
        began = monotonic()
        await lanes.__aexit__(None, None, None)
        assert monotonic() - began < 5
        with pytest.raises(Unavailable):
            await sent


async def test_a_query_is_answered_in_time_and_only_so_many_wait(database: Database) -> None:
    store, released = database.open(), threading.Event()

    def wait(connection: Connection) -> Any:
        released.wait(30)
        return reading.epoch(connection)

    async with lanes_on(store) as lanes:
        queries = Queries(store, lanes, seconds=1, limit=6)
        tasks = [asyncio.create_task(queries.run(wait)) for _ in range(6)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many"):
            await queries.run(reading.epoch)
        began = monotonic()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert monotonic() - began < 1.5
        assert [type(result) for result in results] == [Unavailable] * 6
        released.set()
        await answers_again(queries.run)
        queries.close()


async def answers_again(run: Callable[[Callable[[Connection], str]], Awaitable[str]]) -> None:
    """Wait until a thread is free again."""
    while True:
        try:
            assert await run(reading.epoch)
            return
        except Unavailable:
            await asyncio.sleep(0)


async def test_reports_have_places_of_their_own_and_hold_up_nobody_else(database: Database) -> None:
    store, released = database.open(), threading.Event()
    async with lanes_on(store, seconds=20) as lanes:
        queries = Queries(store, lanes, seconds=20)
        reports = [asyncio.create_task(queries.run_slow(lambda _: released.wait(30))) for _ in range(REPORTS_LIMIT)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many") as refused:
            await queries.run_slow(reading.epoch)
        assert refused.value.retry_after_seconds == 1
        # Reads of rooms and commands go on: nobody needs a report's place.
        assert await queries.run(reading.epoch) == store.epoch
        assert (await lanes.send(PERFORMER.id, intake_of())).position == 1
        assert not any(report.done() for report in reports)
        released.set()
        assert await asyncio.gather(*reports) == [True] * REPORTS_LIMIT
        queries.close()


async def test_a_report_that_takes_too_long_is_unavailable(database: Database) -> None:
    store, released = database.open(), threading.Event()
    async with lanes_on(store) as lanes:
        queries = Queries(store, lanes, seconds=0.2)
        with pytest.raises(Unavailable):
            await queries.run_slow(lambda _: released.wait(30))
        released.set()
        await answers_again(queries.run_slow)
        queries.close()
