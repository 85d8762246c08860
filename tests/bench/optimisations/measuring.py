"""Measuring what an optimisation saves: its operation with it and the plain way, by turns in one process."""

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median

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
    """What an operation costs once, in pairs of both ways."""

    costs: list[float] = field(default_factory=list)
    plain_costs: list[float] = field(default_factory=list)

    @property
    def cost(self) -> float:
        return median(self.costs)

    @property
    def plain_cost(self) -> float:
        return median(self.plain_costs)

    @property
    def saved_percent(self) -> float:
        """Of the plain cost: the median of the pairs."""
        saved = (plain - cost for cost, plain in zip(self.costs, self.plain_costs, strict=True))
        return 100 * median(saved) / self.plain_cost


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
