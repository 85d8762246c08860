"""How far it goes: what a site of so many viewers takes, reckoned from what was measured. `--help` has the assumptions.

A seeded simulation. Rooms get a heavy-tailed number of viewers, viewers and rooms get processes, and second by second
events fall into rooms and cost the processes, PostgreSQL and Redis what `python -m tests.bench --only scaling` has
found; `--costs` takes its JSON, else the figures are those of `Costs`. Processes are added until the busiest has room
to spare.
"""

import json
import math
import sys
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from app.engine.queries import READER_THREADS
from app.live.catch_up import POSITION_CHECK_SECONDS
from app.parts.foundation import POSTGRESQL_LANES
from tests.bench.scenarios.scaling import SHARED

EVENTS_OF_AN_ITEM = 4
"""Created, started, finished, settled."""
COALESCED_SECONDS = 0.05
MOST_TRIALS = 20


class Placement(StrEnum):
    RANDOM = "anywhere"
    PERFORMER = "by performer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Medians of the scenario `scaling` with PostgreSQL and Redis, under its names, on one core of an AMD EPYC."""

    process_mb: float = 138
    idle_ms: float = 15
    watched_kb: float = 3.27
    viewer_kb: float = 22.35
    viewer_us: float = 5.43
    join_us: float = 549
    join_bytes: float = 2162
    open_us: float = 1304
    intake_us: float = 2337
    elsewhere_us: float = 3171
    life_us: float = 16105
    watch_us: float = 673
    check_us: float = 18.97
    delivery_us: float = 10.5
    delivery_bytes: float = 535
    database_idle_ms: float = 5.25
    database_intake_us: float = 736
    database_elsewhere_us: float = 1138
    database_life_us: float = 4874
    database_open_us: float = 392
    database_check_us: float = 1.51
    life_commits: float = 5.02
    life_rows: float = 17.26
    life_wal: float = 7706
    redis_intake_us: float = 113
    redis_delivery_us: float = 5.2

    @classmethod
    def of(cls, report: Path) -> "Costs":
        """From the benchmark's JSON. Raises KeyError if the scenario is not in it."""
        cases = json.loads(report.read_text())["cases"].values()
        found = {
            measure: spread["middle"]
            for case in cases
            if case["scenario"] == "scaling"
            for measure, spread in case["subjects"].get(SHARED, {}).items()
        }
        return cls(**{known.name: found[known.name] for known in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Site:
    """The assumptions."""

    viewers: int
    viewers_a_room: float
    tail: float
    items_a_minute: float
    """Of 1,000 viewers."""
    room_items_a_minute: float
    """More than so many a performer does not get done: the queue is full, and what else is asked for is refused."""
    stay_minutes: float
    most_viewers: int
    """Of one process."""
    busy: float
    seconds: int
    seed: int

    @cached_property
    def rooms(self) -> list[int]:
        """The viewers of each room: Pareto, whatever the number of rooms comes to in all."""
        random = Random(self.seed)
        drawn = [random.paretovariate(self.tail) for _ in range(max(1, round(self.viewers / self.viewers_a_room)))]
        scale = self.viewers / sum(drawn)
        return [max(1, round(size * scale)) for size in drawn]

    @cached_property
    def events_a_second(self) -> list[float]:
        """The events of each room in a second."""
        most = self.room_items_a_minute / 60
        return [EVENTS_OF_AN_ITEM * min(most, self.items_a_minute / 60 * size / 1000) for size in self.rooms]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A second of the site, on average, with so many processes."""

    processes: int
    cores: float = 0
    """All processes together."""
    busiest: float = 0
    busiest_second: float = 0
    """The 99th percentile of the busiest process's seconds."""
    memory_gb: float = 0
    pairs: int = 0
    """Rooms watched, once for each process that does."""
    openings: float = 0
    """Rooms that somebody begins to watch at a process where nobody did."""
    items: float = 0
    events: float = 0
    deliveries: float = 0
    network_mbit: float = 0
    database_cores: float = 0
    watching_cores: float = 0
    """The part of them that reads rooms that are newly watched, and compares the watched ones."""
    commits: float = 0
    rows: float = 0
    wal_mb: float = 0
    redis_in: float = 0
    redis_out: float = 0
    redis_cores: float = 0

    @property
    def connections(self) -> int:
        return self.processes * (POSTGRESQL_LANES + READER_THREADS)


def place(site: Site, processes: int, placement: Placement) -> list[dict[int, int]]:
    """By room: how many of its viewers each process has. By performer, like a load balancer that hashes with bounded
    loads: a room is on one process, and also on the next one only if its process has a quarter more than its share.

    By performer, as a load balancer hashes with bounded loads: a room is on one process, and on the next one as well
    only where that one has a quarter more than its share.
    """
    random = Random(site.seed + 1)
    if placement is Placement.RANDOM:
        return [dict(Counter(random.choices(range(processes), k=size))) for size in site.rooms]
    limit = math.ceil(1.25 * sum(site.rooms) / processes)
    load = [0] * processes
    placed = []
    for size in site.rooms:
        process, left, watchers = random.randrange(processes), size, {}
        while left:
            if taken := min(left, limit - load[process]):
                watchers[process] = taken
                load[process] += taken
                left -= taken
            process = (process + 1) % processes
        placed.append(watchers)
    return placed


@dataclass(slots=True)
class Simulation:
    site: Site
    costs: Costs
    processes: int
    placement: Placement
    watchers: list[dict[int, int]] = field(init=False)
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.watchers = place(self.site, self.processes, self.placement)
        self.random = Random(self.site.seed + 2)

    def run(self) -> Outcome:
        outcome = Outcome(processes=self.processes)
        resting = self._resting(outcome)
        seconds = [self._second(resting, outcome) for _ in range(self.site.seconds)]
        for name in ("events", "deliveries", "redis_in", "redis_out"):
            setattr(outcome, name, getattr(outcome, name) / self.site.seconds)
        by_process = [fmean(second[number] for second in seconds) for number in range(self.processes)]
        busiest = max(range(self.processes), key=by_process.__getitem__)
        outcome.cores, outcome.busiest = sum(by_process), by_process[busiest]
        outcome.busiest_second = sorted(second[busiest] for second in seconds)[int(0.99 * len(seconds))]
        self._behind(outcome)
        return outcome

    def _resting(self, outcome: Outcome) -> list[float]:
        """The CPU seconds of each process in a second in which nothing happens."""
        costs, site = self.costs, self.site
        viewers, rooms = Counter[int](), Counter[int]()
        for room in self.watchers:
            viewers.update(room)
            rooms.update(room.keys())
        outcome.pairs = rooms.total()
        kilobytes = viewers.total() * costs.viewer_kb + outcome.pairs * costs.watched_kb
        outcome.memory_gb = self.processes * costs.process_mb / 1024 + kilobytes / 2**20
        outcome.openings = self._openings()
        a_viewer = costs.viewer_us + costs.join_us / (60 * site.stay_minutes)
        a_room = costs.check_us / POSITION_CHECK_SECONDS
        return [
            costs.idle_ms / 1e3
            + (viewers[number] * a_viewer + rooms[number] * a_room + outcome.openings * costs.open_us / self.processes)
            / 1e6
            for number in range(self.processes)
        ]

    def _openings(self) -> float:
        """A second's viewers whose process has no other viewer of their room."""
        elsewhere = 0.0 if self.placement is Placement.PERFORMER else 1 - 1 / self.processes
        alone = sum(size * elsewhere ** (size - 1) for size in self.site.rooms)
        return alone / (60 * self.site.stay_minutes)

    def _second(self, resting: list[float], outcome: Outcome) -> list[float]:
        """CPU seconds of each process in one second with its events."""
        costs, spent = self.costs, list(resting)
        rates = self.site.events_a_second
        decision = costs.life_us / EVENTS_OF_AN_ITEM + self._reload(costs.elsewhere_us, costs.intake_us)
        happening = Counter(self.random.choices(range(len(rates)), rates, k=_poisson(self.random, sum(rates))))
        for room, events in happening.items():
            watchers = self.watchers[room]
            for _ in range(events):
                spent[self._decider(watchers)] += decision / 1e6
            # The events of one window travel in one frame.
            sent = math.ceil(events / (1 + events * COALESCED_SECONDS))
            for process, viewers in watchers.items():
                spent[process] += (events * costs.watch_us + sent * viewers * costs.delivery_us) / 1e6
            outcome.events += events
            outcome.deliveries += sent * sum(watchers.values())
            outcome.redis_in += events
            outcome.redis_out += events * len(watchers)
        return spent

    def _decider(self, watchers: dict[int, int]) -> int:
        """The process that gets a command: any one, or the room's."""
        if self.placement is Placement.PERFORMER:
            return next(iter(watchers))
        return self.random.randrange(self.processes)

    def _reload(self, elsewhere: float, here: float) -> float:
        """The extra cost of a command after another process has changed the room."""
        if self.placement is Placement.PERFORMER:
            return 0.0
        return max(0.0, elsewhere - here) * (1 - 1 / self.processes)

    def _behind(self, outcome: Outcome) -> None:
        """The load of PostgreSQL, Redis and the network."""
        costs = self.costs
        outcome.items = items = outcome.events / EVENTS_OF_AN_ITEM
        outcome.commits, outcome.rows = items * costs.life_commits, items * costs.life_rows
        outcome.wal_mb = items * costs.life_wal / 1e6
        reloads = outcome.events * self._reload(costs.database_elsewhere_us, costs.database_intake_us)
        outcome.watching_cores = (
            outcome.pairs / POSITION_CHECK_SECONDS * costs.database_check_us + outcome.openings * costs.database_open_us
        ) / 1e6
        outcome.database_cores = (
            (items * costs.database_life_us + reloads) / 1e6
            + outcome.watching_cores
            + self.processes * costs.database_idle_ms / 1e3
        )
        outcome.redis_cores = (
            outcome.redis_in * costs.redis_intake_us + outcome.redis_out * costs.redis_delivery_us
        ) / 1e6
        joins = self.site.viewers / (60 * self.site.stay_minutes)
        outcome.network_mbit = (outcome.deliveries * costs.delivery_bytes + joins * costs.join_bytes) * 8 / 1e6


def _poisson(random: Random, mean: float) -> int:
    """Arrivals in a second, counted by their pauses."""
    count, at = 0, random.expovariate(mean)
    while at < 1:
        count += 1
        at += random.expovariate(mean)
    return count


def settle(site: Site, costs: Costs, placement: Placement) -> Outcome:
    """The outcome with enough processes, found by increasing their number."""
    processes = max(1, math.ceil(site.viewers / site.most_viewers))
    if placement is Placement.PERFORMER:
        # One may get a quarter more than its share.
        processes = math.ceil(1.25 * site.viewers / site.most_viewers)
    for _ in range(MOST_TRIALS):
        outcome = Simulation(site, costs, processes, placement).run()
        if outcome.busiest <= site.busy:
            return outcome
        processes = max(processes + 1, math.ceil(outcome.cores / site.busy), math.ceil(processes * 1.1))
    raise typer.BadParameter("the busiest room alone is more than one process can serve at this rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A resource that all processes share, and how much of it there is."""

    database_cores: int
    connections: int

    def bottleneck(self, outcome: Outcome) -> tuple[str, float]:
        """The resource that is used up first, and its share that is used."""
        used = {
            "PostgreSQL's cores": outcome.database_cores / self.database_cores,
            "PostgreSQL's connections": outcome.connections / self.connections,
            "Redis's one thread": outcome.redis_cores,
        }
        name = max(used, key=used.__getitem__)
        return name, used[name]


ROWS: dict[str, str] = {
    "processes": "{o.processes:,}",
    "their CPU: cores": "{o.cores:,.1f}",
    "the busiest, on average": "{o.busiest:.0%}",
    "the busiest, p99 second": "{o.busiest_second:.0%}",
    "their memory: GB": "{o.memory_gb:,.1f}",
    "watched rooms, by process": "{o.pairs:,}",
    "  begun to be watched a second": "{o.openings:,.0f}",
    "items a second": "{o.items:,.1f}",
    "events a second": "{o.events:,.1f}",
    "deliveries a second": "{o.deliveries:,.0f}",
    "network out: Mbit/s": "{o.network_mbit:,.0f}",
    "PostgreSQL: cores": "{o.database_cores:,.2f}",
    "  of it for watched rooms": "{o.watching_cores:,.2f}",
    "  commits a second": "{o.commits:,.0f}",
    "  rows written a second": "{o.rows:,.0f}",
    "  WAL: MB/s": "{o.wal_mb:,.2f}",
    "  connections": "{o.connections:,}",
    "Redis: messages in a second": "{o.redis_in:,.0f}",
    "  messages out a second": "{o.redis_out:,.0f}",
    "  of its one core": "{o.redis_cores:.1%}",
}


def show(console: Console, outcomes: dict[tuple[int, Placement], Outcome], limits: Limits) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for viewers, placement in outcomes:
        table.add_column(f"{viewers:,}\n{placement}", justify="right")
    for title, form in ROWS.items():
        table.add_row(title, *(form.format(o=outcome) for outcome in outcomes.values()))
    found = [limits.bottleneck(outcome) for outcome in outcomes.values()]
    table.add_row("used up first", *(f"{name}\n{share:.0%} used" for name, share in found))
    sizes = (viewers / share for (viewers, _), (_, share) in zip(outcomes, found, strict=True))
    table.add_row("  by growth alone, viewers", *(f"{size / 1e6:,.1f} million" for size in sizes))
    console.print(table)


def main(
    viewers: Annotated[list[int] | None, typer.Option(help="At once; may be given several times.")] = None,
    costs_file: Annotated[Path | None, typer.Option("--costs", help="JSON of the scenario `scaling`.")] = None,
    room: Annotated[float, typer.Option(help="Viewers of a room, on average.")] = 50,
    tail: Annotated[float, typer.Option(help="Exponent of the Pareto distribution of that; lower: heavier.")] = 1.2,
    rate: Annotated[float, typer.Option(help="Items a minute that 1,000 viewers pay for.")] = 6,
    room_rate: Annotated[float, typer.Option(help="Items a minute that a performer gets done at most.")] = 2,
    stay: Annotated[float, typer.Option(help="Minutes that a viewer stays.")] = 10,
    most_viewers: Annotated[int, typer.Option(help="Of one process: all of them come back when it dies.")] = 20_000,
    busy: Annotated[float, typer.Option(help="How busy the busiest process may be, on average.")] = 0.6,
    database_cores: Annotated[int, typer.Option(help="Of the PostgreSQL server.")] = 16,
    connections: Annotated[int, typer.Option(help="It takes without a pooler.")] = 1000,
    seconds: Annotated[int, typer.Option(help="That are simulated.")] = 60,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Reckon what a site takes: processes, PostgreSQL, Redis, network and memory, and what is used up first."""
    costs = Costs.of(costs_file) if costs_file is not None else Costs()
    site = Site(
        viewers=0,
        viewers_a_room=room,
        tail=tail,
        items_a_minute=rate,
        room_items_a_minute=room_rate,
        stay_minutes=stay,
        most_viewers=most_viewers,
        busy=busy,
        seconds=seconds,
        seed=seed,
    )
    # A pipe has no width; the table needs this much.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f"A room has {room:g} viewers on average (Pareto, {tail:g}); 1,000 viewers ask for {rate:g} items a minute, a "
        f"performer does {room_rate:g}; a viewer stays {stay:g} minutes; a process has {most_viewers:,} viewers at "
        f"most and is {busy:.0%} busy at most.",
    )
    outcomes = {
        (count, placement): settle(replace(site, viewers=count), costs, placement)
        for count in viewers or [100_000, 1_000_000]
        for placement in Placement
    }
    show(console, outcomes, Limits(database_cores=database_cores, connections=connections))


if __name__ == "__main__":
    typer.run(main)
