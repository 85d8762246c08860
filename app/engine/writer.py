"""The writer: decides commands against its cached rooms and commits them together, in one transaction for each batch.

A cached room may be stale. On a shared database a batch first locks its rooms' rows, in one order, and compares their
versions. On every database the unique (performer, version) of events refuses the writes of a stale copy.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from operator import is_
from time import monotonic, sleep, time_ns
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.domain import command as do
from app.domain.decision import decide
from app.domain.errors import DuplicateIdempotencyKey, EscrowAlreadyQueued, Internal, QueueError, Unavailable
from app.domain.event import Event, EventName
from app.domain.item import Item
from app.domain.operation import Operation
from app.domain.room import Room
from app.engine.held_up import HeldUpRooms
from app.engine.jobs import DatabaseTask, Envelope, Idempotency, Job, Outcome, database_in_trouble
from app.store import TROUBLE, Store, event_log, reading, records, wallet_operations, writing
from app.store.records import Answer
from app.store.writing import Changes

log = logging.getLogger(__name__)

CACHED_ROOMS = 20_000
ABOUT_THE_ROOM = ""
"""The item id in the stored answer of a command about the room. Its replay is the room as it is at that time."""
ATTEMPTS = 5
"""The most attempts of a single command after another process was faster, and of a batch after trouble."""
WHOLE_FAILURES = 2
"""Consecutive failures after which the rooms of a batch are tried one by one."""
SLOW_SECONDS = 0.1
"""A failure that takes longer is not caused by a command: the database is locked, or does not answer."""
FAILED_ROOMS = 3
"""Consecutive rooms whose commit fails, after which the others are not tried."""
APART_LOCK_TIMEOUT_MS = 50
LOCKED_PAUSE_SECONDS = 0.005
FULL_SECONDS = 5.0
"""How long after a write that failed for lack of disk space the disk is reported as full."""
LONGEST_LOCK_SECONDS = 3.0
"""How long `process` waits for rooms that others have locked. A lane waits until its commands are due."""
LOCK_TIMEOUT = "55P03"
"""PostgreSQL's code for a lock timeout."""
DISK_FULL = "53100"
"""PostgreSQL's code for a full disk."""


class Later(Enum):
    """Why a job has to be tried again."""

    LOCKED = "another process holds its room"
    TROUBLE = "the database cannot be written"


@dataclass(slots=True)
class _Batch:
    """An open transaction: the rooms as they will be, and the rows that are still to be written."""

    connection: Connection
    rooms: dict[str, Room]
    held: set[str]
    """The rooms that another process has locked: their commands are tried later."""
    known_answers: dict[tuple[str, str], Answer]
    held_escrows: dict[str, str]
    changes: Changes = field(default_factory=Changes)
    ended: dict[str, Item] = field(default_factory=dict)
    """Items that this batch has ended."""


class Writer:
    """Decides and commits batches, synchronously. A lane runs one in its thread; the simulation runs it by hand."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        *,
        cached_rooms: int = CACHED_ROOMS,
    ) -> None:
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self._cached_rooms = cached_rooms
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._failures = 0
        """Consecutive batches that failed because of the database."""
        self._full_until = float("-inf")
        self._held_up = HeldUpRooms()
        self.commit_began = 0
        """When the last transaction began to commit, in nanoseconds since 1970."""
        self._lock_timeout_ms: int | None = None
        """The lock timeout of the next transaction; None: the connection's own."""

    def peek(self, performer_id: str) -> Room | None:
        """The room as last committed here, if it is cached. Safe from any thread: a Room never changes."""
        return self._rooms.get(performer_id)

    @property
    def in_trouble(self) -> bool:
        """Whether the last batch failed because of the database."""
        return self._failures > 0

    @property
    def is_disk_full(self) -> bool:
        """Whether the database's disk was full for a command within FULL_SECONDS. Smaller writes may still succeed."""
        return monotonic() < self._full_until

    def process(self, batch: Sequence[Job]) -> list[Any]:
        """Commit a batch. Each job has one result: an Outcome, the value of a database task, or the exception that was
        raised. A job that cannot be written now is tried a few times, then refused.
        """
        results = self.attempt(batch)
        failures, give_up_at = 1, monotonic() + LONGEST_LOCK_SECONDS
        while later := [index for index, result in enumerate(results) if isinstance(result, Later)]:
            if Later.TROUBLE in results:
                failures += 1
            if failures > ATTEMPTS or monotonic() > give_up_at:
                return [database_in_trouble() if isinstance(result, Later) else result for result in results]
            if Later.LOCKED in results:
                sleep(LOCKED_PAUSE_SECONDS)
            for index, result in zip(later, self.attempt([batch[index] for index in later]), strict=True):
                results[index] = result
        return results

    def attempt(self, batch: Sequence[Job]) -> list[Any]:
        """Commit the jobs that can be committed now. Results are as in `process`, or a Later for a job to try again.

        Normally the rooms of a batch share a transaction. Rooms with a row that another session keeps locked have
        transactions of their own, so that the other rooms do not wait for them.
        """
        results: list[Any] = [Later.LOCKED] * len(batch)
        together, apart = self._parted(batch)
        began = monotonic()
        try:
            self._attempt_together(batch, together, results)
            self._failures = 0
        except TROUBLE as error:
            self._failures += 1
            if _sqlstate(error) == DISK_FULL:
                self._full_until = monotonic() + FULL_SECONDS
            fails_at_once = monotonic() - began < SLOW_SECONDS
            if _is_lock_timeout(error) or (self._failures > WHOLE_FAILURES and fails_at_once):
                # A room's row is locked, or the database fails because of one of the commands.
                apart = [*_by_room(batch, together), *apart]
            else:
                _set(results, together, Later.TROUBLE)
            if self._failures == 1:
                log.error("a command could not be committed; it is tried again until it is due", exc_info=error)
        except Exception as error:
            if len(together) == 1:
                results[together[0]] = self._alone(batch[together[0]], error)
            else:
                apart = [*_by_room(batch, together), *apart]
        failures = 0
        for indexes in apart:
            if failures >= FAILED_ROOMS:
                _set(results, indexes, Later.TROUBLE)
            else:
                failures = 0 if self._attempt_apart(batch, indexes, results) else failures + 1
        return results

    def _attempt_together(self, batch: Sequence[Job], indexes: Sequence[int], results: list[Any]) -> None:
        if not indexes:
            return
        jobs = [batch[index] for index in indexes]
        try:
            committed = self._commit(jobs)
        except Exception:
            # Nothing was committed, and the cached rooms may be stale.
            self._forget(jobs)
            raise
        for index, result in zip(indexes, committed, strict=True):
            results[index] = result

    def _attempt_apart(self, batch: Sequence[Job], indexes: Sequence[int], results: list[Any]) -> bool:
        """Commit the jobs of one room; returns False if the database is in trouble."""
        room = _room_of(batch[indexes[0]])
        try:
            self._lock_timeout_ms = APART_LOCK_TIMEOUT_MS
            self._attempt_together(batch, indexes, results)
        except TROUBLE as error:
            is_locked = _is_lock_timeout(error)
            if is_locked and room is not None:
                self._held_up.add(room)
            _set(results, indexes, Later.LOCKED if is_locked else Later.TROUBLE)
            return is_locked
        except Exception as error:
            for index in indexes:
                results[index] = self._alone(batch[index], error if len(indexes) == 1 else None)
        finally:
            self._lock_timeout_ms = None
        if room is not None:
            self._held_up.drop(room)
        return True

    def _parted(self, batch: Sequence[Job]) -> tuple[list[int], list[list[int]]]:
        """The indexes of the jobs that share a transaction, and for each held-up room whose pause is over the indexes
        of its jobs. Jobs of rooms that still pause are in neither."""
        if not self._held_up:
            return list(range(len(batch))), []
        now = monotonic()
        together: list[int] = []
        apart: list[int] = []
        for index, job in enumerate(batch):
            retry_at = self._held_up.retry_at(_room_of(job) or "")
            if retry_at is None:
                together.append(index)
            elif retry_at <= now:
                apart.append(index)
        return together, _by_room(batch, apart)

    def _alone(self, job: Job, failed: Exception | None) -> Any:
        """The result of a job in a transaction of its own, so that a bad command affects no other. `failed`: the
        exception of an earlier attempt with this job alone."""
        for _ in range(ATTEMPTS):
            if failed is not None and not isinstance(failed, IntegrityError):
                break
            try:
                return self._commit([job])[0]
            except TROUBLE:
                self._forget([job])
                return Later.TROUBLE
            except Exception as error:  # the caller gets it as the job's result
                self._forget([job])
                failed = error
        return _refusal_for(failed)

    def _commit(self, batch: Sequence[Job]) -> list[Any]:
        """Decide and commit jobs in one transaction; Later.LOCKED for those whose room another process has locked."""
        envelopes = [job for job in batch if isinstance(job, Envelope)]
        with self.store.writing() as connection:
            if self._lock_timeout_ms is not None and self.store.shared:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {self._lock_timeout_ms}")
            current = self._open(connection, envelopes)
            results: list[Any] = []
            for job in batch:
                try:
                    if isinstance(job, DatabaseTask):
                        self._flush(current)
                        results.append(job.run(connection))
                    elif job.performer_id in current.held:
                        results.append(Later.LOCKED)
                    else:
                        results.append(self._decide(current, job))
                except QueueError as refusal:
                    results.append(refusal)
            self._flush(current)
            self.commit_began = time_ns()
        for performer_id, room in current.rooms.items():
            self._rooms[performer_id] = room
            self._rooms.move_to_end(performer_id)
        while len(self._rooms) > self._cached_rooms:
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
        rooms, held_rooms = self._load(connection, performer_ids)
        # A room that does not exist yet cannot be locked, so another process may commit between two of these reads.
        # Answers are read last: if a repeated request finds its own item's escrow, it then also finds its answer.
        held = reading.held_escrows(connection, escrows)
        return _Batch(connection, rooms, held_rooms, reading.find_answers(connection, keys), held)

    def _load(self, connection: Connection, performer_ids: Collection[str]) -> tuple[dict[str, Room], set[str]]:
        """The rooms, locked if other processes can write them; and the ids of rooms that others have locked."""
        rooms = {performer_id: self._rooms.get(performer_id) for performer_id in performer_ids}
        held: set[str] = set()
        if self.store.shared:
            versions, held = reading.locked_versions(connection, performer_ids)
            rooms = {
                performer_id: room if room is not None and room.version == versions.get(performer_id, 0) else None
                for performer_id, room in rooms.items()
                if performer_id not in held
            }
        missing = [performer_id for performer_id, room in rooms.items() if room is None]
        if missing:
            rooms |= reading.load_rooms(connection, self.store.policy, missing)
        return {performer_id: room for performer_id, room in rooms.items() if room is not None}, held

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
        operation = _traced(decision.operation, envelope.traceparent)
        self._record(batch, room, decision.room, decision.events, operation)
        if isinstance(command, do.Expire) and not decision.events and (early := room.find(command.item_id)) is not None:
            # The row's deadline is of an earlier policy. The right one keeps the sweep away until it is due.
            due = room.deadline(early)
            batch.changes.deadlines[early.item_id] = due and due[0]
        if isinstance(command, do.Intake) and decision.item is not None:
            batch.held_escrows[decision.item.escrow_transaction_id] = decision.item.item_id
        if idempotency is not None:
            # A command without events cannot have its answer replayed from an event.
            of_item = decision.item if decision.events else None
            answer = Answer(
                scope=idempotency.scope,
                key=idempotency.key,
                fingerprint=idempotency.fingerprint,
                performer_id=envelope.performer_id,
                item_id=of_item.item_id if of_item else ABOUT_THE_ROOM,
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
            operation=operation,
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
        event = event_log.find_event(batch.connection, answer.performer_id, answer.version)
        return Outcome(
            room=room,
            item=event.item,
            position=event.position,
            replayed=True,
        )

    def _load_ended(self, batch: _Batch, command: do.AboutItem) -> tuple[Item | None, Operation | None, bool]:
        """An ended item, its wallet operation, locked until this transaction ends, and whether that was ever claimed.
        The operation is loaded only for commands that need it."""
        item_id = command.item_id
        item = batch.ended.get(item_id) or reading.find_item(batch.connection, item_id)
        if not isinstance(command, do.Refund | do.Report | do.RetryOperation | do.ResolveOperation):
            return item, None, False
        self._flush(batch)
        found = wallet_operations.operation_of(batch.connection, item_id, lock=True)
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
        # At once, since another process may carry out the next command, from the stored room.
        if room.history is not before.history:
            changes.learnt.add(room.performer_id)
        changes.events.extend(events)
        # New settings change deadlines, so the rows of all active items are written.
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


def _room_of(job: Job) -> str | None:
    return job.performer_id if isinstance(job, Envelope) else None


def _by_room(batch: Sequence[Job], indexes: Sequence[int]) -> list[list[int]]:
    """The indexes of each room's jobs, in order; a database task has no room and forms a group alone."""
    rooms: dict[str | int, list[int]] = {}
    for index in indexes:
        rooms.setdefault(_room_of(batch[index]) or index, []).append(index)
    return list(rooms.values())


def _set(results: list[Any], indexes: Sequence[int], later: Later) -> None:
    for index in indexes:
        results[index] = later


def _is_lock_timeout(error: Exception) -> bool:
    return _sqlstate(error) == LOCK_TIMEOUT


def _sqlstate(error: Exception) -> str | None:
    """PostgreSQL's code of an error; None for SQLite's."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _renewed(before: Sequence[Item], after: Sequence[Item]) -> Sequence[Item]:
    """The items of `after` that are new, or have changed since `before`."""
    if all(map(is_, before, after)):
        # No item has moved: new items follow the old ones. Not to look for others saves 9 % of an intake's CPU behind
        # a few hundred items (`bench --without renewed`).
        return after[len(before) :]
    as_before = set(map(id, before))
    return [item for item in after if id(item) not in as_before]


def _refusal_for(error: Exception | None) -> QueueError:
    """The refusal for an exception that repeated attempts did not resolve."""
    log.error("a command could not be committed", exc_info=error)
    if isinstance(error, IntegrityError):
        return Unavailable("Others change the same at the same time; try again.", retry_after_seconds=1)
    return database_in_trouble() if isinstance(error, TROUBLE) else Internal("Something went wrong here.")


def _traced(operation: Operation | None, traceparent: str | None) -> Operation | None:
    """The operation with the span of the command that ordered it. A traceparent that it already has is kept."""
    if traceparent is None or operation is None or operation.traceparent is not None:
        return operation
    return replace(operation, traceparent=traceparent)
