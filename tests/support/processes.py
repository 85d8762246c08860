"""The parts of one process without its sockets, on a test's database, wired as `app.parts` wires them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from app.engine.jobs import Outcome
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.live.presence import Presence
from app.store import Store
from tests.support.stores import HandClock, new_id


@dataclass(eq=False, kw_only=True)
class Process:
    store: Store
    clock: HandClock
    lanes: Lanes
    queries: Queries
    presence: Presence
    outcomes: list[Outcome] = field(default_factory=list)
    """All published outcomes."""


@contextmanager
def no_room(lanes: Lanes) -> Iterator[None]:
    """Inside the block the mailboxes are full."""
    limit, lanes.limit = lanes.limit, 0
    try:
        yield
    finally:
        lanes.limit = limit


@asynccontextmanager
async def running(
    store: Store, clock: HandClock, process_id: str = "one", *, remembered_items: int = 1000
) -> AsyncIterator[Process]:
    def publish(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            process.outcomes.append(outcome)
            process.queries.observe(outcome.events)
            process.presence.observe(outcome)

    lanes = Lanes(store, clock, new_id, publish)
    process = Process(
        store=store,
        clock=clock,
        lanes=lanes,
        queries=Queries(store, lanes, remembered_items=remembered_items),
        presence=Presence(lanes, process_id, clock),
    )
    try:
        async with lanes:
            yield process
    finally:
        process.queries.close()
