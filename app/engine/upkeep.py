"""Slow work on the whole database in small batches, each a task of a lane, so that no command waits long for it."""

import asyncio
from datetime import datetime
from functools import partial

from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import Store, activity, compaction, pruning

PAUSE_SECONDS = 0.1
"""The pause between two batches, which leaves most of the time to commands."""


async def compact_log(lanes: Lanes, store: Store, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Rewrite rows of an earlier release in the current layout, if no process of that release runs any more."""
    if not store.compact or await lanes.run(compaction.is_done):
        return
    more = True
    while more:
        more = await lanes.run(compaction.compact_batch)
        await asyncio.sleep(pause_seconds)
    await asyncio.to_thread(compaction.finish, store.engines.writer)
    await lanes.run(compaction.mark_done)


async def prune(lanes: Lanes, cutoff: datetime, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Delete everything that ended before the cutoff, answers first."""
    answer: tuple[str, str] | None = ("", "")
    while answer is not None:
        answer = await lanes.run(partial(pruning.prune_answers, cutoff=cutoff, after=answer))
        await asyncio.sleep(pause_seconds)
    item: str | None = ""
    cutoff = await lanes.run(partial(pruning.held_back, cutoff=cutoff))
    while item is not None:
        item = await lanes.run(partial(pruning.prune_items, cutoff=cutoff, after=item))
        await asyncio.sleep(pause_seconds)


async def count_activity(queries: Queries, lanes: Lanes, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Count the log's new events. The pool for slow queries reads and adds up; the lane only writes the sums."""
    while (batch := await queries.run_slow(activity.next_batch)) is not None:
        await lanes.run(partial(activity.add, batch=batch))
        if batch.is_last:
            return
        await asyncio.sleep(pause_seconds)
