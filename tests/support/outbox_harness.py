"""A real outbox with a real store and lanes, and with a scripted wallet and clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from app.domain import command as do
from app.domain.command import Command
from app.domain.event import Event
from app.domain.item import Item, Reason
from app.domain.operation import Operation
from app.engine.deadline import Deadline
from app.engine.jobs import Idempotency, Outcome
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import Store, reading, wallet_operations
from app.tracing import Tracer
from app.wallet.breaker import Breaker
from app.wallet.client import Wallet
from app.wallet.outbox import Outbox
from tests.support.builders import API_TOKEN, FEATURE, PERFORMER, QUEUE_SECRET, build_item
from tests.support.scripted_wallet import WAIT_SECONDS, ScriptedWallet
from tests.support.stores import HandClock, new_id, stored_events

TIMEOUT_SECONDS = 5.0
RETRY_BASE_SECONDS = 2.0
RETRY_MAX_SECONDS = 60.0
MAX_ATTEMPTS = 4


class Jitter(Random):
    """Jitter that is always the same share of the range, by default the largest; it records the bounds of each draw."""

    def __init__(self) -> None:
        super().__init__(0)
        self.share = 1.0
        self.bounds: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.bounds.append((a, b))
        return a + self.share * (b - a)


class _Lanes(Lanes):
    """Lanes with a queue of answered commands, for which a test can wait."""

    def __init__(self, *parts: Any, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.answered: asyncio.Queue[tuple[Command, Outcome]] = asyncio.Queue()

    async def send(
        self,
        performer_id: str,
        command: Command,
        idempotency: Idempotency | None = None,
        *,
        deadline: Deadline | None = None,
    ) -> Outcome:
        outcome = await super().send(performer_id, command, idempotency, deadline=deadline)
        self.answered.put_nowait((command, outcome))
        return outcome


class Stage:
    """One process: its lanes, its outbox and its wallet client."""

    def __init__(
        self,
        store: Store,
        clock: HandClock,
        wallet: ScriptedWallet,
        *,
        max_attempts: int,
        breaker: Breaker,
        tracer: Tracer | None = None,
        **options: Any,
    ) -> None:
        """`options`: further arguments of the outbox."""
        self.store = store
        self.clock = clock
        self.wallet = wallet
        self.jitter = Jitter()
        self.lanes = _Lanes(store, clock, new_id, self._publish, tracer=tracer)
        self.queries = Queries(store, self.lanes)
        self.client = Wallet(
            base_url="http://wallet.test",
            api_token=API_TOKEN,
            queue_secret=QUEUE_SECRET,
            timeout_seconds=TIMEOUT_SECONDS,
            clock=clock,
            transport=wallet,
        )
        self.outbox = Outbox(
            lanes=self.lanes,
            queries=self.queries,
            wallet=self.client,
            breaker=breaker,
            clock=clock,
            random=self.jitter,
            max_attempts=max_attempts,
            retry_base_seconds=RETRY_BASE_SECONDS,
            retry_max_seconds=RETRY_MAX_SECONDS,
            timeout_seconds=TIMEOUT_SECONDS,
            tracer=tracer,
            **options,
        )

    def _publish(self, outcomes: Sequence[Outcome]) -> None:
        if any(outcome.operation is not None for outcome in outcomes):
            self.outbox.wake()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Run the outbox inside the block; it must stop at the end."""
        task = asyncio.create_task(self.outbox.run())
        try:
            yield task
        finally:
            await stopped(task)

    # Commands in the room

    async def intake(self, **fields: Any) -> Item:
        number = int(new_id()[:8], 16)
        draft = build_item(number, **{"performer_id": f"star-{number}", **fields})
        return _item(await self.lanes.send(draft.performer_id, do.Intake(actor=FEATURE, item=draft)))

    async def finished(self, *, refund_tokens: int | None = None, **fields: Any) -> Item:
        """A finished item: its settlement, or its split, is ordered."""
        item = await self.intake(**fields)
        await self.lanes.send(item.performer_id, do.Start(actor=PERFORMER, item_id=item.item_id))
        complete = do.Complete(actor=PERFORMER, item_id=item.item_id, refund_tokens=refund_tokens)
        return _item(await self.lanes.send(item.performer_id, complete))

    async def abandoned(self, **fields: Any) -> Item:
        item = await self.intake(**fields)
        abandon = do.Abandon(actor=PERFORMER, item_id=item.item_id, reason=Reason.PERFORMER_DECLINED)
        return _item(await self.lanes.send(item.performer_id, abandon))

    # Waiting and looking

    def later(self, seconds: float) -> None:
        """Move the clock and wake the outbox."""
        self.clock.wait(seconds)
        self.outbox.wake()

    async def attempted(self, count: int = 1) -> None:
        """Wait until the results of `count` more attempts are stored."""
        async with asyncio.timeout(WAIT_SECONDS):
            while count:
                command, _ = await self.lanes.answered.get()
                count -= isinstance(command, do.Confirm | do.Report)

    async def idle(self) -> None:
        """Wait until no attempt is under way."""
        await self.until(lambda: not any(task.get_name().startswith("wallet ") for task in asyncio.all_tasks()))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the loop run until `holds()`, for conditions without a signal."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds():
                await self.queries.run(reading.epoch)

    def item(self, item: Item) -> Item:
        with self.store.reading() as connection:
            found = reading.find_item(connection, item.item_id)
        assert found is not None
        return found

    def row(self, item: Item) -> Operation:
        with self.store.reading() as connection:
            found = wallet_operations.operation_of(connection, item.item_id)
        assert found is not None
        return found[0]

    def events(self, item: Item) -> list[Event]:
        return [
            event
            for event in stored_events(self.store, item.performer_id)
            if event.item is not None and event.item.item_id == item.item_id
        ]


@asynccontextmanager
async def stage_on(
    store: Store,
    clock: HandClock,
    wallet: ScriptedWallet,
    *,
    max_attempts: int = MAX_ATTEMPTS,
    breaker: Breaker | None = None,
    **options: Any,
) -> AsyncIterator[Stage]:
    # By default a breaker that never opens.
    chosen = breaker or Breaker(threshold=1000)
    stage = Stage(store, clock, wallet, max_attempts=max_attempts, breaker=chosen, **options)
    async with stage.client, stage.lanes:
        yield stage
    stage.queries.close()


async def stopped(task: "asyncio.Task[None]") -> None:
    """Cancel a task; fails if it does not end within WAIT_SECONDS."""
    task.cancel()
    _, goes_on = await asyncio.wait([task], timeout=WAIT_SECONDS)
    if goes_on:
        task.cancel()
        await asyncio.wait([task], timeout=WAIT_SECONDS)
        raise AssertionError("the task was cancelled and did not end")


def _item(outcome: Outcome) -> Item:
    assert outcome.item is not None
    return outcome.item
