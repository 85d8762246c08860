"""All parts of one process, made and wired."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from time import monotonic

from app.access.auth import Authenticator
from app.access.key_set import KeySet
from app.access.rate_limit import Quota
from app.actions import Actions
from app.engine.heartbeat import LONGEST_LEASE, Heartbeat
from app.engine.item_counts import ItemCounts
from app.engine.jobs import Outcome
from app.metrics.loop_lag import LoopLag
from app.metrics.workers import WorkerMetrics
from app.parts import new_id
from app.parts.extras import check_extras, open_redis
from app.parts.foundation import Foundation, open_foundation
from app.parts.live import Live, open_live
from app.parts.money import Money, open_money
from app.parts.push import Push, open_push
from app.parts.readings import readings_of
from app.redis_link import RedisLink
from app.server import descriptors
from app.server.addresses import Proxies
from app.server.admission import Admission
from app.server.limits import Limits
from app.settings import Environment, Settings
from app.store.engines import open_engines
from app.store.heartbeat import database_time
from app.store.migrating import refuse_other_schema
from app.tracing import ClosableTracer
from app.webhooks.deliverer import Deliverer
from app.webhooks.endpoints import WebhookEndpoints
from app.webhooks.sender import Sender
from app.webhooks.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    base: Foundation
    heartbeat: Heartbeat
    item_counts: ItemCounts
    loop_lag: LoopLag
    redis: RedisLink | None
    key_set: KeySet | None
    authenticator: Authenticator
    money: Money
    actions: Actions
    live: Live
    webhooks: WebhookEndpoints
    push: Push
    admission: Admission


def assemble(
    settings: Settings,
    clock: Callable[[], datetime],
    workers: WorkerMetrics | None,
    limits: Limits = Limits(),
    tracer: ClosableTracer | None = None,
) -> Parts:
    """Make and wire every part.

    Raises app.store.engines.DatabaseRefusedError if the database cannot be used, app.settings.InvalidSettings if a
    driver is missing.
    """
    base = open_foundation(settings, clock, workers, tracer)
    redis = open_redis(settings, base.store.epoch)
    key_set = KeySet(settings.auth_jwks_url, clock) if settings.auth_jwks_url is not None else None
    authenticator = _authenticator(base, key_set)
    money = open_money(base)
    actions = Actions(
        lanes=base.lanes,
        queries=base.queries,
        outbox=money.outbox,
        clock=base.clock,
        new_id=new_id,
        max_duration_seconds=settings.max_duration_seconds,
        quota=Quota(settings.user_intakes_per_minute, redis) if settings.user_intakes_per_minute else None,
        hold_checks=money.hold_checks,
    )
    parts = Parts(
        base=base,
        heartbeat=_heartbeat(base, money),
        item_counts=ItemCounts(base.queries),
        loop_lag=LoopLag(),
        redis=redis,
        key_set=key_set,
        authenticator=authenticator,
        money=money,
        actions=actions,
        live=open_live(base, redis, actions, authenticator, limits),
        webhooks=_webhooks(base),
        push=open_push(base),
        admission=_admission(base, limits),
    )
    _subscribe(parts)
    base.metrics.watch(
        readings_of(
            base,
            money.outbox,
            parts.live,
            parts.webhooks,
            parts.push,
            parts.admission,
            heartbeat=parts.heartbeat,
            item_counts=parts.item_counts,
            loop_lag=parts.loop_lag,
        )
    )
    return parts


def check_surroundings(settings: Settings) -> None:
    """Find the errors that would stop every worker, before the first worker starts.

    Raises app.store.engines.DatabaseRefusedError or app.settings.InvalidSettings.
    """
    check_extras(settings)
    engines = open_engines(settings.database_url)
    try:
        refuse_other_schema(engines.writer)
    finally:
        engines.dispose()


def _subscribe(parts: Parts) -> None:
    """Subscribes the parts to this process's commits. They are called in this order: `queries` first, presence last."""
    commits, live = parts.base.commits, parts.live

    def wake_outbox(outcome: Outcome) -> None:
        if outcome.operation is not None:
            parts.money.outbox.wake()

    commits.subscribe(lambda outcome: parts.base.queries.observe(outcome.events))
    commits.subscribe(wake_outbox)
    commits.subscribe(lambda outcome: live.hub.publish(outcome.room.performer_id, outcome.events))
    commits.subscribe(lambda outcome: live.event_log.wake(outcome.events))
    commits.subscribe(lambda outcome: parts.base.metrics.committed(outcome.events))
    commits.subscribe(lambda outcome: parts.webhooks.deliverer.committed())
    if (pusher := parts.push.pusher) is not None:
        commits.subscribe(lambda outcome: pusher.wake())
    if (bus := live.bus) is not None:
        commits.subscribe(lambda outcome: bus.publish(outcome.room.performer_id, outcome.events))
    commits.subscribe(live.presence.observe)


def _heartbeat(base: Foundation, money: Money) -> Heartbeat:
    return Heartbeat(
        base.lanes,
        base.queries,
        base.clock,
        database_time=database_time if base.store.shared else None,
        longest_lease=max(money.outbox.lease, LONGEST_LEASE),
    )


def _authenticator(base: Foundation, key_set: KeySet | None) -> Authenticator:
    settings = base.settings
    return Authenticator(
        secret=settings.auth_secret,
        previous_secret=settings.auth_secret_previous,
        clock=base.own_clock,
        key_set=key_set,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        max_token_seconds=settings.max_token_seconds,
    )


def _webhooks(base: Foundation) -> WebhookEndpoints:
    settings, queries, lanes, clock = base.settings, base.queries, base.lanes, base.own_clock
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


def _admission(base: Foundation, limits: Limits) -> Admission:
    settings = base.settings
    return Admission(
        replace(
            limits,
            sockets_per_address=settings.sockets_per_address,
            requests_per_address=settings.requests_per_address,
        ),
        now=monotonic,
        proxies=Proxies(settings.trusted_proxies),
        capacity=min(limits.connections, descriptors.capacity().connections),
        closes=base.metrics.closes,
    )
