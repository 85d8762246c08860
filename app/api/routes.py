"""The HTTP endpoints: each reads its request, asks one thing of `actions` or `reader`, and shapes the answer.

The table at the end is the whole public surface.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

from app.access import rights
from app.access.auth import Authenticator, Principal
from app.actions import Actions
from app.api.analytics import analyse
from app.api.event_stream import EventLog, Selection
from app.api.parameters import (
    DEFAULT_LIMIT,
    bad_parameter,
    header_of,
    idempotency_key_of,
    instant_of,
    paging_of,
    performer_id_of,
    performer_ids_of,
    wants_stream,
    whole_number,
)
from app.domain.errors import NotFound, QueueError, Unauthorized
from app.domain.item import Item
from app.domain.room import Room
from app.engine.queries import Queries
from app.engine.writer import Outcome
from app.live.connections import Audiences
from app.live.sockets import Sockets
from app.server.http_protocol import EXTENSION
from app.server.middleware import Endpoint, Json, body_of
from app.server.problems import problem_response
from app.store import Store, reading
from app.wire import shapes
from app.wire.commands import ITEM_COMMANDS, ITEM_PATH, ROOM_PATH, SETTINGS, START_NEXT, CommandSpec
from app.wire.encoding import encode
from app.wire.requests import EmptyRequest, IntakeRequest, SettingsRequest, is_identifier, read_body

DEFAULT_SPAN = timedelta(days=1)
LONGEST_SPAN = timedelta(days=31)
LONGEST_CHECK_SECONDS = 2.0
"""How long the database may take to show that it is there."""
REPLAYED = (b"idempotent-replayed", b"true")


class Api:
    """The endpoints, over the parts of the service they need."""

    def __init__(
        self,
        *,
        store: Store,
        queries: Queries,
        event_log: EventLog,
        audiences: Audiences,
        actions: Actions,
        authenticator: Authenticator,
        clock: Callable[[], datetime],
        public_rooms: bool,
        intakes: Counter[str],
        dependencies: Mapping[str, Callable[[], bool]],
    ) -> None:
        """`intakes` are counted into, by result: queued, replayed or the code of the refusal. `dependencies`: by name,
        whether what the service can do without for a while is well."""
        self._store = store
        self._queries = queries
        self._event_log = event_log
        self._audiences = audiences
        self._actions = actions
        self._authenticator = authenticator
        self._clock = clock
        self._public_rooms = public_rooms
        self._intakes = intakes
        self._dependencies = dependencies

    # Items

    async def intake(self, request: Request) -> Response:
        principal = await self._principal(request)
        try:
            body = read_body(IntakeRequest, await body_of(request))
            outcome = await self._actions.intake(principal, body, idempotency_key_of(request))
        except QueueError as refusal:
            self._intakes[refusal.code] += 1
            raise
        self._intakes["replayed" if outcome.replayed else "queued"] += 1
        where = () if outcome.item is None else ((b"location", b"/v1/queue/items/" + outcome.item.item_id.encode()),)
        return self._answer(outcome, status=200 if outcome.replayed else 201, headers=where)

    async def item(self, request: Request) -> Response:
        item, room = await self._readable_item(request)
        return _json(shapes.whole_item(item, room.position(item.item_id)))

    async def position(self, request: Request) -> Response:
        item, room = await self._readable_item(request)
        # Those behind do not matter.
        waits = room.waits(self._clock(), room.position(item.item_id))
        return _json(shapes.position_shape(room, item, waits))

    async def transitions(self, request: Request) -> Response:
        item, _ = await self._readable_item(request)
        events = await self._queries.run(lambda connection: reading.item_events(connection, item.item_id))
        return _json(shapes.transitions_shape(events))

    async def command(self, spec: CommandSpec, request: Request) -> Response:
        principal = await self._principal(request)
        body = read_body(spec.request, await body_of(request))
        target = request.path_params["itemId"] if spec.is_about_item else performer_id_of(request)
        outcome = await self._actions.command(principal, spec.name, target, body, idempotency_key_of(request))
        return self._answer(outcome)

    async def _readable_item(self, request: Request) -> tuple[Item, Room]:
        principal = await self._principal(request)
        item, room = await self._queries.item(request.path_params["itemId"])
        rights.may_read_item(principal, item.performer_id, item.user_id, item.source_feature)
        return item, room

    # Rooms

    async def room(self, request: Request) -> Response:
        """Both of a room's methods are one route, so that a refused method is told of both."""
        return await (self.change_settings(request) if request.method == "PATCH" else self.queue(request))

    async def queue(self, request: Request) -> Response:
        principal = await self._viewer(request)
        performer_id = performer_id_of(request)
        room = await self._queries.existing_room(performer_id)
        view = rights.view_of(principal, performer_id)
        queue: shapes.QueueShape = {
            "room": shapes.room_shape(room, self._store.epoch),
            "items": shapes.queue_items(room, view),
        }
        return _json(queue)

    async def depth(self, request: Request) -> Response:
        await self._viewer(request)
        room = await self._queries.existing_room(performer_id_of(request))
        depth: shapes.DepthShape = {
            "performerId": room.performer_id,
            "depth": room.depth,
            "maxDepth": room.max_depth,
        }
        return _json(depth)

    async def change_settings(self, request: Request) -> Response:
        principal = await self._principal(request)
        body = read_body(SettingsRequest, await body_of(request))
        outcome = await self._actions.command(principal, SETTINGS.name, performer_id_of(request), body)
        return _json(shapes.room_shape(outcome.room, self._store.epoch))

    async def history(self, request: Request) -> Response:
        principal = await self._principal(request)
        performer_id = performer_id_of(request)
        rights.may_drive(principal, performer_id)
        limit, skip = paging_of(request)
        await self._queries.existing_room(performer_id)
        page = await self._queries.run(
            lambda connection: reading.ended_items(connection, performer_id, limit=limit, skip=skip)
        )
        items = [shapes.whole_item(item, 0) for item in page.rows]
        history: shapes.ItemsPage = {"items": items, "total": page.total, "limit": limit, "skip": skip}
        return _json(history)

    async def analytics(self, request: Request) -> Response:
        principal = await self._principal(request)
        performer_id = request.path_params.get("performerId")
        if performer_id is None:
            rights.may_administer(principal)
        else:
            rights.may_drive(principal, performer_id)
            await self._queries.existing_room(performer_id)
        start, end = self._span(request)
        figures = await self._queries.run(
            lambda connection: analyse(
                reading.items_of_span(connection, start, end, performer_id), start, end, performer_id
            )
        )
        return _json(figures)

    def _span(self, request: Request) -> tuple[datetime, datetime]:
        """`from` and `to`: by default the last day."""
        end = instant_of(request, "to") or self._clock()
        start = instant_of(request, "from") or end - DEFAULT_SPAN
        if not start < end <= start + LONGEST_SPAN:
            raise bad_parameter("from", f"must be before to, by at most {LONGEST_SPAN.days} days")
        return start, end

    # Users and the log

    async def user_items(self, request: Request) -> Response:
        principal = await self._principal(request)
        user_id = request.path_params["userId"]
        rights.may_read_user(principal, user_id)
        if not is_identifier(user_id):
            raise NotFound("There is no such user.")
        limit, skip = paging_of(request)
        page = await self._queries.run(
            lambda connection: reading.items_of_user(connection, user_id, limit=limit, skip=skip)
        )
        items = []
        for item in page.rows:
            if item.is_active:
                # Its place is the room's to say; and it may have ended since its row was read.
                item, room = await self._queries.item(item.item_id)
                items.append(shapes.whole_item(item, room.position(item.item_id)))
            else:
                items.append(shapes.whole_item(item, 0))
        history: shapes.ItemsPage = {"items": items, "total": page.total, "limit": limit, "skip": skip}
        return _json(history)

    async def events(self, request: Request) -> Response:
        principal = await self._principal(request)
        performer_id, feature = rights.events_scope(principal, request.query_params.get("performerId"))
        if performer_id is not None and not is_identifier(performer_id):
            raise bad_parameter("performerId", "must be a performer's id")
        selection = Selection(performer_id=performer_id, source_feature=feature)
        after = request.query_params.get("after")
        if wants_stream(request):
            return await self._stream(request, principal, selection, after)
        limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, 1000)
        try:
            logged = await self._event_log.page(selection, after, limit)
        except ValueError:
            raise bad_parameter("after", "must be a cursor that this log has given") from None
        page: shapes.EventsPage = {
            "events": [shapes.logged_event(entry) for entry in logged],
            "next": logged[-1].cursor if logged else after,
        }
        return _json(page)

    async def _stream(
        self, request: Request, principal: Principal, selection: Selection, after: str | None
    ) -> Response:
        abort = request.scope.get("extensions", {}).get(EXTENSION)
        # A reader that comes back repeats its address and says in the header how far it has got.
        seen = request.headers.get("last-event-id")
        try:
            return await self._event_log.stream(selection, seen or after, until=principal.expires_at, abort=abort)
        except ValueError:
            name = "Last-Event-ID" if seen else "after"
            raise bad_parameter(name, "must be a cursor that this log has given") from None

    # Administration

    async def rooms(self, request: Request) -> Response:
        rights.may_administer(await self._principal(request))
        limit, skip = paging_of(request)
        page = await self._queries.run(
            lambda connection: reading.rooms_page(connection, self._store.policy, limit=limit, skip=skip)
        )
        rooms = [shapes.room_shape(room, self._store.epoch) for room in page.rows]
        listing: shapes.RoomsPage = {"rooms": rooms, "total": page.total, "limit": limit, "skip": skip}
        return _json(listing)

    async def audiences(self, request: Request) -> Response:
        rights.may_administer(await self._principal(request))
        limit, skip = paging_of(request)
        wanted = set(performer_ids_of(request))
        everywhere, processes = await self._audiences.everywhere()
        found = [audience for audience in everywhere if not wanted or audience.performer_id in wanted]
        page: shapes.AudiencesPage = {
            "audiences": [
                {
                    "performerId": audience.performer_id,
                    "sockets": audience.sockets,
                    "laggingSockets": audience.lagging,
                    "longestLagSeconds": round(audience.longest_lag_seconds, 3),
                }
                for audience in found[skip : skip + limit]
            ],
            "total": len(found),
            "sockets": sum(audience.sockets for audience in found),
            "laggingSockets": sum(audience.lagging for audience in found),
            "processes": processes,
            "limit": limit,
            "skip": skip,
        }
        return _json(page)

    async def wallet_operations(self, request: Request) -> Response:
        rights.may_administer(await self._principal(request))
        limit, skip = paging_of(request)
        status = request.query_params.get("status")
        if status not in (None, "pending", "retrying", "done", "dead"):
            raise bad_parameter("status", "must be pending, retrying, done or dead")
        page = await self._queries.run(
            lambda connection: reading.operations_page(connection, status=status, limit=limit, skip=skip)
        )
        operations = [shapes.operation_shape(operation) for operation in page.rows]
        listing: shapes.OperationsPage = {
            "operations": operations,
            "total": page.total,
            "limit": limit,
            "skip": skip,
        }
        return _json(listing)

    async def retry_operation(self, request: Request) -> Response:
        principal = await self._principal(request)
        read_body(EmptyRequest, await body_of(request))
        operation, replayed = await self._actions.retry_operation(
            principal, request.path_params["operationId"], idempotency_key_of(request)
        )
        return _json(shapes.operation_shape(operation), headers=(REPLAYED,) if replayed else ())

    # Health

    async def healthz(self, request: Request) -> Response:
        alive: shapes.HealthShape = {"status": "ok"}
        return _json(alive)

    async def readyz(self, request: Request) -> Response:
        checks = {"database": "ok"}
        try:
            async with asyncio.timeout(LONGEST_CHECK_SECONDS):
                await self._queries.run(reading.epoch)
        except Exception:
            # Whatever keeps the database from answering, this process is not ready.
            checks["database"] = "unreachable"
        for name, is_well in self._dependencies.items():
            checks[name] = "ok" if is_well() else "degraded"
        body: shapes.ReadinessShape = {"status": _readiness(checks), "checks": checks}
        return _json(body, status=200 if checks["database"] == "ok" else 503)

    # Shared

    async def _principal(self, request: Request) -> Principal:
        scheme, _, token = (header_of(request, b"authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("A bearer token is needed (Authorization: Bearer …).")
        principal = await self._authenticator.principal(token.strip())
        request.scope["state"]["principal"] = principal
        return principal

    async def _viewer(self, request: Request) -> Principal | None:
        """Whoever looks at a room; with public rooms nobody needs to say who they are."""
        if self._public_rooms and header_of(request, b"authorization") is None:
            return None
        return await self._principal(request)

    def _answer(
        self, outcome: Outcome, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> Response:
        """The item a command was about, as it is after it."""
        if outcome.item is None:
            return _json(shapes.room_shape(outcome.room, self._store.epoch), status=status)
        if outcome.replayed:
            headers = (*headers, REPLAYED)
        return _json(shapes.whole_item(outcome.item, outcome.position), status=status, headers=headers)

    async def refuse(self, scope: Scope, refusal: QueueError) -> Response:
        """A refusal as a problem document, with the item it is about where the caller may see that."""
        principal: Principal | None = scope["state"].get("principal")
        return problem_response(refusal, await self._actions.item_of(principal, refusal))

    def routes(self, sockets: Sockets) -> list[BaseRoute]:
        room, item = ROOM_PATH, ITEM_PATH
        return [
            # Tried from the top, so what is asked all the time comes first.
            Route("/v1/queue/items", Endpoint(self.intake), methods=["POST"]),
            Route(f"{item}/position", Endpoint(self.position), methods=["GET"]),
            Route(room, Endpoint(self.room), methods=["GET", "PATCH"]),
            Route(item, Endpoint(self.item), methods=["GET"]),
            Route(f"{item}/transitions", Endpoint(self.transitions), methods=["GET"]),
            *(
                Route(spec.path, Endpoint(partial(self.command, spec)), methods=["POST"], name=spec.name)
                for spec in (*ITEM_COMMANDS, START_NEXT)
            ),
            Route(f"{room}/depth", Endpoint(self.depth), methods=["GET"]),
            Route(f"{room}/history", Endpoint(self.history), methods=["GET"]),
            Route(f"{room}/analytics", Endpoint(self.analytics), methods=["GET"]),
            Route("/v1/users/{userId}/queue/items", Endpoint(self.user_items), methods=["GET"]),
            Route("/v1/events", Endpoint(self.events), methods=["GET"]),
            Route("/v1/admin/rooms", Endpoint(self.rooms), methods=["GET"]),
            Route("/v1/admin/audiences", Endpoint(self.audiences), methods=["GET"]),
            Route("/v1/admin/analytics", Endpoint(self.analytics), methods=["GET"]),
            Route("/v1/admin/wallet-operations", Endpoint(self.wallet_operations), methods=["GET"]),
            Route("/v1/admin/wallet-operations/{operationId}/retry", Endpoint(self.retry_operation), methods=["POST"]),
            Route("/healthz", Endpoint(self.healthz), methods=["GET"]),
            Route("/readyz", Endpoint(self.readyz), methods=["GET"]),
            WebSocketRoute(f"{room}/live", sockets.live),
        ]


def _readiness(checks: Mapping[str, str]) -> Literal["ok", "degraded", "unavailable"]:
    if checks["database"] != "ok":
        return "unavailable"
    return "ok" if all(state == "ok" for state in checks.values()) else "degraded"


def _json(value: Any, *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    return Json(encode(value), status, headers)
