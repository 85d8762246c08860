"""The estimated wait of a new item, and the recent accuracy of such estimates, for anybody who may watch the room."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.api.callers import Callers
from app.api.parameters import performer_id_of
from app.api.responses import json_response
from app.api.routing import route
from app.engine.queries import Queries
from app.store.estimates import estimate_errors
from app.wire.commands import ROOM_PATH
from app.wire.shapes import EstimateAccuracy, OutlookShape

LATELY = timedelta(hours=12)
"""About a night's show."""
LEAST_ITEMS = 10
"""With fewer, a share of them says little."""
MOST_ITEMS = 100
SHARE = 0.9
"""The share of the waits that `withinSeconds` covers."""
KEPT = timedelta(minutes=1)
KEPT_ROOMS = 1_000


class Accuracies:
    """The accuracy of each room, kept for a minute: a room that many watch is read once in that time. Saves three
    quarters of an outlook's CPU (`bench --without accuracies`)."""

    def __init__(self, *, limit: int = KEPT_ROOMS) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[datetime, EstimateAccuracy | None]] = OrderedDict()

    def is_known(self, performer_id: str, now: datetime) -> bool:
        kept = self._kept.get(performer_id)
        return kept is not None and now - kept[0] < KEPT

    def keep(self, performer_id: str, now: datetime, found: EstimateAccuracy | None) -> None:
        self._kept[performer_id] = now, found
        self._kept.move_to_end(performer_id)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def __getitem__(self, performer_id: str) -> EstimateAccuracy | None:
        return self._kept[performer_id][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    callers: Callers
    queries: Queries
    clock: Callable[[], datetime]
    accuracies: Accuracies = field(default_factory=Accuracies)

    async def of_room(self, request: Request) -> Response:
        await self.callers.viewer(request)
        room = await self.queries.existing_room(performer_id_of(request))
        now = self.clock()
        quote = room.quote(now)
        low_high = quote.range_seconds
        outlook: OutlookShape = {
            "performerId": room.performer_id,
            "estimatedWaitSeconds": round(quote.seconds),
            "estimatedWaitRange": [round(seconds) for seconds in low_high] if low_high else None,
            "accuracy": await self._accuracy(room.performer_id, now),
        }
        return json_response(outlook)

    async def _accuracy(self, performer_id: str, now: datetime) -> EstimateAccuracy | None:
        if self.accuracies.is_known(performer_id, now):
            return self.accuracies[performer_id]
        since = now - LATELY
        errors = await self.queries.run(
            lambda connection: estimate_errors(connection, performer_id, since=since, at_most=MOST_ITEMS)
        )
        found = accuracy(errors, since)
        self.accuracies.keep(performer_id, now, found)
        return found

    def routes(self) -> list[BaseRoute]:
        return [route(f"{ROOM_PATH}/outlook", GET=self.of_room)]


def accuracy(errors: list[float], since: datetime) -> EstimateAccuracy | None:
    """The accuracy of estimates by their errors in seconds; None if there are fewer than LEAST_ITEMS."""
    if len(errors) < LEAST_ITEMS:
        return None
    sizes = sorted(abs(error) for error in errors)
    within = sizes[ceil(len(sizes) * SHARE) - 1]
    return {"since": since, "count": len(sizes), "share": SHARE, "withinSeconds": ceil(within)}
