"""Builds the indexes that `tables` describes and a database lacks, without locking a table on PostgreSQL.

A migration that creates an index locks the table until it is built. So no migration creates a new index on a table that
may be large: `tables` describes it, and PostgreSQL builds it here, concurrently, after the migrations.
"""

import time

from sqlalchemy import Connection, Engine, Index, inspect, text
from sqlalchemy.schema import CreateIndex

from app.store import tables

INDEX_LOCK = 0x5155455546  # an arbitrary number that no other program on the server is likely to use
PAUSE_SECONDS = 0.2
TABLES = [tables.META, tables.ROOMS, tables.ITEMS, tables.EVENTS, tables.OPERATIONS, tables.ANSWERS]
DESCRIBED = sorted((index for table in TABLES for index in table.indexes), key=lambda index: str(index.name))


def build_missing(engine: Engine) -> None:
    """Build the missing indexes. A second process waits until the first has built them."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            for index in DESCRIBED:
                index.create(connection, checkfirst=True)
        return
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not _missing(connection):
            return
        # A statement that waits for the lock would have a snapshot, for whose end the concurrent build would wait.
        while not connection.execute(text(f"SELECT pg_try_advisory_lock({INDEX_LOCK})")).scalar_one():
            time.sleep(PAUSE_SECONDS)
        try:
            connection.execute(text("SET lock_timeout = 0"))
            for index in _missing(connection):
                # An interrupted build leaves an invalid index.
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"))
                statement = str(CreateIndex(index).compile(dialect=engine.dialect))
                connection.execute(text(statement.replace(" INDEX ", " INDEX CONCURRENTLY ", 1)))
        finally:
            connection.execute(text(f"SELECT pg_advisory_unlock({INDEX_LOCK})"))
            # This connection's settings differ from those of the pool's other connections.
            connection.invalidate()


def _missing(connection: Connection) -> list[Index]:
    """The described indexes that do not exist or are not valid."""
    inspector = inspect(connection)
    there: set[str | None] = set()
    for table in TABLES:
        there |= {index["name"] for index in inspector.get_indexes(table.name)}
    unfinished = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    there -= set(connection.execute(text(unfinished)).scalars())
    return [index for index in DESCRIBED if index.name not in there]
