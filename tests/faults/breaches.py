"""Breaks one rule of the service at a time: if a run does not find a broken rule, its checks are worthless."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from threading import Timer

from sqlalchemy import Connection

from app.domain.operation import Operation
from app.store import Store

ACKNOWLEDGED_BEFORE_SECONDS = 0.5
FORGOTTEN_SHARE = 0.02


def forget_what_was_acknowledged() -> None:
    """Sometimes roll a transaction back, and acknowledge its commands all the same."""
    dice = Random(1)

    @contextmanager
    def writing(self: Store) -> Iterator[Connection]:
        with self.engines.writer.connect() as connection, connection.begin() as transaction:
            yield connection
            if dice.random() < FORGOTTEN_SHARE:
                transaction.rollback()

    Store.writing = writing  # type: ignore[method-assign]


def acknowledge_before_the_commit() -> None:
    """Acknowledge commands half a second before they are committed."""

    @contextmanager
    def writing(self: Store) -> Iterator[Connection]:
        connection = self.engines.writer.connect()
        transaction = connection.begin()
        try:
            yield connection
        except BaseException:
            transaction.rollback()
            connection.close()
            raise

        def commit() -> None:
            transaction.commit()
            connection.close()

        Timer(ACKNOWLEDGED_BEFORE_SECONDS, commit).start()

    Store.writing = writing  # type: ignore[method-assign]


def order_with_a_new_key_each_time() -> None:
    """Give each attempt at the wallet its own idempotency key: an order whose answer is lost becomes a new order."""

    def idempotency_key(self: Operation) -> str:
        return f"queue-{self.item_id}-{self.kind}-{self.attempts}"

    Operation.idempotency_key = property(idempotency_key)  # type: ignore[assignment, method-assign]


BREACHES: Mapping[str, Callable[[], None]] = {
    "forgets": forget_what_was_acknowledged,
    "early": acknowledge_before_the_commit,
    "keys": order_with_a_new_key_each_time,
}
