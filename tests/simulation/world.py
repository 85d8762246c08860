"""One seed's world from beginning to end: people act while things go wrong, then all is calm, then the books are read.

Everything random comes from the seed, by a stream for each purpose, so that a seed is the same world every time.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from sqlalchemy.exc import OperationalError

from app.domain.event import Event
from tests.simulation import checks
from tests.simulation.administrators import Administrators
from tests.simulation.climate import Climate, draw_climate
from tests.simulation.databases import Databases
from tests.simulation.loop import ProcessDiedError, VirtualLoop
from tests.simulation.people import People
from tests.simulation.process import Process, make_task
from tests.simulation.sabotage import HONEST, Sabotage
from tests.simulation.wallet import WalletSide
from tests.support.builders import NOON

LONG_STOP_RATE = 0.3
"""How often the service stays away for longer than any deadline once no process is left."""
CALM_SECONDS = 240.0
"""Virtual time in which everything must have come to rest once nothing goes wrong any more."""


@dataclass(kw_only=True)
class Report:
    """The counts of one world, or of several."""

    seeds: int = 0
    escrows_resolved: int = 0
    events: Counter[str] = field(default_factory=Counter)
    """Committed ones, by name."""
    faults: Counter[str] = field(default_factory=Counter)
    by_hand: Counter[str] = field(default_factory=Counter)
    """The administrators' actions on the wallet's operations."""
    violations: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        self.seeds += other.seeds
        self.escrows_resolved += other.escrows_resolved
        self.events += other.events
        self.faults += other.faults
        self.by_hand += other.by_hand
        self.violations += other.violations

    def __str__(self) -> str:
        lines = [
            f"{self.seeds} seeds, {self.escrows_resolved} escrows resolved, {len(self.violations)} violations",
            f"{self.events.total()} events:",
            *(f"  {times:8} {name}" for name, times in sorted(self.events.items())),
            f"{self.by_hand.total()} by hand:",
            *(f"  {times:8} {what}" for what, times in sorted(self.by_hand.items())),
            f"{self.faults.total()} faults:",
            *(f"  {times:8} {fault}" for fault, times in sorted(self.faults.items())),
        ]
        return "\n".join(lines)


class World:
    def __init__(self, seed: int, databases: Databases, sabotage: Sabotage) -> None:
        self.seed = seed
        self.databases = databases
        self.sabotage = sabotage
        self.climate: Climate = draw_climate(self.random("climate"))
        self._delays = self.random("delays")
        self._chances = self.random("chances")
        self.loop = VirtualLoop(self.delay)
        self.loop.set_task_factory(make_task)
        self.loop.set_exception_handler(self._on_loop_error)
        self.new_id = self.ids("item")
        self.report = Report(seeds=1)
        self.trace: list[str] = []
        self.wallet = WalletSide(self, databases.wallet)
        self.processes: list[Process] = []
        self._process_numbers = count(1)
        self._later = timedelta()
        """How far the true time has been moved beyond the loop's."""
        self.people = People(self)
        self.administrators = Administrators(self, self.people)
        self.published: list[Event] = []
        """As they were sent to the screens; those of a process that died before it could are not among them."""
        self.is_over = False

    # Random streams

    def random(self, purpose: str) -> Random:
        return Random(f"{self.seed} {purpose}")

    def ids(self, purpose: str) -> Callable[[], str]:
        """Makes ids with the form and order of UUIDv7s."""
        numbers = count(1)
        tail = f"{sum(map(ord, purpose)):012x}"
        return lambda: f"{next(numbers):08x}-0000-7000-8000-{tail}"

    def delay(self) -> float:
        """How long a thread or a message takes: mostly almost nothing, sometimes so long that others overtake."""
        draw = self._delays.random()
        return 0.0 if draw < 0.3 else draw * 0.02 if draw < 0.9 else draw * 0.5

    def happens(self, name: str) -> bool:
        rate: float = getattr(self.climate, name)
        return self._chances.random() < rate

    def true_time(self) -> datetime:
        moment = NOON + timedelta(seconds=self.loop.time()) + self._later
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    # Reports of processes

    def violated(self, what: str) -> None:
        self.note(f"VIOLATION {what}")
        self.report.violations.append(what)

    def count(self, fault: str) -> None:
        self.report.faults[fault] += 1
        self.note(fault)

    def count_by_hand(self, what: str) -> None:
        self.report.by_hand[what] += 1

    def note(self, what: str) -> None:
        self.trace.append(f"{self.loop.time():9.3f} {what}")

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if not self.is_over and not isinstance(error, ProcessDiedError):
            self.violated(f"unexpected: {context.get('message')} {error!r}")

    # The bus, and the wallet's outages

    def note_published(self, publisher: Process, performer_id: str, events: Sequence[Event]) -> None:
        """Deliver events to the hubs: reliably to that of a single process, otherwise by an unreliable bus."""
        for event in events:
            item = event.item
            self.note(f"v{event.version} {event.name} {item.item_id[:8] if item else ''} {event.reason or ''}")
        for process in self.processes:
            if process is publisher and not self.climate.shared:
                process.hub.publish(performer_id, events)
                continue
            if self.happens("lost_event"):
                self.count("bus: lost")
                continue
            times = 1
            if self.happens("repeated_event"):
                self.count("bus: repeated")
                times = 2
            for _ in range(times):
                seconds = self.delay()
                if self.happens("late_event"):
                    self.count("bus: late")
                    seconds += self._delays.random() * 3
                process.later(seconds, process.hub.publish, performer_id, events)

    def wallet_is_away(self) -> bool:
        now = self.loop.time()
        return any(begin <= now < begin + length for begin, length in self.climate.outages)

    # Processes

    def living(self) -> list[Process]:
        self.processes = [process for process in self.processes if process.alive]
        return [process for process in self.processes if process.is_serving]

    async def start_process(self) -> None:
        while True:
            try:
                process = Process(self, next(self._process_numbers))
                break
            except OperationalError:
                await asyncio.sleep(1)
        self.note(f"process {process.number} starts")
        self.processes.append(process)
        process.spawn(process.start())

    async def supervise(self) -> None:
        """Start a new process some time after one has died; on SQLite only after the last one is gone."""
        random = self.random("supervisor")
        wanted = 2 if self.climate.shared else 1
        while True:
            self.living()
            if not self.processes and random.random() < LONG_STOP_RATE:
                self.count("long stop")
                self._later += timedelta(seconds=random.choice((100, 3600, 86_400)))
            if len(self.processes) < wanted:
                await self.start_process()
            await asyncio.sleep(random.uniform(0.2, 1.5))

    # From beginning to end

    async def live(self) -> None:
        await self.start_process()
        supervisor = self.loop.create_task(self.supervise())
        await self.people.act()
        self.note("calm")
        self._calm()
        if await self._settles():
            checks.check(self)
        else:
            self.violated("it never came to rest: " + "; ".join(checks.unrest(self)))
        supervisor.cancel()

    def _calm(self) -> None:
        self.climate.calm()
        # The clocks agree again, on the latest of them: the others have caught up meanwhile.
        furthest = max((process.ahead for process in self.processes), default=timedelta())
        self._later += max(timedelta(), furthest)
        for process in self.processes:
            process.ahead = timedelta()

    async def _settles(self) -> bool:
        end = self.loop.time() + CALM_SECONDS
        while self.loop.time() < end:
            await self.administrators.clear()
            if not checks.unrest(self):
                return True
            await asyncio.sleep(1.5)
        return False

    def finish(self) -> None:
        self.is_over = True
        for process in self.processes:
            process.kill()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(left) if left else asyncio.sleep(0))
        self.loop.close()


def run_world(seed: int, databases: Databases, sabotage: Sabotage = HONEST) -> World:
    """Run one seed's world from beginning to end; `report` and `trace` have its results."""
    databases.clear()
    world = World(seed, databases, sabotage)
    with _quiet():
        try:
            world.loop.run_until_complete(world.live())
        except Exception as error:  # a bug of the service or of the simulation: either is what is looked for
            world.violated(f"it broke: {error!r}")
        finally:
            world.finish()
    return world


@contextmanager
def _quiet() -> Iterator[None]:
    """Do not log the failures that the simulation makes."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
