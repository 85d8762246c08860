"""The store: tables, migrations, transactions. The only package with the queue's SQL.

Rows never leave it: its functions take and return the domain's values, and the connection of a transaction
(`with store.writing() as connection`). It decides nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.domain.room import Policy
from app.store import reading
from app.store.engines import Engines

TROUBLE = (InterfaceError, InternalError, OperationalError, PoolTimeoutError)
"""Errors of a database that is away, restarting, full or too busy: the same transaction may succeed later."""


class Store:
    """The open database of one process. Thread-safe; each thread uses its own connection."""

    def __init__(self, engines: Engines, policy: Policy) -> None:
        self.engines = engines
        self.policy = policy
        with self.reading() as connection:
            self.epoch = reading.epoch(connection)
            self.compact = reading.is_compact(connection)
            """Whether events and answers are written so that the previous release cannot read them."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write too, so that no cached room can be trusted unchecked."""
        return not self.engines.is_sqlite

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction: committed at the end, rolled back by an exception."""
        with self.engines.writer.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction, which a caller keeps for one answer only."""
        with self.engines.reader.begin() as connection:
            yield connection
