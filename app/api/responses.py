"""Responses: JSON, the outcome of a command, and errors with the item that they are about."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from app.actions import Actions
from app.api.callers import known_principal
from app.domain.errors import QueueError
from app.engine.jobs import Outcome
from app.server.problems import problem_response
from app.wire import shapes
from app.wire.encoding import encode

REPLAYED = {"Idempotent-Replayed": "true"}
"""The header of a response that was given to the same idempotency key before."""


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode(value), status, headers, media_type="application/json")


def outcome_response(
    outcome: Outcome, epoch: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The response to a command: its item as it is afterwards, or the room if it was about no item."""
    if outcome.item is None:
        return json_response(shapes.room_shape(outcome.room, epoch), status=status)
    item = shapes.whole_item(outcome.item, outcome.position)
    return json_response(item, status=status, headers={**(headers or {}), **(REPLAYED if outcome.replayed else {})})


class ErrorResponses:
    """Responses to requests that a QueueError has ended."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    async def response(self, scope: Scope, refusal: QueueError) -> Response:
        """A problem document, with the item that the refusal is about if the caller may see it."""
        return problem_response(refusal, await self._actions.item_of(known_principal(scope), refusal))
