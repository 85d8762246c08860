"""The writer: decides commands against its cached rooms and commits them together, in one transaction a batch.

A cached room is never trusted blindly. On a shared database a batch first locks its rooms' rows, in one order, and
compares their versions; everywhere the table's unique (performer, version) refuses what a stale copy would write.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import is_
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.domain import command as do
from app.domain.command import Command
from app.domain.decision import decide
from app.domain.errors import DuplicateIdempotencyKey, EscrowAlreadyQueued, Internal, QueueError, Unavailable
from app.domain.event import Event, EventName
from app.domain.item import Item
from app.domain.operation import Operation
from app.domain.room import Room
from app.store import TROUBLE, Store, reading, records, writing
from app.store.records import Answer
from app.store.writing import Changes

log = logging.getLogger(__name__)

CACHED_ROOMS = 20_000
ABOUT_THE_ROOM = ""
"""Stands for an item id in the stored answer of a command about the room: its replay is the room as it is then."""
ATTEMPTS = 5
"""How often a single command is decided again after another process was faster or the connection was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """The caller's key, within the caller's scope, and a digest of what was asked for."""

    scope: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a committed command."""

    room: Room
    events: tuple[Event, ...] = ()
    item: Item | None = None
    position: int = 0
    replayed: bool = False
    """The answer is the one given to the same key before; nothing was done now."""
    operation: Operation | None = None


@dataclass(slots=True, kw_only=True)
class Envelope:
    """A command with the future that its outcome resolves."""

    performer_id: str
    command: Command
    idempotency: Idempotency | None = None
    future: "asyncio.Future[Outcome] | None" = None


@dataclass(slots=True, kw_only=True)
class DatabaseTask:
    """Work on the lane's connection that is not a room's command: claims and leases."""

    run: Callable[[Connection], Any]
    future: "asyncio.Future[Any] | None" = None


Job = Envelope | DatabaseTask


@dataclass(slots=True)
class _Batch:
    """One transaction in the making: the rooms as they will be, and what is to be written."""

    connection: Connection
    rooms: dict[str, Room]
    known_answers: dict[tuple[str, str], Answer]
    held_escrows: dict[str, str]
    changes: Changes = field(default_factory=Changes)
    ended: dict[str, Item] = field(default_factory=dict)
    """Items that this batch has ended."""


class Writer:
    """Decides and commits batches, synchronously. A lane runs one in its thread; the simulation runs it by hand."""

    def __init__(self, store: Store, clock: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self._rooms: OrderedDict[str, Room] = OrderedDict()

    def peek(self, performer_id: str) -> Room | None:
        """The room as last committed here, if it is cached. Safe from any thread: a Room never changes."""
        return self._rooms.get(performer_id)

    def process(self, batch: Sequence[Job]) -> list[Any]:
        """Commit a batch; one result a job: an Outcome, or the value the database task
        returned, or the exception it met.

        A batch that fails as a whole is replayed one by one, so that a bad command costs only itself.
        """
        try:
            return self._commit(batch)
        except Exception as error:
            # Nothing of this batch was committed, and its rooms may be stale.
            self._forget(batch)
            if len(batch) == 1:
                return [self._alone(batch[0], failed=error)]
        results: list[Any] = []
        for job in batch:
            # A database that has failed ATTEMPTS times for one command is in trouble: the others need not wait for it.
            in_trouble = bool(results) and isinstance(results[-1], Unavailable)
            results.append(_database_in_trouble() if in_trouble else self._alone(job))
        return results

    def _alone(self, job: Job, failed: Exception | None = None) -> Any:
        for _ in range(ATTEMPTS):
            if failed is not None and not isinstance(failed, (IntegrityError, *TROUBLE)):
                break
            try:
                return self._commit([job])[0]
            except Exception as error:  # the caller gets it as the job's result
                self._forget([job])
                failed = error
        return _refusal_for(failed)

    def _commit(self, batch: Sequence[Job]) -> list[Any]:
        envelopes = [job for job in batch if isinstance(job, Envelope)]
        with self.store.writing() as connection:
            current = self._open(connection, envelopes)
            results: list[Any] = []
            for job in batch:
                try:
                    if isinstance(job, Envelope):
                        results.append(self._decide(current, job))
                    else:
                        self._flush(current)
                        results.append(job.run(connection))
                except QueueError as refusal:
                    results.append(refusal)
            self._flush(current)
        for performer_id, room in current.rooms.items():
            self._rooms[performer_id] = room
            self._rooms.move_to_end(performer_id)
        while len(self._rooms) > CACHED_ROOMS:
            self._rooms.popitem(last=False)
        return results

    def _open(self, connection: Connection, envelopes: Sequence[Envelope]) -> _Batch:
        performer_ids = {envelope.performer_id for envelope in envelopes}
        keys = [(idempotency.scope, idempotency.key) for envelope in envelopes if (idempotency := envelope.idempotency)]
        escrows = [
            envelope.command.item.escrow_transaction_id
            for envelope in envelopes
            if isinstance(envelope.command, do.Intake)
        ]
        rooms = self._load(connection, performer_ids)
        # A room that does not exist yet cannot be locked, so another process may commit between two of these reads.
        # Answers are read last: a request that finds its escrow held by itself then finds its answer, too.
        held = reading.held_escrows(connection, escrows)
        return _Batch(connection, rooms, reading.find_answers(connection, keys), held)

    def _load(self, connection: Connection, performer_ids: Collection[str]) -> dict[str, Room]:
        rooms = {performer_id: self._rooms.get(performer_id) for performer_id in performer_ids}
        if self.store.shared:
            versions = reading.versions(connection, performer_ids, lock=True)
            rooms = {
                performer_id: room if room is not None and room.version == versions.get(performer_id, 0) else None
                for performer_id, room in rooms.items()
            }
        missing = [performer_id for performer_id, room in rooms.items() if room is None]
        if missing:
            rooms |= reading.load_rooms(connection, self.store.policy, missing)
        return {performer_id: room for performer_id, room in rooms.items() if room is not None}

    def _decide(self, batch: _Batch, envelope: Envelope) -> Outcome:
        idempotency = envelope.idempotency
        if (
            idempotency is not None
            and (answer := batch.known_answers.get((idempotency.scope, idempotency.key))) is not None
        ):
            return self._replay(batch, idempotency, answer)
        command = envelope.command
        room = batch.rooms[envelope.performer_id]
        item, operation, claimed = None, None, False
        if isinstance(command, do.Intake):
            escrow = command.item.escrow_transaction_id
            if (holder := batch.held_escrows.get(escrow)) is not None:
                raise EscrowAlreadyQueued("Another item holds this escrow already.", item_id=holder)
        elif isinstance(command, do.AboutItem) and room.find(command.item_id) is None:
            item, operation, claimed = self._load_ended(batch, command)
        decision = decide(
            room,
            command,
            self.clock(),
            item=item,
            operation=operation,
            claimed=claimed,
            new_id=self.new_id,
        )
        self._record(batch, room, decision.room, decision.events, decision.operation)
        if isinstance(command, do.Expire) and not decision.events and (early := room.find(command.item_id)) is not None:
            # Its row was written under another policy; put right, it is not swept again before it is due.
            due = room.deadline(early)
            batch.changes.deadlines[early.item_id] = due and due[0]
        if isinstance(command, do.Intake) and decision.item is not None:
            batch.held_escrows[decision.item.escrow_transaction_id] = decision.item.item_id
        if idempotency is not None:
            answer = Answer(
                scope=idempotency.scope,
                key=idempotency.key,
                fingerprint=idempotency.fingerprint,
                performer_id=envelope.performer_id,
                item_id=decision.item.item_id if decision.item else ABOUT_THE_ROOM,
                version=decision.room.version,
                at=decision.item.updated_at if decision.item else self.clock(),
            )
            batch.known_answers[(idempotency.scope, idempotency.key)] = answer
            if self.store.compact and isinstance(command, do.Intake) and records.is_of_own_key(answer, decision.item):
                batch.changes.fingerprints[answer.item_id] = answer.fingerprint
            else:
                batch.changes.answers.append(answer)
        return Outcome(
            room=decision.room,
            events=decision.events,
            item=decision.item,
            position=decision.room.position(decision.item.item_id) if decision.item else 0,
            operation=decision.operation,
        )

    def _replay(self, batch: _Batch, idempotency: Idempotency, answer: Answer) -> Outcome:
        if answer.fingerprint != idempotency.fingerprint:
            raise DuplicateIdempotencyKey(
                "This idempotency key was used for a different request; use a new key for a new request.",
            )
        room = batch.rooms.get(answer.performer_id) or Room(performer_id=answer.performer_id, policy=self.store.policy)
        if answer.item_id == ABOUT_THE_ROOM:
            return Outcome(room=room, replayed=True)
        self._flush(batch)
        event = reading.find_event(batch.connection, answer.performer_id, answer.version)
        return Outcome(
            room=room,
            item=event.item,
            position=event.position,
            replayed=True,
        )

    def _load_ended(self, batch: _Batch, command: do.AboutItem) -> tuple[Item | None, Operation | None, bool]:
        """An ended item with its outbox row, which stays as it is until this transaction ends."""
        item_id = command.item_id
        item = batch.ended.get(item_id) or reading.find_item(batch.connection, item_id)
        if not isinstance(command, do.Refund | do.Report):
            return item, None, False
        self._flush(batch)
        found = reading.operation_of(batch.connection, item_id, lock=True)
        return (item, *found) if found else (item, None, False)

    def _record(
        self,
        batch: _Batch,
        before: Room,
        room: Room,
        events: Sequence[Event],
        operation: Operation | None,
    ) -> None:
        changes = batch.changes
        if operation is not None:
            changes.operations[operation.item_id] = operation
        if not events:
            return
        batch.rooms[room.performer_id] = room
        changes.rooms[room.performer_id] = room
        changes.events.extend(events)
        # New settings move deadlines, so every active item's row is written then.
        everything = any(event.settings is not None for event in events)
        if everything or not before.version:
            changes.renewed.add(room.performer_id)
        touched: dict[str, Item] = {}
        created = set()
        for event in events:
            if event.item is not None:
                touched[event.item.item_id] = event.item
                if event.name is EventName.ITEM_CREATED:
                    created.add(event.item.item_id)
                    changes.first_versions[event.item.item_id] = event.version
        for item in room.items if everything else _renewed(before.items, room.items):
            touched[item.item_id] = item
        for item_id, item in touched.items():
            is_new = item_id in created or item_id in changes.new_items
            (changes.new_items if is_new else changes.items)[item_id] = item
            if not item.is_active:
                batch.ended[item_id] = item

    def _flush(self, batch: _Batch) -> None:
        if batch.changes:
            writing.save(batch.connection, batch.changes, compact=self.store.compact)
            batch.changes = Changes()

    def _forget(self, batch: Sequence[Job]) -> None:
        for job in batch:
            if isinstance(job, Envelope):
                self._rooms.pop(job.performer_id, None)


def _renewed(before: Sequence[Item], after: Sequence[Item]) -> Sequence[Item]:
    """The items of a queue that are not, as they are now, in the one before."""
    if all(map(is_, before, after)):
        # No item has moved: the new ones are behind the old.
        return after[len(before) :]
    as_before = set(map(id, before))
    return [item for item in after if id(item) not in as_before]


def _refusal_for(error: Exception | None) -> QueueError:
    """The refusal that a caller gets for a failure which repeating did not mend."""
    if isinstance(error, QueueError):
        return error
    log.error("a command could not be committed", exc_info=error)
    if isinstance(error, IntegrityError):
        return Unavailable("Others change the same at the same time; try again.", retry_after_seconds=1)
    return _database_in_trouble() if isinstance(error, TROUBLE) else Internal("Something went wrong here.")


def _database_in_trouble() -> Unavailable:
    return Unavailable("The database cannot be used right now; try again shortly.", retry_after_seconds=1)
