"""The pusher over a real store, lanes and push service, with queries whose answers can arrive late."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection

from app.domain import command as do
from app.domain.push import Language, Subscription
from app.engine.deadline import Deadline
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.push.encryption import Encryption
from app.push.pusher import LEASE, Pusher
from app.settings import vapid_key
from app.store import push
from app.webhooks.posting import Posting
from app.webhooks.targets import Targets
from tests.push.push_service import push_service
from tests.support.builders import FEATURE, PERFORMER, build_item
from tests.support.cluster import until
from tests.support.outbox_harness import stopped
from tests.support.stores import Database, HandClock, new_id
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture

pytestmark = pytest.mark.anyio
T = TypeVar("T")


class _Late(Queries):
    """Holds back the answer to a query that has found due notices, until `released` is set."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.released: asyncio.Event | None = None
        self.held = asyncio.Event()

    async def run(self, query: Callable[[Connection], T], deadline: Deadline | None = None) -> T:
        answer = await super().run(query, deadline)
        if self.released is not None and isinstance(answer, list) and answer:
            self.held.set()
            await self.released.wait()
        return answer


async def test_a_notice_whose_attempt_ends_while_due_notices_are_read_is_sent_once(sqlite_database: Database) -> None:
    store, clock = sqlite_database.open(), HandClock()
    item = build_item()
    async with (
        push_service() as service,
        Lanes(store, clock, new_id, lambda outcomes: None) as lanes,
        Posting(Targets((), production=False)) as posting,
    ):
        queries = _Late(store, lanes)
        pusher = Pusher(
            queries=queries,
            lanes=lanes,
            posting=posting,
            encryption=Encryption(vapid_key.new_private_key(), "mailto:ops@queue.example"),
            clock=clock,
            random=Random(0),
            holder="one",
        )
        browser = service.browser()
        subscription = Subscription(
            user_id=item.user_id,
            name="phone",
            endpoint=browser["endpoint"],
            origin=service.origin,
            **browser["keys"],
            language=Language.EN,
            created_at=clock.now,
            renewed_at=clock.now,
        )
        with store.writing() as connection:
            push.save_subscription(connection, subscription)
            push.claim(connection, "one", clock.now, clock.now + LEASE)
        await lanes.send(PERFORMER.id, do.Intake(actor=FEATURE, item=item))
        service.hold = asyncio.Event()
        running = asyncio.create_task(pusher.run())
        await service.until(1)
        queries.released = asyncio.Event()
        pusher.wake()
        await queries.held.wait()
        service.hold.set()
        await until(lambda: pusher.outcomes["delivered"] == 1)
        await asyncio.sleep(0.05)  # for the end of the attempt's task
        queries.released.set()
        await lanes.send(PERFORMER.id, do.Start(actor=PERFORMER, item_id=item.item_id))
        pusher.wake()
        received = await service.until(2)
        assert [each.content["moment"] for each in received] == ["next", "started"]
        await stopped(running)
    queries.close()
