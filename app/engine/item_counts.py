"""The numbers of items in the queues, counted periodically so that no scrape of the metrics waits for the count."""

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
        """Count again. Raises Unavailable as Queries.run_slow does."""
        self.by_status = await self._queries.run_slow(reading.active_item_counts)
