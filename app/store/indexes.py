"""Builds the indexes that `tables` describes and a database lacks, and drops those that it does not need any more,
without locking a table on PostgreSQL.

A migration that creates an index locks the table until it is built. So no migration creates a new index on a table that
may be large: `tables` describes it, and PostgreSQL builds it here, concurrently, after the migrations. An index that
changes gets a new name.
"""

import time

from sqlalchemy import Connection, Engine, Index, inspect, text
from sqlalchemy.schema import CreateIndex

from app.store import tables
from app.store.reading import is_compact

INDEX_LOCK = 0x5155455546  # an arbitrary number that no other program on the server is likely to use
PAUSE_SECONDS = 0.2
TABLES = [tables.META, tables.ROOMS, tables.ITEMS, tables.EVENTS, tables.OPERATIONS, tables.ANSWERS]
OBSOLETE = (
    "ix_item_ended",
    "ix_item_user",
    "ix_operation_status",
)
"""Indexes of earlier releases for which there are smaller ones. The previous release uses them."""
DESCRIBED = sorted((index for table in TABLES for index in table.indexes), key=lambda index: str(index.name))


def update(engine: Engine) -> None:
    """Build the missing indexes, then drop the obsolete ones if no process of the previous release runs any more. A
    second process waits until the first has finished."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            for index in DESCRIBED:
                index.create(connection, checkfirst=True)
            for name in OBSOLETE:
                connection.execute(text(f"DROP INDEX IF EXISTS {name}"))
        return
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not (_missing(connection) or _unneeded(connection)):
            return
        # A statement that waits for the lock would have a snapshot, for whose end the concurrent build would wait.
        while not connection.execute(text(f"SELECT pg_try_advisory_lock({INDEX_LOCK})")).scalar_one():
            time.sleep(PAUSE_SECONDS)
        try:
            connection.execute(text("SET lock_timeout = 0"))
            for index in _missing(connection):
                # An interrupted build leaves an invalid index.
                _drop(connection, str(index.name))
                statement = str(CreateIndex(index).compile(dialect=engine.dialect))
                connection.execute(text(statement.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)))
            for name in _unneeded(connection):
                _drop(connection, name)
        finally:
            connection.execute(text(f"SELECT pg_advisory_unlock({INDEX_LOCK})"))
            # This connection's settings differ from those of the pool's other connections.
            connection.invalidate()


def _drop(connection: Connection, name: str) -> None:
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


def _missing(connection: Connection) -> list[Index]:
    """The described indexes that do not exist or are not valid."""
    unfinished = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    there = _existing(connection) - set(connection.execute(text(unfinished)).scalars())
    return [index for index in DESCRIBED if index.name not in there]


def _unneeded(connection: Connection) -> list[str]:
    """The obsolete indexes that exist, unless the previous release may still run."""
    if not is_compact(connection):
        return []
    there = _existing(connection)
    return [name for name in OBSOLETE if name in there]


def _existing(connection: Connection) -> set[str | None]:
    inspector = inspect(connection)
    return {index["name"] for table in TABLES for index in inspector.get_indexes(table.name)}
