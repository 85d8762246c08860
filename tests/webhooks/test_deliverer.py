"""How often the deliverer reads the database, in virtual time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection

from app.domain.webhook import Endpoint, EndpointStatus
from app.engine.deadline import Deadline
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import Store, event_log, webhooks
from app.webhooks.deliverer import Deliverer
from app.webhooks.sender import Sender
from app.webhooks.targets import Targets
from tests.simulation.loop import VirtualLoop
from tests.support.builders import NOON
from tests.support.stores import Database, HandClock, new_id
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture

T = TypeVar("T")
SECONDS = 60


class _Counted(Queries):
    def __init__(self, store: Store, *parts: Any) -> None:
        super().__init__(store, *parts)
        self._reads_of = store
        self.count = 0

    async def run(self, query: Callable[[Connection], T], deadline: Deadline | None = None) -> T:
        self.count += 1
        with self._reads_of.reading() as connection:
            return query(connection)


def _endpoint(connection: Connection, status: EndpointStatus) -> Endpoint:
    """Of another process, which delivers to it."""
    return Endpoint(
        owner="dice",
        name="main",
        url="http://127.0.0.1:9/",
        events=None,
        secret="whsec_",
        cursor=event_log.log_end(connection),
        status=status,
        next_attempt_at=NOON,
        lease_until=NOON + timedelta(days=1),
        created_at=NOON,
        updated_at=NOON,
    )


@pytest.mark.parametrize(
    ("status", "fewest", "most"),
    [
        (None, SECONDS // 3, SECONDS // 2 + 2),
        (EndpointStatus.PARKED, SECONDS // 3, SECONDS // 2 + 2),
        (EndpointStatus.ACTIVE, SECONDS * 5, SECONDS * 10),
    ],
)
def test_events_have_the_database_read_only_while_there_is_an_endpoint_that_gets_any(
    sqlite_database: Database, status: EndpointStatus | None, fewest: int, most: int
) -> None:
    store, clock = sqlite_database.open(), HandClock()
    lanes = Lanes(store, clock, new_id, lambda outcomes: None)
    queries = _Counted(store, lanes)
    deliverer = Deliverer(
        queries=queries,
        lanes=lanes,
        sender=Sender(Targets((), production=False), clock),
        clock=clock,
        random=Random(0),
    )

    async def count() -> int:
        delivering = asyncio.create_task(deliverer.run())
        await asyncio.sleep(1)
        if status is not None:
            with store.writing() as connection:
                webhooks.save_endpoint(connection, _endpoint(connection, status))
            deliverer.wake()
            await asyncio.sleep(1)
        before = queries.count
        for _ in range(SECONDS * 20):
            deliverer.committed()
            await asyncio.sleep(0.05)
        delivering.cancel()
        with suppress(asyncio.CancelledError):
            await delivering
        return queries.count - before

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(lambda: 0.0)) as runner:
        assert fewest <= runner.run(count()) <= most
    queries.close()
