"""The store's constraints, claims, leases and deadlines, on both databases; and its indexes."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from app.domain import command as do
from app.domain.event import EventName
from app.domain.item import Status
from app.domain.operation import OperationStatus
from app.domain.room import Policy
from app.store import (
    Store,
    compaction,
    event_log,
    forgetting,
    leases,
    pruning,
    reading,
    wallet_operations,
    writing,
)
from app.store.engines import driver_rows
from app.store.estimates import estimate_errors
from app.store.searching import search_items
from app.store.writing import Changes, save
from tests.support.builders import PERFORMER, build_item, item_id_of, moment
from tests.support.stores import (
    Database,
    HandClock,
    before_each_statement,
    build_answer,
    build_operation,
    build_writer,
    complete_of,
    first_event,
    in_parallel,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture
from tests.support.stores import store_fixture as store_fixture

# Constraints: what the database itself refuses, whatever the code above it thinks


def item_changes(number: int, **fields: Any) -> Changes:
    item = build_item(number, **fields)
    return Changes(new_items={item.item_id: item})


def operation_changes(number: int, **fields: Any) -> Changes:
    operation = build_operation(number, **fields)
    return Changes(operations={operation.item_id: operation})


STARTED = Status.STARTED
FIRST, SECOND = first_event("star"), replace(first_event("star"), name=EventName.ITEM_STARTED)


def test_the_log_keeps_the_order_in_which_a_batch_was_decided(store: Store) -> None:
    names = [EventName.ITEM_CREATED, EventName.ITEM_STARTED, EventName.ITEM_CREATED, EventName.ITEM_FINISHED]
    decided = [
        replace(first_event("star"), version=version, name=name, item=build_item(version))
        for version, name in enumerate(names, 1)
    ]
    with store.writing() as connection:
        save(
            connection,
            Changes(events=decided, new_items={event.item.item_id: event.item for event in decided if event.item}),
        )
    with store.reading() as connection:
        assert [logged.event for logged in event_log.log_events(connection, after=None, limit=10)] == decided


@pytest.mark.parametrize(
    ("held", "refused", "constraint", "columns"),
    [
        pytest.param(
            item_changes(1, status=STARTED),
            item_changes(2, status=STARTED),
            "uq_item_one_started",
            "items.performer_id",
            id="a second started item of a performer",
        ),
        pytest.param(
            item_changes(1, escrow_transaction_id="escrow", performer_id="another"),
            item_changes(2, escrow_transaction_id="escrow"),
            "uq_item_escrow",
            "items.escrow_transaction_id",
            id="a second item with an escrow",
        ),
        pytest.param(
            item_changes(1, idempotency_key="key", performer_id="another"),
            item_changes(2, idempotency_key="key"),
            "uq_item_idempotency_key",
            "items.source_feature, items.idempotency_key",
            id="a second item of a feature with an idempotency key",
        ),
        pytest.param(
            operation_changes(1, escrow_transaction_id="escrow"),
            operation_changes(2, escrow_transaction_id="escrow"),
            "uq_operation_escrow",
            "wallet_operations.escrow_transaction_id",
            id="a second operation for an escrow",
        ),
        pytest.param(
            operation_changes(1, item_id="item"),
            operation_changes(2, item_id="item"),
            "uq_operation_item",
            "wallet_operations.item_id",
            id="a second operation for an item",
        ),
        pytest.param(
            Changes(events=[FIRST]),
            Changes(events=[SECOND]),
            "uq_event_version",
            "events.performer_id, events.version",
            id="a second event with a room's version",
        ),
        pytest.param(
            Changes(answers=[build_answer()]),
            Changes(answers=[build_answer(fingerprint="another")]),
            "answers_pkey",
            "answers.scope, answers.key",
            id="a second answer under a key",
        ),
    ],
)
def test_the_database_itself_refuses(
    store: Store, held: Changes, refused: Changes, constraint: str, columns: str
) -> None:
    with store.writing() as connection:
        save(connection, held)
    broken = f'{constraint}"|UNIQUE constraint failed: {columns}\n'
    with pytest.raises(IntegrityError, match=broken), store.writing() as connection:
        save(connection, refused)


def test_an_item_may_start_in_the_transaction_in_which_the_one_before_it_ends(store: Store) -> None:
    one, two = (build_item(number) for number in (1, 2))
    started = replace(two, status=STARTED)
    with store.writing() as connection:
        save(connection, Changes(new_items={one.item_id: replace(one, status=STARTED), two.item_id: two}))
        # In the order in which the constraint would break, row by row.
        ended = replace(one, status=Status.FINISHED)
        save(connection, Changes(items={two.item_id: started, one.item_id: ended}))
        assert reading.find_item(connection, two.item_id) == started


# Claims and leases

LEASE = timedelta(seconds=30)


def claim(store: Store, now: datetime, limit: int = 10) -> list[str]:
    with store.writing() as connection:
        operations = writing.claim_operations(connection, now=now, lease_until=now + LEASE, limit=limit)
    return [operation.operation_id for operation in operations]


def test_due_operations_are_claimed_longest_due_first_and_each_once(store: Store) -> None:
    with store.writing() as connection:
        for number, (status, due) in enumerate(
            [("pending", 3), ("retrying", 1), ("pending", 11), ("done", 1), ("dead", 1), ("pending", 2)]
        ):
            operation = build_operation(number, status=OperationStatus(status), next_attempt_at=moment(due))
            save(connection, Changes(operations={operation.item_id: operation}))
    assert claim(store, moment(10), limit=2) == ["operation-1", "operation-5"]
    assert claim(store, moment(10), limit=2) == ["operation-0"]
    assert claim(store, moment(10)) == []
    with store.reading() as connection:
        claimed = {number: wallet_operations.operation_of(connection, f"item-{number}") for number in range(6)}
        assert [number for number, found in claimed.items() if found and found[1]] == [0, 1, 5]


def test_an_operation_is_due_until_somebody_holds_it(store: Store) -> None:
    def due(seconds: float) -> bool:
        with store.reading() as connection:
            return wallet_operations.is_operation_due(connection, moment(seconds))

    with store.writing() as connection:
        save(connection, operation_changes(1, next_attempt_at=moment(5)))
        save(connection, operation_changes(2, status=OperationStatus.DEAD))
    assert not due(4.999)
    assert due(5)
    claim(store, moment(5))
    assert not due(5)
    assert due(35)
    claim(store, moment(35))
    with store.writing() as connection:
        writing.release_claims(connection)
    assert due(35)


def test_a_claim_is_a_lease_that_runs_out_or_ends_with_the_report(store: Store) -> None:
    operation = build_operation(1)
    with store.writing() as connection:
        save(connection, operation_changes(1))
    assert claim(store, moment()) == ["operation-1"]
    assert claim(store, moment() + LEASE - timedelta(milliseconds=1)) == []
    assert claim(store, moment() + LEASE) == ["operation-1"]
    retried = replace(operation, status=OperationStatus.RETRYING, attempts=1, next_attempt_at=moment(40))
    with store.writing() as connection:
        save(connection, Changes(operations={retried.item_id: retried}))
        # It has been sent once, and nothing that is written later may forget that.
        assert wallet_operations.operation_of(connection, retried.item_id) == (retried, True)
    assert claim(store, moment(39)) == []
    assert claim(store, moment(40)) == ["operation-1"]


def test_two_claimers_never_get_the_same_operation(database: Database) -> None:
    store = database.open(lanes=4)
    with store.writing() as connection:
        operations = [build_operation(number) for number in range(200)]
        save(connection, Changes(operations={operation.item_id: operation for operation in operations}))
    together = threading.Barrier(4)
    taken: list[str] = []

    def take() -> None:
        own = database.open()
        together.wait()
        while claimed := claim(own, moment(), limit=7):
            taken.extend(claimed)

    in_parallel([take] * 4)
    assert sorted(taken) == sorted(operation.operation_id for operation in operations)


def test_a_claim_passes_over_what_another_holds_instead_of_waiting(postgres_database: Database) -> None:
    store = postgres_database.open(lanes=3)
    with store.writing() as connection:
        for number in range(4):
            save(connection, operation_changes(number))
    with store.writing() as connection:
        held = writing.claim_operations(connection, now=moment(), lease_until=moment() + LEASE, limit=2)
        others = claim(store, moment())
    assert sorted([operation.operation_id for operation in held] + others) == [f"operation-{at}" for at in range(4)]
    assert len(others) == 2


# Presence leases


def test_presence_is_a_lease_of_each_process(store: Store) -> None:
    with store.writing() as connection:
        writing.renew_presence(connection, "one", ["star", "moon"], expires_at=moment(15))
        writing.renew_presence(connection, "two", ["star"], expires_at=moment(20))
    with store.writing() as connection:
        writing.renew_presence(connection, "one", ["star"], expires_at=moment(25))
        writing.renew_presence(connection, "one", [], expires_at=moment(99))

        def present(performer_id: str, process_id: str, seconds: float) -> bool:
            return leases.present_elsewhere(connection, performer_id, process_id, moment(seconds))

        assert present("star", "one", 19.999)
        assert not present("star", "one", 20)
        assert present("star", "two", 20)
        assert not present("moon", "one", 0)
        assert leases.lapsed_presence(connection, moment(14.999), 10) == []
        assert leases.lapsed_presence(connection, moment(15), 10) == [("one", "moon")]
        assert len(leases.lapsed_presence(connection, moment(99), 2)) == 2
        writing.end_presence(connection, "one", "star")
        assert not present("star", "two", 0)
        assert present("star", "one", 0)


def test_rooms_that_differ_from_the_leases_are_found(store: Store) -> None:
    writer = build_writer(store)
    for name in ("kept", "lapsed", "left", "offline"):
        queue_item(writer, performer_id=name)
        send(writer, do.SetPresence(online=name != "offline"), performer_id=name)
    with store.writing() as connection:
        writing.renew_presence(connection, "one", ["kept", "offline"], expires_at=moment(15))
        writing.renew_presence(connection, "one", ["lapsed"], expires_at=moment(5))
    with store.reading() as connection:
        assert leases.wrongly_online_rooms(connection, moment(5), 10) == ["lapsed", "left"]
        assert leases.wrongly_online_rooms(connection, moment(5), 1) == ["lapsed"]
        assert leases.wrongly_online_rooms(connection, moment(15), 10) == ["kept", "lapsed", "left"]
        assert leases.wrongly_offline_rooms(connection, ["kept", "offline", "nobody"]) == ["offline"]
        assert leases.wrongly_offline_rooms(connection, []) == []


# Deadlines


def test_overdue_items_come_longest_overdue_first(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    due = {}
    for name in ("c", "a", "b"):
        due[name] = queue_item(writer, performer_id=name).item_id
        queue_item(writer, performer_id=name)
        clock.wait(1)
    limit = store.policy.rope_drop_seconds
    with store.reading() as connection:
        assert reading.overdue_items(connection, moment(limit) - timedelta(milliseconds=1), 10) == []
        assert reading.overdue_items(connection, moment(limit + 1), 10) == [("c", due["c"]), ("a", due["a"])]
        assert reading.overdue_items(connection, moment(limit + 5), 2) == [("c", due["c"]), ("a", due["a"])]


def test_another_policy_makes_every_active_item_due_once(database: Database) -> None:
    store = database.open(Policy(rope_drop_seconds=0))
    writer = build_writer(store)
    items = [queue_item(writer).item_id for _ in range(3)]
    send(writer, do.Abandon(actor=PERFORMER, item_id=items[0]))

    def review(policy: Policy) -> tuple[bool, list[str]]:
        with store.writing() as connection:
            other = writing.review_deadlines(connection, policy, moment())
            overdue = reading.overdue_items(connection, moment(), 10)
            connection.execute(text("UPDATE items SET due_at = NULL"))
        return other, [item_id for _, item_id in overdue]

    assert review(store.policy) == (True, items[1:])
    assert review(store.policy) == (False, [])
    assert review(Policy(rope_drop_seconds=600)) == (True, items[1:])
    assert review(Policy(rope_drop_seconds=600)) == (False, [])


# Indexes


@pytest.mark.parametrize(
    ("question", "index"),
    [
        (lambda connection: reading.load_rooms(connection, Policy(), ["star", "moon"]), "ix_item_active"),
        (lambda connection: reading.learn_again(connection, "star", Policy()), "ix_item_by_end"),
        (lambda connection: reading.load_rooms(connection, Policy(), ["star"]), "sqlite_autoindex_histories_1"),
        (lambda connection: reading.ended_items(connection, "star", limit=20, skip=0), "ix_item_by_end"),
        (lambda connection: reading.overdue_items(connection, moment(), 200), "ix_item_due"),
        (
            lambda connection: writing.claim_operations(connection, now=moment(), lease_until=moment(), limit=20),
            "ix_operation_due",
        ),
        (lambda connection: wallet_operations.is_operation_due(connection, moment()), "ix_operation_due"),
        (
            lambda connection: wallet_operations.operations_page(connection, status="dead", limit=20, skip=0),
            "ix_operation_not_done",
        ),
        (
            lambda connection: wallet_operations.operations_page(connection, status="done", limit=20, skip=0),
            "sqlite_autoindex_wallet_operations_1",
        ),
        (
            lambda connection: wallet_operations.dead_operations(connection, after="", at_most=20, rejected_too=True),
            "ix_operation_not_done",
        ),
        (wallet_operations.oldest_open_operation, "ix_operation_not_done"),
        (lambda connection: leases.wrongly_online_rooms(connection, moment(), 20), "ix_room_online"),
        (lambda connection: leases.present_elsewhere(connection, "star", "one", moment()), "ix_presence_performer"),
        (lambda connection: reading.items_of_user(connection, "ada", limit=20, skip=0), "ix_item_by_user"),
        (
            lambda connection: estimate_errors(connection, "star", since=moment(), at_most=100),
            "ix_item_by_end",
        ),
        (lambda connection: event_log.item_events(connection, item_id_of(7)), "sqlite_autoindex_events_1"),
        (lambda connection: reading.held_escrows(connection, ["one", "two"]), "sqlite_autoindex_items_2"),
    ],
)
def test_a_frequent_question_on_sqlite_is_answered_by_its_index_without_a_sort_or_scan(
    sqlite_database: Database,
    question: Callable[[Connection], object],
    index: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = sqlite_database.open()
    writer = build_writer(store)
    item = queue_item(writer, 7)
    send(writer, start_of(item))
    send(writer, complete_of(item))
    plans: list[str] = []

    def explain(connection: Connection, statement: str, parameters: Any) -> None:
        plans.extend(row[3] for row in driver_rows(connection, "EXPLAIN QUERY PLAN " + statement, parameters))

    before_each_statement(monkeypatch, store.engines.reader, explain)
    with store.reading() as connection:
        question(connection)
    assert any(index in step for step in plans), plans
    assert not [step for step in plans if step.startswith("SCAN") and "INDEX" not in step], plans
    assert not [step for step in plans if "TEMP B-TREE" in step and "LAST TERM" not in step], plans


@pytest.mark.parametrize(
    "question",
    [
        lambda connection: reading.ended_items(connection, "star", limit=20, skip=0),
        lambda connection: reading.items_of_user(connection, "ada", limit=20, skip=0),
        lambda connection: reading.overdue_items(connection, moment(), 200),
        lambda connection: wallet_operations.operations_page(connection, status="dead", limit=20, skip=0),
        lambda connection: wallet_operations.operations_page(connection, status="done", limit=20, skip=0),
        lambda connection: wallet_operations.dead_operations(connection, after="", at_most=9, rejected_too=True),
        wallet_operations.oldest_open_operation,
        lambda connection: event_log.log_events(connection, after=None, limit=100),
        lambda connection: event_log.log_events(connection, after="9.9", limit=100, performer_id="star"),
        event_log.log_end,
        lambda connection: event_log.item_events(connection, item_id_of(7)),
        lambda connection: search_items(connection, "reference", limit=20),
        lambda connection: compaction.compact_batch(connection, 7),
        lambda connection: forgetting.forget_some(connection, "ada", "forgotten-1"),
        lambda connection: pruning.prune_items(connection, moment(86_400)),
    ],
)
def test_on_postgresql_no_question_needs_a_whole_table(
    postgres_database: Database, question: Callable[[Connection], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = postgres_database.open()
    writer = build_writer(store)
    store.compact = False
    item = queue_item(writer, 7)
    send(writer, start_of(item))
    send(writer, complete_of(item))
    plans: list[str] = []

    def explain(connection: Connection, statement: str, parameters: Any) -> None:
        values = parameters[0] if isinstance(parameters, list) else parameters
        plans.extend(row[0] for row in driver_rows(connection, "EXPLAIN " + statement, values))

    with store.writing() as connection:
        connection.execute(text("UPDATE wallet_operations SET status = 'done'"))
        connection.execute(text("DELETE FROM meta WHERE name = 'compacted_through'"))
        # Small tables would be read as a whole.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        before_each_statement(monkeypatch, store.engines.writer, explain)
        question(connection)
    assert plans
    for table in ("items", "events", "wallet_operations", "answers"):
        assert not [step for step in plans if f"Seq Scan on {table}" in step], plans
