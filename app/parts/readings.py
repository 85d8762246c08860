"""The functions by which the metrics read the parts' numbers."""

from datetime import datetime
from math import nan

from sqlalchemy import Connection

from app.engine.heartbeat import Heartbeat
from app.engine.item_counts import ItemCounts
from app.metrics.loop_lag import LoopLag
from app.metrics.readings import DatabaseReadings, Readings
from app.parts.foundation import Foundation
from app.parts.live import Live
from app.parts.push import Push
from app.server.admission import Admission
from app.store import disk, push, wallet_check, wallet_operations, webhooks
from app.wallet.outbox import Outbox
from app.webhooks.endpoints import WebhookEndpoints


def readings_of(
    base: Foundation,
    outbox: Outbox,
    live: Live,
    webhook_endpoints: WebhookEndpoints,
    pushes: Push,
    admission: Admission,
    *,
    heartbeat: Heartbeat,
    item_counts: ItemCounts,
    loop_lag: LoopLag,
) -> Readings:
    hub = live.hub

    def since(moment: datetime) -> float:
        return max(0.0, (base.clock() - moment).total_seconds())

    def database(connection: Connection) -> DatabaseReadings:
        oldest = wallet_operations.oldest_open_operation(connection)
        compared = wallet_check.last(connection)
        return DatabaseReadings(
            operations=wallet_operations.operation_counts(connection),
            oldest_open_operation_seconds=0.0 if oldest is None else since(oldest),
            webhook_endpoints=webhooks.count_by_status(connection),
            push_subscriptions=push.count_subscriptions(connection),
            wallet_differences=nan if compared is None else compared.different,
            wallet_check_age_seconds=nan if compared is None else since(compared.at),
        )

    return Readings(
        waiting_commands=lambda: base.lanes.waiting,
        lane_wait_seconds=lambda: base.lanes.wait_seconds,
        event_loop_lag_seconds=lambda: loop_lag.seconds,
        sockets=lambda: hub.sockets,
        watched_rooms=lambda: hub.rooms,
        lagging_sockets=lambda: hub.lagging,
        event_streams=lambda: live.event_log.streams,
        items=lambda: item_counts.by_status,
        clock_skew_seconds=lambda: heartbeat.skew_seconds,
        heartbeat_age_seconds=lambda: heartbeat.age_seconds,
        traffic=hub.traffic,
        breaker=outbox.breaker,
        deliveries=webhook_endpoints.deliverer,
        pushes={} if pushes.pusher is None else pushes.pusher.outcomes,
        database=lambda: base.queries.run(database),
        disk=lambda: disk.usage(base.engines),
        connections=lambda: admission.connections,
        silent_connections=lambda: admission.silent_connections,
        connection_capacity=lambda: admission.capacity or 0,
        addresses=lambda: admission.addresses,
        refusals=admission.refusals,
    )
