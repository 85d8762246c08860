"""Webhook endpoints: where a feature's events, or all of them, are delivered."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.callers import Callers
from app.api.parameters import bad_parameter, source_feature_of, whole_number
from app.api.responses import json_response
from app.api.routing import route
from app.domain.errors import NotFound
from app.domain.webhook import ADMINISTRATORS
from app.server.middleware import body_of
from app.webhooks.endpoints import WebhookEndpoints
from app.wire import webhook_shapes as shapes
from app.wire.paging import DEFAULT_LIMIT, LARGEST_DELIVERIES_LIMIT
from app.wire.requests import EmptyRequest, WebhookRequest, is_identifier, read_body

WEBHOOKS_PATH = "/v1/webhooks"
WEBHOOK_PATH = f"{WEBHOOKS_PATH}/{{name}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    callers: Callers
    endpoints: WebhookEndpoints

    async def register(self, request: Request) -> Response:
        owner, name = await self._address(request)
        body = read_body(WebhookRequest, await body_of(request))
        registered = await self.endpoints.register(
            owner,
            name,
            body.url,
            None if body.events is None else tuple(dict.fromkeys(body.events)),
            rotate_secret=body.rotate_secret,
        )
        shape = shapes.webhook_shape(registered.endpoint, registered.secret)
        if registered.is_new:
            return json_response(shape, status=201, headers={"Location": f"{WEBHOOKS_PATH}/{name}"})
        return json_response(shape)

    async def webhook(self, request: Request) -> Response:
        return json_response(shapes.webhook_shape(await self.endpoints.find(*await self._address(request))))

    async def delete(self, request: Request) -> Response:
        await self.endpoints.delete(*await self._address(request))
        return Response(status_code=204)

    async def webhooks(self, request: Request) -> Response:
        """A feature's own endpoints; for an administrator everybody's, or those of the feature that the query names."""
        principal = await self.callers.principal(request)
        owner = rights.webhook_owner(principal, source_feature_of(request), everybody=True)
        listing: shapes.WebhooksShape = {
            "webhooks": [shapes.webhook_shape(endpoint) for endpoint in await self.endpoints.all_of(owner)]
        }
        return json_response(listing)

    async def deliveries(self, request: Request) -> Response:
        owner, name = await self._address(request)
        limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, LARGEST_DELIVERIES_LIMIT)
        return json_response(shapes.deliveries_shape(await self.endpoints.deliveries(owner, name, limit)))

    async def test(self, request: Request) -> Response:
        owner, name = await self._address(request)
        read_body(EmptyRequest, await body_of(request))
        return json_response(shapes.delivery_shape(await self.endpoints.test(owner, name)))

    async def resume(self, request: Request) -> Response:
        owner, name = await self._address(request)
        read_body(EmptyRequest, await body_of(request))
        return json_response(shapes.webhook_shape(await self.endpoints.resume(owner, name)))

    async def _address(self, request: Request) -> tuple[str, str]:
        """Owner and name of the endpoint that a request is about."""
        principal = await self.callers.principal(request)
        owner = rights.webhook_owner(principal, source_feature_of(request))
        name = request.path_params["name"]
        if not is_identifier(name):
            if request.method == "PUT":
                raise bad_parameter("name", "must be 1 to 64 letters, digits, or characters of _ . : -")
            raise NotFound("There is no such webhook endpoint.")
        return owner or ADMINISTRATORS, name

    def routes(self) -> list[BaseRoute]:
        return [
            route(WEBHOOKS_PATH, GET=self.webhooks),
            route(WEBHOOK_PATH, GET=self.webhook, PUT=self.register, DELETE=self.delete),
            route(f"{WEBHOOK_PATH}/deliveries", GET=self.deliveries),
            route(f"{WEBHOOK_PATH}/test", POST=self.test),
            route(f"{WEBHOOK_PATH}/resume", POST=self.resume),
        ]
