"""Rooms: a performer's queue, its depth, its settings and its history."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.callers import Callers
from app.api.commands import Commands
from app.api.parameters import paging_of, performer_id_of, whole_number
from app.api.responses import json_response
from app.api.routing import route
from app.domain.errors import NotFound
from app.engine.queries import Queries
from app.store import Store, reading
from app.store.replay import PrunedError, room_at
from app.wire import shapes
from app.wire.commands import ROOM_PATH, SETTINGS
from app.wire.paging import LARGEST_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    callers: Callers
    commands: Commands
    queries: Queries
    store: Store

    async def queue(self, request: Request) -> Response:
        """The room now, or with `version` as it was then."""
        if "version" in request.query_params:
            return await self._earlier_queue(request)
        principal = await self.callers.viewer(request)
        performer_id = performer_id_of(request)
        room = await self.queries.existing_room(performer_id)
        queue: shapes.QueueShape = {
            "room": shapes.room_shape(room, self.store.epoch),
            "items": shapes.queue_items(room, rights.view_of(principal, performer_id)),
        }
        return json_response(queue)

    async def _earlier_queue(self, request: Request) -> Response:
        """The room at an earlier version, with the rights of the event log: a feature gets only its own items, at their
        positions in the whole queue."""
        principal = await self.callers.principal(request)
        performer_id = performer_id_of(request)
        _, feature = rights.events_scope(principal, performer_id)
        version = whole_number(request, "version", 1, 1, LARGEST_VERSION)
        await self.queries.existing_room(performer_id)
        try:
            room = await self.queries.run(
                lambda connection: room_at(connection, self.store.policy, performer_id, version)
            )
        except PrunedError as pruned:
            raise NotFound(
                f"The log of this room reaches back to version {pruned.floor}; what was before has been pruned."
            ) from None
        if room is None:
            raise NotFound(f"This room has not been at version {version} yet.")
        queue: shapes.QueueShape = {
            "room": shapes.room_shape(room, self.store.epoch),
            "items": [
                shapes.whole_item(item, position)
                for position, item in enumerate(room.items, start=1)
                if feature in (None, item.source_feature)
            ],
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
            route(ROOM_PATH, GET=self.queue, PATCH=self.commands.endpoint(SETTINGS)),
            route(f"{ROOM_PATH}/depth", GET=self.depth),
            route(f"{ROOM_PATH}/history", GET=self.history),
        ]
