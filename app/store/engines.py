"""The database engines: drivers, connection settings, and the begin of a transaction.

Owns the differences between SQLite and PostgreSQL at the level of a connection, and knows no statement of the queue.
"""

import fcntl
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

log = logging.getLogger(__name__)

OWNER_ONLY = 0o600
BUSY_TIMEOUT_MS = 10_000
LANE_BUSY_TIMEOUT_MS = 500
"""How long one attempt of a lane waits for SQLite's write lock. The lane tries again until its commands are due."""
CONNECT_SECONDS = 2
"""The smallest value that PostgreSQL's client library accepts."""
LOCK_TIMEOUT_MS = 500
"""How long one attempt waits for a row that another process holds."""
SILENCE_MS = 10_000
"""Milliseconds after which PostgreSQL ends the transaction of a silent process, and a process gives up a silent
PostgreSQL."""
MENDED_SQLITE = (3, 51, 3)
MENDED_BRANCHES = ((3, 44, 6), (3, 50, 7))
"""SQLite releases without the WAL-reset bug (3.7.0–3.51.2): 3.51.3 and later, and two maintained branches."""


class DatabaseRefusedError(Exception):
    """The database cannot be used as it is; `str()` is one line that says what to do."""


class OpenConnections:
    """The open connections of some engines, so that another thread can free a thread that is stuck in one."""

    def __init__(self) -> None:
        self._connections: dict[int, Any] = {}
        self._pool_is_gone = False

    def watch(self, engine: Engine) -> None:
        """Follow the connections of an engine from now on."""

        def opened(connection: Any, record: Any) -> None:
            self._connections[id(connection)] = connection

        def closed(connection: Any, record: Any) -> None:
            self._connections.pop(id(connection), None)

        def returned(connection: Any, record: Any) -> None:
            if self._pool_is_gone and connection is not None:
                record.invalidate()

        event.listen(engine, "connect", opened)
        event.listen(engine, "close", closed)
        event.listen(engine, "checkin", returned)

    def close_returned(self) -> None:
        """Close each connection that is returned from now on: a disposed pool would leave it open."""
        self._pool_is_gone = True

    def interrupt(self) -> None:
        """Make every statement under way fail. PostgreSQL's connections are cut, since nothing else frees a thread that
        waits for a server that does not answer; whether a commit took effect is then unknown."""
        for connection in list(self._connections.values()):
            try:
                if hasattr(connection, "interrupt"):
                    connection.interrupt()
                    continue
                with socket.socket(fileno=os.dup(connection.fileno())) as way:
                    way.shutdown(socket.SHUT_RDWR)
            except Exception as error:  # it has been closed meanwhile: no thread is stuck in it
                log.debug("a connection was not interrupted: %s", type(error).__name__)


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine for the lanes and one for readers; on PostgreSQL they share a pool."""

    writer: Engine
    reader: Engine
    patient_writer: Engine
    """For migrations and the sandbox wallet: waits BUSY_TIMEOUT_MS for SQLite's write lock."""
    connections: OpenConnections = field(default_factory=OpenConnections)

    @property
    def is_sqlite(self) -> bool:
        return self.writer.dialect.name == "sqlite"

    def interrupt(self) -> None:
        """Free every thread that is stuck in one of these engines; see `OpenConnections.interrupt`."""
        self.connections.interrupt()

    def dispose(self) -> None:
        """Close all connections, those in use when they are returned. The engines are not used afterwards."""
        self.connections.close_returned()
        self.reader.dispose()
        self.writer.dispose()
        self.patient_writer.dispose()


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether a version of SQLite can corrupt a WAL database with two or more connections."""
    if any(version[:2] == branch[:2] and version >= branch for branch in MENDED_BRANCHES):
        return False
    return (3, 7, 0) <= version < MENDED_SQLITE


def sqlite_driver() -> ModuleType:
    """A SQLite driver without the WAL-reset bug: CPython's own where it is new enough, else pysqlite3's.

    Raises DatabaseRefusedError if both have the bug.
    """
    if not has_wal_reset_bug(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        driver = import_module("pysqlite3.dbapi2")
    except ImportError:
        driver = sqlite3
    if has_wal_reset_bug(driver.sqlite_version_info):
        raise DatabaseRefusedError(
            f"SQLite {driver.sqlite_version} can corrupt a WAL database; install pysqlite3 or a newer Python."
        )
    return driver


def open_engines(
    database_url: str | URL,
    *,
    lanes: int = 1,
    readers: int = 4,
    busy_timeout_ms: int = BUSY_TIMEOUT_MS,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    silence_ms: int = SILENCE_MS,
) -> Engines:
    """Engines for a `sqlite:///` or `postgresql://` URL, not connected yet. `busy_timeout_ms`: for SQLite's writer.
    `lock_timeout_ms`, `silence_ms`: for PostgreSQL's connections.

    Raises DatabaseRefusedError if the database's driver is missing or must not be used.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _sqlite_engines(url, readers, busy_timeout_ms)
    return _postgres_engines(url, lanes + readers, lock_timeout_ms, silence_ms)


def _postgres_engines(url: URL, size: int, lock_timeout_ms: int, silence_ms: int) -> Engines:
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            pool_size=size,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": silence_ms},
        )
    except ImportError as error:
        raise DatabaseRefusedError(
            f"PostgreSQL needs a driver: {error.name or 'psycopg'} is missing; install performance-queue[cluster]."
        ) from None

    def connect(dbapi_connection: Any, record: Any) -> None:
        # Statements, not startup options: poolers refuse those.
        dbapi_connection.execute(f"SET lock_timeout = {lock_timeout_ms}")
        dbapi_connection.execute(f"SET idle_in_transaction_session_timeout = {silence_ms}")
        dbapi_connection.commit()

    event.listen(engine, "connect", connect)
    # All statements of a read transaction see the database at one moment, as in SQLite.
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    connections = OpenConnections()
    connections.watch(engine)
    return Engines(writer=engine, reader=reader, patient_writer=engine, connections=connections)


def _sqlite_engines(url: URL, readers: int, writer_busy_timeout_ms: int) -> Engines:
    driver = sqlite_driver()
    _make_private(url)

    connections = OpenConnections()

    def connect(busy_timeout_ms: int, dbapi_connection: Any, record: Any) -> None:
        # The driver's implicit BEGIN is deferred and loses updates between two writers; the "begin" event replaces it.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def engine(begin: str, size: int, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> Engine:
        made = create_engine(
            url,
            module=driver,
            hide_parameters=True,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            connect_args={"check_same_thread": False},
        )
        event.listen(made, "connect", partial(connect, busy_timeout_ms))
        event.listen(made, "begin", lambda connection: driver_rows(connection, begin))
        connections.watch(made)
        return made

    return Engines(
        writer=engine("BEGIN IMMEDIATE", 2, writer_busy_timeout_ms),
        reader=engine("BEGIN", readers),
        patient_writer=engine("BEGIN IMMEDIATE", 1),
        connections=connections,
    )


def _make_private(url: URL) -> None:
    """Make the file and its side files readable only by their owner. SQLite gives new side files the file's mode."""
    if url.database in (None, "", ":memory:"):
        return
    # SQLite, which opens the file next, reports what could not be done here.
    with suppress(OSError):
        os.close(os.open(str(url.database), os.O_RDWR | os.O_CREAT, OWNER_ONLY))
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{url.database}{suffix}")
        with suppress(OSError):
            # A folder that is named by mistake keeps its mode: 0600 would make its files inaccessible.
            if path.is_file():
                path.chmod(OWNER_ONLY)


def upsert(connection: Connection, table: Table) -> Any:
    """The INSERT of the connection's dialect, which has ON CONFLICT."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table)


def driver_rows(connection: Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement as the driver itself returns them, within the connection's transaction.

    For the queries of every batch, of which SQLAlchemy lays out each IN and each result anew: saves 19 % of the CPU
    that decides and commits intakes (`bench --without questions`). Raises SQLAlchemy's errors; a lost connection is not
    used again.
    """
    with _driver_cursor(connection, statement) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


def rows_with(connection: Connection, query: str, values: Sequence[Any], *, width: int = 1) -> list[tuple[Any, ...]]:
    """The rows of a query that ends in IN, for these values; `width` values form one key.

    The last key is repeated up to a power of two, so that the driver prepares statements of few lengths.
    """
    dialect = connection.dialect
    marks = ", ".join(["?" if dialect.paramstyle == "qmark" else "%s"] * width)
    count = len(values) // width
    padded = 1 << (count - 1).bit_length()
    if width == 1:
        listed = ", ".join([marks] * padded)
    else:
        listed = ", ".join([f"({marks})"] * padded)
        if dialect.tuple_in_values:
            listed = f"VALUES {listed}"
    return driver_rows(connection, f"{query}({listed})", (*values, *list(values[-width:]) * (padded - count)))


def driver_many(connection: Connection, statement: str, rows: Sequence[Any]) -> None:
    """Run a statement once for each row through the driver itself; otherwise like `driver_rows`."""
    with _driver_cursor(connection, statement) as cursor:
        cursor.executemany(statement, rows)


@contextmanager
def _driver_cursor(connection: Connection, statement: str) -> Iterator[Any]:
    driver, dialect = connection.connection, connection.dialect
    try:
        cursor = driver.cursor()
        try:
            yield cursor
        finally:
            cursor.close()
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, driver, None):
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement, None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
        ) from error


@contextmanager
def sole_owner(database_url: str) -> Iterator[None]:
    """Hold the lock of a SQLite file, which one process at a time can have. Does nothing for PostgreSQL.

    Raises DatabaseRefusedError if another process has it.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        yield
        return
    # SQLite follows links too, so a file has one lock under all its names.
    path = Path(os.path.realpath(url.database) + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, OWNER_ONLY)
    except OSError as error:
        raise DatabaseRefusedError(f"Cannot open the database's folder: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseRefusedError(
                "Another process serves this SQLite database; stop it, or use PostgreSQL for more than one process."
            ) from None
        yield
    finally:
        os.close(descriptor)
