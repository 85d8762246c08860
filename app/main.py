"""The service as an ASGI application: its routes, its lifespan and the loops that run beside the requests.

`app.parts` makes and wires the parts. The lifespan starts them, and stops them in the opposite order.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, WebSocketRoute

from app import logs
from app.access.key_set import REFRESH_CHECK_SECONDS
from app.api import descriptions, guides, pages
from app.api.admin import Admin
from app.api.callers import Callers
from app.api.commands import Commands
from app.api.events import Events
from app.api.health import Health
from app.api.items import Items
from app.api.outlook import Outlook
from app.api.push import Push
from app.api.reports import Reports
from app.api.responses import ErrorResponses
from app.api.rooms import Rooms
from app.api.timeline import Timeline
from app.api.users import Users
from app.api.wallet_check import WalletCheckRoutes
from app.api.webhooks import Webhooks
from app.engine import timers, upkeep
from app.engine.heartbeat import STANDSTILL_SECONDS
from app.live import catch_up
from app.live.connections import POST_SECONDS
from app.live.presence import RENEW_SECONDS
from app.live.sockets import not_found
from app.metrics.workers import FOLDER, WorkerMetrics
from app.parts import utc_now
from app.parts.assembly import Parts, assemble
from app.server.limits import Limits
from app.server.middleware import ErrorMiddleware, Service
from app.server.problems import REQUEST_ID
from app.settings import Environment, Settings, read_settings
from app.store import writing
from app.tracing import HEADER as TRACEPARENT
from app.tracing import ClosableTracer
from app.wallet.breaker import BreakerState
from app.wire.commands import ROOM_PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Periods of the background loops and of shutdown, in seconds."""

    tidy: float = 5.0
    """Between two looks for lagging sockets and for rooms that nobody watches any more."""
    lag: float = 30.0
    """How long a socket may lag before it is cut off."""
    restart: float = 1.0
    """The pause before the outbox, or the sending of webhooks or push notifications, runs again after a failure."""
    write_metrics: float = 1.0
    """Between two writes of a worker's metrics file."""
    upkeep: float = 60.0
    """Between two looks for slow work on the database."""
    counts: float = 10.0
    """Between two counts of the log's new events, for analytics, and of the items in the queues."""
    standstill: float = STANDSTILL_SECONDS
    """The gap between two heartbeats above which the rooms' clocks are restarted."""
    drain: float = 3.0
    """The time over which a stopping process closes its sockets."""


PERIODS = Periods()


def worker() -> Service:
    """One worker's application, configured by the environment."""
    settings = read_settings()
    logs.configure(settings.environment)
    return create_app(settings, workers=WorkerMetrics(Path(os.environ[FOLDER])))


def create_app(
    settings: Settings,
    clock: Callable[[], datetime] = utc_now,
    *,
    workers: WorkerMetrics | None = None,
    periods: Periods = PERIODS,
    limits: Limits = Limits(),
    tracer: ClosableTracer | None = None,
) -> Service:
    """The service. `workers`: the metrics that the worker processes of this machine share; None: there is only one.
    `limits`: the traffic limits that are not settings. `tracer`: replaces the tracer of TRACES_URL.

    Raises app.store.engines.DatabaseRefusedError if the database cannot be used, app.settings.InvalidSettings if a
    driver is missing.
    """
    parts = assemble(settings, clock, workers, limits, tracer)

    @asynccontextmanager
    async def lifespan(app: Service) -> AsyncIterator[None]:
        try:
            with workers or nullcontext():
                try:
                    async with _running(parts, periods, is_worker=workers is not None):
                        yield
                finally:
                    # The last counts of a worker are kept, however it ends.
                    await parts.base.metrics.write()
        finally:
            parts.base.queries.close()
            parts.base.engines.dispose()
            if parts.base.tracer is not None:
                parts.base.tracer.close()

    async def drain() -> None:
        parts.base.lanes.hurry()
        await parts.live.event_log.stop()
        await parts.live.hub.drain(seconds=periods.drain)

    app = Service(routes=_routes(parts), middleware=_middleware(parts), lifespan=lifespan)
    app.state.drain = drain
    app.state.admission = parts.admission
    return app


@asynccontextmanager
async def _running(parts: Parts, periods: Periods, *, is_worker: bool) -> AsyncIterator[None]:
    """Starts the parts that hold connections or threads, then the background loops in one TaskGroup."""
    lanes, store = parts.base.lanes, parts.base.store
    async with (
        parts.redis or nullcontext(),
        parts.key_set or nullcontext(),
        parts.live.audiences,
        lanes,
        parts.money.wallet,
        parts.money.hold_checks or nullcontext(),
        parts.webhooks.sender,
        parts.push.posting,
        asyncio.TaskGroup() as background,
    ):
        if not store.shared:
            # Only this process uses the file, so the holders of older leases are gone.
            await lanes.run(writing.release_claims)
        await lanes.run(lambda connection: writing.review_deadlines(connection, store.policy, parts.base.clock()))
        await parts.heartbeat.start()
        tasks = [background.create_task(loop) for loop in _loops(parts, periods, is_worker=is_worker)]
        yield
        for task in tasks:
            task.cancel()


def _loops(parts: Parts, periods: Periods, *, is_worker: bool) -> list[Coroutine[Any, Any, None]]:
    """The background loops of one process."""
    queries, lanes, hub = parts.base.queries, parts.base.lanes, parts.live.hub

    async def tidy() -> None:
        hub.tidy(periods.lag)

    async def sweep() -> None:
        now = await parts.heartbeat.keep(timedelta(seconds=periods.standstill))
        await timers.sweep(queries, lanes, now)

    async def check_positions() -> None:
        await catch_up.check_positions(queries, hub)

    async def compact_log() -> None:
        await upkeep.compact_log(lanes, parts.base.store)

    async def count_activity() -> None:
        await upkeep.count_activity(queries, lanes)

    async def prune() -> None:
        await upkeep.prune(lanes, parts.base.clock() - timedelta(days=parts.base.settings.retention_days))

    every = timers.every
    loops = [
        every(timers.SWEEP_SECONDS, "the sweep", sweep),
        every(RENEW_SECONDS, "presence", parts.live.presence.keep),
        every(periods.tidy, "tidying", tidy),
        every(periods.restart, "the outbox", parts.money.outbox.run),
        every(periods.restart, "delivering webhooks", parts.webhooks.deliverer.run),
        parts.loop_lag.run(),
        every(periods.upkeep, "compacting the log", compact_log),
        every(periods.counts, "counting activity", count_activity),
        every(periods.counts, "counting items", parts.item_counts.refresh),
    ]
    if (pusher := parts.push.pusher) is not None:
        loops.append(every(periods.restart, "sending push notifications", pusher.run))
    if parts.base.store.shared:
        loops.append(every(catch_up.POSITION_CHECK_SECONDS, "the position check", check_positions))
    if parts.live.bus is not None:
        loops.append(every(periods.tidy, "the bus", parts.live.bus.run))
        loops.append(every(POST_SECONDS, "posting audiences", parts.live.audiences.post))
    if parts.key_set is not None:
        loops.append(every(REFRESH_CHECK_SECONDS, "refreshing the token keys", parts.key_set.refresh))
    if parts.base.settings.retention_days:
        loops.append(every(periods.upkeep, "retention", prune))
    if is_worker:
        loops.append(every(periods.write_metrics, "writing metrics", parts.base.metrics.write))
    return loops


def _routes(parts: Parts) -> list[BaseRoute]:
    """Every route; tried from the top, so the most frequent come first."""
    callers = Callers(
        parts.authenticator,
        public_rooms=parts.base.settings.public_rooms,
        metrics_token=parts.base.settings.metrics_token,
    )
    actions, queries, store, clock = parts.actions, parts.base.queries, parts.base.store, parts.base.clock
    commands = Commands(callers=callers, actions=actions, store=store)
    items = Items(
        callers=callers,
        actions=actions,
        queries=queries,
        store=store,
        clock=clock,
        intakes=parts.base.metrics.intakes,
    )
    admin = Admin(
        callers=callers,
        actions=actions,
        queries=queries,
        store=store,
        all_audiences=parts.live.audiences.everywhere,
        disconnect=parts.live.disconnects.everywhere,
    )
    site = pages.current_site(reload=parts.base.settings.environment is Environment.DEVELOPMENT)
    return [
        *items.routes(),
        WebSocketRoute(f"{ROOM_PATH}/live", parts.live.sockets.live),
        *Rooms(callers=callers, commands=commands, queries=queries, store=store).routes(),
        *commands.routes(),
        *Reports(callers=callers, queries=queries, clock=clock).routes(),
        *Outlook(callers=callers, queries=queries, clock=clock).routes(),
        *Timeline(callers=callers, queries=queries, clock=clock).routes(),
        *Users(callers=callers, queries=queries).routes(),
        *Events(callers=callers, log=parts.live.event_log).routes(),
        *Webhooks(callers=callers, endpoints=parts.webhooks).routes(),
        *Push(callers=callers, subscriptions=parts.push.subscriptions).routes(),
        *admin.routes(),
        *WalletCheckRoutes(callers=callers, checks=parts.money.wallet_checks).routes(),
        *Health(
            callers=callers,
            queries=queries,
            can_write=lambda: parts.heartbeat.can_write and not parts.base.lanes.is_disk_full,
            dependencies=_dependencies(parts),
        ).routes(),
        *descriptions.routes(parts.base.metrics, callers),
        *parts.money.sandbox_routes,
        *guides.routes(site),
        *pages.routes(site, parts.base.settings.allowed_origins),
        WebSocketRoute("/{path:path}", not_found),
    ]


def _dependencies(parts: Parts) -> dict[str, Callable[[], bool]]:
    """The health checks of the dependencies that the service can lack for a while, by name."""
    dependencies: dict[str, Callable[[], bool]] = {
        "wallet": lambda: parts.money.outbox.breaker.state is BreakerState.CLOSED,
    }
    if (bus := parts.live.bus) is not None:
        dependencies["bus"] = lambda: bus.is_connected
    if (key_set := parts.key_set) is not None:
        dependencies["tokenKeys"] = lambda: key_set.is_current
    return dependencies


def _middleware(parts: Parts) -> list[Middleware]:
    """CORS is the outer middleware, so that scripts of an allowed origin can read ErrorMiddleware's refusals too."""
    errors = Middleware(
        ErrorMiddleware,
        observe=parts.base.metrics.request,
        refuse=ErrorResponses(parts.actions).response,
        admit=parts.admission.request,
        tracer=parts.base.tracer,
    )
    if not parts.base.settings.allowed_origins:
        return [errors]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=parts.base.settings.allowed_origins,
        allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", REQUEST_ID, TRACEPARENT],
        expose_headers=["Location", "Idempotent-Replayed", REQUEST_ID],
    )
    return [cors, errors]
