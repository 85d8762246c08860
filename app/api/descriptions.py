"""The endpoints that describe the service: its API documents, and its metrics for Prometheus."""

from collections.abc import Awaitable, Callable, Mapping
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.api.callers import Callers
from app.api.routing import route
from app.metrics.registry import CONTENT_TYPE, Metrics
from app.specs import asyncapi, openapi, typescript
from app.wire.encoding import encode

NO_HEADERS: Mapping[str, str] = {}
TO_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*", "X-Content-Type-Options": "nosniff"}


def routes(metrics: Metrics, callers: Callers) -> list[BaseRoute]:
    async def scrape(request: Request) -> Response:
        await callers.check_operator(request)
        return Response(await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return [
        route("/metrics", GET=scrape),
        route("/openapi.json", GET=_answers(openapi.document)),
        route("/asyncapi.json", GET=_answers(asyncapi.document)),
        # The hand-written declarations of static/v1/ import it from there, also for pages of other origins.
        route("/static/v1/protocol.d.ts", GET=_answers(typescript.declarations, "text/plain", TO_ANY_ORIGIN)),
    ]


def _answers(
    document: Callable[[], object], media_type: str = "application/json", headers: Mapping[str, str] = NO_HEADERS
) -> Callable[[Request], Awaitable[Response]]:
    content = made(document)

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=headers)

    return answer


# Saves all of their CPU in a further application of the process (`bench --without documents`).
@cache
def made(document: Callable[[], object]) -> bytes:
    """The document as bytes: a text as it is, anything else as JSON. Made when the service starts: it takes 0.1 to
    0.2 s of CPU, which would delay all requests at that moment, even in a thread."""
    described = document()
    return described.encode() if isinstance(described, str) else encode(described)
