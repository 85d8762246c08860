"""The writers of two processes on one PostgreSQL: of two racing commands one wins, and failures leave no half."""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.domain import command as do
from app.domain.command import Mode
from app.domain.errors import QueueError
from app.domain.item import Reason
from app.domain.operation import Operation, OperationKind
from app.domain.room import Policy
from app.engine.jobs import DatabaseTask, Envelope, Outcome
from app.engine.writer import Writer
from app.store import Store, reading, records, writing
from app.store.event_log import EVENT_ROWS
from app.store.tables import EVENTS, ITEMS, OPERATIONS, ROOMS
from tests.support.builders import ADMIN, PERFORMER, moment
from tests.support.stores import (
    Database,
    assert_consistent,
    before_each_statement,
    build_writer,
    complete_of,
    fold,
    idempotency_of,
    in_parallel,
    intake_of,
    job_of,
    outcome_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import postgres_database_fixture as postgres_database_fixture

ROUNDS = int(os.environ.get("RACE_ROUNDS", "30"))
"""Rooms raced over one command at a time, and ten times as many over in batches, in each kind of race."""
BATCH = 50

POLICY = Policy(max_depth=3)
Answer = tuple[str, str]
"""A racer's result, and the id of its item."""


@dataclass(frozen=True)
class Race:
    """The commands that prepare a room, and the two that race for it."""

    before: Sequence[Envelope]
    one: Envelope
    two: Envelope


def answer(result: Any) -> Answer:
    if isinstance(result, QueueError):
        return result.code, result.item_id or ""
    outcome = outcome_of(result)
    return "replayed" if outcome.replayed else "ok", outcome.item.item_id if outcome.item else ""


def last_place(name: str) -> Race:
    """The room has one place left."""
    queued = [job_of(intake_of(performer_id=name)) for _ in range(2)]
    return Race(queued, job_of(intake_of(performer_id=name)), job_of(intake_of(performer_id=name)))


def the_stage(name: str) -> Race:
    """Both start another item."""
    items = [intake_of(performer_id=name) for _ in range(2)]
    one, two = (job_of(start_of(intake.item), performer_id=name) for intake in items)
    return Race([job_of(intake) for intake in items], one, two)


def one_key(name: str) -> Race:
    """The same request twice, as from a feature that repeats it."""
    one, two = (intake_of(performer_id=name, idempotency_key=f"key of {name}") for _ in range(2))
    return Race([], job_of(one, idempotency_of(one)), job_of(two, idempotency_of(two)))


def one_escrow(name: str) -> Race:
    one, two = (intake_of(performer_id=name, escrow_transaction_id=f"escrow of {name}") for _ in range(2))
    return Race([], job_of(one), job_of(two))


def one_escrow_in_two_rooms(name: str) -> Race:
    rooms = (name, f"{name} too")
    one, two = (intake_of(performer_id=room, escrow_transaction_id=f"escrow of {name}") for room in rooms)
    return Race([], job_of(one), job_of(two))


def the_end(name: str) -> Race:
    """One completes, the other refunds."""
    intake = intake_of(performer_id=name)
    abandon = do.Abandon(actor=PERFORMER, item_id=intake.item.item_id)
    return Race(
        [job_of(intake), job_of(start_of(intake.item), performer_id=name)],
        job_of(complete_of(intake.item), performer_id=name),
        job_of(abandon, performer_id=name),
    )


def the_first_item(name: str) -> Race:
    """The room does not exist yet, so that there is nothing to lock."""
    return Race([], job_of(intake_of(performer_id=name)), job_of(intake_of(performer_id=name)))


@pytest.mark.parametrize(
    ("scene", "loser"),
    [
        (last_place, "QUEUE_FULL"),
        (the_stage, "ALREADY_PROCESSING"),
        (one_key, "replayed"),
        (one_escrow, "ESCROW_ALREADY_QUEUED"),
        (one_escrow_in_two_rooms, "ESCROW_ALREADY_QUEUED"),
        (the_end, "INVALID_STATE_TRANSITION"),
        (the_first_item, "ok"),
    ],
)
def test_of_two_that_race_exactly_one_wins(
    postgres_database: Database, scene: Callable[[str], Race], loser: str
) -> None:
    writers = [build_writer(postgres_database.open(POLICY)) for _ in range(2)]
    races = [scene(f"star-{number}") for number in range(ROUNDS * 11)]
    one_by_one = [[race] for race in races[:ROUNDS]]
    together = [races[start : start + BATCH] for start in range(ROUNDS, len(races), BATCH)]
    for number, some in enumerate([*together, races[:ROUNDS]]):
        # Each writer knows only half of the rooms as they are now.
        writers[number % 2].process([job for race in some for job in race.before])
    answers: list[list[Answer]] = [[], []]
    start = threading.Barrier(2)

    def run(side: int) -> None:
        for some in one_by_one + together:
            batch = [(race.one, race.two)[side] for race in some]
            shuffled = random.Random(side).sample(batch, len(batch))
            start.wait(60)
            results = dict(zip(map(id, shuffled), writers[side].process(shuffled), strict=True))
            answers[side] += [answer(results[id(job)]) for job in batch]

    in_parallel([lambda: run(0), lambda: run(1)])
    for (one, about_one), (two, about_two) in zip(*answers, strict=True):
        assert sorted([one, two]) == sorted(["ok", loser])
        if loser in ("replayed", "ESCROW_ALREADY_QUEUED", "ALREADY_PROCESSING"):
            assert about_one == about_two
    assert_all_consistent(writers[0].store)


def test_a_settlement_that_is_claimed_while_it_is_refunded_is_either_sent_or_refunded(
    postgres_database: Database,
) -> None:
    ours, theirs = (build_writer(postgres_database.open(POLICY)) for _ in range(2))
    passing = [intake_of(performer_id=f"star-{number % 9}", queue_mode=Mode.OFF) for number in range(ROUNDS * 5)]
    ours.process([job_of(intake) for intake in passing])
    refunds = [
        job_of(
            do.Refund(actor=ADMIN, item_id=intake.item.item_id, reason=Reason.ADMIN_REFUND),
            performer_id=intake.item.performer_id,
        )
        for intake in passing
    ]
    start = threading.Barrier(2)
    taken: list[Operation] = []
    answers: dict[str, str] = {}

    def claim(connection: Connection) -> list[Operation]:
        return writing.claim_operations(connection, now=moment(), lease_until=moment(30), limit=3)

    def send_to_the_wallet() -> None:
        start.wait(60)
        while claimed := theirs.process([DatabaseTask(run=claim)])[0]:
            taken.extend(claimed)

    def refund() -> None:
        start.wait(60)
        for at in range(0, len(refunds), 3):
            batch = refunds[at : at + 3]
            for intake, result in zip(passing[at : at + 3], ours.process(batch), strict=True):
                answers[intake.item.item_id] = answer(result)[0]

    in_parallel([send_to_the_wallet, refund])
    sent = {operation.item_id: operation.kind for operation in taken}
    assert len(sent) == len(taken) <= len(passing)
    assert set(answers.values()) <= {"ok", "INVALID_STATE_TRANSITION"}
    for item_id, what in answers.items():
        refunded = what == "ok"
        assert sent.get(item_id) in ((OperationKind.REFUND, None) if refunded else (OperationKind.SETTLE,))
    assert_all_consistent(ours.store)


def assert_all_consistent(store: Store) -> None:
    """Check every room: its versions have no gap, and its tables agree with its log."""
    with store.reading() as connection:
        names = list(connection.execute(select(ROOMS.c.performer_id)).scalars())
        rooms = reading.load_rooms(connection, store.policy, names)
        statement = EVENT_ROWS.order_by(EVENTS.c.performer_id, EVENTS.c.version)
        events = [records.event_from(row) for row in connection.execute(statement).mappings()]
        operations = connection.execute(select(OPERATIONS.c.item_id)).scalars().all()
        ended = connection.execute(select(ITEMS.c.item_id).where(ITEMS.c.ended_at.is_not(None))).scalars().all()
    seen = set()
    for name, of_room in groupby(events, key=lambda event: event.performer_id):
        story = list(of_room)
        assert [event.version for event in story] == list(range(1, len(story) + 1))
        assert fold(story, store.policy, name) == rooms[name]
        seen.add(name)
    assert seen == set(names)
    assert sorted(operations) == sorted(ended)


# Failures in between


def terminate(url: str) -> int:
    """End all other connections to this database; returns their number."""
    with psycopg.connect(url, autocommit=True) as administrator:
        ended = administrator.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone()
    assert ended is not None
    return int(ended[0])


@pytest.mark.parametrize("statement_number", range(1, 8))
def test_a_connection_lost_at_any_statement_is_not_noticed_by_the_caller(
    postgres_database: Database, statement_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = postgres_database.open()
    writer = build_writer(store)
    queue_item(writer, 1)
    reached = 0

    def cut(*_: Any) -> None:
        nonlocal reached
        reached += 1
        if reached == statement_number:
            assert terminate(postgres_database.url) >= 1

    before_each_statement(monkeypatch, store.engines.writer, cut)
    event.listen(store.engines.writer, "commit", cut)
    intake = intake_of(2)
    outcome = send(writer, intake, idempotency_of(intake))
    assert reached > statement_number, "the transaction has fewer statements than this test knows of"
    assert (outcome.replayed, outcome.position) == (False, 2)
    assert assert_consistent(store).version == 2


def test_a_commit_whose_answer_is_lost_is_found_again_by_its_key(postgres_database: Database) -> None:
    store = postgres_database.open()
    writer = build_writer(store)
    queue_item(writer)
    lost = iter([True])

    @event.listens_for(store.engines.writer, "commit")
    def commit_and_lose_the_answer(connection: Any) -> None:
        if next(lost, False):
            connection.connection.dbapi_connection.commit()
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    intake = intake_of(7)
    outcome = send(writer, intake, idempotency_of(intake))
    assert outcome.item is not None
    assert (outcome.item.item_id, outcome.position) == (intake.item.item_id, 2)
    assert assert_consistent(store).version == 2
    queue_item(writer)
    assert assert_consistent(store).version == 3


def test_while_the_database_is_away_commands_are_unavailable_and_then_it_is_as_before(
    postgres_database: Database, postgres_server: str
) -> None:
    store = postgres_database.open()
    writer = build_writer(store)
    queue_item(writer)

    def allow(connections: bool) -> None:
        name = postgres_database.url.rpartition("/")[2]
        with psycopg.connect(postgres_server, autocommit=True) as administrator:
            administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {connections}".encode())

    allow(False)
    try:
        with pytest.raises(psycopg.OperationalError):
            terminate(postgres_database.url)
        with psycopg.connect(postgres_server, autocommit=True) as administrator:
            administrator.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [postgres_database.url.rpartition("/")[2]],
            )
        intakes = [intake_of() for _ in range(3)]
        results = writer.process([job_of(intake, idempotency_of(intake)) for intake in intakes])
        assert [answer(result)[0] for result in results] == ["UNAVAILABLE"] * 3
        assert [result.retry_after_seconds for result in results] == [1, 1, 1]
    finally:
        allow(True)
    results = writer.process([job_of(intake, idempotency_of(intake)) for intake in intakes])
    assert [answer(result)[0] for result in results] == ["ok"] * 3
    assert assert_consistent(store).version == 4


def test_connections_cut_at_random_lose_nothing_that_was_acknowledged(postgres_database: Database) -> None:
    writers = [build_writer(postgres_database.open()) for _ in range(2)]
    chance = random.Random(42)
    done = threading.Event()
    sent: list[do.Intake] = []
    answered: Counter[str] = Counter()
    acknowledged: set[str] = set()

    def work(writer: Writer, seed: int) -> None:
        own_chance = random.Random(seed)
        for _ in range(60):
            batch = [
                intake_of(performer_id=f"star-{own_chance.randrange(40)}") for _ in range(own_chance.randrange(1, 9))
            ]
            sent.extend(batch)
            for intake, result in zip(
                batch, writer.process([job_of(intake, idempotency_of(intake)) for intake in batch]), strict=True
            ):
                answered[answer(result)[0]] += 1
                if isinstance(result, Outcome):
                    acknowledged.add(intake.item.item_id)

    def cut() -> None:
        while not done.wait(chance.uniform(0, 0.05)):
            terminate(postgres_database.url)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        in_parallel([lambda: work(writers[0], 1), lambda: work(writers[1], 2)])
    finally:
        done.set()
        cutter.join()
    assert set(answered) <= {"ok", "replayed", "UNAVAILABLE"}
    assert answered["ok"] > 50
    assert acknowledged <= items_of(writers[0].store)
    # Callers that were refused for a time repeat their requests, and get the first result.
    writer = build_writer(writers[0].store)
    for result in writer.process([job_of(intake, idempotency_of(intake)) for intake in sent]):
        outcome_of(result)
    assert items_of(writer.store) == {intake.item.item_id for intake in sent}
    assert_all_consistent(writer.store)


def items_of(store: Store) -> set[str]:
    with store.reading() as connection:
        return set(connection.execute(select(ITEMS.c.item_id)).scalars())


def test_two_batches_that_deadlock_are_both_done(postgres_database: Database) -> None:
    """Rooms are locked in one order, but rooms that do not exist yet cannot be locked."""
    writers = [build_writer(postgres_database.open()) for _ in range(2)]
    both_hold_one = threading.Barrier(2)

    def run(writer: Writer, *names: str) -> None:
        pause = iter([lambda: both_hold_one.wait(20)])
        meet = DatabaseTask(run=lambda connection: next(pause, lambda: 0)())
        first, second = (job_of(intake_of(performer_id=name)) for name in names)
        results = writer.process([first, meet, second, DatabaseTask(run=reading.epoch)])
        assert [answer(result)[0] for result in (results[0], results[2])] == ["ok", "ok"]

    in_parallel([lambda: run(writers[0], "a", "b"), lambda: run(writers[1], "b", "a")])
    assert [assert_consistent(writers[0].store, name).version for name in ("a", "b")] == [2, 2]


def test_a_vanished_process_holds_a_room_up_for_a_bounded_time(postgres_database: Database) -> None:
    ours = build_writer(postgres_database.open(lock_timeout_ms=200))
    theirs = postgres_database.open(silence_ms=1000)
    queue_item(ours)
    vanished = theirs.engines.writer.connect()
    vanished.begin()
    reading.locked_versions(vanished, [PERFORMER.id])
    assert send(ours, intake_of()).position == 2
    with pytest.raises(DBAPIError, match="idle-in-transaction"):
        vanished.execute(text("SELECT 1"))
    vanished.close()
