"""Drivers, pragmas, isolation and locks of all transactions."""

import sqlite3
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from app.store import Store
from app.store.engines import (
    DatabaseRefusedError,
    driver_rows,
    has_wal_reset_bug,
    open_engines,
    sole_owner,
    sqlite_driver,
)
from tests.support.stores import Database, in_parallel
from tests.support.stores import database_fixture as database_fixture
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture
from tests.support.stores import store_fixture as store_fixture


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 44, 7), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_which_sqlite_has_the_wal_reset_bug(version: tuple[int, ...], affected: bool) -> None:
    assert has_wal_reset_bug(version) is affected


def test_the_driver_in_use_does_not_have_the_bug(sqlite_database: Database) -> None:
    assert not has_wal_reset_bug(sqlite_driver().sqlite_version_info)
    with sqlite_database.open().reading() as connection:
        version = connection.execute(text("SELECT sqlite_version()")).scalar_one()
    assert not has_wal_reset_bug(tuple(map(int, version.split("."))))


@pytest.mark.parametrize("other", [None, SimpleNamespace(sqlite_version_info=(3, 51, 1), sqlite_version="3.51.1")])
def test_without_a_driver_free_of_the_bug_the_database_is_refused(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setitem(sys.modules, "pysqlite3.dbapi2", other)
    with pytest.raises(DatabaseRefusedError, match="can corrupt a WAL database; install pysqlite3"):
        open_engines("sqlite:///queue.db")


def test_cpythons_own_sqlite_is_taken_where_it_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    monkeypatch.setitem(sys.modules, "pysqlite3.dbapi2", None)
    assert sqlite_driver() is sqlite3


def test_without_psycopg_a_postgresql_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseRefusedError, match="PostgreSQL needs a driver: psycopg"):
        open_engines("postgresql://127.0.0.1/queue")


def test_every_sqlite_connection_is_durable_and_strict(sqlite_database: Database) -> None:
    engines = sqlite_database.open().engines
    for engine in (engines.writer, engines.reader):
        with engine.begin() as connection:
            assert pragma(connection, "journal_mode") == "wal"
            assert pragma(connection, "synchronous") == 2  # FULL
            assert pragma(connection, "foreign_keys") == 1
            assert pragma(connection, "busy_timeout") == 10_000


def pragma(connection: Connection, name: str) -> Any:
    return connection.execute(text(f"PRAGMA {name}")).scalar_one()


def test_a_sqlite_writer_holds_the_lock_from_its_first_moment_and_readers_go_on(sqlite_database: Database) -> None:
    one, two = sqlite_database.open(), sqlite_database.open()
    with two.engines.writer.connect() as waiting:
        waiting.exec_driver_sql("PRAGMA busy_timeout=0")
        waiting.rollback()
        with one.writing() as connection:
            with pytest.raises(OperationalError, match="locked"):
                waiting.begin()
            connection.execute(text("INSERT INTO meta (name, value) VALUES ('n', '1')"))
            with two.reading() as reader:
                assert read_number(reader) is None
        with two.reading() as reader:
            assert read_number(reader) == 1


def read_number(connection: Connection) -> int | None:
    row = connection.execute(text("SELECT value FROM meta WHERE name = 'n'")).first()
    return None if row is None else int(row.value)


def test_eight_threads_reading_and_writing_one_number_lose_nothing(sqlite_database: Database) -> None:
    stores = [sqlite_database.open() for _ in range(4)]
    with stores[0].writing() as connection:
        connection.execute(text("INSERT INTO meta (name, value) VALUES ('n', '0')"))
    together = threading.Barrier(8)

    def count_up(store: Store) -> None:
        together.wait()
        for _ in range(100):
            with store.writing() as connection:
                number = read_number(connection)
                assert number is not None
                connection.execute(text("UPDATE meta SET value = :n WHERE name = 'n'"), {"n": str(number + 1)})

    in_parallel([partial(count_up, store) for store in stores * 2])
    with stores[0].reading() as connection:
        assert read_number(connection) == 800


def test_a_reader_sees_one_snapshot_while_others_write(database: Database) -> None:
    store = database.open()
    with store.reading() as reader:
        assert read_number(reader) is None
        with store.writing() as connection:
            connection.execute(text("INSERT INTO meta (name, value) VALUES ('n', '1')"))
        assert read_number(reader) is None
    with store.reading() as reader:
        assert read_number(reader) == 1
    with store.writing() as connection:
        connection.execute(text("DELETE FROM meta WHERE name = 'n'"))


def test_a_failed_transaction_leaves_nothing_behind(database: Database) -> None:
    store = database.open()

    def fail() -> None:
        with store.writing() as connection:
            connection.execute(text("INSERT INTO meta (name, value) VALUES ('n', '1')"))
            raise RuntimeError("on second thoughts")

    with pytest.raises(RuntimeError, match="second thoughts"):
        fail()
    with store.reading() as connection:
        assert read_number(connection) is None


def test_a_postgresql_reader_cannot_write_and_leaves_no_trace_on_its_connection(postgres_database: Database) -> None:
    store = postgres_database.open()
    with pytest.raises(DBAPIError, match="read-only transaction"), store.reading() as connection:
        connection.execute(text("DELETE FROM meta"))
    for _ in range(3):
        with store.writing() as connection:
            settings = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
            assert tuple(connection.execute(text(settings)).one()) == ("read committed", "off")


def test_postgresql_gives_up_a_process_that_vanished_in_mid_transaction(postgres_database: Database) -> None:
    for engine in (postgres_database.open().engines.writer, postgres_database.open().engines.reader):
        with engine.begin() as connection:
            assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "10s"
            assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "500ms"


def test_a_second_owner_of_a_sqlite_file_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'folder' / 'queue.db'}"
    with sole_owner(url):
        with pytest.raises(DatabaseRefusedError, match="Another process"), sole_owner(url):
            pass
        with pytest.raises(DatabaseRefusedError, match="Another process"), sole_owner(url):
            pass
    with sole_owner(url):
        pass


def test_the_same_file_by_another_name_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "other.db").symlink_to(tmp_path / "real" / "queue.db")
    monkeypatch.chdir(tmp_path)
    with sole_owner(f"sqlite:///{tmp_path}/real/queue.db"):
        for name in ("real/queue.db", "link/queue.db", "other.db", f"{tmp_path}/real/../link/queue.db"):
            with pytest.raises(DatabaseRefusedError, match="Another process"), sole_owner(f"sqlite:///{name}"):
                pass


def test_a_postgresql_database_may_have_many_owners() -> None:
    with sole_owner("postgresql://127.0.0.1/queue"), sole_owner("postgresql://127.0.0.1/queue"):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    url = f"sqlite:///{tmp_path / 'file' / 'queue.db'}"
    with pytest.raises(DatabaseRefusedError, match="Cannot open the database's folder"), sole_owner(url):
        pass


def test_a_statement_given_to_the_driver_sees_the_writes_of_its_transaction(store: Store) -> None:
    with store.writing() as connection:
        connection.execute(text("INSERT INTO meta (name, value) VALUES ('one', 'written')"))
        assert driver_rows(connection, "SELECT value FROM meta WHERE name = 'one'", ()) == [("written",)]


def test_an_error_of_the_driver_itself_is_sqlalchemys_and_repeats_no_value(store: Store) -> None:
    mark = "?" if store.engines.is_sqlite else "%s"
    question = f"SELECT 1 FROM no_such_table WHERE name = {mark}"
    with pytest.raises(DBAPIError, match="no_such_table") as raised, store.reading() as connection:
        driver_rows(connection, question, ("secret wish",))
    assert type(raised.value) in (OperationalError, ProgrammingError)
    assert "secret wish" not in str(raised.value)
    with store.reading() as connection:
        assert driver_rows(connection, "SELECT 1", ()) == [(1,)]


def test_a_connection_that_the_driver_itself_finds_lost_is_not_used_again(postgres_database: Database) -> None:
    store = postgres_database.open(lanes=1)
    with store.engines.writer.connect() as connection:
        transaction = connection.begin()
        (own,) = driver_rows(connection, "SELECT pg_backend_pid()", ())[0]
        with psycopg.connect(postgres_database.url) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (own,))
        with pytest.raises(OperationalError):
            driver_rows(connection, "SELECT 1", ())
        assert connection.invalidated
        transaction.rollback()
    with store.writing() as connection:
        assert driver_rows(connection, "SELECT pg_backend_pid()", ()) != [(own,)]


def test_a_connection_in_use_at_the_end_is_closed_when_it_is_returned(database: Database) -> None:
    store = database.open()
    with store.reading() as connection:
        driver_connection: Any = connection.connection.driver_connection
        store.engines.dispose()
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    with pytest.raises((psycopg.OperationalError, sqlite_driver().ProgrammingError), match="closed"):
        driver_connection.execute("SELECT 1")
