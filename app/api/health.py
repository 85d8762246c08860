"""Health: whether the process is alive, and whether its dependencies answer."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.api.callers import Callers
from app.api.responses import json_response
from app.api.routing import route
from app.domain.errors import QueueError
from app.engine.queries import Queries
from app.store import reading
from app.wire import shapes

LONGEST_CHECK_SECONDS = 2.0
"""How long the database may take to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    callers: Callers
    queries: Queries
    can_write: Callable[[], bool]
    """Whether the database has taken a heartbeat lately and its disk is not full."""
    dependencies: Mapping[str, Callable[[], bool]]
    """The dependencies that the service can do without for a while, by name: whether each is well."""

    async def healthz(self, request: Request) -> Response:
        alive: shapes.HealthShape = {"status": "ok"}
        return json_response(alive)

    async def readyz(self, request: Request) -> Response:
        checks = {"database": "ok"}
        try:
            async with asyncio.timeout(LONGEST_CHECK_SECONDS):
                await self.queries.run(reading.epoch)
        except Exception:
            # Whatever the failure is: without an answer of the database this process is not ready.
            checks["database"] = "unreachable"
        if checks["database"] == "ok" and not self.can_write():
            checks["database"] = "not writable"
        for name, is_well in self.dependencies.items():
            checks[name] = "ok" if is_well() else "degraded"
        body: shapes.ReadinessShape = {"status": _readiness(checks)}
        # A probe needs only the status; the checks tell a stranger too much about the service's inside.
        with suppress(QueueError):
            await self.callers.check_operator(request)
            body["checks"] = checks
        return json_response(body, status=200 if checks["database"] == "ok" else 503)

    def routes(self) -> list[BaseRoute]:
        return [
            route("/healthz", GET=self.healthz),
            route("/readyz", GET=self.readyz),
        ]


def _readiness(checks: Mapping[str, str]) -> Literal["ok", "degraded", "unavailable"]:
    if checks["database"] != "ok":
        return "unavailable"
    return "ok" if all(state == "ok" for state in checks.values()) else "degraded"
