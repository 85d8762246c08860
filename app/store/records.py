"""Between the domain's values and the tables' rows, both ways. The one place that knows how a value is laid out.

What is written is laid out for the driver itself, so that a bulk statement need not look at each value again. Members
of enumerations become plain texts: the driver would look for an adapter for each, which takes longer than storing it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy import RowMapping

from app.domain.command import Actor, Mode, Role
from app.domain.event import Event, EventName, PauseReason, RoomSettings
from app.domain.item import Clock, Item, Reason, Status, WalletStatus
from app.domain.operation import Operation, OperationKind, OperationStatus
from app.domain.room import Room
from app.store.tables import milliseconds, moment

Values = dict[str, Any]

_ITEM_FIELDS = tuple(field.name for field in fields(Item))
_PLAIN_ITEM_FIELDS = tuple(name for name in _ITEM_FIELDS if name not in ("metadata", "clock", "notified"))
FRESH_ITEM: Mapping[str, Any] = {
    "queue_mode": Mode.ON,
    "pass_through_mode": False,
    "status": Status.CREATED,
    "paused": False,
    "started_at": None,
    "finished_at": None,
    "abandoned_at": None,
    "refunded_at": None,
    "abandon_reason": None,
    "refund_reason": None,
    "wallet_status": WalletStatus.NONE,
    "settled": False,
    "settled_at": None,
    "settlement_transaction_id": None,
    "settled_tokens": None,
    "refunded_tokens": None,
    "refund_transaction_id": None,
}
"""What every item holds in these fields when it takes its place in a queue: nearly half of the columns, and the same
each time."""
_fresh_values = attrgetter(*FRESH_ITEM)
_FRESH_VALUES = tuple(FRESH_ITEM.values())
_OWN_ITEM_FIELDS = tuple(name for name in _PLAIN_ITEM_FIELDS if name not in FRESH_ITEM)
_own_item_values = attrgetter(*_OWN_ITEM_FIELDS)
_ITEM_ENUMS = ("queue_mode", "status", "abandon_reason", "refund_reason", "wallet_status")
_LATER_ITEM_TIMES = tuple(name for name in FRESH_ITEM if name.endswith("_at"))
_SETTINGS_FIELDS = tuple(field.name for field in fields(RoomSettings))
_OPERATION_FIELDS = tuple(field.name for field in fields(Operation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer once given under an idempotency key."""

    scope: str
    key: str
    fingerprint: str
    performer_id: str
    item_id: str
    version: int
    at: datetime


ANSWER_COLUMNS = tuple(field.name for field in fields(Answer))
_answer_values = attrgetter(*ANSWER_COLUMNS)


def is_fresh(item: Item) -> bool:
    """Whether it holds what FRESH_ITEM says."""
    return bool(_fresh_values(item) == _FRESH_VALUES)


def fresh_item_values(item: Item, due_at: datetime | None) -> Values:
    """The row of an item but for what FRESH_ITEM says, and for `ended_at`, which it has none of."""
    values = dict(zip(_OWN_ITEM_FIELDS, _own_item_values(item), strict=True))
    values["created_at"] = milliseconds(item.created_at)
    values["updated_at"] = milliseconds(item.updated_at)
    values["metadata"] = orjson.dumps(item.metadata).decode()
    values["clock_used_seconds"] = item.clock.used_seconds
    values["clock_since"] = milliseconds(item.clock.since)
    values["notified"] = _joined(item.notified)
    values["due_at"] = milliseconds(due_at)
    return values


def item_values(item: Item, due_at: datetime | None) -> Values:
    values = fresh_item_values(item, due_at)
    values |= zip(FRESH_ITEM, _fresh_values(item), strict=True)
    for name in _LATER_ITEM_TIMES:
        values[name] = milliseconds(values[name])
    for name in _ITEM_ENUMS:
        values[name] = values[name] and str(values[name])
    values["ended_at"] = values["finished_at"] or values["abandoned_at"] or values["refunded_at"]
    return values


def item_from(row: RowMapping) -> Item:
    values = {name: row[name] for name in _PLAIN_ITEM_FIELDS}
    values["metadata"] = orjson.loads(row["metadata"])
    values["clock"] = Clock(used_seconds=row["clock_used_seconds"], since=row["clock_since"])
    values["notified"] = _positions(row["notified"])
    return Item(**_with_item_enums(values))


class LearntItem(NamedTuple):
    """The fields of an ended item from which the wait estimate learns, in the order of LEARNT_COLUMNS."""

    source_feature: str
    duration_seconds: int | None
    pass_through_mode: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    abandoned_at: datetime | None
    refunded_at: datetime | None
    abandon_reason: Reason | None
    clock_used_seconds: float
    quoted_wait_seconds: float | None
    quoted_position: int | None

    @property
    def clock(self) -> Clock:
        return Clock(used_seconds=self.clock_used_seconds)


LEARNT_COLUMNS = LearntItem._fields


def room_values(room: Room) -> Values:
    values = {name: getattr(room.settings, name) for name in _SETTINGS_FIELDS}
    positions = room.settings.notify_positions
    values["notify_positions"] = None if positions is None else _joined(positions)
    values["mode"] = str(room.settings.mode)
    values["pause_reason"] = room.settings.pause_reason and str(room.settings.pause_reason)
    values["offline_since"] = milliseconds(room.settings.offline_since)
    return values | {
        "performer_id": room.performer_id,
        "version": room.version,
        "last_at": milliseconds(room.last_at),
    }


def room_progress(room: Room) -> Values:
    """What every event moves in the row of its room."""
    return {"key": room.performer_id, "version": room.version, "last_at": milliseconds(room.last_at)}


def settings_from(row: RowMapping) -> RoomSettings:
    values = {name: row[name] for name in _SETTINGS_FIELDS}
    positions = values["notify_positions"]
    values["notify_positions"] = None if positions is None else _positions(positions)
    return RoomSettings(**_with_settings_enums(values))


ARRIVAL: Mapping[str, Any] = {
    "name": EventName.ITEM_CREATED,
    "from_status": None,
    "to_status": Status.CREATED,
    "reason": None,
    "settings": None,
}
"""What every event of an item that takes its place holds in these columns, as FRESH_ITEM does for the item."""


def is_arrival(event: Event) -> bool:
    """Whether it holds what ARRIVAL says."""
    return (
        event.name is EventName.ITEM_CREATED
        and event.item is not None
        and event.item.status is Status.CREATED
        and (event.from_status, event.reason, event.settings) == (None, None, None)
    )


def event_values(event: Event) -> Values:
    """The whole row; what is also in ARRIVAL goes unused where that stands in the statement."""
    item = event.item
    return {
        "performer_id": event.performer_id,
        "version": event.version,
        "name": str(event.name),
        "at": milliseconds(event.at),
        "actor_role": str(event.actor.role),
        "actor_id": event.actor.id,
        "item_id": item and item.item_id,
        "source_feature": item and item.source_feature,
        "from_status": event.from_status and str(event.from_status),
        "to_status": item and str(item.status),
        "reason": event.reason and str(event.reason),
        "position": event.position,
        "params": orjson.dumps(event.params).decode(),
        "item": item and orjson.dumps(item).decode(),
        "settings": event.settings and orjson.dumps(event.settings).decode(),
    }


def event_to_json(events: Sequence[Event]) -> bytes:
    """Events as they travel between processes."""
    return orjson.dumps([event_values(event) for event in events])


def event_from_json(payload: bytes) -> list[Event]:
    rows = orjson.loads(payload)
    return [event_from({**row, "at": moment(row["at"])}) for row in rows]


def event_from(row: RowMapping | Mapping[str, Any]) -> Event:
    return Event(
        performer_id=row["performer_id"],
        version=row["version"],
        name=EventName(row["name"]),
        at=row["at"],
        actor=Actor(role=Role(row["actor_role"]), id=row["actor_id"]),
        item=row["item"] and _item_from_json(row["item"]),
        position=row["position"],
        settings=row["settings"] and _settings_from_json(row["settings"]),
        from_status=row["from_status"] and Status(row["from_status"]),
        reason=row["reason"],
        params=orjson.loads(row["params"]),
    )


def operation_values(operation: Operation) -> Values:
    """The row of a new operation; replacing one keeps its `claimed`. Whatever is written ends the lease."""
    values = {name: getattr(operation, name) for name in _OPERATION_FIELDS} | {"claimed": False, "lease_until": None}
    for name in ("next_attempt_at", "created_at", "updated_at"):
        values[name] = milliseconds(values[name])
    for name in ("kind", "status", "reason"):
        values[name] = str(values[name])
    return values


def answer_values(answer: Answer) -> Values:
    values = dict(zip(ANSWER_COLUMNS, _answer_values(answer), strict=True))
    values["at"] = milliseconds(answer.at)
    return values


def answer_from(row: Sequence[Any]) -> Answer:
    """From ANSWER_COLUMNS as the driver gives them."""
    values = dict(zip(ANSWER_COLUMNS, row, strict=True))
    return Answer(**values | {"at": moment(values["at"])})


def operation_from(row: RowMapping) -> Operation:
    values = {name: row[name] for name in _OPERATION_FIELDS}
    values["kind"] = OperationKind(values["kind"])
    values["status"] = OperationStatus(values["status"])
    return Operation(**values)


def _item_from_json(text: str) -> Item:
    values = orjson.loads(text)
    for name, value in values.items():
        if name.endswith("_at") and value is not None:
            values[name] = datetime.fromisoformat(value)
    clock = values["clock"]
    since = clock["since"]
    values["clock"] = Clock(used_seconds=clock["used_seconds"], since=since and datetime.fromisoformat(since))
    values["notified"] = tuple(values["notified"])
    return Item(**_with_item_enums(values))


def _settings_from_json(text: str) -> RoomSettings:
    values = orjson.loads(text)
    if values["notify_positions"] is not None:
        values["notify_positions"] = tuple(values["notify_positions"])
    if values["offline_since"] is not None:
        values["offline_since"] = datetime.fromisoformat(values["offline_since"])
    return RoomSettings(**_with_settings_enums(values))


def _with_item_enums(values: Values) -> Values:
    values["status"] = Status(values["status"])
    values["wallet_status"] = WalletStatus(values["wallet_status"])
    for name in ("abandon_reason", "refund_reason"):
        if values[name] is not None:
            values[name] = Reason(values[name])
    return values


def _with_settings_enums(values: Values) -> Values:
    values["mode"] = Mode(values["mode"])
    if values["pause_reason"] is not None:
        values["pause_reason"] = PauseReason(values["pause_reason"])
    return values


def _joined(positions: tuple[int, ...]) -> str:
    return ",".join(map(str, positions))


def _positions(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)
