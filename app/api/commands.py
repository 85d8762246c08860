"""The endpoints of the commands in the table (`wire.commands`): one function for all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.actions import Actions
from app.api.callers import Callers
from app.api.parameters import idempotency_key_of, performer_id_of
from app.api.responses import outcome_response
from app.api.routing import route
from app.server.middleware import body_of
from app.store import Store
from app.wire.commands import ITEM_COMMANDS, START_NEXT, CommandSpec
from app.wire.requests import read_body


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    callers: Callers
    actions: Actions
    store: Store

    def endpoint(self, spec: CommandSpec) -> Callable[[Request], Awaitable[Response]]:
        """The function that answers a request for this command."""

        async def command(request: Request) -> Response:
            principal = await self.callers.principal(request)
            body = read_body(spec.request, await body_of(request))
            target = request.path_params["itemId"] if spec.is_about_item else performer_id_of(request)
            key = idempotency_key_of(request) if spec.method == "POST" else None
            outcome = await self.actions.command(principal, spec.name, target, body, key)
            return outcome_response(outcome, self.store.epoch)

        return command

    def routes(self) -> list[BaseRoute]:
        """All but the settings, which share their path with the queue."""
        return [route(spec.path, **{spec.method: self.endpoint(spec)}) for spec in (*ITEM_COMMANDS, START_NEXT)]
