"""One process of the service: the same parts that `app.parts` wires, and a death that can come at any moment.

What is played in place of the real: the lane's thread (its writer is real), the way to the wallet, the bus. After its
death a process has no effect any more: whatever of it still unwinds finds every door shut.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from app.actions import Actions
from app.domain.errors import Conflict, Internal, QueueError
from app.engine import timers
from app.engine.deadline import Deadline
from app.engine.jobs import Job, Outcome
from app.engine.lane import COMMAND_SECONDS, LARGEST_BATCH, Lane, Lanes
from app.engine.queries import Queries
from app.engine.room_clock import RoomClock
from app.engine.writer import Writer
from app.live import catch_up
from app.live.absent_rooms import AbsentRooms
from app.live.hub import Hub
from app.live.presence import Presence
from app.live.watched_room import Fanout
from app.store import Store, writing
from app.wallet.breaker import Breaker
from app.wallet.client import Wallet
from app.wallet.hold_checks import HoldChecks
from tests.simulation.loop import ProcessDiedError
from tests.simulation.wallet import QUEUE_SECRET, Network

if TYPE_CHECKING:
    from tests.simulation.world import World

WALLET_TIMEOUT_SECONDS = 1.0
SWEEP_SECONDS = 3.0
CHECK_SECONDS = 4.0
PRESENCE_SECONDS = 8.0
PAUSE_SECONDS = 1.0
LONGEST_END_SECONDS = 10.0

T = TypeVar("T")

_current: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Lost(Exception):
    """The process died, or the network failed, before the caller had its answer."""


def make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
    """A task factory that records the process of each task."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context: contextvars.Context | None = options.get("context")
    process = _current.get() if context is None else context.get(_current)
    if process is not None:
        process.own(task)
    return task


class Process:
    def __init__(self, world: "World", number: int) -> None:
        climate, sabotage = world.climate, world.sabotage
        self.world = world
        self.number = number
        self.alive = True
        self.is_serving = False
        """From the end of its start until the beginning of its end."""
        self.ahead = timedelta()
        """How far this process's clock is ahead of the true time."""
        self.died: asyncio.Future[None] = world.loop.create_future()
        self._random = world.random(f"process {number}")
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._context = contextvars.copy_context()
        self._context.run(_current.set, self)
        self._background: list[asyncio.Task[Any]] = []

        self.clock = RoomClock(self.own_time, elapsed=world.loop.time)
        self.store = _Store(self)
        self.lanes = _Lanes(self, count=2 if climate.shared else 1)
        self.queries = Queries(self.store, self.lanes)
        self.heartbeat = sabotage.heartbeat(
            lanes=self.lanes,
            queries=self.queries,
            clock=self.clock,
            database_time=(lambda connection: world.true_time()) if climate.shared else None,
            elapsed=world.loop.time,
        )
        fanout = Fanout(
            epoch=self.store.epoch,
            missed=sabotage.missed(self.queries.missed),
            clock=self.clock,
            coalesce_seconds=0.05,
        )
        believed_seconds = CHECK_SECONDS if climate.shared else inf
        absent = AbsentRooms(self.queries.versions, self.store.policy, seconds=believed_seconds)
        self.hub = Hub(fanout, absent=absent, load=self.queries.room)
        self.presence = Presence(self.lanes, f"process-{number}", self.clock)
        self.wallet = Wallet(
            base_url="http://wallet",
            api_token=None,
            queue_secret=QUEUE_SECRET,
            timeout_seconds=WALLET_TIMEOUT_SECONDS,
            clock=self.own_time,
            transport=Network(self),
        )
        self.outbox = sabotage.outbox(
            lanes=self.lanes,
            queries=self.queries,
            wallet=self.wallet,
            breaker=Breaker(max_pause_seconds=4),
            clock=self.clock,
            random=world.random(f"outbox {number}"),
            max_attempts=climate.max_attempts,
            retry_base_seconds=0.5,
            retry_max_seconds=4,
            timeout_seconds=WALLET_TIMEOUT_SECONDS,
            poll_seconds=3.0,
            lease_slack_seconds=2.0,
        )
        self.actions = Actions(
            lanes=self.lanes,
            queries=self.queries,
            outbox=self.outbox,
            clock=self.clock,
            new_id=world.new_id,
            max_duration_seconds=3600,
            quota=None,
            hold_checks=HoldChecks(self.wallet, self.outbox.breaker, self.clock) if climate.verify_holds else None,
        )

    def own_time(self) -> datetime:
        return self.world.true_time() + self.ahead

    # Life

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        return self.world.loop.create_task(work, context=self._context.copy())

    def own(self, task: "asyncio.Task[Any]") -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    def later(self, seconds: float, work: Callable[..., object], *args: Any) -> None:
        """Run a function in this process after a delay, if the process still lives then."""

        def run() -> None:
            if not self.alive:
                return
            try:
                work(*args)
            except ProcessDiedError:
                return

        self.world.loop.call_later(seconds, run, context=self._context.copy())

    def delay(self) -> float:
        return self.world.delay()

    async def start(self) -> None:
        """The steps of the lifespan of `app.main`."""
        await self.lanes.__aenter__()
        await self.wallet.__aenter__()
        while True:
            try:
                if not self.store.shared:
                    await self.lanes.run(writing.release_claims)
                await self.heartbeat.start()
                break
            except Exception:  # as a supervisor would: start it again
                await asyncio.sleep(PAUSE_SECONDS)
        loops = [
            timers.every(SWEEP_SECONDS, "sweep", self._sweep),
            timers.every(PRESENCE_SECONDS, "presence", self.presence.keep),
            timers.every(PAUSE_SECONDS, "outbox", self.outbox.run),
        ]
        if self.store.shared:
            look = partial(catch_up.check_positions, self.queries, self.hub)
            loops.append(timers.every(CHECK_SECONDS, "positions", look))
        self._background = [self.spawn(work) for work in loops]
        self.is_serving = True

    async def _sweep(self) -> None:
        now = await self.heartbeat.keep()
        await timers.sweep(self.queries, self.lanes, now)

    async def stop(self) -> None:
        """An orderly end, which finishes the jobs in the mailbox."""
        self.is_serving = False
        for task in self._background:
            task.cancel()
        if self._background:
            _, pending = await asyncio.wait(self._background, timeout=LONGEST_END_SECONDS)
            if pending and self.alive:
                self.world.violated(f"process {self.number} does not end: {pending}")
        await self.lanes.__aexit__(None, None, None)
        self.kill()

    def kill(self) -> None:
        """SIGKILL: from now on this process has no effect."""
        if not self.alive:
            return
        self.alive = False
        self.died.set_result(None)
        for task in list(self._tasks):
            task.cancel()

    def must_live(self) -> None:
        if not self.alive:
            raise ProcessDiedError

    def may_die(self, where: str, rate: float) -> None:
        """A crash point: raises ProcessDiedError or returns."""
        if self._random.random() < rate:
            self.world.count(f"death {where}")
            self.world.note(f"process {self.number} dies {where}")
            self.kill()
            raise ProcessDiedError

    async def call(self, request: Callable[["Process"], Awaitable[T]], *, reliably: bool = False) -> T:
        """Send a request to this process. Raises Lost if no answer comes; `reliably`: only if the process dies."""

        async def serve() -> T:
            return await request(self)

        task = self.spawn(serve())
        # Even where the caller gets no answer.
        task.add_done_callback(self._examine)
        either: set[asyncio.Future[Any]] = {task, self.died}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or task.cancelled() or not self.alive:
            raise Lost
        if not reliably and self.world.happens("lost_answer"):
            self.world.count("lost answer")
            raise Lost
        return task.result()

    def _examine(self, task: "asyncio.Task[Any]") -> None:
        """Check that a request ended with an answer, a refusal, or an injected failure."""
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not isinstance(problem, (QueueError, OperationalError, ProcessDiedError)):
            self.world.violated(f"unexpected: {problem!r}")

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """The subscribers to committed outcomes, as in `app.parts.assembly`."""
        for outcome in outcomes:
            self.world.published.extend(outcome.events)
            self.queries.observe(outcome.events)
            if outcome.operation is not None:
                self.outbox.wake()
            self.world.note_published(self, outcome.room.performer_id, outcome.events)
            self.presence.observe(outcome)


class _Store(Store):
    """The real store; in its transactions a process may die or a database be away."""

    def __init__(self, process: Process) -> None:
        self._process = process
        super().__init__(process.world.databases.queue, process.world.climate.policy)

    @property
    def shared(self) -> bool:
        return self._process.world.climate.shared

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        process, world = self._process, self._process.world
        process.must_live()
        if world.happens("database"):
            world.count("database away")
            raise OperationalError("played", None, Exception("played"))
        with super().writing() as connection:
            yield connection
            process.may_die("before a commit", world.climate.death)
        process.may_die("after a commit", world.climate.death)
        if world.happens("unclear_commit"):
            world.count("unclear commit")
            raise OperationalError("played", None, Exception("played"))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        world = self._process.world
        self._process.must_live()
        if world.happens("database"):
            world.count("database away")
            raise OperationalError("played", None, Exception("played"))
        with super().reading() as connection:
            yield connection


class _Lane(Lane):
    """A lane whose thread is simulated by the loop: it takes waiting jobs at some moment, and delivers the results a
    moment later."""

    def __init__(self, process: Process, writer: Writer, name: str) -> None:
        super().__init__(writer, process.publish, None, name)
        self._process = process
        self._turn_is_due = False
        self._undelivered: deque[tuple[Sequence[Job], Sequence[Any]]] = deque()

    def start(self) -> None:
        pass

    def close(self) -> None:
        self._stopping = True

    async def stop(self) -> None:
        # One that dies on the way takes what is in the mailbox with it.
        while self._process.alive and (self.waiting or self._undelivered):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)

    def post(self, job: Job, deadline: Deadline | None = None) -> None:
        self._process.must_live()
        super().post(job, deadline)
        if not self._turn_is_due:
            self._turn_is_due = True
            self._process.later(self._process.delay(), self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        batch: list[Job] = []
        while not self._mailbox.empty() and len(batch) < LARGEST_BATCH:
            job = self._mailbox.get()
            assert job is not None
            batch.append(job)
        results = self.writer.process(batch)
        for job, result in zip(batch, results, strict=True):
            if type(result) in (Conflict, Internal):
                self._process.world.violated(f"{job} came to {result!r}")
        self._undelivered.append((batch, results))
        self._process.later(self._process.delay(), self._deliver_next)

    def _deliver_next(self) -> None:
        """Deliver the batch that was committed first, as a thread does."""
        batch, results = self._undelivered.popleft()
        self._deliver(batch, results, 0.0)


class _Lanes(Lanes):
    def __init__(self, process: Process, *, count: int) -> None:
        world = process.world
        self.seconds = COMMAND_SECONDS
        self._tracer = None
        self._lanes = [
            _Lane(process, world.sabotage.writer(world, process.store, process.clock, world.new_id), f"lane-{number}")
            for number in range(count)
        ]
