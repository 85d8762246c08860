"""The command line of the benchmark: `python -m tests.bench --help`."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.bench import bench as surroundings
from tests.bench import machine, report, runner
from tests.bench.bench import Bench
from tests.bench.load.crowd import viewer_command
from tests.bench.optimisations.catalogue import ALL as OPTIMISATIONS
from tests.bench.peers import catalogue
from tests.bench.scale import DEFAULT, FULL, QUICK
from tests.bench.scenarios import ALL, optimisations

SCENARIOS = ", ".join(ALL)
PEERS = ", ".join(peer.name for peer in catalogue.ALL)


def _chosen(given: str | None, known: list[str], what: str) -> list[str]:
    if given is None or given == "all":
        return known
    names = [] if given == "none" else [name.strip() for name in given.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small numbers, two rounds: a few minutes.")] = False,
    full: Annotated[bool, typer.Option("--full", help="10,000 viewers, ten million events: hours and 20 GB.")] = False,
    only: Annotated[str | None, typer.Option(help=f"Some of: {SCENARIOS}.")] = None,
    peers: Annotated[str, typer.Option(help=f"all, none, or some of: {PEERS}.")] = "all",
    rounds: Annotated[int | None, typer.Option(help="Rounds of each scenario.", min=1)] = None,
    history: Annotated[int | None, typer.Option(help="Events in the database of `growth`.", min=1000)] = None,
    log: Annotated[
        Path | None, typer.Option(help="An exported event log that `waits` scores.", exists=True, dir_okay=False)
    ] = None,
    without: Annotated[
        str | None, typer.Option(help=f"Only what these optimisations save; some of: {', '.join(OPTIMISATIONS)}.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything there, round by round.")] = None,
) -> None:
    """Measure the service and its peers on this machine, by turns, and hold the service against its bar.

    The real server (`python -m app serve`, SQLite with synchronous FULL) and every peer run pinned to one core, the
    load to another. CPU seconds come from the process table, medians and ratios from interleaved rounds; what arrives
    is checked and counted. Peers are installed into the user's cache folder, never into the project's environment; one
    that cannot be had is listed as absent. The exit code is 1 if anything was lost, repeated or refused on the way.
    """
    scale = QUICK if quick else FULL if full else DEFAULT
    scale = replace(scale, rounds=rounds or scale.rounds, history_events=history or scale.history_events)
    chosen = _chosen(only if without is None else optimisations.NAME, list(ALL), "scenario")
    names = _chosen(peers, [peer.name for peer in catalogue.ALL], "peer")
    if sys.platform != "linux":
        raise typer.BadParameter("the benchmark reads Linux's process table")
    # A pipe has no width; the tables need this much.
    console = Console(width=None if sys.stdout.isatty() else 150)
    files = machine.raise_file_limit()
    server_core, load_core = machine.cores()
    cache = surroundings.cache_folder()
    bench = Bench(
        scale=scale,
        server_core=server_core,
        load_core=load_core,
        cache=cache,
        viewers=viewer_command(cache / "bin"),
        peers=frozenset(names),
        log=log,
        optimisations=tuple(_chosen(without, list(OPTIMISATIONS), "optimisation")),
    )
    about = {
        "machine": machine.describe(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "openFiles": files,
        "load": "compiled" if len(bench.viewers) == 1 else "Python (no compiler found): viewers may be the bottleneck",
    }
    for name, value in about.items():
        console.print(f"{name}: {value}", style="dim")
    with machine.born_on(load_core):
        verdicts = runner.run(bench, [ALL[name] for name in chosen], console)
    report.show(console, bench.ledger, verdicts)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(bench.ledger, verdicts, about), indent=1))
    raise typer.Exit(0 if bench.ledger.is_sound else 1)


if __name__ == "__main__":
    typer.run(main)
