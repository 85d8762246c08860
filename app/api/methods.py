"""One route for all methods of a path."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def by_method(path: str, **endpoints: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route whose endpoint depends on the method (the keyword). A refused method's Allow header names them all.

    Two Routes with one path would name only the methods of the first.
    """

    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=[*endpoints])
