"""Minimal applications for tests of the supervisor. A worker imports them by name."""

import os
import time
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.server.admission import Admission
from app.server.limits import Limits


async def process_id(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()), headers={"Connection": "close"})


def working() -> Starlette:
    """Answers `/` with the id of its process."""

    async def drain() -> None:
        pass

    app = Starlette(routes=[Route("/", process_id)])
    app.state = SimpleNamespace(drain=drain, admission=Admission(Limits(), now=time.monotonic))  # type: ignore[assignment]
    return app


def broken() -> Starlette:
    """Raises RuntimeError: an application that cannot be made."""
    raise RuntimeError("no database")
