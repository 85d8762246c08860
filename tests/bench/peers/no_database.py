"""The ceiling: Starlette on uvicorn with the service's own validation and answers' shapes, and nothing behind them.

Run as `no_database.py PORT [edge]`. POST /v1/queue/items answers 201 after validation; GET of a position and of a queue
build and encode what the service would answer. With `edge` the same within the service's own outermost layer, and with
its check of the token where the service asks for one.
"""

import sys
from datetime import UTC, datetime, timedelta

import uuid_utils
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from app.access.auth import Authenticator
from app.domain.command import Actor, Role
from app.domain.decision import decide
from app.domain.errors import QueueError
from app.domain.room import Policy, Room
from app.domain.view import View
from app.server.middleware import ErrorMiddleware
from app.server.problems import problem_response
from app.settings import DEVELOPMENT_AUTH_SECRET
from app.wire import shapes
from app.wire.encoding import encode
from app.wire.requests import IntakeRequest, read_body

ACTOR = Actor(role=Role.FEATURE, id="bench")
AHEAD = 9


def now() -> datetime:
    return datetime.now(UTC)


authenticator = Authenticator(secret=DEVELOPMENT_AUTH_SECRET, clock=now)


async def intake(request: Request) -> Response:
    body = read_body(IntakeRequest, await request.body())
    item = body.command(ACTOR, item_id=str(uuid_utils.uuid7()), key=body.idempotency_key or "", at=now()).item
    return Response(encode(shapes.whole_item(item, 1)), 201, media_type="application/json")


async def intake_with_token(request: Request) -> Response:
    await check_token(request)
    return await intake(request)


async def position_with_token(request: Request) -> Response:
    await check_token(request)
    return await position(request)


async def check_token(request: Request) -> None:
    await authenticator.principal(request.headers["authorization"].removeprefix("Bearer "))


async def refuse(scope: Scope, refusal: QueueError) -> Response:
    return problem_response(refusal)


async def position(request: Request) -> Response:
    item = room.items[-1]
    return Response(encode(shapes.position_shape(room, item, waits)), media_type="application/json")


async def queue(request: Request) -> Response:
    answer = {"room": shapes.room_shape(room, "0" * 16), "items": shapes.queue_items(room, View.PUBLIC)}
    return Response(encode(answer), media_type="application/json")


def filled_room() -> Room:
    filled = Room(performer_id="room-0", policy=Policy())
    for number in range(AHEAD + 1):
        request = {
            "sourceFeature": "bench",
            "sourceEventId": f"e-{number}",
            "performerId": "room-0",
            "userId": f"u-{number}",
            "escrowTransactionId": f"x-{number}",
            "tokens": 10,
            "title": "A song",
            "description": "Any",
        }
        at = now().replace(microsecond=0) + timedelta(seconds=number)
        command = IntakeRequest.model_validate(request).command(ACTOR, item_id=f"i-{number}", key=f"k-{number}", at=at)
        filled = decide(filled, command, at).room
    return filled


room = filled_room()
waits = room.waits(now())
app_with_edge = Starlette(
    routes=[
        Route("/v1/queue/items", intake_with_token, methods=["POST"]),
        Route("/v1/queue/items/{itemId}/position", position_with_token),
        Route("/v1/performers/{performerId}/queue", queue),
    ],
    middleware=[Middleware(ErrorMiddleware, observe=lambda *seen: None, refuse=refuse, admit=lambda client: None)],
)
app = Starlette(
    routes=[
        Route("/v1/queue/items", intake, methods=["POST"]),
        Route("/v1/queue/items/{itemId}/position", position),
        Route("/v1/performers/{performerId}/queue", queue),
    ]
)

if __name__ == "__main__":
    chosen = app_with_edge if sys.argv[2:] == ["edge"] else app
    uvicorn.run(chosen, port=int(sys.argv[1]), log_level="warning", access_log=False, server_header=False, backlog=4096)
