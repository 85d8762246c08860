"""Analytics of a span of time over HTTP, for one room or for all."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.analytics import report, total_of
from app.api.callers import Callers
from app.api.parameters import performer_id_of, span_of
from app.api.responses import json_response
from app.api.routing import route
from app.engine.queries import Queries
from app.store import activity
from app.store.tables import milliseconds
from app.wire.commands import ROOM_PATH
from app.wire.report_shapes import Analytics


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    callers: Callers
    queries: Queries
    clock: Callable[[], datetime]

    async def of_room(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        performer_id = performer_id_of(request)
        rights.may_drive(principal, performer_id)
        await self.queries.existing_room(performer_id)
        return await self._report(request, performer_id)

    async def of_all_rooms(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        return await self._report(request, None)

    async def _report(self, request: Request, performer_id: str | None) -> Response:
        start, end = span_of(request, self.clock())

        def read(connection: Connection) -> Analytics:
            total = None
            if performer_id is None:
                total = activity.total(connection, milliseconds(start), milliseconds(end))
            if total is None:
                total = total_of(activity.lives(connection, start, end, performer_id), start, end)
            return report(total, start, end, performer_id)

        return json_response(await self.queries.run_slow(read))

    def routes(self) -> list[BaseRoute]:
        return [
            route(f"{ROOM_PATH}/analytics", GET=self.of_room),
            route("/v1/admin/analytics", GET=self.of_all_rooms),
        ]
