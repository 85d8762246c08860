"""Optimisations: what each saves of the operation that it is a part of, against the plain way it stands for.

Both ways alternate within one process, a running service for most. `--without NAME` measures only those.
"""

from collections.abc import Sequence
from functools import partial

from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Column
from tests.bench.optimisations.catalogue import ALL
from tests.bench.optimisations.measuring import Optimisation, measured
from tests.bench.scale import Scale

NAME = "optimisations"
COLUMNS = (
    Column(measure="saved", title="saves %", ranged=True),
    Column(measure="cost", title="with it"),
    Column(measure="plain", title="the plain way"),
)


def _turns(bench: Bench) -> list[Turn]:
    chosen: dict[str, list[Optimisation]] = {}
    for name in bench.optimisations or ALL:
        chosen.setdefault(ALL[name].operation.name, []).append(ALL[name])
    return [Turn(subject=name, take=partial(_take, bench, those)) for name, those in chosen.items()]


def _take(bench: Bench, optimisations: Sequence[Optimisation], round_number: int) -> None:
    operation = optimisations[0].operation
    with operation.begin(bench) as (drive, switch):
        gains = measured([each.name for each in optimisations], drive, switch, operation.pairs)
    title = f"Optimisations: {operation.unit} of {operation.name}"
    case = bench.ledger.case(NAME, operation.name, title, COLUMNS)
    for name, gain in gains.items():
        case.note(round_number, name, saved=gain.saved_percent, cost=gain.cost, plain=gain.plain_cost)


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return ()


SCENARIO = Scenario(name=NAME, about="what each optimisation saves", turns=_turns, bars=_bars, rounds=3)
