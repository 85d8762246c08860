"""The composition: every part made once and wired, for one process.

`create_app(settings)` is the only place that knows all of them. Nothing is started before the lifespan, and
everything is stopped by it in the opposite order.
"""

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from importlib import import_module
from pathlib import Path
from random import Random
from time import time_ns
from typing import TYPE_CHECKING

import httpx2
import uuid_utils
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Mount, WebSocketRoute

from app import logs
from app.access.auth import Authenticator
from app.access.rate_limit import Quota
from app.actions import Actions
from app.api import descriptions as description
from app.api import guides, pages
from app.api.event_stream import EventLog
from app.api.routes import Api
from app.domain.event import Event
from app.domain.room import Policy
from app.engine import timers
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.engine.writer import Outcome
from app.live import catch_up
from app.live.connections import POST_SECONDS, Audiences
from app.live.hub import Hub
from app.live.presence import RENEW_SECONDS, Presence
from app.live.sockets import Sockets, nowhere
from app.metrics.registry import Metrics, Readings
from app.metrics.workers import FOLDER, Figures
from app.sandbox import create_sandbox
from app.sandbox.faults import Faults
from app.server.middleware import Edge, Service
from app.server.problems import REQUEST_ID
from app.settings import SANDBOX, InvalidSettings, Settings, read_settings
from app.store import Store, reading, writing
from app.store.engines import Engines, open_engines
from app.store.migrating import check, migrate
from app.store.tables import moment
from app.wallet.breaker import Breaker, BreakerState
from app.wallet.client import Wallet
from app.wallet.outbox import Outbox
from app.wire.websocket import CloseCode

if TYPE_CHECKING:
    from app.live.bus import Bus

POSTGRESQL_LANES = 4
TIDY_SECONDS = 5.0
LEAVE_SECONDS = 1.0
"""How old the figures of other workers may be that one tells."""
OUTBOX_PAUSE_SECONDS = 1.0
"""Before the outbox is started again after a failure."""
DRAIN_SECONDS = 3.0
"""Over how long a stopping process sends its sockets away."""


def utc_now() -> datetime:
    """Now, with the whole milliseconds that everything is kept in."""
    return moment(time_ns() // 1_000_000)


def new_id() -> str:
    return str(uuid_utils.uuid7())


def policy_of(settings: Settings) -> Policy:
    return Policy(
        max_depth=settings.max_queue_depth,
        default_duration_seconds=settings.default_duration_seconds,
        notify_positions=settings.notify_positions,
        rope_drop_seconds=settings.rope_drop_seconds,
        started_timeout_seconds=settings.started_timeout_seconds,
        disconnect_grace_seconds=settings.disconnect_grace_seconds,
        settle_delay_seconds=settings.settle_delay_seconds,
    )


def wallet_of(settings: Settings, engines: Engines, clock: Callable[[], datetime]) -> tuple[Wallet, list[BaseRoute]]:
    """The client of the wallet, and for the built-in sandbox the routes that features reach it by."""
    routes: list[BaseRoute] = []
    base_url, transport = settings.wallet_url, None
    if settings.wallet_url == SANDBOX:
        sandbox = create_sandbox(
            engines.writer,
            queue_secret=settings.wallet_queue_secret,
            api_token=settings.wallet_api_token,
            clock=clock,
            faults=Faults(Random()),
            adopts_unknown_escrows=True,
        )
        base_url, transport = "http://sandbox", httpx2.ASGITransport(app=sandbox, raise_app_exceptions=False)
        routes.append(Mount("/sandbox", sandbox))
    wallet = Wallet(
        base_url=base_url,
        api_token=settings.wallet_api_token,
        queue_secret=settings.wallet_queue_secret,
        timeout_seconds=settings.wallet_timeout_seconds,
        clock=clock,
        transport=transport,
    )
    return wallet, routes


def bus_of(settings: Settings, epoch: str, receive: Callable[[str, Sequence[Event]], None]) -> "Bus | None":
    """The bus to the other processes, where there is one."""
    if settings.redis_url is None:
        return None
    check_redis_driver(settings)
    from app.live.bus import Bus  # its driver is an extra that one process does without

    return Bus(settings.redis_url, receive, epoch=epoch)


def quota_of(settings: Settings, epoch: str) -> Quota | None:
    """The limit of what a user may queue in a minute, where there is one."""
    if not settings.user_intakes_per_minute:
        return None
    return Quota(settings.user_intakes_per_minute, settings.redis_url, epoch=epoch)


def check_redis_driver(settings: Settings) -> None:
    """Raises InvalidSettings where Redis is wanted and its driver is not installed."""
    if settings.redis_url is None:
        return
    try:
        import_module("redis.asyncio")
    except ImportError:
        raise InvalidSettings("REDIS_URL needs the package redis; install performance-queue[cluster]") from None


def worker() -> Service:
    """One worker's application, configured by the environment."""
    settings = read_settings()
    logs.configure(settings.environment)
    return create_app(settings, workers=Figures(Path(os.environ[FOLDER])))


def check_surroundings(settings: Settings) -> None:
    """What would keep every worker from starting, found before there is one.

    Raises app.store.engines.DatabaseRefusedError or app.settings.InvalidSettings.
    """
    check_redis_driver(settings)
    engines = open_engines(settings.database_url)
    try:
        check(engines.writer)
    finally:
        engines.dispose()


def create_app(
    settings: Settings, clock: Callable[[], datetime] = utc_now, *, workers: Figures | None = None
) -> Service:
    """The service as an ASGI application. `workers`: its place among those of this machine, if it is one of several.

    Raises app.store.engines.DatabaseRefusedError if the database cannot be used, app.settings.InvalidSettings if a
    driver is missing.
    """
    lane_count = 1 if settings.uses_sqlite else POSTGRESQL_LANES
    engines = open_engines(settings.database_url, lanes=lane_count)
    if settings.uses_sqlite:
        migrate(engines.writer)
    else:
        check(engines.writer)
    store = Store(engines, policy_of(settings))
    process_id = secrets.token_hex(6)
    metrics = Metrics(database=engines.writer.dialect.name, close_codes=CloseCode, workers=workers)

    def publish(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            queries.observe(outcome.events)
            if outcome.operation is not None:
                outbox.wake()
            hub.publish(outcome.room.performer_id, outcome.events)
            event_log.wake(outcome.events)
            if bus is not None:
                bus.publish(outcome.room.performer_id, outcome.events)
            presence.observe(outcome)

    def hear(performer_id: str, events: Sequence[Event]) -> None:
        hub.publish(performer_id, events)
        event_log.wake(events)

    lanes = Lanes(store, clock, new_id, publish, count=lane_count, measure=metrics.batch)
    queries = Queries(store, lanes)
    event_log = EventLog(queries, clock)
    bus = bus_of(settings, store.epoch, hear)
    hub = Hub(
        epoch=store.epoch,
        load=queries.room,
        missed=queries.missed,
        clock=clock,
        coalesce_seconds=settings.coalesce_ms / 1000,
        watch=bus.watch if bus is not None else None,
        unwatch=bus.unwatch if bus is not None else None,
    )
    audiences = Audiences(hub.audiences, settings.redis_url, epoch=store.epoch, process_id=process_id)
    presence = Presence(lanes, process_id, clock)
    authenticator = Authenticator(
        secret=settings.auth_secret,
        clock=clock,
        jwks_url=settings.auth_jwks_url,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
    )
    wallet, sandbox_routes = wallet_of(settings, engines, clock)
    outbox = Outbox(
        lanes=lanes,
        queries=queries,
        wallet=wallet,
        breaker=Breaker(),
        clock=clock,
        random=Random(),
        max_attempts=settings.wallet_max_attempts,
        retry_base_seconds=settings.wallet_retry_base_seconds,
        retry_max_seconds=settings.wallet_retry_max_seconds,
        timeout_seconds=settings.wallet_timeout_seconds,
    )
    quota = quota_of(settings, store.epoch)
    actions = Actions(
        lanes=lanes,
        queries=queries,
        outbox=outbox,
        clock=clock,
        new_id=new_id,
        max_duration_seconds=settings.max_duration_seconds,
        quota=quota,
        verify_holds_at=wallet if settings.wallet_verify_holds else None,
    )
    dependencies: dict[str, Callable[[], bool]] = {
        "wallet": lambda: outbox.breaker.state is BreakerState.CLOSED,
    }
    if bus is not None:
        dependencies["bus"] = lambda: bus.is_connected
    api = Api(
        store=store,
        queries=queries,
        event_log=event_log,
        audiences=audiences,
        actions=actions,
        authenticator=authenticator,
        clock=clock,
        public_rooms=settings.public_rooms,
        intakes=metrics.intakes,
        dependencies=dependencies,
    )
    sockets = Sockets(
        hub=hub,
        actions=actions,
        authenticator=authenticator,
        presence=presence,
        clock=clock,
        public_rooms=settings.public_rooms,
        allowed_origins=settings.allowed_origins,
        connected=Counter(),
        closes=metrics.closes,
    )
    metrics.watch(
        Readings(
            waiting_commands=lambda: lanes.waiting,
            sockets=lambda: hub.sockets,
            watched_rooms=lambda: hub.rooms,
            lagging_sockets=lambda: hub.lagging,
            event_streams=lambda: event_log.streams,
            traffic=hub.traffic,
            breaker=outbox.breaker,
            operations=lambda: queries.run(reading.operation_counts),
        )
    )

    async def tidy() -> None:
        hub.tidy()

    @asynccontextmanager
    async def lifespan(app: Service) -> AsyncIterator[None]:
        try:
            with workers or nullcontext():
                try:
                    async with everything_at_work():
                        yield
                finally:
                    # Whatever its end was, what it has counted counts.
                    await metrics.leave()
        finally:
            queries.close()
            engines.dispose()

    @asynccontextmanager
    async def everything_at_work() -> AsyncIterator[None]:
        async with quota or nullcontext(), audiences, lanes, wallet, asyncio.TaskGroup() as background:
            if not store.shared:
                # This process owns the file alone: whoever held leases is gone.
                await lanes.run(writing.release_claims)
            await lanes.run(lambda connection: writing.review_deadlines(connection, store.policy, clock()))
            loops = [
                timers.every(timers.SWEEP_SECONDS, "the sweep", lambda: timers.sweep(queries, lanes, clock())),
                timers.every(RENEW_SECONDS, "presence", presence.keep),
                timers.every(TIDY_SECONDS, "tidying", tidy),
                timers.every(OUTBOX_PAUSE_SECONDS, "the outbox", outbox.run),
            ]
            if store.shared:
                loops.append(
                    timers.every(
                        catch_up.POSITION_CHECK_SECONDS,
                        "the position check",
                        lambda: catch_up.check_positions(queries, hub),
                    )
                )
            if bus is not None:
                loops.append(timers.every(TIDY_SECONDS, "the bus", bus.run))
                loops.append(timers.every(POST_SECONDS, "posting audiences", audiences.post))
            if workers is not None:
                loops.append(timers.every(LEAVE_SECONDS, "leaving figures", metrics.leave))
            tasks = [background.create_task(loop) for loop in loops]
            yield
            for task in tasks:
                task.cancel()

    middleware = [Middleware(Edge, observe=metrics.request, refuse=api.refuse)]
    if settings.allowed_origins:
        # Around the edge: a script is to be able to read what the edge itself refuses.
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST", "PATCH"],
                allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", REQUEST_ID],
                expose_headers=["Location", "Idempotent-Replayed", REQUEST_ID],
            ),
        )
    app = Service(
        routes=[
            *api.routes(sockets),
            *description.routes(metrics),
            *sandbox_routes,
            *guides.routes(),
            *pages.routes(),
            WebSocketRoute("/{path:path}", nowhere),
        ],
        middleware=middleware,
        lifespan=lifespan,
    )

    async def drain() -> None:
        await event_log.stop()
        await hub.drain(seconds=DRAIN_SECONDS)

    app.state.drain = drain
    return app
