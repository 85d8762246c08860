"""The lanes: mailboxes for the writers, used from the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, event

from app.domain import command as do
from app.domain.errors import QueueEmpty, Unavailable
from app.engine.deadline import Deadline
from app.engine.jobs import Outcome
from app.engine.lane import Lanes
from app.store import Store, event_log, reading
from tests.support.builders import PERFORMER
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    complete_of,
    idempotency_of,
    intake_of,
    new_id,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import store_fixture as store_fixture

Measured = tuple[int, list[tuple[str, str]]]


@dataclass(eq=False)
class Heard:
    """Collects the published outcomes of the lanes, and their measurements."""

    outcomes: list[Outcome] = field(default_factory=list)
    measures: list[Measured] = field(default_factory=list)

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes.extend(outcomes)

    def measure(self, size: int, seconds: float, results: Sequence[tuple[str, str]]) -> None:
        assert seconds > 0
        self.measures.append((size, list(results)))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def lanes_on(store: Store, heard: Heard, count: int = 1, **limits: Any) -> Lanes:
    return Lanes(store, HandClock(), new_id, heard.publish, count=count, measure=heard.measure, **limits)


@asynccontextmanager
async def held_up(lanes: Lanes) -> AsyncIterator[Callable[[], None]]:
    """The first lane is busy with one task until the end of the block, or until the yielded function is called."""
    begun, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait(connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert released.wait(30)

    task = asyncio.create_task(lanes.run(wait))
    await begun.wait()
    try:
        yield released.set
    finally:
        released.set()
        await task


def posted(lanes: Lanes, *commands: Any, performer_id: str = PERFORMER.id) -> list["asyncio.Task[Outcome]"]:
    return [asyncio.create_task(lanes.send(performer_id, command)) for command in commands]


async def waiting(lanes: Lanes, number: int) -> None:
    """Let new tasks run; then this many jobs must wait in the lane, which is held up."""
    await asyncio.sleep(0)
    assert lanes.waiting == number


async def test_commands_that_wait_are_committed_together(store: Store, heard: Heard) -> None:
    commits: list[None] = []
    event.listen(store.engines.writer, "commit", lambda connection: commits.append(None))
    async with lanes_on(store, heard) as lanes:
        async with held_up(lanes):
            tasks = posted(lanes, *(intake_of() for _ in range(40)), do.StartNext(actor=PERFORMER))
            await waiting(lanes, 41)
        await asyncio.gather(*tasks)
    assert len(commits) == 2
    assert heard.measures[-1] == (41, [("Intake", "ok")] * 40 + [("StartNext", "ok")])


async def test_a_batch_has_a_bounded_size(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard, largest_batch=10) as lanes:
        async with held_up(lanes):
            tasks = posted(lanes, *(intake_of() for _ in range(25)))
            await waiting(lanes, 25)
        await asyncio.gather(*tasks)
    assert [size for size, _ in heard.measures] == [1, 10, 10, 5]


async def test_a_rooms_commands_are_decided_in_the_order_of_their_sending(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard) as lanes:
        intakes = [intake_of() for _ in range(50)]
        outcomes = await asyncio.gather(*posted(lanes, *intakes))
        assert [outcome.position for outcome in outcomes] == list(range(1, 51))
        room = lanes.peek(PERFORMER.id)
    assert room is not None
    assert [item.item_id for item in room.items] == [intake.item.item_id for intake in intakes]
    assert assert_consistent(store) == room


async def test_committed_outcomes_are_published_once_in_order_and_refusals_are_not(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard) as lanes:
        intake = intake_of()
        with pytest.raises(QueueEmpty):
            await lanes.send(PERFORMER.id, do.StartNext(actor=PERFORMER))
        await lanes.send(PERFORMER.id, intake, idempotency_of(intake))
        assert (await lanes.send(PERFORMER.id, intake, idempotency_of(intake))).replayed
        await lanes.send(PERFORMER.id, start_of(intake.item))
        await lanes.send(PERFORMER.id, complete_of(intake.item))
    published = [event.version for outcome in heard.outcomes for event in outcome.events]
    assert published == [1, 2, 3]
    assert [results for _, results in heard.measures] == [
        [("StartNext", "QUEUE_EMPTY")],
        [("Intake", "ok")],
        [("Intake", "replayed")],
        [("Start", "ok")],
        [("Complete", "ok")],
    ]


async def test_a_caller_that_goes_away_cancels_nothing(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard) as lanes:
        async with held_up(lanes):
            gone, stays = posted(lanes, intake_of(1), intake_of(2))
            await waiting(lanes, 2)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        assert (await stays).position == 2
    assert assert_consistent(store).depth == 2
    assert [outcome.room.version for outcome in heard.outcomes] == [1, 2]


async def test_the_lanes_know_how_long_the_oldest_command_has_waited(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard, count=2) as lanes:
        assert lanes.wait_seconds == 0
        async with held_up(lanes):
            first = lanes.wait_seconds
            assert first > 0
            assert first < lanes.wait_seconds < 5
        assert lanes.wait_seconds == 0


async def test_a_command_that_is_due_sooner_hides_no_older_one(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard) as lanes, held_up(lanes):
        older = posted(lanes, intake_of())
        await waiting(lanes, 1)
        await asyncio.sleep(0.05)
        waited = lanes.wait_seconds
        sooner = asyncio.create_task(lanes.send(PERFORMER.id, intake_of(), deadline=Deadline(4)))
        await waiting(lanes, 2)
        assert lanes.wait_seconds >= waited >= 0.05
    await asyncio.gather(*older, sooner)


async def test_a_full_mailbox_is_unavailable_and_the_jobs_in_it_are_done(store: Store, heard: Heard) -> None:
    async with lanes_on(store, heard, limit=3) as lanes:
        async with held_up(lanes):
            tasks = posted(lanes, *(intake_of() for _ in range(3)))
            await waiting(lanes, 3)
            with pytest.raises(Unavailable) as refused:
                await lanes.send(PERFORMER.id, intake_of())
            with pytest.raises(Unavailable):
                await lanes.run(reading.epoch)
            assert refused.value.retry_after_seconds == 1
        await asyncio.gather(*tasks)
        assert (await lanes.send(PERFORMER.id, intake_of())).position == 4


async def test_stopping_finishes_waiting_jobs_and_accepts_no_more(store: Store, heard: Heard) -> None:
    lanes = lanes_on(store, heard)
    await lanes.__aenter__()
    async with held_up(lanes) as release:
        tasks = posted(lanes, *(intake_of() for _ in range(30)))
        await waiting(lanes, 30)
        stopping = asyncio.create_task(lanes.__aexit__(None, None, None))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="shutting down"):
            await lanes.send(PERFORMER.id, intake_of())
        assert not stopping.done()
        release()
        await stopping
        assert all(task.done() for task in tasks)
    assert [outcome.position for outcome in await asyncio.gather(*tasks)] == list(range(1, 31))
    assert assert_consistent(store).depth == 30
    assert len(heard.outcomes) == 30
    with pytest.raises(Unavailable):
        await lanes.run(reading.epoch)


async def test_database_tasks_answer_with_what_they_return_and_come_in_turn(store: Store, heard: Heard) -> None:
    def count(connection: Connection) -> int:
        return len(event_log.room_events(connection, PERFORMER.id, 0, 10))

    async with lanes_on(store, heard) as lanes:
        first = asyncio.create_task(lanes.run(count))
        (intake,) = posted(lanes, intake_of())
        second = asyncio.create_task(lanes.run(count))
        assert (await first, (await intake).position, await second) == (0, 1, 1)
        assert await lanes.run(reading.epoch) == store.epoch


async def test_a_listener_that_fails_stops_nobody(store: Store) -> None:
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))

    def publish(outcomes: Sequence[Outcome]) -> None:
        raise RuntimeError("nobody listens")

    async with Lanes(store, HandClock(), new_id, publish) as lanes:
        for position in (1, 2):
            assert (await lanes.send(PERFORMER.id, intake_of())).position == position
    assert [str(failure) for failure in failures] == ["nobody listens"] * 2


async def test_rooms_are_spread_over_lanes_and_a_busy_lane_holds_up_its_own_only(
    postgres_database: Database, heard: Heard
) -> None:
    names = [f"star-{number}" for number in range(16)]
    async with lanes_on(postgres_database.open(lanes=4), heard, count=4) as lanes:
        async with held_up(lanes):
            tasks = [posted(lanes, intake_of(performer_id=name), performer_id=name)[0] for name in names]
            served, held = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while len(served) + lanes.waiting < len(names):
                served, held = await asyncio.wait(held | served, timeout=0.01)
            assert held
            assert served
        await asyncio.gather(*tasks)
        # The same room meets the same lane every time.
        for name in names:
            assert (await lanes.send(name, intake_of(performer_id=name))).position == 2
            assert_consistent(postgres_database.stores[0], name)
