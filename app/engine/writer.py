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
from app.store import TROUBLE, Store, reading, writing
from app.store.records import Answer
from app.store.writing import Changes

log = logging.getLogger(__name__)

CACHED_ROOMS = 20_000
ABOUT_THE_ROOM = ""
"""In place of an item's id in the answer to a command that is about none: its answer is the room as it is now."""
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
    """What a committed command came to."""

    room: Room
    events: tuple[Event, ...] = ()
    item: Item | None = None
    position: int = 0
    replayed: bool = False
    """The answer is the one given to the same key before; nothing was done now."""
    operation: Operation | None = None


@dataclass(slots=True, kw_only=True)
class Envelope:
    """A command on its way, and where its outcome goes."""

    performer_id: str
    command: Command
    idempotency: Idempotency | None = None
    future: "asyncio.Future[Outcome] | None" = None


@dataclass(slots=True, kw_only=True)
class Errand:
    """Work on the lane's connection that is not a room's command: claims and leases."""

    run: Callable[[Connection], Any]
    future: "asyncio.Future[Any] | None" = None


Mail = Envelope | Errand


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

    def process(self, batch: Sequence[Mail]) -> list[Any]:
        """Commit a batch; one result a mail, an Outcome or whatever an errand returned, or the exception it met.

        A batch that fails as a whole is replayed one by one, so that a bad command costs only itself.
        """
        try:
            return self._commit(batch)
        except Exception as error:
            # Whatever went wrong, nothing of this batch was committed and its rooms may be stale.
            self._forget(batch)
            if len(batch) == 1:
                return [self._alone(batch[0], failed=error)]
        results: list[Any] = []
        for mail in batch:
            # A database that has failed one command over and over is in trouble: the rest need not wait for the same.
            in_trouble = bool(results) and isinstance(results[-1], Unavailable)
            results.append(_database_in_trouble() if in_trouble else self._alone(mail))
        return results

    def _alone(self, mail: Mail, failed: Exception | None = None) -> Any:
        for _ in range(ATTEMPTS):
            if failed is not None and not isinstance(failed, (IntegrityError, *TROUBLE)):
                break
            try:
                return self._commit([mail])[0]
            except Exception as error:  # the caller gets it as the mail's result
                self._forget([mail])
                failed = error
        return _refusal_for(failed)

    def _commit(self, batch: Sequence[Mail]) -> list[Any]:
        envelopes = [mail for mail in batch if isinstance(mail, Envelope)]
        with self.store.writing() as connection:
            current = self._open(connection, envelopes)
            results: list[Any] = []
            for mail in batch:
                try:
                    if isinstance(mail, Envelope):
                        results.append(self._decide(current, mail))
                    else:
                        self._flush(current)
                        results.append(mail.run(connection))
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
        keys = [(mark.scope, mark.key) for envelope in envelopes if (mark := envelope.idempotency)]
        escrows = [
            envelope.command.item.escrow_transaction_id
            for envelope in envelopes
            if isinstance(envelope.command, do.Intake)
        ]
        rooms = self._load(connection, performer_ids)
        # A room that is not there yet cannot be locked, so another process may commit between two of these reads.
        # Answers come last: whoever finds an escrow held by the very same request then finds its answer too.
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
        mark = envelope.idempotency
        if mark is not None and (answer := batch.known_answers.get((mark.scope, mark.key))) is not None:
            return self._replay(batch, mark, answer)
        command = envelope.command
        room = batch.rooms[envelope.performer_id]
        item, operation, claimed = None, None, False
        if isinstance(command, do.Intake):
            escrow = command.item.escrow_transaction_id
            if (holder := batch.held_escrows.get(escrow)) is not None:
                raise EscrowAlreadyQueued("Another item holds this escrow already.", item_id=holder)
        elif isinstance(command, do.AboutItem) and room.find(command.item_id) is None:
            item, operation, claimed = self._recall(batch, command)
        decision = decide(
            room,
            command,
            self.clock(),
            item=item,
            operation=operation,
            claimed=claimed,
            new_id=self.new_id,
        )
        self._note(batch, room, decision.room, decision.events, decision.operation)
        if isinstance(command, do.Expire) and not decision.events and (early := room.find(command.item_id)) is not None:
            # Its row was written under another policy; put right, it is not swept again before it is due.
            due = room.deadline(early)
            batch.changes.deadlines[early.item_id] = due and due[0]
        if isinstance(command, do.Intake) and decision.item is not None:
            batch.held_escrows[decision.item.escrow_transaction_id] = decision.item.item_id
        if mark is not None:
            answer = Answer(
                scope=mark.scope,
                key=mark.key,
                fingerprint=mark.fingerprint,
                performer_id=envelope.performer_id,
                item_id=decision.item.item_id if decision.item else ABOUT_THE_ROOM,
                version=decision.room.version,
                at=decision.item.updated_at if decision.item else self.clock(),
            )
            batch.known_answers[(mark.scope, mark.key)] = answer
            batch.changes.answers.append(answer)
        return Outcome(
            room=decision.room,
            events=decision.events,
            item=decision.item,
            position=decision.room.position(decision.item.item_id) if decision.item else 0,
            operation=decision.operation,
        )

    def _replay(self, batch: _Batch, mark: Idempotency, answer: Answer) -> Outcome:
        if answer.fingerprint != mark.fingerprint:
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

    def _recall(self, batch: _Batch, command: do.AboutItem) -> tuple[Item | None, Operation | None, bool]:
        """An ended item with its outbox row, which stays as it is until this transaction ends."""
        item_id = command.item_id
        item = batch.ended.get(item_id) or reading.find_item(batch.connection, item_id)
        if not isinstance(command, do.Refund | do.Report):
            return item, None, False
        self._flush(batch)
        found = reading.operation_of(batch.connection, item_id, lock=True)
        return (item, *found) if found else (item, None, False)

    def _note(
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
        for item in room.items if everything else _renewed(before.items, room.items):
            touched[item.item_id] = item
        for item_id, item in touched.items():
            is_new = item_id in created or item_id in changes.new_items
            (changes.new_items if is_new else changes.items)[item_id] = item
            if not item.is_active:
                batch.ended[item_id] = item

    def _flush(self, batch: _Batch) -> None:
        if batch.changes:
            writing.save(batch.connection, batch.changes)
            batch.changes = Changes()

    def _forget(self, batch: Sequence[Mail]) -> None:
        for mail in batch:
            if isinstance(mail, Envelope):
                self._rooms.pop(mail.performer_id, None)


def _renewed(before: Sequence[Item], after: Sequence[Item]) -> Sequence[Item]:
    """The items of a queue that are not, as they are now, in the one before."""
    if all(map(is_, before, after)):
        # Nobody has moved: whoever came is behind them.
        return after[len(before) :]
    as_before = set(map(id, before))
    return [item for item in after if id(item) not in as_before]


def _refusal_for(error: Exception | None) -> QueueError:
    """What a caller is told of a failure that deciding again did not mend."""
    if isinstance(error, QueueError):
        return error
    log.error("a command could not be committed", exc_info=error)
    if isinstance(error, IntegrityError):
        return Unavailable("Others change the same at the same time; try again.", retry_after_seconds=1)
    return _database_in_trouble() if isinstance(error, TROUBLE) else Internal("Something went wrong here.")


def _database_in_trouble() -> Unavailable:
    return Unavailable("The database cannot be used right now; try again shortly.", retry_after_seconds=1)
