"""The simulation in CI: many seeds without a violation, the same world for the same seed, every broken rule found."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.domain.event import EventName
from app.domain.operation import Resolution
from app.sandbox.faults import FaultKind
from tests.simulation.databases import open_databases
from tests.simulation.sabotage import SABOTAGES, Sabotage
from tests.simulation.world import Report, run_world

SEEDS_AT_ONCE = 150
FIRST_SEEDS = range(0, 600, SEEDS_AT_ONCE)
ENOUGH_SEEDS = 600
"""Within which a broken rule must be found; the honest service passes all of them."""

FAULTS = {
    "bus: late",
    "bus: lost",
    "bus: repeated",
    "clock jump",
    "connection",
    "database away",
    "death after a commit",
    "death after a wallet call",
    "death at any moment",
    "death before a commit",
    "death before a wallet call",
    "late delivery",
    "long stop",
    "lost answer",
    "orderly restart",
    "unclear commit",
    *(f"wallet: {kind}" for kind in FaultKind),
}
BY_HAND = {"retry", "retry now", "retry all", *(f"resolve: {resolution}" for resolution in Resolution)}


@pytest.mark.timeout(900)  # on a busy machine; an idle one takes 15 seconds
@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_whatever_goes_wrong_the_books_agree_once_all_is_calm(first: int) -> None:
    total = Report()
    with open_databases() as databases, _garbage_kept():
        for seed in range(first, first + SEEDS_AT_ONCE):
            report = run_world(seed, databases).report
            replay = f"python -m tests.simulation --seeds 1 --trace --seed {seed}"
            assert report.violations == [], f"run it again: {replay}"
            total.add(report)
    print(total)
    # A simulation in which these no longer happen has stopped to look.
    assert FAULTS - set(total.faults) == set()
    assert set(map(str, EventName)) - set(total.events) == set()
    assert BY_HAND - set(total.by_hand) == set()
    assert total.escrows_resolved > SEEDS_AT_ONCE


def test_a_seed_is_the_same_world_every_time() -> None:
    with open_databases() as databases:
        first = [run_world(seed, databases).trace for seed in (7, 8)]
    with open_databases() as databases:
        again = [run_world(seed, databases).trace for seed in (8, 7)]
    assert first == again[::-1]
    assert first[0] != first[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: type(sabotage).__name__)
def test_a_rule_that_is_broken_on_purpose_is_found(sabotage: Sabotage) -> None:
    with open_databases(without_uniqueness=sabotage.without_uniqueness) as databases, _garbage_kept():
        for seed in range(ENOUGH_SEEDS):
            if run_world(seed, databases, sabotage).report.violations:
                return
    pytest.fail(f"{ENOUGH_SEEDS} seeds did not find it")


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Switch garbage collection off: worlds are short and full of cycles, and collecting takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
