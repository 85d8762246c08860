"""The attempts of a writer: which rooms share a transaction, which are tried apart, and how often that is repeated."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.errors import DiskFull
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from app.domain.errors import Internal
from app.engine import writer as writer_module
from app.engine.jobs import DatabaseTask, Job, Outcome
from app.engine.writer import Later
from app.store import Store, reading
from tests.support.builders import PERFORMER
from tests.support.stores import (
    Database,
    before_each_statement,
    build_writer,
    codes,
    held,
    intake_of,
    job_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import store_fixture as store_fixture

TROUBLE = OperationalError("COMMIT", {}, Exception("the server is away"))


class Seconds:
    """The writer's `monotonic`: it moves only when a test sets `now`."""

    now = 1.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="seconds")
def seconds_fixture(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    seconds = Seconds()
    monkeypatch.setattr(writer_module, "monotonic", seconds)
    return seconds


def fail_commits(store: Store, errors: Iterator[Exception | None]) -> None:
    """Each commit takes the next error and raises it; None lets it pass."""

    @event.listens_for(store.engines.writer, "commit")
    def fail(connection: Connection) -> None:
        if (error := next(errors, None)) is not None:
            raise error


# How often


@pytest.mark.parametrize("slow", [False, True])
def test_a_database_in_trouble_is_not_asked_again_for_every_command_of_a_batch(
    store: Store, seconds: Seconds, slow: bool
) -> None:
    asked: list[None] = []

    def fail() -> Iterator[Exception]:
        while True:
            asked.append(None)
            seconds.now += 2 * writer_module.SLOW_SECONDS if slow else 0
            yield TROUBLE

    fail_commits(store, fail())
    results = build_writer(store).process([job_of(intake_of(number)) for number in range(1, 51)])
    assert codes(results) == ["UNAVAILABLE"] * 50
    # After a few failures that took no time, the commands' only room is also tried apart.
    apart = 0 if slow else 3
    assert len(asked) == 5 + apart


def test_a_task_that_fails_by_itself_is_not_repeated(store: Store) -> None:
    runs: list[None] = []

    def fail(connection: Connection) -> None:
        runs.append(None)
        raise RuntimeError("a bad task")

    writer = build_writer(store)
    assert [type(result) for result in writer.attempt([DatabaseTask(run=fail)])] == [Internal]
    assert len(runs) == 1
    results = writer.attempt([DatabaseTask(run=fail), job_of(intake_of())])
    assert [type(result) for result in results] == [Internal, Outcome]
    assert len(runs) == 3, "once with the other job, once apart"


def test_a_room_whose_commit_fails_is_loaded_again(store: Store) -> None:
    """It may have been stale, or the commit may have succeeded."""
    writer = build_writer(store)
    queue_item(writer)
    fail_commits(store, iter([TROUBLE]))
    assert writer.attempt([job_of(intake_of())]) == [Later.TROUBLE]
    assert writer.peek(PERFORMER.id) is None


@pytest.mark.parametrize("error", [TROUBLE, RuntimeError("a bad command")], ids=["trouble", "a bad command"])
def test_a_room_is_loaded_again_after_the_failure_of_one_command_alone(store: Store, error: Exception) -> None:
    writer = build_writer(store)
    # Together, apart, then the first command alone, and the second.
    fail_commits(store, iter([RuntimeError("a bad batch"), RuntimeError("a bad room"), None, error]))
    first, second = writer.attempt([job_of(intake_of()), job_of(intake_of())])
    assert isinstance(first, Outcome)
    assert second is Later.TROUBLE if error is TROUBLE else isinstance(second, Internal)
    assert writer.peek(PERFORMER.id) is None


def test_a_locked_room_is_tried_again_after_a_pause(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = build_writer(postgres_database.open())
    queue_item(writer)
    with held(postgres_database, "SELECT 1 FROM rooms WHERE performer_id = %s FOR UPDATE", PERFORMER.id) as other:
        monkeypatch.setattr(writer_module, "sleep", lambda seconds: other.rollback())
        assert send(writer, intake_of()).position == 2


def test_a_room_that_stays_locked_is_given_up_after_three_seconds(
    postgres_database: Database, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = build_writer(postgres_database.open())
    queue_item(writer)
    pauses: list[float] = []

    def pause(length: float) -> None:
        pauses.append(length)
        seconds.now += 1

    monkeypatch.setattr(writer_module, "sleep", pause)
    with held(postgres_database, "SELECT 1 FROM rooms WHERE performer_id = %s FOR UPDATE", PERFORMER.id):
        assert codes(writer.process([job_of(intake_of())])) == ["UNAVAILABLE"]
    assert pauses == [0.005] * 4, "the last one begins three seconds after the first"


# Which rooms


def test_a_bad_command_holds_up_no_other_room_of_its_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_poison(connection: Any, statement: str, parameters: Any) -> None:
        if "INSERT INTO items" in statement and "poison" in str(parameters):
            raise RuntimeError("the database will not have this one")

    before_each_statement(monkeypatch, store.engines.writer, refuse_poison)
    jobs = [job_of(intake_of(performer_id=f"star-{number}")) for number in range(5)]
    jobs.append(job_of(intake_of(performer_id="star-5", title="poison")))
    assert codes(build_writer(store).attempt(jobs)) == ["ok"] * 5 + ["INTERNAL"]


def test_after_three_rooms_in_a_row_that_fail_the_others_are_not_tried(
    store: Store, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["bad-1", "bad-2", "good", "bad-3", "bad-4", "bad-5", "bad-6"]
    tried: list[list[str]] = []
    is_broken = True

    def refuse_bad(connection: Any, statement: str, parameters: Any) -> None:
        if "INSERT INTO items" in statement:
            tried.append([name for name in names if f"'{name}'" in str(parameters)])
            if is_broken and "bad" in str(parameters):
                raise TROUBLE

    before_each_statement(monkeypatch, store.engines.writer, refuse_bad)
    writer = build_writer(store)
    jobs = [job_of(intake_of(performer_id=name)) for name in names]
    for _ in range(writer_module.WHOLE_FAILURES):
        assert writer.attempt(jobs) == [Later.TROUBLE] * 7
    results = writer.attempt(jobs)
    assert tried == [names] * 3 + [[name] for name in names[:-1]]
    assert [name for name, result in zip(names, results, strict=True) if result is not Later.TROUBLE] == ["good"]
    is_broken = False
    del jobs[2], names[2]
    assert codes(writer.attempt(jobs)) == ["ok"] * 6
    assert tried[-1] == names


def test_rooms_with_a_locked_row_pause_and_the_others_go_on(
    postgres_database: Database, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = postgres_database.open(lock_timeout_ms=200)
    writer = build_writer(store)
    items = [queue_item(writer, performer_id=f"held-{number}") for number in range(4)]
    starts = [job_of(start_of(item), performer_id=item.performer_id) for item in items]
    begun: list[None] = []
    timeouts: list[str] = []

    def watch(connection: Connection, statement: str, parameters: Any) -> None:
        if "lock_timeout" in statement:
            timeouts.append(statement)

    before_each_statement(monkeypatch, store.engines.writer, watch)
    event.listen(store.engines.writer, "begin", lambda connection: begun.append(None))
    with held(postgres_database, "SELECT 1 FROM items WHERE performer_id LIKE %s FOR UPDATE", "held-%"):
        results = writer.attempt([*starts, job_of(intake_of(performer_id="free"))])
        assert results[:4] == [Later.LOCKED] * 4
        assert codes(results[4:]) == ["ok"]
        # Together, then each room apart.
        assert len(begun) == 6
        assert timeouts == ["SET LOCAL lock_timeout = 50"] * 5
        begun.clear()
        jobs: list[Job] = [*starts, job_of(intake_of(performer_id="free")), DatabaseTask(run=reading.epoch)]
        results = writer.attempt(jobs)
        assert results[:4] == [Later.LOCKED] * 4
        assert codes(results[4:5]) == ["ok"]
        assert results[5] == store.epoch
        assert len(begun) == 1, "rooms that pause are not tried"
    seconds.now = float("inf")
    assert codes(writer.attempt(starts)) == ["ok"] * 4
    begun.clear()
    timeouts.clear()
    assert codes(writer.attempt([job_of(intake_of(performer_id=item.performer_id)) for item in items])) == ["ok"] * 4
    assert (len(begun), timeouts) == (1, []), "they are together again, with the connection's own lock timeout"


# Signs of trouble


def test_a_full_disk_is_reported_until_some_time_after_the_last_failure(store: Store, seconds: Seconds) -> None:
    writer = build_writer(store)
    fail_commits(store, iter([TROUBLE, OperationalError("COMMIT", {}, DiskFull("no space left on device"))]))
    job = job_of(intake_of())
    assert writer.attempt([job]) == [Later.TROUBLE]
    assert writer.in_trouble is True
    assert writer.is_disk_full is False
    assert writer.attempt([job]) == [Later.TROUBLE]
    assert writer.is_disk_full is True
    assert codes(writer.attempt([job])) == ["ok"]
    assert (writer.in_trouble, writer.is_disk_full) == (False, True), "a smaller write may succeed"
    seconds.now += 5.0
    assert writer.is_disk_full is False


def test_trouble_is_logged_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    writer = build_writer(store)
    fail_commits(store, iter([TROUBLE, TROUBLE]))
    job = job_of(intake_of())
    with caplog.at_level(logging.ERROR):
        writer.attempt([job])
        assert len(caplog.records) == 1
        writer.attempt([job])
        assert len(caplog.records) == 1
