"""The writer: a batch is decided and committed together, and each command has the result that it would have alone."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from app.domain import command as do
from app.domain.command import Mode, SetPresence
from app.domain.errors import (
    AlreadyProcessing,
    DuplicateIdempotencyKey,
    EscrowAlreadyQueued,
    Internal,
    InvalidTransition,
    QueueEmpty,
    QueueFull,
    Unavailable,
)
from app.domain.item import Reason, Status
from app.domain.operation import OperationKind
from app.domain.room import Policy
from app.engine.jobs import DatabaseTask, Idempotency, Job, Outcome
from app.engine.writer import Writer
from app.store import Store, event_log, reading, wallet_operations, writing
from tests.support.builders import ADMIN, PERFORMER, moment
from tests.support.stores import (
    Database,
    HandClock,
    assert_consistent,
    build_writer,
    codes,
    complete_of,
    idempotency_of,
    intake_of,
    job_of,
    new_id,
    outcome_of,
    queue_item,
    send,
    start_of,
    stored_events,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import store_fixture as store_fixture


def count_commits(store: Store) -> list[None]:
    """A list that grows by one with each committed write transaction."""
    commits: list[None] = []
    event.listen(store.engines.writer, "commit", lambda connection: commits.append(None))
    return commits


# One batch


def test_a_batch_of_many_commands_is_one_transaction(store: Store) -> None:
    writer = build_writer(store)
    commits = count_commits(store)
    intakes = [intake_of(performer_id=f"star-{number % 7}") for number in range(200)]
    results = writer.process([job_of(intake, idempotency_of(intake)) for intake in intakes])
    assert codes(results) == ["ok"] * 200
    assert len(commits) == 1
    for number in range(7):
        room = assert_consistent(store, f"star-{number}")
        assert room == writer.peek(f"star-{number}")
        expected = [intake.item.item_id for intake in intakes if intake.item.performer_id == f"star-{number}"]
        assert [item.item_id for item in room.items] == expected


def test_a_refused_command_costs_only_itself(store: Store) -> None:
    writer = build_writer(store)
    first, second = intake_of(1), intake_of(2)
    commits = count_commits(store)
    results = writer.process(
        [
            job_of(do.StartNext(actor=PERFORMER)),
            job_of(first),
            job_of(do.Complete(actor=PERFORMER, item_id=first.item.item_id)),
            job_of(start_of(first.item)),
            job_of(second),
            job_of(start_of(second.item)),
            job_of(complete_of(first.item)),
            job_of(start_of(second.item)),
        ]
    )
    refusals = [type(result) for result in results if not isinstance(result, Outcome)]
    assert refusals == [QueueEmpty, InvalidTransition, AlreadyProcessing]
    assert len(commits) == 1
    room = assert_consistent(store)
    assert room.started is not None
    assert room.started.item_id == second.item.item_id


def test_everything_may_happen_to_an_item_in_one_batch(store: Store) -> None:
    writer = build_writer(store)
    one, other, passing = intake_of(1), intake_of(2), intake_of(3, queue_mode=Mode.OFF)
    jobs = [
        job_of(one, idempotency_of(one)),
        job_of(other),
        job_of(start_of(one.item)),
        job_of(do.Pause(actor=PERFORMER, item_id=one.item.item_id)),
        job_of(complete_of(one.item)),
        job_of(do.Refund(actor=ADMIN, item_id=one.item.item_id, reason=Reason.ADMIN_REFUND)),
        job_of(one, idempotency_of(one)),
        job_of(passing),
        job_of(start_of(other.item)),
        job_of(do.ChangeSettings(actor=PERFORMER, paused=True)),
    ]
    commits = count_commits(store)
    assert codes(writer.process(jobs)) == ["ok"] * 6 + ["replayed"] + ["ok"] * 3
    assert len(commits) == 1
    room = assert_consistent(store)
    assert [item.item_id for item in room.items] == [other.item.item_id]
    with store.reading() as connection:
        refunded = reading.find_item(connection, one.item.item_id)
        found = wallet_operations.operation_of(connection, one.item.item_id)
        assert refunded is not None
        assert refunded.status is Status.REFUNDED
        assert found is not None
        assert (found[0].kind, found[0].refund_tokens) == (OperationKind.REFUND, one.item.tokens)
        assert wallet_operations.operations_page(connection, status=None, limit=10, skip=0).total == 2


def test_random_batches_come_to_what_the_log_says_and_the_cache_agrees(store: Store) -> None:
    chance = random.Random(20260131)
    clock = HandClock()
    writer = build_writer(store, clock)
    names = ["star", "moon"]
    known: list[do.Intake] = []

    def some_command() -> Any:
        if len(known) < 3 or chance.random() < 0.4:
            queue_mode = chance.choice([None, None, None, Mode.OFF])
            known.append(intake_of(performer_id=chance.choice(names), queue_mode=queue_mode))
            return job_of(known[-1], idempotency_of(known[-1]))
        intake = chance.choice(known[-6:])
        item_id, performer_id = intake.item.item_id, intake.item.performer_id
        command: Callable[[], Any] = chance.choice(
            [
                lambda: do.StartNext(actor=PERFORMER),
                lambda: do.Start(actor=PERFORMER, item_id=item_id),
                lambda: do.Complete(actor=PERFORMER, item_id=item_id, refund_tokens=chance.choice([None, 1])),
                lambda: do.Abandon(actor=PERFORMER, item_id=item_id),
                lambda: do.Refund(actor=ADMIN, item_id=item_id, reason=Reason.ADMIN_REFUND),
                lambda: do.Pause(actor=PERFORMER, item_id=item_id),
                lambda: do.Resume(actor=PERFORMER, item_id=item_id),
                lambda: do.Expire(item_id=item_id, at=moment(10**6)),
                lambda: do.ChangeSettings(actor=PERFORMER, paused=chance.random() < 0.5),
                lambda: SetPresence(online=chance.random() < 0.5),
                lambda: intake,
            ]
        )
        chosen = command()
        idempotency = idempotency_of(chosen) if isinstance(chosen, do.Intake) else None
        return job_of(chosen, idempotency, performer_id=performer_id)

    for turn in range(60):
        clock.wait(chance.choice([0, 0.001, 1, 50]))
        results = writer.process([some_command() for _ in range(chance.randrange(1, 12))])
        assert not [result for result in results if isinstance(result, Internal | Unavailable)]
        if chance.random() < 0.1:
            writer = build_writer(store, clock)
        if turn % 6 == 5:
            for name in names:
                assert writer.peek(name) in (None, assert_consistent(store, name))
    with store.reading() as connection:
        operations = wallet_operations.operations_page(connection, status=None, limit=1000, skip=0)
    assert operations.total > 20
    assert len({operation.item_id for operation in operations.rows}) == operations.total


# Idempotency


def test_the_same_key_gives_the_first_answer_within_a_batch_after_it_and_after_a_restart(store: Store) -> None:
    writer = build_writer(store)
    intake, commits = intake_of(1), count_commits(store)
    first, again = map(outcome_of, writer.process([job_of(intake, idempotency_of(intake))] * 2))
    assert len(commits) == 1
    assert (first.replayed, again.replayed) == (False, True)
    send(writer, start_of(intake.item))
    send(writer, complete_of(intake.item))
    restarted = build_writer(store)
    for outcome in (
        again,
        send(writer, intake, idempotency_of(intake)),
        send(restarted, intake, idempotency_of(intake)),
    ):
        assert outcome.replayed
        assert outcome.events == ()
        assert outcome.item is not None
        assert first.item is not None
        assert (outcome.item.item_id, outcome.item.status) == (first.item.item_id, Status.CREATED)
        assert outcome.position == first.position == 1
    assert assert_consistent(store).version == 3


def test_the_same_key_with_another_payload_is_refused_and_changes_nothing(store: Store) -> None:
    writer = build_writer(store)
    intake, other = intake_of(1), intake_of(2, idempotency_key="key-1")
    results = writer.process([job_of(intake, idempotency_of(intake)), job_of(other, idempotency_of(other, "another"))])
    assert isinstance(results[1], DuplicateIdempotencyKey)
    with pytest.raises(DuplicateIdempotencyKey):
        send(build_writer(store), other, idempotency_of(other, "another"))
    assert assert_consistent(store).version == 1


def test_a_repeated_request_is_answered_though_the_room_is_full_by_now(database: Database) -> None:
    store = database.open(Policy(max_depth=1))
    writer = build_writer(store)
    intake = intake_of(1)
    send(writer, intake, idempotency_of(intake))
    with pytest.raises(QueueFull):
        send(writer, intake_of(2))
    assert send(writer, intake, idempotency_of(intake)).replayed


def test_a_refusal_is_not_remembered_under_its_key(database: Database) -> None:
    writer = build_writer(database.open(Policy(max_depth=1)))
    one, two = intake_of(1), intake_of(2)
    results = writer.process([job_of(one), job_of(two, idempotency_of(two))])
    assert isinstance(results[1], QueueFull)
    send(writer, do.Abandon(actor=PERFORMER, item_id=one.item.item_id))
    assert not send(writer, two, idempotency_of(two)).replayed


def test_an_escrow_is_queued_once_whoever_asks_and_whenever(database: Database) -> None:
    ours, theirs = build_writer(database.open()), build_writer(database.open())
    first = queue_item(ours, 1, escrow_transaction_id="escrow")
    same = [intake_of(escrow_transaction_id="escrow", performer_id=name) for name in ("star", "moon")]
    for writer in (ours, theirs):
        for result in writer.process([job_of(intake) for intake in same]):
            assert isinstance(result, EscrowAlreadyQueued)
            assert result.item_id == first.item_id
    commits = count_commits(ours.store)
    twice = ours.process([job_of(intake_of(number, escrow_transaction_id="other")) for number in (5, 6)])
    assert codes(twice) == ["ok", "ESCROW_ALREADY_QUEUED"]
    assert len(commits) == 1


# Database tasks


def test_database_tasks_and_commands_are_executed_in_the_order_of_the_mailbox(store: Store) -> None:
    writer = build_writer(store)
    seen: list[int] = []

    def look(connection: Any) -> int:
        seen.append(len(event_log.room_events(connection, PERFORMER.id, 0, 100)))
        return seen[-1]

    jobs: list[Job] = [
        DatabaseTask(run=look),
        job_of(intake_of(1)),
        DatabaseTask(run=look),
        job_of(intake_of(2)),
        DatabaseTask(run=look),
    ]
    results = writer.process(jobs)
    assert [result for result in results if isinstance(result, int)] == seen == [0, 1, 2]


def test_a_database_task_that_fails_costs_only_itself(store: Store) -> None:
    writer = build_writer(store)

    def fail(connection: Any) -> None:
        connection.execute(text("DELETE FROM meta"))
        raise RuntimeError("on second thoughts")

    results = writer.process([job_of(intake_of(1)), DatabaseTask(run=fail), job_of(intake_of(2))])
    assert [type(result) for result in results] == [Outcome, Internal, Outcome]
    with store.reading() as connection:
        assert reading.epoch(connection) == store.epoch
    assert assert_consistent(store).version == 2


# Money


def claim(connection: Any) -> list[str]:
    claimed = writing.claim_operations(connection, now=moment(), lease_until=moment(30), limit=10)
    return [operation.kind for operation in claimed]


def test_a_settlement_is_sent_or_refunded_whichever_comes_first_and_never_both(store: Store) -> None:
    writer = build_writer(store)
    for number, claimed_first in enumerate([True, False], start=1):
        item = queue_item(writer, number)
        send(writer, start_of(item))
        refund = job_of(do.Refund(actor=ADMIN, item_id=item.item_id, reason=Reason.ADMIN_REFUND))
        finish, take = job_of(complete_of(item)), DatabaseTask(run=claim)
        results = writer.process([finish, take, refund] if claimed_first else [finish, refund, take])
        if claimed_first:
            assert results[1] == [OperationKind.SETTLE]
            assert isinstance(results[2], InvalidTransition)
        else:
            assert outcome_of(results[1]).item is not None
            assert results[2] == [OperationKind.REFUND]
    assert_consistent(store)


# Deadlines


def test_an_item_looked_at_too_early_is_not_due_until_its_room_says_so(database: Database) -> None:
    """Its row was written with a shorter limit than the one after the restart."""
    clock = HandClock()
    short = build_writer(database.open(Policy(rope_drop_seconds=10)), clock)
    item = queue_item(short)
    clock.wait(60)
    patient = build_writer(database.open(Policy(rope_drop_seconds=600)), clock)
    outcome = send(patient, do.Expire(item_id=item.item_id, at=clock()))
    assert outcome.events == ()
    with patient.store.reading() as connection:
        assert reading.overdue_items(connection, moment(600) - timedelta(milliseconds=1), 10) == []
        assert reading.overdue_items(connection, moment(600), 10) == [(PERFORMER.id, item.item_id)]
    endless = build_writer(database.open(Policy(rope_drop_seconds=0)), clock)
    send(endless, do.Expire(item_id=item.item_id, at=clock()))
    with patient.store.reading() as connection:
        assert reading.overdue_items(connection, moment(10**9), 10) == []
    assert assert_consistent(patient.store).version == 1


def test_a_deadline_that_changes_later_in_the_batch_is_the_one_that_is_kept(store: Store) -> None:
    writer = build_writer(store)
    item = queue_item(writer)
    pause = do.ChangeSettings(actor=PERFORMER, paused=True)
    expire = do.Expire(item_id=item.item_id, at=moment())
    writer.process([job_of(expire), job_of(pause), job_of(expire)])
    with store.reading() as connection:
        assert reading.overdue_items(connection, moment(10**9), 10) == []
    resume = do.ChangeSettings(actor=PERFORMER, paused=False)
    writer.process([job_of(resume), job_of(expire)])
    with store.reading() as connection:
        assert len(reading.overdue_items(connection, moment(600), 10)) == 1


def test_a_setting_sent_again_with_its_key_is_answered_by_the_room_as_it_is_now(store: Store) -> None:
    writer = build_writer(store)
    change = do.ChangeSettings(actor=PERFORMER, accepting=False)
    key = Idempotency(scope="settings:star", key="key-1", fingerprint="first")
    first = outcome_of(writer.process([job_of(change, key)])[0])
    assert (first.item, first.position) == (None, 0)
    outcome_of(writer.process([job_of(do.ChangeSettings(actor=PERFORMER, accepting=True))])[0])
    for asked in (writer, build_writer(store)):
        again = outcome_of(asked.process([job_of(change, key)])[0])
        assert (first.replayed, again.replayed, again.item) == (False, True, None)
        assert (again.room.version, again.room.settings.accepting) == (2, True)


# The cache


def test_the_cache_forgets_the_rooms_that_were_used_longest_ago(store: Store) -> None:
    writer = Writer(store, HandClock(), new_id, cached_rooms=3)
    for name in ("a", "b", "c", "a", "d"):
        queue_item(writer, performer_id=name)
    assert [name for name in "abcd" if writer.peek(name)] == ["a", "c", "d"]
    assert send(writer, intake_of(performer_id="b")).position == 2
    assert [event.version for event in stored_events(store, "b")] == [1, 2]
