"""The rows and times that a commit of the writer leaves behind, besides rooms, items and events."""

import dataclasses
from time import time_ns

from msgspec.structs import replace

from app.domain import command as do
from app.domain.operation import Operation, OperationStatus
from app.engine.writer import Writer
from app.store import Store, reading, wallet_operations
from app.store.histories import histories
from tests.support.builders import PERFORMER, moment
from tests.support.stores import (
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


def test_new_settings_change_the_deadlines_of_items_that_wait(store: Store) -> None:
    writer = build_writer(store)
    item = queue_item(writer)

    def overdue() -> list[tuple[str, str]]:
        with store.reading() as connection:
            return list(reading.overdue_items(connection, moment(10**9), 10))

    assert overdue() == [(PERFORMER.id, item.item_id)]
    send(writer, do.ChangeSettings(actor=PERFORMER, paused=True))
    assert overdue() == []
    send(writer, do.ChangeSettings(actor=PERFORMER, paused=False))
    assert overdue() == [(PERFORMER.id, item.item_id)]


def test_an_item_that_the_batch_has_ended_stays_ended(store: Store) -> None:
    writer = build_writer(store)
    intake = intake_of()
    complete = job_of(complete_of(intake.item))
    results = writer.process([job_of(intake), job_of(start_of(intake.item)), complete, complete])
    assert codes(results) == ["ok", "ok", "ok", "INVALID_STATE_TRANSITION"]


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
