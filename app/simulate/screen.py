"""Shows a run: figures while it goes on, and the report at its end.

A terminal gets a progress bar and a few lines that are redrawn; any other output gets a line every LINE_SECONDS.
"""

import asyncio
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from app.simulate.run import Run

REDRAWS_A_SECOND = 4
LINE_SECONDS = 5.0


def run_in_terminal(run: Run, json_file: Path | None) -> int:
    """Run to the end with progress on standard error and the report on standard output; returns the exit code.

    SIGINT or SIGTERM ends the load, and the results so far are reported; a second one ends the run without a report.
    Raises app.simulate.run.Refused.
    """
    try:
        report = asyncio.run(_perform(run, Console(stderr=True)))
    except asyncio.CancelledError:
        return 130
    Console().print(report_table(report))
    if json_file is not None:
        json_file.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return 0 if report["consistent"] and not report["checks"]["unverified"] else 1


async def _perform(run: Run, console: Console) -> dict[str, Any]:
    loop, this = asyncio.get_running_loop(), asyncio.current_task()

    def interrupted() -> None:
        if run.ended_early and this is not None:
            this.cancel()
        run.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    watching = asyncio.create_task(_watch(run, console))
    try:
        return await run.run()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(run: Run, console: Console) -> None:
    if not console.is_terminal:
        await _lines(run, console)
        return
    progress = Progress(
        TextColumn("[bold]{task.description:<9}"), BarColumn(bar_width=None), TimeRemainingColumn(compact=True)
    )
    task = progress.add_task(run.phase, total=run.plan.seconds)
    speed = _Speed(run)
    with Live(console=console, refresh_per_second=REDRAWS_A_SECOND, transient=True) as live:
        began = None
        while True:
            if run.phase == "load" and began is None:
                began = time.monotonic()
            done = 0.0 if began is None else min(run.plan.seconds, time.monotonic() - began)
            progress.update(task, description=run.phase, completed=done)
            live.update(Group(progress, _figures(run, speed.now())))
            await asyncio.sleep(1 / REDRAWS_A_SECOND)


async def _lines(run: Run, console: Console) -> None:
    speed = _Speed(run)
    began = printed = time.monotonic()
    phase = run.phase
    while True:
        await asyncio.sleep(1 / REDRAWS_A_SECOND)
        if run.phase == phase and time.monotonic() - printed < LINE_SECONDS:
            continue
        phase, printed = run.phase, time.monotonic()
        tally = run.tally
        console.print(
            f"{time.monotonic() - began:4.0f} s  {run.phase:<8}  {speed.now():6.1f} intakes/s"
            f"  p50 {_ms(tally.intake_latency.percentile(0.5))}  p99 {_ms(tally.intake_latency.percentile(0.99))}"
            f"  {tally.sockets_open} sockets  {tally.frames['update']:,} updates"
            f"  position p99 {_ms(tally.position_latency.percentile(0.99))}"
            f"  {tally.different} different",
            highlight=False,
            soft_wrap=True,
        )


class _Speed:
    """Accepted intakes a second over the last 20 calls of `now`."""

    def __init__(self, run: Run) -> None:
        self._tally = run.tally
        self._seen = [(time.monotonic(), 0)]

    def now(self) -> float:
        self._seen = [*self._seen[-20:], (time.monotonic(), self._tally.intakes["accepted"])]
        (before, earlier), (now, later) = self._seen[0], self._seen[-1]
        return (later - earlier) / max(now - before, 1e-9)


def _figures(run: Run, speed: float) -> RenderableType:
    tally = run.tally
    grid = Table.grid(padding=(0, 3))
    for _ in range(4):
        grid.add_column()
    refused = sum(count for name, count in tally.intakes.items() if name not in ("accepted", "replayed"))
    grid.add_row(
        f"[dim]intake[/] {speed:.1f}/s",
        f"[dim]accepted[/] {tally.intakes['accepted']:,}  [dim]refused[/] {refused:,}",
        f"[dim]p50[/] {_ms(tally.intake_latency.percentile(0.5))}",
        f"[dim]p99[/] {_ms(tally.intake_latency.percentile(0.99))}",
    )
    grid.add_row(
        f"[dim]sockets[/] {tally.sockets_open:,}",
        f"[dim]updates[/] {tally.frames['update']:,}  [dim]positions[/] {tally.frames['position']:,}",
        f"[dim]p50[/] {_ms(tally.position_latency.percentile(0.5))}",
        f"[dim]p99[/] {_ms(tally.position_latency.percentile(0.99))}  [dim]to a screen[/]",
    )
    wrong = tally.different + len(tally.missing)
    grid.add_row(
        f"[dim]commands[/] {sum(tally.commands.values()):,}",
        f"[dim]checked[/] {tally.comparisons:,}",
        f"[{'bold red' if wrong else 'green'}]{wrong} wrong[/]",
        "[dim]Ctrl-C: stop and report[/]",
    )
    return grid


def report_table(report: Mapping[str, Any]) -> RenderableType:
    """The report as a table, and a last line with the result of the checks."""
    table = Table(box=box.SIMPLE_HEAD, show_header=True, header_style="dim", pad_edge=False)
    table.add_column(no_wrap=True)
    for heading in ("count", "p50", "p99", "longest"):
        table.add_column(heading, justify="right", no_wrap=True)

    def measured(name: str, latency: Mapping[str, Any]) -> None:
        columns = (latency["p50Ms"], latency["p99Ms"], latency["maxMs"])
        table.add_row(
            name, f"{latency['count']:,}", *("–" if value is None else f"{value:.1f} ms" for value in columns)
        )

    def counted(name: str, count: object) -> None:
        table.add_row(f"  {name}", f"{count:,}" if isinstance(count, int) else str(count))

    intake, commands, sockets, checks = report["intake"], report["commands"], report["sockets"], report["checks"]
    measured("Intakes answered", intake["latency"])
    for outcome, count in sorted(intake["outcomes"].items()):
        counted(outcome, count)
    counted("accepted a second", intake["acceptedPerSecond"])
    if report["holds"]:
        counted("tokens held first", report["holds"].get("held", 0))
    measured("Commands", commands["latency"])
    for name, count in sorted(commands["acknowledged"].items()):
        counted(name, count)
    for code, count in sorted(commands["refused"].items()):
        counted(f"refused: {code}", count)
    measured("Event to screen", report["updateLatency"])
    measured("Position to its owner", report["positionLatency"])
    table.add_row("Sockets opened", f"{sockets['opened']:,}")
    counted("resumed without a snapshot", sockets["resumed"])
    for code, count in sorted(sockets["closed"].items()):
        counted("failed attempts to connect" if code == "0" else f"closed with {code}", count)
    counted("updates received", sockets["frames"].get("update", 0))
    counted("events in them", sockets["events"])
    counted("gaps met", sockets["gaps"])
    table.add_row("Views compared with the truth", f"{checks['viewsCompared']:,}")
    table.add_row("Acknowledged items looked up", f"{checks['itemsVerified']:,}")
    return Group(table, _result_of_checks(report))


def _result_of_checks(report: Mapping[str, Any]) -> Text:
    checks = report["checks"]
    if report["consistent"] and not checks["unverified"]:
        return Text("Every view was right and no acknowledged item is missing.", style="bold green")
    lines = []
    if checks["viewsDifferent"]:
        lines.append(f"{checks['viewsDifferent']} views or items differed from the truth:")
        lines += [f"  {difference}" for difference in checks["differences"][:10]]
    if checks["itemsMissing"]:
        lines.append(f"{len(checks['itemsMissing'])} acknowledged items are missing:")
        lines += [f"  {item_id}" for item_id in checks["itemsMissing"][:10]]
    if checks["unverified"]:
        lines.append(f"{checks['unverified']} views or items could not be checked: the server did not answer.")
    return Text("\n".join(lines), style="bold red")


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.1f} ms"
