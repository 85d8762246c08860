"""Converts the domain's values to the tables' rows and back.

Written rows are laid out for the driver itself, so that a bulk statement need not look at each value again. Members of
enumerations become plain texts, for which the driver need not look for an adapter: saves 7 % of the CPU that decides
and commits intakes (`bench --without texts`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import RowMapping

from app.domain.command import Actor, Mode, Role
from app.domain.event import Event, EventName, RoomSettings
from app.domain.item import Clock, Item, Reason, Status, WalletStatus
from app.domain.operation import Operation, OperationKind, OperationStatus
from app.domain.room import Room
from app.store import compact
from app.store.members import member, with_item_enums, with_settings_enums
from app.store.tables import milliseconds, moment
from app.store.whole_json import (
    ONLY_IN_ITS_ROW,
    item_from_json,
    settings_from_json,
    settings_json,
    whole_item_json,
)

Values = dict[str, Any]

_ITEM_FIELDS = Item.__struct_fields__
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
"""The values of these fields in every item that takes its place in a queue: nearly half of the columns, and the same
each time."""
_fresh_values = attrgetter(*FRESH_ITEM)
_FRESH_VALUES = tuple(FRESH_ITEM.values())
_OWN_ITEM_FIELDS = tuple(name for name in _PLAIN_ITEM_FIELDS if name not in FRESH_ITEM)
_own_item_values = attrgetter(*_OWN_ITEM_FIELDS)
_ITEM_ENUMS = ("queue_mode", "status", "abandon_reason", "refund_reason", "wallet_status")
_LATER_ITEM_TIMES = tuple(name for name in FRESH_ITEM if name.endswith("_at"))
_SETTINGS_FIELDS = RoomSettings.__struct_fields__
_OPERATION_FIELDS = Operation.__struct_fields__


class Answer(Struct, frozen=True, kw_only=True):
    """The first answer to an idempotency key, as a pointer to the event that holds the item."""

    scope: str
    key: str
    fingerprint: str
    performer_id: str
    item_id: str
    version: int
    at: datetime


ANSWER_COLUMNS = Answer.__struct_fields__
_answer_values = attrgetter(*ANSWER_COLUMNS)


TRACEPARENT = "traceparent"

INTAKE_SCOPE = "intake:"
"""The prefix of the scope of an intake's key; the source feature follows it."""
PASS_THROUGH_EVENTS = 3
"""Created, started, finished: the answer to the intake of an item that passes through is the item after the third."""
INTAKE_COLUMNS = (
    "source_feature",
    "idempotency_key",
    "fingerprint",
    "performer_id",
    "item_id",
    "first_version",
    "pass_through_mode",
    "created_at",
)


def is_of_own_key(answer: Answer, item: Item | None) -> bool:
    """Whether an intake's scope and key are those in the item's row, so that the answer needs no row of its own. That
    saves 10 % of the CPU that decides and commits intakes (`bench --without answers`)."""
    return item is not None and (answer.scope, answer.key) == (INTAKE_SCOPE + item.source_feature, item.idempotency_key)


def intake_answer_from(row: Sequence[Any]) -> Answer:
    """The answer in a row of INTAKE_COLUMNS, as the driver returns it. Its fingerprint is None if the answer has a row
    of its own."""
    feature, key, fingerprint, performer_id, item_id, first_version, passed_through, created_at = row
    return Answer(
        scope=INTAKE_SCOPE + feature,
        key=key,
        fingerprint=fingerprint,
        performer_id=performer_id,
        item_id=item_id,
        version=(first_version or 0) + (PASS_THROUGH_EVENTS - 1 if passed_through else 0),
        at=moment(created_at),
    )


def is_fresh(item: Item) -> bool:
    """Whether it has the values of FRESH_ITEM."""
    return bool(_fresh_values(item) == _FRESH_VALUES)


def fresh_item_values(item: Item, due_at: datetime | None) -> Values:
    """The row of an item without the columns of FRESH_ITEM and without `ended_at`."""
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


def item_from(row: RowMapping | Mapping[str, Any]) -> Item:
    values = {name: row[name] for name in _PLAIN_ITEM_FIELDS}
    values["metadata"] = orjson.loads(row["metadata"])
    values["clock"] = Clock(used_seconds=row["clock_used_seconds"], since=row["clock_since"])
    values["notified"] = _positions(row["notified"])
    return Item(**with_item_enums(values))


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
    """The columns of a room's row that every event changes."""
    return {"key": room.performer_id, "version": room.version, "last_at": milliseconds(room.last_at)}


def settings_from(row: RowMapping | Mapping[str, Any]) -> RoomSettings:
    values = {name: row[name] for name in _SETTINGS_FIELDS}
    positions = values["notify_positions"]
    values["notify_positions"] = None if positions is None else _positions(positions)
    return RoomSettings(**with_settings_enums(values))


ARRIVAL: Mapping[str, Any] = {
    "name": compact.stored_name(EventName.ITEM_CREATED),
    "from_status": None,
    "to_status": Status.CREATED,
    "reason": None,
    "settings": None,
}
"""The values of these columns in the compact row of every event of an item that takes its place in a queue, like
FRESH_ITEM for items."""


def is_arrival(event: Event) -> bool:
    """Whether its compact row has the values of ARRIVAL."""
    return (
        event.name is EventName.ITEM_CREATED
        and event.item is not None
        and event.item.status is Status.CREATED
        and (event.from_status, event.reason, event.settings) == (None, None, None)
    )


def event_values(event: Event) -> Values:
    """The row of an event with its whole item as JSON. Statements with fixed ARRIVAL columns ignore those here."""
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
        "item": item and whole_item_json(item),
        "settings": event.settings and settings_json(event.settings),
    }


def compact_event_values(event: Event) -> Values:
    """The row of an event in the compact layout; its item must have a row of its own."""
    item = event.item
    if item is None:
        return event_values(event)
    return {
        "performer_id": event.performer_id,
        "version": event.version,
        "name": compact.stored_name(event.name),
        "at": milliseconds(event.at),
        "actor_role": str(event.actor.role),
        "actor_id": event.actor.id,
        "item_id": item.item_id,
        "source_feature": item.source_feature,
        "from_status": event.from_status and str(event.from_status),
        "to_status": str(item.status),
        "reason": event.reason and str(event.reason),
        "position": event.position,
        "params": compact.compact_params(event, item),
        "item": compact.compact_item(item, event.at),
        "settings": event.settings and settings_json(event.settings),
    }


def event_to_json(events: Sequence[Event], traceparent: str | None = None) -> bytes:
    """Events for other processes, as JSON, with the span that caused them, if it is known."""
    rows = [event_values(event) for event in events]
    if traceparent is not None and rows:
        rows[0][TRACEPARENT] = traceparent
    return orjson.dumps(rows)


def event_from_json(payload: bytes) -> tuple[list[Event], str | None]:
    """The events in the JSON of `event_to_json`, and the span that came with them, if any."""
    rows = orjson.loads(payload)
    events = [event_from({**row, "at": moment(row["at"])}) for row in rows]
    return events, rows[0].get(TRACEPARENT) if rows else None


def event_from(row: RowMapping | Mapping[str, Any]) -> Event:
    """The event of a row of `event_log.EVENT_ROWS`. If its item is not compact, the event's own columns are enough."""
    text, at = row["item"], row["at"]
    item: Item | None
    params: dict[str, Any]
    if text and text.startswith(compact.MARK) and row["of_item_id"] is None:
        # Only in a damaged database, which `checking` reports; a reader of the log continues.
        item, params = None, {}
    elif text and text.startswith(compact.MARK):
        item = _compact_item_from(row)
        derived = compact.derived_params(row["of_title"], row["of_tokens"], row["of_source_feature"], row["position"])
        params = compact.expanded_params(row["params"], derived)
    else:
        item = text and _with_told_range(item_from_json(text), row)
        params = orjson.loads(row["params"])
    return Event(
        performer_id=row["performer_id"],
        version=row["version"],
        name=member(EventName, compact.full_name(row["name"])),
        at=at,
        actor=Actor(role=member(Role, row["actor_role"]), id=row["actor_id"]),
        item=item,
        position=row["position"],
        settings=row["settings"] and settings_from_json(row["settings"]),
        from_status=row["from_status"] and member(Status, row["from_status"]),
        reason=row["reason"],
        params=params,
    )


def _compact_item_from(row: RowMapping | Mapping[str, Any]) -> Item:
    values: Values = {name: row[compact.PREFIX + name] for name in compact.FIXED}
    values["metadata"] = orjson.loads(values["metadata"])
    values["abandon_reason"] = values["refund_reason"] = None
    values |= compact.changing_values(row["item"], row["at"], row)
    values["status"] = row["to_status"]
    values.setdefault("wallet_status", WalletStatus.NONE)
    return Item(**with_item_enums(values))


def is_confirmed(text: str) -> bool:
    """Whether an event's stored item has the wallet status `done`."""
    if text.startswith(compact.MARK):
        status = compact.stored(text).get(compact.SHORT_NAMES["wallet_status"])
    else:
        status = orjson.loads(text).get("wallet_status")
    return bool(status == WalletStatus.DONE)


def _with_told_range(item: Item, row: RowMapping | Mapping[str, Any]) -> Item:
    """An item from JSON, with the columns that only its own row has, if the event was read together with that row."""
    low, high = (row.get(compact.PREFIX + name) for name in ONLY_IN_ITS_ROW)
    return item if low is high is None else replace(item, quoted_low_seconds=low, quoted_high_seconds=high)


def operation_values(operation: Operation) -> Values:
    """The row of an operation, without a lease. `claimed` is used only if the row is new."""
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
    """The answer in a row of ANSWER_COLUMNS, as the driver returns it."""
    values = dict(zip(ANSWER_COLUMNS, row, strict=True))
    return Answer(**values | {"at": moment(values["at"])})


def operation_from(row: RowMapping) -> Operation:
    values = {name: row[name] for name in _OPERATION_FIELDS}
    values["kind"] = member(OperationKind, values["kind"])
    values["status"] = member(OperationStatus, values["status"])
    return Operation(**values)


def _joined(positions: tuple[int, ...]) -> str:
    return ",".join(map(str, positions))


def _positions(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)
