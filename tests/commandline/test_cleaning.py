"""`prune` and `forget`: what they remove, what they keep, and that the remaining queue is unchanged."""

import json
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from app.domain import command as do
from app.domain.command import Actor, Role
from app.domain.item import Item, Reason
from app.domain.operation import OperationStatus, Receipt
from app.domain.webhook import ADMINISTRATORS, Endpoint, EndpointStatus
from app.engine import upkeep
from app.engine.jobs import Idempotency
from app.engine.lane import Lanes
from app.engine.writer import Writer
from app.parts import utc_now
from app.store import Store, event_log, reading, webhooks
from app.store.tables import ANSWERS, EVENTS, ITEMS, OPERATIONS
from tests.support.builders import PERFORMER
from tests.support.command_line import run, the_line
from tests.support.killed_server import PERFORMERS, ROOT, Client, Load, server, token
from tests.support.stores import (
    Database,
    HandClock,
    build_writer,
    complete_of,
    idempotency_of,
    intake_of,
    new_id,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture

DAY = 86_400.0


def settle(writer: Writer, clock: HandClock, item: Item, status: OperationStatus = OperationStatus.DONE) -> None:
    """Start and complete the item, and let the wallet confirm it or refuse it for good."""
    send(
        writer,
        start_of(item),
        Idempotency(scope="performer:star", key=f"start-{item.item_id}", fingerprint="first"),
        performer_id=item.performer_id,
    )
    clock.wait(10)
    operation = send(writer, complete_of(item), performer_id=item.performer_id).operation
    assert operation is not None
    clock.wait(1)
    after = replace(operation, status=status, attempts=1, updated_at=clock())
    if status is OperationStatus.DONE:
        receipt = Receipt(transaction_id="t", settled_tokens=operation.settle_tokens, refunded_tokens=0)
        command: do.Command = do.Confirm(item_id=item.item_id, operation=after, receipt=receipt)
    else:
        command = do.Report(item_id=item.item_id, operation=after)
    send(writer, command, performer_id=item.performer_id)


def counts(store: Store) -> dict[str, int]:
    with store.reading() as connection:
        return {
            str(table.name): connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (ITEMS, EVENTS, OPERATIONS, ANSWERS)
        }


def a_month(store: Store, clock: HandClock) -> tuple[list[Item], list[Item]]:
    """Items settled long ago, and items that stay: one with a dead settlement, a recent one, one that waits."""
    writer = build_writer(store, clock)
    send(writer, do.ChangeSettings(actor=PERFORMER, announcement="First"))
    send(writer, do.ChangeSettings(actor=PERFORMER, announcement="Second"))
    old = [queue_item(writer, title=f"Old {number}") for number in range(30)]
    stuck = queue_item(writer, title="Stuck")
    for item in old:
        settle(writer, clock, item)
    settle(writer, clock, stuck, OperationStatus.DEAD)
    waiting = queue_item(writer, title="Waiting")
    clock.wait(20 * DAY)
    kept = intake_of(title="Recent")
    recent = send(writer, kept, idempotency_of(kept)).item
    assert recent is not None
    settle(writer, clock, recent)
    return old, [stuck, waiting, recent]


def days_since(clock: HandClock, days: float) -> int:
    """The value of --older-than for a cutoff this many days before the clock's time."""
    return round((utc_now() - clock()).total_seconds() / DAY + days)


def test_prune_moves_out_items_that_ended_long_ago_and_nothing_else(database: Database, tmp_path: Path) -> None:
    store, clock = database.open(), HandClock()
    old, kept = a_month(store, clock)
    with store.reading() as connection:
        log = event_log.log_events(connection, after=None, limit=1000)
        lives = {item.item_id: event_log.item_events(connection, item.item_id) for item in (*old, *kept)}
    file = tmp_path / "old.jsonl"
    result = run(f"prune --older-than {days_since(clock, 10)} --export {file}", database.url)
    assert (result.exit_code, result.stderr) == (0, "Moved 30 items out\n"), result.output
    with store.reading() as connection:
        assert [item.item_id for item in old if reading.find_item(connection, item.item_id)] == []
        assert {item.item_id: event_log.item_events(connection, item.item_id) for item in kept} == {
            item.item_id: lives[item.item_id] for item in kept
        }
        left = event_log.log_events(connection, after=None, limit=1000)
        assert [entry for entry in log if entry in left] == left
        # A cursor whose event has gone goes on where it was.
        assert (
            event_log.log_events(connection, after=log[40].cursor, limit=1000)
            == left[-len(left) :][sum(log.index(entry) <= 40 for entry in left) :]
        )
    assert counts(store) == {"items": 3, "events": 4 * 2 + 1 + 1, "wallet_operations": 2, "answers": 1}
    check = run("check", database.url)
    assert check.exit_code == 0, check.output
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["item"]["itemId"] for line in exported] == [item.item_id for item in old]
    assert [event["event"] for event in exported[0]["events"]] == [
        "queue.item.created",
        "queue.item.started",
        "queue.item.finished",
        "queue.item.settled",
    ]
    assert exported[0]["operation"]["status"] == "done"
    again = run(f"prune --older-than {days_since(clock, 10)} --export {file}", database.url)
    assert again.stderr == "Moved 0 items out\n"


def test_after_pruning_a_room_goes_on_as_before(database: Database) -> None:
    store, clock = database.open(), HandClock()
    a_month(store, clock)
    with store.reading() as connection:
        newest = event_log.log_events(connection, after=None, limit=1000)[-1]
    # Everything that may go, the newest event of all among it.
    assert run(f"prune --older-than {days_since(clock, 0) - 1}", database.url).exit_code == 0
    writer = build_writer(store, clock)
    keyed = intake_of()
    first = send(writer, keyed, idempotency_of(keyed))
    assert first.room.version == newest.event.version + 1
    assert first.room.settings.announcement == "Second"
    assert [item.title for item in first.room.items] == ["Waiting", keyed.item.title]
    assert send(build_writer(store, clock), keyed, idempotency_of(keyed)).replayed
    with store.reading() as connection:
        later = event_log.log_events(connection, after=newest.cursor, limit=10)
    assert [entry.event.version for entry in later] == [newest.event.version + 1]
    assert run("check", database.url).exit_code == 0


async def test_events_that_a_parked_webhook_endpoint_has_not_got_stay(database: Database) -> None:
    store, clock = database.open(), HandClock()
    a_month(store, clock)
    parked = Endpoint(
        owner=ADMINISTRATORS,
        name="main",
        url="https://site.example",
        events=None,
        secret="whsec",
        status=EndpointStatus.PARKED,
        cursor=None,
        next_attempt_at=clock(),
        created_at=clock(),
        updated_at=clock(),
    )
    with store.writing() as connection:
        webhooks.save_endpoint(connection, parked)
    days = days_since(clock, 10)
    assert run(f"prune --older-than {days}", database.url).stderr == "Moved 0 items out\n"
    async with Lanes(store, utc_now, new_id, lambda outcomes: None) as lanes:
        await upkeep.prune(lanes, utc_now() - timedelta(days=days), pause_seconds=0)
    assert counts(store)["items"] == 33
    with store.writing() as connection:
        webhooks.delete_endpoint(connection, ADMINISTRATORS, "main")
    assert run(f"prune --older-than {days}", database.url).stderr == "Moved 30 items out\n"


def test_an_export_that_cannot_be_written_leaves_everything_where_it_was(database: Database, tmp_path: Path) -> None:
    store, clock = database.open(), HandClock()
    a_month(store, clock)
    before = counts(store)
    assert "cannot be written" in the_line(run(f"prune --older-than 0 --export {tmp_path}", database.url))
    if Path("/dev/full").exists():
        assert "cannot be written" in the_line(run("prune --older-than 0 --export /dev/full", database.url))
    assert counts(store) | {"answers": 0} == before | {"answers": 0}


def test_prune_needs_an_age(sqlite_database: Database) -> None:
    assert "RETENTION_DAYS" in the_line(run("prune", sqlite_database.url))
    assert run("prune", sqlite_database.url, RETENTION_DAYS="30").exit_code == 0


async def test_retention_prunes_beside_commands(database: Database) -> None:
    store, clock = database.open(), HandClock()
    a_month(store, clock)
    async with Lanes(store, clock, new_id, lambda outcomes: None) as lanes:
        await upkeep.prune(lanes, clock(), pause_seconds=0)
        await lanes.send(PERFORMER.id, intake_of())
    # A second process that does the same finds nothing.
    assert counts(store)["items"] == 4
    assert run("check", database.url).exit_code == 0


def test_pruning_a_running_queue_fails_no_command(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with server(path) as (port, _):
        with Load(port, 0) as load:
            for _ in range(4):
                load.wait_for_acknowledgements(60)
                result = run(f"prune --older-than 0 --export {tmp_path / 'out.jsonl'}", f"sqlite:///{path}")
                assert result.exit_code == 0, result.output
        assert load.failed == []
        with closing(Client(port)) as client:
            for performer_id in PERFORMERS:
                client.get(f"/v1/performers/{performer_id}/queue", token(Role.ADMIN, "admin"))
    result = run("check", f"sqlite:///{path}")
    assert result.exit_code == 0, result.output


def test_a_prune_that_is_killed_loses_no_item(sqlite_database: Database, tmp_path: Path) -> None:
    store, clock = sqlite_database.open(), HandClock()
    writer = build_writer(store, clock)
    items = [queue_item(writer) for _ in range(50)] + [queue_item(writer, performer_id="other") for _ in range(50)]
    for item in items:
        settle(writer, clock, item)
    file = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "app", "prune", "--older-than", "0", "--export", str(file)]
    with subprocess.Popen(command, cwd=ROOT, env={"DATABASE_URL": sqlite_database.url}) as process:
        while not file.exists() or not file.stat().st_size:
            assert process.poll() is None or file.stat().st_size
        process.kill()
    with store.reading() as connection:
        left = {item.item_id for item in items if reading.find_item(connection, item.item_id)}
    # A line that was being written has no end. Its item does not count as moved: it has to be in the database.
    moved = exported_ids(file.read_bytes().rpartition(b"\n")[0])
    assert left | moved == {item.item_id for item in items}
    assert run("check", sqlite_database.url).exit_code == 0
    assert run(f"prune --older-than 0 --export {file}", sqlite_database.url).exit_code == 0
    assert counts(store)["items"] == 0
    assert file.read_bytes().endswith(b"\n")
    assert exported_ids(file.read_bytes()) == {item.item_id for item in items}


def exported_ids(lines: bytes) -> set[str]:
    return {json.loads(line)["item"]["itemId"] for line in lines.splitlines()}


@pytest.mark.parametrize("torn", [b"{", b'{"item":{"title":"' + 200_000 * b"x"], ids=["short", "long"])
@pytest.mark.parametrize("before", [b"", b'{"item":{"itemId":"earlier"}}\n'], ids=["alone", "after a whole line"])
def test_a_torn_last_line_of_an_export_is_cut_off(
    sqlite_database: Database, tmp_path: Path, before: bytes, torn: bytes
) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(before + torn)
    assert_appends(sqlite_database, file, before)


def test_a_whole_last_line_of_an_export_that_lacks_its_end_is_kept(sqlite_database: Database, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    file.write_bytes(b'{"item":{"itemId":"earlier"}}')
    assert_appends(sqlite_database, file, b'{"item":{"itemId":"earlier"}}\n')


def assert_appends(database: Database, file: Path, before: bytes) -> None:
    """Check that the next line of an export follows these lines."""
    store, clock = database.open(), HandClock()
    writer = build_writer(store, clock)
    item = queue_item(writer)
    settle(writer, clock, item)
    assert run(f"prune --older-than 0 --export {file}", database.url).exit_code == 0
    assert file.read_bytes().startswith(before)
    assert exported_ids(file.read_bytes().removeprefix(before)) == {item.item_id}


PERSON: dict[str, Any] = {
    "user_id": "marianne-1987",
    "description": "for my sister Isolde",
    "metadata": {"phone": "0170-555"},
}
TRACES = ("marianne-1987", "Isolde", "0170-555")


def a_person(store: Store, clock: HandClock) -> list[Item]:
    """The items of a person and of another user: performed ones, and ones that the user cancelled with a key."""
    writer = build_writer(store, clock)
    mine = [queue_item(writer, **PERSON, title="A song") for _ in range(3)]
    other = queue_item(writer, user_id="viewer-2", description="for nobody")
    settle(writer, clock, mine[0])
    settle(writer, clock, other)
    viewer = Actor(role=Role.VIEWER, id="marianne-1987")
    key = Idempotency(scope="viewer:marianne-1987", key="cancel", fingerprint="first")
    refund = do.Refund(actor=viewer, item_id=mine[1].item_id, reason=Reason.USER_CANCELLED)
    operation = send(writer, refund, key).operation
    assert operation is not None
    done = replace(operation, status=OperationStatus.DONE, last_problem="no funds of marianne-1987")
    receipt = Receipt(transaction_id="t", settled_tokens=0, refunded_tokens=operation.refund_tokens)
    send(writer, do.Confirm(item_id=mine[1].item_id, operation=done, receipt=receipt))
    return mine


def everything(store: Store) -> str:
    """The content of all tables as text."""
    with store.reading() as connection:
        return str([connection.execute(select(table)).all() for table in (ITEMS, EVENTS, OPERATIONS, ANSWERS)])


@pytest.mark.parametrize("compact", [True, False], ids=["compact", "as the previous release"])
def test_forget_leaves_no_trace_and_keeps_the_story(database: Database, compact: bool) -> None:
    store, clock = database.open(), HandClock()
    store.compact = compact
    mine = a_person(store, clock)
    assert "end them first" in the_line(run("forget marianne-1987", database.url))
    assert all(trace in everything(store) for trace in TRACES)
    settle(build_writer(store, clock), clock, mine[2])
    with store.reading() as connection:
        story = [event_log.item_events(connection, item.item_id) for item in mine]
    result = run("forget marianne-1987", database.url)
    assert (result.exit_code, result.stderr) == (0, "Forgot the user in 3 items\n"), result.output
    assert [trace for trace in TRACES if trace in everything(store)] == []
    assert "for nobody" in everything(store)
    with store.reading() as connection:
        items = [reading.find_item(connection, item.item_id) for item in mine]
        kept_events = [event_log.item_events(connection, item.item_id) for item in mine]
    (new_id_,) = {item.user_id for item in items if item is not None}
    assert new_id_.startswith("forgotten-")
    for before, after in zip(chain.from_iterable(story), chain.from_iterable(kept_events), strict=True):
        assert before.item is not None
        assert after.item is not None
        assert after.item == replace(before.item, user_id=new_id_, description="", metadata={})
        assert (after.version, after.name, after.params, after.reason) == (
            before.version,
            before.name,
            before.params,
            before.reason,
        )
    key = Idempotency(scope=f"viewer:{new_id_}", key="cancel", fingerprint="first")
    again = do.Refund(actor=PERFORMER, item_id=mine[1].item_id, reason=Reason.USER_CANCELLED)
    assert send(build_writer(store, clock), again, key).replayed
    assert run("check", database.url).exit_code == 0
    assert run("forget marianne-1987", database.url).stderr == "Forgot the user in 0 items\n"


def test_a_forgotten_user_is_not_in_the_files_either(sqlite_database: Database) -> None:
    store, clock = sqlite_database.open(), HandClock()
    mine = a_person(store, clock)
    settle(build_writer(store, clock), clock, mine[2])
    assert run("forget marianne-1987", sqlite_database.url).exit_code == 0
    path = Path(sqlite_database.url.removeprefix("sqlite:///"))
    for file in path.parent.glob("queue.db*"):
        content = file.read_bytes()
        assert [trace for trace in TRACES if trace.encode() in content] == [], file.name
