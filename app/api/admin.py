"""Administration: all rooms, a search for items, the sockets that watch, and the wallet operations."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.actions import Actions
from app.api.callers import Callers
from app.api.parameters import (
    bad_parameter,
    idempotency_key_of,
    paging_of,
    performer_ids_of,
    search_words_of,
)
from app.api.responses import REPLAYED, json_response
from app.api.routing import route
from app.domain.operation import OperationStatus
from app.engine.queries import Queries
from app.server.middleware import body_of
from app.store import Store, reading, wallet_operations
from app.store.searching import search_items
from app.wire import admin_shapes, shapes
from app.wire.requests import (
    DisconnectRequest,
    EmptyRequest,
    ResolveRequest,
    RetryOperationsRequest,
    is_identifier,
    read_body,
)

OPERATIONS_PATH = "/v1/admin/wallet-operations"

log = logging.getLogger(__name__)


class Audience(Protocol):
    """The sockets of one room, over all processes."""

    @property
    def performer_id(self) -> str: ...
    @property
    def sockets(self) -> int: ...
    @property
    def lagging(self) -> int: ...
    @property
    def longest_lag_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    callers: Callers
    actions: Actions
    queries: Queries
    store: Store
    all_audiences: Callable[[], Awaitable[tuple[Sequence[Audience], int]]]
    """Returns the audience of every watched room, the most watched first, and the number of processes counted."""
    disconnect: Callable[[str | None, str | None], Awaitable[tuple[int, int]]]
    """Ends the sockets and event streams of a `sub` or of a performer's room in all processes; returns the number that
    this process has ended, and the number of processes that got the order."""

    async def disconnect_sockets(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        rights.may_administer(principal)
        body = read_body(DisconnectRequest, await body_of(request))
        sockets, processes, replayed = await self.actions.disconnect(
            principal, body.sub, body.performer_id, idempotency_key_of(request), self.disconnect
        )
        if not replayed:
            about = {"sub": body.sub, "performer_id": body.performer_id, "by": principal.sub, "sockets": sockets}
            log.info("sockets were disconnected by an administrator", extra=about)
        answer: admin_shapes.DisconnectedShape = {"sockets": sockets, "processes": processes}
        return json_response(answer, headers=REPLAYED if replayed else None)

    async def rooms(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        limit, skip = paging_of(request)
        page = await self.queries.run(
            lambda connection: reading.rooms_page(connection, self.store.policy, limit=limit, skip=skip)
        )
        rooms = [shapes.room_shape(room, self.store.epoch) for room in page.rows]
        listing: admin_shapes.RoomsPage = {"rooms": rooms, "total": page.total, "limit": limit, "skip": skip}
        return json_response(listing)

    async def items(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        words = search_words_of(request)
        limit, _ = paging_of(request)
        found = await self.queries.run_slow(lambda connection: search_items(connection, words, limit=limit))
        answer: admin_shapes.FoundItems = {
            "items": [shapes.whole_item(*await self.queries.position(item)) for item in found.items],
            "more": found.more,
            "lookedBackTo": found.looked_back_to,
            "limit": limit,
        }
        return json_response(answer)

    async def audiences(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        limit, skip = paging_of(request)
        wanted = set(performer_ids_of(request))
        audiences, processes = await self.all_audiences()
        found = [room for room in audiences if not wanted or room.performer_id in wanted]
        page: admin_shapes.AudiencesPage = {
            "audiences": [
                {
                    "performerId": room.performer_id,
                    "sockets": room.sockets,
                    "laggingSockets": room.lagging,
                    "longestLagSeconds": round(room.longest_lag_seconds, 3),
                }
                for room in found[skip : skip + limit]
            ],
            "total": len(found),
            "sockets": sum(room.sockets for room in found),
            "laggingSockets": sum(room.lagging for room in found),
            "processes": processes,
            "limit": limit,
            "skip": skip,
        }
        return json_response(page)

    async def wallet_operations(self, request: Request) -> Response:
        rights.may_administer(await self.callers.principal(request))
        limit, skip = paging_of(request)
        status = request.query_params.get("status")
        if status is not None and status not in [*OperationStatus]:
            raise bad_parameter("status", f"must be one of {', '.join(OperationStatus)}")
        item_id = request.query_params.get("itemId")
        if item_id is not None and not is_identifier(item_id):
            raise bad_parameter("itemId", "must be an item's id")
        page = await self.queries.run(
            lambda connection: wallet_operations.operations_page(
                connection, status=status, limit=limit, skip=skip, item_id=item_id
            )
        )
        operations = [admin_shapes.operation_shape(operation) for operation in page.rows]
        listing: admin_shapes.OperationsPage = {
            "operations": operations,
            "total": page.total,
            "limit": limit,
            "skip": skip,
        }
        return json_response(listing)

    async def retry_operation(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        read_body(EmptyRequest, await body_of(request))
        operation, replayed = await self.actions.retry_operation(
            principal, request.path_params["operationId"], idempotency_key_of(request)
        )
        return json_response(admin_shapes.operation_shape(operation), headers=REPLAYED if replayed else None)

    async def retry_operations(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        read_body(RetryOperationsRequest, await body_of(request))
        retried, replayed = await self.actions.retry_dead_operations(principal, idempotency_key_of(request))
        answer: admin_shapes.RetriedShape = {"retried": retried}
        return json_response(answer, headers=REPLAYED if replayed else None)

    async def resolve_operation(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        body = read_body(ResolveRequest, await body_of(request))
        operation, replayed = await self.actions.resolve_operation(
            principal, request.path_params["operationId"], body, idempotency_key_of(request)
        )
        return json_response(admin_shapes.operation_shape(operation), headers=REPLAYED if replayed else None)

    def routes(self) -> list[BaseRoute]:
        return [
            route("/v1/admin/rooms", GET=self.rooms),
            route("/v1/admin/items", GET=self.items),
            route("/v1/admin/audiences", GET=self.audiences),
            route("/v1/admin/sockets/disconnect", POST=self.disconnect_sockets),
            route(OPERATIONS_PATH, GET=self.wallet_operations),
            route(f"{OPERATIONS_PATH}/retry", POST=self.retry_operations),
            route(f"{OPERATIONS_PATH}/{{operationId}}/resolve", POST=self.resolve_operation),
            route(f"{OPERATIONS_PATH}/{{operationId}}/retry", POST=self.retry_operation),
        ]
