"""The writer when a commit fails, and when another writer has changed the same database."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from app.domain import command as do
from app.domain.errors import (
    Internal,
    QueueFull,
    Unavailable,
)
from app.domain.item import Reason
from app.domain.operation import Operation
from app.domain.room import Policy
from app.engine.jobs import DatabaseTask
from app.store import Store, writing
from tests.support.builders import ADMIN, PERFORMER, moment
from tests.support.stores import (
    Database,
    assert_consistent,
    before_each_statement,
    build_writer,
    codes,
    complete_of,
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

# When a batch fails


def break_commit(store: Store, when: Callable[[], bool], error: Exception) -> None:
    @event.listens_for(store.engines.writer, "commit")
    def fail(connection: Any) -> None:
        if when():
            raise error


def test_a_batch_whose_commit_fails_is_replayed_and_only_the_bad_command_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = build_writer(store)
    good, bad = [intake_of(number) for number in range(1, 6)], intake_of(9, title="poison")
    committed: list[int] = []

    def refuse_poison(connection: Any, statement: str, parameters: Any) -> None:
        if "INSERT INTO items" in statement and "poison" in str(parameters):
            raise RuntimeError("the database will not have this one")

    before_each_statement(monkeypatch, store.engines.writer, refuse_poison)
    event.listen(store.engines.writer, "commit", lambda connection: committed.append(1))
    results = writer.process([job_of(intake) for intake in [*good[:3], bad, *good[3:]]])
    assert codes(results) == ["ok", "ok", "ok", "INTERNAL", "ok", "ok"]
    assert len(committed) == 5
    assert [item.item_id for item in assert_consistent(store).items] == [intake.item.item_id for intake in good]


def test_a_commit_that_fails_for_good_leaves_nothing_and_later_commands_work(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    writer = build_writer(store)
    queue_item(writer)
    broken = True
    trouble = OperationalError("COMMIT", {}, Exception("no space left on device"))
    break_commit(store, lambda: broken, trouble)
    with caplog.at_level(logging.ERROR):
        (refusal,) = writer.process([job_of(intake_of(2))])
    assert isinstance(refusal, Unavailable)
    assert refusal.retry_after_seconds == 1
    assert "a command could not be committed" in caplog.text
    assert writer.in_trouble is True
    broken = False
    assert assert_consistent(store).version == 1
    queue_item(writer, 2)
    assert assert_consistent(store).version == 2
    assert writer.in_trouble is False


def test_a_passing_failure_is_not_noticed_by_the_caller(store: Store) -> None:
    writer = build_writer(store)
    failures = iter([True, True, True])
    trouble = OperationalError("COMMIT", {}, Exception("deadlock detected"))
    break_commit(store, lambda: next(failures, False), trouble)
    results = writer.process([job_of(intake_of(number)) for number in (1, 2)])
    assert codes(results) == ["ok", "ok"]
    assert assert_consistent(store).version == 2


def test_a_full_disk_is_unavailable_and_heals(sqlite_database: Database) -> None:
    store = sqlite_database.open()
    writer = build_writer(store)
    queue_item(writer)
    full = True

    @event.listens_for(store.engines.writer, "begin")
    def limit(connection: Any) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages if full else 1_000_000}")

    results = [writer.process([job_of(intake_of(description="long " * 400))])[0] for _ in range(30)]
    assert "UNAVAILABLE" in codes(results)
    served = codes(results).count("ok")
    full = False
    assert assert_consistent(store).version == 1 + served
    queue_item(writer, description="long " * 400)
    assert assert_consistent(store).version == 2 + served


def test_neither_errors_nor_the_log_repeat_a_callers_values(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    writer = build_writer(store)
    queue_item(writer, 1)

    def rename(old: str, new: str) -> None:
        with store.writing() as connection:
            connection.execute(text(f"ALTER TABLE items RENAME COLUMN {old} TO {new}"))

    rename("title", "elsewhere")
    with caplog.at_level(logging.DEBUG):
        (refusal,) = writer.process([job_of(intake_of(2, title="my secret wish", description="and my address"))])
    rename("elsewhere", "title")
    assert isinstance(refusal, Internal | Unavailable)
    assert "INSERT INTO items" in caplog.text
    assert "INSERT" not in refusal.detail
    assert "secret wish" not in caplog.text
    assert "my address" not in caplog.text


# Another writer on the same database


def test_a_stale_room_is_noticed_and_the_command_decided_again_unseen(database: Database) -> None:
    ours, theirs = build_writer(database.open()), build_writer(database.open())
    queue_item(ours, 1)
    for number in (2, 3, 4):
        queue_item(theirs, number)
    outcome = send(ours, intake_of(5))
    assert outcome.position == 5
    assert [event.version for event in outcome.events] == [5]
    assert outcome.room == assert_consistent(ours.store)


def test_a_stale_room_in_a_batch_costs_the_other_rooms_nothing(database: Database) -> None:
    ours, theirs = build_writer(database.open()), build_writer(database.open())
    queue_item(ours, performer_id="star")
    queue_item(theirs, performer_id="star")
    names = ["moon", "star", "sun", "star"]
    assert codes(ours.process([job_of(intake_of(performer_id=name)) for name in names])) == ["ok"] * 4
    assert [assert_consistent(ours.store, name).version for name in ("moon", "star", "sun")] == [1, 4, 1]


@pytest.mark.parametrize(
    "scene", ["full then free", "started then ended", "closed then open", "strict then free", "empty then queued"]
)
def test_a_refusal_from_a_stale_room_is_never_given(postgres_database: Database, scene: str) -> None:
    policy = Policy(max_depth=2)
    ours, theirs = build_writer(postgres_database.open(policy)), build_writer(postgres_database.open(policy))
    one, two = queue_item(ours, 1), queue_item(ours, 2)
    command: Any
    match scene:
        case "full then free":
            with pytest.raises(QueueFull):
                send(ours, intake_of(3))
            send(theirs, do.Abandon(actor=PERFORMER, item_id=one.item_id))
            command = intake_of(3)
        case "started then ended":
            send(ours, start_of(one))
            send(theirs, complete_of(one))
            command = start_of(two)
        case "closed then open":
            send(ours, do.ChangeSettings(actor=PERFORMER, accepting=False))
            send(theirs, do.Abandon(actor=PERFORMER, item_id=one.item_id))
            send(theirs, do.ChangeSettings(actor=PERFORMER, accepting=True))
            command = intake_of(3)
        case "strict then free":
            send(ours, do.ChangeSettings(actor=PERFORMER, strict_fifo=True))
            send(theirs, do.ChangeSettings(actor=PERFORMER, strict_fifo=False))
            command = start_of(two)
        case "empty then queued":
            for item in (one, two):
                send(ours, do.Abandon(actor=PERFORMER, item_id=item.item_id))
            queue_item(theirs, 3)
            command = do.StartNext(actor=PERFORMER)
    send(ours, command)
    assert_consistent(ours.store)


@pytest.mark.parametrize("statement_number", range(1, 8))
def test_a_room_that_comes_to_be_while_it_is_loaded_is_not_taken_for_another(
    postgres_database: Database, statement_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no row to lock yet: wherever the other commit falls between two statements, both items are stored."""
    ours, theirs = build_writer(postgres_database.open()), build_writer(postgres_database.open())
    other = threading.Thread(target=queue_item, args=[theirs])
    seen = 0

    def interfere(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == statement_number:
            other.start()
            # Unless it has to wait for us.
            other.join(0.5)

    before_each_statement(monkeypatch, ours.store.engines.writer, interfere)
    queue_item(ours)
    other.join()
    queue_item(ours)
    room = assert_consistent(ours.store)
    assert room.depth == room.version == 3
    assert ours.peek(PERFORMER.id) == room


def test_an_operation_is_not_claimed_while_a_refund_replaces_it(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = build_writer(postgres_database.open()), postgres_database.open()
    item = queue_item(ours)
    send(ours, start_of(item))
    send(ours, complete_of(item))
    claimed: list[Operation] = []

    def claim(connection: Any, statement: str, parameters: Any) -> None:
        if "INSERT INTO wallet_operations" in statement:
            with theirs.writing() as other:
                claimed.extend(writing.claim_operations(other, now=moment(), lease_until=moment(30), limit=10))

    before_each_statement(monkeypatch, ours.store.engines.writer, claim)
    send(ours, do.Refund(actor=ADMIN, item_id=item.item_id, reason=Reason.ADMIN_REFUND))
    assert claimed == []


def test_a_writer_is_not_in_trouble_before_anything_has_failed(store: Store) -> None:
    assert build_writer(store).in_trouble is False
    assert not build_writer(store).is_disk_full


def test_a_command_that_violates_a_constraint_again_and_again_may_be_repeated_later(store: Store) -> None:
    def breaks(connection: Any) -> None:
        raise IntegrityError("INSERT", {}, Exception("unique"))

    (refusal,) = build_writer(store).process([DatabaseTask(run=breaks)])
    assert isinstance(refusal, Unavailable)
    assert refusal.retry_after_seconds == 1
