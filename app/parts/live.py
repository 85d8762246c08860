"""The parts that send events to viewers and performers: hub, sockets, presence, and the bus to the other processes."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from app.access.auth import Authenticator
from app.access.origins import Origins
from app.actions import Actions
from app.api.event_stream import EventLog, Pace
from app.domain.event import Event
from app.live.absent_rooms import AbsentRooms
from app.live.catch_up import POSITION_CHECK_SECONDS
from app.live.connections import Audiences
from app.live.disconnects import Disconnects
from app.live.hub import Hub
from app.live.presence import Presence
from app.live.sockets import Sockets
from app.live.watched_room import Fanout
from app.parts.extras import open_bus
from app.parts.foundation import Foundation
from app.redis_link import RedisLink
from app.server import descriptors
from app.server.limits import Limits

if TYPE_CHECKING:
    from app.live.bus import Bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    event_log: EventLog
    bus: "Bus | None"
    hub: Hub
    audiences: Audiences
    presence: Presence
    sockets: Sockets
    disconnects: Disconnects


def open_live(
    base: Foundation, redis: RedisLink | None, actions: Actions, authenticator: Authenticator, limits: Limits
) -> Live:
    event_log = EventLog(base.queries, base.own_clock, Pace(stalled=limits.write_seconds))

    def receive(performer_id: str, events: Sequence[Event]) -> None:
        """Events that another process has committed."""
        hub.publish(performer_id, events)
        event_log.wake(events)

    def receive_announcement(payload: bytes) -> None:
        disconnects.receive(payload)

    def disconnect(sub: str | None, performer_id: str | None) -> int:
        return sockets.disconnect(sub, performer_id) + event_log.disconnect(sub, performer_id)

    bus = open_bus(redis, receive, receive_announcement)
    hub = _hub(base, bus)
    process_id = secrets.token_hex(6)
    presence = Presence(base.lanes, process_id, base.clock)
    sockets = Sockets(
        hub=hub,
        actions=actions,
        authenticator=authenticator,
        presence=presence,
        clock=base.clock,
        token_clock=base.own_clock,
        public_rooms=base.settings.public_rooms,
        origins=Origins(base.settings.allowed_origins),
        connected=Counter(),
        closes=base.metrics.closes,
        tracer=base.tracer,
        capacity=min(limits.sockets, descriptors.capacity().sockets),
        sockets_per_principal=limits.sockets_per_principal,
        auth_seconds=limits.auth_seconds,
    )
    disconnects = Disconnects(disconnect, bus, process_id=process_id)
    return Live(
        event_log=event_log,
        bus=bus,
        hub=hub,
        audiences=Audiences(hub.audiences, redis, process_id=process_id),
        presence=presence,
        sockets=sockets,
        disconnects=disconnects,
    )


def _hub(base: Foundation, bus: "Bus | None") -> Hub:
    queries, store = base.queries, base.store
    fanout = Fanout(
        epoch=store.epoch,
        missed=queries.missed,
        clock=base.clock,
        coalesce_seconds=base.settings.coalesce_ms / 1000,
        tracer=base.tracer,
    )
    return Hub(
        fanout,
        absent=AbsentRooms(queries.versions, store.policy, seconds=POSITION_CHECK_SECONDS if store.shared else inf),
        load=queries.room,
        watch=bus.watch if bus is not None else None,
        unwatch=bus.unwatch if bus is not None else None,
    )
