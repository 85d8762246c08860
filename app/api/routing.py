"""Routes of endpoints: one for all methods of a path."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.server.whole_response import Endpoint

Handle = Callable[[Request], Awaitable[Response]]


def route(path: str, **endpoints: Handle) -> Route:
    """A route with an endpoint for each method (the keyword); GET answers HEAD as well. A refused method's Allow header
    names them all: two Routes with one path would name only the methods of the first."""

    async def by_method(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    handle = by_method if len(endpoints) > 1 else next(iter(endpoints.values()))
    return Route(path, Endpoint(handle), methods=[*endpoints])
