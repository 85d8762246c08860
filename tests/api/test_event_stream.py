"""The event log as a live stream: everything, in order, once, at the pace of its queries, until it must end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.event import listens_for
from sqlalchemy.exc import OperationalError
from starlette.types import Message

from app.api import event_stream as streaming
from app.api.event_stream import EventLog, Pace, Selection
from app.domain.errors import RateLimitExceeded, Unavailable
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import Store, event_log
from tests.support.builders import NOON
from tests.support.stores import (
    Database,
    HandClock,
    build_writer,
    database_fixture,
    intake_of,
    new_id,
    queue_item,
    send,
    sqlite_database_fixture,
    start_of,
)

__all__ = ["database_fixture", "sqlite_database_fixture"]

WAIT_SECONDS = 10
EVERYTHING = Selection(performer_id=None, source_feature=None)


@pytest.fixture
def store(database: Database) -> Store:
    return database.open()


@asynccontextmanager
async def open_log(
    store: Store, clock: Callable[[], datetime] | None = None, *, pace: Pace | None = None
) -> AsyncIterator[EventLog]:
    clock = clock or HandClock()
    queries = Queries(store, Lanes(store, clock, new_id, lambda outcomes: None))
    try:
        yield EventLog(queries, clock, pace or Pace())
    finally:
        queries.close()


@dataclass
class Caller:
    """An ASGI server with one request: it records the answer, and can stop receiving it."""

    sent: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    takes: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    """Something waits to be taken."""

    def __post_init__(self) -> None:
        self.takes.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self.takes.is_set():
            self.blocked.set()
        await self.takes.wait()
        if message["type"] == "http.response.body":
            self.sent.put_nowait(message["body"])

    async def cursors(self, count: int) -> list[str]:
        """The ids of the next events."""
        found: list[str] = []
        while len(found) < count:
            async with asyncio.timeout(WAIT_SECONDS):
                chunk = await self.sent.get()
            found += [line.removeprefix("id: ") for line in chunk.decode().splitlines() if line.startswith("id: ")]
        return found

    async def chunk(self) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.sent.get()


@asynccontextmanager
async def reading_along(
    log: EventLog, selection: Selection = EVERYTHING, after: str | None = None, until: datetime | None = None
) -> AsyncIterator[Caller]:
    caller = Caller()
    response = await log.stream(selection, after, until=until or NOON + timedelta(days=1), abort=caller.gone.set)
    task = asyncio.create_task(response({"type": "http"}, caller.receive, caller.send))
    try:
        yield caller
    finally:
        caller.gone.set()
        caller.takes.set()
        async with asyncio.timeout(WAIT_SECONDS):
            await task


def all_cursors(store: Store) -> list[str]:
    with store.reading() as connection:
        return [logged.cursor for logged in event_log.log_events(connection, after=None, limit=10_000)]


async def test_a_long_past_is_read_page_after_page(sqlite_database: Database) -> None:
    store = sqlite_database.open()
    writer = build_writer(store)
    for _ in range(23):
        queue_item(writer)
    async with (
        open_log(store, pace=Pace(page=5, soon=10 * WAIT_SECONDS, poll=10 * WAIT_SECONDS)) as log,
        reading_along(log) as caller,
    ):
        assert await caller.cursors(23) == all_cursors(store)


async def test_the_events_of_others_are_looked_at_once(store: Store) -> None:
    writer = build_writer(store)
    mine = queue_item(writer, source_feature="wheel")
    for _ in range(20):
        queue_item(writer, source_feature="dice")
    newest = int(all_cursors(store)[-1].split(".")[-1])
    went_on, loop = asyncio.Event(), asyncio.get_running_loop()

    @listens_for(store.engines.reader, "before_cursor_execute")
    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        values = parameters.values() if isinstance(parameters, dict) else parameters
        if "wheel" in values and newest in values:
            loop.call_soon_threadsafe(went_on.set)

    async with (
        open_log(store, pace=Pace(poll=0.05)) as log,
        reading_along(log, Selection(performer_id=None, source_feature="wheel")) as caller,
    ):
        first = await caller.cursors(1)
        async with asyncio.timeout(WAIT_SECONDS):
            await went_on.wait()
        await asyncio.to_thread(send, writer, start_of(mine))
        assert [*first, *await caller.cursors(1)] == [all_cursors(store)[0], all_cursors(store)[-1]]


def recorded_reads(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The cursors after which pages are read from now on. Of two readers it is remembered what they saw in vain."""
    reads: list[str | None] = []
    read = event_log.log_page

    def log_page(connection: Connection, *, after: str | None, **options: Any) -> Any:
        reads.append(after)
        return read(connection, after=after, **options)

    monkeypatch.setattr(event_log, "log_page", log_page)
    monkeypatch.setattr(streaming, "EXAMINED_AT_MOST", 2)
    return reads


def of_feature(name: str) -> Selection:
    return Selection(performer_id=None, source_feature=name)


async def test_a_page_in_vain_is_not_looked_through_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = build_writer(store)
    own = of_feature("own")
    reads = recorded_reads(monkeypatch)
    async with open_log(store) as log:
        for _ in range(3):
            queue_item(writer, source_feature="other")
        everything = await log.page(EVERYTHING, None, 10)
        for _ in range(2):
            assert await log.page(own, None, 10) == []
        assert reads == [None, None, everything[-1].cursor]
        item = queue_item(writer, source_feature="own")
        (found,) = await log.page(own, None, 10)
        assert found.event.item == item
        # What other readers have seen in vain is remembered of a few only.
        for after in (everything[0].cursor, everything[1].cursor):
            assert await log.page(of_feature("third"), after, 10) == []
        assert [entry.cursor for entry in await log.page(own, None, 10)] == [found.cursor]
        assert reads[-1] is None


async def test_the_reader_who_got_on_longest_ago_is_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = build_writer(store)
    reads = recorded_reads(monkeypatch)
    async with open_log(store) as log:
        for feature in ("first", "second", "first", "third"):
            queue_item(writer, source_feature="other")
            assert await log.page(of_feature(feature), None, 10) == []
        for feature in ("first", "second"):
            assert await log.page(of_feature(feature), None, 10) == []
    assert reads[-2] is not None
    assert reads[-1] is None


async def test_a_stopping_log_ends_its_streams_at_once(sqlite_database: Database) -> None:
    async with (
        open_log(sqlite_database.open(), pace=Pace(soon=10 * WAIT_SECONDS, poll=10 * WAIT_SECONDS)) as log,
        reading_along(log) as caller,
    ):
        await caller.chunk()
        async with asyncio.timeout(WAIT_SECONDS):
            await log.stop()
        assert await caller.chunk() == b"", "the end"
        assert not caller.gone.is_set(), "nobody was cut off"


async def test_events_without_a_hint_are_found_by_polling(store: Store) -> None:
    writer = build_writer(store)
    queue_item(writer)
    async with open_log(store, pace=Pace(poll=0.05)) as log, reading_along(log) as caller:
        first = await caller.cursors(1)
        await asyncio.to_thread(queue_item, writer)
        assert first + await caller.cursors(1) == all_cursors(store)


async def test_a_commit_that_is_visible_late_needs_no_second_hint(database: Database) -> None:
    """On a shared database a commit is visible only when all older transactions have ended; no event is skipped until
    then."""
    slow_store, store = database.open(), database.open()
    writer = build_writer(store)
    async with open_log(store) as log, reading_along(log) as caller:
        with ExitStack() as stack:
            if database.shared:
                slow = stack.enter_context(slow_store.writing())
                slow.exec_driver_sql("SELECT pg_current_xact_id()")
            outcomes = [send(writer, intake_of(performer_id=name)) for name in ("one", "two", "three")]
            for outcome in outcomes:
                log.wake(outcome.events)
            if database.shared:
                # Long enough for a stream that took the hints for the truth to have gone on.
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await caller.cursors(1)
        assert await caller.cursors(3) == all_cursors(store)


async def test_writers_that_overlap_leave_no_event_out(database: Database) -> None:
    """Several connections commit at the same time while a stream follows: it gets exactly the log."""
    count, writers = 25, 3 if database.shared else 1
    stores = [database.open() for _ in range(writers)]

    def write(store: Store, performer_id: str) -> None:
        writer = build_writer(store)
        for _ in range(count):
            outcome = send(writer, intake_of(performer_id=performer_id))
            loop.call_soon_threadsafe(log.wake, outcome.events)

    loop = asyncio.get_running_loop()
    async with open_log(stores[0], pace=Pace(page=7)) as log, reading_along(log) as caller:
        work = [asyncio.to_thread(write, store, f"room-{number}") for number, store in enumerate(stores)]
        *_, cursors = await asyncio.gather(*work, caller.cursors(count * writers))
        assert cursors == all_cursors(stores[0])


async def test_a_quiet_stream_says_now_and_then_that_it_lives(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open(), pace=Pace(heartbeat=0.05)) as log, reading_along(log) as caller:
        assert await caller.chunk() == b"retry: 2000\n\n"
        for _ in range(3):
            assert await caller.chunk() == b":\n\n"


async def test_a_stream_that_has_nothing_to_say_is_quiet_for_fifteen_seconds() -> None:
    assert streaming.HEARTBEAT_SECONDS == 15


async def test_a_slow_reader_costs_one_page(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_database.open()
    writer = build_writer(store)
    for _ in range(20):
        queue_item(writer)
    pages: list[int] = []
    page = EventLog.page

    async def counted(log: EventLog, selection: Selection, after: str | None, limit: int) -> Any:
        pages.append(limit)
        return await page(log, selection, after, limit)

    monkeypatch.setattr(EventLog, "page", counted)
    async with open_log(store, pace=Pace(page=5)) as log, reading_along(log) as caller:
        assert await caller.cursors(5) == all_cursors(store)[:5]
        caller.takes.clear()
        async with asyncio.timeout(WAIT_SECONDS):
            await caller.blocked.wait()
        asked = len(pages)
        for _ in range(10):
            log.wake(send(writer, intake_of()).events)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * streaming.SOON_SECONDS):
                await asyncio.Event().wait()
        assert len(pages) == asked <= 3
        caller.takes.set()
        assert await caller.cursors(25) == all_cursors(store)[5:]


async def test_a_stream_ends_at_the_time_its_token_does(sqlite_database: Database) -> None:
    clock = HandClock()
    store = sqlite_database.open()
    async with open_log(store, clock) as log, reading_along(log, until=clock() + timedelta(minutes=1)) as caller:
        await caller.chunk()
        clock.wait(61)
        # The time is looked at when something happens, and at the latest when the poll comes round.
        log.wake(send(build_writer(store), intake_of()).events)
        while await caller.chunk():
            pass
        assert log.streams == 0


async def test_a_reader_that_goes_away_leaves_nothing_behind(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open()) as log:
        async with reading_along(log) as caller:
            await caller.chunk()
            assert log.streams == 1
        assert log.streams == 0


async def test_there_are_only_so_many_streams(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open(), pace=Pace(streams=1)) as log:
        async with reading_along(log) as caller:
            await caller.chunk()
            with pytest.raises(Unavailable) as refusal:
                await log.stream(EVERYTHING, None, until=NOON)
            assert refusal.value.retry_after_seconds
        async with reading_along(log) as caller:
            await caller.chunk()


async def test_one_reader_takes_no_more_than_a_share_and_leaves_the_others_theirs(
    sqlite_database: Database,
) -> None:
    async with open_log(sqlite_database.open()) as log:
        asked = [log.stream(EVERYTHING, None, until=NOON, sub="greedy") for _ in range(streaming.STREAMS_A_READER + 5)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, RateLimitExceeded) for answer in answers) == 5
        await log.stream(EVERYTHING, None, until=NOON, sub="another")


async def test_many_who_come_at_once_get_no_more_streams(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open(), pace=Pace(streams=3)) as log:
        asked = [log.stream(EVERYTHING, None, until=NOON) for _ in range(10)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, Unavailable) for answer in answers) == 7


async def test_a_stopping_log_opens_no_stream(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open()) as log:
        await log.stop()
        with pytest.raises(Unavailable):
            await log.stream(EVERYTHING, None, until=NOON)


async def test_a_stopping_log_cuts_off_a_reader_that_takes_nothing(sqlite_database: Database) -> None:
    store = sqlite_database.open()
    async with open_log(store, pace=Pace(last_moment=0.05)) as log, reading_along(log) as caller:
        await caller.chunk()
        caller.takes.clear()
        log.wake(send(build_writer(store), intake_of()).events)
        async with asyncio.timeout(WAIT_SECONDS):
            await caller.blocked.wait()
        await log.stop()
        assert caller.gone.is_set()


async def test_a_stopping_log_cuts_off_a_reader_that_does_not_even_take_the_end(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open(), pace=Pace(last_moment=0.05)) as log, reading_along(log) as caller:
        await caller.chunk()
        caller.takes.clear()
        await log.stop()
        assert caller.gone.is_set()


async def test_a_reader_that_takes_nothing_for_too_long_is_cut_off(sqlite_database: Database) -> None:
    async with open_log(sqlite_database.open(), pace=Pace(stalled=0.05)) as log:
        response = await log.stream(
            EVERYTHING, None, until=NOON + timedelta(days=1), abort=(cut := asyncio.Event()).set
        )
        caller = Caller()
        caller.takes.clear()
        task = asyncio.create_task(response({"type": "http"}, caller.receive, caller.send))
        async with asyncio.timeout(WAIT_SECONDS):
            await cut.wait()
        caller.gone.set()
        await task


async def test_a_stream_whose_database_goes_away_ends_and_can_be_resumed(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = sqlite_database.open()
    writer = build_writer(store)
    queue_item(writer)
    async with open_log(store) as log:
        async with reading_along(log) as caller:
            seen = await caller.cursors(1)

            here, run = asyncio.get_running_loop(), Queries.run

            async def away(queries: Queries, *arguments: Any) -> Any:
                # A service of other tests may run in this process, on a loop of its own.
                if asyncio.get_running_loop() is not here:
                    return await run(queries, *arguments)
                raise OperationalError("SELECT", {}, Exception("gone"))

            with monkeypatch.context() as patch:
                patch.setattr(Queries, "run", away)
                log.wake(send(writer, intake_of()).events)
                # The empty last chunk is a clean end.
                while await caller.chunk():
                    pass
        assert [record.message for record in caplog.records] == ["a stream of the event log ended early"]
        async with reading_along(log, after=seen[-1]) as caller:
            assert seen + await caller.cursors(1) == all_cursors(store)
