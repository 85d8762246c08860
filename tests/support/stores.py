"""Databases for the tests, and writers on them. A database is migrated once and then copied for each test.

A test that requests `database` or `store` runs once on SQLite and once on PostgreSQL. A test file imports a fixture by
its function's name (`…_fixture`) and requests it by its short name.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.event import listens_for
from sqlmodel import SQLModel

from app.domain import command as do
from app.domain.command import Actor, Command, Mode
from app.domain.decision import decide
from app.domain.errors import QueueError
from app.domain.event import Event
from app.domain.item import Item
from app.domain.operation import Operation, OperationKind
from app.domain.room import Policy, Room, apply
from app.engine.jobs import Envelope, Idempotency, Outcome
from app.engine.writer import Writer
from app.sandbox.tables import SANDBOX_TABLES
from app.store import Store, engines, event_log, reading, writing
from app.store.engines import driver_many, driver_rows, open_engines
from app.store.migrating import migrate
from app.store.records import Answer
from tests.support import environment
from tests.support.builders import FEATURE, NOON, PERFORMER, build_item

_SQLITE_TEMPLATE = pytest.StashKey[Path]()
_FREE_POSTGRES_DATABASES = pytest.StashKey[list[str]]()
_numbers = count(1_000_000)  # larger than the numbers that tests choose themselves


@dataclass(eq=False, kw_only=True)
class Database:
    """A migrated database and the stores on it; each store stands for one process."""

    url: str
    shared: bool
    stores: list[Store] = field(default_factory=list)

    def open(self, policy: Policy | None = None, *, lanes: int = 2, **options: int) -> Store:
        """`options`: further arguments of `open_engines`."""
        store = Store(open_engines(self.url, lanes=lanes, **options), policy or Policy())
        self.stores.append(store)
        return store

    def close(self) -> None:
        for store in self.stores:
            store.engines.dispose()


@pytest.fixture(name="empty_url", params=["sqlite", "postgresql"])
def empty_url_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without a table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
def database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    yield from _database(request, request.param, tmp_path)


@pytest.fixture(name="sqlite_database")
def sqlite_database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    yield from _database(request, "sqlite", tmp_path)


@pytest.fixture(name="postgres_database")
def postgres_database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    yield from _database(request, "postgresql", tmp_path)


@pytest.fixture(name="store")
def store_fixture(database: Database) -> Store:
    return database.open()


def _database(request: pytest.FixtureRequest, kind: str, folder: Path) -> Iterator[Database]:
    provide = _sqlite_database if kind == "sqlite" else _postgres_database
    with provide(request, folder) as url:
        database = Database(url=url, shared=kind != "sqlite")
        yield database
        database.close()


@contextmanager
def _sqlite_database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    stash = request.session.stash
    if _SQLITE_TEMPLATE not in stash:
        template = request.getfixturevalue("tmp_path_factory").mktemp("template") / "queue.db"
        _migrate(f"sqlite:///{template}")
        stash[_SQLITE_TEMPLATE] = template
    path = folder / "queue.db"
    shutil.copy(stash[_SQLITE_TEMPLATE], path)
    yield f"sqlite:///{path}"


@contextmanager
def _postgres_database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """A database that is emptied and used again, because creating one takes fifty times as long."""
    server_url = request.getfixturevalue("postgres_server")
    free = request.session.stash.setdefault(_FREE_POSTGRES_DATABASES, [])
    if not free:
        made = ExitStack()
        free.append(made.enter_context(environment.database(server_url)))
        request.session.addfinalizer(made.close)
        _migrate(free[0])
    url = free.pop()
    with psycopg.connect(url) as connection:
        meta = connection.execute("SELECT name, value FROM meta").fetchall()
    yield url
    with psycopg.connect(url, options="-c lock_timeout=5s") as connection:
        for table in (*SQLModel.metadata.sorted_tables, *SANDBOX_TABLES):
            connection.execute(f"DELETE FROM {table.name}".encode())
        # The content after the migration: the epoch, and the compact form of events.
        connection.cursor().executemany("INSERT INTO meta (name, value) VALUES (%s, %s)", meta)
    free.append(url)


def _migrate(url: str) -> None:
    engines = open_engines(url)
    migrate(engines.writer)
    engines.dispose()


_SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_a_shell(url: str) -> Iterator[None]:
    """Inside the block another process holds the write lock of a SQLite database."""
    program = [sys.executable, "-c", _SHELL, url.removeprefix("sqlite:///")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"locked\n"
        yield
        shell.stdin.close()


# Writers


@dataclass(eq=False)
class HandClock:
    """A clock that moves only by `wait`."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def new_id() -> str:
    """A unique id; ids sort in the order of the calls."""
    number = next(_numbers)
    return f"{number:08x}-0000-7000-8000-00000000beef"


def build_writer(store: Store, clock: Callable[[], datetime] | None = None) -> Writer:
    return Writer(store, clock or HandClock(), new_id)


def intake_of(
    number: int | None = None, *, performer_id: str = PERFORMER.id, queue_mode: Mode | None = None, **fields: Any
) -> do.Intake:
    """The intake of a unique item; `number` chooses its ids."""
    item = build_item(next(_numbers) if number is None else number, performer_id=performer_id, **fields)
    return do.Intake(actor=FEATURE, item=item, queue_mode=queue_mode)


def idempotency_of(intake: do.Intake, fingerprint: str = "first") -> Idempotency:
    """The idempotency that the HTTP layer gives to this intake."""
    item = intake.item
    return Idempotency(scope=f"intake:{item.source_feature}", key=item.idempotency_key, fingerprint=fingerprint)


def job_of(command: Command, idempotency: Idempotency | None = None, *, performer_id: str = PERFORMER.id) -> Envelope:
    if isinstance(command, do.Intake):
        performer_id = command.item.performer_id
    return Envelope(performer_id=performer_id, command=command, idempotency=idempotency)


def send(
    writer: Writer, command: Command, idempotency: Idempotency | None = None, *, performer_id: str = PERFORMER.id
) -> Outcome:
    """Process a batch of one command; its refusal is raised."""
    (result,) = writer.process([job_of(command, idempotency, performer_id=performer_id)])
    return outcome_of(result)


def outcome_of(result: object) -> Outcome:
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, Outcome)
    return result


def queue_item(writer: Writer, number: int | None = None, **fields: Any) -> Item:
    item = send(writer, intake_of(number, **fields)).item
    assert item is not None
    return item


def start_of(item: Item, actor: Actor = PERFORMER) -> do.Start:
    return do.Start(actor=actor, item_id=item.item_id)


def complete_of(item: Item, actor: Actor = PERFORMER) -> do.Complete:
    return do.Complete(actor=actor, item_id=item.item_id)


def first_event(performer_id: str) -> Event:
    room = Room(performer_id=performer_id, policy=Policy())
    return decide(room, intake_of(performer_id=performer_id), NOON).events[0]


def build_operation(number: int = 1, **fields: Any) -> Operation:
    """A pending settlement; operations with different numbers have different ids."""
    values: dict[str, Any] = {
        "operation_id": f"operation-{number}",
        "item_id": f"item-{number}",
        "performer_id": PERFORMER.id,
        "user_id": "viewer-1",
        "escrow_transaction_id": f"escrow-{number}",
        "kind": OperationKind.SETTLE,
        "settle_tokens": 100,
        "refund_tokens": 0,
        "reason": "performance_completed",
        "next_attempt_at": NOON,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Operation(**{**values, **fields})


def build_answer(**fields: Any) -> Answer:
    values: dict[str, Any] = {
        "scope": "intake:wheel",
        "key": "key-1",
        "fingerprint": "first",
        "performer_id": PERFORMER.id,
        "item_id": "item-1",
        "version": 1,
        "at": NOON,
    }
    return Answer(**{**values, **fields})


def before_each_statement(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, act: Callable[[Connection, str, Any], object]
) -> None:
    """Call `act` with the connection, the statement and its parameters before any connection of this engine executes a
    statement, by SQLAlchemy or directly by the driver."""

    def first(to_the_driver: Callable[[Connection, str, Any], Any]) -> Callable[..., Any]:
        def run(connection: Connection, statement: str, values: Any = ()) -> Any:
            if connection.engine is engine:
                act(connection, statement, values)
            return to_the_driver(connection, statement, values)

        return run

    @listens_for(engine, "before_cursor_execute")
    def execute(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        act(connection, statement, parameters)

    monkeypatch.setattr(engines, "driver_rows", first(driver_rows))
    monkeypatch.setattr(writing, "driver_many", first(driver_many))


@contextmanager
def held(database: Database, statement: str, *values: str) -> Iterator[psycopg.Connection]:
    """Inside the block another connection, which is yielded, holds locks on the rows that a statement finds."""
    with psycopg.connect(database.url) as other:
        other.execute(statement.encode(), values)
        yield other
        other.rollback()


def in_parallel(runners: Sequence[Callable[[], object]]) -> None:
    """Run all at once, each in its own thread; the first failure is raised."""
    with ThreadPoolExecutor(len(runners)) as threads:
        for finished in [threads.submit(run) for run in runners]:
            finished.result()


def codes(results: list[Any]) -> list[str]:
    """For each result: "ok", "replayed", or the refusal's code."""
    return [
        result.code if isinstance(result, QueueError) else "replayed" if result.replayed else "ok" for result in results
    ]


# Checks of a database that must hold at any time


def stored_room(store: Store, performer_id: str = PERFORMER.id) -> Room:
    with store.reading() as connection:
        return reading.load_rooms(connection, store.policy, [performer_id])[performer_id]


def stored_events(store: Store, performer_id: str = PERFORMER.id) -> list[Event]:
    with store.reading() as connection:
        return event_log.room_events(connection, performer_id, 0, 1_000_000)


def assert_consistent(store: Store, performer_id: str = PERFORMER.id) -> Room:
    """Check that the room's log has no gap and that its events give the stored room. Returns the room."""
    room = stored_room(store, performer_id)
    events = stored_events(store, performer_id)
    assert [event.version for event in events] == list(range(1, room.version + 1))
    assert fold(events, store.policy, performer_id) == room
    return room


def fold(events: Sequence[Event], policy: Policy, performer_id: str = PERFORMER.id) -> Room:
    room = Room(performer_id=performer_id, policy=policy)
    for event in events:
        room = apply(room, event)
    return room
