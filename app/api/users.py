"""Users: the items of one user, over all rooms."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.callers import Callers
from app.api.parameters import paging_of
from app.api.responses import json_response
from app.api.routing import route
from app.domain.errors import NotFound
from app.engine.queries import Queries
from app.store import reading
from app.wire import shapes
from app.wire.requests import is_identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    callers: Callers
    queries: Queries

    async def items(self, request: Request) -> Response:
        principal = await self.callers.principal(request)
        user_id = request.path_params["userId"]
        rights.may_read_user(principal, user_id)
        if not is_identifier(user_id):
            raise NotFound("There is no such user.")
        limit, skip = paging_of(request)
        page = await self.queries.run(
            lambda connection: reading.items_of_user(connection, user_id, limit=limit, skip=skip)
        )
        items = [shapes.whole_item(*await self.queries.position(item)) for item in page.rows]
        history: shapes.ItemsPage = {"items": items, "total": page.total, "limit": limit, "skip": skip}
        return json_response(history)

    def routes(self) -> list[BaseRoute]:
        return [route("/v1/users/{userId}/queue/items", GET=self.items)]
