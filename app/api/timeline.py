"""A room's timeline over HTTP: the events of a span with actor, reason, quoted wait and moved tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.callers import Callers
from app.api.parameters import performer_id_of, span_of, whole_number
from app.api.responses import json_response
from app.api.routing import route
from app.engine.queries import Queries
from app.store.timeline import events_of_span
from app.wire.commands import ROOM_PATH
from app.wire.paging import DEFAULT_LIMIT, LARGEST_EVENTS_LIMIT, LARGEST_VERSION
from app.wire.timeline_shapes import TimelineShape, timeline_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    callers: Callers
    queries: Queries
    clock: Callable[[], datetime]

    async def of_room(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        performer_id = performer_id_of(request)
        rights.may_drive(principal, performer_id)
        start, end = span_of(request, self.clock())
        limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, LARGEST_EVENTS_LIMIT)
        after = whole_number(request, "afterVersion", 0, 0, LARGEST_VERSION) or None
        await self.queries.existing_room(performer_id)
        events, more = await self.queries.run_slow(
            lambda connection: events_of_span(connection, performer_id, start, end, after=after, limit=limit)
        )
        timeline: TimelineShape = {
            "performerId": performer_id,
            "from": start,
            "to": end,
            "steps": timeline_steps(events),
            "next": events[-1].version if more else None,
        }
        return json_response(timeline)

    def routes(self) -> list[BaseRoute]:
        return [route(f"{ROOM_PATH}/timeline", GET=self.of_room)]
