"""Rows of webhook endpoints and their last deliveries."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, RowMapping, Table, and_, delete, func, insert, or_, select, update

from app.domain.event import EventName
from app.domain.webhook import ADMINISTRATORS, Delivery, Endpoint, EndpointStatus
from app.store import event_log
from app.store.tables import WebhookDeliveryRow, WebhookEndpointRow, table_of

ENDPOINTS: Table = table_of(WebhookEndpointRow)
DELIVERIES: Table = table_of(WebhookDeliveryRow)
EVENTS_REMOVED = "retention has removed events before they could be delivered"
DELIVERIES_KEPT = 200
"""The number of latest attempts that are stored for each endpoint."""

_DELIVERY_FIELDS = Delivery.__struct_fields__


def endpoints(connection: Connection, owner: str | None = None) -> list[Endpoint]:
    """All endpoints of an owner, or of everybody (None), by owner and name."""
    statement = select(ENDPOINTS).order_by(ENDPOINTS.c.owner, ENDPOINTS.c.name)
    if owner is not None:
        statement = statement.where(ENDPOINTS.c.owner == owner)
    return [_endpoint(row) for row in connection.execute(statement).mappings()]


def find_endpoint(connection: Connection, owner: str, name: str) -> Endpoint | None:
    row = connection.execute(select(ENDPOINTS).where(_is(owner, name))).mappings().first()
    return None if row is None else _endpoint(row)


def due_endpoints(connection: Connection, now: datetime) -> list[Endpoint]:
    """Active endpoints that may be tried now and that no process has claimed."""
    statement = select(ENDPOINTS).where(*_due(now))
    return [_endpoint(row) for row in connection.execute(statement).mappings()]


def has_active(connection: Connection) -> bool:
    """Whether there is an active endpoint, due or not."""
    active = select(ENDPOINTS.c.name).where(ENDPOINTS.c.status == str(EndpointStatus.ACTIVE)).limit(1)
    return connection.execute(active).first() is not None


def count_by_status(connection: Connection) -> Mapping[str, int]:
    """The number of endpoints in each status, zeros included."""
    rows = connection.execute(select(ENDPOINTS.c.status, func.count()).group_by(ENDPOINTS.c.status))
    found = {status: int(count) for status, count in rows}
    return {status: found.get(status, 0) for status in EndpointStatus}


def owed_since(connection: Connection) -> list[tuple[Endpoint, datetime]]:
    """The endpoints that fail or are parked, each with the time of its first undelivered event."""
    stuck = or_(ENDPOINTS.c.status == str(EndpointStatus.PARKED), ENDPOINTS.c.failing_since.is_not(None))
    found = []
    for row in connection.execute(select(ENDPOINTS).where(stuck)).mappings().all():
        endpoint = _endpoint(row)
        feature = None if endpoint.owner == ADMINISTRATORS else endpoint.owner
        first = event_log.log_events(connection, after=endpoint.cursor, limit=1, source_feature=feature)
        if first:
            found.append((endpoint, first[0].event.at))
    return found


def note_removal(connection: Connection, endpoint: Endpoint) -> None:
    """Note as an endpoint's last problem that it will not get all its events."""
    if endpoint.last_problem != EVENTS_REMOVED:
        connection.execute(
            update(ENDPOINTS).where(_is(endpoint.owner, endpoint.name)).values(last_problem=EVENTS_REMOVED)
        )


def save_endpoint(connection: Connection, endpoint: Endpoint) -> None:
    """Insert or replace an endpoint."""
    connection.execute(delete(ENDPOINTS).where(_is(endpoint.owner, endpoint.name)))
    connection.execute(insert(ENDPOINTS), _values(endpoint))


def delete_endpoint(connection: Connection, owner: str, name: str) -> bool:
    """Delete an endpoint and its deliveries; returns whether it existed."""
    connection.execute(delete(DELIVERIES).where(DELIVERIES.c.owner == owner, DELIVERIES.c.name == name))
    return connection.execute(delete(ENDPOINTS).where(_is(owner, name))).rowcount > 0


def claim_endpoint(connection: Connection, owner: str, name: str, now: datetime, until: datetime) -> Endpoint | None:
    """Claim an endpoint, so that only this process delivers to it before `until`. None: another process has claimed it,
    or it is not due."""
    claimed = update(ENDPOINTS).where(_is(owner, name), *_due(now)).values(lease_until=until)
    if not connection.execute(claimed).rowcount:
        return None
    return find_endpoint(connection, owner, name)


def record_progress(connection: Connection, claimed: Endpoint, now: Endpoint, deliveries: Sequence[Delivery]) -> bool:
    """Store the progress of delivery and the attempts. Returns False, and stores nothing, if the claim has been lost.

    An endpoint that was changed meanwhile keeps its progress, and its events are delivered again.
    """
    progress = {
        name: value
        for name, value in _values(now).items()
        if name
        in (
            "status",
            "cursor",
            "failures",
            "failing_since",
            "next_attempt_at",
            "last_problem",
            "last_delivered_at",
            "lease_until",
        )
    }
    held = and_(_is(claimed.owner, claimed.name), ENDPOINTS.c.lease_until == claimed.lease_until)
    if not connection.execute(update(ENDPOINTS).where(held).values(**progress)).rowcount:
        return False
    if deliveries:
        add_deliveries(connection, claimed.owner, claimed.name, deliveries)
    return True


def add_deliveries(connection: Connection, owner: str, name: str, deliveries: Sequence[Delivery]) -> None:
    """Store these attempts, and remove the endpoint's oldest ones beyond DELIVERIES_KEPT."""
    rows = [
        {"owner": owner, "name": name, **{field: getattr(each, field) for field in _DELIVERY_FIELDS}}
        for each in deliveries
    ]
    connection.execute(insert(DELIVERIES), rows)
    mine = and_(DELIVERIES.c.owner == owner, DELIVERIES.c.name == name)
    oldest_kept = (
        select(DELIVERIES.c.number)
        .where(mine)
        .order_by(DELIVERIES.c.number.desc())
        .offset(DELIVERIES_KEPT - 1)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(delete(DELIVERIES).where(mine, DELIVERIES.c.number < oldest_kept))


def deliveries(connection: Connection, owner: str, name: str, limit: int) -> list[Delivery]:
    """The last attempts of an endpoint, newest first."""
    statement = (
        select(*(DELIVERIES.c[field] for field in _DELIVERY_FIELDS))
        .where(DELIVERIES.c.owner == owner, DELIVERIES.c.name == name)
        .order_by(DELIVERIES.c.number.desc())
        .limit(limit)
    )
    return [Delivery(**row) for row in connection.execute(statement).mappings()]


def _is(owner: str, name: str) -> Any:
    return and_(ENDPOINTS.c.owner == owner, ENDPOINTS.c.name == name)


def _due(now: datetime) -> tuple[Any, ...]:
    return (
        ENDPOINTS.c.status == str(EndpointStatus.ACTIVE),
        ENDPOINTS.c.next_attempt_at <= now,
        or_(ENDPOINTS.c.lease_until.is_(None), ENDPOINTS.c.lease_until <= now),
    )


def _values(endpoint: Endpoint) -> dict[str, Any]:
    values = asdict(endpoint)
    values["status"] = str(endpoint.status)
    values["events"] = None if endpoint.events is None else ",".join(endpoint.events)
    return values


def _endpoint(row: RowMapping) -> Endpoint:
    values: dict[str, Any] = dict(row)
    values["status"] = EndpointStatus(values["status"])
    if values["events"] is not None:
        values["events"] = tuple(EventName(name) for name in values["events"].split(","))
    return Endpoint(**values)
