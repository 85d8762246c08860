"""Push notifications: the service's public key, and the subscriptions of a user's browsers."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.access import rights
from app.api.callers import Callers
from app.api.parameters import bad_parameter
from app.api.responses import json_response
from app.api.routing import route
from app.domain.errors import NotFound
from app.push.subscriptions import PushSubscriptions
from app.server.middleware import body_of
from app.wire import push_shapes as shapes
from app.wire.requests import PushSubscriptionRequest, is_identifier, read_body

PUSH_PATH = "/v1/push"
SUBSCRIPTION_PATH = f"{PUSH_PATH}/subscriptions/{{name}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    callers: Callers
    subscriptions: PushSubscriptions

    async def key(self, request: Request) -> Response:
        shape: shapes.PushShape = {"publicKey": self.subscriptions.public_key}
        return json_response(shape)

    async def subscribe(self, request: Request) -> Response:
        user_id = rights.push_user(await self.callers.principal(request))
        name = request.path_params["name"]
        if not is_identifier(name):
            raise bad_parameter("name", "must be 1 to 64 letters, digits, or characters of _ . : -")
        body = read_body(PushSubscriptionRequest, await body_of(request))
        stored = await self.subscriptions.store(
            user_id,
            name,
            endpoint=body.endpoint,
            p256dh=body.keys.p256dh,
            auth=body.keys.auth,
            language=body.language,
        )
        shape = shapes.push_subscription_shape(stored.subscription)
        if stored.is_new:
            return json_response(shape, status=201, headers={"Location": SUBSCRIPTION_PATH.format(name=name)})
        return json_response(shape)

    async def unsubscribe(self, request: Request) -> Response:
        user_id = rights.push_user(await self.callers.principal(request))
        name = request.path_params["name"]
        if not is_identifier(name):
            raise NotFound("There is no such push subscription.")
        await self.subscriptions.delete(user_id, name)
        return Response(status_code=204)

    def routes(self) -> list[BaseRoute]:
        return [
            route(PUSH_PATH, GET=self.key),
            route(SUBSCRIPTION_PATH, PUT=self.subscribe, DELETE=self.unsubscribe),
        ]
