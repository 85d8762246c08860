"""Running scenarios: round by round, the subjects by turns, every round in another order, with a progress display."""

import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Remark, Verdict
from tests.bench.load.callers import CallersError
from tests.bench.load.crowd import CrowdError
from tests.bench.servers import DidNotStart

Failure = (CrowdError, CallersError, DidNotStart, OSError)
"""The errors of a turn after which the others go on."""


def run(bench: Bench, scenarios: Sequence[Scenario], console: Console) -> list[Verdict]:
    """An interrupt (SIGINT or SIGTERM) ends the run; what was measured until then is judged."""
    with _progress(console) as progress, _terminated_as_interrupted():
        try:
            for scenario in scenarios:
                _run_one(bench, scenario, progress)
        except KeyboardInterrupt:
            bench.ledger.remark(Remark(scenario="run", kind="failed", text="interrupted"))
    return [bench.ledger.judge(scenario.name, bar) for scenario in scenarios for bar in scenario.bars(bench.scale)]


def _run_one(bench: Bench, scenario: Scenario, progress: Progress) -> None:
    task = progress.add_task(f"{scenario.name}: preparing", total=None)
    try:
        _take_turns(bench, scenario, scenario.turns(bench), progress, task)
    except Failure as problem:
        _failed(bench, scenario, "preparing", problem)
    finally:
        if scenario.finish is not None:
            scenario.finish(bench)
    progress.update(task, description=f"{scenario.name}: done")


def _take_turns(bench: Bench, scenario: Scenario, turns: list[Turn], progress: Progress, task: TaskID) -> None:
    rounds = min(bench.scale.rounds, scenario.rounds or bench.scale.rounds)
    progress.update(task, total=rounds * len(turns))
    broken: set[str] = set()
    for number in range(rounds):
        start = number % len(turns)
        for turn in turns[start:] + turns[:start]:
            progress.update(task, description=f"{scenario.name}: round {number + 1} of {rounds}, {turn.subject}")
            try:
                if turn.subject not in broken:
                    turn.take(number)
            except Failure as problem:
                # One subject that cannot go on must not cost the others their figures.
                _failed(bench, scenario, turn.subject, problem)
                broken.add(turn.subject)
            progress.advance(task)


def _failed(bench: Bench, scenario: Scenario, who: str, problem: BaseException) -> None:
    where = traceback.extract_tb(problem.__traceback__)[-1].name
    text = f"{who}: {type(problem).__name__} in {where}: {problem}"
    bench.ledger.remark(Remark(scenario=scenario.name, kind="failed", text=text))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that all started processes are stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Twice a second: the display runs on the load's core.
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        yield progress
