"""Measuring what an optimisation saves: its operation with it and the plain way, by turns in one process."""

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.bench.bench import Bench
from tests.bench.optimisations.swap import Plain

PAIRS = 25
"""With and without, in a round."""

PLAIN, BACK = signal.SIGUSR1, signal.SIGUSR2
"""The signals by which a service under measurement switches to a plain way and back."""

Drive = Callable[[], float]
"""Carries an operation out, a few hundred times as a rule; returns what it has cost once."""
Switch = Callable[[str | None], None]
"""Puts the plain way in the place of the optimisation of this name (None: puts the optimisation back)."""
Begin = Callable[[Bench], AbstractContextManager[tuple[Drive, Switch]]]
"""Makes ready for an operation; cleans up at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The work that some optimisations are a part of."""

    name: str
    unit: str = "CPU µs"
    pairs: int = PAIRS
    begin: Begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    name: str
    operation: Operation
    plain: Plain


@dataclass(slots=True)
class Gain:
    """What an operation costs once, in pairs of both ways. Whatever else the machine does only adds to it, so the lower
    quartile stands for each."""

    costs: list[float] = field(default_factory=list)
    plain_costs: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        return _lower_quartile(self.costs)

    @property
    def plain_cost(self) -> float:
        return _lower_quartile(self.plain_costs)

    @property
    def saved_percent(self) -> float:
        """Of the plain cost."""
        return 100 * (1 - self.cost / self.plain_cost)


def _lower_quartile(costs: list[float]) -> float:
    return sorted(costs)[len(costs) // 4]


def measured(names: Sequence[str], drive: Drive, switch: Switch, pairs: int) -> dict[str, Gain]:
    """The gain of each of these optimisations. In every second pair the plain way comes first, so that what grows from
    one to the next favours neither."""
    gains = {name: Gain() for name in names}
    drive()
    for number in range(pairs):
        for name, gain in gains.items():
            for is_plain in (False, True) if number % 2 else (True, False):
                switch(name if is_plain else None)
                (gain.plain_costs if is_plain else gain.costs).append(drive())
    return gains
