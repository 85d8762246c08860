"""`check`: a good database passes; each kind of damage is found and named."""

from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from app.domain import command as do
from app.domain.command import Mode
from app.domain.operation import OperationStatus
from app.engine.jobs import Idempotency
from app.store import activity, writing
from tests.support.builders import NOON, PERFORMER
from tests.support.command_line import run, the_line
from tests.support.stores import (
    Database,
    build_writer,
    complete_of,
    idempotency_of,
    intake_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture


def fill(database: Database) -> None:
    """Items in every status but refunded, in a room and passing through."""
    writer = build_writer(database.open())
    items = [queue_item(writer, number) for number in range(1, 5)]
    for item in items[:2]:
        send(writer, start_of(item))
        send(writer, complete_of(item))
    send(writer, start_of(items[2]), Idempotency(scope="performer:star", key="key", fingerprint="first"))
    intake = intake_of(5, queue_mode=Mode.OFF)
    send(writer, intake, idempotency_of(intake))
    send(writer, do.ChangeSettings(actor=PERFORMER, announcement="Back soon"))
    store = database.open()
    with store.reading() as connection:
        batch = activity.next_batch(connection)
    assert batch is not None
    with store.writing() as connection:
        activity.add(connection, batch)


def test_a_good_database_passes_also_while_it_is_open(database: Database) -> None:
    fill(database)
    result = run("check", database.url)
    assert result.exit_code == 0, result.output
    words = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert words == ["rule", "integrity", "versions", "started", "statuses", "positions", "escrows", "keys", "activity"]


DAMAGE = {
    "DELETE FROM events WHERE version = 3": ["versions"],
    "UPDATE rooms SET version = version + 1": ["versions"],
    "UPDATE items SET status = 'created', finished_at = NULL WHERE item_id = (SELECT min(item_id) FROM items)": [
        "statuses",
        "escrows",
    ],
    "UPDATE items SET started_at = NULL WHERE status = 'started'": ["statuses"],
    "UPDATE events SET position = 7 WHERE version = 2": ["positions"],
    "DELETE FROM items WHERE status = 'created'": ["statuses"],
    "DELETE FROM wallet_operations": ["escrows"],
    "UPDATE wallet_operations SET settle_tokens = 1": ["escrows"],
    "UPDATE answers SET version = 1": ["keys"],
    "UPDATE items SET first_version = first_version + 1": ["keys"],
    "UPDATE activity SET value = value + 1": ["activity"],
}


@pytest.mark.parametrize("statement", DAMAGE)
def test_damage_is_found_and_named(database: Database, statement: str) -> None:
    fill(database)
    with database.open().writing() as connection:
        connection.execute(text(statement))
    result = run("check", database.url)
    assert result.exit_code == 1, result.output
    for rule in DAMAGE[statement]:
        assert any(line.startswith(f"{rule}: ") for line in result.stdout.splitlines()), result.output


def test_a_damaged_file_is_found(sqlite_database: Database) -> None:
    fill(sqlite_database)
    sqlite_database.close()
    path = Path(sqlite_database.url.removeprefix("sqlite:///"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"escrow-1", b"escrow-9"))
    result = run("check", sqlite_database.url)
    assert result.exit_code == 1, result.output


def test_a_schema_of_another_release_is_one_line(sqlite_database: Database) -> None:
    with sqlite_database.open().writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert "older schema" in the_line(run("check", sqlite_database.url))


def test_a_retry_by_hand_that_changes_nothing_leaves_a_good_database(database: Database) -> None:
    """While an attempt is under way a retry has no event; its stored answer refers to no event of another command."""
    store = database.open()
    writer = build_writer(store)
    item = queue_item(writer)
    send(writer, start_of(item))
    send(writer, complete_of(item))
    with store.writing() as connection:
        (operation,) = writing.claim_operations(connection, now=NOON, lease_until=NOON + timedelta(hours=1), limit=1)
    failed = replace(operation, status=OperationStatus.RETRYING, attempts=1)
    send(writer, do.Report(item_id=item.item_id, operation=failed))
    with store.writing() as connection:
        writing.claim_operations(connection, now=NOON, lease_until=NOON + timedelta(hours=1), limit=1)
    queue_item(writer)
    retry = do.RetryOperation(item_id=item.item_id, actor=PERFORMER)
    key = Idempotency(scope="admin:ops", key="key", fingerprint="first")
    assert send(writer, retry, key, performer_id=item.performer_id).events == ()
    assert send(writer, retry, key, performer_id=item.performer_id).replayed
    result = run("check", database.url)
    assert result.exit_code == 0, result.output
