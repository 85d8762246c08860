"""The event log over HTTP: by the page, or as a stream where the caller asks for one by its media type."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.access.auth import Principal
from app.api.callers import Callers
from app.api.event_stream import EventLog, Selection
from app.api.parameters import bad_parameter, wants_stream, whole_number
from app.api.responses import json_response
from app.api.routing import route
from app.server.http_protocol import ABORT_EXTENSION
from app.wire import shapes
from app.wire.paging import DEFAULT_LIMIT, LARGEST_EVENTS_LIMIT
from app.wire.requests import is_identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    callers: Callers
    log: EventLog

    async def events(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        performer_id, feature = rights.events_scope(principal, request.query_params.get("performerId"))
        if performer_id is not None and not is_identifier(performer_id):
            raise bad_parameter("performerId", "must be a performer's id")
        selection = Selection(performer_id=performer_id, source_feature=feature)
        if wants_stream(request):
            return await self._stream(request, principal, selection)
        return await self._page(request, selection)

    async def _page(self, request: Request, selection: Selection) -> Response:
        after = request.query_params.get("after")
        limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, LARGEST_EVENTS_LIMIT)
        try:
            logged = await self.log.page(selection, after, limit)
        except ValueError:
            raise bad_parameter("after", "must be a cursor that this log has given") from None
        page: shapes.EventsPage = {
            "events": [shapes.logged_event(entry) for entry in logged],
            "next": logged[-1].cursor if logged else after,
        }
        return json_response(page)

    async def _stream(self, request: Request, principal: Principal, selection: Selection) -> Response:
        abort = request.scope.get("extensions", {}).get(ABORT_EXTENSION)
        # A browser that comes back repeats the URL, `after` included; the header has the last event that it got.
        seen = request.headers.get("last-event-id")
        after = seen or request.query_params.get("after")
        try:
            return await self.log.stream(selection, after, until=principal.expires_at, sub=principal.sub, abort=abort)
        except ValueError:
            name = "Last-Event-ID" if seen else "after"
            raise bad_parameter(name, "must be a cursor that this log has given") from None

    def routes(self) -> list[BaseRoute]:
        return [route("/v1/events", GET=self.events)]
