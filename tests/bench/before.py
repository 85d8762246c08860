"""python -m tests.bench.before CHECKOUT: an earlier release beside this one, both running, by turns.

In a turn each release does the same short blocks of work, on the same core, one release after the other; in the next
turn the other one begins. Each ratio is that of one turn, in which both had the same neighbours on the machine: so the
median of many turns is exact to a few per cent, also on a busy machine. The CPU of a delivery is that of a watched
event, less that of one which nobody watches, in a server with the same sockets.

CHECKOUT is a work tree of the earlier release, as `git worktree add ../before COMMIT` makes it; `--python` names the
interpreter of an environment with its dependencies, if they differ.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from math import floor, sqrt
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.bench import machine, servers
from tests.bench.bench import cache_folder
from tests.bench.load.callers import CallersError, call_again, connected
from tests.bench.load.crowd import Crowd, CrowdError, crowd, viewer_command
from tests.bench.load.publishers import IntakePublisher
from tests.bench.load.requests import Intakes
from tests.bench.servers import ROOT, Server

PAUSE_SECONDS = 0.06
"""After a block: longer than the coalescing window, so that the next event is sent by itself."""
CALLERS = 32
ROOMS = 100
VIEWERS_A_ROOM = 5
"""Of the small rooms."""
MOST_TURNS = 490
"""Then rooms are full: each gets an event or two in a turn."""

Turn = dict[str, float]
"""The results of one release, by the title of a line of the table."""
Block = Callable[[], float]
"""Does a piece of work; returns the result."""
INTAKE = f"CPU µs an intake, {CALLERS} callers"
UNWATCHED = "CPU µs an event by itself, unwatched"
WATCHED = "CPU µs an event by itself, watched"
DELIVERY = "CPU µs a delivery"
BYTES = "bytes a delivery"
SMALL_UNWATCHED = "CPU µs an intake, small rooms, unwatched"
SMALL_WATCHED = "CPU µs an intake, small rooms, watched"
SMALL_DELIVERY = "CPU µs a delivery, small rooms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of each release in a turn."""

    viewers: int = 1_000
    """Of the large room. It gets an event by itself, and so does a room that nobody watches."""
    small_rooms: int = 400
    """With VIEWERS_A_ROOM each. Each gets an event, and so do as many rooms that nobody watches."""
    intakes: int = 200
    """Into ROOMS that nobody watches."""


def main(
    checkout: Annotated[Path, typer.Argument(help="A work tree of the earlier release.", exists=True, file_okay=False)],
    python: Annotated[Path, typer.Option(help="The interpreter that runs it.")] = Path(sys.executable),
    turns: Annotated[int, typer.Option(min=5, max=MOST_TURNS)] = 200,
    viewers: Annotated[int, typer.Option(min=1, help="Of the large room.")] = 1_000,
) -> None:
    releases = {"before": (checkout.resolve(), python), "now": (ROOT, Path(sys.executable))}
    machine.raise_file_limit()
    console = Console()
    with console.status("viewers connect") as status:
        found = compare(
            releases,
            Work(viewers=viewers),
            turns,
            cache=cache_folder(),
            begun=lambda number: status.update(f"turn {number} of {turns}"),
        )
    title = f"Medians of {turns} turns; {viewers:,} viewers of one room, {VIEWERS_A_ROOM} of each small one"
    console.print(table(found["before"], found["now"], title))


def compare(
    releases: Mapping[str, tuple[Path, Path]],
    work: Work,
    turns: int,
    *,
    cache: Path,
    begun: Callable[[int], None] = lambda number: None,
) -> dict[str, list[Turn]]:
    """The turns of each release, given by its work tree and the interpreter that runs it. `begun` gets each turn's
    number."""
    server_core, load_core = machine.cores()
    viewers = viewer_command(cache / "bin")
    found: dict[str, list[Turn]] = {name: [] for name in releases}
    with machine.born_on(load_core), ExitStack() as running:
        blocks: dict[str, dict[str, Block]] = {}
        for name, (source, python) in releases.items():
            server = running.enter_context(servers.ours(cache / "data", server_core, source=source, python=python))
            large, small = (running.enter_context(crowd(viewers, load_core)) for _ in range(2))
            blocks[name] = running.enter_context(_ready(server, large, small, work))
        for number in range(turns):
            begun(number + 1)
            order = sorted(blocks, reverse=number % 2 == 1)
            for name in order:
                found[name].append({})
            for title in blocks[order[0]]:
                for name in order:
                    found[name][-1][title] = blocks[name][title]()
    for turn in chain.from_iterable(found.values()):
        turn[DELIVERY] = (turn[WATCHED] - turn[UNWATCHED]) / work.viewers
        turn[SMALL_DELIVERY] = (turn[SMALL_WATCHED] - turn[SMALL_UNWATCHED]) / VIEWERS_A_ROOM
    return found


@contextmanager
def _ready(server: Server, large: Crowd, small: Crowd, work: Work) -> Iterator[dict[str, Block]]:
    """The blocks of a server, with their viewers and callers connected. Each has been done once, to warm up."""
    large.connect(server.port, "/v1/performers/large-0/queue/live", work.viewers)
    small_viewers = work.small_rooms * VIEWERS_A_ROOM
    small.connect(server.port, "/v1/performers/small-%d/queue/live", small_viewers, per_room=VIEWERS_A_ROOM)
    with ExitStack() as connections:

        def event(prefix: str, watching: Crowd | None = None) -> Block:
            """One event, waited for by those who watch."""
            publisher = connections.enter_context(closing(IntakePublisher(server, prefix=prefix, connections=1)))
            return lambda: _cpu_us(server, lambda: publisher.publish(1), 1, watching, work.viewers)

        def intakes(prefix: str, rooms: int, count: int, watching: Crowd | None = None) -> Block:
            """Intakes of many callers, spread over rooms."""
            new = Intakes(rooms, prefix=prefix)
            # The service closes a connection on which no request comes.
            senders = [new.caller() for _ in range(min(CALLERS, count))]
            callers = connections.enter_context(connected(server.port, senders))

            def send() -> None:
                if failures := call_again(callers, count).failures:
                    raise CallersError(f"{failures} of {count} intakes failed")

            return lambda: _cpu_us(server, send, count, watching, small_viewers)

        blocks: dict[str, Block] = {}
        for title, block in (
            (INTAKE, intakes("busy", ROOMS, work.intakes)),
            (UNWATCHED, event("quiet")),
            (WATCHED, event("large", large)),
            (BYTES, lambda: large.report().bytes / work.viewers),
            (SMALL_UNWATCHED, intakes("alone", work.small_rooms, work.small_rooms)),
            (SMALL_WATCHED, intakes("small", work.small_rooms, work.small_rooms, small)),
        ):
            block()
            blocks[title] = block
        yield blocks


def _cpu_us(server: Server, do: Callable[[], None], count: int, watching: Crowd | None, viewers: int) -> float:
    """CPU µs of each of `count` events. Raises CrowdError unless each of the viewers gets one."""
    if watching is not None:
        watching.reset()
    before = server.cpu()
    do()
    if watching is not None:
        watching.wait(viewers)
    time.sleep(PAUSE_SECONDS)
    used = server.cpu() - before
    if watching is not None and not (report := watching.report()).is_complete(viewers=viewers, events=1):
        raise CrowdError(f"frames were lost or repeated: {report}")
    return used / count * 1e6


def table(before: Sequence[Turn], now: Sequence[Turn], title: str) -> Table:
    """Medians, and the ratios' 95 % confidence intervals."""
    shown = Table("", "before", "now", "now × before [95 %]", title=title)
    for name in now[0]:
        ratios = [one[name] / other[name] for one, other in zip(now, before, strict=True)]
        low, high = _interval(ratios)
        mine, theirs = (median(turn[name] for turn in turns) for turns in (now, before))
        shown.add_row(name, f"{theirs:.1f}", f"{mine:.1f}", f"{median(ratios):.2f} [{low:.2f}–{high:.2f}]")
    return shown


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median: from its rank less sqrt(n) to its rank plus sqrt(n), whatever the
    distribution."""
    reach = len(values) / 2 - sqrt(len(values))
    ordered, outside = sorted(values), max(0, floor(reach))
    return ordered[outside], ordered[-1 - outside]


if __name__ == "__main__":
    typer.run(main)
