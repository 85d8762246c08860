"""Rooms: a performer's queue, its depth, its settings and its history."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.access import rights
from app.api.callers import Callers
from app.api.commands import Commands
from app.api.methods import by_method
from app.api.parameters import paging_of, performer_id_of
from app.api.responses import json_response
from app.engine.queries import Queries
from app.server.middleware import Endpoint
from app.store import Store, reading
from app.wire import shapes
from app.wire.commands import ROOM_PATH, SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    callers: Callers
    commands: Commands
    queries: Queries
    store: Store

    async def queue(self, request: Request) -> Response:
        principal = await self.callers.viewer(request)
        performer_id = performer_id_of(request)
        room = await self.queries.existing_room(performer_id)
        queue: shapes.QueueShape = {
            "room": shapes.room_shape(room, self.store.epoch),
            "items": shapes.queue_items(room, rights.view_of(principal, performer_id)),
        }
        return json_response(queue)

    async def depth(self, request: Request) -> Response:
        await self.callers.viewer(request)
        room = await self.queries.existing_room(performer_id_of(request))
        depth: shapes.DepthShape = {
            "performerId": room.performer_id,
            "depth": room.depth,
            "maxDepth": room.max_depth,
        }
        return json_response(depth)

    async def history(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        performer_id = performer_id_of(request)
        rights.may_drive(principal, performer_id)
        limit, skip = paging_of(request)
        await self.queries.existing_room(performer_id)
        page = await self.queries.run(
            lambda connection: reading.ended_items(connection, performer_id, limit=limit, skip=skip)
        )
        items = [shapes.whole_item(item, 0) for item in page.rows]
        history: shapes.ItemsPage = {"items": items, "total": page.total, "limit": limit, "skip": skip}
        return json_response(history)

    def routes(self) -> list[BaseRoute]:
        return [
            by_method(ROOM_PATH, GET=self.queue, PATCH=self.commands.endpoint(SETTINGS)),
            Route(f"{ROOM_PATH}/depth", Endpoint(self.depth), methods=["GET"]),
            Route(f"{ROOM_PATH}/history", Endpoint(self.history), methods=["GET"]),
        ]
