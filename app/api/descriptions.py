"""The endpoints by which the service tells about itself: its interfaces, and its figures for Prometheus."""

import asyncio
from collections.abc import Callable
from functools import cache
from threading import Lock

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.api.callers import Callers
from app.metrics.registry import CONTENT_TYPE, Metrics
from app.server.middleware import Endpoint
from app.specs import asyncapi, openapi, typescript
from app.wire.encoding import encode


def routes(metrics: Metrics, callers: Callers) -> list[BaseRoute]:
    async def figures(request: Request) -> Response:
        await callers.check_operator(request)
        return Response(await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return [
        Route("/metrics", Endpoint(figures), methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/asyncapi.json", _asyncapi, methods=["GET"]),
        # Beside the hand-written declarations of static/v1/, which import it.
        Route("/static/v1/protocol.d.ts", _typescript, methods=["GET"]),
    ]


async def _openapi(request: Request) -> Response:
    return await _described(openapi.document)


async def _asyncapi(request: Request) -> Response:
    return await _described(asyncapi.document)


async def _typescript(request: Request) -> Response:
    response = await _described(typescript.declarations, "text/plain")
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def _described(document: Callable[[], object], media_type: str = "application/json") -> Response:
    # In a thread: to make it takes longer than the event loop may be held.
    return Response(await asyncio.to_thread(written, document), media_type=media_type)


# A page that shows both asks for them at once. They are made one after the other: pydantic parses the shapes' source
# for its docstrings, and up to Python 3.11.7 and 3.12.1 two threads that parse can fail each other with "AST
# constructor recursion depth mismatch" (python/cpython#106905).
_making = Lock()


def written(document: Callable[[], object]) -> bytes:
    """The document as JSON, or as the text that it is. Made when it is first asked for, by one thread at a time."""
    with _making:
        return _made(document)


@cache
def _made(document: Callable[[], object]) -> bytes:
    made = document()
    return made.encode() if isinstance(made, str) else encode(made)
