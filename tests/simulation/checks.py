"""The invariants of a world at rest: the queue's tables, the wallet's ledger and all clients agree."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from sqlalchemy import Connection, Engine, Row, func, select

from app.domain.command import TIMER
from app.domain.event import Event, EventName
from app.domain.item import ACTIVE, Item, Reason, Status, WalletStatus
from app.domain.operation import Operation, OperationKind, OperationStatus
from app.domain.room import Policy, Room, apply
from app.domain.view import View
from app.sandbox.ledger import HoldStatus
from app.sandbox.ledger_audit import audit, read_totals
from app.sandbox.tables import ESCROW, POSTING
from app.store import reading, records
from app.store.compact import stored_name
from app.store.event_log import EVENT_ROWS
from app.store.tables import EVENTS, ITEMS, OPERATIONS, milliseconds
from app.wire import frames
from tests.simulation.people import ADMIN, USERS
from tests.simulation.wallet import POCKET_MONEY

if TYPE_CHECKING:
    from tests.simulation.world import World

HIDDEN = tuple(map(stored_name, (EventName.ITEM_SETTLED, EventName.ITEM_WALLET_CHANGED)))
"""The events that viewers do not see."""
RESOLUTION = "resolution"
"""Of an event's params: what an administrator has decided about the payment."""
LATEST_SECONDS = 60.0
"""How much later than its time an item may be sent away: nobody looks while the database is away."""
SLACK = timedelta(seconds=4)
"""How long something may be due before somebody must have seen to it."""


# Rest


def unrest(world: "World") -> list[str]:
    """The work that is still under way; empty: none. Called often, and therefore in SQL."""
    with world.databases.queue.reader.begin() as connection:
        return list(_unrest(world, connection.exec_driver_sql))


def _unrest(world: "World", ask: Callable[..., Iterable[Any]]) -> Iterator[str]:
    people, late = world.people, milliseconds(world.true_time() - SLACK)
    operations = (
        "SELECT item_id, wallet_operations.escrow_transaction_id, wallet_operations.status, wallet_status"
        " FROM wallet_operations JOIN items USING (item_id)"
    )
    for item_id, escrow_id, status, wallet_status in ask(operations):
        is_written_off = wallet_status == WalletStatus.WRITTEN_OFF
        if status != ("dead" if escrow_id in people.unpayable and not is_written_off else "done"):
            yield f"the operation of {item_id[:8]} is {status}"
    for item_id, performer_id in ask("SELECT item_id, performer_id FROM items WHERE due_at <= ?", (late,)):
        yield f"item {item_id[:8]} of {performer_id} is overdue"
    for process_id, performer_id in ask("SELECT process_id, performer_id FROM presence WHERE expires_at <= ?", (late,)):
        yield f"the presence of {performer_id} on {process_id} has lapsed"
    versions = {}
    for performer_id, version, online in ask("SELECT performer_id, version, performer_online FROM rooms"):
        versions[performer_id] = version
        if bool(online) is not people.present(performer_id):
            yield f"{performer_id} is shown online={online}"
    for process in world.processes:
        if process.lanes.waiting:
            yield f"commands wait in process {process.number}"
        for performer_id, version in process.hub.watched.items():
            if version != versions.get(performer_id, 0):
                yield f"process {process.number} shows {performer_id} at {version}"
    visible = "SELECT performer_id, max(version) FROM events WHERE name NOT IN (?, ?) GROUP BY performer_id"
    seen = dict(tuple(row) for row in ask(visible, HIDDEN))
    for watcher in people.watchers:
        if not watcher.is_connected:
            continue
        latest = versions.get(watcher.performer_id, 0)
        # Viewers are sent nothing of what they may not see: they may stay behind it.
        least = latest if watcher.sees is View.FULL else seen.get(watcher.performer_id, 0)
        if not least <= watcher.version <= latest:
            yield f"a {watcher.role} of {watcher.performer_id} is at {watcher.version}"


# Everything


def check(world: "World") -> None:
    """Report every violation to the world."""
    people, policy = world.people, world.climate.policy
    with world.databases.queue.reader.begin() as connection:
        rooms = reading.load_rooms(connection, policy, people.rooms)
        tables = read_tables(connection)
    world.report.events.update(str(event.name) for event in tables.events)
    world.report.escrows_resolved += len(resolutions_of(world.databases.wallet))
    for violation in (
        *logs(policy, rooms, tables.events),
        *replays(world.published, tables.events),
        *(timeouts(policy, tables.events) if world.climate.steady_clocks else ()),
        *_promises(world, tables),
        *_screens(world, rooms),
        *money(tables, world.databases.wallet, unpayable=people.unpayable),
        *_orders(world, tables),
        *_by_hand(world, tables),
        *books(tables.items, world.databases.wallet, granted=POCKET_MONEY * len(USERS)),
    ):
        world.violated(violation)


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The content of all tables of the queue."""

    events: Sequence[Event]
    """Room by room, in order."""
    items: Sequence[Item]
    operations: Sequence[Operation]

    @property
    def resolved_by_hand(self) -> set[str]:
        """The items whose payment an administrator has decided."""
        return {event.item.item_id for event in self.events if event.item and RESOLUTION in event.params}


def read_tables(connection: Connection) -> Tables:
    events = EVENT_ROWS.order_by(EVENTS.c.performer_id, EVENTS.c.version)
    return Tables(
        events=[records.event_from(row) for row in connection.execute(events).mappings()],
        items=[records.item_from(row) for row in connection.execute(select(ITEMS)).mappings()],
        operations=[records.operation_from(row) for row in connection.execute(select(OPERATIONS)).mappings()],
    )


# Order


def logs(policy: Policy, rooms: Mapping[str, Room], events: Sequence[Event]) -> Iterator[str]:
    """Check that versions are gapless, that folding the log gives the room, and that at most one item is started at a
    time."""
    statuses: dict[str, Status] = {}
    for performer_id, room in rooms.items():
        folded = Room(performer_id=performer_id, policy=policy)
        for event in events:
            if event.performer_id != performer_id:
                continue
            if event.version != folded.version + 1:
                yield f"{performer_id}: version {event.version} follows {folded.version}"
                return
            folded = apply(folded, event)
            if sum(item.status is Status.STARTED for item in folded.items) > 1:
                yield f"{performer_id}: two items are started at version {event.version}"
            if event.item is not None:
                if statuses.get(event.item.item_id) is not event.from_status:
                    yield f"{performer_id}: version {event.version} is not what follows for its item"
                statuses[event.item.item_id] = event.item.status
        if folded != room:
            yield f"{performer_id}: the log does not come to what the tables say"


def replays(published: Sequence[Event], logged: Sequence[Event]) -> Iterator[str]:
    """Check that the log gives the frames that were sent, byte for byte, also in the previous release's layout."""
    log = {(event.performer_id, event.version): event for event in logged}
    for event in published:
        name = f"{event.performer_id}: version {event.version}"
        if (kept := log.get((event.performer_id, event.version))) is None:
            yield f"{name} is not in the log"
        elif _frames(kept) != _frames(event):
            yield f"{name} is replayed otherwise than it was sent"
    whole, _ = records.event_from_json(records.event_to_json(logged))
    for event, other in zip(logged, whole, strict=True):
        if _frames(event) != _frames(other):
            yield f"{event.performer_id}: version {event.version} differs in the earlier layout"


def _frames(event: Event) -> list[bytes]:
    return [
        frames.update([event], event.at, since=event.version - 1, version=event.version, view=view) for view in View
    ]


def timeouts(policy: Policy, events: Sequence[Event]) -> Iterator[str]:
    """Check that each item that timed out had used its time while the service ran, and hardly more."""
    for event in events:
        item = event.item
        if event.name is not EventName.ITEM_ABANDONED or event.actor != TIMER or item is None:
            continue
        if item.abandon_reason is not Reason.TIMEOUT:
            continue
        limit = policy.rope_drop_seconds
        if event.from_status is Status.STARTED:
            limit = policy.started_timeout_seconds + (item.duration_seconds or policy.default_duration_seconds)
        if not limit <= item.clock.used_seconds <= limit + LATEST_SECONDS:
            yield f"item {item.item_id} was sent away after {item.clock.used_seconds} s, not {limit}"


def _promises(world: "World", tables: Tables) -> Iterator[str]:
    """Check that nothing acknowledged is lost, and that refused commands had no effect."""
    promises = world.people.promises
    logged = {
        (event.performer_id, event.version): (str(event.name), event.item.item_id if event.item else None)
        for event in tables.events
    }
    for (performer_id, version), seen_event in promises.events.items():
        if logged.get((performer_id, version)) != seen_event:
            yield f"acknowledged {seen_event[0]}, version {version} of {performer_id}, is lost"
    by_key: dict[str, list[Item]] = defaultdict(list)
    for item in tables.items:
        by_key[item.idempotency_key].append(item)
    for key, wanted in promises.wanted.items():
        found = by_key.get(key, [])
        if len(found) > 1:
            yield f"{key} has {len(found)} items"
        if wanted.answer is not None and wanted.answer["itemId"] not in [item.item_id for item in found]:
            yield f"the item acknowledged for {key} is lost"
        if wanted.answer is None and not wanted.is_unclear and found:
            yield f"{key} was refused and has an item"


def _screens(world: "World", rooms: Mapping[str, Room]) -> Iterator[str]:
    for watcher in world.people.watchers:
        if watcher.is_connected and watcher.view() != watcher.fresh_view(rooms[watcher.performer_id]):
            yield f"a {watcher.role} sees another room of {watcher.performer_id} than there is"


# Money


def resolutions_of(wallet: Engine) -> Mapping[str, set[str]]:
    """By escrow: the transactions that took tokens out of it."""
    resolutions: dict[str, set[str]] = defaultdict(set)
    with wallet.begin() as connection:
        for row in connection.execute(select(POSTING.c.account, POSTING.c.transaction_id).where(POSTING.c.amount < 0)):
            if row.account.startswith("escrow:"):
                resolutions[row.account.removeprefix("escrow:")].add(row.transaction_id)
    return resolutions


def money(tables: Tables, wallet: Engine, *, unpayable: Collection[str] = ()) -> Iterator[str]:
    """Every ended item's escrow was resolved once, the way the queue decided, and both sides say the same.

    `unpayable`: escrows that the wallet cannot resolve as the queue orders it.
    """
    with wallet.begin() as connection:
        escrows = {row.escrow_id: row for row in connection.execute(select(ESCROW))}
    resolutions = resolutions_of(wallet)
    by_item = {operation.item_id: operation for operation in tables.operations}
    by_hand = tables.resolved_by_hand
    if len(by_item) != len(tables.operations):
        yield "an item has two operations"
    holders = [item.escrow_transaction_id for item in tables.items]
    if len(set(holders)) != len(holders):
        yield "an escrow is held by two items"
    for item in tables.items:
        operation, escrow = by_item.get(item.item_id), escrows.get(item.escrow_transaction_id)
        name = item.item_id
        if item.wallet_status is WalletStatus.WRITTEN_OFF:
            yield from _written_off(item, operation, resolutions.get(item.escrow_transaction_id, set()))
        elif item.escrow_transaction_id in unpayable:
            if operation is not None and operation.status is OperationStatus.DONE:
                yield f"item {name} was paid from nothing"
        elif escrow is None:
            yield f"item {name} was taken in although its escrow is unknown"
        elif item.status in ACTIVE:
            if operation is not None or escrow.status != HoldStatus.HELD:
                yield f"item {name} is {item.status}, its escrow {escrow.status}"
        elif operation is None or operation.status is not OperationStatus.DONE:
            yield f"item {name} has ended, its operation has not"
        else:
            if item.status is not (Status.FINISHED if item.settled else Status.REFUNDED) and not (
                # A performer may be paid by hand whatever has become of the item.
                item.settled and item.item_id in by_hand
            ):
                yield f"item {name} is {item.status} by a {operation.kind}"
            yield from _resolution(item, operation, escrow, resolutions.get(escrow.escrow_id, set()))


def _written_off(item: Item, operation: Operation | None, transactions: set[str]) -> Iterator[str]:
    """Check that the queue shows no payment; a late order may still have been executed."""
    if operation is None or operation.status is not OperationStatus.DONE:
        yield f"item {item.item_id} is written off, its operation has not ended"
    if item.settled or item.settled_tokens or item.refunded_tokens:
        yield f"item {item.item_id} is written off and paid"
    if len(transactions) > 1:
        yield f"the escrow of item {item.item_id} was resolved {len(transactions)} times"


def _resolution(item: Item, operation: Operation, escrow: Row[Any], transactions: set[str]) -> Iterator[str]:
    name, settled, refunded = item.item_id, item.settled_tokens or 0, item.refunded_tokens or 0
    if item.wallet_status is not WalletStatus.DONE:
        yield f"item {name} says that its operation is {item.wallet_status}"
    if (settled, refunded) != (escrow.settled_amount, escrow.refunded_amount) or settled + refunded != item.tokens:
        yield f"item {name} says {settled}+{refunded}, the wallet {escrow.settled_amount}+{escrow.refunded_amount}"
    if item.settled is not (operation.kind is not OperationKind.REFUND) or item.settled is not (settled > 0):
        yield f"item {name} is settled={item.settled} by a {operation.kind}"
    if len(transactions) != 1:
        yield f"the escrow of item {name} was resolved {len(transactions)} times"
    if not {item.settlement_transaction_id, item.refund_transaction_id} - {None} <= transactions:
        yield f"item {name} names a transaction that is not its escrow's"


def _orders(world: "World", tables: Tables) -> Iterator[str]:
    """Check that the wallet got only orders of the outbox, and for each key always the same body."""
    by_hand = tables.resolved_by_hand
    known = {
        other.idempotency_key: other
        for operation in tables.operations
        # A decision by hand may order otherwise, under a key of its own.
        for kind in (OperationKind if operation.item_id in by_hand else (operation.kind,))
        for other in (replace(operation, kind=kind),)
    }
    for key, orders in world.wallet.orders.items():
        operation = known.get(key)
        if operation is None:
            yield f"the wallet saw {key}, which the outbox does not know"
            continue
        if len(orders) != 1:
            yield f"the wallet saw {key} in {len(orders)} wordings"
        for order in orders:
            if (order.escrow_id, order.kind) != (operation.escrow_transaction_id, operation.kind):
                yield f"the wallet saw {key} for another escrow or operation"


def _by_hand(world: "World", tables: Tables) -> Iterator[str]:
    """Check that every administrator's decision is an event with actor and reason, and was executed once."""
    items = {item.item_id: item for item in tables.items}
    events: dict[str | None, list[Event]] = defaultdict(list)
    for event in tables.events:
        events[event.reason].append(event)
    for reason, asked in world.administrators.asked.items():
        found, name = events[reason], f"the resolution of {asked.item_id} as {asked.resolution}"
        if len(found) > 1:
            yield f"{name} was carried out {len(found)} times"
        if any(event.actor != ADMIN.actor for event in found):
            yield f"{name} is another's"
        # The wallet's confirmation may have come just before.
        is_confirmed = items[asked.item_id].wallet_status is WalletStatus.DONE
        if asked.is_acknowledged and not found and not is_confirmed:
            yield f"{name} was acknowledged and is no event"


def books(items: Sequence[Item], wallet: Engine, *, granted: int) -> Iterator[str]:
    """Check that the ledger balances, and that performers have earned exactly the settled tokens."""
    yield from audit(wallet)
    found = read_totals(wallet)
    if not found.balanced or found.granted != granted:
        yield f"the books do not balance: {found}"
    written_off = [item.escrow_transaction_id for item in items if item.wallet_status is WalletStatus.WRITTEN_OFF]
    unseen = select(func.coalesce(func.sum(ESCROW.c.settled_amount), 0)).where(ESCROW.c.escrow_id.in_(written_off))
    with wallet.begin() as connection:
        earned = sum(item.settled_tokens or 0 for item in items) + connection.execute(unseen).scalar_one()
    if found.earned != earned:
        yield f"{earned} settled by the queue, {found.earned} earned at the wallet"
