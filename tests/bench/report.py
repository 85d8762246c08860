"""Showing what was found: tables for people, JSON for programs."""

import math
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.figures import OURS, Case, Column, Ledger, Spread, Standing, Verdict

COLOURS = {Standing.MET: "green", Standing.MISSED: "red", Standing.UNMEASURED: "yellow"}


def show(console: Console, ledger: Ledger, verdicts: list[Verdict]) -> None:
    for case in ledger.cases.values():
        console.print(_table(case))
    if verdicts:
        console.print(_bars(verdicts))
    for remark in ledger.remarks:
        colour = "red" if remark.kind in ("wrong", "failed") else "yellow"
        console.print(Text(f"{remark.scenario}: {remark.kind}: {remark.text}", style=colour))
    console.print(
        "Medians of the rounds, in brackets lowest–highest. Ratios are medians of the ratios within one round: a "
        "single figure of a shared machine may be 40 % off, its neighbour in the same round shares most of that.",
        style="dim",
    )


def _table(case: Case) -> Table:
    table = Table(title=case.title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    shown = [
        column for column in case.columns if any((subject, column.measure) in case.values for subject in case.subjects)
    ]
    for column in shown:
        table.add_column(column.title, justify="right")
    if case.reference is not None:
        table.add_column(f"× {case.reference[1]}", justify="right")
    for subject in _by_first(case, shown):
        cells = [_cell(case.spread(subject, column.measure), column.digits, ranged=column.ranged) for column in shown]
        if case.reference is not None:
            measure, reference = case.reference
            cells.append(_cell(case.ratio((subject, measure), (reference, measure)), 2))
        table.add_row(subject, *cells, style="bold" if subject.startswith(OURS) else None)
    return table


def _by_first(case: Case, columns: list[Column]) -> list[str]:
    """Subjects by their first measure, the lowest first, so that one reads one's place off."""

    def first(subject: str) -> float:
        spread = case.spread(subject, columns[0].measure) if columns else None
        return spread.middle if spread else math.inf

    return sorted(case.subjects, key=first)


def _cell(spread: Spread | None, digits: int, *, ranged: bool = True) -> str:
    if spread is None:
        return "–"
    middle = f"{spread.middle:,.{digits}f}"
    return (
        middle if spread.count == 1 or not ranged else f"{middle} [{spread.low:,.{digits}f}–{spread.high:,.{digits}f}]"
    )


def _bars(verdicts: list[Verdict]) -> Table:
    table = Table(title="The bar", box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("where", "what", "wanted", "found", ""):
        table.add_column(title, justify="right" if title in ("wanted", "found") else "left")
    for verdict in verdicts:
        bar = verdict.bar
        wanted = f"≤ {bar.at_most:g}" if bar.at_most is not None else f"≥ {bar.at_least:g}"
        table.add_row(
            bar.case,
            bar.text,
            wanted,
            _cell(verdict.found, 2),
            Text(verdict.standing, style=COLOURS[verdict.standing]),
        )
    return table


def as_json(ledger: Ledger, verdicts: list[Verdict], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, round by round."""
    return {
        "about": about,
        "cases": {
            name: {
                "scenario": case.scenario,
                "title": case.title,
                "subjects": {
                    subject: {
                        measure: {**asdict(Spread.of(list(rounds.values()))), "rounds": rounds}
                        for (owner, measure), rounds in case.values.items()
                        if owner == subject
                    }
                    for subject in case.subjects
                },
            }
            for name, case in ledger.cases.items()
        },
        "bars": [
            {
                **asdict(verdict.bar),
                "found": asdict(verdict.found) if verdict.found else None,
                "standing": verdict.standing,
            }
            for verdict in verdicts
        ],
        "remarks": [asdict(remark) for remark in ledger.remarks],
    }
