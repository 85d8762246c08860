"""Migrations from every earlier schema to the newest one, and refused databases."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel

from app.sandbox.tables import SANDBOX_TABLES
from app.store import reading
from app.store.engines import DatabaseRefusedError, open_engines, sole_owner
from app.store.migrating import _config, migrate, refuse_other_schema
from app.store.tables import META
from tests.support import environment
from tests.support.command_line import run, the_line
from tests.support.stores import (
    Database,
    assert_consistent,
    build_writer,
    complete_of,
    queue_item,
    send,
    start_of,
)
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import empty_url_fixture as empty_url_fixture

ROOT = Path(__file__).parents[2]
TABLES = {table.name: table for table in (*SQLModel.metadata.sorted_tables, *SANDBOX_TABLES)}


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engines = open_engines(url)
    yield engines.writer
    engines.dispose()


def revisions() -> list[str]:
    """Oldest first."""
    folder = ScriptDirectory(str(Path(reading.__file__).parent / "migrations"))
    return [script.revision for script in reversed(list(folder.walk_revisions()))]


def bring_to(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)


def test_a_fresh_database_gets_the_newest_schema_and_an_epoch(empty_url: str) -> None:
    with engine_of(empty_url) as engine:
        migrate(engine)
        refuse_other_schema(engine)
        with engine.begin() as connection:
            first = reading.epoch(connection)
        assert len(first) >= 16
        migrate(engine)
        with engine.begin() as connection:
            assert reading.epoch(connection) == first


def test_there_is_one_line_of_revisions() -> None:
    assert len(revisions()) >= 2
    assert len(ScriptDirectory(str(Path(reading.__file__).parent / "migrations")).get_heads()) == 1


@pytest.mark.parametrize("revision", revisions())
def test_a_database_of_every_earlier_revision_migrates(empty_url: str, revision: str) -> None:
    with engine_of(empty_url) as engine:
        bring_to(engine, revision)
        with engine.begin() as connection:
            connection.execute(insert(META).values(name="epoch", value="kept"))
        if revision != revisions()[-1]:
            with pytest.raises(DatabaseRefusedError, match="older schema; run: python -m app migrate"):
                refuse_other_schema(engine)
        migrate(engine)
        refuse_other_schema(engine)
        with engine.begin() as connection:
            assert reading.epoch(connection) == "kept"


def test_a_migrated_sqlite_schema_is_the_one_the_tables_describe(tmp_path: Path) -> None:
    with engine_of(f"sqlite:///{tmp_path / 'a.db'}") as migrated, engine_of(f"sqlite:///{tmp_path / 'b.db'}") as fresh:
        assert schema_after_migration(migrated) == schema_as_described(fresh)


def test_a_migrated_postgresql_schema_is_the_one_the_tables_describe(postgres_server: str, postgres_url: str) -> None:
    with (
        environment.database(postgres_server) as other_url,
        engine_of(postgres_url) as migrated,
        engine_of(other_url) as fresh,
    ):
        assert schema_after_migration(migrated) == schema_as_described(fresh)


def schema_after_migration(engine: Engine) -> set[Any]:
    migrate(engine)
    return schema_of(engine)


def schema_as_described(engine: Engine) -> set[Any]:
    SQLModel.metadata.create_all(engine)
    return schema_of(engine)


def schema_of(engine: Engine) -> set[Any]:
    with engine.begin() as connection:
        described = _sqlite_schema(connection) if engine.dialect.name == "sqlite" else _postgres_schema(connection)
    return {entry for entry in described if "alembic_version" not in str(entry)}


def _sqlite_schema(connection: Connection) -> set[Any]:
    statements = connection.execute(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")).scalars()
    indexes = {sql for sql in statements if sql.startswith("CREATE") and " INDEX " in sql}
    checks = "SELECT name, instr(sql, 'CHECK (balance >= 0 OR kind = ''mint'')') > 0 FROM sqlite_master"
    found: set[Any] = indexes | {tuple(row) for row in connection.execute(text(checks))}
    for table in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all():
        for column in connection.execute(text(f"PRAGMA table_info({table})")):
            found.add((table, column.name, column.type, column.notnull, column.pk))
        for index in connection.execute(text(f"PRAGMA index_list({table})")).all():
            columns = connection.execute(text(f"PRAGMA index_info({index.name})")).all()
            found.add((table, index.origin, index.partial, *(column.name for column in columns)))
    return found


def _postgres_schema(connection: Connection) -> set[Any]:
    questions = [
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'public'",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace",
    ]
    return {tuple(row) for question in questions for row in connection.execute(text(question))}


def test_a_restored_database_gets_a_new_epoch_and_nothing_else_changes(database: Database) -> None:
    store = database.open()
    writer = build_writer(store)
    item = queue_item(writer)
    send(writer, start_of(item))
    send(writer, complete_of(item))
    queue_item(writer)
    before = contents(store.engines.writer)
    migrate(store.engines.writer)
    assert contents(store.engines.writer) == before
    migrate(store.engines.writer, restored=True)
    after = contents(store.engines.writer)
    epoch = before.pop("meta")
    assert after.pop("meta") != epoch
    # Where the last event stands in the log is another matter.
    assert [row[1:] for row in after.pop("events")] == [row[1:] for row in before.pop("events")]
    assert after == before
    assert database.open().epoch != store.epoch
    assert_consistent(store)


def contents(engine: Engine) -> dict[str, list[Any]]:
    with engine.begin() as connection:
        return {name: sorted(map(tuple, connection.execute(select(table))), key=str) for name, table in TABLES.items()}


def make_newer(url: str) -> dict[str, list[Any]]:
    """Give a database a revision that this code does not know; returns what it holds."""
    with engine_of(url) as engine:
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text("UPDATE meta SET value = '9999' WHERE name = 'oldest_release'"))
        return contents(engine)


def test_a_newer_schema_is_refused_with_a_clear_line_and_left_alone(empty_url: str) -> None:
    before = make_newer(empty_url)
    with engine_of(empty_url) as engine:
        for bring_up in (migrate, refuse_other_schema):
            with pytest.raises(DatabaseRefusedError) as refused:
                bring_up(engine)
            assert str(refused.value) == (
                "The database has a newer schema than this version of the program; install the newer version."
            )
        assert contents(engine) == before


def test_a_failed_migration_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no entropy")

    with engine_of(empty_url) as engine:
        monkeypatch.setattr("app.store.migrating.secrets.token_hex", fail)
        with pytest.raises(RuntimeError, match="no entropy"):
            migrate(engine)
        assert schema_of(engine) == set()


# The command line


def test_migrate_from_the_command_line_keeps_the_epoch(empty_url: str) -> None:
    epochs = []
    for _ in range(2):
        assert run("migrate", empty_url).exit_code == 0
        with engine_of(empty_url) as engine, engine.begin() as connection:
            epochs.append(reading.epoch(connection))
    assert epochs[0] == epochs[1]


def test_several_processes_may_migrate_one_postgresql_at_the_same_time(postgres_url: str) -> None:
    command_line = [sys.executable, "-m", "app", "migrate"]
    environ = {"DATABASE_URL": postgres_url}
    processes = [subprocess.Popen(command_line, cwd=ROOT, env=environ, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [(b"", 0)] * 2
    with engine_of(postgres_url) as engine:
        refuse_other_schema(engine)


def test_serving_an_empty_postgresql_asks_for_a_migration(postgres_url: str) -> None:
    line = the_line(run("serve", postgres_url))
    assert line == "performance-queue: The database has an older schema; run: python -m app migrate"


@pytest.mark.parametrize("command_line", ["serve", "migrate"])
def test_a_newer_database_is_one_line_on_the_command_line(empty_url: str, command_line: str) -> None:
    make_newer(empty_url)
    assert "newer schema" in the_line(run(command_line, empty_url))


@pytest.mark.parametrize("command_line", ["serve", "migrate"])
def test_a_database_that_cannot_be_reached_is_one_line_without_its_password(command_line: str) -> None:
    line = the_line(run(command_line, "postgresql://queue:hush@127.0.0.1:1/queue"))
    assert line.startswith("performance-queue: The database cannot be used: connection failed")
    assert "hush" not in line


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_text("Dear diary, " * 1000)
    assert "cannot be used" in the_line(run("serve", f"sqlite:///{path}"))
    assert path.read_text().startswith("Dear diary")


def test_a_postgresql_in_which_nothing_may_be_made_is_one_line(postgres_url: str) -> None:
    with engine_of(postgres_url) as engine, engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS onlooker"))
        connection.execute(text("CREATE ROLE onlooker LOGIN"))
    url = make_url(postgres_url).set(username="onlooker").render_as_string()
    try:
        assert "permission denied" in the_line(run("migrate", url))
    finally:
        with engine_of(postgres_url) as engine, engine.begin() as connection:
            connection.execute(text("DROP ROLE onlooker"))


def test_a_second_process_on_the_same_sqlite_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    with sole_owner(url):
        second = subprocess.run(
            [sys.executable, "-m", "app", "serve"],
            cwd=ROOT,
            env={"DATABASE_URL": url, "PORT": "0"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Another process" in the_line(run("migrate", url))
    assert second.returncode == 2
    assert second.stdout == ""
    assert second.stderr == (
        "performance-queue: Another process serves this SQLite database; stop it, or use PostgreSQL for more than one"
        " process.\n"
    )
    assert run("migrate", url).exit_code == 0


# Two releases side by side


def make_newer_by_one(url: str, oldest: str | None) -> None:
    """Give the database the revision of a next release; `oldest` is the oldest revision that may still use it."""
    make_newer(url)
    with engine_of(url) as engine, engine.begin() as connection:
        connection.execute(text("DELETE FROM meta WHERE name = 'oldest_release'"))
        if oldest is not None:
            connection.execute(insert(META).values(name="oldest_release", value=oldest))


def test_a_newer_schema_that_says_so_is_used_and_left_alone(empty_url: str) -> None:
    make_newer_by_one(empty_url, revisions()[-1])
    with engine_of(empty_url) as engine:
        before = contents(engine)
        refuse_other_schema(engine)
        migrate(engine)
        assert contents(engine) == before
    store = Database(url=empty_url, shared=True).open()
    queue_item(build_writer(store))
    assert_consistent(store)
    store.engines.dispose()
    assert run("check", empty_url).exit_code == 0


@pytest.mark.parametrize("oldest", [None, "9999"])
def test_a_newer_schema_that_asks_for_a_newer_release_is_refused(empty_url: str, oldest: str | None) -> None:
    make_newer_by_one(empty_url, oldest)
    for command_line in ("serve", "migrate", "check"):
        assert "newer schema" in the_line(run(command_line, empty_url))


def test_an_old_postgresql_says_until_contract_that_the_previous_release_may_use_it(postgres_url: str) -> None:
    def oldest() -> str:
        with engine_of(postgres_url) as engine, engine.begin() as connection:
            value = connection.execute(select(META.c.value).where(META.c.name == "oldest_release")).scalar_one()
            return str(value)

    with engine_of(postgres_url) as engine:
        bring_to(engine, "0004")
    for command_line, expected in (("migrate", "0004"), ("migrate", "0004"), ("migrate --contract", revisions()[-1])):
        assert run(command_line, postgres_url).exit_code == 0
        assert oldest() == expected


def test_indexes_of_the_previous_release_stay_until_contract(postgres_url: str) -> None:
    def indexes() -> set[str]:
        with engine_of(postgres_url) as engine, engine.begin() as connection:
            names = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
            return set(connection.execute(text(names)).scalars())

    earlier = {"ix_item_ended", "ix_item_user", "ix_operation_status"}
    newer = {"ix_item_by_end", "ix_item_by_user", "ix_operation_not_done"}
    with engine_of(postgres_url) as engine:
        bring_to(engine, "0004")
    assert run("migrate", postgres_url).exit_code == 0
    assert indexes() > earlier | newer
    assert run("migrate --contract", postgres_url).exit_code == 0
    assert indexes() > newer
    assert not indexes() & earlier


def test_an_index_that_is_missing_or_was_broken_off_is_built_while_others_write(postgres_url: str) -> None:
    with engine_of(postgres_url) as engine:
        migrate(engine)
        before = schema_of(engine)
        with engine.begin() as connection:
            connection.execute(text("DROP INDEX ix_item_by_user"))
            connection.execute(
                text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_item_due'::regclass")
            )
        writing = engine.connect()
        begun = writing.begin()
        writing.execute(text("LOCK TABLE items IN ROW EXCLUSIVE MODE"))
        with ThreadPoolExecutor(1) as threads:
            building = threads.submit(run, "migrate", postgres_url)
            waits = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '% INDEX CONCURRENTLY%'"
                         " AND state = 'active' AND pid <> pg_backend_pid()")  # fmt: skip
            with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as other:
                while not other.execute(waits).scalar_one():
                    assert not building.done(), building.result().output
                # A new writer does not wait for the build, which waits for the earlier transaction.
                other.execute(text("SET lock_timeout = '20s'"))
                other.execute(text("UPDATE items SET paused = paused"))
                other.invalidate()
            begun.rollback()
            writing.close()
            assert building.result().exit_code == 0
        assert schema_of(engine) == before
