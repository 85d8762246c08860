"""The jobs of a lane: commands in envelopes and database tasks, and the outcome of a command."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection

from app.domain.command import Command
from app.domain.errors import Unavailable
from app.domain.event import Event
from app.domain.item import Item
from app.domain.operation import Operation
from app.domain.room import Room


class Idempotency(Struct, frozen=True, kw_only=True):
    """The caller's key, within the caller's scope, and a digest of the request."""

    scope: str
    key: str
    fingerprint: str


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of a committed command."""

    room: Room
    events: tuple[Event, ...] = ()
    item: Item | None = None
    position: int = 0
    replayed: bool = False
    """The key was used before: this is the first answer again, and nothing was done now."""
    operation: Operation | None = None
    traceparent: str | None = None
    """The span of the command; None if it is not traced."""


@dataclass(slots=True, kw_only=True)
class _Posted:
    """The deadline of a job, and its claim."""

    posted_at: float = -inf
    deadline: float = inf
    """`posted_at` and `deadline` are by `time.monotonic`. A job that is not committed by its deadline is given up."""
    _claim: Lock = field(default_factory=Lock, repr=False, compare=False)

    def claim(self) -> bool:
        """Take the job; True only for the first call. The lane's thread claims it to begin it, the event loop to
        withdraw it. Safe from any thread."""
        return self._claim.acquire(blocking=False)


@dataclass(slots=True, kw_only=True)
class Envelope(_Posted):
    """A command, with the future that gets its outcome."""

    performer_id: str
    command: Command
    idempotency: Idempotency | None = None
    future: "asyncio.Future[Outcome] | None" = None
    traceparent: str | None = None
    """The span of the caller; None if it is not traced."""


@dataclass(slots=True, kw_only=True)
class DatabaseTask(_Posted):
    """Work in a lane's transaction that is not a command to a room, such as a claim or a lease."""

    run: Callable[[Connection], Any]
    future: "asyncio.Future[Any] | None" = None


Job = Envelope | DatabaseTask


def database_in_trouble() -> Unavailable:
    """For a query or command that the database failed."""
    return Unavailable("The database cannot be used right now; try again shortly.", retry_after_seconds=1)


def not_carried_out() -> Unavailable:
    """For a command that was not begun by its deadline, or had not been committed and is given up."""
    return Unavailable("The database could not take this in time; nothing was done. Try again.", retry_after_seconds=1)


def perhaps_carried_out() -> Unavailable:
    """For a command that is begun, and not answered by its deadline."""
    return Unavailable(
        "The database has not confirmed this in time; it may still be carried out. "
        "Repeat it with the same Idempotency-Key to learn what came of it.",
        retry_after_seconds=1,
    )
