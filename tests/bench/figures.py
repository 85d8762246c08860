"""Figures: what each round gave, medians and ranges over the rounds, and ratios of two subjects within one round.

A single run on a shared machine is worth little; two subjects in the same round had the same neighbours. So a bar is
judged by the median of the ratios of the same rounds, never by a ratio of medians.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Literal

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Spread:
    middle: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The format of a measure."""

    measure: str
    title: str
    digits: int = 1
    ranged: bool = False
    """Show the range beside the median, for what is judged; the JSON has every round of everything."""


Key = tuple[str, str]
"""Subject and measure."""


@dataclass(slots=True)
class Case:
    """One table: the measures of one setting, by round."""

    scenario: str
    name: str
    title: str
    columns: tuple[Column, ...]
    reference: tuple[str, str] | None = None
    """A measure and the subject whose value of it the others are divided by."""
    values: dict[Key, dict[int, float]] = field(default_factory=dict)

    def note(self, round_number: int, subject: str, **measures: float) -> None:
        for measure, value in measures.items():
            self.values.setdefault((subject, measure), {})[round_number] = value

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(subject for subject, _ in self.values))

    def spread(self, subject: str, measure: str) -> Spread | None:
        values = self.values.get((subject, measure))
        return Spread.of(list(values.values())) if values else None

    def ratio(self, of: Key, to: Key) -> Spread | None:
        """The ratio of two values of the same round, over the rounds that have both."""
        above, below = self.values.get(of, {}), self.values.get(to, {})
        ratios = [above[number] / below[number] for number in above if below.get(number)]
        return Spread.of(ratios) if ratios else None


class Standing(StrEnum):
    MET = "met"
    MISSED = "missed"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A demand on our own figures: a measure itself, or its ratio to another subject's in the same rounds."""

    case: str
    text: str
    measure: str
    subject: str = OURS
    against: str | None = None
    against_measure: str | None = None
    """The measure of the other subject; the same if not given."""
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    scenario: str
    bar: Bar
    found: Spread | None

    @property
    def standing(self) -> Standing:
        if self.found is None:
            return Standing.UNMEASURED
        bar, value = self.bar, self.found.middle
        within = (bar.at_most is None or value <= bar.at_most) and (bar.at_least is None or value >= bar.at_least)
        return Standing.MET if within else Standing.MISSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A note for the reader of the figures: an absent peer, a saturated load, a loss."""

    scenario: str
    kind: Literal["absent", "saturated", "failed", "wrong"]
    text: str


@dataclass(slots=True)
class Ledger:
    cases: dict[str, Case] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def case(
        self,
        scenario: str,
        name: str,
        title: str,
        columns: tuple[Column, ...],
        reference: tuple[str, str] | None = None,
    ) -> Case:
        """The table of that name, made when it is first asked for."""
        if name not in self.cases:
            self.cases[name] = Case(scenario, name, title, columns, reference)
        return self.cases[name]

    def remark(self, remark: Remark) -> None:
        if remark not in self.remarks:
            self.remarks.append(remark)

    def judge(self, scenario: str, bar: Bar) -> Verdict:
        case = self.cases.get(bar.case)
        if case is None:
            return Verdict(scenario=scenario, bar=bar, found=None)
        if bar.against is None and bar.against_measure is None:
            found = case.spread(bar.subject, bar.measure)
        else:
            found = case.ratio(
                (bar.subject, bar.measure), (bar.against or bar.subject, bar.against_measure or bar.measure)
            )
        return Verdict(scenario=scenario, bar=bar, found=found)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was lost, repeated or answered wrongly, and every turn has ended."""
        return not any(remark.kind in ("wrong", "failed") for remark in self.remarks)
