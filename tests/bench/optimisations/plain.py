"""The plain ways that the optimisations of the service stand for, as they would be written without them."""

import gc
from bisect import insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.access.auth import Authenticator, Principal
from app.api import descriptions, guides, library, linking, module_syntax, pages, site
from app.api.outlook import Accuracies
from app.domain import estimate, recorder
from app.domain import room as rooms
from app.domain.event import EventName, RoomSettings
from app.domain.item import Item
from app.domain.room import Room
from app.engine import lane, writer
from app.engine.deadline import Deadline
from app.engine.queries import Queries
from app.live.snapshots import Snapshots
from app.live.subscriber import Group
from app.server import addresses, admission, middleware, whole_response
from app.server.direct_transport import DirectTransport
from app.server.draining_server import COLLECT_AFTER
from app.server.websocket_protocol import QueueSocketProtocol
from app.store import engines, reading, records, tables, writing
from app.store.records import Answer
from app.store.tables import ANSWERS, ITEMS, ROOMS, Instant
from app.webhooks.deliverer import Deliverer
from app.wire import encoding
from tests.bench.optimisations.swap import Plain, swapped, uncached

# The database


def _execute_many(self: Any, connection: Connection, rows: Sequence[records.Values]) -> None:
    if not rows:
        return
    if id(self) not in _STATEMENTS:
        _STATEMENTS[id(self)] = self._build(postgresql if connection.dialect.name == "postgresql" else sqlite)
    connection.execute(_STATEMENTS[id(self)], rows)


_STATEMENTS: dict[int, Any] = {}


def _milliseconds(self: Instant, value: Any, dialect: Any) -> int | None:
    return value if isinstance(value, int) else tables.milliseconds(value)


STATEMENTS_BY_SQLALCHEMY = swapped(
    (writing._Bulk, "run", _execute_many), (Instant, "process_bind_param", _milliseconds)
)


def _begin(connection: Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    connection.exec_driver_sql(statement)
    return []


_ANSWERS = select(*(ANSWERS.c[name] for name in records.ANSWER_COLUMNS)).where(
    tuple_(ANSWERS.c.scope, ANSWERS.c.key).in_(bindparam("keys", expanding=True))
)
_INTAKES = select(*(ITEMS.c[name] for name in records.INTAKE_COLUMNS)).where(
    tuple_(ITEMS.c.source_feature, ITEMS.c.idempotency_key).in_(bindparam("keys", expanding=True))
)
_HELD = select(ITEMS.c.escrow_transaction_id, ITEMS.c.item_id).where(
    ITEMS.c.escrow_transaction_id.in_(bindparam("escrows", expanding=True))
)


def _find_answers(connection: Connection, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    if not keys:
        return {}
    wanted = [(scope.removeprefix(records.INTAKE_SCOPE), key) for scope, key in keys]
    found = [
        records.intake_answer_from(
            [tables.milliseconds(value) if isinstance(value, datetime) else value for value in row]
        )
        for row in connection.execute(_INTAKES, {"keys": wanted})
    ]
    return {(answer.scope, answer.key): answer for answer in found}


def _held_escrows(connection: Connection, escrow_ids: Collection[str]) -> dict[str, str]:
    if not escrow_ids:
        return {}
    return {row[0]: row[1] for row in connection.execute(_HELD, {"escrows": list(escrow_ids)})}


QUESTIONS_BY_SQLALCHEMY = swapped(
    (reading, "find_answers", _find_answers),
    (reading, "held_escrows", _held_escrows),
    (engines, "driver_rows", _begin),
)


EVERY_COLUMN = swapped((records, "is_fresh", lambda item: False), (records, "is_arrival", lambda event: False))


@contextmanager
def _enumerations() -> Iterator[None]:
    """`str(…)` in that module leaves the members of enumerations as they are."""
    records.str = lambda value: value  # type: ignore[attr-defined]
    yield
    del records.str  # type: ignore[attr-defined]


ENUMERATIONS: Plain = _enumerations
ANSWER_ROWS = swapped((records, "is_of_own_key", lambda answer, item: False))

_save = writing.save


def _save_whole_rooms(connection: Connection, changes: writing.Changes, *, compact: bool = True) -> None:
    changes.renewed |= changes.rooms.keys()
    _save(connection, changes, compact=compact)


WHOLE_ROOMS = swapped((writing, "save", _save_whole_rooms))


_OF_PERFORMERS: Any = bindparam("performer_ids", expanding=True)
_ROWS = {
    ROOMS: select(ROOMS).where(ROOMS.c.performer_id.in_(_OF_PERFORMERS)),
    ITEMS: select(ITEMS).where(reading.ACTIVE_ITEMS, ITEMS.c.performer_id.in_(_OF_PERFORMERS)),
}


def _rows_of(connection: Connection, table: Any, performer_ids: Collection[str], *, where: str = "") -> list[Any]:
    if not performer_ids:
        return []
    return list(connection.execute(_ROWS[table], {"performer_ids": list(performer_ids)}).mappings())


ROWS_BY_SQLALCHEMY = swapped((reading, "rows_of", _rows_of))
LAYOUT_EACH_TIME = uncached(reading, "_layout")


def _find_item(connection: Connection, item_id: str) -> Item | None:
    row = connection.execute(select(ITEMS).where(ITEMS.c.item_id == item_id)).mappings().first()
    return None if row is None else records.item_from(row)


STATEMENTS_BUILT_ANEW = swapped((reading, "find_item", _find_item))

# Rooms


def _changed(before: Sequence[Item], after: Sequence[Item]) -> Sequence[Item]:
    as_before = set(map(id, before))
    return [item for item in after if id(item) not in as_before]


CHANGED_BY_SET = swapped((writer, "_renewed", _changed))


def _added_up(self: Room) -> Room:
    waiting = self.items[1:] if self.started else self.items
    default = self.policy.default_duration_seconds
    return replace(self, backlog_seconds=estimate.backlog_seconds(waiting, self.history, default))


BACKLOG_ADDED_UP = swapped((Room, "with_backlog", _added_up))


def _position(self: Room, item_id: str) -> int:
    return next((position for position, item in enumerate(self.items, 1) if item.item_id == item_id), 0)


POSITION_FROM_THE_FRONT = swapped((Room, "position", _position))


def _fold(
    room: Room, name: EventName, at: datetime, *, item: Item | None = None, settings: RoomSettings | None = None
) -> Room:
    if settings is not None:
        room = replace(room, settings=settings)
    items, history, backlog = list(room.items), room.history, None
    if item is not None:
        is_new = name is EventName.ITEM_CREATED
        position = 0 if is_new else room.position(item.item_id)
        before = items.pop(position - 1) if position else None
        if item.is_active and not item.pass_through_mode:
            insort(items, item, key=lambda item: item.order)
            if is_new and room.backlog_seconds is not None:
                turn = history.turn_seconds(item, room.policy.default_duration_seconds)
                backlog = room.backlog_seconds + turn
        history = rooms._learn(room, before, name, at, item)
    rooms._attend(room, items, at, {1, 2, *room.notify_positions})
    return replace(
        room, version=room.version + 1, last_at=at, items=tuple(items), history=history, backlog_seconds=backlog
    )


EVERY_ARRIVAL_SORTED_IN = swapped((rooms, "fold", _fold), (recorder, "fold", _fold))


def _turns(waiting: Iterable[Item], history: estimate.History, default_seconds: float) -> Iterator[float]:
    return (history.turn_seconds(item, default_seconds) for item in waiting)


EACH_TURN_BY_ITSELF = swapped((estimate, "_turns", _turns))


class _AllRanges(estimate.Waits):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._all = list(self)


EVERY_RANGE = swapped((rooms, "Waits", _AllRanges))


def _all_waits(self: Room, now: datetime, first: int | None = None) -> estimate.Waits:
    return estimate.Waits(self.items, self.history, now, self.policy.default_duration_seconds)


EVERY_WAIT = swapped((Room, "waits", _all_waits))

NO_PAUSE_OF_THE_LANE = swapped((lane, "sleep", lambda seconds: None))


async def _looked_up(self: Queries, item_id: str, deadline: Deadline | None = None) -> tuple[Item, Room]:
    deadline = deadline or Deadline(self._seconds)
    item = await self.run(lambda connection: reading.find_item(connection, item_id), deadline)
    assert item is not None
    room = await self.room(item.performer_id, deadline)
    return room.find(item_id) or item, room


ITEMS_LOOKED_UP = swapped((Queries, "item", _looked_up))

ACCURACY_READ_EACH_TIME = swapped((Accuracies, "is_known", lambda self, performer_id, now: False))

# HTTP


ADDRESSES_READ_EACH_TIME = swapped((admission, "counted_as", addresses.counted_as.__wrapped__))
PROXIES_SOUGHT_EACH_TIME = swapped(
    (addresses.Proxies, "trusts", lambda self, address: address is not None and self._contains(address))
)


async def _in_two_messages(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    await response(scope, receive, send)


TWO_WRITES = swapped((whole_response, "respond", _in_two_messages), (middleware, "respond", _in_two_messages))

_measured = encoding._measure
EVERY_BODY_READ_TWICE = swapped((encoding, "_measure", lambda value: (_measured(value)[0], -1)))
TIMES_EACH_TIME = swapped((encoding, "instant", encoding.instant.__wrapped__))


async def _verified(self: Authenticator, token: str) -> Principal:
    self._verified.clear()
    return await _principal(self, token)


_principal = Authenticator.principal
TOKENS_VERIFIED_EACH_TIME = swapped((Authenticator, "principal", _verified))


@contextmanager
def _usual_collector() -> Iterator[None]:
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


USUAL_COLLECTOR: Plain = _usual_collector

# Sockets


def _body(self: Snapshots, form: Any, room: Room, version: int) -> bytes:
    self._bodies.clear()
    return _snapshot_body(self, form, room, version)


_snapshot_body = Snapshots._body
SNAPSHOT_EACH_TIME = swapped((Snapshots, "_body", _body))


ENDPOINTS_LOOKED_FOR_AT_EACH_COMMIT = swapped((Deliverer, "committed", Deliverer.wake))


def _write_to_each(self: Group, frame: bytes) -> int:
    written = 0
    for subscriber in list(self.members):
        connection = subscriber.connection
        if connection.is_open and not connection.is_lagging:
            connection.write(frame)
            written += 1
    return written


EACH_CONNECTION_LOOKED_AT = swapped((Group, "write", _write_to_each))


def _write_behind(self: DirectTransport, data: bytes) -> None:
    self._transport.write(data)


def _write_by_transport(self: Group, frame: bytes) -> int:
    ready = list(self._ready.values())
    for subscriber in ready:
        subscriber.connection._direct._transport.write(frame)  # type: ignore[attr-defined]
    return len(ready)


EACH_WRITE_BY_ITSELF = swapped((DirectTransport, "join", lambda self: None))
UVLOOPS_WRITES = swapped((DirectTransport, "write", _write_behind), (Group, "write", _write_by_transport))


def _unready(self: Group) -> list[Any]:
    return [subscriber for subscriber in self.members if subscriber.send is None]


EVERYBODY_LOOKED_AT = swapped((Group, "unready", _unready))


_send = QueueSocketProtocol.send


async def _send_and_keep(self: QueueSocketProtocol, message: Any) -> None:
    kept = getattr(self, "request", None), getattr(self, "response", None)
    await _send(self, message)
    if message["type"] == "websocket.accept":
        self.request, self.response = kept  # type: ignore[assignment]


HANDSHAKE_KEPT = swapped((QueueSocketProtocol, "send", _send_and_keep))

# Pages, documents, reports

SITE_EACH_TIME = uncached(pages, "site_of")
GUIDES_READ_EACH_TIME = uncached(guides, "guide")
GUIDES_FILLED_IN_EACH_TIME = uncached(guides, "_rendered")
MODULES_LINKED_EACH_TIME = uncached(linking, "_body")
IMPORTS_FOUND_EACH_TIME = swapped(
    *((module, "imports_of", module_syntax.imports_of.__wrapped__) for module in (linking, library))
)
QUICK_COMPRESSION = swapped((site, "THOROUGH", site.QUICK))
DOCUMENTS_EACH_TIME = uncached(descriptions, "made")
WITHOUT_HISTORIES = swapped((reading, "histories", lambda connection, performer_ids: {}))
