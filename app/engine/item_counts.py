"""How many items there are in the queues, counted now and then: a scrape of the metrics must not wait for it."""

from collections.abc import Mapping
from math import nan

from app.engine.queries import Queries
from app.store import reading


class ItemCounts:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self.by_status: Mapping[str, float] = {"created": nan, "started": nan}
        """NaN before the first count."""

    async def refresh(self) -> None:
        """Count again. Called regularly. Raises Unavailable as Queries.run_slow does."""
        self.by_status = await self._queries.run_slow(reading.active_item_counts)
