"""The two databases of a simulation, the queue's and the wallet's: SQLite in memory, which outlive every process.

They are made once and emptied between worlds, because making them takes longer than a world does.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, StaticPool, create_engine, event

from app.sandbox.tables import SANDBOX_TABLES
from app.store.engines import Engines, sqlite_driver
from app.store.heartbeat import HEARTBEAT
from app.store.migrating import migrate
from tests.support.sandbox_audit import memory_engine

QUEUE_TABLES = ("answers", "events", "histories", "items", "presence", "rooms", "wallet_operations")
_UNIQUE_MONEY = re.compile(
    r",\s*CONSTRAINT (uq_item_escrow|uq_item_idempotency_key|uq_operation_escrow|uq_operation_item) UNIQUE \([^)]*\)"
)


@dataclass(frozen=True, kw_only=True)
class Databases:
    queue: Engines
    wallet: Engine

    def clear(self) -> None:
        with self.queue.writer.begin() as connection:
            for table in QUEUE_TABLES:
                connection.exec_driver_sql(f"DELETE FROM {table}")
            # The rest of `meta` says which form the tables have.
            connection.exec_driver_sql("DELETE FROM meta WHERE name = ?", (HEARTBEAT,))
        with self.wallet.begin() as connection:
            for emptied in SANDBOX_TABLES:
                connection.exec_driver_sql(f"DELETE FROM {emptied.name}")


@contextmanager
def open_databases(*, without_uniqueness: bool = False) -> Iterator[Databases]:
    """`without_uniqueness`: the constraints that keep an escrow and a key from being used twice are taken out."""
    queue = _queue_engines()
    migrate(queue.writer)
    if without_uniqueness:
        _drop_uniqueness(queue.writer)
    databases = Databases(queue=queue, wallet=memory_engine())
    yield databases
    databases.wallet.dispose()
    queue.dispose()


def _queue_engines() -> Engines:
    def engine(begin: str, connect: Any) -> Engine:
        made = create_engine("sqlite://", module=sqlite_driver(), poolclass=StaticPool, creator=connect)
        event.listen(made, "begin", lambda connection: connection.exec_driver_sql(begin))
        return made

    # Everything happens in one thread and one piece after the other, so writer and reader can be one connection.
    connection = sqlite_driver().connect(":memory:", isolation_level=None, check_same_thread=False)
    writer, reader = engine("BEGIN IMMEDIATE", lambda: connection), engine("BEGIN", lambda: connection)
    return Engines(writer=writer, reader=reader, patient_writer=writer)


def _drop_uniqueness(engine: Engine) -> None:
    """SQLite cannot drop a constraint, so the table is created again from its own SQL without it."""
    with engine.begin() as connection:
        for table in ("items", "wallet_operations"):
            rows = connection.exec_driver_sql(
                "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC", (table,)
            )
            statements = [row.sql for row in rows]
            connection.exec_driver_sql(f"DROP TABLE {table}")
            for statement in statements:
                connection.exec_driver_sql(_UNIQUE_MONEY.sub("", statement))
