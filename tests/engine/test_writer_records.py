"""The rows and times that a commit of the writer leaves behind, besides rooms, items and events."""

import dataclasses
from time import time_ns

from msgspec.structs import replace

from app.domain import command as do
from app.domain.operation import Operation, OperationStatus
from app.domain.room import Policy
from app.engine.writer import Writer
from app.store import Store, reading, wallet_operations
from app.store.histories import histories
from tests.support.builders import PERFORMER, moment
from tests.support.stores import (
    Database,
    HandClock,
    build_writer,
    codes,
    complete_of,
    intake_of,
    job_of,
    outcome_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import store_fixture as store_fixture


def test_a_writer_knows_when_its_last_commit_began(store: Store) -> None:
    writer = build_writer(store)
    assert writer.commit_began == 0
    began = time_ns()
    queue_item(writer)
    assert began <= writer.commit_began <= time_ns()


def test_a_rooms_history_is_stored_with_the_end_that_it_learns_from(store: Store) -> None:
    clock = HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer)
    before = send(writer, start_of(item)).room.history
    clock.wait(100)
    room = send(writer, complete_of(item)).room
    assert room.history != before
    with store.reading() as connection:
        assert histories(connection, [PERFORMER.id]) == {PERFORMER.id: room.history}


def test_new_settings_change_the_deadlines_of_all_items_of_the_room(database: Database) -> None:
    """Also of those that have not changed themselves: the second one's clock does not run."""
    store = database.open(Policy(disconnect_grace_seconds=60))
    writer = build_writer(store)
    items = [queue_item(writer) for _ in range(2)]
    send(writer, do.SetPresence(online=True))

    def overdue() -> list[str]:
        with store.reading() as connection:
            return [item_id for _, item_id in reading.overdue_items(connection, moment(10**9), 10)]

    assert overdue() == [items[0].item_id]
    send(writer, do.SetPresence(online=False))
    assert sorted(overdue()) == [item.item_id for item in items]


def test_an_item_that_the_batch_has_ended_stays_ended(store: Store) -> None:
    writer = build_writer(store)
    intake = intake_of()
    complete = job_of(complete_of(intake.item))
    results = writer.process([job_of(intake), job_of(start_of(intake.item)), complete, complete])
    assert codes(results) == ["ok", "ok", "ok", "INVALID_STATE_TRANSITION"]


def test_an_operation_that_the_batch_has_changed_is_read_as_it_is_now(store: Store) -> None:
    writer = build_writer(store)
    item = queue_item(writer)
    send(writer, start_of(item))
    ordered = send(writer, complete_of(item)).operation
    assert ordered is not None
    dead = replace(ordered, status=OperationStatus.DEAD)
    send(writer, do.Report(item_id=item.item_id, operation=dead))
    retry = job_of(do.RetryOperation(item_id=item.item_id))
    assert codes(writer.process([retry, retry])) == ["ok", "INVALID_STATE_TRANSITION"]


def test_an_operation_keeps_the_span_of_the_command_that_ordered_it(store: Store) -> None:
    writer = build_writer(store)
    item = queue_item(writer)
    send(writer, start_of(item))
    ordered = traced(writer, complete_of(item), "the-end")
    assert ordered.traceparent == "the-end"
    failed = replace(ordered, status=OperationStatus.RETRYING)
    reported = traced(writer, do.Report(item_id=item.item_id, operation=failed), "the-report")
    assert (reported.status, reported.traceparent) == (OperationStatus.RETRYING, "the-end")
    # Nobody traces this one.
    send(writer, do.RetryOperation(item_id=item.item_id))
    with store.reading() as connection:
        stored = wallet_operations.operation_of(connection, item.item_id)
    assert stored is not None
    assert stored[0].traceparent == "the-end"


def traced(writer: Writer, command: do.Command, traceparent: str) -> Operation:
    """The operation that the outcome of a traced command has."""
    (result,) = writer.process([dataclasses.replace(job_of(command), traceparent=traceparent)])
    operation = outcome_of(result).operation
    assert operation is not None
    return operation
