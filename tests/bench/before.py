"""python -m tests.bench.before CHECKOUT: an earlier release beside this one, by turns in one run on one machine.

CPU per intake of 32 callers, and per delivery to 1,000 viewers of one room, less the intakes that caused them.
CHECKOUT is a work tree of that release, as `git worktree add ../before COMMIT` makes it; `--python` names the
interpreter of an environment with its dependencies, if they differ.
"""

import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.bench import machine, servers
from tests.bench.bench import cache_folder
from tests.bench.load.callers import call
from tests.bench.load.crowd import Crowd, CrowdError, crowd, viewer_command
from tests.bench.load.publishers import IntakePublisher
from tests.bench.load.requests import Intakes
from tests.bench.servers import ROOT, Server

VIEWERS = 1_000
EVENTS = 60
WARM_UP = 5
PAUSE_SECONDS = 0.06
"""Longer than the coalescing window, so that each event is sent by itself."""
ROOMS = 100
INTAKES = 3_000
CALLERS = 32

Figures = dict[str, float]


def main(
    checkout: Annotated[Path, typer.Argument(help="A work tree of the earlier release.", exists=True, file_okay=False)],
    python: Annotated[Path, typer.Option(help="The interpreter that runs it.")] = Path(sys.executable),
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    machine.raise_file_limit()
    found: dict[str, list[Figures]] = {"before": [], "now": []}
    console = Console()
    with console.status("") as status:
        for number in range(rounds):
            for release in sorted(found, reverse=bool(number % 2)):
                status.update(f"round {number + 1} of {rounds}, {release}")
                source, program = (ROOT, Path(sys.executable)) if release == "now" else (checkout.resolve(), python)
                found[release].append(_measure(source, program))
    console.print(_table(found))


def _measure(source: Path, python: Path) -> Figures:
    server_core, load_core = machine.cores()
    cache = cache_folder()
    with servers.ours(cache / "data", server_core, source=source, python=python) as server:
        before = server.cpu()
        call(server.port, [Intakes(ROOMS).caller() for _ in range(CALLERS)], calls=INTAKES)
        intake = (server.cpu() - before) / INTAKES
        with closing(IntakePublisher(server, prefix="unwatched")) as publisher:
            alone = _cpu_of_events(server, publisher, None)
        with (
            crowd(viewer_command(cache / "bin"), load_core, flavour="live") as watching,
            closing(IntakePublisher(server, prefix="watched")) as publisher,
        ):
            watching.connect(server.port, "/v1/performers/watched-0/queue/live", VIEWERS)
            for number in range(1, WARM_UP + 1):
                publisher.publish(1)
                watching.wait(number * VIEWERS)
            watching.reset()
            watched = _cpu_of_events(server, publisher, watching)
            report = watching.report()
    if not report.is_complete(viewers=VIEWERS, events=EVENTS):
        raise CrowdError(f"frames were lost or repeated: {report}")
    return {
        "CPU µs an intake": intake * 1e6,
        "CPU µs a delivery": (watched - alone) / VIEWERS / EVENTS * 1e6,
        "bytes a delivery": report.bytes / VIEWERS / EVENTS,
    }


def _cpu_of_events(server: Server, publisher: IntakePublisher, watching: Crowd | None) -> float:
    """CPU seconds of so many events, each waited for by those who watch, if anybody does."""
    before = server.cpu()
    for number in range(1, EVENTS + 1):
        time.sleep(PAUSE_SECONDS)
        publisher.publish(1)
        if watching is not None:
            watching.wait(number * VIEWERS)
    return server.cpu() - before


def _table(found: dict[str, list[Figures]]) -> Table:
    table = Table("", "before", "now", "now × before [lowest–highest]", title="Medians of the rounds")
    for name in found["now"][0]:
        before, now = ([figures[name] for figures in found[release]] for release in ("before", "now"))
        ratios = sorted(mine / theirs for mine, theirs in zip(now, before, strict=True))
        table.add_row(
            name,
            f"{median(before):.1f}",
            f"{median(now):.1f}",
            f"{median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
