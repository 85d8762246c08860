"""The endpoints by which the service tells about itself: its interfaces, and its figures for Prometheus."""

import asyncio
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app import asyncapi
from app.metrics import CONTENT_TYPE, Metrics
from app.openapi import document as openapi
from app.wire.encoding import encode


def routes(metrics: Metrics) -> list[BaseRoute]:
    async def figures(request: Request) -> Response:
        return Response(await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return [
        Route("/metrics", figures, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/asyncapi.json", _asyncapi, methods=["GET"]),
    ]


async def _openapi(request: Request) -> Response:
    return Response(await asyncio.to_thread(_openapi_document), media_type="application/json")


async def _asyncapi(request: Request) -> Response:
    return Response(await asyncio.to_thread(_asyncapi_document), media_type="application/json")


# Made once, in a thread: it takes longer than the event loop may be held.


@cache
def _openapi_document() -> bytes:
    return encode(openapi.document())


@cache
def _asyncapi_document() -> bytes:
    return encode(asyncapi.document())
