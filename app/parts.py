"""The parts of one process, each made once and wired to the others.

`assemble` is the only place that knows all of them. Nothing is started here: `app.main` has the lifespan, the routes
and the background loops.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib import import_module
from math import inf, nan
from random import Random
from time import monotonic, time_ns
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import uuid_utils
from sqlalchemy import Connection
from starlette.routing import BaseRoute, Mount

from app.access.auth import Authenticator
from app.access.key_set import KeySet
from app.access.origins import Origins
from app.access.rate_limit import Quota
from app.actions import Actions
from app.api.event_stream import EventLog
from app.domain.event import Event
from app.domain.room import Policy
from app.engine.commits import Commits
from app.engine.heartbeat import Heartbeat
from app.engine.item_counts import ItemCounts
from app.engine.jobs import Outcome
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.engine.room_clock import RoomClock
from app.live.absent_rooms import AbsentRooms
from app.live.catch_up import POSITION_CHECK_SECONDS
from app.live.connections import Audiences
from app.live.disconnects import Disconnects
from app.live.hub import Hub
from app.live.presence import Presence
from app.live.sockets import Sockets
from app.live.watched_room import Fanout
from app.metrics.loop_lag import LoopLag
from app.metrics.readings import DatabaseReadings, Readings
from app.metrics.registry import Metrics
from app.metrics.workers import Figures
from app.redis_link import RedisLink
from app.sandbox import create_sandbox
from app.sandbox.faults import Faults
from app.server import descriptors
from app.server.addresses import Proxies
from app.server.admission import Admission
from app.server.limits import Limits
from app.settings import SANDBOX, Environment, InvalidSettings, Settings, WalletKeyFormat
from app.specs.openapi import CONTRACT_VERSION
from app.store import Store, disk, reading, wallet_check, webhooks
from app.store.engines import LANE_BUSY_TIMEOUT_MS, Engines, open_engines
from app.store.heartbeat import database_time
from app.store.migrating import migrate, refuse_other_schema
from app.store.tables import moment
from app.tracing import ClosableTracer, Tracer
from app.wallet.breaker import Breaker
from app.wallet.client import Wallet
from app.wallet.hold_checks import CHECKS_AT_ONCE, HoldChecks
from app.wallet.outbox import Outbox
from app.wallet.wallet_check import WalletChecks
from app.webhooks.deliverer import Deliverer
from app.webhooks.endpoints import WebhookEndpoints
from app.webhooks.sender import Sender
from app.webhooks.targets import Targets
from app.wire.websocket import CloseCode

if TYPE_CHECKING:
    from app.live.bus import Bus

POSTGRESQL_LANES = 4
WALLET_CONNECTIONS = 32
"""Of the outbox, which has at most half as many attempts under way; a comparison with the wallet asks by the rest."""


def utc_now() -> datetime:
    """Now, with the whole milliseconds that everything is kept in."""
    return moment(time_ns() // 1_000_000)


def new_id() -> str:
    return str(uuid_utils.uuid7())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    settings: Settings
    clock: Callable[[], datetime]
    engines: Engines
    store: Store
    metrics: Metrics
    loop_lag: LoopLag
    lanes: Lanes
    queries: Queries
    heartbeat: Heartbeat
    event_log: EventLog
    item_counts: ItemCounts
    redis: RedisLink | None
    bus: "Bus | None"
    hub: Hub
    audiences: Audiences
    presence: Presence
    key_set: KeySet | None
    authenticator: Authenticator
    wallet: Wallet
    sandbox_routes: Sequence[BaseRoute]
    """Where features reach the built-in wallet; none if the wallet is another service."""
    outbox: Outbox
    hold_checks: HoldChecks | None
    wallet_checks: WalletChecks
    webhooks: WebhookEndpoints
    actions: Actions
    sockets: Sockets
    admission: Admission
    disconnects: Disconnects
    tracer: ClosableTracer | None


def assemble(
    settings: Settings,
    clock: Callable[[], datetime],
    workers: Figures | None,
    limits: Limits = Limits(),
    tracer: ClosableTracer | None = None,
) -> Parts:
    """Make every part. The committed outcomes of the lanes go to all that act on them, in the order given at the end.

    Raises app.store.engines.DatabaseRefusedError if the database cannot be used, app.settings.InvalidSettings if a
    driver is missing.
    """
    tracer = tracer or _tracer(settings)
    engines, store = open_store(settings)
    metrics = Metrics(database=engines.writer.dialect.name, close_codes=CloseCode, workers=workers)
    commits = Commits()
    own_clock, clock = clock, RoomClock(clock)
    lanes = _lanes(settings, store, clock, commits, metrics, tracer)
    queries = Queries(store, lanes, seconds=settings.command_seconds)
    heartbeat = Heartbeat(lanes, queries, clock, database_time=database_time if store.shared else None)
    event_log = EventLog(queries, clock)

    def receive(performer_id: str, events: Sequence[Event]) -> None:
        """Events that another process has committed."""
        hub.publish(performer_id, events)
        event_log.wake(events)

    def receive_announcement(payload: bytes) -> None:
        disconnects.receive(payload)

    redis = _redis_link(settings, store.epoch)
    bus = _bus(redis, receive, receive_announcement)
    fanout = Fanout(
        epoch=store.epoch,
        missed=queries.missed,
        clock=clock,
        coalesce_seconds=settings.coalesce_ms / 1000,
        tracer=tracer,
    )
    hub = Hub(
        fanout,
        absent=AbsentRooms(queries.versions, store.policy, seconds=POSITION_CHECK_SECONDS if store.shared else inf),
        load=queries.room,
        watch=bus.watch if bus is not None else None,
        unwatch=bus.unwatch if bus is not None else None,
    )
    process_id = secrets.token_hex(6)
    presence = Presence(lanes, process_id, clock)
    # Tokens are valid by the process's own clock, as their issuers and the wallet see it.
    key_set = KeySet(settings.auth_jwks_url, own_clock) if settings.auth_jwks_url is not None else None
    authenticator = _authenticator(settings, own_clock, key_set)
    money = _money(settings, engines, lanes, queries, metrics, own_clock, clock, tracer)
    quota = Quota(settings.user_intakes_per_minute, redis) if settings.user_intakes_per_minute else None
    actions = Actions(
        lanes=lanes,
        queries=queries,
        outbox=money.outbox,
        clock=clock,
        new_id=new_id,
        max_duration_seconds=settings.max_duration_seconds,
        quota=quota,
        hold_checks=money.hold_checks,
    )
    sockets = _sockets(settings, clock, hub, actions, authenticator, presence, metrics, limits, tracer)

    def disconnect(sub: str | None, performer_id: str | None) -> int:
        return sockets.disconnect(sub, performer_id) + event_log.disconnect(sub, performer_id)

    disconnects = Disconnects(disconnect, bus, process_id=process_id)
    parts = Parts(
        settings=settings,
        clock=clock,
        engines=engines,
        store=store,
        metrics=metrics,
        loop_lag=LoopLag(),
        lanes=lanes,
        queries=queries,
        heartbeat=heartbeat,
        event_log=event_log,
        item_counts=ItemCounts(queries),
        redis=redis,
        bus=bus,
        hub=hub,
        audiences=Audiences(hub.audiences, redis, process_id=process_id),
        presence=presence,
        key_set=key_set,
        authenticator=authenticator,
        wallet=money.wallet,
        sandbox_routes=money.sandbox_routes,
        outbox=money.outbox,
        hold_checks=money.hold_checks,
        wallet_checks=money.wallet_checks,
        webhooks=_webhooks(settings, lanes, queries, own_clock),
        actions=actions,
        sockets=sockets,
        disconnects=disconnects,
        admission=_admission(settings, metrics, limits),
        tracer=tracer,
    )
    _subscribe(commits, parts)
    metrics.watch(_readings(parts))
    return parts


def _subscribe(commits: Commits, parts: Parts) -> None:
    """Who acts on what has been committed here, in this order: positions first, other processes last but presence."""

    def wake_outbox(outcome: Outcome) -> None:
        if outcome.operation is not None:
            parts.outbox.wake()

    commits.subscribe(lambda outcome: parts.queries.observe(outcome.events))
    commits.subscribe(wake_outbox)
    commits.subscribe(lambda outcome: parts.hub.publish(outcome.room.performer_id, outcome.events, outcome.room))
    commits.subscribe(lambda outcome: parts.event_log.wake(outcome.events))
    commits.subscribe(lambda outcome: parts.webhooks.deliverer.wake())
    if (bus := parts.bus) is not None:
        commits.subscribe(lambda outcome: bus.publish(outcome.room.performer_id, outcome.events))
    commits.subscribe(parts.presence.observe)


def lane_count(settings: Settings) -> int:
    return 1 if settings.uses_sqlite else POSTGRESQL_LANES


def open_store(settings: Settings) -> tuple[Engines, Store]:
    """The database, brought to the newest schema if it is SQLite's; PostgreSQL's has to be there already."""
    engines = open_engines(settings.database_url, lanes=lane_count(settings), busy_timeout_ms=LANE_BUSY_TIMEOUT_MS)
    if settings.uses_sqlite:
        migrate(engines.patient_writer)
    else:
        refuse_other_schema(engines.writer)
    return engines, Store(engines, _policy(settings))


def check_surroundings(settings: Settings) -> None:
    """Find what would keep every worker from starting, before there is one.

    Raises app.store.engines.DatabaseRefusedError or app.settings.InvalidSettings.
    """
    _check_redis_driver(settings)
    _check_opentelemetry(settings)
    engines = open_engines(settings.database_url)
    try:
        refuse_other_schema(engines.writer)
    finally:
        engines.dispose()


def _policy(settings: Settings) -> Policy:
    return Policy(
        max_depth=settings.max_queue_depth,
        default_duration_seconds=settings.default_duration_seconds,
        notify_positions=settings.notify_positions,
        rope_drop_seconds=settings.rope_drop_seconds,
        started_timeout_seconds=settings.started_timeout_seconds,
        disconnect_grace_seconds=settings.disconnect_grace_seconds,
        settle_delay_seconds=settings.settle_delay_seconds,
    )


def _authenticator(settings: Settings, clock: Callable[[], datetime], key_set: KeySet | None) -> Authenticator:
    return Authenticator(
        secret=settings.auth_secret,
        previous_secret=settings.auth_secret_previous,
        clock=clock,
        key_set=key_set,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        max_token_seconds=settings.max_token_seconds,
    )


def _wallets(
    settings: Settings, engines: Engines, clock: Callable[[], datetime]
) -> tuple[Callable[..., Wallet], list[BaseRoute]]:
    """What makes clients of the wallet with `connections` each, and for the built-in sandbox the routes that features
    reach it by."""
    routes: list[BaseRoute] = []
    base_url, transport = settings.wallet_url, None
    if settings.wallet_url == SANDBOX:
        sandbox = create_sandbox(
            engines.patient_writer,
            queue_secret=settings.wallet_queue_secret,
            api_token=settings.wallet_api_token,
            clock=clock,
            faults=Faults(Random()),
            adopts_unknown_escrows=True,
        )
        base_url, transport = "http://sandbox", httpx2.ASGITransport(app=sandbox, raise_app_exceptions=False)
        routes.append(Mount("/sandbox", sandbox))
    wallet_at = partial(
        Wallet,
        base_url=base_url,
        api_token=settings.wallet_api_token,
        queue_secret=settings.wallet_queue_secret,
        timeout_seconds=settings.wallet_timeout_seconds,
        clock=clock,
        uuid_keys=settings.wallet_key_format is WalletKeyFormat.UUID,
        transport=transport,
    )
    return wallet_at, routes


def wallet_of(settings: Settings, engines: Engines, clock: Callable[[], datetime]) -> Wallet:
    """A client of the wallet for a command beside the service."""
    return _wallets(settings, engines, clock)[0](connections=WALLET_CONNECTIONS)


def _lanes(
    settings: Settings, store: Store, clock: RoomClock, commits: Commits, metrics: Metrics, tracer: Tracer | None
) -> Lanes:
    return Lanes(
        store,
        clock,
        new_id,
        commits.publish,
        count=lane_count(settings),
        measure=metrics.batch,
        seconds=settings.command_seconds,
        tracer=tracer,
    )


class _Money(NamedTuple):
    wallet: Wallet
    sandbox_routes: Sequence[BaseRoute]
    outbox: Outbox
    hold_checks: HoldChecks | None
    wallet_checks: WalletChecks


def _money(
    settings: Settings,
    engines: Engines,
    lanes: Lanes,
    queries: Queries,
    metrics: Metrics,
    own_clock: Callable[[], datetime],
    clock: RoomClock,
    tracer: Tracer | None,
) -> _Money:
    """What talks to the wallet. The two clients have connections of their own: a check holds up no settlement."""
    wallet_at, sandbox_routes = _wallets(settings, engines, own_clock)
    wallet = wallet_at(connections=WALLET_CONNECTIONS, observe=metrics.wallet_call)
    outbox = _outbox(settings, lanes, queries, wallet, clock, tracer)
    hold_checks = None
    if settings.wallet_verify_holds:
        client = wallet_at(connections=CHECKS_AT_ONCE, observe=metrics.wallet_call)
        hold_checks = HoldChecks(client, outbox.breaker, clock)
    wallet_checks = WalletChecks(
        queries=queries,
        lanes=lanes,
        wallet=wallet,
        breaker=outbox.breaker,
        clock=clock,
        seconds=settings.command_seconds,
    )
    return _Money(wallet, sandbox_routes, outbox, hold_checks, wallet_checks)


def _outbox(
    settings: Settings,
    lanes: Lanes,
    queries: Queries,
    wallet: Wallet,
    clock: Callable[[], datetime],
    tracer: Tracer | None,
) -> Outbox:
    return Outbox(
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
        tracer=tracer,
    )


def _webhooks(settings: Settings, lanes: Lanes, queries: Queries, clock: Callable[[], datetime]) -> WebhookEndpoints:
    targets = Targets(settings.webhook_hosts, production=settings.environment is Environment.PRODUCTION)
    sender = Sender(targets, clock)
    return WebhookEndpoints(
        queries=queries,
        lanes=lanes,
        sender=sender,
        deliverer=Deliverer(queries=queries, lanes=lanes, sender=sender, clock=clock, random=Random()),
        targets=targets,
        clock=clock,
        new_id=new_id,
    )


def _sockets(
    settings: Settings,
    clock: Callable[[], datetime],
    hub: Hub,
    actions: Actions,
    authenticator: Authenticator,
    presence: Presence,
    metrics: Metrics,
    limits: Limits,
    tracer: Tracer | None,
) -> Sockets:
    return Sockets(
        hub=hub,
        actions=actions,
        authenticator=authenticator,
        presence=presence,
        clock=clock,
        public_rooms=settings.public_rooms,
        origins=Origins(settings.allowed_origins),
        connected=Counter(),
        closes=metrics.closes,
        tracer=tracer,
        capacity=min(limits.sockets, descriptors.capacity().sockets),
    )


def _admission(settings: Settings, metrics: Metrics, limits: Limits) -> Admission:
    return Admission(
        replace(
            limits,
            sockets_per_address=settings.sockets_per_address,
            requests_per_address=settings.requests_per_address,
        ),
        now=monotonic,
        proxies=Proxies(settings.trusted_proxies),
        capacity=min(limits.connections, descriptors.capacity().connections),
        closes=metrics.closes,
    )


def _bus(
    redis: RedisLink | None,
    receive: Callable[[str, Sequence[Event]], None],
    receive_announcement: Callable[[bytes], None],
) -> "Bus | None":
    """The bus to the other processes, where there is one."""
    if redis is None:
        return None
    from app.live.bus import Bus  # its driver is an extra that one process does without

    return Bus(redis, receive, receive_announcement)


def _redis_link(settings: Settings, epoch: str) -> RedisLink | None:
    """The connection to Redis, where there is one."""
    if settings.redis_url is None:
        return None
    _check_redis_driver(settings)
    return RedisLink(settings.redis_url, epoch=epoch)


def _check_redis_driver(settings: Settings) -> None:
    """Raises InvalidSettings where Redis is wanted and its driver is not installed."""
    if settings.redis_url is None:
        return
    try:
        import_module("redis.asyncio")
    except ImportError:
        raise InvalidSettings("REDIS_URL needs the package redis; install performance-queue[cluster]") from None


def _tracer(settings: Settings) -> ClosableTracer | None:
    """What makes spans, where they are wanted."""
    if settings.traces_url is None:
        return None
    _check_opentelemetry(settings)
    from app.tracing.otel import open_tracer  # its libraries are an extra

    return open_tracer(settings.traces_url, version=CONTRACT_VERSION)


def _check_opentelemetry(settings: Settings) -> None:
    """Raises InvalidSettings where traces are wanted and OpenTelemetry is not installed."""
    if settings.traces_url is None:
        return
    try:
        import_module("app.tracing.otel")
    except ImportError:
        raise InvalidSettings("TRACES_URL needs OpenTelemetry; install performance-queue[otel]") from None


def _readings(parts: Parts) -> Readings:
    """Where the metrics find the numbers that the parts keep."""
    hub = parts.hub

    def since(moment: datetime) -> float:
        return max(0.0, (parts.clock() - moment).total_seconds())

    def database(connection: Connection) -> DatabaseReadings:
        oldest = reading.oldest_open_operation(connection)
        compared = wallet_check.last(connection)
        return DatabaseReadings(
            operations=reading.operation_counts(connection),
            oldest_open_operation_seconds=0.0 if oldest is None else since(oldest),
            webhook_endpoints=webhooks.count_by_status(connection),
            wallet_differences=nan if compared is None else compared.different,
            wallet_check_age_seconds=nan if compared is None else since(compared.at),
        )

    return Readings(
        waiting_commands=lambda: parts.lanes.waiting,
        lane_wait_seconds=lambda: parts.lanes.wait_seconds,
        event_loop_lag_seconds=lambda: parts.loop_lag.seconds,
        sockets=lambda: hub.sockets,
        watched_rooms=lambda: hub.rooms,
        lagging_sockets=lambda: hub.lagging,
        event_streams=lambda: parts.event_log.streams,
        items=lambda: parts.item_counts.by_status,
        clock_skew_seconds=lambda: parts.heartbeat.skew_seconds,
        heartbeat_age_seconds=lambda: parts.heartbeat.age_seconds,
        traffic=hub.traffic,
        breaker=parts.outbox.breaker,
        deliveries=parts.webhooks.deliverer,
        database=lambda: parts.queries.run(database),
        disk=lambda: disk.usage(parts.engines),
        connections=lambda: parts.admission.connections,
        silent_connections=lambda: parts.admission.silent_connections,
        connection_capacity=lambda: parts.admission.capacity or 0,
        addresses=lambda: parts.admission.addresses,
        refusals=parts.admission.refusals,
    )
