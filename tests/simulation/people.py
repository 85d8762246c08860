"""The people of a simulation: features that queue, performers, users and admins who act at random, and what they saw.

They know only what they were answered. What they were promised is kept here and held against the database in the end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import OperationalError

from app.access.auth import Principal
from app.domain.command import Role
from app.domain.errors import EscrowAlreadyQueued, QueueError, Unavailable
from app.engine.jobs import Outcome
from app.wire.requests import (
    AbandonRequest,
    CompleteRequest,
    EmptyRequest,
    IntakeRequest,
    RefundRequest,
    Request,
    SettingsRequest,
    read,
)
from app.wire.shapes import WholeItem, whole_item
from tests.simulation.process import Lost, Process
from tests.simulation.wallet import POCKET_MONEY
from tests.simulation.watchers import Watcher
from tests.support.builders import moment

if TYPE_CHECKING:
    from tests.simulation.world import World

ROOMS = ("star", "moon")
USERS = ("ann", "bob")
NO_ANSWER = (Lost, Unavailable, OperationalError)
"""The errors after which a caller does not know whether it was done."""
PATIENCE = 8
"""How often somebody asks again who got no answer."""
REASONS = ("performer_declined", "technical_error", "admin_refund")

Ask = Callable[[Process], Awaitable[Outcome]]


def principal(role: Role, sub: str) -> Principal:
    performer_id = sub if role is Role.PERFORMER else None
    return Principal(role=role, sub=sub, performer_id=performer_id, expires_at=moment(86400))


FEATURE = principal(Role.FEATURE, "wheel")
ADMIN = principal(Role.ADMIN, "ops")


@dataclass(slots=True)
class Wanted:
    """A feature's intake under one key."""

    escrow_id: str
    tokens: int
    answer: WholeItem | None = None
    is_unclear: bool = False
    """An answer has been lost: it may have been queued or not."""


@dataclass(slots=True)
class Promises:
    """The answers on which callers may rely."""

    wanted: dict[str, Wanted] = field(default_factory=dict)
    """By idempotency key."""
    events: dict[tuple[str, int], tuple[str, str | None]] = field(default_factory=dict)
    """By room and version: the event's name and item."""
    answers: dict[str, WholeItem] = field(default_factory=dict)
    """By idempotency key of a command: its first answer."""


class People:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.random("people")
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = 0
        self.rooms = ROOMS[: self._random.choice((1, 1, 2))]
        self.promises = Promises()
        self.unpayable: set[str] = set()
        """Escrows that the wallet cannot resolve as ordered: made up, or of another amount."""
        self.escrows: list[str] = []
        self._items: dict[str, WholeItem] = {}
        """Every item that somebody knows of, as it was last seen."""
        self._panels = [Watcher(world, name, Role.PERFORMER, name) for name in self.rooms]
        self._viewers = [Watcher(world, name, Role.VIEWER, USERS[0]) for name in self.rooms]
        self.watchers = [*self._panels, *self._viewers]
        self._watching = dict.fromkeys(self._viewers)
        """The people who mean to be connected."""

    def present(self, performer_id: str) -> bool:
        return any(panel.is_connected for panel in self._panels if panel.performer_id == performer_id)

    # The course of things

    async def act(self) -> None:
        """Let all people act as the seed has planned, at their times."""
        world, random = self._world, self._random
        for user_id in USERS:
            world.wallet.ledger.grant(user_id, POCKET_MONEY, key=f"pocket money of {user_id}")
        for watcher in self.watchers:
            self._begin(self._keep_watching(watcher))
        plan: list[Coroutine[Any, Any, None]] = [self._feature_wants() for _ in range(world.climate.items)]
        plan += [self._do_something() for _ in range(world.climate.commands)]
        actions = []
        for number, act in enumerate(plan):
            early = number < world.climate.items
            actions.append(self._begin(self._at(random.uniform(0, world.climate.seconds * (0.5 if early else 1)), act)))
        await asyncio.wait(actions)

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self._world.loop.create_task(work)
        self._tasks.append(task)
        return task

    async def _at(self, seconds: float, act: Coroutine[Any, Any, None]) -> None:
        await asyncio.sleep(seconds)
        await act

    async def process(self) -> Process:
        """A process that a balancer would choose; waits until there is one."""
        while True:
            if living := self._world.living():
                return self._random.choice(living)
            await asyncio.sleep(0.3)

    # Features

    async def _feature_wants(self) -> None:
        world, random = self._world, self._random
        self._numbers += 1
        number, user_id, tokens = self._numbers, random.choice(USERS), random.randint(2, 100)
        draw = random.random()
        if draw < 0.05:
            escrow_id = f"made-up-{number}"
            self.unpayable.add(escrow_id)
        else:
            escrow_id = world.wallet.hold(user_id, tokens + (draw < 0.1), key=f"hold-{number}")
            self.escrows.append(escrow_id)
            if draw < 0.1:
                self.unpayable.add(escrow_id)
        body = {
            "sourceFeature": "wheel",
            "sourceEventId": f"spin-{number}",
            "performerId": random.choice(self.rooms),
            "userId": user_id,
            "escrowTransactionId": escrow_id,
            "tokens": tokens,
            "title": "A song",
            "description": "The one about the sea",
            "durationSeconds": random.choice((None, 3)),
            "queueMode": random.choice((None, None, None, "on", "off")),
        }
        request = read(IntakeRequest, body)
        await self._intake(request, f"key-{number}")
        if random.random() < 0.3:
            await asyncio.sleep(random.random() * 5)
            await self._intake(request, f"key-{number}")
        if random.random() < 0.15:
            await self._intake(request, f"another-key-{number}")

    async def _intake(self, request: IntakeRequest, key: str) -> None:
        wanted = self.promises.wanted.setdefault(key, Wanted(request.escrow_transaction_id, request.tokens))
        for _ in range(PATIENCE):
            process = await self.process()
            try:
                outcome = await process.call(lambda process: process.actions.intake(FEATURE, request, key))
            except NO_ANSWER:
                wanted.is_unclear = True
                await asyncio.sleep(self._random.random())
                continue
            except QueueError as refusal:
                self._world.note(f"intake {key} refused: {refusal.code}")
                if wanted.answer is not None:
                    self._world.violated(f"{key} was answered with an item, and then refused: {refusal.code}")
                if isinstance(refusal, EscrowAlreadyQueued) and not self._another_holds(wanted):
                    self._world.violated(f"{key} was refused because of an escrow that nobody else holds")
                return
            item = self._kept(outcome)
            self._world.note(f"intake {key} acknowledged: {item['itemId'][:8]} replayed={outcome.replayed}")
            if wanted.answer is None:
                wanted.answer = item
            elif item != wanted.answer:
                self._world.violated(f"{key} was answered in two ways")
            return

    def _another_holds(self, wanted: Wanted) -> bool:
        """Whether another key may have got the escrow."""
        return any(
            other is not wanted and other.escrow_id == wanted.escrow_id and (other.answer or other.is_unclear)
            for other in self.promises.wanted.values()
        )

    # Everybody else

    async def _do_something(self) -> None:
        acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (5, self._start_next),
            (6, self._drive),
            (3, self._refund),
            (1, self._settings),
            (2, self._come_or_go),
            (2, self._world.administrators.retry),
            (1, self._world.administrators.retry_all),
            (4, self._world.administrators.resolve),
            (1, self._lag),
            (1, self._jump),
            (1, self._end_process),
        ]
        weights = [weight for weight, _ in acts]
        await self._random.choices([act for _, act in acts], weights)[0]()

    async def _start_next(self) -> None:
        performer_id = self._random.choice(self.rooms)
        performer, key = principal(Role.PERFORMER, performer_id), self._key()
        await self._command(
            f"start-next {performer_id}",
            lambda process: process.actions.command(performer, "start-next", performer_id, EmptyRequest(), key),
            key,
        )

    async def _drive(self) -> None:
        name = self._random.choice(("start", "complete", "complete", "complete", "abandon", "pause", "pause"))
        if (item := self._some_item(started=name in ("complete", "pause"))) is None:
            return
        if name == "pause" and item["paused"]:
            name = "resume"
        performer, key = principal(Role.PERFORMER, item["performerId"]), self._key()
        request: Request = EmptyRequest()
        if name == "complete":
            refund = self._random.randint(1, item["tokens"] - 1) if self._random.random() < 0.3 else None
            request = read(CompleteRequest, {} if refund is None else {"refundTokens": refund})
        elif name == "abandon":
            request = read(AbandonRequest, {"reason": self._random.choice(REASONS)})
        await self._command(
            f"{name} {item['itemId'][:8]}",
            lambda process: process.actions.command(performer, name, item["itemId"], request, key),
            key,
        )

    async def _refund(self) -> None:
        if (item := self._some_item()) is None:
            return
        who, reason = self._random.choice(
            ((ADMIN, "admin_refund"), (principal(Role.VIEWER, item["userId"]), "user_cancelled"))
        )
        request, key = read(RefundRequest, {"reason": reason}), self._key()
        await self._command(
            f"refund {item['itemId'][:8]}",
            lambda process: process.actions.command(who, "refund", item["itemId"], request, key),
            key,
        )

    async def _settings(self) -> None:
        performer_id = self._random.choice(self.rooms)
        performer = principal(Role.PERFORMER, performer_id)
        change = self._random.choice(
            ({"paused": True}, {"paused": False}, {"accepting": True}, {"strictFifo": True}, {"mode": "off"})
        )
        request = read(SettingsRequest, change)
        await self._command(
            f"settings {performer_id} {change}",
            lambda process: process.actions.command(performer, "settings", performer_id, request),
            None,
        )

    async def _command(self, what: str, ask: Ask, key: str | None) -> None:
        """Send a command, again with the same key if no answer comes, and sometimes also after an answer."""
        again = self._random.random() < 0.2
        for _ in range(PATIENCE):
            process = await self.process()
            try:
                outcome = await process.call(ask)
            except NO_ANSWER:
                if key is None:
                    return
                await asyncio.sleep(self._random.random())
                continue
            except QueueError as refusal:
                self._world.note(f"{what} refused: {refusal.code}")
                if key in self.promises.answers:
                    self._world.violated(f"{key} was done, and then refused: {refusal.code}")
                return
            if outcome.item is None:
                self._keep(outcome)
                return
            item = self._kept(outcome)
            self._world.note(f"{what} acknowledged: {item['status']} replayed={outcome.replayed}")
            if key is None:
                return
            if item != self.promises.answers.setdefault(key, item):
                self._world.violated(f"{key} was answered in two ways")
            if not again:
                return
            again = False

    def _kept(self, outcome: Outcome) -> WholeItem:
        self._keep(outcome)
        assert outcome.item is not None
        item = whole_item(outcome.item, outcome.position)
        self._items[item["itemId"]] = item
        return item

    def _keep(self, outcome: Outcome) -> None:
        for event in outcome.events:
            seen_event = (str(event.name), event.item.item_id if event.item else None)
            if self.promises.events.setdefault((event.performer_id, event.version), seen_event) != seen_event:
                self._world.violated(f"version {event.version} of {event.performer_id} was acknowledged twice")

    def _some_item(self, *, started: bool = False) -> WholeItem | None:
        """An item at random; `started`: mostly one that was last seen started, if there is one."""
        items = list(self._items.values())
        if started and self._random.random() < 0.8:
            items = [item for item in items if item["status"] == "started"] or items
        return self._random.choice(items) if items else None

    def _key(self) -> str | None:
        self._numbers += 1
        return f"command-{self._numbers}" if self._random.random() < 0.6 else None

    # Watchers and panels

    async def _keep_watching(self, watcher: Watcher) -> None:
        """Connect again after every disconnect, as a client does."""
        while True:
            if watcher in self._watching and not watcher.is_connected:
                with suppress(*NO_ANSWER, QueueError):
                    await watcher.connect(await self.process())
            await asyncio.sleep(1)

    async def _come_or_go(self) -> None:
        watcher = self._random.choice(self._panels)
        if watcher not in self._watching:
            self._watching[watcher] = None
            return
        self._watching.pop(watcher)
        with suppress(*NO_ANSWER, QueueError):
            await watcher.disconnect()

    async def _lag(self) -> None:
        await self._random.choice(self.watchers).lag(self._random.uniform(0.5, 4))

    # The world itself

    async def _jump(self) -> None:
        """Set a process's clock forward or back."""
        if self._world.climate.steady_clocks:
            return
        process = await self.process()
        milliseconds = round(self._random.uniform(-1000, 1000)) * self._random.choice((1, 10, 60))
        process.ahead = timedelta(milliseconds=milliseconds)
        self._world.count("clock jump")

    async def _end_process(self) -> None:
        process = await self.process()
        if self._random.random() < 0.5:
            self._world.count("orderly restart")
            await process.stop()
        elif self._world.climate.death:
            self._world.count("death at any moment")
            process.kill()
